"""A whole platform under another kernel or layout of control groups: what depends on them, tried once
through the stock SDK. `scripts/lab platform` runs it in the lab, where everything is slow; it needs
what the other tests of this folder need, and runs on any host.

Ends with `N checks passed`, or with what did not hold.
"""

import datetime
import json
import os
import pathlib
import shutil
import sys
import tempfile
import time
import traceback

import e2b

import host
from instance import Instance, bare_environment, casemate

PATIENCE = 900
FULL = "Memory limit reached: the kernel ended a process"
MEMORY_MIB, DISK_MIB, PROCESSES = 256, 64, 100
COUNT = "n=0; while :; do n=$((n + 1)); echo $n > /tmp/count; sleep 0.2; done"


def handed_down():
    """Controllers that the top of version 2 hands to its children; `None` where there is none."""
    for top in (host.CGROUPS, host.CGROUPS / "unified"):
        if (top / "cgroup.subtree_control").exists():
            return sorted(host.read(top / "cgroup.subtree_control").split())
    return None


def surroundings():
    """What a platform must leave as it found it, whoever's it is."""
    places = [host.CGROUPS, *(path for path in host.CGROUPS.iterdir() if path.is_dir())]
    return {
        "controllers": handed_down(),
        "groups": sorted(str(path) for place in places for path in place.iterdir() if path.is_dir()),
        "mounts": sorted(line.split()[1] for line in host.read("/proc/mounts").splitlines()),
        "tables": host.output("nft", "list", "tables").splitlines(),
        "loops": sorted(path.name for path in pathlib.Path("/sys/block").glob("loop*") if (path / "loop").exists()),
        "links": sorted(os.listdir("/sys/class/net")),
        "run": host.RUN.exists(),
        "switches": host.switches(),
    }


