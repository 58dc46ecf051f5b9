"""A guestbook: entries are JSON lines in a volume; open pages hear of new ones by server-sent events."""

import contextlib
import datetime
import fcntl
import html
import json
import os
import signal
import threading
import urllib.parse
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

VOLUME = os.environ.get("LANDFALL_VOLUME_DATA", ".")
BOOK = os.path.join(VOLUME, "entries.jsonl")
VERSION = os.environ.get("LANDFALL_VERSION", "dev")
SHOWN = 50  # newest entries on the page
MOST = 4096  # bytes of a form

PAGE = """<!doctype html>
<html lang="en">
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>Guestbook</title>
<link rel="icon" href="data:,">
<style>
  :root { color-scheme: light dark }
  body { max-width: 36rem; margin: 3rem auto; padding: 0 1rem;
         font: 17px/1.5 system-ui, sans-serif; background: Canvas; color: CanvasText }
  form { display: grid; gap: .6rem; grid-template-columns: 10rem 1fr auto }
  input, button { font: inherit; padding: .5rem .7rem; border-radius: .5rem; border: 1px solid #8886; min-width: 0 }
  button { background: royalblue; color: white; border: 0; cursor: pointer }
  ul { list-style: none; padding: 0 }
  li { padding: .7rem 0; border-bottom: 1px solid #8883; overflow-wrap: anywhere }
  time, footer { opacity: .6; font-size: .8rem }
  @media (max-width: 30rem) { form { grid-template-columns: 1fr } }
</style>
<h1>Guestbook</h1>
<form method="post" action="/">
  <input name="name" placeholder="Name" aria-label="Name" maxlength="40" required>
  <input name="text" placeholder="A line for the book" aria-label="Entry" maxlength="280" required autofocus>
  <button>Sign</button>
</form>
<ul id="book">{entries}</ul>
<footer>version {version}, instance {instance}</footer>
<script>
  const book = document.getElementById("book");
  const news = new EventSource("/news?after={after}");
  news.onmessage = message => {
    const seen = JSON.parse(message.data);
    if (!document.getElementById(seen.id)) book.insertAdjacentHTML("afterbegin", seen.html);
  };
</script>
"""

stopping = threading.Event()


def entries(start=0):
    """Entries from byte `start` on with their places, and the place after the last one."""
    try:
        with open(BOOK, "rb") as book:
            fcntl.flock(book, fcntl.LOCK_SH)
            book.seek(start)
            lines = book.read().splitlines(keepends=True)
    except FileNotFoundError:
        return [], start
    found = []
    for line in lines:
        found.append((start, json.loads(line)))
        start += len(line)
    return found, start


def sign(name, text):
    now = datetime.datetime.now(datetime.timezone.utc)
    line = json.dumps({"at": now.strftime("%Y-%m-%d %H:%M UTC"), "name": name, "text": text}) + "\n"
    with open(BOOK, "ab") as book:
        fcntl.flock(book, fcntl.LOCK_EX)
        book.write(line.encode())
        book.flush()
        os.fsync(book.fileno())


def as_html(place, entry):
    said = {key: html.escape(str(entry.get(key, ""))) for key in ("name", "text", "at")}
    return f'<li id="e{place}"><b>{said["name"]}</b> {said["text"]}<br><time>{said["at"]}</time></li>'


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"  # keep-alive

    def do_GET(self):
        path = self.path.split("?")[0]
        if path == "/news":
            self.news()
            return
        with self.server.at_work():
            if path == "/":
                all_of_them, end = entries()
                newest = all_of_them[-SHOWN:][::-1]
                page = PAGE.replace("{version}", html.escape(VERSION))
                page = page.replace("{instance}", html.escape(os.environ.get("LANDFALL_INSTANCE", "by hand")))
                page = page.replace("{after}", str(end))
                self.answer(200, "text/html", page.replace("{entries}", "".join(as_html(*each) for each in newest)))
            elif path == "/healthz":
                self.answer(200, "text/plain", "ok\n")
            else:
                self.answer(404, "text/plain", "not here\n")

    def do_POST(self):
        with self.server.at_work():
            length = int(self.headers.get("Content-Length") or 0)
            if length > MOST:
                self.close_connection = True
                self.answer(413, "text/plain", f"at most {MOST} bytes, please\n")
                return
            form = urllib.parse.parse_qs(self.rfile.read(length).decode(errors="replace"))
            name, text = (form.get(key, [""])[0].strip() for key in ("name", "text"))
            if not name or not text:
                self.answer(400, "text/plain", "a name and a line, please\n")
                return
            sign(name[:40], text[:280])
            self.answer(303, "text/plain", "thank you\n", Location="/")

    def news(self):
        """New entries as they come, whichever instance wrote them. A browser comes back after an end."""
        self.send_response(200)
        self.send_header("Content-Type", "text/event-stream")
        self.send_header("Cache-Control", "no-store")
        self.send_header("Connection", "close")
        self.end_headers()
        self.close_connection = True
        # Where the page, or the connection before this one, left off.
        asked = urllib.parse.parse_qs(self.path.partition("?")[2]).get("after", ["0"])[0]
        after = self.headers.get("Last-Event-ID") or asked
        place = int(after) if after.isdecimal() else 0
        quiet = 0
        try:
            self.wfile.write(b"retry: 500\n\n")
            while not stopping.wait(0.5):
                fresh, place = entries(place)
                for where, entry in fresh:
                    data = json.dumps({"id": f"e{where}", "html": as_html(where, entry)})
                    self.wfile.write(f"id: {place}\ndata: {data}\n\n".encode())
                quiet = 0 if fresh else quiet + 1
                if quiet % 30 == 29:
                    self.wfile.write(b": still here\n\n")
        except OSError:
            pass  # the page was closed

    def answer(self, status, kind, text, **headers):
        body = text.encode()
        self.send_response(status)
        self.send_header("Content-Type", kind + "; charset=utf-8")
        self.send_header("Content-Length", str(len(body)))
        for name, value in headers.items():
            self.send_header(name, value)
        self.end_headers()
        self.wfile.write(body)

    def log_request(self, code="-", size="-"):
        pass  # the agent's access log has it


class Server(ThreadingHTTPServer):
    request_queue_size = 128
    daemon_threads = True  # idle keep-alive connections must not hold up the end ...
    requests = 0
    changed = threading.Condition()

    @contextlib.contextmanager
    def at_work(self):
        with self.changed:
            self.requests += 1
        try:
            yield
        finally:
            with self.changed:
                self.requests -= 1
                self.changed.notify_all()

    def finish(self, seconds):  # ... but requests under way are finished
        with self.changed:
            self.changed.wait_for(lambda: self.requests == 0, seconds)


def stop(*_):
    stopping.set()
    # `shutdown` waits for the loop below, so not in its thread.
    threading.Thread(target=server.shutdown).start()


server = Server((os.environ.get("HOST", "127.0.0.1"), int(os.environ.get("PORT", "8000"))), Handler)
signal.signal(signal.SIGTERM, stop)
print(f"guestbook {VERSION} listens on port {server.server_port}, entries in {BOOK}", flush=True)
server.serve_forever(poll_interval=0.1)
server.server_close()
server.finish(seconds=8)
print("guestbook: done", flush=True)
