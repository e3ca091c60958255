"""API servers and nodes as processes of their own: who comes in, where sandboxes go, who may die."""

import contextlib
import json
import os
import pathlib
import signal
import socket
import ssl
import time

import e2b
import pytest

import host
from clock import Clock
from cluster import Api, Node
from edges import Edge
from instance import bare_environment, casemate
from servers import Postgres, Redis

HERE = pathlib.Path(__file__).parent
# Two, as soon as several servers agree who watches a node: until then they take it from each other.
SERVERS = 2


@pytest.fixture(scope="module")
def database_clock():
    with contextlib.closing(Clock()) as clock:
        yield clock


@pytest.fixture(scope="module")
def postgres(database_clock):
    with Postgres(clock=database_clock) as server:
        yield server


@pytest.fixture(scope="module")
def redis():
    with Redis() as server:
        yield server


class Cluster:
    def __init__(self, postgres, redis):
        self.settings = {**postgres.database("cluster"), **redis.settings}
        self.apis = [Api(f"a{n}", **self.settings) for n in range(SERVERS)]
        self.nodes = [Node("n1", self.apis), Node("n2", self.apis)]

    def close(self):
        # A node's end is noted by API servers, so they go last.
        for node in self.nodes:
            node.close()
        for api in self.apis:
            api.close()

    def connected(self, api, count):
        host.until("nodes speak", lambda: sum(n["connected"] for n in api.nodes().values()) == count, 30)

    def home(self, id):
        """The node that has a sandbox."""
        homes = [node for node in self.nodes if id in node.journalled()]
        assert len(homes) == 1, homes
        return homes[0]


@pytest.fixture(scope="module")
def cluster(postgres, redis):
    made = Cluster(postgres, redis)
    try:
        for api in made.apis:
            api.spawn()
        for api in made.apis:
            host.until("it is ready", lambda api=api: f"ready {api.url}" in api.said(), 60)
        one, other = made.nodes
        joined = one.join(made.apis[0].token("node"))
        assert joined.returncode == 0, joined.stderr
        # The other one by itself, with the token in its environment.
        other.settings["JOIN_TOKEN"] = made.apis[-1].token("node")
        one.spawn()
        other.spawn("--label", "disk=nvme")
        for node in made.nodes:
            host.until("it is ready", lambda node=node: " ready, health at" in node.said(), 120)
            node.id = (node.data_dir / "instance").read_text().strip()
            node.member = f"node-{node.id}"
        for api in made.apis:
            made.connected(api, 2)
            host.until("sandboxes can be made", lambda api=api: api.get("/ready")[0] == 200, 30)
        yield made
    finally:
        made.close()


def test_servers_and_nodes_know_each_other(cluster):
    one, other = cluster.apis[0], cluster.apis[-1]
    assert one.client["api_key"] == other.client["api_key"]
    nodes = one.nodes()
    assert set(nodes) == {node.member for node in cluster.nodes}
    labelled = nodes[cluster.nodes[1].member]
    assert labelled["labels"] == {"disk": "nvme"} and labelled["standing"] == "open"
    assert nodes == other.nodes()
    for port in [api.health for api in cluster.apis] + [node.health for node in cluster.nodes]:
        assert "ok" in one.get("/health", port)[1]
        assert one.get("/ready", port)[0] == 200
        assert "casemate_build_info{" in one.get("/metrics", port)[1]


def status_of(process):
    """What `casemate status` says, for people and for programs."""
    status = ["status", "--data-dir", str(process.data_dir)]
    words, value = casemate(*status), casemate("--json", *status)
    assert words.returncode == value.returncode == 0, words.stderr + value.stderr
    return words.stdout, json.loads(value.stdout)


