"""Machines in foreign hands: an edge and a node of the cluster that say what they like, and strangers at
its listeners. What they tried is refused or believed of their own alone; everybody else is served."""

import contextlib
import json
import os
import shutil
import socket
import threading
import time

import e2b
import pytest

import host
from cluster import Api, Node
from edges import Edge
from instance import ROOT
from members import CALLS, CARRY, CONTROL, DIAL, HELLO, HostileNode, Member, Stranger, ask, frame, fuzz, now, running
from servers import Postgres

# Frames of each fuzzed connection's kind; 100 000 by hand.
FRAMES = 300
NOBODY = "iaaaaaaaaaaaaaaaaaaaa"


class Cluster:
    def __init__(self, postgres):
        # Those who join have no rights, and reach no folder of pytest's.
        self.folder = ROOT / f"members-{os.getpid()}"
        self.api = Api("of-members", **postgres.database("members"))
        self.node = Node("of-members", [self.api])
        # Without Redis: it asks nodes where sandboxes are.
        self.edge = Edge("of-members-e", [self.api])

    def begin(self):
        self.folder.mkdir(parents=True)
        self.api.up()
        self.node.settings["JOIN_TOKEN"] = self.api.token("node")
        self.edge.settings["JOIN_TOKEN"] = self.api.token("edge")
        self.node.spawn()
        self.edge.spawn()
        host.until("the node is ready", lambda: " ready, health at" in self.node.said(), 120)
        host.until("the edge is ready", lambda: f"ready {self.edge.url}" in self.edge.said(), 60)
        host.until("sandboxes can be made", lambda: self.api.get("/ready")[0] == 200, 60)
        host.until("the edge knows the node", lambda: self.edge.figure("casemate_edge_nodes") == 1, 60)
        self.node.id = (self.node.data_dir / "instance").read_text().strip()
        self.node.member = f"node-{self.node.id}"
        self.hostile_edge = Member(self.api, "edge", "hostile-edge", self.folder)

    def close(self):
        for part in (self.edge, self.node, self.api):
            part.close()
        shutil.rmtree(self.folder, ignore_errors=True)

    @property
    def gate(self):
        [gate] = [pid for pid, role in self.node.processes().items() if role == "gate"]
        return gate

    def info(self):
        """What the node says of itself."""
        with self.hostile_edge.dial(self.node.port, CALLS) as stream:
            return ask(stream, "info")["Ok"]["info"]

    def team(self, postgres):
        return postgres.sql("SELECT id FROM teams", "members")[0]


@pytest.fixture(scope="module")
def postgres():
    with Postgres() as server:
        yield server


@pytest.fixture(scope="module")
def cluster(postgres):
    made = Cluster(postgres)
    try:
        made.begin()
        yield made
    finally:
        made.close()


@pytest.fixture(scope="module")
def victim(cluster):
    """Of the node that is in nobody's hands."""
    box = cluster.edge.create(cluster.api)
    yield box
    box.kill()


@pytest.fixture
def hostile(cluster, victim):
    node = HostileNode(cluster.api, cluster.info(), cluster.folder)
    try:
        host.until("it is listened to", lambda: node.watchers, 60)
        yield node
    finally:
        node.close()
        cluster.api.cluster("remove", node.name, "--force")


def is_well(cluster, victim):
    assert victim.commands.run("echo well").stdout == "well\n"
    assert victim.sandbox_id in cluster.api.listed()


