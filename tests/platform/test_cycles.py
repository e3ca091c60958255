"""Create and kill, over and over: nothing grows.

CASEMATE_TEST_CYCLES sets how often; 10000 is the long form (`docs/evidence/`), which prints what
is held after each tenth. Run by hand: see the head of that evidence.
"""

import http.client
import json
import os
import queue
import threading
import time

import pytest

import host
from held import beyond_the_stock, files, open_files
from instance import running

CYCLES = int(os.environ.get("CASEMATE_TEST_CYCLES", "200"))
CLIENTS = 8
# What allocators keep of a moment of work, for each process; and noise of the page cache.
MEMORY_SLACK_MIB = 6


@pytest.fixture
def own():
    """An instance of its own: what earlier tests left in memory is not looked at."""
    with running("cycles") as instance:
        yield instance


class Client:
    """One connection, and one sandbox after the other."""

    def __init__(self, instance):
        told = instance.client
        self.conn = http.client.HTTPConnection("127.0.0.1", instance.port, timeout=60)
        self.headers = {"X-API-Key": told["api_key"], "Content-Type": "application/json"}

    def ask(self, method, path, body=None):
        self.conn.request(method, path, json.dumps(body) if body else None, self.headers)
        answer = self.conn.getresponse()
        return answer.status, answer.read()

    def cycle(self):
        status, said = self.ask("POST", "/sandboxes", {"templateID": "base", "timeout": 300})
        assert status == 201, (status, said)
        made = json.loads(said)
        id = made["sandboxID"]
        # Something happens in it: a file is written by its agent, so that its layer is dirty.
        self.conn.request("POST", "/files?path=/tmp/x&username=user", b"x" * 100_000, {
            "E2b-Sandbox-Id": id, "E2b-Sandbox-Port": "49983",
            "X-Access-Token": made.get("envdAccessToken") or "",
            "Content-Type": "application/octet-stream",
        })
        answer = self.conn.getresponse()
        assert answer.status == 200, (answer.status, answer.read())
        answer.read()
        status, said = self.ask("DELETE", f"/sandboxes/{id}")
        assert status == 204, (status, said)


def cycles(instance, count):
    """Runs so many, some at a time; gives the seconds it took."""
    todo, failed = queue.Queue(), []
    for _ in range(count):
        todo.put(None)

    def work():
        client = Client(instance)
        while not failed:
            try:
                todo.get_nowait()
            except queue.Empty:
                return
            try:
                client.cycle()
            except Exception as error:
                failed.append(error)

    begun = time.monotonic()
    threads = [threading.Thread(target=work) for _ in range(CLIENTS)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not failed, failed
    return time.monotonic() - begun


def settled(instance, fresh):
    """What is held once nothing is on its way out any more."""
    def rests():
        found = beyond_the_stock(instance)
        gone = found["leaving"] == 0 and not found["inside"]
        # The file system lets go of deleted layers' accounting half a minute later.
        return found if gone and found["quotas"] <= fresh["quotas"] else None

    host.until("all is cleared away", rests, 120, pause=0.5)
    time.sleep(3)
    found = beyond_the_stock(instance)
    found["files"] = files(instance)
    found["descriptors"] = {
        role: count for role, count in by_role(instance, open_files(instance)).items()
    }
    found["memory MiB"] = by_role(
        instance, {pid: round(host.resident_mib([pid]), 1) for pid in instance.processes()}
    )
    return found


def by_role(instance, values):
    """The largest of each role: a launcher's worker comes and goes."""
    found = {}
    for pid, role in instance.processes().items():
        found[role] = max(found.get(role, 0), values.get(pid, 0))
    return found


def test_nothing_grows(own):
    tenth = max(CYCLES // 10, 1)
    fresh = beyond_the_stock(own)
    # Whatever is made once is made by then.
    cycles(own, tenth)
    before = settled(own, fresh)
    print(f"\n{tenth} cycles first: {before}")
    for part in range(2, 11):
        took = cycles(own, tenth)
        if CYCLES >= 1000:
            print(f"{part * tenth} cycles, {took / tenth * 1000:.1f} ms each: {settled(own, fresh)}")
    after = settled(own, fresh)
    print(f"at the end: {after}")
    for name in before:
        if name in ("descriptors", "memory MiB"):
            continue
        assert after[name] == before[name] or (
            isinstance(after[name], int) and after[name] <= before[name]
        ), (name, before[name], after[name])
    for role, count in after["descriptors"].items():
        # Slots of the stock, which may be fuller, are some descriptors each.
        assert count <= before["descriptors"][role] + 200, (role, before, after)
    for role, mib in after["memory MiB"].items():
        assert mib <= before["memory MiB"][role] * 1.25 + MEMORY_SLACK_MIB, (role, before, after)
