"""The application (port 9001) and the service that decides (port 9002) of this example."""

import http.server
import threading

PEOPLE = {"Bearer of-ann": "Ann", "Bearer of-bob": "Bob"}


class Application(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        answer(self, 200, f"Good morning, {self.headers['x-user']}.\n")


class Policy(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        user = PEOPLE.get(self.headers["authorization"])
        path = self.headers["x-forwarded-uri"].partition("?")[0]
        if user is None:
            answer(self, 401, "who are you?\n", ("www-authenticate", "Bearer"))
        elif user == "Bob" and path != "/news":
            answer(self, 403, "Bob may only read the news\n")
        else:
            answer(self, 200, "", ("x-user", user))


def answer(handler, status, text, *fields):
    handler.send_response(status)
    for name, value in fields:
        handler.send_header(name, value)
    handler.send_header("content-length", str(len(text.encode())))
    handler.end_headers()
    handler.wfile.write(text.encode())


for port, handler in [(9001, Application), (9002, Policy)]:
    server = http.server.ThreadingHTTPServer(("127.0.0.1", port), handler)
    threading.Thread(target=server.serve_forever).start()
