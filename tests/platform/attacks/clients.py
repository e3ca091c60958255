"""Attacks by clients: other teams' keys, other sandboxes' tokens, ambiguous requests."""

import base64
import functools
import hashlib
import json
import sqlite3
import time
import urllib.parse

import host
from attacks.raw import AGENT, ask, at, exchange, request, status, token_of
from attacks.table import attack

TOKENS = "Keys and tokens"
EDGE = "Requests that mean two things"
OTHER_TEAM = "00000000-0000-4000-8000-00000000000b"
LIST = ("POST", "/process.Process/List")


def listed(world, sandbox, token):
    """The agent's list of processes, as a cheap call that needs the token."""
    headers = {**at(sandbox, token=token), "Connect-Protocol-Version": "1"}
    return ask(world, *LIST, headers, {})[0]


@attack(TOKENS, "token-of-another", "another sandbox's access token", "client", "401", "its own: 200")
def _(world):
    a, b = world.sandbox, world.other
    assert listed(world, b, token_of(a)) == 401
    assert listed(world, b, token_of(b)) == 200


@attack(
    TOKENS,
    "token-altered",
    "no token, a part of it, more than it, its letters changed",
    "client",
    "401",
    "as it is: 200",
)
def _(world):
    token = token_of(world.other)
    assert listed(world, world.other, token) == 200
    for wrong in (None, token[:-1], token[:8], token + "0", token.upper(), token[::-1], "0" * 64, "*", token + ", x"):
        assert wrong == token or listed(world, world.other, wrong) == 401, wrong


@functools.cache
def other_team(world):
    """Another team's key: there is no call that makes a team yet, so its row is written by hand."""
    database = sqlite3.connect(world.platform.data_dir / "control/store.sqlite", timeout=10)
    with database:
        database.execute(
            "INSERT INTO teams (id, slug, name, standing, created_at) VALUES (?, 'b', 'B', 'good', ?)",
            (OTHER_TEAM, int(time.time() * 1e6)),
        )
    database.close()
    made = ask(world, "POST", f"/admin/teams/{OTHER_TEAM}/api-keys", admin(world), {"name": "b"})
    assert made[0] == 201, made
    return {"X-API-Key": json.loads(made[1])["key"]}


def admin(world):
    return {"X-Admin-Token": (world.platform.data_dir / "secrets/admin_token").read_text().strip()}


def own_team(world):
    return {"X-API-Key": world.platform.client["api_key"]}


@attack(
    TOKENS,
    "key-of-another-team",
    "another team's key: see, connect, prolong, close, read logs of, end a sandbox",
    "client",
    "404, or nothing; it is on no list",
    "the own team's: 2xx",
)
def _(world):
    id = world.other.sandbox_id
    calls = [
        ("GET", f"/sandboxes/{id}", None),
        ("POST", f"/sandboxes/{id}/timeout", {"timeout": 900}),
        ("POST", f"/sandboxes/{id}/refreshes", {"duration": 900}),
        ("POST", f"/sandboxes/{id}/connect", {"timeout": 900}),
        ("POST", f"/v2/sandboxes/{id}/connect", {"timeout": 900}),
        ("PUT", f"/sandboxes/{id}/network", {}),
        ("GET", f"/sandboxes/{id}/logs", None),
        ("GET", f"/v2/sandboxes/{id}/logs", None),
        ("GET", f"/sandboxes/{id}/metrics", None),
    ]
    for method, path, body in calls:
        said, own = (
            ask(world, method, path, key(world), b"" if body is None else body) for key in (other_team, own_team)
        )
        assert 200 <= own[0] < 300, (method, path, own)
        # Of what has ended there are logs and samples, so that these two calls answer for any id.
        empty = said[0] == 200 and not any(json.loads(said[1]).values() if said[1][:1] == b"{" else json.loads(said[1]))
        assert said[0] == 404 or empty, (method, path, said)
    assert ask(world, "DELETE", f"/sandboxes/{id}", other_team(world))[0] == 404
    for path in ("/sandboxes", "/v2/sandboxes", f"/sandboxes/metrics?sandbox_ids={id}", "/events/sandboxes"):
        said, own = (ask(world, "GET", path, key(world)) for key in (other_team, own_team))
        assert said[0] == own[0] == 200, (path, said, own)
        assert id.encode() not in said[1], path
        if "metrics" not in path:
            assert id.encode() in own[1], path
    gone = world.platform.create()
    assert ask(world, "DELETE", f"/sandboxes/{gone.sandbox_id}", own_team(world))[0] == 204


