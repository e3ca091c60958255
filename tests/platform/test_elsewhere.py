"""Paused sandboxes of a node that is lost go on at another one, from the bucket."""

import contextlib
import json
import time
import urllib.request

import e2b
import pytest

import host
from cluster import Api, Node
from demo import Bucket
from edges import Edge
from instance import bare_environment, casemate
from servers import Postgres, Redis


class Cluster:
    def __init__(self, opened, postgres, redis, bucket, name="elsewhere", paused_after="2"):
        settings = {
            **postgres.database(name), **redis.settings, **bucket.settings,
            "CASEMATE_ARTIFACTS_PAUSED_AFTER_SECONDS": paused_after,
        }
        self.api = Api(f"{name}-a", **settings)
        self.edge = Edge(f"{name}-e", [self.api], **redis.settings)
        self.nodes = [Node(f"{name}-n{n}", [self.api], **bucket.settings) for n in (1, 2)]
        # A node's end is noted by API servers, so they go last.
        for process in [self.api, *self.nodes, self.edge]:
            opened.callback(process.close)

    def up(self):
        self.api.up()
        for role, member in [*(("node", node) for node in self.nodes), ("edge", self.edge)]:
            member.settings["JOIN_TOKEN"] = self.api.token(role)
            member.spawn()
        for node in self.nodes:
            host.until("the node is ready", lambda node=node: " ready, health at" in node.said(), 240)
            node.id = (node.data_dir / "instance").read_text().strip()
            node.member = f"node-{node.id}"
        self.connected(2)
        host.until("sandboxes can be made", lambda: self.api.get("/ready")[0] == 200, 60)
        host.until("the edge is ready", lambda: f"ready {self.edge.url}" in self.edge.said(), 60)

    def connected(self, count):
        def speak():
            return sum(node["connected"] for node in self.api.nodes().values()) == count

        host.until("nodes speak", speak, 60)

    @property
    def client(self):
        return self.edge.client(self.api)

    def home(self, id):
        [home] = [node for node in self.nodes if id in node.journalled()]
        return home

    def create_at(self, node, **options):
        """By lot: until it is there."""
        while True:
            made = e2b.Sandbox.create(timeout=600, **options, **self.client)
            if self.home(made.sandbox_id) is node:
                return made
            made.kill()

    def stored(self, *sandboxes):
        def said(id):
            return f"stored the files of paused sandbox {id} in the bucket" in self.api.said()

        host.until("they are stored", lambda: all(said(one.sandbox_id) for one in sandboxes), 120)

    def fence(self, node):
        """Every API server has heard of it two seconds later."""
        self.api.cluster("fence", node.member)

    def resumed(self, id):
        found = []

        def goes_on():
            with contextlib.suppress(e2b.exceptions.ServiceBusyException):
                found.append(e2b.Sandbox.connect(id, timeout=600, **self.client))
            return bool(found)

        host.until("it goes on", goes_on, 30)
        return found[0]


def reads(sandbox):
    with contextlib.suppress(e2b.exceptions.SandboxException):
        return sandbox.files.read("/home/user/kept.txt")


@pytest.fixture(scope="module")
def cluster():
    with contextlib.ExitStack() as opened:
        stores = [opened.enter_context(server()) for server in (Postgres, Redis, Bucket)]
        made = Cluster(opened, *stores)
        made.up()
        yield made


def test_paused_sandboxes_of_a_lost_node_go_on_at_another_one(cluster):
    lost, other = cluster.nodes
    made = {mode: cluster.create_at(lost, metadata={"of": mode}, envs={"OF": mode}) for mode in ("filesystem", "full")}
    for mode, sandbox in made.items():
        sandbox.files.write("/home/user/kept.txt", f"of {mode}")
        sandbox.pause(mode=mode)
    cluster.stored(*made.values())
    lost.kill_all()
    cluster.connected(1)
    cluster.fence(lost)

    moved = {}
    for mode, sandbox in made.items():
        id = sandbox.sandbox_id
        again = cluster.resumed(id)
        assert again.sandbox_id == id
        assert id in other.journalled()
        # The edge may believe for some seconds, and one request, that it is where it was.
        host.until("it is reached", lambda again=again: reads(again) is not None, 20)
        assert reads(again) == f"of {mode}"
        assert again.commands.run("echo $OF").stdout.strip() == mode
        assert again.get_info().metadata == {"of": mode}
        # With the token that its owner has had all along.
        assert sandbox.files.read("/home/user/kept.txt") == f"of {mode}"
        again.files.write("/home/user/kept.txt", "written elsewhere")
        moved[mode] = again
    assert set(cluster.api.listed()) >= {one.sandbox_id for one in made.values()}

    # Back, it ends what it had of them, and nothing of what they are now.
    ids = {one.sandbox_id for one in made.values()}
    assert ids <= lost.journalled()
    lost.up()
    cluster.connected(2)
    host.until("its copies are gone", lambda: not ids & lost.journalled(), 60)
    for sandbox in moved.values():
        assert sandbox.is_running()
        assert sandbox.files.read("/home/user/kept.txt") == "written elsewhere"
        # They pause and go on there like any other.
        sandbox.pause()
        assert e2b.Sandbox.connect(sandbox.sandbox_id, **cluster.client).files.read("/home/user/kept.txt") == "written elsewhere"
        assert cluster.api.kill(sandbox.sandbox_id)
    assert not ids & other.journalled()


