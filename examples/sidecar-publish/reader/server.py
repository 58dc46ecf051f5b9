"""An app that knows nothing of Landfall: it serves the pages it finds at a path, and reads them again when it is told."""

import json
import os
import signal
import sys
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

TREE = "/srv/site/current"
pages = {}


def load():
    """One tree for all that is read of it, whatever the link says a moment later."""
    global pages
    with open(os.path.join(os.path.realpath(TREE), "pages.json")) as file:
        pages = json.load(file)


class Handler(BaseHTTPRequestHandler):
    def do_GET(self):
        if self.path == "/healthz":
            self.answer(200 if pages else 503, "ready" if pages else "nothing is published yet")
        elif self.path in pages:
            self.answer(200, pages[self.path])
        else:
            self.answer(404, "no such page")

    def do_POST(self):
        self.rfile.read(int(self.headers.get("Content-Length", 0)))
        try:
            load()
        except (OSError, ValueError) as error:
            self.answer(500, str(error))
        else:
            self.answer(200, "read again")

    def answer(self, status, text):
        body = f"{text}\n".encode()
        self.send_response(status)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)


signal.signal(signal.SIGTERM, lambda *_: sys.exit(0))
try:
    load()
except OSError:
    pass  # Nothing is published yet; we are told when there is.
ThreadingHTTPServer(("0.0.0.0", 8000), Handler).serve_forever()
