"""An HTTP service that answers what it was asked, for tests of clients and networks.

    GET  /get, /headers       the request's query and headers
    *    /post, /put, /patch, /delete   the same with the body, each for its own method
    *    /anything[/…]        the same for every method and path
    *    /status/N            an empty answer of that status
    *    /delay/N             like /anything, after N seconds, 60 at most
    *    /response-headers    with the headers that the query names
    GET  /redirect/N          N redirects on the way to /get, 20 at most
    GET  /redirect-to?url=U   one redirect to there; &status_code=N says of which kind
    GET  /bytes/N             N bytes, 100 MiB at most; ?seed=N for always the same
    GET  /stream/N            N lines in as many chunks, 1000 at most
    GET  /drip?duration=S&numbytes=N   N bytes over S seconds
    GET  /basic-auth/U/P      whether that user and password were given
    GET  /cookies[/set?N=V]   the request's cookies, or such are set
    GET  /gzip, /ip, /uuid, /user-agent
    GET  /health              whether it is there

Bodies of requests have 10 MiB at most.
"""

import base64
import gzip
import json
import random
import re
import time
import uuid
from http.cookies import CookieError, SimpleCookie
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import parse_qs, parse_qsl, urlsplit

PORT = 8080
BODY_BYTES_MAX = 10 << 20
# Of a body that is too long, so many bytes are read on before the connection is closed: a client that
# still writes does not see the answer.
LEFT_BYTES_MAX = 64 << 20
DELAY_SECONDS_MAX = 60
IDLE_SECONDS_MAX = 75
ANSWER_BYTES_MAX = 100 << 20
PIECE_BYTES = 64 << 10
STREAM_LINES_MAX = 1000
REDIRECTS_MAX = 20
BODILESS = (204, 304)


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

    do_GET = do_HEAD = do_POST = do_PUT = do_PATCH = do_DELETE = do_OPTIONS = do_TRACE = handle_any

    def route(self, url, body):
        for pattern, methods, handler in ROUTES:
            if match := re.fullmatch(pattern, url.path):
                if methods and self.command not in methods:
                    raise Refused(405, f"{url.path} wants {' or '.join(methods)}")
                return handler(self, url, body, *match.groups())
        raise Refused(404, f"there is no {url.path}")

    def one(self, url, name, default, pattern):
        """A value of the query."""
        value = dict(parse_qsl(url.query)).get(name, default)
        if not re.fullmatch(pattern, value):
            raise Refused(400, f"{name} is not what it can be")
        return value

    def health(self, url, body):
        self.answer(200, {"status": "ok"})

    def only_headers(self, url, body):
        self.answer(200, {"headers": dict(self.headers.items())})

    def echo(self, url, body, *_):
        self.answer(200, self.said(url, body))

    def status(self, url, body, status):
        self.answer(int(status), None)

    def delay(self, url, body, seconds):
        time.sleep(min(float(seconds), DELAY_SECONDS_MAX))
        self.answer(200, self.said(url, body))

    def response_headers(self, url, body):
        headers = parse_qsl(url.query, keep_blank_values=True)
        for name, value in headers:
            if not re.fullmatch(r"[A-Za-z0-9-]{1,64}", name) or re.search(r"[^\t\x20-\x7e]", value):
                raise Refused(400, "that is no header")
            if name.lower() in ("content-length", "transfer-encoding", "connection"):
                raise Refused(400, f"{name} is the service's own")
        self.answer(200, dict(headers), headers)

    def redirect(self, url, body, number):
        left = int(number) - 1
        if left >= REDIRECTS_MAX:
            raise Refused(400, f"at most {REDIRECTS_MAX} redirects")
        self.answer(302, None, [("Location", f"/redirect/{left}" if left > 0 else "/get")])

    def redirect_to(self, url, body):
        target = self.one(url, "url", "", r"[\x21-\x7e]{1,2000}")
        status = int(self.one(url, "status_code", "302", r"30[12378]"))
        self.answer(status, None, [("Location", target)])

    def some_bytes(self, url, body, number):
        if int(number) > ANSWER_BYTES_MAX:
            raise Refused(400, f"at most {ANSWER_BYTES_MAX} bytes")
        source = random.Random(int(self.one(url, "seed", str(time.time_ns()), r"[0-9]{1,20}")))
        self.begin(200, [("Content-Type", "application/octet-stream"), ("Content-Length", number)])
        left = int(number)
        while left > 0 and self.command != "HEAD":
            self.wfile.write(source.randbytes(PIECE_BYTES)[:left])
            left -= PIECE_BYTES

    def stream(self, url, body, number):
        if int(number) > STREAM_LINES_MAX:
            raise Refused(400, f"at most {STREAM_LINES_MAX} lines")
        line = self.said(url, body)
        lines = (json.dumps({**line, "id": at}).encode() + b"\n" for at in range(int(number)))
        self.in_chunks(lines)

    def drip(self, url, body):
        seconds = float(self.one(url, "duration", "2", r"[0-9]{1,2}(\.[0-9]{1,3})?"))
        number = int(self.one(url, "numbytes", "10", r"[0-9]{1,4}"))
        if seconds > DELAY_SECONDS_MAX:
            raise Refused(400, f"at most {DELAY_SECONDS_MAX} seconds")

        def pieces():
            for _ in range(number):
                time.sleep(seconds / number)
                yield b"*"

        self.in_chunks(pieces())

    def basic_auth(self, url, body, user, password):
        given = base64.b64encode(f"{user}:{password}".encode()).decode()
        if self.headers.get("Authorization") == f"Basic {given}":
            return self.answer(200, {"authenticated": True, "user": user})
        self.answer(401, None, [("WWW-Authenticate", 'Basic realm="httpbin"')])

    def cookies(self, url, body):
        try:
            found = SimpleCookie(self.headers.get("Cookie", ""))
        except CookieError:
            raise Refused(400, "these are no cookies") from None
        self.answer(200, {"cookies": {name: each.value for name, each in found.items()}})

    def set_cookies(self, url, body):
        made = [(name, value) for name, value in parse_qsl(url.query)]
        if not all(re.fullmatch(r"[A-Za-z0-9_.-]{1,200}", text) for pair in made for text in pair):
            raise Refused(400, "these are no cookies")
        headers = [("Set-Cookie", f"{name}={value}; Path=/") for name, value in made]
        self.answer(302, None, [("Location", "/cookies"), *headers])

    def packed(self, url, body):
        content = gzip.compress(json.dumps({**self.said(url, body), "gzipped": True}).encode())
        self.send(200, content, [("Content-Encoding", "gzip")])

    def ip(self, url, body):
        self.answer(200, {"origin": self.client_address[0]})

    def own_uuid(self, url, body):
        self.answer(200, {"uuid": str(uuid.uuid4())})

    def user_agent(self, url, body):
        self.answer(200, {"user-agent": self.headers.get("User-Agent", "")})

    def read_body(self):
        if "chunked" in self.headers.get("Transfer-Encoding", "").lower():
            return self.read_chunks()
        length = self.headers.get("Content-Length", "0")
        if not re.fullmatch(r"[0-9]{1,12}", length):
            raise Refused(400, "Content-Length is no number")
        if int(length) > BODY_BYTES_MAX:
            self.read_on(min(int(length), LEFT_BYTES_MAX))
            raise Refused(413, "the body is too long")
        return self.rfile.read(int(length))

    def read_on(self, left):
        while left > 0 and (data := self.rfile.read(min(left, PIECE_BYTES))):
            left -= len(data)

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

    def begin(self, status, headers):
        self.send_response(status)
        for name, value in headers:
            self.send_header(name, value)
        self.end_headers()

    def answer(self, status, value, headers=()):
        content = b"" if value is None else json.dumps(value, indent=2).encode() + b"\n"
        self.send(status, content, headers)

    def send(self, status, content, headers=()):
        headers = list(headers)
        # These have no body, and so no length.
        if status not in BODILESS:
            if content and "content-type" not in (name.lower() for name, _ in headers):
                headers.append(("Content-Type", "application/json"))
            headers.append(("Content-Length", str(len(content))))
        self.begin(status, headers)
        if self.command != "HEAD" and status not in BODILESS:
            self.wfile.write(content)

    def in_chunks(self, pieces):
        self.begin(200, [("Content-Type", "application/json"), ("Transfer-Encoding", "chunked")])
        if self.command == "HEAD":
            return
        for piece in pieces:
            self.wfile.write(b"%x\r\n%s\r\n" % (len(piece), piece))
            self.wfile.flush()
        self.wfile.write(b"0\r\n\r\n")

    def log_message(self, *_):
        """Nothing: nobody reads it."""