@attack(TOKENS, "metrics-of-another-team", "another team's activity", "client", "403 or 404", "its own: 200")
def _(world):
    team = world.platform.credentials()["CASEMATE_INTERNAL_TEAM_ID"]
    path = f"/teams/{team}/metrics"
    assert ask(world, "GET", path, other_team(world))[0] in (403, 404)
    assert ask(world, "GET", path, own_team(world))[0] == 200


@attack(TOKENS, "page-of-another-team", "the cursor of another team's list", "client", "400", "its own: 200")
def _(world):
    first = exchange(world, request("GET", "/v2/sandboxes?limit=1", own_team(world)))
    head = first.split(b"\r\n\r\n")[0].decode()
    cursor = next(line.split(": ", 1)[1] for line in head.splitlines() if line.lower().startswith("x-next-token"))
    path = "/v2/sandboxes?limit=1&nextToken=" + urllib.parse.quote(cursor)
    assert ask(world, "GET", path, other_team(world))[0] == 400
    assert ask(world, "GET", path, own_team(world))[0] == 200


@attack(
    TOKENS,
    "administration",
    "the operator's calls with a team's key, a user's token, a sandbox's token",
    "client",
    "401 or 403",
    "with the operator's token: 200",
)
def _(world):
    told = world.platform.credentials()
    rights = [own_team(world), {"Authorization": f"Bearer {told['E2B_ACCESS_TOKEN']}"}]
    rights += [{"X-Admin-Token": token} for token in (told["E2B_API_KEY"], token_of(world.sandbox), "", "0" * 64)]
    for path in ("/nodes", "/admin/sandboxes/running-counts"):
        for right in rights:
            assert ask(world, "GET", path, right)[0] in (401, 403), (path, right)
        assert ask(world, "GET", path, admin(world))[0] == 200, path


def link(sandbox, path, operation="read", user="user", expires=None):
    """A signed link's query."""
    raw = f"{path}:{operation}:{user}:{token_of(sandbox)}" + (f":{expires}" if expires else "")
    signature = base64.b64encode(hashlib.sha256(raw.encode()).digest()).decode().rstrip("=")
    query = {"path": path, "username": user, "signature": f"v1_{signature}"}
    return {**query, "signature_expiration": expires} if expires else query


def follow(world, sandbox, query, method="GET"):
    path = "/files?" + urllib.parse.urlencode(query)
    headers = {**at(sandbox), "Content-Type": "application/octet-stream"}
    return ask(world, method, path, headers, b"x" if method == "POST" else b"")


def links(name, what, wrong):
    """Rows about signed links; `wrong` gives queries that must be refused."""

    @attack(TOKENS, name, what, "client", "401", "as it was signed: 200")
    def _(world):
        right = link(world.other, "/etc/hostname", expires=int(time.time()) + 60)
        assert follow(world, world.other, right)[0] == 200
        for query in wrong(world, right):
            assert follow(world, world.other, query)[0] == 401, query