def test_members_are_told_what_is_for_their_role(cluster, hostile):
    api, node = cluster.api.calls, cluster.node.port
    edge, stranger = cluster.hostile_edge, Stranger()
    for protocol in (CALLS, DIAL, CARRY):
        for one in (stranger, hostile):
            assert one.answers(node, HELLO, protocol) is None, protocol
        assert stranger.answers(api, HELLO, protocol) is None
    for call in ("nodes", "time", {"home": {"sandbox": NOBODY}}, {"renew": {"public_key": "04" * 65, "node": None}}):
        assert "not_admitted" in stranger.answers(api, call, CONTROL)["Err"], call
    for call in ("nodes", {"home": {"sandbox": NOBODY}}):
        assert "not_admitted" in hostile.answers(api, call, CONTROL)["Err"], call
        assert "Ok" in edge.answers(api, call, CONTROL), call
    for call in ("watch", "observe", {"kill": {"sandbox": NOBODY, "reason": "killed"}}, {"connect": {"peer": "control"}},
                 {"layers": {"after": None}}, {"snapshots": {"after": None}}):
        assert edge.answers(node, call, CALLS) == {"Err": "denied"}, call
    assert edge.answers(node, HELLO, CARRY) is None


def test_a_flood_of_handshakes_shuts_nobody_out_behind_its_address(cluster, victim):
    """As from another machine at the same address as honest ones. Half open, and whole ones that say nothing."""
    stranger, edge, ending = Stranger(), cluster.hostile_edge, threading.Event()
    flood = "127.0.0.9"
    before = host.resident_mib([cluster.api.process.pid])

    def half_open():
        held = []
        while not ending.is_set():
            with contextlib.suppress(OSError):
                held.append(socket.create_connection(("127.0.0.1", cluster.api.calls), 5, source_address=(flood, 0)))
            if len(held) > 300:
                held.pop(0).close()
            time.sleep(0.002)

    flooding = threading.Thread(target=half_open)
    flooding.start()
    silent = []
    try:
        host.until("the flood is there", lambda: sockets_at(cluster.api.calls) > 200, 60)
        for _ in range(150):
            with contextlib.suppress(OSError):
                silent.append(stranger.dial(cluster.api.calls, CONTROL, flood))

        def comes_through(member):
            with member.dial(cluster.api.calls, CONTROL, flood) as stream:
                return ask(stream, HELLO)

        host.until("a member comes through", lambda: comes_through(edge), 60)
        host.until("who wants to join comes through", lambda: comes_through(stranger), 60)
        is_well(cluster, victim)
        assert host.resident_mib([cluster.api.process.pid]) < before + 64
    finally:
        ending.set()
        flooding.join()
        for stream in silent:
            stream.close()


def sockets_at(port):
    return len(host.output("ss", "-Htn", "state", "established", f"( sport = :{port} )").splitlines())


def test_an_edge_that_asks_and_does_not_read_fills_no_memory_of_a_node(cluster, victim):
    node = cluster.node
    before = host.resident_mib([node.process.pid, cluster.gate])
    asked = frame({"id": 1, "call": "info"}) * 1000
    unread = [cluster.hostile_edge.dial(node.port, CALLS) for _ in range(4)]
    for stream in unread:
        stream.settimeout(1)
    begun, most = time.monotonic(), 0
    while unread and time.monotonic() < begun + 8:
        for stream in list(unread):
            try:
                stream.sendall(asked)
            except TimeoutError:
                pass
            except OSError:
                # It was given up.
                unread.remove(stream)
        most = max(most, host.resident_mib([node.process.pid, cluster.gate]))
    for stream in unread:
        stream.close()
    assert most < before + 96, (before, most)
    is_well(cluster, victim)


def test_noise_from_members_ends_their_connections_alone(cluster, victim):
    hostile_node = Member(cluster.api, "node", "noisy", cluster.folder)
    pids = [cluster.api.process.pid, cluster.node.process.pid, cluster.gate]
    before = host.resident_mib(pids)
    for member, port, protocol in [
        (hostile_node, cluster.api.calls, CONTROL), (cluster.hostile_edge, cluster.api.calls, CONTROL),
        (cluster.hostile_edge, cluster.node.port, CALLS), (cluster.hostile_edge, cluster.node.port, DIAL),
    ]:
        assert fuzz(member, port, protocol, FRAMES, seed=f"{protocol} {member.name}") >= FRAMES
    cluster.api.cluster("remove", hostile_node.name)
    assert cluster.gate in pids and cluster.api.process.poll() is None
    assert host.resident_mib(pids) < before + 64
    host.until("nothing of it is left open", lambda: sockets_at(cluster.api.calls) < 20, 60)
    for log in (cluster.api, cluster.node):
        assert "panicked" not in log.said()
    is_well(cluster, victim)


