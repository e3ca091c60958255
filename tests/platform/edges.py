"""Edges of a cluster on this machine."""

import os
import shutil
import signal
import subprocess
import urllib.request

import e2b

import host
from cluster import answer_of
from instance import CASEMATE, ROOT, bare_environment, free_port


class Edge:
    """`casemate edge`."""

    def __init__(self, name, apis, **settings):
        self.name = name
        self.program = CASEMATE
        self.apis = apis
        self.settings = settings
        self.data_dir = ROOT / f"cluster-{name}-{os.getpid()}"
        self.port, self.health = free_port(), free_port()
        self.log = ROOT / "logs" / f"cluster-{name}.log"
        self.log.parent.mkdir(parents=True, exist_ok=True)
        self.process = None
        self.mark = 0

    @property
    def url(self):
        return f"http://127.0.0.1:{self.port}"

    def spawn(self):
        apis = ",".join(api.address for api in self.apis)
        command = [self.program, "edge", "--data-dir", self.data_dir, "--listen", f"127.0.0.1:{self.port}"]
        command += ["--health-listen", f"127.0.0.1:{self.health}", "--api", apis]
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

        host.until("the edge is ready", ready, seconds)

    def stop(self):
        self.process.send_signal(signal.SIGTERM)
        self.process.wait(60)

    def kill_process(self):
        os.kill(self.process.pid, signal.SIGKILL)
        self.process.wait(10)

    def close(self):
        if self.process and self.process.poll() is None:
            self.kill_process()
        shutil.rmtree(self.data_dir, ignore_errors=True)

    def get(self, path, port=None, **headers):
        """Status and body."""
        url = f"http://127.0.0.1:{port or self.port}{path}"
        return answer_of(urllib.request.Request(url, headers=headers))

    def into(self, id, port, path="/", **headers):
        """A request to a port of a sandbox."""
        return self.get(path, **{"E2b-Sandbox-Id": id, "E2b-Sandbox-Port": str(port), **headers})

    def client(self, api):
        """Of the stock SDK: the API there, sandboxes here."""
        return {**api.client, "sandbox_url": self.url}

    def create(self, api, **options):
        return e2b.Sandbox.create(timeout=900, **options, **self.client(api))

    def connect(self, api, id):
        return e2b.Sandbox.connect(id, **self.client(api))

    def figure(self, name):
        text = self.get("/metrics", self.health)[1]
        [value] = [line.split()[1] for line in text.splitlines() if line.startswith(f"{name} ")]
        return int(value)