links(
    "link-of-another", "a signed link of another sandbox", lambda world, right: [link(world.sandbox, "/etc/hostname")]
)
links(
    "link-to-another-path",
    "a link for another path, also by another spelling",
    lambda world, right: [
        {**right, "path": path}
        for path in ("/etc/passwd", "/etc/./hostname", "/etc//hostname", "/etc/hostname/", "hostname")
    ],
)
links(
    "link-for-another-user",
    "a link for another user",
    lambda world, right: [{**right, "username": user} for user in ("root", "", "user:", "nobody")],
)
links(
    "link-altered",
    "a link with another signature, none, or another expiry",
    lambda world, right: [
        {**right, "signature": right["signature"][:-1]},
        {**right, "signature": right["signature"].lower()},
        {**right, "signature": ""},
        {key: value for key, value in right.items() if key != "signature"},
        {**right, "signature_expiration": right["signature_expiration"] + 3600},
        {key: value for key, value in right.items() if key != "signature_expiration"},
        # What is joined by colons must not be cut elsewhere.
        {**link(world.other, "/etc/hostname:read"), "path": "/etc/hostname", "username": "read:user"},
    ],
)
links(
    "link-expired",
    "a link that has expired",
    lambda world, right: [link(world.other, "/etc/hostname", expires=int(time.time()) - at) for at in (1, 3600)],
)


@attack(
    TOKENS,
    "link-for-writing",
    "writing by a link that was signed for reading",
    "client",
    "401",
    "signed for writing: 200",
)
def _(world):
    path = "/home/user/by-link"
    assert follow(world, world.other, link(world.other, path), "POST")[0] == 401
    assert follow(world, world.other, link(world.other, path, "write"), "POST")[0] == 200


# Ambiguity.


@functools.cache
def marked(world):
    """Each of the two tells who it is, to whoever has its token."""
    for sandbox in (world.sandbox, world.other):
        sandbox.files.write("/home/user/who", sandbox.sandbox_id)
    return world.sandbox, world.other


def who(world, line, fields, token):
    """Which of the two answers a request that is written as it is."""
    text = "\r\n".join([line, *fields, f"X-Access-Token: {token}", "Connection: close", "", ""])
    said = exchange(world, text.encode("latin-1"), seconds=5)
    return [
        sandbox.sandbox_id
        for sandbox in marked(world)
        if sandbox.sandbox_id.encode() in said.partition(b"\r\n\r\n")[2] and status(said) == 200
    ]


@attack(
    EDGE,
    "two-sandboxes-in-one-request",
    "two hosts, a host and a target, a host and headers, user information, "
    "forwarded hosts, odd characters: another sandbox with one's own token",
    "client",
    "refused, or one's own sandbox",
    "with its own token it is reached",
)
def _(world):
    a, b = marked(world)
    path = "/files?path=/home/user/who&username=user"
    ours, theirs = (f"{AGENT}-{one.sandbox_id}.localhost" for one in (a, b))
    plain = f"GET {path} HTTP/1.1"
    assert who(world, plain, [f"Host: {theirs}"], token_of(b)) == [b.sandbox_id]
    assert who(world, plain, [f"Host: {ours}"], token_of(a)) == [a.sandbox_id]
    headers = [f"E2b-Sandbox-Id: {b.sandbox_id}", f"E2b-Sandbox-Port: {AGENT}"]
    attempts = [(f"GET http://{one}{path} HTTP/1.1", [f"Host: {two}"]) for one, two in ((ours, theirs), (theirs, ours))]
    attempts += [(f"GET http://{ours}@{theirs}{path} HTTP/1.1", [f"Host: {ours}"])]
    attempts += [(f"GET http://{theirs}@{ours}{path} HTTP/1.1", [f"Host: {theirs}"])]
    attempts += [(plain, [f"Host: {one}", f"Host: {two}"]) for one, two in ((ours, theirs), (theirs, ours))]
    attempts += [(plain, [f"Host: {ours}", *headers]), (plain, ["Host: localhost", *headers])]
    attempts += [(plain, ["Host: localhost", f"E2b-Sandbox-Id: {a.sandbox_id}", *headers])]
    for name in ("X-Forwarded-Host", "Forwarded", "X-Original-Host", "X-Host", "X-Original-URL", "X-Rewrite-URL"):
        attempts.append((plain, [f"Host: {ours}", f"{name}: {theirs}"]))
    for between in ", ; @ # / ? \\ \t % %00 %0d%0a :80@ \x0b \x00 \xff".split(" "):
        attempts += [(plain, [f"Host: {one}{between}{two}"]) for one, two in ((ours, theirs), (theirs, ours))]
    for line, fields in attempts:
        assert b.sandbox_id not in who(world, line, fields, token_of(a)), (line, fields)