def test_a_node_is_believed_of_its_own_sandboxes_alone(cluster, victim, hostile, postgres):
    api, id, team = cluster.api, victim.sandbox_id, cluster.team(postgres)
    # That it has it: an edge that knows nothing of a sandbox asks all nodes.
    entrance = {"ingress": {}, "traffic_token": None}
    hostile.answer["locate"] = lambda _: {"Ok": {"located": {"asleep": False, "started_at": now(60), "entrance": entrance}}}
    asker = Edge("of-members-e2", [api])
    asker.settings["JOIN_TOKEN"] = api.token("edge")
    try:
        asker.up()
        host.until("it knows both nodes", lambda: asker.figure("casemate_edge_nodes") == 2, 60)
        box = asker.connect(api, id)
        # It may not have reached the other node yet: then it believes nobody.
        host.until("it is served", lambda: box.commands.run("echo mine").stdout == "mine\n", 60)
        token = {"X-Access-Token": "secret"}
        host.until("nobody is there", lambda: "not found" in asker.into(NOBODY, 80, **token)[1], 60)
    finally:
        asker.close()
    assert "locate" in hostile.asked and hostile.got == []
    hostile.answer.clear()
    # That it runs it, paused it, ended it.
    paused = {"sandbox": id, "team": team, "template": "base", "started_at": now(), "at": now(), "kept": "files",
              "reason": "expired", "recorded": True}
    for event in (running(id, team), {"paused": paused}, {"ended": {"sandbox": id, "reason": "killed", "at": now(1)}}):
        hostile.tell(event)
    host.until("its copy is ended", lambda: "kill" in hostile.asked, 60)
    is_well(cluster, victim)
    # What it did and wrote.
    usage = {"vcpus": 77, "cpu_used_percent": 77.0, "memory_used_bytes": 7, "memory_total_bytes": 7,
             "memory_cache_bytes": 7, "disk_used_bytes": 7, "disk_total_bytes": 7}
    line = json.dumps({"level": "info", "logger": "process", "event_type": "process_start", "command": "forged"})
    hostile.tell({"samples": [{"sandbox": id, "team": team, "at": now(), "usage": usage}]})
    hostile.tell({"memory_full": {"sandbox": id, "team": team, "at": now(), "processes": 4711}})
    hostile.tell({"log": {"sandbox": id, "team": team, "since": now(-60), "at": now(), "lines": f"{line}\n"}})
    # Of a team that there is not.
    stranger = "11111111-2222-4333-8444-555555555555"
    hostile.tell({"samples": [{"sandbox": NOBODY, "team": stranger, "at": now(), "usage": usage}]})
    # It is told in order: what comes behind has been heard, so that has been as well.
    hostile.tell({"heartbeat": {**hostile.info, "sandboxes": 4712}})
    host.until("it was heard", lambda: "4712" in nodes_of(api), 60)
    victim.commands.run("echo after")
    host.until("its log goes on", lambda: "echo after" in logs_of(api, id), 60)
    told = logs_of(api, id)
    assert "forged" not in told and "4711" not in told
    host.until("it has samples", lambda: e2b.Sandbox.get_metrics(id, **api.client), 60)
    assert all(sample.cpu_count != 77 for sample in e2b.Sandbox.get_metrics(id, **api.client))
    # Who it is.
    hostile.tell({"heartbeat": {**hostile.info, "node": cluster.node.member, "sandboxes": 2**32 - 1}})
    host.until("it is not believed", lambda: "answers in its place" in api.said(), 60)
    assert nodes_of(api).count(f'"id":"{cluster.node.member}"') == 1
    is_well(cluster, victim)


