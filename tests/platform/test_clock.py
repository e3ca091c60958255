"""Jumps of the wall clock: deadlines are true, and everything goes on."""

import email.utils
import json
import os
import time

import pytest

import host
from clock import Clock
from instance import running

HOUR = 3600
DAY = 24 * HOUR


@pytest.fixture(scope="module")
def clock():
    clock = Clock()
    yield clock
    clock.close()


@pytest.fixture(scope="module")
def platform(clock):
    with running("clock", program=clock.program, CASEMATE_NODE_SLOT_STOCK="4") as platform:
        yield platform


def left(platform, clock, sandbox):
    """Seconds of life as a client sees them, and the age."""
    info = sandbox.get_info()
    return info.end_at.timestamp() - clock.now(), clock.now() - info.started_at.timestamp()


def newest_sample(sandbox):
    samples = sandbox.get_metrics()
    return samples[-1].timestamp.timestamp() if samples else 0


def log_lines(platform, id, query="direction=backward&limit=100"):
    key = {"X-API-Key": platform.credentials()["E2B_API_KEY"]}
    answered, _, body = platform.get(f"/v2/sandboxes/{id}/logs?{query}", key)
    assert answered == 200, body
    return [line["message"] for line in json.loads(body)["logs"]]


@pytest.mark.parametrize("step", [HOUR, -HOUR, 400 * DAY], ids=["hour-on", "hour-back", "400-days-on"])
def test_a_jump_moves_no_deadline(platform, clock, step):
    clock.set(0)
    begun = time.monotonic()
    short, long = platform.create(timeout=12), platform.create(timeout=1800)
    long.commands.run("echo before")
    clock.set(step)
    assert platform.get("/health")[0] == 200
    for sandbox, life in ((short, 12), (long, 1800)):
        remaining, age = left(platform, clock, sandbox)
        passed = time.monotonic() - begun
        assert abs(remaining - (life - passed)) < 2, (remaining, life, passed)
        assert abs(age - passed) < 2, (age, passed)
    # What is asked for now counts from now, and a new start knows the same.
    long.set_timeout(600)
    asked = time.monotonic()
    platform.kill_all()
    platform.up()
    remaining, _ = left(platform, clock, long)
    assert abs(remaining - (600 - (time.monotonic() - asked))) < 2, remaining
    new = platform.create(timeout=300)
    assert new.commands.run("echo runs").stdout == "runs\n"
    assert {long.sandbox_id, new.sandbox_id} <= set(platform.listed())
    # It ends at its time, neither before nor an hour later.
    if (rest := 10 - (time.monotonic() - begun)) > 0:
        assert platform.runs(short.sandbox_id)
        time.sleep(rest)
        assert platform.runs(short.sandbox_id)
    host.until("the short one ends", lambda: not platform.runs(short.sandbox_id), 15)
    assert time.monotonic() - begun < 25
    # Samples and logs come with the new time.
    host.until("samples", lambda: abs(newest_sample(long) - clock.now()) < 10, 15, 0.5)
    host.until("log lines", lambda: "Sandbox created" in log_lines(platform, new.sandbox_id), 15, 0.5)
    platform.end_all()


def test_after_a_step_back_logs_are_paged_by_the_new_time(platform, clock):
    """Cursors are times: what is written now lies before one that was taken before the step."""
    clock.set(0)
    sandbox = platform.create()

    def lines(query):
        return log_lines(platform, sandbox.sandbox_id, query)

    host.until("log lines", lambda: "Sandbox created" in lines("direction=forward"), 15, 0.5)
    cursor = int(clock.now() * 1000)
    clock.set(-HOUR)
    sandbox.set_timeout(600)
    changed = "Sandbox timeout changed"
    host.until("it is in the log", lambda: changed in lines("direction=backward"), 15, 0.5)
    assert changed not in lines(f"direction=forward&cursor={cursor}")
    # From an earlier one both are there, each at its time.
    both = lines(f"direction=forward&cursor={cursor - 2 * HOUR * 1000}")
    assert both.index(changed) < both.index("Sandbox created"), both
    # Once the clock is where it was, everything that follows is.
    clock.set(0)
    sandbox.set_timeout(700)
    host.until("it goes on", lambda: changed in lines(f"direction=forward&cursor={cursor}"), 15, 0.5)
    platform.end_all()


def test_the_date_of_answers_follows_a_step_back(platform, clock):
    """Of the API, of an agent, and of the edge itself; from every thread that may answer."""
    clock.set(HOUR)
    id = platform.create().sandbox_id

    def dates():
        for _ in range(2 * os.cpu_count()):
            for _, headers, _ in (
                platform.get("/health"),
                platform.port_of(id, 49983, "/health"),
                platform.port_of(id, 9, "/"),
            ):
                (date,) = headers.get_all("Date")
                yield email.utils.parsedate_to_datetime(date).timestamp()

    for step in (HOUR, 0):
        clock.set(step)
        assert all(abs(date - clock.now()) < 3 for date in dates()), step
    platform.end_all()
