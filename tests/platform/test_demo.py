"""`scripts/cluster-demo`, but for its example."""

import pytest

from demo import Demo, spread, survives


@pytest.fixture(scope="module")
def demo():
    made = Demo()
    try:
        made.up()
        yield made
    finally:
        made.close()


def test_what_one_node_made_runs_at_all(demo):
    spread(demo)


def test_one_of_each_may_die(demo):
    survives(demo)
