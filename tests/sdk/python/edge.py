"""Requests to ports of sandboxes, past the SDK."""

import http.client
import os
import urllib.parse

# In a cluster edges stand apart.
API = urllib.parse.urlsplit(os.environ.get("CASEMATE_TEST_SANDBOX_URL") or os.environ["CASEMATE_TEST_URL"])


def connect():
    return http.client.HTTPConnection(API.hostname, API.port or 80, timeout=30)


def ask(host, path="/", headers=None, connection=None):
    """Status and body; over a connection of its own, or over one that stays."""
    connection = connection or connect()
    connection.request("GET", path, headers={"Host": host, **(headers or {})})
    answer = connection.getresponse()
    return answer.status, answer.read()


# Counts its requests in memory and echoes the host that it was asked for; below /stream it never
# ends to talk.
COUNTING = """
import http.server, sys, time
class Handler(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    count = 0
    def do_GET(self):
        if self.path == "/stream":
            self.send_response(200)
            self.end_headers()
            while True:
                self.wfile.write(b"more\\n")
                time.sleep(0.05)
        Handler.count += 1
        body = f"{Handler.count} {self.headers['host']}".encode()
        self.send_response(200)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)
    def log_message(self, *_):
        pass
http.server.ThreadingHTTPServer(("127.0.0.1", int(sys.argv[1])), Handler).serve_forever()
"""


async def serve(sdk, sandbox, port, headers=None):
    """Starts the counting server; gives its host. Nobody listens to what it says: the SDK asks for
    the sandbox's health when such a stream is cut, which would wake one that traffic wakes."""
    await sdk.do(sandbox.files.write("counting.py", COUNTING))
    server = await sdk.run(sandbox, f"python3 counting.py {port}", background=True, timeout=0)
    await sdk.do(server.disconnect())
    host = sandbox.get_host(port)
    await sdk.until("the server", lambda: ask(host, "/", headers)[0] == 200)
    return host
