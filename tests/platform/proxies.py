"""A way between two processes that a test can slow, stop, cut, or answer on by itself.

One thread carries all ways; what is said to one counts for open connections as for new ones.
"""

import asyncio
import contextlib
import re
import socket
import struct
import threading

CHUNK = 1 << 16


class Ways:
    def __init__(self):
        self.loop = asyncio.new_event_loop()
        self.thread = threading.Thread(target=self.loop.run_forever, daemon=True)
        self.thread.start()
        self.made = []

    def to(self, target):
        """Another way to a port of this machine."""
        way = Way(self, target)
        self.made.append(way)
        return way

    def do(self, made):
        return asyncio.run_coroutine_threadsafe(made, self.loop).result(30)

    def close(self):
        for way in self.made:
            way.cut()
            self.do(way.stop())
        self.loop.call_soon_threadsafe(self.loop.stop)
        self.thread.join(10)


class Way:
    def __init__(self, ways, target):
        self.ways = ways
        self.target = target
        self.opened = set()
        self.healthy()
        self.passing = asyncio.Event()
        self.passing.set()
        # The port is taken once and kept: another one's would be in settings that cannot be changed.
        self.server = ways.do(asyncio.start_server(self.come, "127.0.0.1", 0, backlog=512))
        self.port = self.server.sockets[0].getsockname()[1]

    def healthy(self):
        self.delay, self.rate, self.left, self.refuses, self.status = 0, None, None, False, None

    # What a test says.

    def heal(self):
        """As before; what was held up goes on."""
        self.ways.do(self.become())

    def slow(self, seconds, bytes_per_second):
        """Each piece comes later, and not many at once."""
        self.ways.do(self.become(delay=seconds, rate=bytes_per_second))

    def hang(self):
        """As a network that loses everything: nobody is told anything."""
        self.ways.do(self.become(passing=False))

    def cut(self):
        """All connections are reset, and new ones as well."""
        self.ways.do(self.become(refuses=True))

    def half(self, count):
        """Each connection is reset when so many bytes came back on it."""
        self.ways.do(self.become(left=count))

    def answer(self, status):
        """HTTP: every request is answered with this status, and nothing reaches the server."""
        self.ways.do(self.become(status=status))

    async def become(self, passing=True, **now):
        self.healthy()
        vars(self).update(now)
        if passing:
            self.passing.set()
        else:
            self.passing.clear()
        # Connections that are open know nothing of answers of ours.
        if self.refuses or self.status:
            for writer in list(self.opened):
                reset(writer)

    # What it carries.

    async def come(self, reader, writer):
        self.opened.add(writer)
        beyond = None
        try:
            await self.passing.wait()
            if self.refuses:
                return
            if self.status:
                return await self.answers(reader, writer)
            from_server, beyond = await asyncio.open_connection("127.0.0.1", self.target)
            self.opened.add(beyond)
            there = asyncio.ensure_future(self.carry(reader, beyond, None))
            back = asyncio.ensure_future(self.carry(from_server, writer, self))
            # Either end's failure ends both.
            await asyncio.wait([there, back], return_when=asyncio.FIRST_EXCEPTION)
            there.cancel()
            back.cancel()
            ended = await asyncio.gather(there, back, return_exceptions=True)
            if ended == [None, None]:
                await asyncio.gather(close(writer), close(beyond))
        except OSError:
            pass
        finally:
            for one in filter(None, (writer, beyond)):
                self.opened.discard(one)
                reset(one)

    async def carry(self, reader, writer, counted):
        while True:
            data = await reader.read(CHUNK)
            if self.delay:
                await asyncio.sleep(self.delay)
            if self.rate and data:
                await asyncio.sleep(len(data) / self.rate)
            await self.passing.wait()
            if self.refuses or writer.transport.is_closing():
                raise ConnectionResetError
            if not data:
                with contextlib.suppress(OSError):
                    writer.write_eof()
                return
            if counted and self.left is not None:
                writer.write(data[: self.left])
                await writer.drain()
                raise ConnectionResetError
            writer.write(data)
            await writer.drain()

    async def answers(self, reader, writer):
        """Until the client goes; bodies are read to their end, or it would not read the answer."""
        while True:
            try:
                head = await reader.readuntil(b"\r\n\r\n")
            except (asyncio.IncompleteReadError, asyncio.LimitOverrunError):
                return
            if length := re.search(rb"(?i)\r\ncontent-length: *(\d+)", head):
                left = int(length[1])
                while left and (data := await reader.read(min(left, CHUNK))):
                    left -= len(data)
            writer.write(f"HTTP/1.1 {self.status or 503} Of a test\r\nContent-Length: 0\r\n\r\n".encode())
            await writer.drain()

    async def stop(self):
        self.server.close()


async def close(writer):
    writer.close()
    with contextlib.suppress(OSError):
        await writer.wait_closed()


def reset(writer):
    """What is not sent is not sent any more, and the other end is told so."""
    if stream := writer.get_extra_info("socket"):
        with contextlib.suppress(OSError):
            stream.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    writer.transport.abort()