def test_status_says_what_runs_in_a_data_directory(cluster, edge):
    api, node = cluster.apis[0], cluster.nodes[0]
    words, value = status_of(api)
    assert f"casemate api runs (process {api.process.pid}): " in words and api.url in words, words
    assert f"calls of members {api.address}" in words, words
    assert value["running"] and value["role"] == "api" and value["doors"]["cluster"] == api.address, value
    words, value = status_of(edge)
    assert f"casemate edge runs (process {edge.process.pid}): traffic {edge.url}" in words, words
    words, value = status_of(node)
    assert f"casemate node runs: gate 127.0.0.1:{node.port}, health http://127.0.0.1:{node.health}" in words, words
    assert "localhost" not in words and "domain" not in value, words
    # Whoever finds the directory taken is sent there.
    refused = casemate("api", "--data-dir", str(api.data_dir), "--listen", "127.0.0.1:0",
                       "--cluster-listen", "127.0.0.1:0", "--health-listen", "127.0.0.1:0",
                       env=bare_environment(**api.settings))
    assert f"`casemate status --data-dir {api.data_dir}` shows it" in refused.stderr, refused.stderr
    # What a role has no use for it does not take.
    for role, flag in [("api", "--label"), ("api", "--join-token"), ("edge", "--address"), ("edge", "--label")]:
        refused = casemate(role, flag, "disk=nvme")
        assert refused.returncode == 2 and f"unexpected argument '{flag}'" in refused.stderr, refused.stderr


def test_status_of_a_server_that_died_says_that_it_does_not_run(postgres, redis):
    api = Api("died", **postgres.database("died"), **redis.settings)
    try:
        api.up()
        api.kill_process()
        ran = casemate("status", "--data-dir", str(api.data_dir))
        assert ran.returncode == 3 and "casemate does not run in" in ran.stdout, ran.stdout + ran.stderr
    finally:
        api.close()


def test_sandboxes_go_to_both_nodes_and_any_server_ends_them(cluster):
    one, other = cluster.apis[0], cluster.apis[-1]
    made = [api.create(metadata={"of": "spread"}) for _ in range(6) for api in (one, other)]
    homes = {cluster.home(id).member for id in made}
    assert len(homes) == 2, homes
    assert set(made) <= set(one.listed()) and set(made) <= set(other.listed())
    for at, id in enumerate(made):
        assert (other if at % 2 == 0 else one).kill(id)
    assert not set(made) & set(one.listed())
    host.until("they are gone", lambda: not any(set(made) & node.journalled() for node in cluster.nodes))


def test_a_cordoned_node_gets_no_new_sandboxes(cluster):
    api, (cordoned, other) = cluster.apis[0], cluster.nodes
    api.cluster("cordon", cordoned.member)
    try:
        made = [api.create() for _ in range(6)]
        assert {cluster.home(id).member for id in made} == {other.member}
    finally:
        api.cluster("uncordon", cordoned.member)
    for id in made:
        api.kill(id)


def test_a_template_is_built_on_a_node_and_sandboxes_of_it_go_there(cluster):
    api = cluster.apis[0]
    template = e2b.Template(file_context_path=str(HERE)).from_template("base").copy("cluster.py", "/srv/")
    template = template.run_cmd("test -s /srv/cluster.py")
    e2b.Template.build(template, "of-a-cluster", **api.client)
    made = [api.create(template="of-a-cluster") for _ in range(4)]
    assert len({cluster.home(id).member for id in made}) == 1, "its layers are on one node"
    for id in made:
        assert api.kill(id)


@pytest.mark.parametrize("seconds", [-60, 60, 0])
def test_a_server_counts_as_the_others_do_after_the_databases_clock_was_set(cluster, database_clock, seconds):
    one, other = cluster.apis[0], cluster.apis[-1]
    kept = one.create()
    database_clock.set(seconds)
    for api in (one, other):
        host.until("it is noticed", lambda api=api: "the database's clock was set" in api.said(), 30)
    for api in (one, other):
        api.stop()
        api.up()
        cluster.connected(api, 2)
        made = e2b.Sandbox.create(timeout=600, **api.client)
        home = cluster.home(made.sandbox_id)
        made.set_timeout(10)
        time.sleep(4)
        assert made.sandbox_id in home.journalled(), "it ends long before its time"
        host.until("it ends", lambda: made.sandbox_id not in home.journalled(), 30)
        # What clients hear is the database's clock.
        told = e2b.Sandbox.get_info(kept, **api.client)
        assert abs(told.end_at.timestamp() - database_clock.now()) < 630, told
        assert cluster.home(kept)
    assert one.kill(kept)


