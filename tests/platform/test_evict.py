"""What a node keeps of what the bucket has too is bounded, and comes back when it is wanted."""

import contextlib
import os
import signal

import e2b
import pytest

import host
from demo import Bucket
from servers import Postgres, Redis
from test_elsewhere import Cluster

BOUND_MIB = 60
LAYER_MIB = 20
NAMES = [f"evicted-{n}" for n in range(5)]


@pytest.fixture(scope="module")
def cluster():
    with contextlib.ExitStack() as opened:
        stores = [opened.enter_context(server()) for server in (Postgres, Redis, Bucket)]
        made = Cluster(opened, *stores, name="evict", paused_after="3600")
        for node in made.nodes:
            node.settings["CASEMATE_ARTIFACTS_CACHE_MIB_MAX"] = str(BOUND_MIB)
        made.up()
        yield made


def layers(node):
    """Of templates, and what is left of those that go or come."""
    return [path for path in (node.data_dir / "node/layers").iterdir() if path.name.startswith("t-")]


def mib(node):
    """A file may go while it is counted."""
    found = [path for layer in layers(node) for path in layer.rglob("*")]
    sizes = []
    for path in found:
        with contextlib.suppress(FileNotFoundError):
            sizes.append(path.lstat().st_blocks * 512)
    return sum(sizes) / 2**20


def within_bound(node):
    host.until(f"{node.name} is within its bound", lambda: mib(node) <= BOUND_MIB, 180)


def metrics(node, api):
    _, text = api.get("/metrics", port=node.health)
    lines = (line.split(" ") for line in text.splitlines() if line.startswith("casemate_cache"))
    return {name: int(value) for name, value in lines}


def only_at(cluster, node):
    """Places what comes next there."""
    for one in cluster.nodes:
        cluster.api.cluster("uncordon" if one is node else "cordon", one.member)


def create(cluster, node, name):
    only_at(cluster, node)
    made = e2b.Sandbox.create(template=name, timeout=600, **cluster.client)
    assert cluster.home(made.sandbox_id) is node
    return made


def sums_are_right(sandbox):
    checked = sandbox.commands.run("sha256sum -c /srv/sums", timeout=120)
    assert checked.exit_code == 0


def build(cluster, name):
    # Of its own, lest the cache of builds has it.
    fill = f"echo {name} > /srv/name && head -c {LAYER_MIB}M /dev/urandom > /srv/content && sha256sum /srv/content > /srv/sums"
    template = e2b.Template().from_template("base").run_cmd(fill, user="root")
    e2b.Template.build(template, name, **cluster.client)


def killed(node):
    """`kill -9` of the node's process; its sandboxes run on."""
    os.kill(node.pid, signal.SIGKILL)
    node.process.wait(10)


def back(cluster, node):
    """It starts, and takes sandboxes: of the base, which it never lacks."""
    node.up(seconds=240)

    def makes():
        with contextlib.suppress(e2b.exceptions.ServiceBusyException):
            create(cluster, node, "base").kill()
            return True

    host.until("it makes sandboxes", makes, 120)


def test_more_templates_than_a_node_keeps_begin_sandboxes_at_every_node(cluster):
    for name in NAMES:
        build(cluster, name)
    [builder] = [node for node in cluster.nodes if layers(node)]
    [other] = [node for node in cluster.nodes if node is not builder]
    # Nothing goes that the bucket has not: so all are there when they fit.
    within_bound(builder)
    assert "evicted layer t-" in builder.said()

    stays = create(cluster, builder, NAMES[0])
    for node in (builder, other):
        for name in NAMES:
            made = create(cluster, node, name)
            sums_are_right(made)
            made.kill()
            within_bound(node)
    assert other.said().count("evicted layer t-") >= 2

    # What runs has its layer as long as it runs.
    sums_are_right(stays)
    seen = metrics(other, cluster.api)
    assert seen["casemate_cache_evictions"] >= 2
    assert 0 < seen["casemate_cache_bytes"] <= seen["casemate_cache_bytes_max"] == BOUND_MIB << 20
    stays.kill()


def test_a_node_that_dies_while_it_evicts_keeps_what_is_needed(cluster):
    node = cluster.nodes[0]
    stays = create(cluster, node, NAMES[0])
    killed(node)
    # The next removal of a layer dies between its two halves.
    node.settings["CASEMATE_INTERNAL_FAIL_POINTS"] = "seal.removing=1"
    back(cluster, node)
    try:
        for name in NAMES:
            if node.process.poll() is not None:
                break
            # Its node dies.
            with contextlib.suppress(e2b.exceptions.SandboxException, e2b.exceptions.ServiceBusyException):
                create(cluster, node, name).kill()
        host.until("it dies of an eviction", lambda: node.process.poll() is not None, 120)
    finally:
        del node.settings["CASEMATE_INTERNAL_FAIL_POINTS"]
    back(cluster, node)
    host.until("nothing half is left", lambda: not any("." in path.name for path in layers(node)), 60)
    sums_are_right(stays)
    for name in NAMES:
        made = create(cluster, node, name)
        sums_are_right(made)
        made.kill()
    within_bound(node)
    stays.kill()
    for one in cluster.nodes:
        cluster.api.cluster("uncordon", one.member)
