"""An HTTP service that answers what it was asked, for tests of clients and networks.

    GET  /get, /headers       the request's query and headers
    POST /post                the same with the body
    *    /anything[/…]        the same for every method and path
    *    /status/N            an empty answer of that status
    *    /delay/N             like /anything, after N seconds, 60 at most
    GET  /health              whether it is there
"""

import base64
import json
import re
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import parse_qs, urlsplit

PORT = 8080
BODY_BYTES_MAX = 10 << 20
DELAY_SECONDS_MAX = 60
IDLE_SECONDS_MAX = 75


class Refused(Exception):
    """A request that is answered with a status and a word."""

    def __init__(self, status, message):
        super().__init__(message)
        self.status = status


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server_version = "casemate-httpbin"
    sys_version = ""
    # A client that says nothing does not keep its thread.
    timeout = IDLE_SECONDS_MAX

    def handle_any(self):
        try:
            body = self.read_body()
            self.route(urlsplit(self.path), body)
        except Refused as refused:
            # What of the body was not read would be taken for the next request.
            self.close_connection = True
            self.answer(refused.status, {"error": str(refused)})

    do_GET = do_HEAD = do_POST = do_PUT = do_PATCH = do_DELETE = do_OPTIONS = handle_any

    def route(self, url, body):
        path = url.path
        if path == "/health":
            self.answer(200, {"status": "ok"})
        elif path == "/headers":
            self.answer(200, {"headers": dict(self.headers.items())})
        elif path in ("/get", "/post"):
            if self.command != path[1:].upper() and not (path == "/get" and self.command == "HEAD"):
                raise Refused(405, f"{path} wants {path[1:].upper()}")
            self.answer(200, self.said(url, body))
        elif path == "/anything" or path.startswith("/anything/"):
            self.answer(200, self.said(url, body))
        elif match := re.fullmatch(r"/status/([2-5][0-9]{2})", path):
            self.answer(int(match[1]), None)
        elif match := re.fullmatch(r"/delay/([0-9]{1,3}(?:\.[0-9]{1,3})?)", path):
            time.sleep(min(float(match[1]), DELAY_SECONDS_MAX))
            self.answer(200, self.said(url, body))
        else:
            raise Refused(404, f"there is no {path}")

    def read_body(self):
        if "chunked" in self.headers.get("Transfer-Encoding", "").lower():
            return self.read_chunks()
        length = self.headers.get("Content-Length", "0")
        if not re.fullmatch(r"[0-9]{1,12}", length):
            raise Refused(400, "Content-Length is no number")
        if int(length) > BODY_BYTES_MAX:
            raise Refused(413, "the body is too long")
        return self.rfile.read(int(length))

    def read_chunks(self):
        body = b""
        while True:
            line = self.rfile.readline(64).split(b";")[0].strip()
            if not re.fullmatch(rb"[0-9A-Fa-f]{1,8}", line):
                raise Refused(400, "a chunk has no length")
            length = int(line, 16)
            if length == 0:
                break
            if len(body) + length > BODY_BYTES_MAX:
                raise Refused(413, "the body is too long")
            body += self.rfile.read(length)
            self.rfile.readline(8)
        # What may follow the last chunk, up to an empty line.
        for _ in range(100):
            if self.rfile.readline(8192).strip() == b"":
                return body
        raise Refused(400, "too much follows the last chunk")

    def said(self, url, body):
        said = {
            "method": self.command,
            "path": url.path,
            "args": parse_qs(url.query, keep_blank_values=True),
            "headers": dict(self.headers.items()),
            "origin": self.client_address[0],
        }
        try:
            said["data"] = body.decode()
        except UnicodeDecodeError:
            said["data_base64"] = base64.b64encode(body).decode()
        if self.headers.get("Content-Type", "").startswith("application/json"):
            try:
                said["json"] = json.loads(body)
            except (ValueError, RecursionError):
                said["json"] = None
        return said

    def answer(self, status, value):
        content = b"" if value is None else json.dumps(value, indent=2).encode() + b"\n"
        self.send_response(status)
        # These have no body, and so no length.
        if status not in (204, 304):
            self.send_header("Content-Type", "application/json")
            self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        if self.command != "HEAD" and status not in (204, 304):
            self.wfile.write(content)

    def log_message(self, *_):
        """Nothing: nobody reads it."""


def main():
    server = ThreadingHTTPServer(("0.0.0.0", PORT), Handler)
    server.daemon_threads = True
    server.serve_forever()


if __name__ == "__main__":
    main()
