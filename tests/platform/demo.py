"""A whole cluster on this machine: PostgreSQL, Redis, an S3 emulator, two API servers and two edges
behind nginx, three nodes. `scripts/cluster-demo` shows it, `test_demo.py` tries it in short.

    python demo.py [--keep] [--run COMMAND…] [--sdk-tests]
"""

import argparse
import contextlib
import os
import pathlib
import shlex
import signal
import subprocess
import sys
import tempfile
import urllib.request

import e2b

import host
from cluster import Api, Node
from edges import Edge
from instance import BASE, free_port
from servers import Postgres, Redis, Server

HERE = pathlib.Path(__file__).resolve().parent
ROOT = HERE.parents[1]
MOTO = os.environ.get("CASEMATE_TEST_MOTO", str(ROOT / "target/test/venv-artifacts/bin/moto_server"))


class Bucket(Server):
    """An emulator of S3, with one bucket."""

    def __init__(self):
        super().__init__("s3")

    def identity(self):
        return {}

    def command(self):
        return [MOTO, "-H", "127.0.0.1", "-p", str(self.port)]

    @property
    def url(self):
        return f"http://127.0.0.1:{self.port}"

    def answers(self):
        with contextlib.suppress(OSError):
            urllib.request.urlopen(f"{self.url}/moto-api/", timeout=2).close()
            return True
        return False

    def start(self):
        super().start()
        make = urllib.request.Request(f"{self.url}/artifacts", method="PUT")
        urllib.request.urlopen(make, timeout=10).close()

    @property
    def settings(self):
        named = {
            "BUCKET": "s3://artifacts", "ENDPOINT": self.url, "INSECURE_PLAINTEXT": "true", "ENCRYPTION": "bucket",
            "CREDENTIALS": "key", "ACCESS_KEY_ID": "demo", "SECRET_KEY": "of the demo",
        }
        return {f"CASEMATE_ARTIFACTS_{name}": value for name, value in named.items()}


class Nginx(Server):
    """In front of the API servers on one port, and of the edges on another."""

    def __init__(self):
        super().__init__("nginx")
        self.edge_port = free_port()
        self.log_format = None

    def identity(self):
        return {}

    def begin(self, apis, edges):
        def upstream(name, ports, fails):
            servers = "".join(f"server 127.0.0.1:{port} {fails}; " for port in ports)
            return f"upstream {name} {{ {servers} keepalive 32; }}"

        def listen(port, name):
            return f"""
            server {{
                listen 127.0.0.1:{port};
                location / {{
                    proxy_pass http://{name};
                    proxy_http_version 1.1;
                    proxy_set_header Host $http_host;
                    proxy_set_header Upgrade $http_upgrade;
                    proxy_set_header Connection $connection_upgrade;
                    proxy_set_header X-Forwarded-For $proxy_add_x_forwarded_for;
                    # Streams of commands and terminals: at once, and for as long as they last.
                    proxy_buffering off;
                    proxy_request_buffering off;
                    proxy_read_timeout 1h;
                    proxy_send_timeout 1h;
                    client_max_body_size 0;
                    # A server that is not there is no answer; what a server may have done is not done twice.
                    proxy_next_upstream error timeout;
                }}
            }}"""

        text = f"""
        daemon off; worker_processes 1; pid {self.dir}/pid; error_log {self.dir}/error.log;
        events {{ worker_connections 4096; }}
        http {{
            {f"log_format told '{self.log_format}'; access_log {self.dir}/access.log told" if self.log_format else "access_log off"};
            {"".join(f"{kind}_temp_path {self.dir}/{kind}; " for kind in ["client_body", "proxy", "fastcgi", "uwsgi", "scgi"])}
            map $http_upgrade $connection_upgrade {{ default upgrade; '' ''; }}
            {upstream("api", [api.port for api in apis], "max_fails=1 fail_timeout=2s")}
            {upstream("edge", [edge.port for edge in edges], "max_fails=1 fail_timeout=2s")}
            {listen(self.port, "api")}
            {listen(self.edge_port, "edge")}
        }}"""
        (self.dir / "nginx.conf").write_text(text)
        self.start()

    def command(self):
        return ["nginx", "-c", self.dir / "nginx.conf", "-e", self.dir / "error.log"]

    def answers(self):
        with contextlib.suppress(OSError):
            urllib.request.urlopen(f"http://127.0.0.1:{self.port}/health", timeout=2).close()
            return True
        return False


