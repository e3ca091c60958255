"""HTTP/2 in clear: right requests, and frames that are not right. Each is one connection."""

import asyncio
import struct
import time

import values
from hpack import Decoder, Encoder
from wire import PATIENCE, Answer
from work import Work

PREFACE = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"
DATA, HEADERS, PRIORITY, RESET, SETTINGS, PUSH, PING, GOAWAY, WINDOW, CONTINUATION = range(10)
END_STREAM, ACK, END_HEADERS = 1, 1, 4
QUESTION = b"casemate"
FRAME_MAX = 16_384


def frame(kind, flags=0, stream=0, payload=b"", length=None):
    size = len(payload) if length is None else length
    return size.to_bytes(3, "big") + bytes([kind, flags]) + struct.pack(">I", stream) + payload


def asked(method, path, more, authority="localhost"):
    pairs = [(":method", method), (":path", path), (":scheme", "http"), (":authority", authority)]
    return Encoder().encode([*pairs, *more])


def generate(rng, world):
    work = Work("frames", "frames")
    team = rng.choice([world.a, world.b])
    sandbox = team.any(rng)
    work.team, work.sandbox = team, sandbox
    to_api = [("x-api-key", team.key)]
    to_agent = [
        ("e2b-sandbox-id", sandbox.id),
        ("e2b-sandbox-port", "49983"),
        ("x-access-token", sandbox.token),
    ]
    if rng.random() < 0.5:
        choice = rng.randrange(4)
        if choice == 0:
            first, more = asked("GET", "/v2/sandboxes", to_api), b""
        elif choice == 1:
            first, more = asked("GET", "/files?path=/home/user/untouched", to_agent), b""
        else:
            kind = [("content-type", "application/json"), ("connect-protocol-version", "1")]
            path = "/process.Process/List" if choice == 2 else "/filesystem.Filesystem/ListDir"
            first, more = (
                asked("POST", path, to_agent + kind),
                values.written({"path": "/home/user"}),
            )
        work.operation = "frames: a request"
        work.proper = True
        work.pieces = [PREFACE + frame(SETTINGS) + request(1, first, more)]
        return work
    name, made = rng.choice(list(WRONG.items()))
    work.operation = f"frames: {name}"
    block = (
        asked("GET", "/v2/sandboxes", to_api)
        if rng.random() < 0.5
        else asked("GET", "/health", to_agent)
    )
    told = made(rng, block)
    work.pieces = [PREFACE + frame(SETTINGS) + told if name != "preface" else told]
    return work


def request(stream, block, body=b""):
    if not body:
        return frame(HEADERS, END_HEADERS | END_STREAM, stream, block)
    return frame(HEADERS, END_HEADERS, stream, block) + frame(DATA, END_STREAM, stream, body)


def setting(number, value):
    return frame(SETTINGS, 0, 0, struct.pack(">HI", number, value))


WRONG = {
    "preface": lambda rng, block: rng.choice(
        [
            PREFACE, PREFACE[:-4], PREFACE + b"x" * 50, PREFACE + request(1, block),
            PREFACE + rng.randbytes(60), PREFACE * 2,
        ]
    ),
    "settings": lambda rng, block: rng.choice(
        [
            setting(4, 1 << 31), setting(5, 1), setting(5, 1 << 24), setting(2, 7), setting(99, 99),
            setting(1, 0xFFFFFFFF), setting(3, 0), frame(SETTINGS, 0, 0, b"x"),
            frame(SETTINGS, 0, 3), frame(SETTINGS, ACK, 0, b"123456"),
            setting(4, 0) + request(1, block), setting(1, 4096) * 2000,
        ]
    ),
    "headers": lambda rng, block: rng.choice(
        [
            request(2, block), request(0, block), request(1, b"\xff" * 50), request(1, b""),
            request(1, block) * 2, request(5, block) + request(3, block),
            frame(HEADERS, END_HEADERS | END_STREAM | 0x20, 1, b"\x80\0\0\1\x10" + block),
            frame(HEADERS, END_HEADERS | 0x08, 1, b"\xff" + block),
            request(1, Encoder().encode([(":method", "GET")])),
            request(1, asked("GET", "/", [(":path", "/x")])), request(1, asked("GET", "", [])),
            request(1, asked("GET", "x", [])), request(1, asked("G T", "/", [])),
            request(1, asked("GET", "/\0", [])), request(1, asked("GET", "/", [("Upper", "x")])),
            request(1, asked("GET", "/", [("connection", "close")])),
            request(1, asked("GET", "/", [("x", "a\r\nb")])),
            request(1, asked("GET", "/", [("te", "x"), ("transfer-encoding", "chunked")])),
            request(1, asked("GET", "/", [("content-length", "5")])),
            request(1, asked("POST", "/v2/sandboxes", [("content-length", "1")]), b"12345"),
            request(1, asked("CONNECT", "/", [])), request(1, asked("GET", "/", [], "a b")),
            request(1, asked("GET", "/", [], "")),
            request(1, asked("CONNECT", "/", [(":protocol", "websocket")])),
            request(1, asked("GET", "/", [("cookie", "a=b")] * 500)),
        ]
    ),
    "header bomb": lambda rng, block: request(1, bomb(rng.choice([10, 100, 4000]))),
    "continuations": lambda rng, block: (
        frame(HEADERS, END_STREAM, 1, block)
        + frame(CONTINUATION, 0, 1, b"\0\1x\1y" * rng.choice([0, 1, 100]))
        * rng.choice([1, 50, 300])
    ),
    "rapid reset": lambda rng, block: b"".join(
        request(stream, block) + frame(RESET, 0, stream, struct.pack(">I", 8))
        for stream in range(1, 2 * rng.choice([10, 100, 400]), 2)
    ),
    "many streams": lambda rng, block: b"".join(
        frame(HEADERS, END_HEADERS, stream, block)
        for stream in range(1, 2 * rng.choice([100, 600]), 2)
    ),
    "data": lambda rng, block: rng.choice(
        [
            frame(DATA, 0, 0, b"x"), frame(DATA, 0, 7, b"x"),
            frame(HEADERS, END_HEADERS, 1, block) + frame(DATA, 8, 1, b"\xffx"),
            request(1, block) + frame(DATA, 0, 1, b"late"), frame(DATA, 0, 1, b"x" * 20_000),
            frame(DATA, 0, 1, b"", length=0xFFFFFF),
            frame(HEADERS, END_HEADERS, 1, block) + frame(DATA, 0, 1) * 3000,
        ]
    ),
    "others": lambda rng, block: rng.choice(
        [
            frame(WINDOW, 0, 0, struct.pack(">I", 0)),
            frame(WINDOW, 0, 0, struct.pack(">I", 0x7FFFFFFF)) * 2,
            frame(WINDOW, 0, 1, b"\0\0\0\1"), frame(RESET, 0, 0, b"\0\0\0\0"),
            frame(RESET, 0, 9, b"\0\0\0\0"), frame(PING, 0, 0, b"short"),
            frame(PING, 0, 0, QUESTION) * 3000, frame(PUSH, END_HEADERS, 1, b"\0\0\0\2" + block),
            frame(PRIORITY, 0, 1, b"\0\0\0\1\0"), frame(PRIORITY, 0, 3, b"\0"),
            frame(99, 0xFF, 0, b"x" * 100), frame(GOAWAY, 0, 0, b"\0" * 8) + request(1, block),
            frame(CONTINUATION, 4, 1, block), frame(0, 0, 0x80000001, b"x"),
            frame(PRIORITY, 0, 5, b"\0\0\0\0\x10") * 3000,
        ]
    ),
    "a changed request": lambda rng, block: flipped(rng, request(1, block, b"{}")),
}