def test_nobody_joins_without_a_good_token(cluster, postgres):
    api = cluster.apis[0]
    stranger = Node("stranger", cluster.apis)
    try:
        used = api.token("node")
        for wrong in ["", "casemate-join.x", used[:-1] + ("0" if used[-1] != "0" else "1")]:
            ran = stranger.join(wrong)
            assert ran.returncode != 0 and used.split(".")[2] not in ran.stderr, ran.stderr
        # Of another secret, of another role, and used up.
        id, secret, print_ = used.split(".")[1:]
        guessed = f"casemate-join.{id}.{'0' * len(secret)}.{print_}"
        assert "unknown, used up or expired" in stranger.join(guessed).stderr
        assert "another role" in stranger.join(api.token("edge")).stderr
        assert stranger.join(used).returncode == 0
        assert "unknown, used up or expired" in stranger.join(used).stderr
        assert stranger.member is None
        name = json.loads((stranger.data_dir / "member/identity.json").read_text())["member"]["name"]
        assert name in api.nodes()
        api.cluster("remove", name)
        assert name not in api.nodes()
        # It is no member any more, and does not start.
        stranger.spawn()
        assert stranger.process.wait(60) != 0
        assert "does not belong to the cluster any more" in stranger.said()
    finally:
        stranger.close()


def test_a_node_is_ready_while_api_servers_speak_with_it_and_nobody_takes_its_place(cluster):
    api, node = cluster.apis[0], Node("n3", cluster.apis)
    twin = Node("twin", cluster.apis)
    ready = lambda: api.get("/ready", node.health)
    try:
        node.settings["JOIN_TOKEN"] = api.token("node")
        node.up()
        for one in cluster.apis:
            cluster.connected(one, 3)
        host.until("it is ready", lambda: ready()[0] == 200, 60)
        token = api.token("node")
        assert "choose another name" in twin.join(token, "--name", node.member).stderr
        twin.reached = node.port
        assert "is reached at" in twin.join(token).stderr

        for one in cluster.apis:
            one.stop()
        node.stop()
        node.up()
        assert ready()[0] == 503 and "no API server speaks with it yet" in ready()[1]
        for one in cluster.apis:
            one.up()
        host.until("it is ready again", lambda: ready()[0] == 200, 60)
        for one in cluster.apis:
            cluster.connected(one, 3)
        api.cluster("remove", node.member)
        host.until("it says that it was removed", lambda: "does not belong to the cluster" in ready()[1], 120)
    finally:
        node.close()
        twin.close()
    for one in cluster.apis:
        cluster.connected(one, 2)


def test_nobody_speaks_with_a_node_without_a_certificate(cluster):
    node = cluster.nodes[0]
    context = ssl.create_default_context()
    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    context.set_alpn_protocols(["casemate-calls/1"])
    with socket.create_connection(("127.0.0.1", node.port), 10) as plain:
        with pytest.raises((ssl.SSLError, ConnectionError)):
            with context.wrap_socket(plain) as stream:
                # In TLS 1.3 a client hears only with the first answer that it was refused.
                stream.sendall(b"\0\0\0\2{}")
                assert stream.recv(1), "refused without a word"
    with socket.create_connection(("127.0.0.1", node.port), 10) as plain:
        plain.sendall(b"GET / HTTP/1.1\r\n\r\n")
        plain.settimeout(10)
        heard = plain.recv(64)
        assert b"HTTP" not in heard


def test_a_node_that_dies_and_comes_back_keeps_its_sandboxes(cluster):
    api, node = cluster.apis[0], cluster.nodes[0]
    made = [api.create() for _ in range(6)]
    here = [id for id in made if cluster.home(id) is node]
    assert here, "by lot it has one"
    node.kill_all()
    cluster.connected(api, 1)
    # What is on the other one goes on, and new ones go there.
    made.append(api.create())
    assert cluster.home(made[-1]) is not node
    assert all(node.runs(id) for id in here)
    assert set(here) <= set(api.listed()), "away is not lost"
    node.up()
    cluster.connected(api, 2)
    assert all(node.runs(id) for id in here)
    for id in made:
        assert api.kill(id)
    assert not any(node.runs(id) for id in here)


@pytest.fixture
def edge(cluster, redis):
    made = Edge("a-e", cluster.apis, **redis.settings)
    made.settings["JOIN_TOKEN"] = cluster.apis[0].token("edge")
    try:
        made.spawn()
        host.until("the edge is ready", lambda: f"ready {made.url}" in made.said(), 60)
        yield made
    finally:
        made.close()


def is_refused(id, api):
    try:
        e2b.Sandbox.connect(id, **api.client)
    except e2b.NotFoundException:
        return True
    return False


