"""Requests to the agent in a sandbox, through the edge: RPCs in JSON and binary, files, the rest."""

import base64
import gzip
import hashlib
import json
import time

import proto
import values
from values import word
from wire import chunks, envelope, head
from work import Work

FILES = [f"/home/user/f{i}" for i in range(5)]
PATHS = [
    *FILES,
    "/home/user", "/home/user/d", "/home/user/d/e", "f0", "~", "~/f1", "", ".", "..", "/", "/tmp",
    "/home/user/big", "/home/user/mark",
]
ODD_PATHS = [
    "/proc/self/fd", "/proc/1/environ", "/dev/null", "/dev/ptmx", "/dev/tty", "/proc/kmsg", "/sys",
    "/root/x", "~root/x", "/home/user/f0/x", "/home/user/" + "n" * 300, "/" + "p/" * 2100,
    "/home/user/\0", "/home/user/é", "/home/user/\n", "a" * 255, "/proc/self/mem",
    "/home/../home/user/./f0", "//home//user//f2", "/dev/full", "/nowhere/at/all",
]
COMMANDS = [
    ("true", []), ("false", []), ("echo", ["hi"]), ("cat", []), ("cat", []), ("cat", []),
    ("sleep", ["0.05"]), ("sleep", ["20"]), ("sh", ["-c", "exit 3"]),
    ("sh", ["-c", "echo $MARK; echo e >&2"]), ("head", ["-c", "200000", "/dev/zero"]),
    ("/bin/bash", ["-l", "-c", "pwd"]), ("sh", ["-c", "kill -9 $$"]),
    ("sh", ["-c", "sleep 5 & echo started"]), ("nowhere", []), ("/etc/passwd", []), ("", []),
    ("sh", ["-c", "yes | head -c 3000000"]), ("env", []), ("/home/user", []),
]
TAGS = ["t0", "t1", "t2", "cat", "terminal", "sleep"]
USERS = [
    *[None] * 60,
    "user", "user", "root", "root", "nobody", "", "nosuchuser", "us:er", "ü", "u" * 300,
]
# Control routes that the edge keeps for itself.
RESERVED = ["/init", "/freeze", "/unfreeze", "/fsfreeze", "/fsthaw", "/collapse", "/upgrade"]
MESSAGES = proto.Messages()


def selector(rng, sandbox, ends=False):
    """A process; `ends`: the request may be its end."""
    if rng.random() < 0.2:
        return {"tag": rng.choice(TAGS[:3] if ends else TAGS)}
    if rng.random() < 0.6 and not ends:
        return {"pid": rng.choice(sandbox.lasting)}
    return {"pid": rng.choice([*sandbox.pids, rng.randrange(1, 400)])}


def some_path(rng):
    return rng.choice(PATHS if rng.random() < 0.85 else ODD_PATHS)


def data(rng):
    size = rng.choice([0, 1, 2, 10, 1000, 70_000])
    return base64.b64encode(rng.randbytes(size)).decode()


def given(rng, sandbox):
    return {rng.choices(["stdin", "pty"], [3, 1])[0]: data(rng)}


def start(rng, sandbox):
    cmd, args = rng.choice(COMMANDS)
    asked = {"process": {"cmd": cmd, "args": args}}
    if rng.random() < 0.3:
        asked["process"]["envs"] = {word(rng).upper(): word(rng)}
    if rng.random() < 0.3:
        asked["process"]["cwd"] = some_path(rng)
    if rng.random() < 0.15:
        asked["pty"] = {"size": {"cols": rng.choice([0, 80, 70_000]), "rows": 24}}
    if rng.random() < 0.3:
        asked["tag"] = rng.choice(TAGS[:3])
    if rng.random() < 0.4:
        asked["stdin"] = rng.random() < 0.3
    return asked


def watched(rng, sandbox):
    asked = {"path": rng.choice(["/home/user", "/home/user/d", "/tmp", some_path(rng)])}
    return asked | {name: True for name in ("recursive", "includeEntry") if rng.random() < 0.3}


