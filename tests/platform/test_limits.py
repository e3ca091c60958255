"""Limits by their effect: what happens at each, and that a neighbour keeps its own. Processes, memory, disk
and unread output are in `test_abuse.py`, terminals in `test_owners.py`."""

import json
import pathlib
import socket
import subprocess
import sys
import time

import e2b
import pytest

import host
from instance import running
from test_abuse import is_well


@pytest.fixture
def neighbour(main):
    made = main.create()
    yield made
    main.kill(made.sandbox_id)


def said(sandbox, program, **options):
    """What a Python program says, as JSON."""
    sandbox.files.write("/tmp/limit.py", program)
    return json.loads(sandbox.commands.run("python3 /tmp/limit.py", **{"timeout": 60, **options}).stdout)


OPEN_FILES = """
import errno, json, os, resource
soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
held = []
try:
    while len(held) <= soft: held.append(os.open("/dev/null", os.O_RDONLY))
except OSError as error: ended = errno.errorcode[error.errno]
for fd in held: os.close(fd)
print(json.dumps([len(held), soft, ended]))
"""


def test_open_files_of_a_process_end_at_the_limit(sandbox):
    count, soft, ended = said(sandbox, OPEN_FILES)
    # Standard input, output and errors, and the program's own.
    assert soft - 16 < count < soft and soft <= 65536 and ended == "EMFILE"
    assert sandbox.commands.run("cat /etc/hostname").exit_code == 0


INSTANCES = """
import ctypes, errno, json, time, sys
c = ctypes.CDLL(None, use_errno=True)
held = 0
while c.inotify_init1(0) >= 0: held += 1
print(json.dumps([held, errno.errorcode[ctypes.get_errno()]]), flush=True)
time.sleep(float(sys.argv[1]) if len(sys.argv) > 1 else 0)
"""


def test_inotify_instances_end_at_the_hosts_number_and_a_neighbour_has_its_own(sandbox, neighbour):
    """Of a sandbox's users together: the kernel counts them against its user namespace's owner."""
    most = int(host.read("/proc/sys/fs/inotify/max_user_instances"))
    for one in (sandbox, neighbour):
        one.files.write("/tmp/limit.py", INSTANCES)
    held = sandbox.commands.run("python3 /tmp/limit.py 30 >/tmp/held", background=True)
    host.until("they are taken", lambda: sandbox.commands.run("cat /tmp/held").stdout)

    def taken(one, user):
        return json.loads(one.commands.run("python3 /tmp/limit.py", user=user).stdout)

    for user in ("user", "root"):
        assert taken(sandbox, user) == [0, "EMFILE"]
    count, ended = taken(neighbour, "user")
    assert most - 4 <= count <= most and ended == "EMFILE"
    held.kill()


WATCHES = """
import ctypes, errno, json, os
c = ctypes.CDLL(None, use_errno=True)
fd, held = c.inotify_init1(0), 0
os.makedirs("/tmp/watched", exist_ok=True)
while held < MOST:
    os.mkdir(f"/tmp/watched/{held}") if not os.path.isdir(f"/tmp/watched/{held}") else None
    if c.inotify_add_watch(fd, f"/tmp/watched/{held}".encode(), 2) < 0: break
    held += 1
print(json.dumps([held, errno.errorcode.get(ctypes.get_errno(), "")]))
"""


def test_watches_end_at_the_memory_or_at_the_hosts_number(sandbox, neighbour):
    """What is watched is held in the kernel: as many as memory allows, if the host's number is larger."""
    assert int(host.read("/proc/sys/fs/inotify/max_user_watches")) > 5000
    assert said(sandbox, WATCHES.replace("MOST", "5000"))[0] == 5000
    assert said(neighbour, WATCHES.replace("MOST", "100"))[0] == 100


def test_watchers_of_the_agent_end_at_their_number(main, neighbour):
    made = []
    # The SDK's name for `resource_exhausted`.
    with pytest.raises(e2b.RateLimitException):
        for _ in range(140):
            made.append(neighbour.files.watch_dir("/home/user"))
    assert len(made) == 128
    made.pop().stop()
    made.append(neighbour.files.watch_dir("/home/user"))
    assert neighbour.commands.run("echo well").stdout == "well\n"


