"""A node is drained, its machine taken away, and nothing is lost."""

import contextlib
import json
from concurrent.futures import ThreadPoolExecutor

import e2b
import pytest

import host
from demo import Bucket
from instance import casemate
from servers import Postgres, Redis
from test_elsewhere import Cluster, reads

WAKES = {"on_timeout": "pause", "auto_resume": True}


@pytest.fixture(scope="module")
def cluster():
    with contextlib.ExitStack() as opened:
        stores = [opened.enter_context(server()) for server in (Postgres, Redis, Bucket)]
        # Nothing is stored by itself while the test lasts.
        made = Cluster(opened, *stores, name="drain", paused_after="3600")
        made.up()
        yield made


def drain(cluster, node, *more):
    return casemate("--json", "cluster", "drain", node.member, *more, "--data-dir", str(cluster.api.data_dir))


def standing(cluster, node):
    return cluster.api.nodes()[node.member]["standing"]


def left(cluster, node):
    return cluster.api.nodes()[node.member].get("left")


def goes_on(cluster, sandbox, node, text):
    id = sandbox.sandbox_id
    again = cluster.resumed(id)
    assert id in node.journalled()
    host.until("it is reached", lambda: reads(again) is not None, 60)
    assert reads(again) == text
    return again


def test_a_node_that_dies_while_it_is_drained_is_drained_when_it_is_back(cluster):
    leaves, stays = cluster.nodes
    rest, run = ([cluster.create_at(leaves) for _ in range(count)] for count in (2, 4))
    for sandbox in rest + run:
        sandbox.files.write("/home/user/kept.txt", sandbox.sandbox_id)
    for sandbox in rest:
        sandbox.pause(mode="filesystem")
    assert drain(cluster, leaves).returncode == 0
    there = {"running": 4, "paused": 2, "unstored": 0, "artifacts": 0}
    host.until("what rests is stored", lambda: left(cluster, leaves) == there, 120)

    with ThreadPoolExecutor() as beside:
        draining = beside.submit(drain, cluster, leaves, "--pause")
        host.until("it pauses", lambda: left(cluster, leaves)["running"] < 4 or draining.done(), 60)
        leaves.kill_all()
        # With what was not paused named, or without if all was.
        assert "Traceback" not in draining.result().stderr
    cluster.connected(1)
    cluster.fence(leaves)
    lost = drain(cluster, leaves, "--pause")
    assert lost.returncode != 0 and "is lost" in lost.stderr, lost.stderr
    for sandbox in rest:
        goes_on(cluster, sandbox, stays, sandbox.sandbox_id)

    # Its sandboxes were not ours to end: back, it is drained as before, and none of them is lost.
    leaves.up()
    cluster.connected(2)
    host.until("it is no longer lost", lambda: not cluster.api.nodes()[leaves.member].get("lostAt"), 60)
    assert standing(cluster, leaves) == "draining"
    drained = drain(cluster, leaves, "--pause", "--wait=5m")
    assert drained.returncode == 0, drained.stderr
    for sandbox in run:
        goes_on(cluster, sandbox, stays, sandbox.sandbox_id)
    host.until("nothing is left there", lambda: not leaves.journalled(), 60)
    for sandbox in rest + run:
        assert e2b.Sandbox.kill(sandbox.sandbox_id, **cluster.client)
    cluster.api.cluster("uncordon", leaves.member)


def test_what_a_drained_node_had_goes_on_at_another_one(cluster):
    leaves, stays = cluster.nodes
    made = {
        how: cluster.create_at(leaves, metadata={"of": how}, lifecycle=WAKES)
        for how in ("running", "memory", "files", "ends")
    }
    for how, sandbox in made.items():
        sandbox.files.write("/home/user/kept.txt", f"of {how}")
    made["memory"].pause(mode="full")
    made["files"].pause(mode="filesystem")

    assert drain(cluster, leaves).returncode == 0
    assert standing(cluster, leaves) == "draining"
    assert made["running"].is_running()
    with pytest.raises(AssertionError, match="running"):
        cluster.api.cluster("remove", leaves.member)
    # In words, for whoever waits no longer.
    waited = drain(cluster, leaves, "--wait=1s")
    assert waited.returncode != 0
    assert "is not empty yet: 2 running" in json.loads(waited.stderr.splitlines()[-1])["error"]
    made["ends"].kill()

    # Taken back, it is a node as before; a cordon is no drain.
    cluster.api.cluster("uncordon", leaves.member)
    assert standing(cluster, leaves) == "open"
    cluster.create_at(leaves).kill()

    drained = drain(cluster, leaves, "--pause", "--wait=5m")
    assert drained.returncode == 0, drained.stderr
    assert json.loads(drained.stdout)["is"] == "drained"
    assert left(cluster, leaves) == {"running": 0, "paused": 3, "unstored": 0, "artifacts": 0}
    # Traffic wakes what has its memory, where it is, and nothing that has files alone.
    for how in ("running", "files"):
        assert not made[how].is_running()
    assert made["memory"].commands.run("echo on").stdout == "on\n"
    assert made["memory"].sandbox_id in leaves.journalled()
    with pytest.raises(AssertionError, match="1 running"):
        cluster.api.cluster("remove", leaves.member)
    made["memory"].pause(mode="full")
    stored = {"running": 0, "paused": 3, "unstored": 0, "artifacts": 0}
    host.until("it is stored again", lambda: left(cluster, leaves) == stored, 120)
    leaves.kill_all()
    removed = cluster.api.cluster("remove", leaves.member)
    assert (removed["running"], removed["paused"]) == (0, 0)

    for how in ("running", "memory", "files"):
        again = goes_on(cluster, made[how], stays, f"of {how}")
        assert again.get_info().metadata == {"of": how}
        assert e2b.Sandbox.kill(again.sandbox_id, **cluster.client)