@attack(
    EDGE,
    "odd-sandbox-ids",
    "ids with paths, patterns, other alphabets, other cases, a thousand characters",
    "client",
    "no sandbox answers",
    "the id as it is: 200",
)
def _(world):
    a, _ = marked(world)
    id, path = a.sandbox_id, "/files?path=/home/user/who&username=user"
    assert ask(world, "GET", path, at(id, token=token_of(a)))[0] == 200
    odd = [
        id.upper(),
        f"../{id}",
        f"{id}/..",
        f"{id}%00",
        f"{id},{id}",
        f"{id}.",
        f"*{id}",
        "*",
        ".",
        "..",
        id[:-1],
        f"{id}0",
    ]
    odd += [
        f"{id}\\",
        f"{id} {id}",
        f"'{id}'",
        f"{id}\x7f",
        f"{id}é",
        "a" * 1000,
        f"{id}-{id}",
        f"{id}:80",
        f"{id};{id}",
        "",
    ]
    for wrong in odd:
        said = ask(world, "GET", path, at(wrong, token=token_of(a)))
        assert said[0] in (400, 404, 502), (wrong, said)


@attack(
    EDGE,
    "odd-ports",
    "ports with signs, in other bases, beyond 65 535 and 2^64",
    "client",
    "no sandbox answers",
    "the port as it is: 200",
)
def _(world):
    a, _ = marked(world)
    path = "/files?path=/home/user/who&username=user"
    assert ask(world, "GET", path, at(a, AGENT, token_of(a)))[0] == 200
    odd = [
        "-1",
        "0",
        f"+{AGENT}",
        f"{AGENT}.0",
        f"{AGENT}e0",
        hex(AGENT),
        str(AGENT + 65536),
        str(AGENT + 2**64),
        "",
        f"{AGENT},{AGENT}",
        f"{AGENT} {AGENT}",
        "९९",
        "9" * 500,
        f"{AGENT}\x00",
        f"-{65536 - AGENT}",
    ]
    for wrong in odd:
        said = exchange(world, request("GET", path, at(a, wrong, token_of(a))), seconds=5)
        assert status(said) in (400, 404, 502), (wrong, said[:80])


@attack(
    EDGE,
    "reserved-paths",
    "the agent's own calls (`/init`, `/freeze` …), in every spelling",
    "client",
    "404 by the edge",
    "in the sandbox itself: the agent answers",
)
def _(world):
    names = ["init", "freeze", "unfreeze", "fsfreeze", "fsthaw", "collapse", "upgrade"]
    for name in names:
        spelled = [
            f"/{name}",
            f"//{name}",
            f"/{name}/",
            f"/./{name}",
            f"/files/../{name}",
            f"/%{ord(name[0]):02x}{name[1:]}",
            f"/files%2f..%2f{name}",
            f"/{name}?x",
            f"/{name}%3f",
            f"/x/../../{name}",
            f"/{name}#x",
            f"/{name};x",
        ]
        for path in spelled:
            # With the right token: what is behind would do it.
            said = exchange(world, request("POST", path, at(world.sandbox, token=token_of(world.sandbox)), b"{}"))
            assert status(said) in (400, 404) and b"x-envd-version" not in said.lower(), (path, said[:80])
    inside = world.sandbox.commands.run(f"curl -s -X POST -d '{{}}' -D - http://127.0.0.1:{AGENT}/init").stdout
    assert inside.startswith("HTTP/1.1 401") and "x-envd-version" in inside.lower()


