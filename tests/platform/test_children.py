"""`kill -9` of one process of the platform: it comes back by itself, sandboxes go on."""

import os
import signal
from concurrent.futures import ThreadPoolExecutor

import pytest

import host


def resolves(sandbox):
    """Asks our resolver, at the gateway: any answer of its is one, and none is a failure."""
    ask = (
        "import socket, struct\n"
        "server = next(l.split()[1] for l in open('/etc/resolv.conf') if l[:10] == 'nameserver')\n"
        "s = socket.socket(socket.AF_INET, socket.SOCK_DGRAM); s.settimeout(2)\n"
        "q = struct.pack('>6H', 4711, 256, 1, 0, 0, 0) + b'\\x09localhost\\x00\\x00\\x01\\x00\\x01'\n"
        "s.sendto(q, (server, 53)); print(struct.unpack('>H', s.recv(512)[:2])[0])\n"
    )
    sandbox.files.write("/tmp/ask.py", ask)
    return sandbox.commands.run("python3 /tmp/ask.py").stdout == "4711\n"


COUNT = "import time\nn=0\nwhile True: print(n, flush=True); n+=1; time.sleep(0.05)"


@pytest.mark.parametrize("role", ["control", "egress"])
def test_a_child_that_was_killed_comes_back(main, role):
    sandbox = main.create()
    try:
        handle = sandbox.commands.run(f"python3 -c '{COUNT}' >/tmp/n", background=True, timeout=0)
        handle.disconnect()
        assert resolves(sandbox)
        before = main.processes()
        for pid in [pid for pid, its in before.items() if its == role]:
            os.kill(pid, signal.SIGKILL)

        def whole():
            now = main.processes()
            return sorted(now.values()) == sorted(before.values()) and not any(
                before[pid] == role for pid in now if pid in before
            )

        host.until(f"all of {role} again", whole)
        host.until("ready", lambda: main.get("/ready")[0] == 200)
        assert main.process.poll() is None
        ended = f"the {role} process ended (signal: 9 (SIGKILL)) and is started again"
        assert any("WARN" in line and ended in line for line in main.said().splitlines())
        # As clients see it: list, commands, edge, names, creates.
        host.until("listed", lambda: sandbox.sandbox_id in main.listed(), 5)
        host.until("a command", lambda: sandbox.commands.run("true").exit_code == 0, 5)
        host.until("names", lambda: resolves(sandbox), 5)
        for _ in range(4):
            made = main.create()
            assert made.commands.run("echo new").stdout == "new\n"
            assert resolves(made)
            made.kill()
        lines = sandbox.files.read("/tmp/n").split()
        assert lines == [str(n) for n in range(len(lines))] and lines
        host.until("it counts on", lambda: len(sandbox.files.read("/tmp/n").split()) > len(lines))
    finally:
        main.kill(sandbox.sandbox_id)


def launchers(main):
    """Those that `up` started; each has a process of its own below it."""
    roles = main.processes()
    return [pid for pid in host.children(main.pid) if roles.get(pid) == "launcher"]


def test_launchers_that_were_killed_come_back_and_leave_nothing(main):
    """One after the other, then all at once, while sandboxes are created."""
    sandbox = main.create()
    try:
        assert launchers(main)
        for pid in launchers(main):
            os.kill(pid, signal.SIGKILL)
            host.until("a create works", lambda: main.create().kill(), 5)
        host.until("a create works", lambda: main.create().kill(), 5)
        with ThreadPoolExecutor(8) as pool:
            asked = [pool.submit(main.create) for _ in range(30)]
            host.until("some are made", lambda: sum(one.done() for one in asked) > 3)
            for pid in launchers(main):
                os.kill(pid, signal.SIGKILL)
            made = {one.result().sandbox_id for one in asked if one.exception() is None}
        assert made
        # What was refused is not there, what was given works.
        assert set(main.listed()) == made | {sandbox.sandbox_id}
        for id in made:
            assert main.connect(id).commands.run("echo on").stdout == "on\n"
            main.kill(id)
        assert sandbox.commands.run("echo on").stdout == "on\n"
    finally:
        main.kill(sandbox.sandbox_id)
    host.until("no process left", lambda: not host.processes_inside(main.id))
    journal = main.data_dir / "node/journal"
    host.until("no journal left", lambda: not any(journal.iterdir()))


def test_control_that_dies_again_and_again(main):
    """It is not given up, and nothing piles up."""
    sandbox = main.create()
    try:
        killed = set()
        for _ in range(5):
            pid = host.until("another control", lambda: [
                pid for pid, role in main.processes().items()
                if role == "control" and pid not in killed
            ])[0]
            killed.add(pid)
            os.kill(pid, signal.SIGKILL)
        host.until("ready", lambda: main.get("/ready")[0] == 200, 20)
        host.until("a command", lambda: sandbox.commands.run("true").exit_code == 0, 5)
        assert sorted(main.processes().values()).count("control") == 1
    finally:
        main.kill(sandbox.sandbox_id)
