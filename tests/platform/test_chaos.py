"""A mixed load while processes are killed at random and at every named place."""

import glob
import json
import os
import signal
import subprocess
import tempfile
import time

import pytest

import host
from instance import BASE, CASEMATE, ROOT, bare_environment, casemate


@pytest.fixture
def data_dir():
    data_dir = ROOT / f"platform-chaos-{os.getpid()}"
    yield data_dir
    if data_dir.exists():
        casemate("down", "--purge", "--data-dir", str(data_dir), timeout=300)


def chaos(data_dir, kills):
    return ["--json", "chaos", "--data-dir", str(data_dir), "--base", BASE, "--kills", str(kills)]


@pytest.fixture
def begun(data_dir):
    """A run that would take hours."""
    run = subprocess.Popen(
        [CASEMATE, *chaos(data_dir, 100_000)], env=bare_environment(), text=True,
        stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.PIPE,
    )
    yield run
    run.kill()
    run.communicate()
    for file in left_in_tmp(run):
        os.unlink(file)


def left_in_tmp(run):
    return glob.glob(f"{tempfile.gettempdir()}/casemate-chaos-{run.pid}.*")


def test_no_word_is_broken_by_a_death(data_dir):
    ran = casemate(*chaos(data_dir, 40), timeout=600)
    assert ran.stdout, ran.stderr[-2000:]
    report = json.loads(ran.stdout)
    assert (report["lost"], report["wrong_answers"]) == (0, 0), report["findings"]
    unreached = [point for point, count in report["points"].items() if count == 0]
    assert not unreached, unreached
    assert report["kills"] >= 40 and ran.returncode == 0
    # It looked: a run that finds nothing because it does nothing is no evidence.
    for counted in ("sandboxes_created", "sandboxes_expired", "looks", "lists", "paused", "resumed"):
        assert report[counted] > 20, (counted, report)
    for counted in ("paused_with_files_alone", "paused_by_their_deadline", "woken_by_traffic",
                    "snapshots_taken", "snapshots_deleted", "sandboxes_from_snapshots", "forks"):
        assert report[counted] > 5, (counted, report)
    assert not data_dir.exists()
    assert not host.loop_devices(data_dir)


@pytest.mark.parametrize("when", ["while-it-starts", "under-load"])
def test_a_run_that_is_stopped_leaves_nothing(data_dir, begun, when):
    host.until("the start", lambda: (data_dir / "instance").exists())
    id = (data_dir / "instance").read_text().strip()
    if when == "under-load":
        host.until("sandboxes", lambda: len(list((data_dir / "node/journal").iterdir())) > 5, 300)
        time.sleep(3)
    begun.send_signal(signal.SIGTERM if when == "under-load" else signal.SIGINT)
    said, errors = begun.communicate(timeout=300)
    assert begun.returncode == 1, errors
    report = json.loads(said)
    assert report["stopped"] and report["log"] is None, report
    assert (report["lost"], report["wrong_answers"]) == (0, 0), report["findings"]
    # What stands in the journal need not have been answered: kills may have cut off all but few.
    assert (report["sandboxes_created"] > 0) == (when == "under-load"), report
    assert host.traces(id, data_dir) == []
    assert left_in_tmp(begun) == []


def test_a_second_signal_ends_a_run_at_once(data_dir, begun):
    host.until("the start", lambda: (data_dir / "instance").exists())
    (up,) = host.children(begun.pid)
    # Who does not end keeps the first from being over.
    os.kill(up, signal.SIGSTOP)
    try:
        begun.send_signal(signal.SIGINT)
        time.sleep(1)
        assert begun.poll() is None
        begun.send_signal(signal.SIGINT)
        _, errors = begun.communicate(timeout=3)
        assert begun.returncode == 1
        assert f"down --purge --data-dir {data_dir}" in errors, errors
    finally:
        os.kill(up, signal.SIGCONT)
