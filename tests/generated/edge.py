"""The front door: ways to name a sandbox, and bytes that are hardly HTTP/1.1."""

import asyncio
import time

import values
from values import word
from wire import PATIENCE, Answer, Broken, head, read_body, read_head
from work import Work

# After which the edge closes a connection whose head does not come (docs/limits.md).
HEAD_TIME = 10
# Whole requests: to these an answer must come, and so many.
ANSWERED = {"bytes pipeline", "bytes no host", "bytes http/1.0", "bytes many headers"}


def routing(rng, world):
    """Hosts and routing headers, right and wrong, for ports on which nothing listens."""
    work = Work("edge", "routing")
    team = rng.choice([world.a, world.b])
    sandbox = team.any(rng)
    ids = [
        sandbox.id, sandbox.id, sandbox.id.upper(), sandbox.id + "-x", "i" + word(rng, 20), "", "x",
        "é",
        *team.dead,
    ]
    ports = [
        "8000", "49983", "0", "65535", "65536", "99999999999999999999", "-1", "+80", "80 ", "x", "",
        "٣",
    ]
    work.sandbox, id, port = sandbox, rng.choice(ids), rng.choice(ports)
    hosts = [
        f"{port}-{id}.localhost", f"{port}-{id}.x:1", f"{id}.localhost", f"{port}-{id}",
        f"{port}-{id}-{id}.localhost", "localhost", "127.0.0.1", "[::1]",
        f"sandbox.localhost:{world.port}", "api.localhost", "example.com", "a.b..c", "", "é",
        "x" * 300,
    ]
    headers = [("Host", rng.choice(hosts))]
    if rng.random() < 0.6:
        headers.append(("E2b-Sandbox-Id", id))
    if rng.random() < 0.6:
        headers.append(("E2b-Sandbox-Port", port))
    if rng.random() < 0.2:
        headers.append(
            rng.choice(
                [
                    ("Accept", "text/html"), ("User-Agent", "Mozilla/5.0"),
                    ("Upgrade", "websocket"), ("Connection", "Upgrade"),
                    ("Connection", "keep-alive, x"), ("TE", "trailers"),
                    ("X-Forwarded-For", "1.2.3.4"), ("e2b-traffic-access-token", "x"),
                ]
            )
        )
    work.method = method = rng.choice(["GET", "GET", "POST", "HEAD", "OPTIONS", "DELETE"])
    path = rng.choice(
        ["/", "/health", "/init", "/sandboxes", "//", "/%2e%2e/init", "/?x=" + "y" * 100]
    )
    work.pieces = [head(method, path, headers)]
    return work


def raw(rng, world):
    """Bytes of our own. Whatever comes back must be an answer or an end, and soon."""
    work = Work("raw", "bytes")
    team = rng.choice([world.a, world.b])
    sandbox = team.any(rng)
    work.sandbox = sandbox
    routed = rng.random() < 0.5
    to = f"Host: localhost\r\nX-API-Key: {team.key}\r\n"
    if routed:
        to = "Host: localhost\r\n"
        to += "".join(f"{name}: {value}\r\n" for name, value in world.to_agent(sandbox).items())
    work.team = team
    name, made = rng.choice(list(BYTES.items()))
    work.operation = f"bytes {name}"
    # Nobody waits for ever for the rest of a head.
    work.facts["answers"] = []
    work.facts["to the end"] = name == "part of a head" and rng.random() < 0.02
    path = "/files?path=/home/user/f0" if routed else "/v2/sandboxes"
    told = made(rng, path, to)
    work.pieces = [piece if isinstance(piece, bytes) else piece.encode("latin-1") for piece in told]
    return work


def post(path, to, more, body):
    return [
        f"POST {path} HTTP/1.1\r\n{to}Content-Type: application/octet-stream\r\n{more}\r\n",
        body,
    ]


