"""Edges as processes of their own: what they reach, and what of the cluster may be away meanwhile."""

import os
import signal
import threading
import time

import e2b
import pytest

import host
from cluster import Api, Node
from edges import Edge
from servers import Postgres, Redis

WAKES = {"on_timeout": "pause", "auto_resume": True}


class Cluster:
    """Two nodes, an API server, an edge with Redis and one without."""

    def __init__(self):
        self.postgres, self.redis = Postgres(), Redis()
        self.postgres.start()
        self.redis.start()
        settings = {**self.postgres.database("edges"), **self.redis.settings}
        self.api = Api("edges-a1", **settings)
        self.nodes = [Node("edges-n1", [self.api]), Node("edges-n2", [self.api])]
        self.edge = Edge("edges-e1", [self.api], **self.redis.settings)
        self.bare = Edge("edges-e2", [self.api])
        self.edges = [self.edge, self.bare]

    def up(self):
        self.api.up()
        for node in self.nodes:
            node.settings["JOIN_TOKEN"] = self.api.token("node")
            node.spawn()
        for edge in self.edges:
            edge.settings["JOIN_TOKEN"] = self.api.token("edge")
            edge.spawn()
        for node in self.nodes:
            host.until("it is ready", lambda node=node: " ready, health at" in node.said(), 180)
            node.id = (node.data_dir / "instance").read_text().strip()
            node.member = f"node-{node.id}"
        self.connected()
        host.until("sandboxes can be made", lambda: self.api.get("/ready")[0] == 200, 60)
        for edge in self.edges:
            host.until("it is ready", lambda edge=edge: edge.get("/ready", edge.health)[0] == 200, 30)
            host.until("it knows both", lambda edge=edge: edge.figure("casemate_edge_nodes") == 2, 30)

    def connected(self):
        host.until("nodes speak", lambda: sum(n["connected"] for n in self.api.nodes().values()) == 2, 60)

    def close(self):
        for edge in self.edges:
            edge.close()
        for node in self.nodes:
            node.close()
        self.api.close()
        self.redis.close()
        self.postgres.close()


@pytest.fixture(scope="module")
def cluster():
    made = Cluster()
    try:
        made.up()
        yield made
    finally:
        made.close()


def serve(sandbox, text):
    """A service inside, on loopback."""
    sandbox.files.write("/home/user/index.html", text)
    sandbox.commands.run("python3 -m http.server 8000 --bind 127.0.0.1", background=True, cwd="/home/user")
    return sandbox.sandbox_id


def serves(edge, id, text):
    return edge.into(id, 8000) == (200, text)


def test_the_stock_sdk_works_through_any_edge(cluster):
    homes = set()
    for edge in cluster.edges * 3:
        sandbox = edge.create(cluster.api, envs={"OF": "test"})
        assert sandbox.commands.run("echo $OF $((6 * 7))").stdout == "test 42\n"
        sandbox.files.write("/home/user/file", "x" * 300_000)
        assert len(sandbox.files.read("/home/user/file")) == 300_000
        assert sandbox.is_running()
        id = serve(sandbox, "hello")
        for other in cluster.edges:
            host.until("it serves", lambda other=other, id=id: serves(other, id, "hello"))
            shut = other.into(id, 8001)
            assert shut[0] == 502 and "port is not open" in shut[1], shut
        homes |= {node.name for node in cluster.nodes if id in node.journalled()}
        sandbox.kill()
        assert not sandbox.is_running()
        for other in cluster.edges:
            gone = other.into(id, 8000)
            assert gone[0] == 502 and "was not found" in gone[1], gone
    assert len(homes) == 2, homes


def test_what_is_not_for_a_sandbox_is_sent_to_the_api(cluster):
    for edge in cluster.edges:
        assert "ok" in edge.get("/health")[1]
        status, body = edge.get("/sandboxes")
        assert status == 404 and "This address reaches sandboxes" in body, body
        unknown = edge.into("i" + "a" * 20, 8000)
        assert unknown[0] == 502 and "was not found" in unknown[1], unknown


def test_the_request_after_a_pause_wakes_and_private_ports_want_their_token(cluster):
    for edge in cluster.edges:
        sandbox = edge.create(cluster.api, lifecycle=WAKES, network={"allow_public_traffic": False})
        id, token = serve(sandbox, "private"), sandbox.traffic_access_token
        header = {"e2b-traffic-access-token": token}
        host.until("it serves", lambda id=id, edge=edge, header=header: edge.into(id, 8000, **header)[0] == 200)
        for _ in range(3):
            sandbox.pause()
            # Through the connections that were kept, and through new ones.
            assert sandbox.commands.run("echo on").stdout == "on\n"
            sandbox.pause()
            for other in cluster.edges:
                assert other.into(id, 8000)[0] == 403
                assert other.into(id, 8000, **{"e2b-traffic-access-token": "wrong"})[0] == 403
            assert edge.into(id, 8000, **header) == (200, "private")
        sandbox.kill()