@attack(
    EDGE,
    "open-proxy",
    "addresses of the host and of others as the target, also by CONNECT",
    "client",
    "nobody is dialled",
    "from the host itself it answers",
)
def _(world):
    target = "169.254.169.254:8765"
    for line in (
        f"GET http://{target}/cma-proxy HTTP/1.1",
        f"CONNECT {target} HTTP/1.1",
        f"GET //{target}/cma-proxy HTTP/1.1",
        f"GET http://localhost@{target}/cma-proxy HTTP/1.1",
    ):
        for named in (target, "localhost"):
            text = f"{line}\r\nHost: {named}\r\nConnection: close\r\n\r\ncma-proxy"
            assert status(exchange(world, text.encode(), seconds=5)) in (400, 404, 405), line
    assert not world.witnesses["outside"].saw(b"cma-proxy")
    plan = {"name": "proxy", "kind": "tcp", "to": "169.254.169.254", "port": 8765, "token": "cma-proxy"}
    assert world.send(world.in_space("house"), [plan]) == {"proxy": "answered"}
    assert world.witnesses["outside"].saw(b"cma-proxy")


@attack(
    EDGE,
    "paths-of-the-api",
    "`..` and its encodings from a call that is open to one that is not",
    "client",
    "400, 401 or 404",
    "the path as it is: 200",
)
def _(world):
    assert ask(world, "GET", "/nodes", admin(world))[0] == 200
    up = ["/..", "/%2e%2e", "/.%2e", "%2f..", "/..%2f", "/..;", "/..%00", "\\..", "/%252e%252e"]
    for piece in up:
        for path in (
            f"/health{piece}/nodes",
            f"/sandboxes/{world.other.sandbox_id}{piece}{piece}/nodes",
            f"/openapi.json{piece}/nodes",
        ):
            said = ask(world, "GET", path, own_team(world))
            assert said[0] in (400, 401, 403, 404), (path, said)


# A service in a sandbox that reads requests more loosely than the edge. It notes each one's first line.
LOOSE = r"""
import re, socket, sys, threading
by_chunks = sys.argv[2] == "chunks"
def talk(c):
    c.settimeout(1.5)
    data = b""
    try:
        while True:
            while not re.search(rb"\r?\n\r?\n", data):
                piece = c.recv(65536)
                if not piece: return
                data += piece
            head, data = re.split(rb"\r?\n\r?\n", data, maxsplit=1)
            with open(sys.argv[3], "ab") as f: f.write(re.split(rb"\r?\n", head.lstrip())[0] + b"\n")
            if by_chunks and re.search(rb"chunked", head, re.I):
                while True:
                    while b"\n" not in data: data += c.recv(65536) or 1 / 0
                    line, data = data.split(b"\n", 1)
                    size = int(re.match(rb"[0-9a-fA-F]*", line)[0] or b"0", 16) & 0xffffffff
                    while len(data) < min(size, 100000): data += c.recv(65536) or 1 / 0
                    data = data[size:]
                    if not size: break
                data = data.lstrip(b"\r\n")
            else:
                length = re.search(rb"content-length\s*:\s*\+?(\d+)", head, re.I)
                length = int(length[1]) if length else 0
                while len(data) < length: data += c.recv(65536) or 1 / 0
                data = data[length:]
            c.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok")
    except Exception:
        pass
    finally:
        c.close()
s = socket.create_server(("0.0.0.0", int(sys.argv[1])))
while True:
    threading.Thread(target=talk, args=(s.accept()[0],), daemon=True).start()
"""
SERVICES = {9100: "length", 9101: "chunks"}
HIDDEN = b"GET /smuggled HTTP/1.1\r\nHost: nowhere.invalid\r\n\r\n"