READ = ("GET", "HEAD")
# Which path goes where, for which methods; none named: for all.
ROUTES = [
    (r"/health", READ, Handler.health),
    (r"/headers", READ, Handler.only_headers),
    (r"/get", READ, Handler.echo),
    *((f"/{method.lower()}", (method,), Handler.echo) for method in ("POST", "PUT", "PATCH", "DELETE")),
    (r"/anything(/.*)?", None, Handler.echo),
    (r"/status/([2-5][0-9]{2})", None, Handler.status),
    (r"/delay/([0-9]{1,3}(?:\.[0-9]{1,3})?)", None, Handler.delay),
    (r"/response-headers", None, Handler.response_headers),
    (r"/redirect/([1-9][0-9]?)", READ, Handler.redirect),
    (r"/redirect-to", None, Handler.redirect_to),
    (r"/bytes/([0-9]{1,9})", READ, Handler.some_bytes),
    (r"/stream/([0-9]{1,4})", READ, Handler.stream),
    (r"/drip", READ, Handler.drip),
    (r"/basic-auth/([^/:]{1,100})/([^/]{1,100})", READ, Handler.basic_auth),
    (r"/cookies", READ, Handler.cookies),
    (r"/cookies/set", READ, Handler.set_cookies),
    (r"/gzip", READ, Handler.packed),
    (r"/ip", READ, Handler.ip),
    (r"/uuid", READ, Handler.own_uuid),
    (r"/user-agent", READ, Handler.user_agent),
]


def main():
    server = ThreadingHTTPServer(("0.0.0.0", PORT), Handler)
    server.daemon_threads = True
    server.serve_forever()


if __name__ == "__main__":
    main()