def logs_of(api, id):
    status, body = api.get(f"/v2/sandboxes/{id}/logs", **{"X-API-Key": api.client["api_key"]})
    assert status == 200, body
    return body


def nodes_of(api):
    token = (api.data_dir / "secrets/admin_token").read_text().strip()
    status, body = api.get("/nodes", **{"X-Admin-Token": token})
    assert status == 200, body
    return body


def test_what_no_node_can_say_leaves_no_trace(cluster, victim, hostile):
    api = cluster.api
    # A sandbox that starts and ends when no clock can: a row of it would make its team's list unreadable.
    hostile.info["templates"] = cluster.info()["templates"]
    hostile.tell({"heartbeat": hostile.info})
    last, first = "9999-12-30T22:00:00.999999999Z", "-009999-01-02T01:59:59Z"
    api.cluster("cordon", cluster.node.member)
    try:
        for started, ends in [(last, last), (first, last), (first, first), (now(), last)]:
            hostile.answer["create"] = lambda _: {"Ok": {"created": {"started_at": started, "ends_at": ends}}}
            host.until("it is there", lambda: '"ready"' in nodes_of(api) and hostile.watchers, 60)
            asked = hostile.asked.count("create")

            def is_chosen():
                """What it says that it has may not be heard yet."""
                with pytest.raises((e2b.SandboxException, e2b.ServiceBusyException)):
                    api.create(request_timeout=60)
                return hostile.asked.count("create") > asked

            host.until("it is chosen", is_chosen, 60)
            assert victim.sandbox_id in api.listed()
    finally:
        api.cluster("uncordon", cluster.node.member)
    # Figures beyond all measure.
    huge = {name: 2**32 - 1 for name in ("sandboxes", "sandboxes_max", "queue_length", "cpu_count", "cpu_percent",
                                         "slots_ready", "vcpus_promised", "sandboxes_paused", "sandboxes_warm")}
    huge |= {name: 2**64 - 1 for name in ("memory_total_bytes", "memory_available_bytes", "memory_promised_bytes",
                                          "memory_promised_max_bytes", "disk_free_bytes", "memory_paused_bytes")}
    hostile.info["templates"] = []

    def believed():
        # Who listens to it may be new.
        hostile.tell({"heartbeat": {**hostile.info, **huge}})
        return str(2**32 - 1) in nodes_of(api)

    host.until("it was heard", believed, 60)
    for path, port in (("/metrics", api.health), ("/ready", api.health), ("/health", api.port)):
        assert api.get(path, port)[0] == 200, path
    api.kill(api.create())
    assert "panicked" not in api.said()


def test_a_node_that_never_stops_talking_fills_no_memory(cluster, victim, hostile):
    api, team = cluster.api, "11111111-2222-4333-8444-555555555555"
    before = host.resident_mib([api.process.pid])
    lines = "x" * 700_000
    log = {"log": {"sandbox": NOBODY, "team": team, "since": now(), "at": now(), "lines": lines}}

    class Endless:
        told = 0

        def __iter__(self):
            while self.told < 250:
                self.told += 1
                yield log

    # 175 MB before it has said what it has, and as much after.
    hostile.before_synced = talk = Endless()
    for watcher in hostile.watchers:
        hostile.quietly(watcher, b"\xff\xff\xff\xff")
    hostile.watchers.clear()
    most = [0]

    def heard():
        most[0] = max(most[0], host.resident_mib([api.process.pid]))
        return talk.told == 250 and hostile.watchers

    # Several times over: 64 MiB are heard of it at once.
    host.until("it has told all", heard, 120)
    hostile.before_synced = ()
    for _ in range(250):
        hostile.tell(log)
        most[0] = max(most[0], host.resident_mib([api.process.pid]))
    assert most[0] < before + 300, (before, most)
    is_well(cluster, victim)