def bomb(count):
    """One large entry of the table, named again and again."""
    first = Encoder().encode(
        [(":method", "GET"), (":path", "/health"), (":scheme", "http"), (":authority", "x")]
    )
    return first + b"\x40\x01x\x7f\xa1\x1e" + b"y" * 4000 + b"\xbe" * count


def flipped(rng, raw):
    for _ in range(rng.choice([1, 2, 5])):
        at = rng.randrange(len(raw))
        raw = raw[:at] + bytes([rng.randrange(256)]) + raw[at + 1 :]
    return raw


def rest(raw):
    """What its last frame announced and does not have, as zeros: the question behind it would be
    taken for that, and a server may wait for the rest longer than we do. None for a frame that is
    too large, which ends the connection."""
    if not raw.startswith(PREFACE):
        return b""
    at, end = len(PREFACE), len(raw)
    while at < len(raw):
        raw = raw.ljust(at + 9, b"\0")
        size = int.from_bytes(raw[at : at + 3], "big")
        if size > FRAME_MAX:
            return b""
        at += 9 + size
    return b"\0" * (at - end)


async def run(work, port):
    """Sends it, then asks for a sign of life: the connection must end, or answer. The status is that
    of stream 1, where it was answered whole."""
    begun, answer = time.monotonic(), Answer()
    try:
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
    except OSError:
        return answer
    try:
        writer.write(work.raw)
        if not work.proper:
            writer.write(rest(work.raw) + frame(PING, 0, 0, QUESTION[::-1]))
        await asyncio.wait_for(listen(reader, writer, work, answer), PATIENCE + 1)
    except TimeoutError:
        answer.ended = "late"
    except (OSError, asyncio.IncompleteReadError):
        answer.ended = "cut" if work.proper else "ended"
    finally:
        writer.transport.abort()
    answer.seconds = time.monotonic() - begun
    return answer


async def listen(reader, writer, work, answer):
    decoder = Decoder()
    while True:
        head = await reader.readexactly(9)
        size, kind, flags = int.from_bytes(head[:3], "big"), head[3], head[4]
        stream = int.from_bytes(head[5:], "big")
        payload = await reader.readexactly(size)
        if kind == SETTINGS and not flags & ACK:
            writer.write(frame(SETTINGS, ACK))
        elif kind == HEADERS:
            pairs = [(str(k), str(v)) for k, v in decoder.decode(payload)]
            status = int(dict(pairs).get(":status", 0))
            if stream == 1 and status:
                answer.status, answer.headers = status, pairs
        elif kind == DATA:
            answer.body += payload
            if size:
                more = struct.pack(">I", size)
                writer.write(frame(WINDOW, 0, 0, more) + frame(WINDOW, 0, stream, more))
        elif kind == GOAWAY or kind == RESET and stream == 1:
            answer.ended = "cut" if work.proper else "ended"
            return
        if kind in (HEADERS, DATA) and flags & END_STREAM and stream == 1 and work.proper:
            answer.ended = "whole"
            return
        if kind == PING and flags & ACK and payload == QUESTION[::-1]:
            answer.ended = "alive"
            return
