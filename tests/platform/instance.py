"""A platform of a test's own."""

import contextlib
import json
import os
import pathlib
import random
import re
import signal
import socket
import sqlite3
import subprocess
import time
import urllib.error
import urllib.request
import uuid

import e2b

import host

CASEMATE = os.environ["CASEMATE"]
BASE = os.environ["CASEMATE_TEST_BASE"]
# Not below /tmp: a data directory must lie on a disk, and /tmp may be memory.
ROOT = pathlib.Path(__file__).resolve().parents[2] / "target" / "test"


def free_port():
    """Below those that the kernel gives to whoever connects: one that is free for a moment, because
    its server starts again, stays so."""
    while True:
        with socket.socket() as listener, contextlib.suppress(OSError):
            listener.bind(("127.0.0.1", random.randrange(10_000, 32_000)))
            return listener.getsockname()[1]


def bare_environment(**settings):
    """Ours without what names another platform, and with settings."""
    kept = {
        name: value
        for name, value in os.environ.items()
        if not name.startswith(("E2B_", "CASEMATE_"))
    }
    return {**kept, **settings}


def casemate(*args, entering=(), **options):
    options = {"timeout": 60, "env": bare_environment(), **options}
    return subprocess.run([*entering, CASEMATE, *args], capture_output=True, text=True, **options)