CONNECTIONS = """
import errno, json, socket, sys, time
held, ended = [], ""
try:
    while len(held) < 400: held.append(socket.create_connection((sys.argv[1], 8765), 3))
except OSError as error: ended = errno.errorcode.get(error.errno, str(error))
print(json.dumps([len(held), ended]), flush=True)
time.sleep(float(sys.argv[2]))
"""


def test_connections_to_the_outside_end_at_the_limit_and_a_neighbour_has_its_own(ground):
    from attacks import world

    sandbox, neighbour = ground.platform.create(), ground.platform.create()
    for one in (sandbox, neighbour):
        one.files.write("/tmp/limit.py", CONNECTIONS)
    command = f"python3 /tmp/limit.py {world.OPEN} "
    count, ended = json.loads(sandbox.commands.run(f"{command} 0", timeout=30).stdout)
    # 300, as the fixture set it; some places are taken by those that have just ended.
    assert 250 <= count <= 300 and ended in ("ECONNREFUSED", "EHOSTUNREACH"), (count, ended)
    held = sandbox.commands.run(f"{command} 20", background=True)
    time.sleep(2)
    assert json.loads(neighbour.commands.run(f"{command} 0", timeout=30).stdout)[0] >= 250
    held.kill()
    for one in (sandbox, neighbour):
        one.kill()


def test_connections_to_the_agent_wait_beyond_their_number(main, neighbour):
    """512, of which the edge keeps some: whoever is beyond waits and is not lost."""
    head = f"POST /process.Process/List HTTP/1.1\r\nHost: localhost\r\nE2b-Sandbox-Id: {neighbour.sandbox_id}\r\n"
    head += "E2b-Sandbox-Port: 49983\r\nContent-Type: application/json\r\nContent-Length: 2\r\n\r\n"
    held = []
    try:
        for _ in range(600):
            held.append(socket.create_connection((main.address, main.port)))
            # The body does not come, so that the agent waits for it.
            held[-1].sendall(head.encode())
        time.sleep(1)
    finally:
        for one in held:
            one.close()
    host.until("it answers", lambda: neighbour.commands.run("echo well", request_timeout=5).stdout == "well\n")


def test_processor_time_is_throttled(sandbox):
    """Four busy loops on two processors, as the platform's default is, or on the host's if they are fewer."""
    spin = (
        "import os, json, time\nend = time.time() + 3\nchildren = []\nfor _ in range(4):\n if not (p := os.fork()):\n"
    )
    spin += "  while time.time() < end: pass\n  os._exit(0)\nfor _ in range(4): os.wait()\nt = os.times()\n"
    spin += "print(json.dumps([t.children_user + t.children_system, len(os.sched_getaffinity(0))]))\n"
    spent, processors = said(sandbox, spin)
    assert processors <= 2 and spent < 3 * 2 * 1.2, spent


def test_the_share_of_a_processor_is_its_quota(main, sandbox):
    """The kernel counts how often it held a sandbox back; a quota made smaller from outside does so at once."""
    groups = {pathlib.Path(path) for path in main.groups(sandbox.sandbox_id)}
    (quota,) = [path / name for path in groups for name in ("cpu.cfs_quota_us", "cpu.max") if (path / name).exists()]
    before = quota.read_text()
    quota.write_text("20000" if quota.name == "cpu.cfs_quota_us" else "20000 100000")
    try:
        loop = "import os, json, time\nend = time.time() + 2\nwhile time.time() < end: pass\n"
        loop += "t = os.times()\nprint(json.dumps(t.user + t.system))"
        assert said(sandbox, loop) < 2 * 0.2 * 2
    finally:
        quota.write_text(before)
    throttled = dict(line.split() for line in (quota.parent / "cpu.stat").read_text().splitlines())
    assert int(throttled["nr_throttled"]) > 5