def test_without_redis_everything_is_found(cluster):
    edge, api = cluster.edge, cluster.api
    before = edge.create(api)
    id = serve(before, "before")
    host.until("it serves", lambda: serves(edge, id, "before"))
    cluster.redis.kill()
    try:
        assert serves(edge, id, "before")
        meanwhile = edge.create(api)
        other = serve(meanwhile, "meanwhile")
        host.until("it serves", lambda: serves(edge, other, "meanwhile"))
        before.kill()
        assert edge.into(id, 8000)[0] == 502
    finally:
        # Without any data.
        cluster.redis.start()
    assert serves(edge, other, "meanwhile")
    assert edge.connect(api, other).commands.run("true").exit_code == 0
    meanwhile.kill()


def test_what_runs_is_served_while_api_servers_database_and_redis_are_away(cluster):
    api = cluster.api
    sandbox = cluster.edge.create(api)
    id = serve(sandbox, "alone")
    host.until("it serves", lambda: serves(cluster.edge, id, "alone"))
    api.kill_process()
    cluster.postgres.kill()
    cluster.redis.kill()
    try:
        for edge in cluster.edges:
            assert serves(edge, id, "alone")
            # Also one that starts now, with what it knew of the cluster.
            edge.kill_process()
            edge.up(90)
            host.until("it serves", lambda edge=edge: serves(edge, id, "alone"), 30)
            assert edge.get("/ready", edge.health)[0] == 200
        assert sandbox.commands.run("echo still").stdout == "still\n"
        # Nobody can say that this one is nowhere, unless all nodes do.
        unknown = cluster.edge.into("i" + "b" * 20, 8000)
        assert unknown[0] == 502 and "was not found" in unknown[1], unknown
    finally:
        cluster.postgres.start()
        cluster.redis.start()
        api.up()
        cluster.connected()
    sandbox.kill()
    assert not any(id in node.journalled() for node in cluster.nodes)


def test_a_node_that_is_away_keeps_nobody_from_the_others(cluster):
    edge, api = cluster.bare, cluster.api
    made = [edge.create(api) for _ in range(6)]
    ids = {serve(sandbox, "there"): sandbox for sandbox in made}
    node, other = cluster.nodes
    here = [id for id in ids if id in node.journalled()]
    there = [id for id in ids if id in other.journalled()]
    assert here and there, "by lot each has some"
    for id in ids:
        host.until("it serves", lambda id=id: serves(edge, id, "there"))
    node.kill_all()
    for id in there:
        assert serves(edge, id, "there")
    assert edge.into(here[0], 8000)[0] in (500, 502, 503)
    node.up()
    for id in here:
        host.until("it serves again", lambda id=id: serves(edge, id, "there"), 30)
    cluster.connected()
    for sandbox in made:
        sandbox.kill()


def test_an_edge_that_ends_answers_what_it_has(cluster):
    edge, api = cluster.edge, cluster.api
    sandbox = edge.create(api)
    slow = "import http.server, time\nclass Slow(http.server.BaseHTTPRequestHandler):\n"
    slow += " def do_GET(self):\n  open('/tmp/asked', 'w')\n  time.sleep(3)\n  self.send_response(200)\n"
    slow += "  self.end_headers()\n  self.wfile.write(b'late')\n"
    slow += "http.server.HTTPServer(('127.0.0.1', 8000), Slow).serve_forever()\n"
    sandbox.files.write("/home/user/slow.py", slow)
    sandbox.commands.run("python3 slow.py", background=True, cwd="/home/user")
    id, answers = sandbox.sandbox_id, []
    probe = "import socket; socket.create_connection(('127.0.0.1', 8000))"
    host.until("it listens", lambda: sandbox.commands.run(f'python3 -c "{probe}"').exit_code == 0)
    asking = threading.Thread(target=lambda: answers.append(edge.into(id, 8000)))
    asking.start()
    host.until("it was asked", lambda: sandbox.files.exists("/tmp/asked"))
    edge.process.send_signal(signal.SIGTERM)
    host.until("it is not ready", lambda: edge.get("/ready", edge.health)[0] != 200, 10)
    asking.join(30)
    assert answers == [(200, "late")], answers
    assert edge.process.wait(60) == 0, edge.said()[-1000:]
    assert serves_elsewhere(cluster, id)
    edge.up()
    assert edge.connect(api, id).commands.run("echo on").stdout == "on\n"
    edge.connect(api, id).kill()


def serves_elsewhere(cluster, id):
    return cluster.bare.into(id, 8000)[0] == 200


def test_an_edge_may_not_do_what_it_need_not(cluster):
    for edge in cluster.edges:
        member = edge.data_dir / "member"
        assert member.stat().st_mode & 0o777 == 0o700
        assert all(path.stat().st_mode & 0o077 == 0 for path in member.iterdir())
    assert "another role" in Node("edges-wrong", [cluster.api]).join(cluster.api.token("edge")).stderr
