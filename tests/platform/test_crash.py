"""`kill -9` of every process of the platform, and a new `up`: sandboxes never noticed."""

import time
from concurrent.futures import ThreadPoolExecutor

import e2b

import host

SANDBOXES = 20
PORT = 8000
COUNTER = """
import http.server, threading, time
class Say(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        self.send_response(200); self.end_headers(); self.wfile.write(b"counting")
    def log_message(self, *_): pass
serve = http.server.ThreadingHTTPServer(("127.0.0.1", 8000), Say).serve_forever
threading.Thread(target=serve, daemon=True).start()
n = 0
with open("/tmp/count", "a") as file:
    while True:
        print(n, flush=True)
        file.write(f"{n} {time.time()}\\n"); file.flush()
        n += 1
        time.sleep(0.05)
"""


class Counter:
    def __init__(self, instance):
        sandbox = instance.create(metadata={"of": "crash"})
        self.id = sandbox.sandbox_id
        sandbox.files.write("counter.py", COUNTER)
        self.pid = sandbox.commands.run("python3 counter.py", background=True, timeout=0).pid

    def check(self, instance):
        """Counts on without a gap, is read on, and its port is reached; its longest pause."""
        sandbox = instance.connect(self.id)
        read = []
        running = sandbox.commands.connect(self.pid, timeout=2)
        try:
            running.wait(on_stdout=read.append)
        except (e2b.TimeoutException, e2b.SandboxException):
            pass
        numbers = [int(n) for n in "".join(read).split()]
        assert len(numbers) > 10
        assert numbers == list(range(numbers[0], numbers[0] + len(numbers)))
        lines = [line.split() for line in sandbox.files.read("/tmp/count").splitlines()]
        assert [int(n) for n, _ in lines] == list(range(len(lines)))
        assert int(lines[-1][0]) >= numbers[-1]
        assert instance.port_of(self.id, PORT)[::2] == (200, b"counting")
        times = [float(at) for _, at in lines]
        return max(b - a for a, b in zip(times, times[1:]))


def test_twenty_counters_survive_the_death_of_the_platform(main):
    main.end_all()
    with ThreadPoolExecutor(8) as pool:
        counters = list(pool.map(lambda _: Counter(main), range(SANDBOXES)))
        brief = main.create(timeout=4)
        created = time.monotonic()
        described = {c.id: main.connect(c.id).get_info() for c in counters[:3]}
        killed = main.kill_all()
        assert set(killed.values()) == {"up", "control", "egress", "launcher"}
        # Its deadline passes while nobody is there to end it.
        while time.monotonic() < created + 5:
            time.sleep(0.1)
        assert main.runs(brief.sandbox_id)
        assert all(main.runs(counter.id) for counter in counters)

        assert main.up() < 15
        host.until("the late one is ended", lambda: not main.runs(brief.sandbox_id), 2)
        assert set(main.listed()) == {counter.id for counter in counters}
        pauses = list(pool.map(lambda counter: counter.check(main), counters))
        # Two cores for all of them: the machine may let one wait, the crash must not.
        assert max(pauses) < 3, pauses
        for id, before in described.items():
            after = main.connect(id).get_info()
            assert (after.started_at, after.metadata) == (before.started_at, before.metadata)
        assert list(pool.map(lambda counter: main.kill(counter.id), counters)) == [True] * SANDBOXES
    host.until("none runs", lambda: not host.processes_inside(main.id))
    assert main.listed() == []
    assert main.create().commands.run("echo new").stdout == "new\n"
    main.end_all()


def test_a_crash_amid_creates_leaves_no_sandbox_that_nobody_knows(main):
    with ThreadPoolExecutor(8) as pool:
        asked = [pool.submit(main.create) for _ in range(40)]
        host.until("some are made", lambda: sum(one.done() for one in asked) > 5)
        main.kill_all()
        known = {one.result().sandbox_id for one in asked if one.exception() is None}
    main.up()
    listed = set(main.listed())
    assert known <= listed
    host.until("what runs is what is listed", lambda: groups_with_processes(main) == {
        group for id in main.listed() for group in main.groups(id)
    })
    main.end_all()
    host.until("none runs", lambda: not host.processes_inside(main.id))


def groups_with_processes(main):
    """Control groups below the instance's own that somebody is in."""
    below = [path for path in host.cgroups(main.id) if not path.endswith(f"casemate-{main.id}")]
    return {path for path in below if host.read(f"{path}/cgroup.procs")}