# Memory under other names than a program's own.
MEMORY = {
    "shared": "m = mmap.mmap(-1, SIZE)\nfor at in range(0, SIZE, 4096): m[at] = 1",
    "memfd": "f = os.memfd_create('x')\nfor _ in range(SIZE >> 20): os.write(f, bytes(1 << 20))",
    "secret": "f = libc.syscall(447, 0)\nassert f >= 0 or exit(9)\nos.ftruncate(f, SIZE)\nm = mmap.mmap(f, SIZE)\n"
    "for at in range(0, SIZE, 4096): m[at] = 1",
    "pipes": "held = []\nfor _ in range(SIZE >> 16):\n held.append(os.pipe())\n os.set_blocking(held[-1][1], False)\n"
    " os.write(held[-1][1], bytes(65536))",
    "sockets": "held = []\nfor _ in range(SIZE >> 17):\n a, b = socket.socketpair()\n"
    " a.setblocking(False)\n held += [a, b]\n"
    " try:\n  while True: a.send(bytes(32768))\n except BlockingIOError: pass",
    "queues": "held = []\nfor n in range(SIZE >> 13):\n k = libc.msgget(0, 0o600)\n assert k >= 0 or exit(9)\n"
    " libc.msgsnd(k, b'x' * 8200, 8100, 0o4000)",
    "segments": "for n in range(SIZE >> 22):\n k = libc.shmget(0, 1 << 22, 0o1600)\n assert k >= 0 or exit(9)\n"
    " libc.shmat.restype = ctypes.c_void_p\n p = libc.shmat(k, None, 0)\n ctypes.memset(p, 1, 1 << 22)",
}


@pytest.mark.parametrize("kind", MEMORY)
def test_memory_under_other_names_is_bounded_too(main, kind):
    """More than the limit of 512 MiB is not to be had; the host keeps its own."""
    hungry = main.create()
    try:
        program = f"import ctypes, mmap, os, socket\nlibc = ctypes.CDLL(None)\nSIZE = 900 << 20\n{MEMORY[kind]}\n"
        program += "print('all of it')"
        hungry.files.write("/tmp/eat.py", program)
        before = available_mib()
        with pytest.raises(e2b.CommandExitException) as caught:
            hungry.commands.run("python3 /tmp/eat.py", timeout=60)
        assert "all of it" not in caught.value.stdout
        assert available_mib() > before - 1200
    finally:
        hungry.kill()


def available_mib():
    (line,) = [line for line in host.read("/proc/meminfo").splitlines() if line.startswith("MemAvailable")]
    return int(line.split()[1]) // 1024


def test_all_sandboxes_together_leave_processes_for_the_host(main, sandbox, neighbour):
    """The bound lies at three quarters of the host's number; here it is made small, for its effect."""
    (folder,) = {
        pathlib.Path(path).parent
        for path in main.groups(sandbox.sandbox_id)
        if pathlib.Path(f"{path}/pids.max").exists()
    }
    bound = folder / "pids.max"
    whole, numbers = (
        int(bound.read_text()),
        [int(host.read(f"/proc/sys/kernel/{name}")) for name in ("pid_max", "threads-max")],
    )
    assert whole <= min(numbers) * 3 // 4
    used = int((folder / "pids.current").read_text())
    fork = "import json, os, time\nn = 0\ntry:\n while n < 500:\n"
    fork += "  if not os.fork(): time.sleep(SECONDS); os._exit(0)\n  n += 1\n"
    fork += "except BlockingIOError: pass\nprint(json.dumps(n), flush=True)\n"
    bound.write_text(str(used + 100))
    try:
        assert said(sandbox, fork.replace("SECONDS", "4")) < 100
        assert said(neighbour, fork.replace("SECONDS", "0.1")) < 100
        # The host itself is not held back.
        assert subprocess.run([sys.executable, "-c", "print(1)"], capture_output=True).stdout == b"1\n"
    finally:
        bound.write_text(str(whole))
    assert said(neighbour, fork.replace("SECONDS", "0.1")) == 500


DEEP = """
import json, os
for _ in range(3000):
    os.mkdir("deep")
    os.chdir("deep")
print(json.dumps("made"))
"""


