"""What a sandbox does to its own processes, to the platform's files about it, and to what serves everybody; and
what of it would stay on the host."""

import contextlib
import os
import pathlib
import shutil
import struct
import subprocess
import sys
import tempfile
import time

import host
from attacks.raw import ask
from attacks.table import attack
from attacks.world import APART, HERE, PLAIN

PROCESSES = "The sandbox's own processes"
LEFT = "What is left on the host"
SHARED = "What serves all sandboxes"


def lives(world, sandbox):
    return sandbox.commands.run("echo lives", timeout=10).stdout == "lives\n"


def again(world, sandbox):
    host.until("the agent is there again", lambda: lives(world, sandbox))


def last_words(sandbox, command):
    """A command as root that ends whoever would say how it ended."""
    with contextlib.suppress(Exception):
        sandbox.commands.run(command, user="root", timeout=5)


def others_live(world):
    assert world.marks.process.poll() is None
    assert lives(world, world.other)


@attack(
    PROCESSES, "everybody-killed", "`kill -9 -1`", "root", "a new agent; nobody else notices", "apart: a bystander dies"
)
def _(world):
    made = world.platform.create()
    last_words(made, "kill -9 -1")
    again(world, made)
    others_live(world)
    made.kill()
    bystander = "import os, signal, subprocess; p = subprocess.Popen(['sleep', '9']); "
    bystander += "os.kill(-1, signal.SIGKILL); print(p.wait(5))"
    assert host.output(*APART, sys.executable, "-c", bystander).strip() == "-9"


@attack(
    PROCESSES,
    "agent-killed-again-and-again",
    "killing the agent twenty times",
    "root",
    "it comes back, later each time; nobody else notices",
    "each time it is dead at first",
)
def _(world):
    made = world.platform.create()
    script = "import os,glob,signal,time\nif os.fork(): os._exit(0)\nos.setsid(); n = 0\nend = time.time() + 3\n"
    script += "while n < 20 and time.time() < end:\n"
    script += " for p in glob.glob('/proc/[0-9]*/comm'):\n  try:\n"
    script += "   if open(p).read() == 'envd\\n': os.kill(int(p.split('/')[2]), 9); n += 1\n"
    script += "  except OSError: pass\n time.sleep(0.01)\nopen('/tmp/killed', 'w').write(str(n))\n"
    made.files.write("/tmp/k.py", script)
    last_words(made, "python3 /tmp/k.py >/dev/null 2>&1 </dev/null")
    others_live(world)
    host.until("the agent is there again", lambda: int(made.files.read("/tmp/killed") or 0) >= 3, seconds=30)
    made.kill()


# Makes process 1 fail as a program does: its next instruction is nowhere.
CRASH = """
import ctypes, os
c = ctypes.CDLL(None, use_errno=True)
c.ptrace.argtypes = [ctypes.c_long] * 2 + [ctypes.c_void_p] * 2
registers = (ctypes.c_ulong * 27)()
assert c.ptrace(16, 1, 0, 0) == 0
os.waitpid(1, 0x40000000)
assert c.ptrace(12, 1, 0, ctypes.byref(registers)) == 0
registers[16] = registers[15] = 0
assert c.ptrace(13, 1, 0, ctypes.byref(registers)) == 0
c.ptrace(17, 1, 0, 0)
"""


@attack(
    PROCESSES,
    "init-crashed",
    "making process 1 crash, by ptrace",
    "root",
    "its sandbox ends, and nothing else",
    "before, it lives",
)
def _(world):
    made = world.platform.create()
    assert lives(world, made)
    made.files.write("/tmp/crash.py", CRASH)
    last_words(made, "python3 /tmp/crash.py")
    key = {"X-API-Key": world.platform.client["api_key"]}
    host.until("it is gone", lambda: ask(world, "GET", f"/sandboxes/{made.sandbox_id}", key)[0] == 404)
    others_live(world)
    assert lives(world, world.platform.create())


@attack(
    PROCESSES,
    "pipes-to-the-node-flooded",
    "writing into the descriptors that process 1 has from the node",
    "root",
    "nothing is taken beyond the first byte",
    "a pipe of its own takes it",
)
def _(world):
    made, roles = world.platform.create(), world.platform.lasting()
    before = host.resident_mib(roles)
    flood = """
import os
total = 0
for number in range(256):
    for path in (f"/proc/1/fd/{number}",):
        try:
            fd = os.open(path, os.O_WRONLY | os.O_NONBLOCK)
            while total < 1 << 24: total += os.write(fd, bytes(65536))
        except OSError: pass
r, w = os.pipe()
os.set_blocking(w, False)
print(total, os.write(w, bytes(65536)))
"""
    made.files.write("/tmp/flood.py", flood)
    inside, own = made.commands.run("python3 /tmp/flood.py", user="root").stdout.split()
    # `/dev/null` takes what it is given; it is the host's and not the node's.
    assert int(own) == 65536 and int(inside) <= 1 << 24
    time.sleep(0.3)
    grown = host.resident_mib(roles) - before
    assert grown < 8, grown
    assert lives(world, made) and world.platform.lasting() == roles
    made.kill()


