"""Runs one Python function as an HTTP server on $PORT: loaded once, kept warm, called by POST.

Started by Landfall as `python3 worker.py FILE:FUNCTION` in the app's directory. Python 3.9 or newer, standard library
only. What a call prints is written line by line with the call's identifier before it (RS id US text), so that each
line can be found by its call.

A call is `POST /` with the headers Landfall-Call, Landfall-Attempt and Landfall-Deadline. The connection carries one
call at a time. The port accepts connections only once the file is loaded.
"""

import asyncio
import concurrent.futures
import contextvars
import functools
import importlib.util
import inspect
import io
import json
import logging
import os
import signal
import sys
import threading
import traceback

CALL = contextvars.ContextVar("landfall_call", default=None)
LARGEST_HEAD = 64 * 1024
SHORTEST_MASKED = 6


class Tagged(io.TextIOBase):
    """Standard output or error: whole lines, each tagged with the call that wrote it."""

    encoding = "utf-8"
    errors = "backslashreplace"

    def __init__(self, descriptor):
        self.descriptor = descriptor
        self.lock = threading.Lock()
        self.unfinished = {}

    def writable(self):
        return True

    def fileno(self):
        return self.descriptor

    def isatty(self):
        return False

    def write(self, text):
        call = CALL.get()
        with self.lock:
            whole, newline, rest = (self.unfinished.pop(call, "") + text).rpartition("\n")
            if rest:
                self.unfinished[call] = rest
            if newline:
                self.put(call, whole.split("\n"))
        return len(text)

    def finish(self, call):
        """The call is over: what it wrote without a last newline is a line too."""
        with self.lock:
            rest = self.unfinished.pop(call, None)
            if rest:
                self.put(call, [rest])

    def put(self, call, lines):
        tag = "" if call is None else "\x1e" + call + "\x1f"
        data = "".join(tag + line + "\n" for line in lines).encode("utf-8", "backslashreplace")
        while data:
            data = data[os.write(self.descriptor, data):]


OUT = Tagged(1)
ERR = Tagged(2)


def load(wanted):
    """The function that was asked for. Ends the process with the reason when there is none."""
    file, _, name = wanted.rpartition(":")
    path = os.path.abspath(file)
    sys.path[0] = os.getcwd()
    if os.path.dirname(path) not in sys.path:
        sys.path.insert(1, os.path.dirname(path))
    module_name = os.path.splitext(os.path.basename(path))[0]
    try:
        spec = importlib.util.spec_from_file_location(module_name, path)
        module = importlib.util.module_from_spec(spec)
        sys.modules[module_name] = module
        spec.loader.exec_module(module)
    except SystemExit:
        raise
    except BaseException as error:
        sys.stderr.write(told(error)[2])
        leave(f"{file} cannot be loaded: {type(error).__name__}: {error}")
    function = getattr(module, name, None)
    if function is None:
        own = sorted(n for n, v in vars(module).items() if inspect.isfunction(v) and v.__module__ == module_name)
        leave(f"{file} has no function `{name}`; it has: {', '.join(own) or 'none'}")
    if not callable(function):
        leave(f"`{name}` in {file} is not a function")
    return function


def leave(reason):
    sys.stderr.write(reason + "\n")
    sys.stderr.flush()
    ERR.finish(None)
    os._exit(1)


def secrets():
    """The lines of this instance's secrets that are long enough to be known again, the longest first."""
    values = [os.environ.get(name, "") for name in os.environ.get("LANDFALL_SECRETS", "").split(",")]
    for name in os.environ.get("LANDFALL_SECRET_FILES", "").split(","):
        try:
            with open(os.environ[name], encoding="utf-8", errors="replace") as file:
                values.append(file.read())
        except (KeyError, OSError):
            pass
    lines = {line for value in values for line in value.splitlines() if len(line) >= SHORTEST_MASKED}
    return sorted(lines, key=len, reverse=True)


SECRETS = secrets()


def masked(text):
    """A text that others read than the author: without values of secrets."""
    for line in SECRETS:
        text = text.replace(line, "[redacted]")
    return text


def told(error):
    """Type, message and traceback of an error, beginning with the first frame of the author's."""
    frames, own = error.__traceback__, error.__traceback__
    while frames is not None:
        file = frames.tb_frame.f_code.co_filename
        frames = frames.tb_next
        if file == __file__ or file.startswith("<frozen importlib"):
            own = frames
    text = "".join(traceback.format_exception(type(error), error, own))
    kind, message = type(error).__name__, str(error)
    if isinstance(error, MemoryError):
        kind, message = "out_of_memory", ": ".join(filter(None, (kind, message))) + "; " + memory()
    return kind, message, text