class Instance:
    def __init__(
        self, name, netns=None, address="127.0.0.1", data_dir=None, program=CASEMATE, config=None, **settings
    ):
        """In a network namespace of the test, by its name, or in the host's; with another program
        as `up`, in another place, or with a file of settings."""
        self.name = name
        self.entering = ["nsenter", f"--net=/run/netns/{netns}"] if netns else []
        self.address = address
        self.settings = settings
        self.program = str(program)
        self.config = ["--config", str(config)] if config else []
        self.data_dir = data_dir or ROOT / f"platform-{name}-{os.getpid()}"
        self.port = free_port()
        self.log = ROOT / "logs" / f"platform-{name}.log"
        self.log.parent.mkdir(parents=True, exist_ok=True)
        self.process = None
        self.id = None
        self.groups_seen = {}

    @property
    def url(self):
        return f"http://{self.address}:{self.port}"

    @property
    def pid(self):
        return self.process.pid

    # Its life.

    def spawn(self, *more, listen=None):
        """`up`, which may be refused."""
        command = [*self.entering, self.program, "up", "--data-dir", str(self.data_dir)]
        command += ["--listen", listen or f"{self.address}:{self.port}", "--base", BASE, *self.config, *more]
        self.mark = self.log.stat().st_size if self.log.exists() else 0
        with open(self.log, "ab") as log:
            self.process = subprocess.Popen(
                command, stdin=subprocess.DEVNULL, stdout=log, stderr=log,
                env=bare_environment(**self.settings), start_new_session=True,
            )

    def said(self):
        """What the last `up` wrote."""
        with open(self.log, errors="replace") as log:
            log.seek(self.mark)
            return log.read()

    def up(self, seconds=60):
        """Starts it; gives the seconds until it was ready."""
        begun = time.monotonic()
        self.spawn()

        def ready():
            assert self.process.poll() is None, self.said()[-2000:]
            return f"casemate ready {self.url}" in self.said()

        host.until("ready", ready, seconds)
        self.id = (self.data_dir / "instance").read_text().strip()
        return time.monotonic() - begun

    def take_over(self, seconds=60):
        """A second `up` in place of the one that runs; gives the one that ran."""
        former = self.process
        self.spawn("--take-over")

        def ready():
            assert self.process.poll() is None, self.said()[-2000:]
            return f"casemate ready {self.url}" in self.said()

        host.until("the successor is ready", ready, seconds)
        return former

    def processes(self):
        return host.own_processes(self.pid)

    def lasting(self):
        """The same without launchers' workers, which come and go with sandboxes."""
        own = {self.pid, *host.children(self.pid)}
        return {pid: role for pid, role in self.processes().items() if pid in own}

    def kill_all(self):
        """`kill -9` of every process of ours at once; sandboxes are not ours."""
        pids = self.processes()
        for pid in pids:
            # Listed a moment ago: the first process of a sandbox was our program until it became
            # its agent, and is not ours any more.
            if not self.owns(pid):
                continue
            # Some end by themselves when another one is gone.
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        self.process.wait(10)
        host.until("all gone", lambda: not any(self.owns(pid) for pid in pids))
        return pids

    def owns(self, pid):
        line = host.command_line(pid)
        return host.internal_role(line) is not None or line.startswith(self.program)

    def down(self, *more):
        ran = casemate("down", "--data-dir", str(self.data_dir), *more, timeout=120)
        assert ran.returncode == 0, ran.stderr
        if self.process and self.process.poll() is None:
            self.process.wait(30)
        return ran

    def close(self):
        """For finalizers: whatever happened, nothing of it stays. A purge that fails is an error,
        and the directory is kept for another one: without it nothing could be found again."""
        if self.data_dir.exists():
            down = ["down", "--purge", "--data-dir", str(self.data_dir)]
            # A disk may take milliseconds for each file that goes, and layers have ten thousands.
            ran = casemate(*down, entering=self.entering, timeout=600)
            assert ran.returncode == 0, ran.stderr
            # What it asked to end has left its folder by then; a busy machine takes a moment to bury it.
            with contextlib.suppress(subprocess.TimeoutExpired):
                self.process and self.process.wait(30)
            if self.id:
                with contextlib.suppress(AssertionError):
                    host.until("all is gone", lambda: not host.traces(self.id, self.data_dir), 30)
                assert host.traces(self.id, self.data_dir) == []
        if self.process and self.process.poll() is None:
            self.process.kill()
            self.process.wait(30)

    # Its clients.

    def credentials(self):
        text = (self.data_dir / "credentials.env").read_text()
        return dict(re.findall(r"^(\w+)=['\"]?([^'\"\n]*)['\"]?$", text, re.M))

    def team(self, slug):
        """Makes another team; gives a key of it. There is no request for the first of the two."""
        id = str(uuid.uuid4())
        with sqlite3.connect(self.data_dir / "control/store.sqlite", timeout=20) as store:
            store.execute(
                "INSERT INTO teams (id, slug, name, standing, created_at) VALUES (?, ?, ?, 'good', ?)",
                (id, slug, slug, int(time.time() * 1_000_000)),
            )
        store.close()
        token = (self.data_dir / "secrets/admin_token").read_text().strip()
        request = urllib.request.Request(
            f"{self.url}/admin/teams/{id}/api-keys",
            data=b'{"name":"of a test"}',
            headers={"X-Admin-Token": token, "Content-Type": "application/json"},
        )
        with urllib.request.urlopen(request, timeout=20) as answer:
            return json.load(answer)["key"]

    def rows(self, query):
        """What the store says; nothing is written."""
        store = sqlite3.connect(f"file:{self.data_dir}/control/store.sqlite?mode=ro", uri=True, timeout=20)
        try:
            return store.execute(query).fetchall()
        finally:
            store.close()

    @property
    def client(self):
        told = self.credentials()
        return {
            "api_key": told["E2B_API_KEY"],
            "api_url": told["E2B_API_URL"],
            "sandbox_url": told["E2B_SANDBOX_URL"],
            "domain": told["E2B_DOMAIN"],
        }

    def create(self, timeout=900, **options):
        made = e2b.Sandbox.create(timeout=timeout, **options, **self.client)
        self.groups(made.sandbox_id)
        return made

    def connect(self, id):
        return e2b.Sandbox.connect(id, **self.client)

    def kill(self, id):
        return e2b.Sandbox.kill(id, **self.client)

    def listed(self):
        pages, found = e2b.Sandbox.list(**self.client), []
        while pages.has_next:
            found += [item.sandbox_id for item in pages.next_items()]
        return found

    def end_all(self):
        for id in self.listed():
            self.kill(id)

    def get(self, path, headers=None):
        """Status, headers and body."""
        request = urllib.request.Request(self.url + path, headers=headers or {})
        try:
            with urllib.request.urlopen(request, timeout=20) as answer:
                return answer.status, answer.headers, answer.read()
        except urllib.error.HTTPError as error:
            return error.code, error.headers, error.read()

    def port_of(self, id, port, path="/"):
        """A request to a port of a sandbox, through the edge."""
        return self.get(path, {"E2b-Sandbox-Id": id, "E2b-Sandbox-Port": str(port)})

    def runs(self, id):
        """Whether processes of a sandbox live, as the host sees it."""
        return any(host.read(f"{path}/cgroup.procs").split() for path in self.groups(id))

    def record(self, id):
        """What the journal knows of where a sandbox is."""
        return json.loads((self.data_dir / f"node/journal/{id}.json").read_text())["record"]

    def groups(self, id):
        """Control groups of a sandbox, also after its end: slots come round again only after
        all others."""
        if id not in self.groups_seen:
            self.groups_seen[id] = host.sandbox_groups(self.id, self.data_dir, id)
        return self.groups_seen[id]


@contextlib.contextmanager
def running(name, **options):
    """An instance from its start to its end."""
    instance = Instance(name, **options)
    try:
        instance.up()
        yield instance
    finally:
        instance.close()