class Registries(Server):
    """The tests' images, and registries that have them. What they tell tests of themselves is in `told`."""

    def __init__(self):
        super().__init__("registries")
        self.place = ROOT / "target/test/registry"
        self.log = ROOT / "target/test/logs/cluster-registries.log"
        self.log.parent.mkdir(parents=True, exist_ok=True)

    def start(self):
        (self.place / "env").unlink(missing_ok=True)
        with open(self.log, "wb") as log:
            command = ["python3", ROOT / "tests/registry", self.place, BASE]
            self.process = subprocess.Popen(
                command, stdin=subprocess.DEVNULL, stdout=log, stderr=log, start_new_session=True
            )

        ended = lambda: not self.lives() or (self.place / "env").exists()
        # The first time three releases of Debian are made.
        host.until("the registries answer", ended, 1800, 0.5)
        assert self.lives(), self.log.read_text(errors="replace")[-2000:]
        lines = shlex.split((self.place / "env").read_text())
        self.told = dict(line.split("=", 1) for line in lines)


class Demo:
    name = "demo"
    # Of PostgreSQL's own file system, if it is to have one.
    room_mib = None
    # What it goes by, if a test sets that.
    database_clock = None
    # A file of the API servers' settings.
    config = None

    def __init__(self, say=lambda text: None):
        self.say = say
        self.opened = contextlib.ExitStack()
        self.registry_settings = {}

    def registries(self):
        """Before `up`, for those who build of images."""
        self.say("making the tests' images, some minutes the first time")
        self.registry_settings = self.opened.enter_context(Registries()).told
        self.config = self.registry_settings["CASEMATE_TEST_REGISTRY_CONFIG"]

    def servers(self):
        self.say("starting PostgreSQL, Redis and a bucket")
        self.postgres = self.opened.enter_context(Postgres(self.room_mib, self.database_clock))
        self.redis = self.opened.enter_context(Redis())
        self.bucket = self.opened.enter_context(Bucket())
        self.nginx = Nginx()
        self.opened.callback(self.nginx.close)

    def members(self):
        settings = {**self.postgres.database("demo"), **self.redis.settings, **self.bucket.settings, **self.public}
        self.apis = [Api(f"{self.name}-a{n}", **settings) for n in (1, 2)]
        for api in self.apis:
            api.config = self.config
        self.edges = [Edge(f"{self.name}-e{n}", self.apis, **self.redis.settings) for n in (1, 2)]
        self.nodes = [Node(f"{self.name}-n{n}", self.apis, **self.bucket.settings) for n in (1, 2, 3)]

    @property
    def public(self):
        return {"CASEMATE_SERVER_PUBLIC_URL": self.url}

    def up(self):
        self.servers()
        self.members()
        # A node's end is noted by API servers, so they go last.
        for process in [*self.apis, *self.nodes, *self.edges]:
            self.opened.callback(process.close)
        for api in self.apis:
            self.say(f"casemate api at {api.url}")
            api.up()
        for at, (role, member) in enumerate([*(("node", n) for n in self.nodes), *(("edge", e) for e in self.edges)]):
            self.say(f"casemate {role} joins")
            member.settings["JOIN_TOKEN"] = self.apis[at % 2].token(role)
            member.spawn()
        for node in self.nodes:
            host.until("the node is ready", lambda node=node: " ready, health at" in node.said(), 240)
            node.id = (node.data_dir / "instance").read_text().strip()
            node.member = f"node-{node.id}"
        for api in self.apis:
            connected = lambda api=api: sum(node["connected"] for node in api.nodes().values())
            host.until("it speaks with all nodes", lambda connected=connected: connected() == 3, 60)
            host.until("sandboxes can be made", lambda api=api: api.get("/ready")[0] == 200, 60)
        for edge in self.edges:
            host.until("the edge knows all nodes", lambda edge=edge: edge.figure("casemate_edge_nodes") == 3, 60)
        self.nginx.begin(self.apis, self.edges)
        self.say(f"nginx: API at {self.url}, sandboxes at {self.sandbox_url}")

    @property
    def url(self):
        return f"http://127.0.0.1:{self.nginx.port}"

    @property
    def sandbox_url(self):
        return f"http://127.0.0.1:{self.nginx.edge_port}"

    @property
    def client(self):
        return {**self.apis[0].client, "api_url": self.url, "sandbox_url": self.sandbox_url}

    @property
    def environment(self):
        """As `credentials.env` has it, for the stock SDKs."""
        text = (self.apis[0].data_dir / "credentials.env").read_text()
        told = dict(line.split("=", 1) for line in text.splitlines() if "=" in line and not line.startswith("#"))
        return {**told, "E2B_API_URL": self.url, "E2B_SANDBOX_URL": self.sandbox_url, "CASEMATE_TEST_URL": self.url,
                "CASEMATE_TEST_SANDBOX_URL": self.sandbox_url}

    def home(self, id):
        [home] = [node for node in self.nodes if id in node.journalled()]
        return home

    def create_beside(self, template, others):
        """A sandbox on a node that has none of the others, and the node. What one API server is told of a
        node the other one hears within two seconds."""
        taken = {self.home(other.sandbox_id).name for other in others}

        def made():
            sandbox = e2b.Sandbox.create(template, timeout=600, **self.client)
            home = self.home(sandbox.sandbox_id)
            if home.name not in taken:
                return sandbox, home
            return sandbox.kill() and None

        return host.until("one runs elsewhere", made, 60)

    def run(self, *command):
        self.say("running " + " ".join(map(str, command)))
        subprocess.run(command, check=True, env={**os.environ, **self.environment}, cwd=ROOT)

    def sdk_tests(self):
        """Both SDKs' tests, as `scripts/test` runs them on one machine; whether all passed."""
        # Requests past the SDKs go to an edge itself: some are of what nginx does not pass on.
        environment = {**os.environ, **self.registry_settings, **self.environment, "CASEMATE_TEST_SANDBOX_URL": self.edges[0].url}
        python = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider"]
        js = ["node", "--test", "--test-reporter=tap", "all.test.js"]
        passed = []
        for folder, command in (("python", python), ("js", js)):
            self.say(f"the tests of tests/sdk/{folder}")
            ran = subprocess.run(command, env=environment, cwd=ROOT / "tests/sdk" / folder)
            passed.append(ran.returncode == 0)
        return all(passed)

    def close(self):
        self.opened.close()


