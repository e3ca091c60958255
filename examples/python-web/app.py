"""A web service that greets, with the standard library alone."""

import json
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import parse_qs, urlsplit


class Handler(BaseHTTPRequestHandler):
    def do_GET(self):
        names = parse_qs(urlsplit(self.path).query).get("name", ["world"])
        content = json.dumps({"hello": names[0]}).encode()
        self.send_response(200)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        self.wfile.write(content)


ThreadingHTTPServer(("0.0.0.0", 8000), Handler).serve_forever()
