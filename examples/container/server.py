"""Counts its visitors in a volume, and says which version answers."""

import os
import signal
import sys
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

COUNT = Path(os.environ["LANDFALL_VOLUME_DATA"]) / "count"


class Handler(BaseHTTPRequestHandler):
    def do_GET(self):
        seen = int(COUNT.read_text()) + 1 if COUNT.exists() else 1
        COUNT.write_text(str(seen))
        body = f"visit {seen}, answered by version {os.environ['LANDFALL_VERSION']}\n".encode()
        self.send_response(200)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)


# Process 1 of a container gets only the signals that it handles.
signal.signal(signal.SIGTERM, lambda *_: sys.exit(0))
ThreadingHTTPServer((os.environ["HOST"], int(os.environ["PORT"])), Handler).serve_forever()