def spread(demo):
    """A template that one node built begins sandboxes at all three; one of its snapshots as well."""
    with tempfile.TemporaryDirectory() as folder:
        pathlib.Path(folder, "greeting.txt").write_text("from a file\n")
        template = e2b.Template(file_context_path=folder).from_template("base").copy("greeting.txt", "/srv/")
        template = template.run_cmd("tr a-z A-Z < /srv/greeting.txt > /srv/loud.txt", user="root")
        e2b.Template.build(template, "demo", **demo.client)
    made = []
    try:
        for node in demo.nodes:
            sandbox, home = demo.create_beside("demo", made)
            made.append(sandbox)
            assert sandbox.commands.run("cat /srv/loud.txt").stdout == "FROM A FILE\n"
            demo.say(f"a sandbox of the template at {home.name}")
            # Where it is already it would stay: the next one goes elsewhere.
            demo.apis[0].cluster("cordon", home.member)
        for node in demo.nodes:
            demo.apis[1].cluster("uncordon", node.member)
        sandbox.files.write("/home/user/kept.txt", "kept")
        snapshot = sandbox.create_snapshot().snapshot_id
        demo.apis[0].cluster("cordon", home.member)
        copy, elsewhere = demo.create_beside(snapshot, made[-1:])
        made.append(copy)
        assert copy.files.read("/home/user/kept.txt") == "kept"
        demo.say(f"its snapshot, taken at {home.name}, runs at {elsewhere.name}")
    finally:
        for node in demo.nodes:
            demo.apis[1].cluster("uncordon", node.member)
        for sandbox in made:
            sandbox.kill()


def survives(demo):
    """With one of each killed a sandbox is served as before, and others are made."""
    sandbox = e2b.Sandbox.create(timeout=600, **demo.client)
    home = demo.home(sandbox.sandbox_id)
    demo.apis[0].kill_process()
    demo.edges[0].kill_process()
    others = [node for node in demo.nodes if node is not home]
    others[0].kill_all()
    demo.say("an API server, an edge and a node were killed")
    assert sandbox.commands.run("echo still here").stdout == "still here\n"

    def made():
        other = e2b.Sandbox.create(timeout=600, **demo.client)
        assert other.commands.run("echo new").stdout == "new\n"
        return other.kill()

    for _ in range(3):
        host.until("another is made", made, 30)
    demo.apis[0].up()
    demo.edges[0].up()
    others[0].up()
    host.until("all are back", lambda: sum(n["connected"] for n in demo.apis[0].nodes().values()) == 3, 60)
    assert sandbox.commands.run("echo still here").stdout == "still here\n"
    assert sandbox.kill()
    demo.say("all are back")


def main():
    asked = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    asked.add_argument("--keep", action="store_true", help="leave it running until Ctrl-C")
    asked.add_argument("--run", nargs=argparse.REMAINDER, default=[], help="a command with the SDKs' variables set")
    asked.add_argument("--sdk-tests", action="store_true", help="run the tests of both SDKs on it")
    asked = asked.parse_args()
    # `kill` ends it as Ctrl-C does: nothing is left.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(1))
    demo = Demo(lambda text: print(f"-- {text}", flush=True))
    with contextlib.closing(demo):
        if asked.sdk_tests:
            demo.registries()
        demo.up()
        demo.run(sys.executable, "examples/analyse_csv.py")
        spread(demo)
        survives(demo)
        if asked.run:
            demo.run(*asked.run)
        if asked.sdk_tests and not demo.sdk_tests():
            sys.exit("the SDKs' tests failed")
        if asked.keep:
            shown = "; ".join(f"export {name}={value}" for name, value in demo.environment.items())
            print(f"{shown}\n-- Ctrl-C ends it", flush=True)
            with contextlib.suppress(KeyboardInterrupt):
                signal.pause()


if __name__ == "__main__":
    main()
