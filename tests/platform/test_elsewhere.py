"""Paused sandboxes of a node that is lost go on at another one, from the bucket."""

import contextlib

import e2b
import pytest

import host
from cluster import Api, Node
from demo import Bucket
from edges import Edge
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
