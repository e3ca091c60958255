"""A machine that burns down, another one that takes its name, and abuse of what machines say to each other."""

import contextlib
import os
import pathlib
import shutil
import socket
import ssl

import e2b
import pytest

import host
from cluster import Api, Node
from demo import Bucket
from edges import Edge
from proxies import Ways
from servers import Postgres, Redis


class Reached:
    """An API server, as one node reaches it."""

    def __init__(self, way):
        self.address = f"127.0.0.1:{way.port}"


class Cluster:
    """An API server, an edge, a node that will burn and one that stays."""

    def __init__(self, opened):
        stores = [opened.enter_context(server()) for server in (Postgres, Redis, Bucket)]
        postgres, redis, self.bucket = stores
        self.ways = opened.enter_context(contextlib.closing(Ways()))
        settings = {
            **postgres.database("machines"), **redis.settings, **self.bucket.settings,
            "CASEMATE_ARTIFACTS_PAUSED_AFTER_SECONDS": "2",
        }
        self.api = Api("machines-a", **settings)
        self.edge = Edge("machines-e", [self.api], **redis.settings)
        self.stays = Node("machines-stays", [self.api], **self.bucket.settings)
        self.burns, self.ways_of = self.machine("machines-burns")
        # A node's end is noted by API servers, so they go last.
        for process in [self.api, self.stays, self.burns, self.edge]:
            opened.callback(process.close)

    def machine(self, name):
        """A node whose network can be taken away, and all ways from and to it."""
        calls, bucket = self.ways.to(self.api.calls), self.ways.to(self.bucket.port)
        settings = {
            name: value.replace(f":{self.bucket.port}", f":{bucket.port}")
            for name, value in self.bucket.settings.items()
        }
        node = Node(name, [Reached(calls)], **settings)
        gate = self.ways.to(node.port)
        node.reached = gate.port
        return node, {"calls": calls, "bucket": bucket, "gate": gate}

    def up(self):
        self.api.up()
        for node in (self.stays, self.burns):
            node.settings["JOIN_TOKEN"] = self.api.token("node")
            node.up(seconds=240)
        self.edge.settings["JOIN_TOKEN"] = self.api.token("edge")
        self.edge.up()
        self.connected(2)
        host.until("sandboxes can be made", lambda: self.api.get("/ready")[0] == 200, 60)

    def connected(self, count):
        speak = lambda: sum(node["connected"] for node in self.api.nodes().values()) == count
        host.until("nodes speak", speak, 60)

    @property
    def client(self):
        return self.edge.client(self.api)

    def create_at(self, node):
        """By lot: until it is there."""
        while True:
            made = e2b.Sandbox.create(timeout=900, **self.client)
            if made.sandbox_id in node.journalled():
                return made
            made.kill()

    def stored(self, sandbox):
        said = f"stored the files of paused sandbox {sandbox.sandbox_id} in the bucket"
        host.until("it is stored", lambda: said in self.api.said(), 120)

    def status(self, id):
        return self.api.get(f"/sandboxes/{id}", **{"X-API-Key": self.api.client["api_key"]})


@pytest.fixture(scope="module")
def cluster():
    with contextlib.ExitStack() as opened:
        made = Cluster(opened)
        made.up()
        yield made


def burn(node, ways):
    """Nobody hears of its end: first its network goes, then all that it ran, then its disk."""
    for way in ways.values():
        way.cut()
    inside = host.processes_inside(node.id)
    node.kill_all()
    for pid in inside:
        with contextlib.suppress(ProcessLookupError):
            os.kill(int(pid), 9)
    # What a machine takes with it by itself: mounts, links, rules, groups.
    node.down("--purge")


def answer_of(call):
    """What a client is told: the error, or none."""
    try:
        call()
    except (e2b.SandboxException, e2b.exceptions.ServiceBusyException) as error:
        return error
    return None


def test_a_machine_burns_down_and_another_one_takes_its_name(cluster):
    burns, api = cluster.burns, cluster.api
    runs, moves, waits, unstored = [cluster.create_at(burns) for _ in range(4)]
    for sandbox in (moves, waits):
        sandbox.files.write("/home/user/kept.txt", sandbox.sandbox_id)
        sandbox.pause()
    for sandbox in (moves, waits):
        cluster.stored(sandbox)
    cluster.ways_of["bucket"].cut()
    unstored.pause()
    burn(burns, cluster.ways_of)
    assert not burns.data_dir.exists()
    cluster.connected(1)
    api.cluster("fence", burns.member)

    connect = lambda sandbox: e2b.Sandbox.connect(sandbox.sandbox_id, timeout=600, **cluster.client)
    reads = lambda sandbox: sandbox.files.read("/home/user/kept.txt") == sandbox.sandbox_id
    host.until("it is lost", lambda: "sandbox_lost" in cluster.status(runs.sandbox_id)[1], 30)
    assert isinstance(answer_of(lambda: connect(runs)), e2b.NotFoundException)
    again = host.until("it goes on elsewhere", lambda: connect(moves), 60)
    assert moves.sandbox_id in cluster.stays.journalled()
    host.until("it has its files", lambda: reads(again), 30)
    assert isinstance(answer_of(lambda: connect(unstored)), e2b.exceptions.ServiceBusyException)

    # A new machine with nothing on it, which an administrator lets in under the old one's name.
    fresh, _ = cluster.machine("machines-fresh")
    try:
        fresh.settings["JOIN_TOKEN"] = api.token("node")
        fresh.spawn("--name", burns.member)
        host.until("it is ready", lambda: " ready, health at" in fresh.said(), 240)
        fresh.id = (fresh.data_dir / "instance").read_text().strip()
        cluster.connected(2)
        node = api.nodes()[burns.member]
        assert "lostAt" not in node and node["standing"] == "open", node
        # What it does not have is over, but for what the bucket has.
        for gone in (runs, unstored):
            host.until("it is over", lambda: cluster.status(gone.sandbox_id)[0] == 404, 60)
            assert isinstance(answer_of(lambda: connect(gone)), e2b.NotFoundException)
            status, text = cluster.edge.into(gone.sandbox_id, 8000)
            assert status == 502 and "was not found" in text, (status, text)
        assert waits.sandbox_id in api.listed()
        again = host.until("it goes on", lambda: connect(waits), 60)
        host.until("it has its files", lambda: reads(again), 30)
        # It gets what is new, and the edge reaches it.
        made = cluster.create_at(fresh)
        says_new = lambda: made.commands.run("echo new").stdout == "new\n"
        host.until("the edge finds the new address", says_new, 30)
        for sandbox in (moves, waits, made):
            assert api.kill(sandbox.sandbox_id)
        assert not set(api.listed()) & {one.sandbox_id for one in (runs, moves, waits, unstored)}
    finally:
        fresh.close()