def memory():
    """What is to be said of memory where there was not enough."""
    limit = os.environ.get("LANDFALL_MEMORY")
    if limit:
        return "`resources.memory` of the function is %s: raise it, or take less at once" % limit
    return "the function has no `resources.memory`: the machine has no more"


def arguments(kind, body):
    """What a body means as arguments: an object names them, an array lists them, anything else is the only one."""
    if kind == "application/octet-stream":
        return (body,), {}
    if not body:
        return (), {}
    try:
        value = json.loads(body)
    except ValueError as error:
        raise BadBody(f"the body is not JSON: {error}; send bytes as application/octet-stream") from None
    if isinstance(value, dict):
        return (), value
    if isinstance(value, list):
        return tuple(value), {}
    return (value,), {}


class BadBody(Exception):
    """The body cannot be made into arguments."""


def encode(value):
    """A result as content type and bytes."""
    if isinstance(value, (bytes, bytearray, memoryview)):
        return b"application/octet-stream", bytes(value)
    return b"application/json", json.dumps(value, ensure_ascii=False).encode()


class Runner:
    """The loaded function and what its calls need."""

    def __init__(self, function, concurrency):
        self.function = function
        unwrapped = inspect.unwrap(function)
        called = getattr(unwrapped, "__call__", None)
        self.is_async = inspect.iscoroutinefunction(unwrapped) or inspect.iscoroutinefunction(called)
        self.streams_async = inspect.isasyncgenfunction(unwrapped)
        self.threads = concurrent.futures.ThreadPoolExecutor(concurrency, "call")
        self.running = set()
        self.leaving = False

    async def call(self, connection, kind, body):
        try:
            positional, named = arguments(kind, body)
            if self.streams_async:
                return await self.send_async(connection, self.function(*positional, **named))
            if self.is_async:
                value = await self.function(*positional, **named)
            else:
                context = contextvars.copy_context()
                work = functools.partial(context.run, self.in_thread, connection, positional, named)
                value = await connection.loop.run_in_executor(self.threads, work)
                if value is STREAMED:
                    return None
            if inspect.isawaitable(value):
                value = await value
            if inspect.isasyncgen(value):
                return await self.send_async(connection, value)
            return connection.answer(200, *encode(value))
        except asyncio.CancelledError:
            return None
        except BaseException as error:
            return connection.fail(error)

    def in_thread(self, connection, positional, named):
        value = self.function(*positional, **named)
        if not inspect.isgenerator(value):
            return value
        # Each piece is sent before the next is asked for, so a slow reader holds the generator up and not the memory.
        loop = connection.loop
        try:
            for piece in value:
                asyncio.run_coroutine_threadsafe(connection.piece(piece), loop).result()
        except Gone:
            value.close()
        asyncio.run_coroutine_threadsafe(connection.end_pieces(), loop).result()
        return STREAMED

    async def send_async(self, connection, pieces):
        try:
            async for piece in pieces:
                await connection.piece(piece)
        except Gone:
            await pieces.aclose()
        await connection.end_pieces()


STREAMED = object()


class Gone(Exception):
    """Nobody reads the answer any more."""


REASONS = {200: b"OK", 400: b"Bad Request", 405: b"Method Not Allowed", 500: b"Internal Server Error"}