# A message that fits, for each RPC.
FITTING = {
    "List": lambda rng, s: {},
    "Connect": lambda rng, s: {"process": selector(rng, s)},
    "Start": start,
    "Update": lambda rng, s: {
        "process": selector(rng, s),
        "pty": {"size": {"cols": 10, "rows": 5}},
    },
    "StreamInput": lambda rng, s: {"start": {"process": selector(rng, s)}},
    "SendInput": lambda rng, s: {"process": selector(rng, s), "input": given(rng, s)},
    "SendSignal": lambda rng, s: {
        "process": selector(rng, s, ends=True),
        "signal": rng.choice(["SIGNAL_SIGTERM", "SIGNAL_SIGKILL"]),
    },
    "CloseStdin": lambda rng, s: {"process": selector(rng, s, ends=True)},
    "Stat": lambda rng, s: {"path": some_path(rng)},
    "MakeDir": lambda rng, s: {
        "path": rng.choice(["/home/user/d", f"/home/user/d/{word(rng, 2)}", some_path(rng)])
    },
    "Move": lambda rng, s: {
        "source": rng.choice(FILES),
        "destination": rng.choice([*FILES, some_path(rng)]),
    },
    "ListDir": lambda rng, s: {
        "path": rng.choice(["/home/user", some_path(rng)]),
        "depth": rng.choice([0, 1, 2]),
    },
    "Remove": lambda rng, s: {
        "path": rng.choice([*FILES, "/home/user/d", f"/home/user/d/{word(rng, 2)}"])
    },
    "WatchDir": watched,
    "CreateWatcher": watched,
    "GetWatcherEvents": lambda rng, s: {"watcherId": rng.choice(s.watchers)},
    "RemoveWatcher": lambda rng, s: {"watcherId": rng.choice(s.watchers)},
}
# Mutations must not make a sandbox unusable for the others that use it: nothing removes all of it.
GENTLE = {"Remove", "Move", "SendSignal"}


def operations():
    routes = [
        "GET /health", "GET /metrics", "GET /envs", "GET /files", "POST /files",
        "POST /files/compose",
    ]
    return {f"POST {path}" for path in MESSAGES.rpcs} | set(routes)


def generate(rng, world):
    if rng.random() < 0.55:
        return call(rng, world)
    if rng.random() < 0.85:
        return files(rng, world)
    return other(rng, world)


def addressed(rng, world, work, method, target):
    """Where it goes and who sends it."""
    team = rng.choice([world.a, world.a, world.b])
    sandbox = team.any(rng)
    work.sandbox, work.team, work.proper = sandbox, team, True
    token = sandbox.token
    others = world.b if team is world.a else world.a
    kind = rng.randrange(25)
    if kind == 0:
        # A team tries its own token on a sandbox of another, which stays as it is.
        work.sandbox, work.proper = others.anchor, False
    elif kind == 1:
        token, work.proper, work.team = (
            rng.choice([None, "", "x", token[:-1], token.upper() + "0", "é"]),
            False,
            None,
        )
    work.facts["holds"] = token
    id = work.sandbox.id
    if kind == 2:
        work.facts["no sandbox"] = True
        id = rng.choice(["i" + word(rng, 20), *team.dead, "", "x", id.upper(), id + "-1"])
    if rng.random() < 0.7:
        headers = [("Host", "127.0.0.1"), ("E2b-Sandbox-Id", id), ("E2b-Sandbox-Port", "49983")]
    else:
        headers = [("Host", f"49983-{id}.{rng.choice(['localhost', 'example.com:8080', 'x'])}")]
    if token is not None:
        headers.append(("X-Access-Token", token))
    name = rng.choice(USERS)
    if name is not None:
        work.facts["user"] = name
        headers.append(("Authorization", b"Basic " + base64.b64encode(f"{name}:".encode())))
    elif rng.random() < 0.02:
        work.facts["user"] = "?"
        headers.append(
            (
                "Authorization",
                rng.choice(["Basic", "Basic !!!", "Basic gGE=", "Bearer x", "basic dXNlcjo="]),
            )
        )
    if rng.random() < 0.03:
        headers.append(("Origin", "https://example.com"))
    return headers


