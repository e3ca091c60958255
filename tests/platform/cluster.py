"""API servers and nodes of a cluster on this machine, each with a data directory of its own."""

import json
import os
import shutil
import signal
import subprocess
import urllib.error
import urllib.request

import e2b

import host
from instance import BASE, CASEMATE, ROOT, Instance, bare_environment, casemate, free_port

SECRET = "of tests: a root secret that all servers share"


class Api:
    """`casemate api`; it needs no root, and is root here for the sake of one user for all."""

    def __init__(self, name, **settings):
        self.name = name
        self.program = CASEMATE
        self.settings = {"API_KEY_SECRET": SECRET, **settings}
        # A file of settings, where a test has one.
        self.config = None
        self.data_dir = ROOT / f"cluster-{name}-{os.getpid()}"
        self.port, self.calls, self.health = free_port(), free_port(), free_port()
        self.log = ROOT / "logs" / f"cluster-{name}.log"
        self.log.parent.mkdir(parents=True, exist_ok=True)
        self.process = None
        self.mark = 0

    @property
    def url(self):
        return f"http://127.0.0.1:{self.port}"

    @property
    def address(self):
        """Where members call."""
        return f"127.0.0.1:{self.calls}"

    def spawn(self):
        command = [self.program, "api", "--data-dir", self.data_dir, "--listen", f"127.0.0.1:{self.port}"]
        command += ["--cluster-listen", self.address, "--health-listen", f"127.0.0.1:{self.health}"]
        command += ["--config", self.config] if self.config else []
        self.mark = self.log.stat().st_size if self.log.exists() else 0
        with open(self.log, "ab") as log:
            self.process = subprocess.Popen(
                command, stdin=subprocess.DEVNULL, stdout=log, stderr=log,
                env=bare_environment(**self.settings), start_new_session=True,
            )

    def said(self):
        with open(self.log, errors="replace") as log:
            log.seek(self.mark)
            return log.read()

    def up(self, seconds=60):
        self.spawn()

        def ready():
            assert self.process.poll() is None, self.said()[-2000:]
            return f"ready {self.url}" in self.said()

        host.until("the API server is ready", ready, seconds)

    def refused(self, seconds=60):
        """It is not to start; what it says."""
        self.spawn()
        assert self.process.wait(seconds) != 0, self.said()
        return self.said()

    def stop(self):
        self.process.send_signal(signal.SIGTERM)
        self.process.wait(40)

    def kill_process(self):
        os.kill(self.process.pid, signal.SIGKILL)
        self.process.wait(10)

    def close(self):
        if self.process and self.process.poll() is None:
            self.kill_process()
        shutil.rmtree(self.data_dir, ignore_errors=True)

    # Its operator.

    def cluster(self, *args):
        ran = casemate("--json", "cluster", *args, "--data-dir", str(self.data_dir))
        assert ran.returncode == 0, ran.stderr
        return json.loads(ran.stdout)

    def token(self, role, *more):
        return self.cluster("token", "--role", role, *more)["token"]

    def nodes(self):
        return {node["nodeID"]: node for node in self.cluster("nodes")}

    # Its clients.

    @property
    def client(self):
        text = (self.data_dir / "credentials.env").read_text()
        told = dict(line.split("=", 1) for line in text.splitlines() if "=" in line and not line.startswith("#"))
        return {"api_key": told["E2B_API_KEY"], "api_url": self.url, "domain": told["E2B_DOMAIN"]}

    def create(self, **options):
        return e2b.Sandbox.create(timeout=600, **options, **self.client).sandbox_id

    def kill(self, id):
        return e2b.Sandbox.kill(id, **self.client)

    def listed(self):
        pages, found = e2b.Sandbox.list(**self.client), []
        while pages.has_next:
            found += [item.sandbox_id for item in pages.next_items()]
        return found

    def get(self, path, port=None, **headers):
        """Status and body."""
        url = f"http://127.0.0.1:{port or self.port}{path}"
        return answer_of(urllib.request.Request(url, headers=headers))


def answer_of(request):
    try:
        with urllib.request.urlopen(request, timeout=30) as answer:
            return answer.status, answer.read().decode()
    except urllib.error.HTTPError as error:
        return error.code, error.read().decode()
    except (urllib.error.URLError, ConnectionError, TimeoutError) as error:
        return 0, str(error)


class Node(Instance):
    """`casemate node`."""

    def __init__(self, name, apis, **settings):
        super().__init__(f"node-{name}", **{"CASEMATE_NODE_SLOT_STOCK": "4", **settings})
        self.apis = apis
        self.health = free_port()
        # Where others reach it: what a test puts in between.
        self.reached = self.port
        self.member = None

    def place(self):
        apis = ",".join(api.address for api in self.apis)
        return ["--data-dir", str(self.data_dir), "--api", apis, "--address", f"127.0.0.1:{self.reached}"]

    def join(self, token, *more):
        return casemate("join", token, "--role", "node", *self.place(), *more)

    def spawn(self, *more):
        command = [self.program, "node", *self.place(), "--base", BASE]
        command += ["--cluster-listen", f"127.0.0.1:{self.port}", "--health-listen", f"127.0.0.1:{self.health}", *more]
        self.mark = self.log.stat().st_size if self.log.exists() else 0
        with open(self.log, "ab") as log:
            self.process = subprocess.Popen(
                command, stdin=subprocess.DEVNULL, stdout=log, stderr=log,
                env=bare_environment(**self.settings), start_new_session=True,
            )

    def up(self, *more, seconds=90):
        self.spawn(*more)

        def ready():
            assert self.process.poll() is None, self.said()[-2000:]
            return " ready, health at" in self.said()

        host.until("the node is ready", ready, seconds)
        self.id = (self.data_dir / "instance").read_text().strip()
        self.member = f"node-{self.id}"

    def stop(self):
        self.process.send_signal(signal.SIGTERM)
        self.process.wait(40)

    def journalled(self):
        return {path.stem for path in (self.data_dir / "node/journal").glob("i*.json")}
