"""What one sandbox's abuse costs its neighbour.

    set -a; . DIR/credentials.env; set +a
    VENV/bin/python tests/bench/neighbours.py [--seconds 10] [--only NAME …] [--disk DIR]

For each abuse: the neighbour's round trips (a command; a file written and read) are timed quietly,
then while the abuse goes on in a sandbox of its own, then quietly again. Printed are p50 and p99
of the three and the ratio of the middle one to the mean of the others, and what the abuser itself
got: an error, or how its sandbox answers. Nothing is asserted; `docs/limits.md` quotes it.

`--disk DIR` adds a host's disk that is full: DIR is a folder on the file system of the platform's
data directory, which is filled to the last block for as long. Give it one of its own.
"""

import argparse
import http.client
import multiprocessing
import os
import socket
import threading
import time
from urllib.parse import urlsplit

import e2b

EDGE = urlsplit(os.environ["E2B_SANDBOX_URL"])


def percentile(values, hundredths):
    ordered = sorted(values)
    return ordered[min(len(ordered) - 1, len(ordered) * hundredths // 100)]


class Neighbour:
    """Measures in a process of its own: what abuses from outside do here would hold it up."""

    def __init__(self):
        self.mine, other = multiprocessing.Pipe()
        serve = multiprocessing.Process(target=Measuring.serve, args=(other,), daemon=True)
        serve.start()

    def measure(self, seconds):
        self.mine.send(seconds)
        return self.mine.recv()

    def end(self):
        self.mine.send(None)
        self.mine.recv()


class Measuring:
    @classmethod
    def serve(cls, asked):
        self = cls()
        self.sandbox = e2b.Sandbox.create(timeout=3600)
        while (seconds := asked.recv()) is not None:
            asked.send(self.measure(seconds))
        self.sandbox.kill()
        asked.send(None)

    def measure(self, seconds):
        times, end = [], time.monotonic() + seconds
        while time.monotonic() < end:
            begun = time.monotonic()
            self.sandbox.commands.run("/bin/true")
            times.append(time.monotonic() - begun)
            begun = time.monotonic()
            try:
                self.sandbox.files.write("/tmp/n", "x" * 1000)
                assert len(self.sandbox.files.read("/tmp/n")) == 1000
            except e2b.NotEnoughSpaceException:
                # On a host without room an answer too, in its time.
                pass
            times.append(time.monotonic() - begun)
        return [value * 1000 for value in times]


class Abuse:
    """Runs a script in a sandbox of its own for a while."""

    def __init__(self, name, script, user="user"):
        self.name, self.script, self.user = name, script, user

    def begin(self):
        self.sandbox = e2b.Sandbox.create(timeout=3600)
        self.said = []
        self.running = self.sandbox.commands.run(
            self.script, background=True, timeout=0, user=self.user
        )
        threading.Thread(target=self.read, daemon=True).start()

    def read(self):
        try:
            ended = self.running.wait(on_stdout=self.hear, on_stderr=self.hear)
            self.said.append(f"exit {ended.exit_code}")
        except Exception as error:
            self.said.append(f"{type(error).__name__} {str(error)[:120]}")

    def hear(self, text):
        if len(self.said) < 3:
            self.said.append(text.strip()[:120])

    def outcome(self):
        begun = time.monotonic()
        try:
            said = self.sandbox.commands.run("echo here", timeout=20, request_timeout=25).stdout.strip()
        except Exception as error:
            said = type(error).__name__
        own = f"own command: {said} after {time.monotonic() - begun:.1f} s"
        return "; ".join([*dict.fromkeys(self.said[-3:]), own])

    def end(self):
        begun = time.monotonic()
        self.sandbox.kill()
        return time.monotonic() - begun


class FullDisk(Abuse):
    """The host's disk is filled to the last block, and a sandbox goes on writing."""

    def __init__(self, folder):
        script = "while true; do dd if=/dev/zero of=/home/user/fill bs=1M 2>&1 | tail -1; done"
        super().__init__("host disk full", script)
        self.filler = os.path.join(folder, "filler")

    def begin(self):
        super().begin()
        size = os.statvfs(os.path.dirname(self.filler))
        left = size.f_bavail * size.f_frsize
        with open(self.filler, "wb") as filler:
            # The sandbox takes some of it meanwhile, so ever smaller pieces fit.
            at = 0
            while left >= size.f_frsize:
                try:
                    os.posix_fallocate(filler.fileno(), at, left)
                    at += left
                except OSError:
                    left //= 2

    def end(self):
        try:
            return super().end()
        finally:
            os.unlink(self.filler)


class FromOutside(Abuse):
    """The same from the client's side of a sandbox: `work(abuse)` in some threads."""

    def __init__(self, name, work, threads=1):
        self.name, self.work, self.count = name, work, threads

    def begin(self):
        self.sandbox = e2b.Sandbox.create(timeout=3600)
        self.said, self.over, self.held = [], threading.Event(), []
        self.threads = [threading.Thread(target=self.run, daemon=True) for _ in range(self.count)]
        for thread in self.threads:
            thread.start()

    def run(self):
        try:
            self.work(self)
        except Exception as error:
            if not self.over.is_set():
                self.said.append(f"{type(error).__name__} {str(error)[:120]}")

    def end(self):
        self.over.set()
        for held in self.held:
            held.close()
        return super().end()

    @property
    def headers(self):
        token = self.sandbox._envd_access_token
        return {
            "E2b-Sandbox-Id": self.sandbox.sandbox_id,
            "E2b-Sandbox-Port": "49983",
            **({"X-Access-Token": token} if token else {}),
        }


def connect():
    return socket.create_connection((EDGE.hostname, EDGE.port), timeout=60)


def slow_reader(abuse):
    """Asks for output without end, and reads none of it."""
    abuse.sandbox.files.write("/tmp/big", b"x" * 50_000_000)
    for _ in range(50):
        conn = connect()
        abuse.held.append(conn)
        head = "GET /files?path=/tmp/big&username=user HTTP/1.1\r\nHost: localhost\r\n"
        head += "".join(f"{name}: {value}\r\n" for name, value in abuse.headers.items())
        conn.sendall((head + "\r\n").encode())
    abuse.sandbox.commands.run("yes", background=True, timeout=0)
    abuse.over.wait()


def idle_connections(abuse):
    for _ in range(1000):
        abuse.held.append(connect())
    abuse.said.append(f"{len(abuse.held)} open")
    abuse.over.wait()


def up_and_down(abuse):
    """A gibibyte up, and down again."""
    while not abuse.over.is_set():
        begun = time.monotonic()
        conn = http.client.HTTPConnection(EDGE.hostname, EDGE.port, timeout=120)
        size = 1 << 30
        pieces = (b"x" * (1 << 20) for _ in range(size >> 20))
        headers = {**abuse.headers, "Content-Length": str(size)}
        headers["Content-Type"] = "application/octet-stream"
        conn.request("POST", "/files?path=/home/user/gib&username=user", pieces, headers)
        answer = conn.getresponse()
        assert answer.status == 200, (answer.status, answer.read())
        answer.read()
        up = time.monotonic() - begun
        conn.request("GET", "/files?path=/home/user/gib&username=user", headers=abuse.headers)
        answer, got = conn.getresponse(), 0
        while piece := answer.read(1 << 20):
            got += len(piece)
        assert got == size
        down = time.monotonic() - begun - up
        abuse.said.append(f"1 GiB up in {up:.1f} s, down in {down:.1f} s")


ABUSES = [
    Abuse("fork bomb", ":(){ :|:& };: ; sleep 3600"),
    Abuse("fork bomb of root", "sudo bash -c ':(){ :|:& };: ; sleep 3600'"),
    Abuse("memory hog", "while true; do python3 -c 'b=[]\nwhile True: b.append(bytearray(1<<20))'; done"),
    Abuse("busy loops", "for i in $(seq 64); do (while :; do :; done) & done; wait"),
    Abuse("disk filler", "while true; do dd if=/dev/zero of=/home/user/fill bs=1M 2>&1 | tail -1; done"),
    Abuse("synced writes", "while true; do dd if=/dev/zero of=/home/user/s bs=4k count=2000 oflag=dsync 2>/dev/null; done"),
    Abuse("inode filler", "mkdir -p /home/user/i; cd /home/user/i; python3 -c '\nimport os\nn=0\nwhile True:\n  os.makedirs(str(n//1000), exist_ok=True)\n  open(f\"{n//1000}/{n}\",\"w\").close(); n+=1'"),
    Abuse("output flood", "yes $(head -c 1000 /dev/zero | tr '\\0' y)"),
    Abuse("log flood", "while true; do /bin/true; done"),
    Abuse("DNS flood", "for i in 1 2 3 4; do (while :; do getent hosts n$RANDOM.invalid >/dev/null; done) & done; wait"),
    Abuse("connection flood", "python3 -c '\nimport socket\nwhile True:\n  s=socket.socket(); s.setblocking(False)\n  try: s.connect((\"192.0.2.1\",80))\n  except OSError: pass'"),
    FromOutside("slow readers", slow_reader),
    FromOutside("1000 idle connections", idle_connections),
    FromOutside("1 GiB up and down", up_and_down),
]


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--seconds", type=float, default=10)
    parser.add_argument("--only", nargs="*", default=[])
    parser.add_argument("--disk", metavar="DIR")
    args = parser.parse_args()
    abuses = [*ABUSES, *([FullDisk(args.disk)] if args.disk else [])]
    neighbour = Neighbour()
    neighbour.measure(3)
    print("| abuse | quiet p50 | amid it p50 | × | quiet p99 | amid it p99 | end of the abuser | what it got |")
    print("|---|---|---|---|---|---|---|---|")
    try:
        for abuse in abuses:
            if args.only and abuse.name not in args.only:
                continue
            before = neighbour.measure(args.seconds / 2)
            abuse.begin()
            time.sleep(1)
            amid = neighbour.measure(args.seconds)
            outcome = abuse.outcome()
            ended = abuse.end()
            time.sleep(5)
            quiet = before + neighbour.measure(args.seconds / 2)
            q50, a50 = percentile(quiet, 50), percentile(amid, 50)
            row = [abuse.name, f"{q50:.1f} ms", f"{a50:.1f} ms", f"{a50 / q50:.2f}"]
            row += [f"{percentile(quiet, 99):.0f} ms", f"{percentile(amid, 99):.0f} ms"]
            row += [f"{ended:.1f} s", outcome.replace("|", "/").replace("\n", " ")]
            print("| " + " | ".join(row) + " |", flush=True)
    finally:
        neighbour.end()


if __name__ == "__main__":
    main()
