"""Says its greeting, and which version of it this is."""

import os
import signal
import sys
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

GREETING = Path("greeting.txt").read_text().strip()


class Handler(BaseHTTPRequestHandler):
    def do_GET(self):
        body = f"{GREETING} from version {os.environ['LANDFALL_VERSION']}\n".encode()
        self.send_response(200)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)


# Process 1 of a container gets only the signals that it handles.
signal.signal(signal.SIGTERM, lambda *_: sys.exit(0))
ThreadingHTTPServer((os.environ["HOST"], int(os.environ["PORT"])), Handler).serve_forever()