def test_a_node_that_is_given_up_comes_back_with_what_it_has(cluster, edge):
    one, other = cluster.apis[0], cluster.apis[-1]
    lost, stays = cluster.nodes
    refused = casemate("cluster", "fence", lost.member, "--data-dir", str(one.data_dir))
    assert refused.returncode != 0 and "turn its machine off" in refused.stderr, refused.stderr
    one.cluster("cordon", stays.member)
    try:
        runs, killed, rests = [one.create() for _ in range(3)]
    finally:
        one.cluster("uncordon", stays.member)
    assert all(cluster.home(id) is lost for id in (runs, killed, rests))
    box = e2b.Sandbox.connect(runs, timeout=600, **edge.client(one))
    box.files.write("/home/user/kept", "as it was")
    # So that its end is seen to come from the node's own processes.
    box.commands.run("sleep 600", background=True)
    assert e2b.Sandbox.pause(rests, **other.client)
    lost.kill_all()
    for api in cluster.apis:
        cluster.connected(api, 1)
    one.cluster("fence", lost.member)
    for api in cluster.apis:
        host.until("it is lost", lambda api=api: runs not in api.listed(), 30)
        assert "lostAt" in api.nodes()[lost.member]
        # Whatever this server has heard of it: the row says so.
        assert is_refused(runs, api)
        # It is not woken, and not gone.
        assert rests in api.listed()
        with pytest.raises(e2b.ServiceBusyException, match="which is lost"):
            e2b.Sandbox.connect(rests, **api.client)
    assert other.kill(killed)
    assert lost.runs(killed), "nobody can tell the node"
    made = one.create()
    assert cluster.home(made) is stays

    lost.up()
    for api in cluster.apis:
        cluster.connected(api, 2)
        host.until("it is back", lambda api=api: runs in api.listed(), 30)
        assert "lostAt" not in api.nodes()[lost.member]
    host.until("what was killed has ended", lambda: not lost.runs(killed), 30)
    box = e2b.Sandbox.connect(runs, timeout=600, **edge.client(other))
    # The edge speaks with the node again within seconds.
    host.until("it is reached", lambda: box.is_running(), 30)
    assert box.files.read("/home/user/kept") == "as it was"
    assert "sleep 600" in box.commands.run("ps -ef").stdout
    # The connection of the server that is not its keeper may not be up yet.
    again = host.until("it goes on", lambda: e2b.Sandbox.connect(rests, timeout=600, **edge.client(one)), 30)
    assert again.is_running()
    for id in (runs, rests, made):
        assert other.kill(id)
    host.until("all are gone", lambda: not lost.journalled() & {runs, killed, rests})


def test_the_gate_may_die(cluster):
    api, node = cluster.apis[0], cluster.nodes[0]
    gate = gate_of(node)
    os.kill(gate, signal.SIGKILL)
    host.until("another stands there", lambda: gate not in node.processes() and "gate" in node.processes().values())
    cluster.connected(api, 2)
    assert user_of(gate_of(node)) != 0
    made = [api.create() for _ in range(4)]
    for id in made:
        assert api.kill(id)


def user_of(pid):
    return int(host.read(f"/proc/{pid}/status").split("Uid:")[1].split()[0])


def gate_of(node):
    [gate] = [pid for pid, role in node.processes().items() if role == "gate"]
    return gate


def test_a_server_may_die_and_one_that_ends_answers_what_it_has(cluster):
    one = cluster.apis[0]
    id = one.create()
    one.kill_process()
    for other in cluster.apis[1:]:
        assert id in other.listed()
    one.up()
    cluster.connected(one, 2)
    assert id in one.listed() and one.kill(id)
    one.stop()
    assert one.process.returncode == 0, one.said()[-1000:]
    # Who waits for it as a rolling restart does, is not told that there is no node.
    one.up()
    host.until("it says that it is ready", lambda: one.get("/ready", one.health)[0] == 200, 60)
    assert one.kill(one.create())
    cluster.connected(one, 2)


def test_who_does_not_belong_to_the_cluster_does_not_start(cluster, postgres):
    another = Api("wrong", **{**cluster.settings, "API_KEY_SECRET": "another secret, as long as the right one"})
    try:
        assert "another API_KEY_SECRET" in another.refused()
        another.settings.pop("API_KEY_SECRET")
        assert "API_KEY_SECRET" in another.refused()
        another.settings["API_KEY_SECRET"] = "another secret, as long as the right one"
        another.settings.pop("DATABASE_URL")
        another.settings.pop("DATABASE_PASSWORD")
        assert "DATABASE_URL" in another.refused()
    finally:
        another.close()
