"""A node is drained, its machine taken away, and nothing is lost."""

import contextlib
import json

import e2b
import pytest

import host
from demo import Bucket
from instance import casemate
from servers import Postgres, Redis
from test_elsewhere import Cluster, reads


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


def test_what_a_drained_node_had_goes_on_at_another_one(cluster):
    leaves, stays = cluster.nodes
    made = {how: cluster.create_at(leaves, metadata={"of": how}) for how in ("running", "memory", "files", "ends")}
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
    left = cluster.api.nodes()[leaves.member]["left"]
    assert left == {"running": 0, "paused": 3, "unstored": 0, "artifacts": 0}
    leaves.kill_all()
    removed = cluster.api.cluster("remove", leaves.member)
    assert (removed["running"], removed["paused"]) == (0, 0)

    for how in ("running", "memory", "files"):
        id = made[how].sandbox_id
        again = cluster.resumed(id)
        assert id in stays.journalled()
        host.until("it is reached", lambda again=again: reads(again) is not None, 60)
        assert reads(again) == f"of {how}"
        assert again.get_info().metadata == {"of": how}
        assert e2b.Sandbox.kill(id, **cluster.client)
