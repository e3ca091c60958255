"""HTTP/1.1 by hand: what is sent is bytes, and what comes back is read without forgiving anything."""

import asyncio
import dataclasses
import time
import zlib

# An answer that is not whole after this hangs.
PATIENCE = 10
HEAD_MAX = 1 << 20
BODY_MAX = 64 << 20


class Broken(Exception):
    """The peer's bytes are not HTTP."""


@dataclasses.dataclass
class Answer:
    """What came back. `ended`: `whole`; `left` (a stream from which we hung up); `cut` (the peer
    ended it early, without a byte when the status is 0); `late`; `broken`."""

    status: int = 0
    headers: list = dataclasses.field(default_factory=list)
    body: bytes = b""
    ended: str = "cut"
    seconds: float = 0.0
    keeps: bool = False

    def header(self, name, default=""):
        return next((value for key, value in self.headers if key == name), default)

    @property
    def text(self):
        """The body as a client reads it."""
        if self.header("content-encoding") != "gzip":
            return self.body
        return zlib.decompressobj(31).decompress(self.body, BODY_MAX)


class Connection:
    """To one address, made when it is needed and kept while its answers allow."""

    def __init__(self, port):
        self.port = port
        self.streams = None

    async def opened(self):
        if self.streams is None:
            self.streams = await asyncio.open_connection("127.0.0.1", self.port, limit=HEAD_MAX)
        return self.streams

    def close(self):
        if self.streams is not None:
            self.streams[1].transport.abort()
            self.streams = None

    async def ask(self, pieces, method="GET", stay=None):
        """Sends `pieces`, with a pause between them, and reads one answer. `stay`: the answer is a
        stream, from which we hang up after so many seconds."""
        begun, answer = time.monotonic(), Answer()
        sending = None
        try:
            reader, writer = await self.opened()
            sending = asyncio.ensure_future(send(writer, pieces))
            await asyncio.wait_for(self.read(reader, answer, method, stay), PATIENCE + (stay or 0))
        except TimeoutError:
            answer.ended = "late"
        except (OSError, asyncio.IncompleteReadError):
            answer.ended = "cut"
        except (Broken, asyncio.LimitOverrunError, ValueError) as error:
            answer.ended, answer.body = "broken", answer.body + f" <- {error}".encode()
        finally:
            if sending is not None and not sending.done():
                sending.cancel()
                answer.keeps = False
        answer.seconds = time.monotonic() - begun
        if answer.ended != "whole" or not answer.keeps:
            self.close()
        return answer

    async def read(self, reader, answer, method, stay):
        while True:
            await read_head(reader, answer)
            if answer.status >= 200 or answer.status == 101:
                break
        if method == "HEAD" or answer.status in (204, 304):
            answer.ended = "whole"
            return
        body = read_body(reader, answer)
        if stay is None:
            async for piece in body:
                answer.body += piece
        else:
            await self.listen(body, answer, stay)
        if answer.ended != "left":
            answer.ended = "whole"

    async def listen(self, body, answer, stay):
        """Until the stream ends, or `stay` seconds after its first bytes."""
        until = None
        while True:
            left = None if until is None else max(0, until - time.monotonic())
            try:
                answer.body += await asyncio.wait_for(anext(body), left)
            except StopAsyncIteration:
                return
            except TimeoutError:
                answer.ended = "left"
                return
            until = until or time.monotonic() + stay


async def send(writer, pieces):
    for at, piece in enumerate(pieces):
        if at:
            await asyncio.sleep(0.02)
        writer.write(piece)
        try:
            await writer.drain()
        except OSError:
            return


async def read_head(reader, answer):
    head = await reader.readuntil(b"\r\n\r\n")
    first, *lines = head[:-4].decode("latin-1").split("\r\n")
    version, _, rest = first.partition(" ")
    if version not in ("HTTP/1.1", "HTTP/1.0") or not rest[:3].isdigit():
        raise Broken(f"status line {first!r}")
    answer.status = int(rest[:3])
    answer.headers = []
    for line in lines:
        name, colon, value = line.partition(":")
        if not colon or name != name.strip():
            raise Broken(f"header {line!r}")
        answer.headers.append((name.lower(), value.strip()))
    connection = answer.header("connection").lower()
    answer.keeps = version == "HTTP/1.1" and connection != "close" and answer.status != 101


async def read_body(reader, answer):
    length, chunked = answer.header("content-length", None), answer.header("transfer-encoding")
    if length is not None and chunked:
        raise Broken("both a length and chunks")
    if chunked:
        while True:
            line = await reader.readuntil(b"\r\n")
            size = int(line.split(b";")[0], 16)
            if size == 0:
                break
            yield await reader.readexactly(size)
            if await reader.readexactly(2) != b"\r\n":
                raise Broken("a chunk without its end")
        while await reader.readuntil(b"\r\n") != b"\r\n":
            pass
    elif length is not None:
        left = int(length)
        while left:
            piece = await reader.read(min(left, 1 << 16))
            if not piece:
                raise asyncio.IncompleteReadError(b"", left)
            left -= len(piece)
            yield piece
    else:
        answer.keeps = False
        while piece := await reader.read(1 << 16):
            yield piece


def head(method, target, headers):
    """A request's head; `headers` are pairs of text or bytes."""
    lines = [f"{method} {target} HTTP/1.1".encode("latin-1", "replace")]
    for name, value in headers:
        value = value if isinstance(value, bytes) else value.encode("utf-8", "replace")
        lines.append(name.encode("latin-1", "replace") + b": " + value)
    return b"\r\n".join(lines) + b"\r\n\r\n"


def chunks(body, size):
    framed = [body[at : at + size] for at in range(0, len(body), size)]
    return b"".join(b"%x\r\n%s\r\n" % (len(piece), piece) for piece in framed) + b"0\r\n\r\n"


def envelope(payload, flags=0, length=None):
    return (
        bytes([flags]) + (len(payload) if length is None else length).to_bytes(4, "big") + payload
    )


def envelopes(body):
    """Flags and payload of each message; what is left over at the end comes as flags -1."""
    at = 0
    while len(body) - at >= 5:
        size = int.from_bytes(body[at + 1 : at + 5], "big")
        if len(body) - at - 5 < size:
            break
        yield body[at], body[at + 5 : at + 5 + size]
        at += 5 + size
    if at < len(body):
        yield -1, body[at:]
