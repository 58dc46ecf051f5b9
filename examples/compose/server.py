"""Greets, and counts its visitors in the store."""

import os
import signal
import socket
import sys
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer


def count():
    """One visitor more. The store's protocol is lines of text: `:42` answers INCR."""
    with socket.create_connection(("store", 6379), timeout=5) as store:
        store.sendall(b"INCR visitors\r\n")
        return int(store.makefile().readline().lstrip(":"))


class Greeter(BaseHTTPRequestHandler):
    def do_GET(self):
        body = f"{os.environ['GREETING']}, visitor {count()}\n".encode()
        self.send_response(200)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)


signal.signal(signal.SIGTERM, lambda *_: sys.exit(0))
ThreadingHTTPServer(("0.0.0.0", 8000), Greeter).serve_forever()
