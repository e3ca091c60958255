"""`up --take-over`: one platform takes the place of another under load, and nobody is refused."""

import contextlib
import http.client
import os
import signal
import socket
import threading
import time

import e2b
import pytest

import host

TICKS = "n=0; while true; do echo $n; n=$((n+1)); sleep 0.05; done"


class Load:
    """Does things over and over in threads of its own, and notes what failed."""

    def __init__(self):
        self.over = threading.Event()
        self.threads = []
        self.done = {}
        self.failed = []

    def repeat(self, name, work, pause=0.0):
        self.done[name] = 0

        def run():
            while not self.over.is_set():
                begun = time.time()
                try:
                    work()
                    self.done[name] += 1
                except Exception as error:
                    self.failed.append((name, begun, time.time(), repr(error)))
                time.sleep(pause)

        self.threads.append(threading.Thread(target=run, daemon=True))

    def __enter__(self):
        for thread in self.threads:
            thread.start()
        return self

    def __exit__(self, *_):
        self.over.set()
        for thread in self.threads:
            thread.join(60)


def visit(main):
    """A connection of its own each time, as from somebody who was not here before."""
    conn = http.client.HTTPConnection("127.0.0.1", main.port, timeout=30)
    try:
        conn.request("GET", "/health")
        assert conn.getresponse().status == 200
    finally:
        conn.close()


def slow_upload(main, sandbox, seconds):
    """One request that is longer under way than the change takes; its status."""
    piece = b"x" * 65536
    pieces = int(seconds / 0.1)
    with socket.create_connection(("127.0.0.1", main.port), timeout=60) as conn:
        head = (
            f"POST /files?path=/tmp/slow&username=user HTTP/1.1\r\nHost: localhost\r\n"
            f"E2b-Sandbox-Id: {sandbox.sandbox_id}\r\nE2b-Sandbox-Port: 49983\r\n"
            f"X-Access-Token: {sandbox._envd_access_token or ''}\r\n"
            f"Content-Type: application/octet-stream\r\nContent-Length: {pieces * len(piece)}\r\n\r\n"
        )
        conn.sendall(head.encode())
        for _ in range(pieces):
            conn.sendall(piece)
            time.sleep(0.1)
        status = conn.recv(4096).split(b" ", 2)[1]
    return int(status), pieces * len(piece)


def test_a_successor_refuses_nobody_and_streams_are_picked_up(main):
    main.end_all()
    sandbox, other = main.create(metadata={"of": "upgrade"}), main.create()
    ticking = sandbox.commands.run(TICKS, background=True, timeout=0)
    seen, ended = [], []

    def read_on():
        try:
            ticking.wait(on_stdout=seen.append)
            ended.append("whole")
        except Exception as error:
            ended.append(error)

    reader = threading.Thread(target=read_on, daemon=True)
    reader.start()
    uploaded = []
    uploader = threading.Thread(
        target=lambda: uploaded.append(slow_upload(main, other, 4)), daemon=True
    )
    load = Load()
    for _ in range(4):
        load.repeat("visit", lambda: visit(main))
    load.repeat("command", lambda: other.commands.run("echo here").stdout == "here\n" or 1 / 0)
    load.repeat("write", lambda: other.files.write("/tmp/w", "x" * 2000))
    load.repeat("read", lambda: sandbox.files.list("/"), pause=0.02)
    load.repeat("info", lambda: sandbox.get_info(), pause=0.02)
    load.repeat("create", lambda: main.create(timeout=60).kill() or 1 / 0, pause=0.05)
    with load:
        host.until("all have begun", lambda: all(load.done.values()))
        uploader.start()
        time.sleep(0.5)
        children = [pid for pid in main.processes() if pid != main.pid]
        begun = time.time()
        mark = main.log.stat().st_size
        former = main.take_over()
        took = time.time() - begun
        assert former.wait(20) == 0
        assert "is started again" not in main.log.read_bytes()[mark:].decode()
        assert former.pid != main.pid
        before = dict(load.done)
        host.until("all go on", lambda: all(load.done[name] > before[name] for name in before), 30)
        uploader.join(30)
        reader.join(30)
    assert load.failed == [], (begun, took, load.failed[:5])
    assert uploaded == [(200, uploaded[0][1])]
    assert len(other.files.read("/tmp/slow", format="bytes")) == uploaded[0][1]
    # The stream was broken, not ended as if the command had.
    assert len(ended) == 1 and isinstance(ended[0], Exception), ended

    again = []
    on = e2b.Sandbox.connect(sandbox.sandbox_id, **main.client).commands.connect(
        ticking.pid, timeout=2
    )
    with contextlib.suppress(e2b.TimeoutException, e2b.SandboxException):
        on.wait(on_stdout=again.append)
    numbers = [int(n) for n in "".join(again).split()]
    assert len(numbers) > 10
    assert numbers[0] > int("".join(seen).split()[-1])
    assert numbers == list(range(numbers[0], numbers[0] + len(numbers)))
    host.until("the former's processes are gone", lambda: not any(
        host.command_line(pid) for pid in children
    ), 40)
    assert set(main.listed()) == {sandbox.sandbox_id, other.sandbox_id}
    assert main.connect(sandbox.sandbox_id).get_info().metadata == {"of": "upgrade"}
    resolved = other.commands.run("getent hosts localhost && cat /etc/resolv.conf").stdout
    assert "nameserver" in resolved
    main.end_all()


