"""What one sandbox can notice of another by files that both have."""

import json
import time

import host
from attacks.stays import SHARED
from attacks.table import BOTH, attack
from attacks.world import HERE


def inside(sandbox, does, who):
    return json.loads(sandbox.commands.run(f"python3 /tmp/places.py {does}", user=who, timeout=60).stdout)


def while_doing(sandbox, does, who, meanwhile):
    """What the program says that was at work meanwhile; of what it saw only what came meanwhile."""
    name = f"/tmp/{does}-{time.monotonic_ns()}"
    begun = f"mkfifo {name}; setsid python3 /tmp/places.py {does} < {name} > {name}.out 2>&1 & "
    handle = sandbox.commands.run(begun + f"exec sleep 300 > {name}", user=who, background=True, timeout=300)
    said = lambda: sandbox.files.read(f"{name}.out", user=who).splitlines()  # noqa: E731
    host.until("it is at work", lambda: said()[0].startswith("ready "))
    count = int(said()[0].removeprefix("ready "))
    # The agent's own reading of files, for what was asked of it.
    time.sleep(0.3)
    begin = time.time()
    came = meanwhile()
    end = time.time() + 0.1
    time.sleep(0.2)
    handle.kill()
    host.until("it has said what it saw", lambda: len(said()) == 2)
    found = json.loads(said()[1])
    if does == "watch":
        found = {path for at, path in found if begin < at < end}
    return count, found, came


def strangers(world):
    for sandbox in (world.sandbox, world.other):
        sandbox.files.write("/tmp/places.py", (HERE / "places.py").read_text())
    return world.sandbox, world.other


@attack(
    SHARED,
    "opening-watched",
    "learning by inotify what others open: `/dev`, `/proc`, `/sys`, control groups, the agent's program and its "
    "descriptors, the template's files; while another sandbox opens all of it, and a new one starts",
    ", ".join(BOTH),
    "nothing is seen",
    "in the same sandbox all of it is seen",
)
def _(world):
    mine, other = strangers(world)

    def elsewhere():
        came = inside(other, "open", "root")
        world.platform.create().kill()
        return came

    for who in BOTH:
        count, seen, came = while_doing(mine, "watch", who, elsewhere)
        assert count > 300 and len(came) > 300
        assert not seen, seen
        _, seen, came = while_doing(mine, "watch", who, lambda who=who: inside(mine, "open", who))
        wanted = {"/dev/null", "/sys/devices/system/cpu/online"} | ({"/proc/1/exe"} if who == "root" else set())
        assert len(seen) > 300 and wanted <= seen, set(came) - seen


@attack(
    SHARED,
    "locks-as-signals",
    "signalling to another sandbox by a lock (`flock`) on any of the same",
    ", ".join(BOTH),
    "no lock is in the other's way",
    "in the same sandbox all are",
)
def _(world):
    mine, other = strangers(world)
    for who in BOTH:
        count, _, taken = while_doing(mine, "hold", who, lambda who=who: inside(other, "lock", who))
        assert count > 300 and not taken, (count, taken)
        _, _, taken = while_doing(mine, "hold", who, lambda who=who: inside(mine, "lock", who))
        assert len(taken) > 300