def call(rng, world):
    path = rng.choice(list(MESSAGES.rpcs))
    message, client_streams, server_streams = MESSAGES.rpcs[path]
    streams = client_streams or server_streams
    work = Work("agent", f"POST {path}", "POST")
    headers = addressed(rng, world, work, "POST", path)
    name = path.rsplit("/", 1)[1]
    binary = rng.random() < 0.25
    wrong = rng.choices(
        ["nothing", "value", "bytes", "frame", "headers", "method"], [60, 14, 10, 6, 8, 2]
    )[0]
    body = FITTING[name](rng, work.sandbox)
    if wrong == "value" and not binary and name not in GENTLE:
        body = values.mutated(rng, body)
    messages = [body]
    if client_streams:
        messages += [{"data": {"input": given(rng, work.sandbox)}} for _ in range(rng.randrange(4))]
        if wrong == "value":
            rng.shuffle(messages)
    encode = (lambda m: MESSAGES.encode(message, m)) if binary else values.written
    payloads = [encode(m) for m in messages]
    if wrong == "bytes" and name not in GENTLE:
        payloads[-1] = (proto.spoilt if binary else values.spoilt)(rng, payloads[-1])
    kind = "proto" if binary else "json"
    content = f"application/connect+{kind}" if streams else f"application/{kind}"
    gzipped = rng.random() < 0.05
    if gzipped:
        payloads = [gzip.compress(payload) for payload in payloads]
        headers.append(("Connect-Content-Encoding" if streams else "Content-Encoding", "gzip"))
    if streams:
        raw = b"".join(envelope(payload, int(gzipped)) for payload in payloads)
        if wrong == "frame":
            raw = frames(rng, payloads)
        work.stay = rng.choice([0.05, 0.2])
    else:
        raw = payloads[0]
    if wrong == "headers":
        content = odd_headers(rng, headers, content, work)
    if name in ("SendInput", "StreamInput"):
        # A process that does not read keeps its writers waiting.
        headers.append(("Connect-Timeout-Ms", rng.choice(["50", "1000"])))
        work.facts["timeout"] = "1000"
    elif streams and rng.random() < 0.5 or rng.random() < 0.05:
        limit = rng.choice(["1", "50", "200", "60000", "0", "1" * 10, "1" * 11, "-1", "x", ""])
        headers.append(("Connect-Timeout-Ms", limit))
        work.facts["timeout"] = limit
    if server_streams:
        interval = rng.choice(["50", "1", "0", "-1", "9" * 30, "x"])
        headers.append(("Keepalive-Ping-Interval", interval))
    method = rng.choice(["GET", "PUT", "HEAD", "OPTIONS"]) if wrong == "method" else "POST"
    work.method = method
    work.facts["streams"] = streams
    work.facts["name"] = name
    headers += [("Content-Type", content), ("Connect-Protocol-Version", "1")] if content else []
    finish(rng, work, method, path, headers, raw)
    return work


def frames(rng, payloads):
    """Envelopes that are not right."""
    payload = payloads[0]
    return rng.choice(
        [
            b"", b"\0", envelope(payload)[:-1], envelope(payload, 1), envelope(payload, 2),
            envelope(payload, 0x80), envelope(payload, 0xFF), envelope(payload, length=0xFFFFFFFF),
            envelope(payload, length=17 << 20), envelope(payload, length=len(payload) + 10),
            envelope(payload, length=0), envelope(b""), envelope(b"") * 50 + envelope(payload),
            envelope(payload) * 3, envelope(payload) + envelope(b"{}", 2) + rng.randbytes(20),
            envelope(gzip.compress(payload)[:-4], 1),
            envelope(gzip.compress(b"\0" * (20 << 20)), 1), payload, rng.randbytes(100),
        ]
    )


def odd_headers(rng, headers, content, work):
    kind = rng.randrange(6)
    if kind == 0:
        headers.append(
            ("Content-Encoding", rng.choice(["identity", "br", "gzip, gzip", "", "x", "gzip"]))
        )
    elif kind == 1:
        headers.append(("Connect-Content-Encoding", rng.choice(["identity", "br", "gzip", ""])))
    elif kind == 2:
        headers.append(
            ("Accept-Encoding", rng.choice(["gzip", "identity;q=0", "*;q=0", "br", "gzip;q=x"]))
        )
    elif kind == 3:
        headers.append(("User-Agent", rng.choice(["connect-python", "", "x" * 5000])))
    else:
        return rng.choice(
            [
                "application/json", "application/connect+json", "application/grpc",
                "application/grpc-web+proto", "text/plain", "", "application/json; charset=utf-8",
                "application/connect+json;charset=utf-8", "x/" * 3000,
            ]
        )
    return content


def finish(rng, work, method, target, headers, raw, framed=None):
    if rng.random() < 0.2:
        pieces = chunks(raw, rng.choice([5, 1000]) if len(raw) < 5000 else 65_536)
        at = rng.randrange(len(pieces))
        work.pieces = [
            head(method, target, [*headers, ("Transfer-Encoding", "chunked")]),
            pieces[:at],
            pieces[at:],
        ]
    else:
        work.pieces = [head(method, target, [*headers, ("Content-Length", str(len(raw)))]) + raw]


# Files.


def signature(path, operation, name, token, expires=None):
    text = ":".join([path, operation, name, token] + ([str(expires)] if expires else []))
    return "v1_" + base64.b64encode(hashlib.sha256(text.encode()).digest()).decode().rstrip("=")