class Trial:
    def __init__(self):
        self.before = surroundings()
        self.platform = Instance(
            "lab",
            CASEMATE_LIMITS_MEMORY_MIB=str(MEMORY_MIB),
            CASEMATE_LIMITS_DISK_MIB=str(DISK_MIB),
            CASEMATE_LIMITS_PROCESSES_MAX=str(PROCESSES),
            CASEMATE_NODE_SLOT_STOCK="4",
        )
        # On a disk, which the checkout is not in the lab; and other users pass through its folder.
        self.folder = pathlib.Path(tempfile.mkdtemp(prefix="casemate-lab-"))
        self.folder.chmod(0o755)
        self.platform.data_dir = self.folder / "data"
        self.passed, self.failed = 0, []

    def check(self, what, probe):
        begun = time.monotonic()
        try:
            probe()
        except Exception:
            self.failed.append(what)
            traceback.print_exc()
            word = "FAILED"
        else:
            self.passed += 1
            word = "ok"
        print(f"check {what} ... {word} ({time.monotonic() - begun:.1f} s)", flush=True)
        return word == "ok"

    def run(self):
        platform = self.platform
        print(f"before: {self.before}", flush=True)
        try:
            if self.check("it starts", lambda: platform.up(PATIENCE)):
                self.check("doctor finds nothing fatal", self.doctor)
                self.one, self.other = platform.create(3600), platform.create(3600)
                for what, probe in CHECKS.items():
                    self.check(what, lambda: probe(self))
            self.check("a purge leaves nothing", self.purge)
        finally:
            platform.close()
            shutil.rmtree(self.folder)
            if self.failed:
                shutil.copyfileobj(open(platform.log, errors="replace"), sys.stdout)

    def doctor(self):
        ran = casemate("doctor", "--data-dir", str(self.platform.data_dir), timeout=PATIENCE)
        print(ran.stdout)
        assert ran.returncode == 0, ran.stderr

    def purge(self):
        down = casemate("down", "--purge", "--data-dir", str(self.platform.data_dir), timeout=PATIENCE)
        assert down.returncode == 0, down.stderr
        self.platform.process.wait(PATIENCE)
        assert host.traces(self.platform.id, self.platform.data_dir) == []
        host.until("all is as it was found", lambda: surroundings() == self.before or print(surroundings()), 20, 5)

    # Of the sandbox.

    def said(self, command, sandbox=None, user=None):
        options = {"user": user} if user else {}
        return (sandbox or self.one).commands.run(command, timeout=PATIENCE, **options).stdout.strip()

    def refused(self, command, **options):
        try:
            self.one.commands.run(command, timeout=PATIENCE, **options)
        except e2b.CommandExitException as error:
            return error
        raise AssertionError(f"{command}: it was not refused")

    def asked(self, path):
        status, _, body = self.platform.get(path, {"X-API-Key": self.platform.client["api_key"]})
        assert status == 200, body
        return json.loads(body)

    def logs(self, sandbox):
        return self.asked(f"/v2/sandboxes/{sandbox.sandbox_id}/logs?direction=forward")["logs"]

    def code_runs(self):
        assert self.said("python3 -c 'print(6 * 7)'") == "42"
        self.one.files.write("/tmp/mark", "mine")
        assert self.one.files.read("/tmp/mark") == "mine"
        assert self.said("ls /tmp", self.other).find("mark") < 0

    def machine(self):
        assert self.said("awk '$1 == \"MemTotal:\" { print $2 }' /proc/meminfo") == str(MEMORY_MIB << 10)
        assert self.said("nproc") == str(min(2, os.cpu_count()))
        assert self.said("grep -c ^processor /proc/cpuinfo") == self.said("nproc")
        files = "/sys/fs/cgroup/memory.max /sys/fs/cgroup/memory/memory.limit_in_bytes"
        assert self.said(f"cat {files} 2>/dev/null || true") == str(MEMORY_MIB << 20)

    def load_is_seen(self):
        self.said("timeout 10 sh -c 'while :; do :; done' || true")
        host.until("load", lambda: float(self.said("cut -d' ' -f1 /proc/loadavg")) > 0, 60)

    def metrics(self):
        self.said("dd if=/dev/urandom of=/tmp/some bs=1M count=20 2>/dev/null && sync")
        now = int(time.time())

        def told():
            samples = self.asked(f"/sandboxes/{self.one.sandbox_id}/metrics?start={now - 600}&end={int(time.time()) + 60}")
            last = samples[-1]
            right = last["diskUsed"] >= 20 << 20 and last["memUsed"] > 0 and any(s["cpuUsedPct"] > 0 for s in samples)
            return right and last

        last = host.until("a sample", told, 120, 1)
        assert last["memTotal"] == MEMORY_MIB << 20 and last["cpuCount"] == 2, last
        assert last["memUsed"] < MEMORY_MIB << 20 and 0 < last["memCache"], last
        self.said("rm /tmp/some && sync")

    def log(self):
        self.said("echo logged")
        kinds = lambda: {entry["fields"].get("event_type") for entry in self.logs(self.one)}
        host.until("logged", lambda: {"process_start", "process_end"} <= kinds(), 60, 1)

    def memory(self):
        assert self.refused("python3 -c 'x = b\"x\" * (1 << 30)'").exit_code != 0
        full = lambda one: [entry for entry in self.logs(one) if entry["message"] == FULL]
        host.until("it is told", lambda: full(self.one), 60, 1)
        (entry,) = full(self.one)
        assert entry["level"] == "warn" and entry["fields"]["processes"] == "1", entry
        assert not full(self.other)
        assert self.said("echo well") == "well"

    def processes(self):
        bomb = "import os, time\nn = 0\ntry:\n while n < 1000:\n"
        bomb += "  if not os.fork(): time.sleep(20); os._exit(0)\n  n += 1\n"
        bomb += "except BlockingIOError: print(n, flush=True)\n"
        self.one.files.write("/tmp/bomb.py", bomb)
        made = int(self.said("timeout -s KILL 60 python3 /tmp/bomb.py 2>/dev/null"))
        assert PROCESSES // 2 < made < PROCESSES, made
        assert self.said("echo well", self.other) == "well"
        host.until("they are gone", lambda: self.said("echo well") == "well", 120, 2)

    def disk(self):
        error = self.refused("dd if=/dev/urandom of=/home/user/fill bs=1M count=200")
        assert "Disk quota exceeded" in error.stderr or "No space left" in error.stderr, error.stderr
        assert int(self.said("stat -c %s /home/user/fill")) <= (DISK_MIB + 2) << 20
        self.said("head -c 20000000 /dev/urandom >/home/user/mine && sync", self.other)
        self.said("rm /home/user/fill && sync")
        again = "head -c 1000000 /dev/zero >/home/user/again"
        host.until("room again", lambda: self.one.commands.run(again).exit_code == 0, 120, 2)

    def processor(self):
        """The kernel counts how often it held the sandbox back."""
        spin = "python3 -c 'import os, time\nfor _ in range(4):\n  if not os.fork():\n"
        spin += "    end = time.time() + 3\n    while time.time() < end: pass\n    os._exit(0)\nfor _ in range(4): os.wait()'"
        groups = {pathlib.Path(path) for path in self.platform.groups(self.one.sandbox_id)}
        quotas = [path / name for path in groups for name in ("cpu.cfs_quota_us", "cpu.max")]
        # Named by two paths where a link leads to the hierarchy.
        quota = next(path for path in quotas if path.exists())
        assert quota.read_text().split()[0] == "200000"
        before = quota.read_text()
        quota.write_text("20000" if quota.name == "cpu.cfs_quota_us" else "20000 100000")
        try:
            self.said(spin)
        finally:
            quota.write_text(before)
        counted = dict(line.split() for line in (quota.parent / "cpu.stat").read_text().splitlines())
        assert int(counted["nr_throttled"]) > 5, counted

    def all_processes(self):
        """The bound of all sandboxes together, beside their own."""
        parents = {pathlib.Path(path).parent for path in self.platform.groups(self.one.sandbox_id)}
        (bound,) = {path / "pids.max" for path in parents if (path / "pids.max").exists()}
        numbers = [int(host.read(f"/proc/sys/kernel/{name}")) for name in ("pid_max", "threads-max")]
        assert int(bound.read_text()) <= min(numbers) * 3 // 4

    def rest(self):
        """Paused with memory and with files alone, kept and forked."""
        one, boot = self.platform.create(3600), "cat /proc/sys/kernel/random/boot_id"
        one.commands.run(COUNT, background=True, timeout=0)
        host.until("it counts", lambda: self.said("test -s /tmp/count && echo yes || true", one), 60)
        first = self.said(boot, one)
        for memory in (True, False):
            assert one.pause(mode="full" if memory else "filesystem")
            counted = int(one.connect(timeout=3600).files.read("/tmp/count"))
            assert (self.said(boot, one) == first) == memory
        print(f"  it counted to {counted}")
        self.said("echo kept > /home/user/kept", one)
        snapshot = one.create_snapshot().snapshot_id
        self.said("echo changed > /home/user/kept", one)
        begun = self.platform.create(3600, template=snapshot)
        assert begun.files.read("/home/user/kept") == "kept\n"
        forks = one.fork(count=3)
        for fork in forks:
            assert fork.files.read("/home/user/kept") == "changed\n"
        assert len({fork.sandbox_id for fork in forks}) == 3
        for made in (one, begun, *forks):
            assert self.platform.kill(made.sandbox_id)
        assert e2b.Sandbox.delete_snapshot(snapshot, **self.platform.client)

    def asleep(self):
        """One that rests is there after the death of all, and its processes go on."""
        asleep = self.platform.create(3600)
        asleep.commands.run(COUNT, background=True, timeout=0)
        host.until("it counts", lambda: self.said("test -s /tmp/count && echo yes || true", asleep), 60)
        asleep.pause()
        self.platform.kill_all()
        self.platform.up(PATIENCE)
        (shown,) = [one for one in self.asked("/v2/sandboxes") if one["sandboxID"] == asleep.sandbox_id]
        assert shown["state"] == "paused"
        count = lambda: int(asleep.files.read("/tmp/count"))
        asleep.connect(timeout=3600)
        first = count()
        host.until("it counts on", lambda: count() > first, 60, 1)
        assert self.platform.kill(asleep.sandbox_id)

    def crash(self):
        counting = self.one.commands.run(COUNT, background=True, timeout=0)
        short = self.other.commands.run("sleep 5", background=True, timeout=0)
        killed = self.platform.kill_all()
        assert set(killed.values()) == {"up", "control", "egress", "launcher"}, killed
        time.sleep(10)
        assert self.platform.runs(self.one.sandbox_id) and self.platform.runs(self.other.sandbox_id)
        took = self.platform.up(PATIENCE)
        print(f"  ready again after {took:.1f} s")
        assert set(self.platform.listed()) == {self.one.sandbox_id, self.other.sandbox_id}
        self.one, self.other = (self.platform.connect(one.sandbox_id) for one in (self.one, self.other))
        first = int(self.said("cat /tmp/count"))
        host.until("it counts on", lambda: int(self.said("cat /tmp/count")) > first, 60, 1)
        assert int(self.said(f"ps -o pid= -p {counting.pid}")) == counting.pid
        ended = lambda: [e for e in self.logs(self.other) if e["fields"].get("event_type") == "process_end"]
        host.until("the log goes on", lambda: any(e["fields"]["pid"] == str(short.pid) for e in ended()), 60, 1)

    def after_crash(self):
        """The limits hold and are told of, in the one that was taken over as in a new one."""
        new = self.platform.create(3600)
        for one in (self.one, new):
            before = len([entry for entry in self.logs(one) if entry["message"] == FULL])
            hog = "python3 -c 'x = b\"x\" * (1 << 30)' || true"
            one.commands.run(hog, timeout=PATIENCE)
            full = lambda: len([entry for entry in self.logs(one) if entry["message"] == FULL])
            host.until("it is told", lambda: full() == before + 1, 60, 1)
            assert self.said("nproc", one) == str(min(2, os.cpu_count()))
        self.platform.kill(new.sandbox_id)

    def memory_is_given_back(self):
        """What is shown follows what is used, also after the adoption."""
        free = lambda: int(self.said("awk '$1 == \"MemFree:\" { print $2 }' /proc/meminfo"))
        before = free()
        self.said("head -c 60000000 /dev/zero >/dev/shm/fill")
        host.until("less is free", lambda: free() < before - 40_000, 60, 1)
        self.said("rm /dev/shm/fill")
        host.until("it is free again", lambda: free() > before - 40_000, 60, 1)

    def end(self):
        id = self.other.sandbox_id
        assert self.platform.kill(id)
        host.until("it is gone", lambda: not self.platform.runs(id), 60)
        last = lambda: self.asked(f"/v2/sandboxes/{id}/logs?direction=forward")["logs"][-1]["message"]
        host.until("its end is told", lambda: last() == "Sandbox ended: killed", 60, 1)
        environment = bare_environment(**self.platform.credentials())
        assert casemate("status", "--data-dir", str(self.platform.data_dir), env=environment).returncode == 0


CHECKS = {
    "code runs": Trial.code_runs,
    "it sees its limits as its machine": Trial.machine,
    "its load is seen": Trial.load_is_seen,
    "metrics come": Trial.metrics,
    "its log tells of processes": Trial.log,
    "full memory ends a process, with a line in the log": Trial.memory,
    "processes end at the limit": Trial.processes,
    "the disk ends at the limit": Trial.disk,
    "processor time is held to its quota": Trial.processor,
    "all processes together are bounded": Trial.all_processes,
    "pauses, snapshots and forks": Trial.rest,
    "one that is paused outlives kill -9": Trial.asleep,
    "sandboxes outlive kill -9 and are taken over": Trial.crash,
    "limits hold after it": Trial.after_crash,
    "what is shown follows": Trial.memory_is_given_back,
    "a sandbox ends": Trial.end,
}


if __name__ == "__main__":
    print(datetime.datetime.now().isoformat(timespec="seconds"), os.uname().release, flush=True)
    trial = Trial()
    trial.run()
    print(f"{trial.passed} checks passed, {len(trial.failed)} failed {trial.failed}")
    sys.exit(bool(trial.failed))
