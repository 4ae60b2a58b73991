"""The application (port 9001) and the token service (port 9002) of this example."""

import http.server
import json
import threading

PEOPLE = {"Bearer of-ann": {"user": "Ann", "groups": ["staff"]}, "Bearer of-bob": {"user": "Bob", "groups": []}}


class Application(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        answer(self, 200, f"Good morning, {self.headers['x-user']}.\n")


class Tokens(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        person = PEOPLE.get(self.headers["authorization"])
        answer(self, 200 if person else 404, json.dumps(person))


def answer(handler, status, text):
    handler.send_response(status)
    handler.send_header("content-length", str(len(text.encode())))
    handler.end_headers()
    handler.wfile.write(text.encode())


for port, handler in [(9001, Application), (9002, Tokens)]:
    server = http.server.ThreadingHTTPServer(("127.0.0.1", port), handler)
    threading.Thread(target=server.serve_forever).start()
