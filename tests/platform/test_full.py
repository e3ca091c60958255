"""The disk of the data directory is full: to the last byte, by somebody else, while sandboxes write."""

import json
import os
import subprocess
import time
import urllib.request

import e2b
import pytest

import host
import instance
import raw_build
from instance import casemate, running

MIB = 1 << 20
SUM = "md5sum /home/user/kept"


class Disk:
    """A file system of 4 GiB in a file, without blocks that only root may take."""

    def __init__(self):
        self.image = instance.ROOT / f"full-{os.getpid()}.img"
        self.place = instance.ROOT / f"full-{os.getpid()}"
        self.place.mkdir(parents=True)
        with open(self.image, "wb") as image:
            image.truncate(4 << 30)
        host.output("mkfs.ext4", "-q", "-m", "0", str(self.image))
        host.output("mount", "-o", "loop", str(self.image), str(self.place))
        self.others = 0

    def free(self):
        told = os.statvfs(self.place)
        return told.f_bavail * told.f_frsize

    def fill(self):
        """Most of it at once, faster than anybody could look, then what is left bit by bit."""
        while left := self.free():
            self.others += 1
            assert self.others < 100, f"{left} bytes do not go"
            with open(self.place / f"others-{self.others}", "wb") as others:
                for size in (left, left // 2, 64 << 10, 4096):
                    try:
                        os.posix_fallocate(others.fileno(), 0, max(size, 1))
                        break
                    except OSError:
                        others.truncate(0)

    def empty(self):
        for others in self.place.glob("others-*"):
            others.unlink()

    def close(self):
        subprocess.run(["umount", str(self.place)], check=False)
        self.image.unlink(missing_ok=True)
        self.place.rmdir()


@pytest.fixture(scope="module")
def disk():
    disk = Disk()
    yield disk
    disk.close()


@pytest.fixture(scope="module")
def platform(disk):
    with running("full", data_dir=disk.place / "data", CASEMATE_NODE_SLOT_STOCK="4") as platform:
        yield platform
        disk.empty()


def run(sandbox, command):
    """Exit code and both outputs."""
    try:
        ran = sandbox.commands.run(command, timeout=60)
    except e2b.CommandExitException as error:
        ran = error
    return ran.exit_code, ran.stdout + ran.stderr


def create_by_hand(platform):
    """Status, headers and body of a create; the SDK would hide them."""
    request = urllib.request.Request(
        f"{platform.url}/v2/sandboxes",
        data=json.dumps({"templateID": "base", "timeout": 900}).encode(),
        headers={
            "Content-Type": "application/json",
            "X-API-Key": platform.credentials()["E2B_API_KEY"],
        },
    )
    try:
        with urllib.request.urlopen(request, timeout=30) as answer:
            return answer.status, answer.headers, json.load(answer)
    except urllib.error.HTTPError as error:
        return error.code, error.headers, json.load(error)


def status(platform):
    ran = casemate("status", "--json", "--data-dir", str(platform.data_dir))
    return json.loads(ran.stdout)["node"]


def test_a_full_disk_costs_no_sandbox_and_is_over_when_there_is_room(disk, platform):
    writer, reader, killed, short, resting = (platform.create() for _ in range(5))
    kept = "dd if=/dev/urandom of=/home/user/kept bs=1M count=20 status=none; sync"
    total = run(reader, f"{kept}; {SUM}")[1]
    run(resting, "echo mine > /home/user/mine; sync")
    disk.fill()
    assert disk.free() == 0

    # Who writes finds a disk that is full, and one that is not when files are removed.
    code, said = run(writer, "dd if=/dev/zero of=/home/user/big bs=1M count=3000 conv=fsync")
    assert code == 1 and "No space left on device" in said, said
    # The kernel hands freed blocks on within its half minute.
    run(writer, "rm /home/user/big; sync")
    again = "dd if=/dev/zero of=/home/user/a bs=1M count=50 conv=fsync"
    host.until("removed files make room", lambda: run(writer, again)[0] == 0, 45, 1)
    run(writer, "dd if=/dev/zero of=/home/user/big bs=1M count=3000 conv=fsync")
    # Everybody else reads and runs, and nothing was lost.
    assert run(reader, f"echo 3 > /dev/null; {SUM}") == (0, total)

    # One that rests goes on with what it had; its owner may want to remove files.
    resting.pause()
    assert run(resting.connect(), "cat /home/user/mine") == (0, "mine\n")
    # Kept is what there is room for, and nothing is given up before.
    resting.pause(mode="filesystem")
    headers = {"X-API-Key": platform.client["api_key"]}
    shown = json.loads(platform.get(f"/sandboxes/{resting.sandbox_id}", headers)[2])
    if shown["pauseMode"] == "full":
        assert run(resting.connect(), "cat /home/user/mine") == (0, "mine\n")
    else:
        with pytest.raises(e2b.exceptions.ServiceBusyException, match="the disk is full"):
            resting.connect()

    answered, headers, body = create_by_hand(platform)
    assert (answered, body["code"]) == (503, 503), body
    assert "disk is full" in body["message"], body
    assert headers["Should-Retry"] == "false"
    told = status(platform)
    assert told["disk_free_bytes"] < told["disk_reserve_bytes"], told
    metrics = platform.get("/metrics")[2].decode()
    assert f"casemate_disk_reserve_bytes {told['disk_reserve_bytes']}" in metrics

    # Sandboxes are ended, by order and by time.
    begun = time.monotonic()
    assert platform.kill(killed.sandbox_id)
    assert time.monotonic() - begun < 5
    assert not platform.runs(killed.sandbox_id)
    short.set_timeout(4)
    host.until("it ends by time", lambda: not platform.runs(short.sandbox_id), 15)
    host.until("it is not listed", lambda: short.sandbox_id not in platform.listed(), 15)

    # A new start takes over what runs.
    platform.kill_all()
    disk.fill()
    platform.up()
    assert set(platform.listed()) == {writer.sandbox_id, reader.sandbox_id, resting.sandbox_id}
    assert run(platform.connect(reader.sandbox_id), SUM) == (0, total)
    assert create_by_hand(platform)[0] == 503

    # Whoever took the disk gives it back: everything goes on by itself.
    disk.empty()
    host.until("creates work", lambda: create_by_hand(platform)[0] == 201, 20, 0.5)
    assert run(resting.connect(), "cat /home/user/mine") == (0, "mine\n")
    more = "rm /home/user/big; dd if=/dev/zero of=/home/user/more bs=1M count=600 conv=fsync"

    def writes():
        code, said = run(platform.connect(writer.sandbox_id), more + "; rm /home/user/more")
        assert "No space left" not in said, said
        return True

    host.until("sandboxes write again", writes, 20, 0.5)
    assert run(platform.connect(reader.sandbox_id), f"echo on > /home/user/on && sync && {SUM}") == (0, total)
    mount = [line for line in host.read("/proc/mounts").splitlines() if f"{platform.id}/pool " in line]
    assert " rw," in mount[0], mount
    platform.end_all()


def test_builds_on_a_full_disk(disk, platform):
    """A clear error, nothing half-done, and the next one works."""
    client = raw_build.Client(platform.url, platform.credentials()["E2B_API_KEY"])
    name = f"full-{time.time_ns()}"
    # What sandboxes of an earlier test removed goes back within the kernel's half minute.
    host.until("the disk has room", lambda: disk.free() > 1 << 30, 60, 0.5)

    def ready(name, command):
        """How the build ended, once one does well."""
        ended = []

        def builds():
            ended[:] = client.build(name, [raw_build.run(command)], 120)
            return ended[1]["status"] == "ready"

        host.until("builds work", builds, 90, 1)
        return ended

    (template, _), _ = ready(name, "echo before > said")
    waiting = client.request(f"{name}-waiting")["templateID"]
    url = client.link(waiting, "0" * 64)["url"]
    # One that is in the middle, and one that only begins.
    within = client.begin(name, [raw_build.run("echo begun; sleep 5; echo within > said")])
    client.until_said(*within, "[stdout]: begun")
    disk.fill()
    outset = client.begin(f"{name}-outset", [raw_build.run("echo never > said")])
    for ids in (within, outset):
        told = client.wait(*ids, 90)
        assert told["status"] == "error" and "disk" in told["reason"]["message"], told
        assert "full" in told["reason"]["message"], told
    status, body = client.put(url, bytes(64 << 20))
    assert status == 507 and body, (status, body)
    assert client.link(waiting, "0" * 64)["present"] is False
    disk.empty()
    ready(name, "echo after > said")
    # A step that goes on without what it could not write: nothing of it is kept for later.
    script = "echo begun; sleep 3; head -c 1500M /dev/zero > big || true; " \
             "head -c 5M /dev/urandom > wanted || true; rm big; stat -c %s wanted"
    roomy = lambda: disk.free() > 2 << 30
    host.until("the disk has room", roomy, 60, 0.5)
    heedless = client.begin(f"{name}-heedless", [raw_build.run(script)])
    client.until_said(*heedless, "[stdout]: begun")
    disk.fill()
    told = client.wait(*heedless, 90)
    assert told["status"] == "error" and "the disk of the platform is full" in told["reason"]["message"], told
    disk.empty()
    host.until("the disk has room", roomy, 60, 0.5)
    _, told = ready(f"{name}-heedless", script)
    assert not any("CACHED [builder" in line["message"] for line in told["logEntries"]), told
    assert any(f"[stdout]: {5 << 20}" in line["message"] for line in told["logEntries"]), told
    sandbox = platform.create(template=name)
    assert sandbox.files.read("said") == "after\n"
    assert not [path for path in (platform.data_dir / "node/layers").iterdir() if "draft" in path.name]
    platform.end_all()
    for one in (template, waiting, outset[0], heedless[0]):
        assert client.delete(one)[0] == 204
