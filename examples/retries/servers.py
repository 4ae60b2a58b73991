"""The service of this example: three servers, of which the one on port 9001 fails."""

import http.server
import threading


class Server(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def do_GET(self):
        fails = self.server.server_port == 9001
        text = f"orders: {self.command} {self.path}\n".encode()
        self.send_response(503 if fails else 200)
        self.send_header("content-length", str(len(text)))
        self.end_headers()
        self.wfile.write(text)

    do_POST = do_GET


for port in [9001, 9002, 9003]:
    server = http.server.ThreadingHTTPServer(("127.0.0.1", port), Server)
    threading.Thread(target=server.serve_forever).start()
