"""A mixed load while processes are killed at random and at every named place."""

import json
import os

import host
from instance import BASE, ROOT, casemate


def test_no_word_is_broken_by_a_death():
    data_dir = ROOT / f"platform-chaos-{os.getpid()}"
    command = ["--json", "chaos", "--data-dir", str(data_dir), "--base", BASE, "--kills", "40"]
    ran = casemate(*command, timeout=600)
    assert ran.stdout, ran.stderr[-2000:]
    report = json.loads(ran.stdout)
    assert (report["lost"], report["wrong_answers"]) == (0, 0), report
    unreached = [point for point, count in report["points"].items() if count == 0]
    assert not unreached, unreached
    assert report["kills"] >= 40 and ran.returncode == 0
    # It looked: a run that finds nothing because it does nothing is no evidence.
    for counted in ("sandboxes_created", "sandboxes_expired", "looks", "lists"):
        assert report[counted] > 20, (counted, report)
    assert not data_dir.exists()
    assert not host.loop_devices(data_dir)