# `CAP_SETUID`, in force from the start.
CAPABLE = struct.pack("<5I", 0x02000001, 1 << 7, 0, 0, 0)


def layer_of(world, sandbox):
    return (
        host.RUN / world.platform.id / "pool/w" / world.platform.record(sandbox.sandbox_id)["facts"]["layer"] / "upper"
    )


def as_nobody(program, code):
    """What a program says for a user of the host who has nothing; nothing where it cannot be started."""
    nobody = {"user": 65534, "group": 65534, "extra_groups": []}
    try:
        return subprocess.run([program, "-c", code], capture_output=True, text=True, **nobody).stdout.strip()
    except PermissionError:
        return ""


@attack(
    LEFT,
    "program-with-the-owners-rights",
    "a set-user-id program of root in the layer, started on the host",
    "root",
    "it has no right but its starter's",
    "the same file elsewhere on the host: root's",
)
def _(world):
    path = "/home/user/owners"
    world.sandbox.commands.run(f"cp -L /usr/bin/python3 {path}; chown 0:0 {path}; chmod 4755 {path}", user="root")
    found = layer_of(world, world.sandbox) / path.lstrip("/")
    stat = found.stat()
    assert stat.st_uid == 0 and stat.st_mode & 0o4000
    code = "import os; print(os.geteuid())"
    # The folders above are root's alone; even with them open it is nobody's.
    assert as_nobody(found, code) == ""
    with world.bound(found) as here:
        assert as_nobody(here, code) == "65534"
    with open_folder(world) as folder:
        elsewhere = folder / "owners"
        shutil.copy2(found, elsewhere)
        os.chmod(elsewhere, 0o4755)
        assert as_nobody(elsewhere, code) == "0"


@attack(
    LEFT,
    "program-with-capabilities",
    "a program with capabilities in the layer, started on the host",
    "root",
    "it has none",
    "the same on a file of the host: it has them",
)
def _(world):
    path = "/home/user/capable"
    world.sandbox.files.write(
        "/tmp/cap.py", f"import os, struct\nos.setxattr('{path}', 'security.capability', {CAPABLE!r})"
    )
    world.sandbox.commands.run(f"cp -L /usr/bin/python3 {path}; python3 /tmp/cap.py", user="root")
    found = layer_of(world, world.sandbox) / path.lstrip("/")
    code = "print([line for line in open('/proc/self/status') if line.startswith('CapEff')][0].split()[1].lstrip('0'))"
    with world.bound(found) as here:
        assert as_nobody(here, code) == ""
    with open_folder(world) as folder:
        elsewhere = folder / "capable"
        shutil.copy(found, elsewhere)
        os.chmod(elsewhere, 0o755)
        os.setxattr(elsewhere, "security.capability", CAPABLE)
        assert as_nobody(elsewhere, code) == "80"


@contextlib.contextmanager
def open_folder(world):
    """One that everybody can reach."""
    with tempfile.TemporaryDirectory(prefix="cma-", dir="/var/tmp") as folder:
        os.chmod(folder, 0o755)
        yield pathlib.Path(folder)


@attack(
    LEFT,
    "links-out-of-the-layer",
    "folders that the platform and the agent write to, replaced by links to the host's",
    "root",
    "what they lead to on the host is untouched",
    "followed on the host, they lead there",
)
def _(world):
    made, target = world.platform.create(), world.marks.folder / "target"
    target.mkdir()
    (target / "kept").write_text("kept")
    replace = (
        f"for d in /etc/hosts /run/e2b /home /root /opt /srv /mnt /work /upper; do rm -rf $d; ln -s {target} $d; done; "
    )
    replace += (
        f"for i in $(seq 50); do ln -s {target} /l$i; ln -s / /r$i; done; ln -s {target}/kept /kept; ln /kept /hard"
    )
    made.commands.run(replace, user="root", cwd="/")
    layer = layer_of(world, made)
    assert (layer / "home").resolve() == target and (layer / "kept").read_text() == "kept"
    last_words(made, "kill -9 -1")
    time.sleep(0.5)
    key = {"X-API-Key": world.platform.client["api_key"]}
    assert ask(world, "GET", f"/sandboxes/{made.sandbox_id}/metrics", key)[0] == 200
    made.kill()
    host.until("the layer is gone", lambda: not layer.exists())
    assert [path.name for path in target.iterdir()] == ["kept"] and (target / "kept").read_text() == "kept"
    others_live(world)


