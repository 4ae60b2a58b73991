"""The service behind this example (port 9001): it says what it was asked, and for whom."""

import http.server


class Web(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def do_GET(self):
        who = self.headers["x-client"] or self.headers["x-user"] or "anybody"
        text = f"web: {self.command} {self.path} for {who}\n"
        if self.path == "/catalogue":
            text *= 100
        self.send_response(200)
        self.send_header("content-type", "text/plain")
        self.send_header("content-length", str(len(text.encode())))
        self.end_headers()
        self.wfile.write(text.encode())

    do_PUT = do_GET


http.server.ThreadingHTTPServer(("127.0.0.1", 9001), Web).serve_forever()
