"""Every attack of the table, and that `docs/attacks.md` shows the same table."""

import pytest

from attacks import clients, names, replaced, stays, table, watched  # noqa: F401


@pytest.mark.parametrize("name", table.ALL)
def test_attack(ground, name):
    table.ALL[name].check(ground)


def test_the_page_shows_the_table():
    """`python tests/platform/attacks/page.py` writes it."""
    assert table.PAGE.read_text() == table.page()
    assert len(table.ALL) >= 60
