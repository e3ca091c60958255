"""Amazon's and Google's registries, as far as logins go: both let in whoever has the right key and pass
all else on to a registry on loopback.

Amazon's API changes a signed request for a user and a password (ECR's API of 2015-09-21; signatures of
version 4, docs.aws.amazon.com/IAM/latest/UserGuide/reference_sigv-create-signed-request.html). Google's
registries take a service account's JSON as the password of `_json_key` and give a token for it.
"""

import base64
import hashlib
import hmac
import http.client
import http.server
import json
import secrets
import threading
import urllib.parse

REGION = "eu-central-1"
ACCESS_KEY = "AKIACASEMATETESTS000"
SECRET_KEY = "tests/only+aws0secret1of2loopback3and4no5other"
# What a file that Google's console gives has; the key is nobody's.
ACCOUNT = {
    "type": "service_account",
    "project_id": "tests",
    "private_key_id": "0123456789abcdef",
    "private_key": "-----BEGIN PRIVATE KEY-----\ntests0only1google2secret3of4loopback\n-----END PRIVATE KEY-----\n",
    "client_email": "tests@tests.iam.gserviceaccount.com",
}
TARGET = "AmazonEC2ContainerRegistry_V20150921.GetAuthorizationToken"


def signature(method, path, headers, signed, body, region, secret):
    """What the signature must be, by what arrived."""
    canonical = f"{method}\n{path}\n\n"
    canonical += "".join(f"{name}:{' '.join(headers[name].split())}\n" for name in signed.split(";"))
    canonical += f"\n{signed}\n{hashlib.sha256(body).hexdigest()}"
    date = headers["x-amz-date"]
    scope = f"{date[:8]}/{region}/ecr/aws4_request"
    text = f"AWS4-HMAC-SHA256\n{date}\n{scope}\n{hashlib.sha256(canonical.encode()).hexdigest()}"
    key = f"AWS4{secret}".encode()
    for part in (*scope.split("/"), text):
        key = hmac.new(key, part.encode(), hashlib.sha256).digest()
    return scope, key.hex()


class Handler(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def log_message(self, *_):
        pass

    def answer(self, status, value, **headers):
        body = value if isinstance(value, bytes) else json.dumps(value).encode()
        self.send_response(status)
        for name, content in {"Content-Length": str(len(body)), **headers}.items():
            self.send_header(name.replace("_", "-"), content)
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body)

    def refuse(self, challenge):
        self.answer(401, {"errors": [{"code": "UNAUTHORIZED"}]}, WWW_Authenticate=challenge)

    def login(self):
        """User and password of the request, or nothing."""
        kind, _, text = self.headers.get("Authorization", "").partition(" ")
        return base64.b64decode(text).decode().split(":", 1) if kind == "Basic" else None

    def pass_on(self):
        """The registry behind, with its answer as it is."""
        behind = http.client.HTTPConnection(self.server.behind, timeout=60)
        kept = {name: value for name, value in self.headers.items() if name.lower() in ("accept", "range")}
        behind.request(self.command, self.path, headers=kept)
        answer = behind.getresponse()
        self.send_response(answer.status)
        for name, value in answer.getheaders():
            if name.lower() not in ("transfer-encoding", "connection", "date", "server"):
                self.send_header(name, value)
        self.end_headers()
        while self.command != "HEAD" and (data := answer.read(1 << 18)):
            self.wfile.write(data)
        behind.close()

    def do_HEAD(self):
        self.do_GET()


class Amazon(Handler):
    """Its API at `/`, its registry below `/v2/`."""

    def do_POST(self):
        body = self.rfile.read(int(self.headers["Content-Length"]))
        said = self.headers.get("Authorization", "")
        headers = {name.lower(): value for name, value in self.headers.items()}
        signed = "content-type;host;x-amz-date;x-amz-target"
        scope, right = signature("POST", self.path, headers, signed, body, REGION, SECRET_KEY)
        expected = f"AWS4-HMAC-SHA256 Credential={ACCESS_KEY}/{scope}, SignedHeaders={signed}, Signature={right}"
        if headers["x-amz-target"] != TARGET or not hmac.compare_digest(said, expected):
            return self.answer(400, {"__type": "InvalidSignatureException", "message": "The signature does not match"})
        self.server.password = secrets.token_urlsafe(32)
        token = base64.b64encode(f"AWS:{self.server.password}".encode()).decode()
        self.answer(200, {"authorizationData": [{"authorizationToken": token}]})

    def do_GET(self):
        if self.login() != ["AWS", self.server.password]:
            return self.refuse('Basic realm="https://amazon.tests/",service="ecr.amazonaws.com"')
        self.pass_on()


class Google(Handler):
    """Its registry, and at `/v2/token` what gives tokens for it."""

    def do_GET(self):
        path, _, query = self.path.partition("?")
        if path == "/v2/token":
            user, password = self.login() or ("", "")
            if user != "_json_key" or json.loads(password) != ACCOUNT:
                return self.answer(403, {"errors": [{"code": "DENIED"}]})
            asked = urllib.parse.parse_qs(query)
            if asked["service"] != ["google.tests"] or not asked["scope"][0].endswith(":pull"):
                return self.answer(400, {})
            self.server.token = secrets.token_urlsafe(32)
            return self.answer(200, {"token": self.server.token, "expires_in": 3600})
        if self.headers.get("Authorization") != f"Bearer {self.server.token}":
            return self.refuse(f'Bearer realm="http://{self.headers["Host"]}/v2/token",service="google.tests"')
        self.pass_on()


class Served(http.server.ThreadingHTTPServer):
    daemon_threads = True

    def __init__(self, handler, behind):
        super().__init__(("127.0.0.1", 0), handler)
        self.behind = behind
        # None that anybody could know.
        self.password = self.token = secrets.token_urlsafe(32)
        self.address = f"127.0.0.1:{self.server_address[1]}"
        threading.Thread(target=self.serve_forever, daemon=True).start()
