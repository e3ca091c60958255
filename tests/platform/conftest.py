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
from instance import Instance  # noqa: E402


# Whoever ends us early gets the finalizers too: instances outlive their parent.
signal.signal(signal.SIGTERM, lambda *_: pytest.exit("terminated", returncode=143))


@pytest.fixture(scope="session")
def main():
    """The instance of all tests that leave it usable; gone without a trace at the end."""
    instance = Instance("main")
    instance.before = host.switches()
    try:
        instance.up()
        yield instance
    finally:
        instance.close()


@pytest.fixture(scope="session")
def small():
    """A second one beside it: little disk, and one private range open."""
    instance = Instance(
        "small",
        CASEMATE_LIMITS_DISK_MIB="64",
        CASEMATE_NETWORK_ALLOW_RANGES="10.213.77.0/30",
        CASEMATE_NODE_SLOT_STOCK="4",
    )
    try:
        instance.up()
        yield instance
    finally:
        instance.close()


@pytest.fixture
def sandbox(main):
    sandbox = main.create()
    yield sandbox
    main.kill(sandbox.sandbox_id)


# What counts and compares comes when nothing else runs any more, and the purge last.
ORDER = ["test_open", "test_walls", "test_owners", "test_logs", "test_abuse", "test_instances", "test_generated"]
ORDER += ["test_children", "test_crash", "test_upgrade", "test_burst", "test_cycles", "test_stop", "test_purge"]
ORDER += ["test_chaos"]


def pytest_collection_modifyitems(items):
    items.sort(key=lambda item: ORDER.index(item.path.stem))