@attack(
    LEFT,
    "folders-too-deep",
    "folders nested deeper than a path can name, with names of 255 bytes",
    "user",
    "they go with their sandbox",
    "a path to them is refused by the host's kernel",
)
def _(world):
    made = world.platform.create()
    deep = "import os\nos.chdir('/home/user')\nfor i in range(400):\n"
    deep += " os.mkdir('\\udcff' * 255)\n os.chdir('\\udcff' * 255)\nopen('end', 'w')\n"
    made.files.write("/tmp/deep.py", deep)
    made.commands.run("python3 /tmp/deep.py")
    layer = layer_of(world, made)
    try:
        os.stat(os.fsencode(layer / "home/user") + (b"/" + b"\xff" * 255) * 400)
        raise AssertionError("the control: it has a path")
    except OSError as error:
        assert error.strerror == "File name too long"
    made.kill()
    trash = host.RUN / world.platform.id / "pool/x"
    host.until("the layer is gone", lambda: not layer.exists() and not list(trash.iterdir()), seconds=30)


@attack(
    SHARED,
    "neighbour-poisoned",
    "an answer of ARP that claims an address for another card",
    "forged",
    "the host keeps no neighbours for sandboxes",
    "a machine without walls changes what the host believes",
)
def _(world):
    house, card = world.in_space("house"), "02:00:00:c0:ff:ee"
    gateway = world.gateway()
    own, other = world.address_of(world.sandbox), world.address_of(world.other)
    for source in (own, other, gateway):
        plan = {"name": "arp", "kind": "forged_arp", "to": gateway, "port": 0, "token": "", "source": source}
        assert world.send(world.network_of(world.sandbox), [plan]) == {"arp": "sent"}
    time.sleep(0.2)
    assert card not in host.output(*house, "ip", "neighbour", "show", "nud", "all")
    assert lives(world, world.other)
    # For the control the machine without walls speaks on the link to the house.
    hello = {"name": "hello", "kind": "udp", "to": PLAIN, "port": 8765, "token": "hello"}
    world.send(house, [hello])
    script = f"import sys; sys.path.insert(0, {str(HERE)!r}); import packets; packets.LINK = 'eth1'; "
    script += f"packets.forged_arp('198.18.0.5', 0, b'', '{PLAIN}')"
    host.output(*world.in_space("plain"), sys.executable, "-c", script)
    host.until("it believes", lambda: card in host.output(*house, "ip", "neighbour", "show", PLAIN))


@attack(
    SHARED,
    "rubbish-for-the-resolver",
    "names that are too long, loops of pointers, cut and swollen messages, a flood, over UDP and TCP",
    "user",
    "an error or silence; others' names resolve meanwhile",
    "a proper question is answered",
)
def _(world):
    gateway, roles = world.gateway(), world.platform.lasting()
    before = host.resident_mib(roles)
    head = b"\x12\x67\x01\x00\x00\x01\x00\x00\x00\x00\x00\x00"
    hostile = [
        head + b"\xc0\x0c\0\1\0\1",
        head + b"\x01a\xc0\x0c\0\1\0\1",
        head + b"\xc0\xff\0\1\0\1",
        head + b"\x40aaaa\0\0\1\0\1",
        head + (b"\x3f" + b"a" * 63) * 5 + b"\0\0\1\0\1",
        head + b"\x01a" * 400 + b"\0\0\1\0\1",
        head + b"\x3f" + b"a" * 10,
        head,
        b"",
        b"\x12",
        head[:4] + b"\xff\xff" + head[6:] + b"\1a\0\0\1\0\1",
        head[:2] + b"\x81\x80" + head[4:] + b"\1a\0\0\1\0\1",
        head + b"\1a\0\0\xff\0\1",
        head + b"\1a\0\0\xfc\0\1",
        head + b"\1a\0\0\1\0\3",
        bytes(4096),
        b"\xff" * 4096,
        b"\xff" * 20000,
    ]
    script = f"import socket, struct\nhostile = {hostile!r}\nu = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)\n"
    script += "held = []\nfor one in hostile:\n for size in (len(one), 65535, 0):\n  try:\n"
    script += f"   c = socket.create_connection(('{gateway}', 53), 2)\n"
    script += "   c.sendall(struct.pack('!H', size) + one); held.append(c)\n  except OSError: pass\n"
    script += "open('/tmp/flooding', 'w')\n"
    script += f"while True:\n for one in hostile: u.sendto(one, ('{gateway}', 53))\n"
    world.sandbox.files.write("/tmp/hostile.py", script)
    flood = world.sandbox.commands.run("python3 /tmp/hostile.py", background=True, timeout=0)
    host.until("it floods", lambda: world.sandbox.files.exists("/tmp/flooding"))
    plan = {"name": "good", "kind": "dns", "to": gateway, "port": 53, "token": "cma-good"}
    for _ in range(10):
        assert world.send_inside(world.other, [plan]) == {"good": "code 0"}
    assert flood.kill(), "it flooded to the end"
    assert host.resident_mib(roles) - before < 8 and world.platform.lasting() == roles
    host.until("its own names resolve again", lambda: world.send_inside(world.sandbox, [plan]) == {"good": "code 0"})
