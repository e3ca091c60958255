"""Tests of the whole platform, from outside: each brings its own `casemate up`.

CASEMATE names the program and CASEMATE_TEST_BASE an archive of the base template. Root only.
"""

import os
import signal

import pytest

for name in ("CASEMATE", "CASEMATE_TEST_BASE"):
    if not os.environ.get(name):
        raise SystemExit(f"{name} is not set: scripts/test platform sets it")

import host  # noqa: E402
from attacks.world import World  # noqa: E402
from instance import running  # noqa: E402


# Whoever ends us early gets the finalizers too: instances outlive their parent.
signal.signal(signal.SIGTERM, lambda *_: pytest.exit("terminated", returncode=143))


@pytest.fixture(scope="session")
def main():
    """The instance of all tests that leave it usable; gone without a trace at the end."""
    before = host.switches()
    with running("main") as instance:
        instance.before = before
        yield instance


@pytest.fixture(scope="session")
def small():
    """A second one beside it: little disk, and one private range open."""
    settings = {
        "CASEMATE_LIMITS_DISK_MIB": "64",
        "CASEMATE_NETWORK_ALLOW_RANGES": "10.213.77.0/30",
        "CASEMATE_NODE_SLOT_STOCK": "4",
    }
    with running("small", **settings) as instance:
        yield instance


@pytest.fixture(scope="session")
def ground():
    """A platform in a network of its own, with everything that attacks look for."""
    made = World()
    try:
        yield made
    finally:
        made.close()


@pytest.fixture
def sandbox(main):
    sandbox = main.create()
    yield sandbox
    main.kill(sandbox.sandbox_id)


# Three runs (`scripts/test`): two side by side, that take about as long as one another, and then, when
# nothing else runs any more, what compares memory of processes, and the host before and after. `main`
# is in one of the two, since an instance has one log. The purge is last: it ends other tests' instances.
GROUPS = {
    "first": ["test_builds", "test_builds_luck", "test_logins", "test_warm", "test_attacks", "test_elsewhere", "test_drain", "test_machines"],
    "second": [
        "test_open", "test_walls", "test_owners", "test_logs", "test_abuse", "test_limits", "test_instances", "test_full",
        "test_clock", "test_generated", "test_children", "test_crash", "test_upgrade", "test_tls", "test_chaos", "test_stores",
        "test_cluster", "test_cluster_https", "test_members", "test_edges", "test_demo", "test_faults",
    ],
    "alone": ["test_burst", "test_cycles", "test_stop", "test_purge"],
}
ORDER = [name for group in GROUPS.values() for name in group]


def pytest_addoption(parser):
    parser.addoption("--group", choices=GROUPS, help="only the files of this run")


def pytest_collection_modifyitems(config, items):
    # Raises for a file that is in none.
    items.sort(key=lambda item: ORDER.index(item.path.stem))
    if group := config.getoption("--group"):
        kept = [item for item in items if item.path.stem in GROUPS[group]]
        config.hook.pytest_deselected(items=[item for item in items if item not in kept])
        items[:] = kept


def pytest_terminal_summary(terminalreporter):
    """Attacks whose control this kernel or host cannot give: their refusal was seen, and no more."""
    from attacks.table import WITHOUT_CONTROL

    if WITHOUT_CONTROL:
        terminalreporter.section("attacks without a control here")
        for name, reason in sorted(WITHOUT_CONTROL.items()):
            terminalreporter.line(f"{name}: {reason}")
