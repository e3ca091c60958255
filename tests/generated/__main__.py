"""Generated requests against a platform of their own; the same seed makes the same ones.

CASEMATE=… CASEMATE_TEST_BASE=… python tests/generated --count 100000 --seed 1
"""

import argparse
import asyncio
import json
import pathlib
import random
import sys

HERE = pathlib.Path(__file__).resolve().parent
sys.path[:0] = [str(HERE), str(HERE.parent / "platform")]

from instance import ROOT, Instance  # noqa: E402
from run import Run, shown, verdict  # noqa: E402


def main():
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--count", type=int, default=100_000)
    parser.add_argument("--seed", type=int, default=random.randrange(1 << 32))
    parser.add_argument("--workers", type=int, default=16)
    parser.add_argument("--report", type=pathlib.Path, help="write the whole report there, as JSON")
    options = parser.parse_args()
    replays = ROOT / "generated"
    replays.mkdir(parents=True, exist_ok=True)
    instance = Instance("generated")
    try:
        instance.up()
        run = Run(instance, options.seed, options.count, options.workers, replays)
        report = asyncio.run(run.run())
    finally:
        instance.close()
    if options.report:
        options.report.write_text(json.dumps(report, indent=1))
    for line in shown(report):
        print(line)
    failed = list(verdict(report))
    for line in failed:
        print(f"failed: {line}")
    return 1 if failed else 0


sys.exit(main())