GET = "GET /health HTTP/1.1\r\nHost: localhost\r\n\r\n"
BYTES = {
    "request line": lambda rng, path, to: [
        rng.choice(
            [
                "GET", "GET /", "GET / HTTP", "GET / HTTP/9.9", "GET / HTTP/0.9", "GET / HTTP/2.0",
                "GET  / HTTP/1.1", "GET\t/ HTTP/1.1", "GET / / HTTP/1.1", " GET / HTTP/1.1",
                "\r\n\r\nGET / HTTP/1.1", "G\0T / HTTP/1.1", "G" * 70_000, "GET /\x01 HTTP/1.1",
                "GET /ä HTTP/1.1", "GET /" + "a" * 66_000 + " HTTP/1.1", "GET x HTTP/1.1",
                "GET http:// HTTP/1.1", "GET * HTTP/1.1",
                "GET http://other.example/health HTTP/1.1", "CONNECT localhost:22 HTTP/1.1",
                "OPTIONS * HTTP/1.1", "GET /?\x7f HTTP/1.1", "GET /#x HTTP/1.1",
                "GET http://[::1 HTTP/1.1", "GET http://a:b@c:99999/ HTTP/1.1", "PRI * HTTP/2.0",
            ]
        )
        + f"\r\n{to}\r\n"
    ],
    "header": lambda rng, path, to: [
        f"GET {path} HTTP/1.1\r\n{to}"
        + rng.choice(
            [
                "X : y", ": y", "X", "X: a\r\n b", "X:\0", "X: a\rb", "X: a\nY: b", "\x80: y",
                "X: " + "y" * 70_000, "Ä: y", "Content-Length: x", "Content-Length: -1",
                "Content-Length: +5", "Content-Length: 5, 5",
                "Content-Length: 5\r\nContent-Length: 6", "Content-Length: 99999999999999999999999",
                "Transfer-Encoding: x", "Transfer-Encoding: chunked, x",
                "Transfer-Encoding: identity", "Host: other", "Host: a\r\nHost: b",
                "Connection: close, close", "Connection: " + "x," * 2000, "Expect: 200-maybe",
                "Upgrade: h2c\r\nConnection: Upgrade, HTTP2-Settings\r\nHTTP2-Settings: AAMAAABkAAQAAP__",
                "Trailer: X", "Date: never",
            ]
        )
        + "\r\n\r\n"
    ],
    "many headers": lambda rng, path, to: [
        f"GET {path} HTTP/1.1\r\n{to}"
        + "".join(f"X-{i}: y\r\n" for i in range(rng.choice([90, 101, 200, 3000])))
        + "\r\n"
    ],
    "no host": lambda rng, path, to: [f"GET {path} HTTP/1.1\r\nX-API-Key: x\r\n\r\n"],
    "http/1.0": lambda rng, path, to: [f"GET {path} HTTP/1.0\r\n{to}\r\n"],
    "both lengths": lambda rng, path, to: post(
        path,
        to,
        f"Content-Length: {rng.choice([4, 6, 100])}\r\nTransfer-Encoding: chunked\r\n",
        f"0\r\n\r\n{GET}",
    ),
    "chunk sizes": lambda rng, path, to: post(
        path,
        to,
        "Transfer-Encoding: chunked\r\n",
        rng.choice(
            [
                "x\r\n\r\n", "-1\r\na\r\n0\r\n\r\n", "FFFFFFFFFFFFFFFFF\r\nab",
                "7fffffffffffffff\r\nab", "5\r\nab", "2\r\nabXX0\r\n\r\n",
                "2;" + "e" * 70_000 + "\r\nab\r\n0\r\n\r\n", "2;a=b\r\nab\r\n0\r\n\r\n",
                "0x2\r\nab\r\n0\r\n\r\n", " 2\r\nab\r\n0\r\n\r\n", "2\nab\n0\n\n",
                "2\r\nab\r\n0\r\nX: y\r\n\r\n", "0\r\n" + "X: y\r\n" * 2000 + "\r\n",
                "0\r\nContent-Length: 5\r\n\r\n", "\r\n", "00000000000000000000\r\n\r\n",
            ]
        ),
    ),
    "pipeline": lambda rng, path, to: [GET * rng.choice([2, 5, 50])],
    "pipeline after refusal": lambda rng, path, to: [
        f"POST /nowhere HTTP/1.1\r\n{to}Content-Length: 5\r\n\r\nhello{GET}"
    ],
    "early close": lambda rng, path, to: post(
        path, to, "Content-Length: 100000\r\n", "x" * rng.choice([0, 10, 50_000])
    ),
    "body without a length": lambda rng, path, to: post(path, to, "", "x" * 10),
    "huge length": lambda rng, path, to: post(
        path, to, f"Content-Length: {rng.choice([2**63, 2**64 - 1, 17 << 20])}\r\n", "x" * 1000
    ),
    "a TLS client": lambda rng, path, to: [
        b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03" + rng.randbytes(500)
    ],
    "noise": lambda rng, path, to: [
        rng.randbytes(rng.choice([1, 10, 100, 5000])),
        rng.randbytes(10),
    ],
    "part of a head": lambda rng, path, to: [
        f"GET {path} HTTP/1.1\r\n{to}"[: rng.randrange(1, 60)]
    ],
    "a changed request": lambda rng, path, to: [
        changed(rng, f"GET {path} HTTP/1.1\r\n{to}Accept: */*\r\n\r\n".encode())
    ],
}


def changed(rng, request):
    for _ in range(rng.choice([1, 1, 2, 5])):
        at = rng.randrange(len(request))
        request = rng.choice(
            [
                request[:at] + bytes([rng.randrange(256)]) + request[at + 1 :],
                request[:at] + request[at + 1 :],
                request[:at]
                + rng.choice([b"\r", b"\n", b"\0", b" ", b":", b"\xff"])
                + request[at:],
                request[:at] + values.word(rng).encode() + request[at:],
            ]
        )
    return request


async def run(work, port):
    """Sends it and reads answers until the end or silence. The status is the first one's."""
    begun, answer = time.monotonic(), Answer(ended="quiet")
    try:
        reader, writer = await asyncio.open_connection("127.0.0.1", port, limit=1 << 20)
    except OSError:
        return answer
    try:
        for piece in work.pieces:
            writer.write(piece)
            await asyncio.sleep(0)
        count, expected = (
            0,
            work.raw.count(b"GET /health HTTP/1.1") if "pipeline" in work.operation else 1,
        )
        while True:
            one = Answer()
            patient = work.operation in ANSWERED and count < expected
            patience = PATIENCE if patient else HEAD_TIME + 1 if work.facts["to the end"] else 0.25
            await asyncio.wait_for(read_one(reader, one), patience)
            count += 1
            work.facts["answers"].append(one)
            if count == 1:
                answer.status, answer.headers = one.status, one.headers
            answer.body += one.body
    except TimeoutError:
        if work.operation in ANSWERED and count < expected or work.facts["to the end"]:
            answer.ended = "late"
    except (OSError, asyncio.IncompleteReadError):
        answer.ended = "ended"
    except (Broken, ValueError, asyncio.LimitOverrunError) as error:
        answer.ended, answer.body = "broken", answer.body + f" <- {error}".encode()
    finally:
        writer.transport.abort()
    answer.seconds = time.monotonic() - begun
    return answer


async def read_one(reader, answer):
    await read_head(reader, answer)
    if answer.status == 101 or answer.status in (204, 304):
        return
    async for piece in read_body(reader, answer):
        answer.body += piece
