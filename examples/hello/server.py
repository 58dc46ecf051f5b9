"""A page that shows which version serves it, and notices when that changes."""

import contextlib
import html
import json
import os
import signal
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

COLOUR = "seagreen"
GREETING = "Hello from Landfall"

VERSION = os.environ.get("LANDFALL_VERSION", "dev")
COMMIT = os.environ.get("LANDFALL_COMMIT", "")[:7] or "no commit"
INSTANCE = os.environ.get("LANDFALL_INSTANCE", "by hand")
LABEL = VERSION if not VERSION.isdigit() else "v" + VERSION

PAGE = """<!doctype html>
<html lang="en">
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>%(greeting)s</title>
<link rel="icon" href="data:,">
<style>
  :root { color-scheme: light dark; --colour: %(colour)s }
  body { margin: 0; min-height: 100vh; display: grid; place-items: center;
         font: 17px/1.5 system-ui, sans-serif; background: Canvas; color: CanvasText }
  main { text-align: center; padding: 2rem }
  .disc { width: 11rem; height: 11rem; margin: 0 auto 2rem; border-radius: 50%%; background: var(--colour);
          color: white; display: grid; place-items: center; font-size: 3rem; font-weight: 650;
          text-shadow: 0 1px 6px #0006; transition: background .6s }
  h1 { font-weight: 600; margin: 0 0 .5rem }
  p { margin: .25rem 0; opacity: .75 }
  code { font: .9em ui-monospace, monospace }
  ol { list-style: none; margin: 2rem auto 0; padding: 0; min-height: 6rem; font-size: .9rem; opacity: .75 }
</style>
<main>
  <div class="disc" id="version" aria-live="polite">%(label)s</div>
  <h1>%(greeting)s</h1>
  <p>commit <code id="commit">%(commit)s</code></p>
  <p>asked <span id="asked">0</span> times, <span id="lost">0</span> unanswered</p>
  <ol id="seen"></ol>
</main>
<script>
  let shown = %(state)s, asked = 0, lost = 0;
  const at = id => document.getElementById(id);
  async function look() {
    asked++;
    try {
      const now = await (await fetch("/version", {cache: "no-store"})).json();
      if (now.label !== shown.label) {
        const line = document.createElement("li");
        line.textContent = new Date().toLocaleTimeString() + "  " + shown.label + " \\u2192 " + now.label;
        at("seen").prepend(line);
        document.documentElement.style.setProperty("--colour", now.colour);
        at("version").textContent = now.label;
        at("commit").textContent = now.commit;
        document.querySelector("h1").textContent = document.title = now.greeting;
        shown = now;
      }
    } catch { lost++; }
    at("asked").textContent = asked;
    at("lost").textContent = lost;
  }
  setInterval(look, 1000);
</script>
"""

STATE = {"label": LABEL, "commit": COMMIT, "colour": COLOUR, "greeting": GREETING, "instance": INSTANCE}


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"  # keep-alive

    def do_GET(self):
        with self.server.at_work():
            self.get()

    def get(self):
        path = self.path.split("?")[0]
        if path == "/":
            shown = {key: html.escape(value) for key, value in STATE.items()}
            # `<` inside the script could end it; JSON has another way to write it.
            shown["state"] = json.dumps(STATE).replace("<", "\\u003c")
            self.answer(200, "text/html; charset=utf-8", PAGE % shown)
        elif path == "/version":
            self.answer(200, "application/json", json.dumps(STATE))
        elif path == "/healthz":
            self.answer(200, "text/plain", "ok\n")
        else:
            self.answer(404, "text/plain", "not here\n")

    def answer(self, status, kind, text):
        body = text.encode()
        self.send_response(status)
        self.send_header("Content-Type", kind)
        self.send_header("Content-Length", str(len(body)))
        self.send_header("Cache-Control", "no-store")
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


server = Server((os.environ.get("HOST", "127.0.0.1"), int(os.environ.get("PORT", "8000"))), Handler)
# SIGTERM comes after the traffic has gone elsewhere; `shutdown` waits for the loop, so not in its thread.
signal.signal(signal.SIGTERM, lambda *_: threading.Thread(target=server.shutdown).start())
print(f"hello {LABEL} ({COMMIT}) listens on port {server.server_port}", flush=True)
server.serve_forever(poll_interval=0.1)
server.server_close()
server.finish(seconds=8)
print("hello: done", flush=True)
