"""Create and kill, pause and resume, snapshot and fork, over and over: nothing grows.

CASEMATE_TEST_CYCLES sets how often sandboxes are created and killed; 10000 is the long form
(`docs/evidence/`), which prints what is held after each tenth. CASEMATE_TEST_PAUSE_CYCLES (long:
10000) and CASEMATE_TEST_SNAPSHOT_CYCLES (long: 1000) say the same of the other two. Run by hand: see
the head of that evidence.
"""

import hashlib
import http.client
import json
import os
import queue
import threading
import time
import urllib.parse

import e2b
import pytest

import host
from held import beyond_the_stock, files, open_files
from instance import running

CYCLES = int(os.environ.get("CASEMATE_TEST_CYCLES", "200"))
PAUSE_CYCLES = int(os.environ.get("CASEMATE_TEST_PAUSE_CYCLES", "60"))
SNAPSHOT_CYCLES = int(os.environ.get("CASEMATE_TEST_SNAPSHOT_CYCLES", "20"))
CLIENTS = 8
# In each snapshot cycle.
FORKS = 2
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
        self.conn.request(method, path, None if body is None else json.dumps(body), self.headers)
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

    def end(self):
        self.conn.close()


# Counts in memory, and writes every number down.
COUNTER = """
import os, time
n = 0
while True:
    n += 1
    with open("/tmp/next", "w") as file:
        file.write(f"{n}\\n")
    os.replace("/tmp/next", "/tmp/count")
    time.sleep(0.02)
"""


class Sleeper:
    """One sandbox, paused and resumed again and again."""

    def __init__(self, instance):
        self.client = Client(instance)
        self.sandbox = e2b.Sandbox.create("base", timeout=3600, **instance.client)
        self.blob = os.urandom(300_000)
        self.sandbox.files.write("/home/user/blob", self.blob)
        self.count = 0
        self.begin()
        self.boot = self.read()["boot"]
        self.cycles = 0

    def begin(self):
        self.sandbox.files.write("/home/user/counter.py", COUNTER)
        # That of an earlier counter is among the files that were kept.
        self.sandbox.commands.run("rm -f /tmp/count")
        self.sandbox.commands.run("python3 /home/user/counter.py", background=True)
        host.until("it counts", lambda: self.sandbox.files.exists("/tmp/count"))
        self.count = 0

    def read(self):
        script = "sha256sum </home/user/blob; cat /proc/sys/kernel/random/boot_id /tmp/count"
        blob, boot, count = self.sandbox.commands.run(script).stdout.split("\n")[:3]
        return {"blob": blob.split()[0], "boot": boot, "count": int(count)}

    def cycle(self):
        # Every fifth keeps files alone.
        self.cycles += 1
        files = self.cycles % 5 == 3
        id = self.sandbox.sandbox_id
        before = self.read()
        status, said = self.client.ask("POST", f"/sandboxes/{id}/pause", {"memory": not files})
        assert status == 204, (status, said)
        status, said = self.client.ask("GET", f"/sandboxes/{id}")
        detail = json.loads(said)
        wanted = ("paused", "filesystem" if files else "full")
        assert (detail["state"], detail["pauseMode"]) == wanted, detail
        status, said = self.client.ask("POST", f"/v2/sandboxes/{id}/connect", {"timeout": 3600})
        assert status == 201, (status, said)
        if files:
            self.begin()
        after = self.read()
        assert after["blob"] == before["blob"] == hashlib.sha256(self.blob).hexdigest()
        assert before["boot"] == self.boot and (after["boot"] == self.boot) == (not files)
        self.boot = after["boot"]
        assert files or after["count"] >= before["count"], (before, after)

    def end(self):
        self.sandbox.kill()


class Keeper:
    """One sandbox, kept and forked again and again."""

    def __init__(self, instance):
        self.client = Client(instance)
        self.access = instance.client
        self.sandbox = e2b.Sandbox.create("base", timeout=3600, **self.access)

    def cycle(self):
        blob = os.urandom(200_000)
        id = self.sandbox.sandbox_id
        self.sandbox.files.write("/home/user/blob", blob)
        status, said = self.client.ask("POST", f"/sandboxes/{id}/snapshots", {})
        assert status == 201, (status, said)
        snapshot = json.loads(said)["snapshotID"]
        self.sandbox.files.write("/home/user/blob", b"later")
        begun = e2b.Sandbox.create(snapshot, timeout=300, **self.access)
        assert begun.files.read("/home/user/blob", format="bytes") == blob
        begun.kill()
        body = {"count": FORKS, "timeout": 300}
        status, said = self.client.ask("POST", f"/sandboxes/{id}/fork", body)
        assert status == 201, (status, said)
        for fork in json.loads(said):
            fork = e2b.Sandbox.connect(fork["sandbox"]["sandboxID"], **self.access)
            assert fork.files.read("/home/user/blob") == "later"
            fork.kill()
        status, said = self.client.ask("DELETE", f"/templates/{urllib.parse.quote(snapshot, safe='')}")
        assert status == 204, (status, said)

    def end(self):
        self.sandbox.kill()


def cycles(instance, count, kind=Client):
    """Runs so many, some at a time; gives the seconds it took."""
    todo, failed = queue.Queue(), []
    for _ in range(count):
        todo.put(None)

    def work():
        client = None
        try:
            client = kind(instance)
            while not failed:
                todo.get_nowait()
                client.cycle()
        except queue.Empty:
            pass
        except Exception as error:
            failed.append(error)
        finally:
            if client:
                client.end()

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


@pytest.mark.parametrize(
    "kind, count",
    [(Client, CYCLES), (Sleeper, PAUSE_CYCLES), (Keeper, SNAPSHOT_CYCLES)],
    ids=["create-and-kill", "pause-and-resume", "snapshot-and-fork"],
)
def test_nothing_grows(own, kind, count):
    # Fewer are no measure: each client has work in every part.
    tenth = max(count // 10, CLIENTS if kind is Client else 1)
    fresh = beyond_the_stock(own)
    # Whatever is made once is made by then.
    cycles(own, max(tenth, CLIENTS), kind)
    before = settled(own, fresh)
    print(f"\n{tenth} cycles first: {before}")
    for part in range(2, 11):
        took = cycles(own, tenth, kind)
        if count >= 1000:
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