@functools.cache
def loose_services(world):
    sandbox = world.sandbox
    sandbox.files.write("/tmp/loose.py", LOOSE)
    for port, way in SERVICES.items():
        sandbox.commands.run(f"python3 /tmp/loose.py {port} {way} /tmp/loose-{port}", background=True, timeout=0)
    for port in SERVICES:
        host.until("it listens", lambda: sandbox.commands.run(f"ss -ltnH sport = :{port}").stdout)
    return sandbox


def noted(world):
    return world.sandbox.commands.run("cat /tmp/loose-* 2>/dev/null; rm -f /tmp/loose-*[0-9]; true").stdout


def forms(fields, body, line=b"POST /first HTTP/1.1"):
    return line + b"\r\nHost: HOST\r\n" + b"\r\n".join(fields) + b"\r\n\r\n" + body


def smuggling(name, what, requests):
    """Rows about requests whose end two readers see at different places."""

    @attack(
        EDGE, name, what, "client", "the hidden request reaches no service", "sent to a loose service directly, it does"
    )
    def _(world):
        sandbox = loose_services(world)
        noted(world)
        for data in requests:
            for port in SERVICES:
                to = data.replace(b"HOST", f"{port}-{sandbox.sandbox_id}.localhost".encode())
                exchange(world, to, seconds=0.7)
        seen = noted(world)
        assert "/smuggled" not in seen, seen
        direct = [[port, base64.b64encode(data).decode()] for data in requests for port in SERVICES]
        sandbox.files.write("/tmp/direct.json", json.dumps(direct))
        sandbox.files.write("/tmp/direct.py", DIRECT)
        sandbox.commands.run("python3 /tmp/direct.py")
        assert "/smuggled" in noted(world)


# Sends the same without the edge between.
DIRECT = """
import base64, json, socket, threading
def one(port, data):
    c = socket.create_connection(("127.0.0.1", port), 2)
    c.settimeout(1)
    try:
        c.sendall(base64.b64decode(data))
        while c.recv(9999): pass
    except OSError: pass
threads = [threading.Thread(target=one, args=each) for each in json.load(open("/tmp/direct.json"))]
[thread.start() for thread in threads]
[thread.join() for thread in threads]
"""

