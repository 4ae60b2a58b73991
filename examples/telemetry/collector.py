#!/usr/bin/env python3
"""A server to be observed (port 9001), and a stand-in for a collector of OpenTelemetry (port 4318) that says what came.

A real collector or any other receiver of OTLP takes its place: Meshgate needs no more than its address.
"""

from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from threading import Thread


class Reviews(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def do_GET(self):
        body = f"reviews: GET {self.path}\n".encode()
        self.send_response(200)
        self.send_header("content-length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_):
        pass


class Collector(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def do_POST(self):
        body = self.rfile.read(int(self.headers["content-length"]))
        print(f"{self.path}: {len(body)} bytes", flush=True)
        self.send_response(200)
        self.send_header("content-length", "0")
        self.end_headers()

    def log_message(self, *_):
        pass


Thread(target=ThreadingHTTPServer(("127.0.0.1", 9001), Reviews).serve_forever, daemon=True).start()
ThreadingHTTPServer(("127.0.0.1", 4318), Collector).serve_forever()