class Connection(asyncio.Protocol):
    """One connection of the proxy: a call, its answer, the next call."""

    def __init__(self, runner):
        self.runner = runner
        self.loop = asyncio.get_running_loop()
        self.transport = None
        self.buffer = bytearray()
        self.head = None
        self.chunks = None
        self.task = None
        self.streaming = False
        self.room = asyncio.Event()
        self.room.set()

    def connection_made(self, transport):
        self.transport = transport

    def connection_lost(self, error):
        self.transport = None
        self.room.set()
        if self.task is not None:
            # Stops a coroutine; a thread runs to its end and its result is thrown away.
            self.task.cancel()

    def pause_writing(self):
        self.room.clear()

    def resume_writing(self):
        self.room.set()

    def data_received(self, data):
        self.buffer += data
        if self.task is None:
            self.next_call()

    def next_call(self):
        """Begins the next call once it is here whole."""
        if self.head is None and not self.read_head():
            return
        method, headers = self.head
        body = self.read_body(headers)
        if body is None:
            return
        self.head = None
        if method != b"POST":
            self.answer(405, b"text/plain", b"calls are made by POST\n")
            return
        CALL.set(headers.get(b"landfall-call", b"").decode("latin-1") or None)
        kind = headers.get(b"content-type", b"").split(b";")[0].strip().lower().decode("latin-1")
        self.streaming = False
        self.task = self.loop.create_task(self.runner.call(self, kind, body))
        self.runner.running.add(self.task)
        self.task.add_done_callback(lambda task, call=CALL.get(): self.called(task, call))

    def called(self, task, call):
        OUT.finish(call)
        ERR.finish(call)
        self.runner.running.discard(task)
        self.task = None
        if self.runner.leaving:
            self.close()
        elif self.transport is not None and self.buffer:
            self.next_call()

    def read_head(self):
        end = self.buffer.find(b"\r\n\r\n")
        if end < 0:
            if len(self.buffer) > LARGEST_HEAD:
                self.close()
            return False
        lines = bytes(self.buffer[:end]).split(b"\r\n")
        del self.buffer[:end + 4]
        headers = {}
        for line in lines[1:]:
            name, _, value = line.partition(b":")
            headers[name.strip().lower()] = value.strip()
        self.head = lines[0].split(b" ")[0], headers
        self.chunks = bytearray() if b"chunked" in headers.get(b"transfer-encoding", b"").lower() else None
        return True

    def read_body(self, headers):
        if self.chunks is not None:
            return self.read_chunks()
        length = int(headers.get(b"content-length", b"0") or b"0")
        if len(self.buffer) < length:
            return None
        body = bytes(self.buffer[:length])
        del self.buffer[:length]
        return body

    def read_chunks(self):
        while True:
            end = self.buffer.find(b"\r\n")
            if end < 0:
                return None
            size = int(bytes(self.buffer[:end]).split(b";")[0], 16)
            if size == 0:
                # Trailers, if any, end with an empty line.
                last = self.buffer.find(b"\r\n\r\n", end)
                if last < 0:
                    return None
                del self.buffer[:last + 4]
                return bytes(self.chunks)
            if len(self.buffer) < end + 2 + size + 2:
                return None
            self.chunks += self.buffer[end + 2:end + 2 + size]
            del self.buffer[:end + 2 + size + 2]

    def answer(self, status, kind, body, more=b""):
        if self.transport is not None:
            self.transport.write(
                b"HTTP/1.1 %d %s\r\nContent-Type: %s\r\nContent-Length: %d\r\n%s\r\n%s"
                % (status, REASONS[status], kind, len(body), more, body)
            )

    def fail(self, error):
        kind, message, text = told(error)
        message, text = masked(message), masked(text)
        sys.stderr.write(text)
        if self.streaming:
            # The head has gone: only an answer that ends too early can still say that it failed.
            self.close()
            return
        status = 400 if isinstance(error, BadBody) else 500
        body = json.dumps({"type": kind, "message": message, "traceback": text}).encode()
        self.answer(status, b"application/json", body, b"Landfall-Error: 1\r\n")

    async def piece(self, value):
        kind, line = encode(value)
        if self.transport is None:
            raise Gone()
        if not self.streaming:
            self.begin_pieces(b"application/octet-stream" if kind != b"application/json" else b"application/x-ndjson")
        if kind == b"application/json":
            line += b"\n"
        if line:
            self.transport.write(b"%x\r\n%s\r\n" % (len(line), line))
        await self.room.wait()

    def begin_pieces(self, kind):
        self.streaming = True
        self.transport.write(
            b"HTTP/1.1 200 OK\r\nContent-Type: %s\r\nTransfer-Encoding: chunked\r\n\r\n" % kind
        )

    async def end_pieces(self):
        if self.transport is None:
            return
        if not self.streaming:
            self.begin_pieces(b"application/x-ndjson")
        self.transport.write(b"0\r\n\r\n")
        self.streaming = False

    def close(self):
        if self.transport is not None:
            self.transport.close()


async def serve(function):
    runner = Runner(function, int(os.environ.get("LANDFALL_CONCURRENCY", "1")))
    loop = asyncio.get_running_loop()
    host, port = os.environ.get("HOST", "127.0.0.1"), int(os.environ["PORT"])
    server = await loop.create_server(lambda: Connection(runner), host, port, backlog=1024)
    over = asyncio.Event()
    loop.add_signal_handler(signal.SIGTERM, over.set)
    loop.add_signal_handler(signal.SIGINT, over.set)
    await over.wait()
    runner.leaving = True
    server.close()
    if runner.running:
        await asyncio.wait(set(runner.running))


def main():
    if sys.version_info < (3, 9):
        sys.exit("Landfall's worker needs Python 3.9 or newer, this is " + sys.version.split()[0])
    sys.stdout, sys.stderr = OUT, ERR
    logging.basicConfig(level=logging.INFO, format="%(levelname)s %(name)s: %(message)s")
    function = load(sys.argv[1])
    asyncio.run(serve(function))
    # Threads of calls that were given up must not hold up the end.
    os._exit(0)


if __name__ == "__main__":
    main()