ENDED = b"0\r\n\r\n" + HIDDEN
LENGTH = b"Content-Length: %d"
smuggling(
    "length-and-chunks",
    "a length and chunks in one request, in both orders",
    [
        forms([LENGTH % len(ENDED), b"Transfer-Encoding: chunked"], ENDED),
        forms([b"Transfer-Encoding: chunked", LENGTH % len(ENDED)], ENDED),
        forms([LENGTH % 4, b"Transfer-Encoding: chunked"], b"%x\r\n" % len(HIDDEN) + HIDDEN + b"\r\n0\r\n\r\n"),
    ],
)
smuggling(
    "two-lengths",
    "two lengths, in two fields or in one",
    [
        forms([LENGTH % 0, LENGTH % len(HIDDEN)], HIDDEN),
        forms([LENGTH % len(HIDDEN), LENGTH % 0], HIDDEN),
        forms([b"Content-Length: 0, %d" % len(HIDDEN)], HIDDEN),
        forms([b"Content-Length: 0\r\nX: y\r\nContent-length: %d" % len(HIDDEN)], HIDDEN),
    ],
)
smuggling(
    "odd-lengths",
    "lengths with a sign, a space before the colon, in other bases",
    [
        forms([b"Content-Length : 0", b"Content-Length: +0"], HIDDEN),
        forms([b"Content-Length : %d" % len(HIDDEN), LENGTH % 0], HIDDEN),
        forms([b"Content-Length: 0x%x" % len(HIDDEN)], HIDDEN),
        forms([b"Content-Length: -0"], HIDDEN),
        forms([b"Content-Length: %d " % (2**64)], HIDDEN),
        forms([b"Content-Length\x0b: %d" % len(HIDDEN)], HIDDEN),
    ],
)
smuggling(
    "odd-codings",
    "chunks named in ways that only some readers take",
    [
        forms([b"Transfer-Encoding" + form, LENGTH % len(ENDED)], ENDED)
        for form in (
            b": xchunked",
            b": chunked, identity",
            b":\x0bchunked",
            b" : chunked",
            b": CHUNKED\x00",
            b': "chunked"',
            b":\tchunked\r\nTransfer-Encoding: x",
            b": identity, chunked",
            b"\r\n : chunked",
            b": chunked;q=1",
        )
    ],
)
smuggling(
    "folded-lines",
    "folded fields, bare line feeds and bare returns",
    [
        forms([b"X: y\r\n Transfer-Encoding: chunked", LENGTH % len(ENDED)], ENDED),
        forms([b"X: y\nTransfer-Encoding: chunked", LENGTH % len(ENDED)], ENDED),
        forms([b"X: y\rTransfer-Encoding: chunked", LENGTH % len(ENDED)], ENDED),
        forms([b"X: y\n\nGET /smuggled HTTP/1.1"], b""),
        forms([b"Transfer-Encoding:\r\n chunked", LENGTH % len(ENDED)], ENDED),
    ],
)
smuggling(
    "chunk-sizes",
    "chunk sizes that overflow, with extensions, with bare line feeds",
    [
        forms([b"Transfer-Encoding: chunked"], size + b"\r\n" + HIDDEN)
        for size in (
            b"100000000",
            b"10000000000000000",
            b"0;a\nb",
            b"0x0",
            b"00000000000000000",
            b"-1",
            b"0\n\n" + HIDDEN,
            b"g",
        )
    ],
)
smuggling(
    "old-versions",
    "chunks in HTTP/1.0, in GET, in a request that asks for another protocol",
    [
        forms([b"Transfer-Encoding: chunked", LENGTH % len(ENDED)], ENDED, b"POST /first HTTP/1.0"),
        forms([b"Transfer-Encoding: chunked", LENGTH % len(ENDED)], ENDED, b"GET /first HTTP/1.1"),
        forms(
            [b"Upgrade: h2c", b"Connection: upgrade, http2-settings", b"HTTP2-Settings: AAMAAABk", LENGTH % 0],
            HIDDEN,
            b"GET /first HTTP/1.1",
        ),
        forms([b"Connection: Transfer-Encoding", b"Transfer-Encoding: chunked", LENGTH % len(ENDED)], ENDED),
        forms([b"Connection: Content-Length", LENGTH % len(HIDDEN)], HIDDEN),
        forms([b"Expect: 100-continue", LENGTH % 0], HIDDEN),
    ],
)


@attack(
    EDGE,
    "files-by-link",
    "the host's files through the agent's file calls: `..`, links, `/proc/1/root`",
    "client",
    "not there",
    "on the host itself it is there",
)
def _(world):
    canary, sandbox = world.marks.canary, world.sandbox
    assert canary.read_text() == world.marks.secret
    sandbox.commands.run(
        f"ln -sfn /proc/1/root{canary} /tmp/l1; ln -sfn ../../../../../..{canary} /tmp/l2; "
        f"ln -sfn /proc/1/cwd/..{canary} /tmp/l3"
    )
    for path in (
        str(canary),
        f"/../../..{canary}",
        f"/proc/1/root{canary}",
        f"/proc/1/root/../..{canary}",
        f"/proc/self/root{canary}",
        f"/proc/1/cwd/../..{canary}",
        "/tmp/l1",
        "/tmp/l2",
        "/tmp/l3",
        f"/proc/1/fd/6/../..{canary}",
    ):
        query = urllib.parse.urlencode({"path": path, "username": "root"})
        said = ask(world, "GET", f"/files?{query}", at(sandbox, token=token_of(sandbox)))
        assert said[0] in (400, 403, 404, 500) and world.marks.secret.encode() not in said[1], (path, said)
