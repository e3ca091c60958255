"""Generated requests, the short form: the long one is `python tests/generated --help`."""

import asyncio
import pathlib
import sys

sys.path.append(str(pathlib.Path(__file__).resolve().parents[1] / "generated"))

from instance import ROOT  # noqa: E402
from run import Run, shown, verdict  # noqa: E402

COUNT = 6000
SEED = 1


def test_no_generated_request_is_answered_wrongly(main, capsys):
    replays = ROOT / "generated"
    replays.mkdir(parents=True, exist_ok=True)
    report = asyncio.run(Run(main, SEED, COUNT, replays=replays).run())
    print("\n".join(shown(report)))
    assert list(verdict(report)) == [], capsys.readouterr().out[-8000:]