def files(rng, world):
    if rng.random() < 0.12:
        return compose(rng, world)
    reads = rng.random() < 0.55
    method = "GET" if reads else "POST"
    work = Work("agent", f"{method} /files", method)
    headers = addressed(rng, world, work, method, "/files")
    path = (
        some_path(rng)
        if rng.random() < 0.4
        else rng.choice([*FILES, "/home/user/big"] if reads else FILES)
    )
    if reads and path == "/dev/full":
        # It never ends.
        path = "/dev/null"
    name = rng.choice(USERS)
    pairs = [("path", path)] if rng.random() < 0.95 else []
    if name is not None:
        pairs.append(("username", name))
    if rng.random() < 0.25:
        sign(rng, work, headers, pairs, path, "read" if reads else "write", name or "")
    if rng.random() < 0.05:
        pairs.append(
            (
                rng.choice(["path", "signature_expiration", "username", "x"]),
                rng.choice(values.ODD_TEXTS[:20]),
            )
        )
    target = "/files?" + values.query(
        rng, [(k, v.encode("utf-8", "ignore").decode()) for k, v in pairs]
    )
    if reads:
        conditions(rng, headers)
        if rng.random() < 0.02:
            work.method = method = rng.choice(["HEAD", "PUT", "DELETE", "PATCH", "OPTIONS"])
        finish(rng, work, method, target, headers, b"")
        return work
    content, raw = uploaded(rng)
    if rng.random() < 0.1:
        headers.append(("Content-Encoding", rng.choice(["gzip", "gzip", "identity", "br"])))
        raw = gzip.compress(raw) if rng.random() < 0.7 else raw
    for _ in range(rng.choice([0, 0, 0, 1, 3])):
        key = rng.choice(["a", "Key", "k" * 246, "k" * 247, word(rng)])
        headers.append((f"X-Metadata-{key}", rng.choice([word(rng), "", "v" * 4000, b"\xff", "é"])))
    if content:
        headers.append(("Content-Type", content))
    finish(rng, work, method, target, headers, raw)
    return work


def sign(rng, work, headers, pairs, path, operation, name):
    """In place of the token, mostly; with the token that the caller holds."""
    token, wrong = work.facts["holds"] or "x", rng.randrange(7)
    expires = rng.choice([None, int(time.time()) + 300, int(time.time()) + 300])
    if wrong == 0:
        expires = rng.choice([1, -5, int(time.time()) - 2])
    if wrong == 1:
        operation = rng.choice(["read" if operation == "write" else "write", "x"])
    text = signature(path, operation, name, token, expires)
    if wrong == 2:
        text = rng.choice(["", "v1_", "v2_" + text[3:], text[:-1], text + "=", "é"])
    pairs.append(("signature", text))
    if expires is not None:
        pairs.append(("signature_expiration", str(expires)))
    if rng.random() < 0.9 or "X-Access-Token" not in dict(headers):
        headers[:] = [pair for pair in headers if pair[0] != "X-Access-Token"]
        work.proper = wrong > 2 and token == work.sandbox.token


def conditions(rng, headers):
    for _ in range(rng.choice([0, 0, 1, 1, 2])):
        headers.append(
            rng.choice(
                [
                    (
                        "Range",
                        rng.choice(
                            [
                                "bytes=0-9", "bytes=-5", "bytes=5-", "bytes=9-0", "bytes=99999999-",
                                "bytes=0-0,5-9", "bytes=" + ",".join(f"{i}-{i}" for i in range(40)),
                                "bytes=a-b", "items=0-1", "bytes=0-" + "9" * 30, "bytes=--1", "",
                            ]
                        ),
                    ),
                    (
                        "Accept-Encoding",
                        rng.choice(
                            [
                                "gzip", "identity", "*;q=0", "gzip;q=0.5, identity;q=0", "br",
                                "gzip;q=2",
                            ]
                        ),
                    ),
                    (
                        "If-Modified-Since",
                        rng.choice(
                            ["Wed, 21 Oct 2065 07:28:00 GMT", "x", "Thu, 01 Jan 1970 00:00:00 GMT"]
                        ),
                    ),
                    ("If-None-Match", rng.choice(["*", '"x"', "W/x"])),
                    ("If-Range", rng.choice(['"x"', "Wed, 21 Oct 2015 07:28:00 GMT"])),
                ]
            )
        )