def test_files_can_be_had_at_the_process_limit(main, sandbox):
    """The agent has no thread for them then: those that it had end a second after their work."""
    assert said(sandbox, DEEP, cwd="/home/user") == "made"
    files, large = sandbox.files, "x" * 3_000_000
    (bound,) = [path for path in main.groups(sandbox.sandbox_id) if pathlib.Path(f"{path}/pids.max").exists()]
    bound = pathlib.Path(bound) / "pids.max"
    whole = bound.read_text()
    bound.write_text("1")
    try:
        time.sleep(2)
        with pytest.raises(e2b.SandboxException, match="resource temporarily unavailable"):
            sandbox.commands.run("true")
        with pytest.raises(e2b.SandboxException, match="resource temporarily unavailable"):
            sandbox.pty.create(e2b.PtySize(24, 80))
        watched = files.watch_dir("/home/user")
        files.write("/home/user/a", large)
        assert files.read("/home/user/a") == large
        assert files.make_dir("/home/user/dir") and files.exists("/home/user/dir")
        files.rename("/home/user/a", "/home/user/dir/b")
        assert [entry.name for entry in files.list("/home/user/dir")] == ["b"]
        assert files.get_info("/home/user/dir/b").size == len(large)
        files.remove("/home/user/deep")
        assert not files.exists("/home/user/deep")
        assert {"a", "dir", "deep"} <= {event.name for event in watched.get_new_events()}
        watched.stop()
    finally:
        bound.write_text(whole)
    assert sandbox.commands.run("cat dir/b | wc -c").stdout == f"{len(large)}\n"


def test_terminals_end_at_their_number_and_the_error_says_so(sandbox):
    held = []
    words = "no space left on device: no terminal is left, there are 64 at most"
    with pytest.raises(e2b.SandboxException, match=words):
        while len(held) < 70:
            held.append(sandbox.pty.create(e2b.PtySize(24, 80)))
    assert len(held) == 64
    held.pop().kill()
    host.until("its terminal is free", lambda: len(sandbox.commands.list()) == 63)
    sandbox.pty.create(e2b.PtySize(24, 80)).kill()


def test_a_command_can_open_its_pipes_by_name(sandbox):
    done = sandbox.commands.run("echo out >/dev/stdout; echo err >/dev/stderr; sudo sh -c 'echo root >/dev/stderr'")
    assert (done.stdout, done.stderr) == ("out\n", "err\nroot\n")


def test_a_team_has_no_more_than_its_number():
    """Those that are paused do not count; who comes back does, by whatever way."""
    with running("few", CASEMATE_LIMITS_TEAM_SANDBOXES_MAX="3", CASEMATE_NODE_SLOT_STOCK="4") as few:
        wakes = {"on_timeout": "pause", "auto_resume": True}
        first, second = few.create(lifecycle=wakes), few.create()
        with pytest.raises(e2b.SandboxException, match=r"concurrent sandboxes \(3\)"):
            first.fork(count=3)
        results = first.fork(timeout=300, count=2)
        refused = [one for one in results if isinstance(one, Exception)]
        assert len(results) == 2 and len(refused) == 1
        assert isinstance(refused[0], e2b.RateLimitException), refused
        with pytest.raises(e2b.RateLimitException, match="maximum number of concurrent"):
            few.create()
        first.pause()
        instead = few.create()
        with pytest.raises(e2b.RateLimitException):
            few.connect(first.sandbox_id)
        with pytest.raises(e2b.RateLimitException):
            first.commands.run("true")
        assert first.get_info().state == e2b.SandboxState.PAUSED
        instead.kill()
        assert first.commands.run("true").exit_code == 0
        assert second.is_running()


def test_what_a_sandbox_says_fills_no_log(main, sandbox):
    """Neither ours nor the history: of output nothing is kept but its length, of changes thirty a
    minute are noted, and one that others were not."""
    size = main.log.stat().st_size
    sandbox.commands.run(
        "head -c 50000000 /dev/zero | tr '\\0' x; head -c 5000000 /dev/zero >&2; true",
        on_stdout=lambda _: None,
        timeout=60,
    )
    with pytest.raises(e2b.CommandExitException):
        sandbox.commands.run("head -c 10000000 /dev/zero >/proc/1/fd/1", user="root")
    assert main.log.stat().st_size - size < 20_000
    for _ in range(50):
        sandbox.set_timeout(900)
    path = f"/v2/sandboxes/{sandbox.sandbox_id}/logs?limit=1000"

    def noted():
        return json.loads(main.get(path, {"X-API-Key": main.client["api_key"]})[2])["logs"]

    host.until("they are noted", lambda: len(noted()) >= 20)
    time.sleep(0.5)
    changes = [entry for entry in noted() if entry["message"] == "Sandbox timeout changed"]
    assert 20 <= len(changes) <= 30
    assert len(noted()) <= 45
    assert main.log.stat().st_size - size < 40_000
    is_well(sandbox)
