"""Writes `docs/attacks.md` from the table."""

import os
import pathlib
import sys

sys.path[0] = str(pathlib.Path(__file__).resolve().parents[1])
# Of a platform nothing is needed.
for name in ("CASEMATE", "CASEMATE_TEST_BASE"):
    os.environ.setdefault(name, "none")

from attacks import clients, names, replaced, stays, table, watched  # noqa: E402, F401

if __name__ == "__main__":
    table.PAGE.write_text(table.page())