def uploaded(rng):
    """Content type and body of an upload."""
    content = rng.randbytes(rng.choice([0, 1, 100, 10_000, 300_000]))
    if rng.random() < 0.5:
        return rng.choice(
            ["application/octet-stream"] * 9 + ["text/plain", "", "application/json"]
        ), content
    end = word(rng)
    part = b'--%s\r\nContent-Disposition: form-data; name="%s"; filename="%s"\r\n\r\n%s\r\n'
    names = [
        rng.choice(FILES + ["f9", "d/x", ""]).encode() for _ in range(rng.choice([0, 1, 1, 2, 3]))
    ]
    raw = b"".join(
        part % (end.encode(), rng.choice([b"file"] * 5 + [b"x"]), name, content) for name in names
    )
    raw += b"--%s--\r\n" % end.encode()
    kind = f"multipart/form-data; boundary={end}"
    if rng.random() < 0.35:
        at = rng.randrange(len(raw) + 1)
        raw = rng.choice(
            [
                raw[:at], raw[:at] + rng.randbytes(3) + raw[at:], raw.replace(b"\r\n", b"\n"),
                raw.replace(b"--", b"-"), raw.replace(b'filename="', b'filename="\xff'),
                raw.replace(b"; filename", b"; filename*=utf-8''%zz; filename"),
                raw.replace(
                    b"Content-Disposition", b"X: " + b"y" * 20_000 + b"\r\nContent-Disposition"
                ),
                b"preamble\r\n" + raw + b"epilogue",
                b"--%s\r\n" % end.encode() * 5000,
                b"",
            ]
        )
        kind = rng.choice(
            [
                kind, kind, kind, "multipart/form-data", "multipart/form-data; boundary=",
                "multipart/form-data; boundary=" + "b" * 300, 'multipart/mixed; boundary="' + end,
            ]
        )
    return kind, raw


def compose(rng, world):
    work = Work("agent", "POST /files/compose", "POST")
    headers = addressed(rng, world, work, "POST", "/files/compose")
    body = {
        "source_paths": rng.sample(FILES, rng.randrange(1, 3)),
        "destination": rng.choice(FILES + ["/home/user/d/x"]),
    }
    if rng.random() < 0.2:
        body["username"] = rng.choice(USERS[60:])
    kind = rng.random()
    if kind < 0.3:
        body = values.mutated(rng, body)
    raw = values.written(body)
    if kind > 0.85:
        raw = values.spoilt(rng, raw)
    finish(
        rng, work, "POST", "/files/compose", [*headers, ("Content-Type", "application/json")], raw
    )
    return work


def other(rng, world):
    """The small routes, those that are kept, and ones that are not there."""
    kind = rng.randrange(10)
    if kind < 6:
        path = rng.choice(["/health", "/metrics", "/envs"])
        method = (
            "GET"
            if rng.random() < 0.85
            else rng.choice(["POST", "HEAD", "OPTIONS", "DELETE", "get"])
        )
        work = Work("agent", f"GET {path}", method)
    elif kind < 8:
        path = rng.choice(RESERVED)
        spelt = rng.choice(
            [path, path, "/" + path, path + "/", "/%69nit", "/x/.." + path, "/." + path]
        )
        method = rng.choice(["POST", "GET"])
        work = Work("agent", f"POST {path}", method)
        work.facts["reserved"] = True
        path = spelt
    else:
        path = rng.choice(
            [
                "/", "/nowhere", "/process.Process/Nothing", "/process.Process/", "/files/", "/%00",
                "/" + "a" * 9000, "/..",
            ]
        )
        method = rng.choice(["GET", "POST"])
        work = Work("agent", "* elsewhere", method)
    headers = addressed(rng, world, work, method, path)
    raw = (
        values.written({"accessToken": None})
        if work.facts.get("reserved") and rng.random() < 0.5
        else b""
    )
    finish(rng, work, method, path, headers, raw)
    return work


def learn(work, answer, messages):
    """Process ids and watchers, for later requests."""
    for flags, payload in messages:
        if flags == 0 and b'"pid":' in payload:
            try:
                work.sandbox.pids.append(json.loads(payload)["event"]["start"]["pid"])
            except (ValueError, KeyError, TypeError):
                continue
    if work.facts.get("name") == "CreateWatcher" and answer.status == 200:
        found = answer.body[answer.body.find(b"w") :]
        try:
            work.sandbox.watchers.append(json.loads(answer.body)["watcherId"])
        except (ValueError, KeyError):
            if found:
                work.sandbox.watchers.append(found[-21:].decode("latin-1"))
