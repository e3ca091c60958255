"""A cluster under load, of which parts die, hang, fill and are cut off: `faults.py`, in short."""

import pytest

from faults import World

# Each another way through ours.
SHORT = [
    "api server killed", "edge killed", "gate killed", "node killed with its children",
    "PostgreSQL cut in the middle of answers", "PostgreSQL full", "Redis hung", "PostgreSQL and Redis killed",
    "bucket answers 503", "node out of reach", "clocks a minute apart",
]


@pytest.fixture(scope="module")
def world():
    made = World(print, clients=2, seed=1, seconds=1.5)
    try:
        made.up()
        yield made
    finally:
        made.close()


def test_what_clients_were_told_holds_and_errors_are_those_to_try_again_after(world):
    for name in SHORT:
        world.disturb(name)
    world.end()
    assert not world.ledger.findings, "\n".join([*world.details(), *world.report()])
    # It looked: a run that finds nothing because it does nothing is no evidence.
    for what in ("create", "pause", "resume", "write", "kill", "snapshot", "look"):
        assert world.ledger.done[what] > 3, world.ledger.done
    assert sum(world.ledger.errors.values()) > 5, world.ledger.errors
