"""PostgreSQL and Redis of a test's own, which it can kill, stop and start again."""

import os
import pathlib
import pwd
import shutil
import signal
import subprocess
import tempfile
import time

from instance import free_port

PASSWORD = "of tests: p@ss/word"
# The same in a URL.
QUOTED = "of%20tests%3A%20p%40ss%2Fword"


def unprivileged():
    """PostgreSQL refuses root."""
    user = pwd.getpwnam("postgres")
    return {"user": user.pw_uid, "group": user.pw_gid, "extra_groups": []}


class Server:
    """One process with a folder; all its children die with it."""

    def __init__(self, name):
        self.dir = pathlib.Path(tempfile.mkdtemp(prefix=f"casemate-{name}-"))
        self.port = free_port()
        self.process = None
        self.environment = {}

    def start(self):
        self.process = subprocess.Popen(
            self.command(), stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
            start_new_session=True, env={**os.environ, **self.environment}, **self.identity(),
        )
        begun = time.monotonic()
        while not self.answers():
            assert self.process.poll() is None and time.monotonic() - begun < 60, self.command()
            time.sleep(0.05)

    def lives(self):
        return self.process.poll() is None

    def kill(self):
        """`kill -9` of all its processes."""
        os.killpg(self.process.pid, signal.SIGKILL)
        self.process.wait(20)

    def stop(self):
        """None of its processes runs on; connections to it stay open, and nothing answers."""
        os.killpg(self.process.pid, signal.SIGSTOP)

    def go_on(self):
        os.killpg(self.process.pid, signal.SIGCONT)

    def close(self):
        if self.process and self.process.poll() is None:
            self.go_on()
            self.kill()
        shutil.rmtree(self.dir, ignore_errors=True)

    def __enter__(self):
        self.start()
        return self

    def __exit__(self, *_):
        self.close()


class Postgres(Server):
    def __init__(self, room_mib=None, clock=None):
        """On a file system of its own, in memory, where its size is given; by a clock that a test sets,
        where there is one."""
        super().__init__("postgres")
        self.environment = clock.environment if clock else {}
        self.mounted = room_mib is not None
        if self.mounted:
            # The name is found by who looks for what tests left.
            options = f"size={room_mib}m,mode=755"
            subprocess.run(["mount", "-t", "tmpfs", "-o", options, f"casemate-{self.dir.name}", self.dir], check=True)
        self.bin = max(pathlib.Path("/usr/lib/postgresql").glob("*/bin"), key=lambda at: float(at.parent.name))
        os.chown(self.dir, *(unprivileged()[key] for key in ("user", "group")))
        secret = self.dir / "password"
        secret.write_text(PASSWORD)
        os.chown(secret, *(unprivileged()[key] for key in ("user", "group")))
        command = [self.bin / "initdb", "-D", self.dir / "data", "-U", "casemate", "--auth=scram-sha-256"]
        command += [f"--pwfile={secret}", "--encoding=UTF8"]
        subprocess.run(command, check=True, capture_output=True, **unprivileged())

    def identity(self):
        return unprivileged()

    def command(self):
        options = {"port": self.port, "listen_addresses": "127.0.0.1", "unix_socket_directories": self.dir}
        settings = [part for name, value in options.items() for part in ("-c", f"{name}={value}")]
        # Each child in its own session would outlive what `kill` does.
        return [self.bin / "postgres", "-D", self.dir / "data", *settings]

    def answers(self):
        ready = [self.bin / "pg_isready", "-q", "-h", "127.0.0.1", "-p", str(self.port)]
        return subprocess.run(ready).returncode == 0

    def kill(self):
        # Its backends are sessions of their own.
        children = subprocess.run(
            ["pgrep", "-P", str(self.process.pid)], capture_output=True, text=True
        ).stdout.split()
        os.kill(self.process.pid, signal.SIGKILL)
        for child in children:
            try:
                os.kill(int(child), signal.SIGKILL)
            except ProcessLookupError:
                pass
        self.process.wait(20)

    def each(self, signal):
        children = subprocess.run(
            ["pgrep", "-P", str(self.process.pid)], capture_output=True, text=True
        ).stdout.split()
        for pid in [self.process.pid, *map(int, children)]:
            try:
                os.kill(pid, signal)
            except ProcessLookupError:
                pass

    def stop(self):
        self.each(signal.SIGSTOP)

    def go_on(self):
        self.each(signal.SIGCONT)

    def close(self):
        if self.mounted and self.process and self.process.poll() is None:
            self.go_on()
            self.kill()
        if self.mounted:
            subprocess.run(["umount", "--lazy", self.dir], check=True)
        super().close()

    def database(self, name):
        """Makes one; its settings for a platform."""
        self.sql(f'CREATE DATABASE "{name}"', "postgres")
        return {
            "DATABASE_URL": f"postgres://casemate@127.0.0.1:{self.port}/{name}",
            "DATABASE_PASSWORD": PASSWORD,
        }

    def sql(self, text, database):
        """Rows as lines, columns parted by `|`."""
        command = ["psql", "-h", "127.0.0.1", "-p", str(self.port), "-U", "casemate", "-d", database, "-Atc", text]
        environment = {**os.environ, "PGPASSWORD": PASSWORD}
        ran = subprocess.run(command, capture_output=True, text=True, env=environment, timeout=60)
        assert ran.returncode == 0, ran.stderr
        return ran.stdout.splitlines()


class Redis(Server):
    def __init__(self):
        super().__init__("redis")

    def identity(self):
        return {}

    def command(self):
        return [
            "redis-server", "--port", str(self.port), "--bind", "127.0.0.1", "--dir", str(self.dir),
            "--requirepass", PASSWORD, "--save", "", "--appendonly", "no",
        ]

    def answers(self):
        return self.call("PING") == ["PONG"]

    def call(self, *words):
        command = ["redis-cli", "-p", str(self.port), "--no-auth-warning", "-a", PASSWORD, *words]
        return subprocess.run(command, capture_output=True, text=True, timeout=20).stdout.split()

    @property
    def settings(self):
        return {"REDIS_URL": f"redis://:{QUOTED}@127.0.0.1:{self.port}"}