def metric(api, name):
    lines = api.get("/metrics", api.health)[1].splitlines()
    return sum(int(line.split()[1]) for line in lines if line.startswith(f"{name} "))


def test_a_bucket_that_is_not_there_is_told_at_once_and_seldom():
    with contextlib.ExitStack() as opened:
        postgres, redis, bucket = [opened.enter_context(server()) for server in (Postgres, Redis, Bucket)]
        named = {**bucket.settings, "CASEMATE_ARTIFACTS_BUCKET": "s3://nosuch"}
        stores = {**postgres.database("nosuch"), **redis.settings}
        api = Api("nosuch-a", **stores, **named, CASEMATE_ARTIFACTS_PAUSED_AFTER_SECONDS="1")
        node = Node("nosuch-n", [api], **named)
        for process in (api, node):
            opened.callback(process.close)
        api.up()
        node.settings["JOIN_TOKEN"] = api.token("node")
        node.up(seconds=240)
        for process in (api, node):
            cannot = "the bucket s3://nosuch cannot be used, which is tried again: the bucket refuses to read its layout"
            host.until("it says so", lambda: cannot in process.said() and "NoSuchBucket" in process.said(), 60)
        host.until("sandboxes can be made", lambda: api.get("/ready")[0] == 200, 60)
        made = e2b.Sandbox.create(timeout=600, **api.client)
        made.pause()
        failures = lambda: metric(api, "casemate_bucket_failures")
        begun = time.monotonic()
        host.until("it is tried", lambda: failures() >= 5, 120)
        told = api.said().count("could not store the files of paused sandboxes of node")
        assert 1 <= told <= 1 + (time.monotonic() - begun) // 60, api.said()[-3000:]

        waited = casemate(
            "cluster", "drain", node.member, "--wait=1s", "--data-dir", str(api.data_dir)
        )
        assert waited.returncode == 1 and "1 are not stored" in waited.stderr, waited.stderr
        assert "NoSuchBucket" in waited.stderr, waited.stderr

        def found():
            settings = bare_environment(**api.settings)
            ran = casemate("--json", "doctor", "--data-dir", str(api.data_dir), env=settings)
            return {one["what"]: one for one in json.loads(ran.stdout)["findings"]}

        seen = found()
        assert seen["bucket"]["state"] == "warning" and "NoSuchBucket" in seen["bucket"]["found"], seen["bucket"]
        assert seen["database"]["state"] == "good" and f":{postgres.port}" in seen["database"]["found"], seen["database"]
        assert seen["Redis"]["state"] == "good", seen["Redis"]
        # TLS where there is none, and nobody at all.
        api.settings["REDIS_URL"] = api.settings["REDIS_URL"].replace("redis://", "rediss://")
        postgres.kill()
        seen = found()
        assert "TLS" in seen["Redis"]["found"], seen["Redis"]
        assert seen["database"]["found"].endswith("cannot be used: Connection refused (os error 111)"), seen["database"]
        postgres.start()
        # Once it is there all goes on by itself.
        make = urllib.request.Request(f"{bucket.url}/nosuch", method="PUT")
        urllib.request.urlopen(make, timeout=10).close()
        stored = f"stored the files of paused sandbox {made.sandbox_id} in the bucket"
        host.until("it is stored", lambda: stored in api.said(), 120)
        host.until("it says so", lambda: "the bucket s3://nosuch can be used now" in node.said(), 60)