def test_a_successor_that_dies_while_it_waits_changes_nothing(main):
    sandbox = main.create()
    former, mark = main.process, main.mark
    main.spawn("--take-over")
    host.until("it is asked", lambda: "takes over" in main.log.read_text()[mark:])
    main.process.kill()
    main.process.wait(10)
    main.process, main.mark = former, mark
    host.until("it goes on", lambda: main.create().commands.run("echo on").stdout == "on\n", 30)
    assert former.poll() is None
    assert sandbox.commands.run("echo still").stdout == "still\n"
    main.end_all()


def test_a_successor_killed_at_any_moment_leaves_room_for_the_next(main):
    """Before it has anything the former goes on; after that nobody does, and a start is as after
    any crash."""
    sandbox = main.create()
    sandbox.commands.run(TICKS + " >> /tmp/ticks", background=True)
    ways = set()

    def answers():
        with contextlib.suppress(OSError):
            return visit(main) is None

    for tenths in (1, 7, 9, 10, 11, 12, 14, 20, 40):
        # The last ones are for slow hours.
        if tenths > 14 and len(ways) == 2:
            break
        former, mark = main.process, main.mark
        main.spawn("--take-over")
        time.sleep(tenths / 10)
        main.process.kill()
        main.process.wait(10)
        host.until("one or the other", lambda: former.poll() is not None or answers(), 30)
        if former.poll() is None:
            main.process, main.mark = former, mark
            ways.add("the former")
        else:
            # At once, as somebody's service manager would.
            main.up()
            ways.add("a start")
        assert main.create().commands.run("echo on").stdout == "on\n"
        ticks = sandbox.files.read("/tmp/ticks").split()
        assert ticks == [str(n) for n in range(len(ticks))]
    assert ways == {"the former", "a start"}
    main.end_all()


def test_a_successor_of_one_that_dies_before_it_hands_over_is_an_ordinary_start(main):
    sandbox = main.create()
    former = main.process
    # What does not leave is waited for.
    control = next(pid for pid, role in main.processes().items() if role == "control")
    os.kill(control, signal.SIGSTOP)
    begun = main.log.stat().st_size
    main.spawn("--take-over")
    said = lambda: main.log.read_bytes()[begun:].decode()
    host.until("it is asked", lambda: "another casemate takes over" in said())
    for pid in (former.pid, control):
        # The second may end with the first.
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)
    former.wait(10)
    host.until("ready", lambda: main.process.poll() is None and "casemate ready" in main.said(), 30)
    assert "ended before it handed over" in main.said()
    assert sandbox.commands.run("echo here").stdout == "here\n"
    assert main.create().commands.run("echo new").stdout == "new\n"
    main.end_all()


@pytest.mark.parametrize("where", ["elsewhere", "nothing there"])
def test_taking_over_what_cannot_be_taken(main, where):
    """A port that is somebody else's is refused before the platform is asked for anything; where
    none runs, it is an ordinary start."""
    sandbox = main.create()
    if where == "elsewhere":
        former, mark = main.process, main.mark
        with socket.create_server(("127.0.0.1", 0)) as taken:
            main.spawn("--take-over", listen=f"127.0.0.1:{taken.getsockname()[1]}")
            assert main.process.wait(20) == 1
            assert "cannot listen" in main.said()
        main.process, main.mark = former, mark
        assert former.poll() is None
    else:
        main.kill_all()
        main.spawn("--take-over")
        host.until("ready", lambda: "casemate ready" in main.said())
    assert sandbox.commands.run("echo here").stdout == "here\n"
    main.end_all()
