"""Sandboxes of templates with a start command that are started before anybody asks: what becomes of
them when processes of ours die, when their place is needed, and when nobody comes."""

import contextlib
import json
import os
import signal
import time
import uuid

import pytest

import e2b
import host
import instance as instances
import raw_build
from instance import casemate, running

IDLE_SECONDS = 20
PLACES = 8
SETTINGS = f"""\
[limits]
sandboxes_max = {PLACES}

[warm_pool]
size = 4
size_per_template = 3
idle_seconds = {IDLE_SECONDS}
"""
START = "date +%s.%N > /tmp/began; exec sleep 4321"


@pytest.fixture(scope="module")
def platform():
    config = instances.ROOT / f"warm-{os.getpid()}.toml"
    config.write_text(SETTINGS)
    with running("warm", config=config) as made:
        yield made
    config.unlink()


@pytest.fixture
def template(platform):
    """The name of one that starts something; the first one of it is warm."""
    client = raw_build.Client(platform.url, platform.credentials()["E2B_API_KEY"])
    name = f"warm-{uuid.uuid4().hex[:10]}"
    ids, told = client.build(name, startCmd=START, readyCmd="test -s /tmp/began")
    assert told["status"] == "ready", told
    waiting(platform, 1)
    yield name
    platform.end_all()
    assert client.delete(ids[0])[0] == 204
    host.until("nothing runs", lambda: not journalled(platform), 20)


def journalled(platform):
    """Each sandbox that the node has, and whether it is warm."""
    found = {}
    for path in (platform.data_dir / "node/journal").glob("*.json"):
        text = host.read(path)
        if text:
            found[path.stem] = json.loads(text)["warm"]
    return found


def warm(platform):
    return {id for id, waits in journalled(platform).items() if waits}


def waiting(platform, count, seconds=20):
    """Waits until so many wait, ready to be given away; their ids."""
    def counted():
        token = (platform.data_dir / "secrets/admin_token").read_text().strip()
        said = platform.get("/metrics", {"X-Admin-Token": token})[2].decode()
        told = [line for line in said.splitlines() if line.startswith("casemate_sandboxes_warm ")]
        return told == [f"casemate_sandboxes_warm {count}"] and len(warm(platform)) == count

    host.until(f"{count} wait", counted, seconds)
    return warm(platform)


def create(platform, name, **options):
    return e2b.Sandbox.create(name, timeout=300, **options, **platform.client)


def test_one_is_given_away_and_made_up_for(platform, template):
    (id,) = warm(platform)
    assert platform.listed() == []
    asked = time.time()
    sandbox = create(platform, template, envs={"A": "b"}, metadata={"m": "1"})
    assert sandbox.sandbox_id == id
    assert float(sandbox.files.read("/tmp/began")) < asked
    assert sandbox.commands.run("echo $A").stdout == "b\n"
    info = sandbox.get_info()
    assert info.metadata == {"m": "1"}
    assert abs((info.end_at - info.started_at).total_seconds() - 300) < 1
    assert info.started_at.timestamp() > asked - 1
    # The build was one use, this is the second.
    waiting(platform, 2)
    assert platform.listed() == [id]
    told = json.loads(casemate("--json", "status", "--data-dir", str(platform.data_dir)).stdout)
    assert told["node"]["sandboxes"] == 1
    # It is one as any other: it goes on after a pause, with its variables.
    sandbox.pause()
    sandbox.connect()
    assert sandbox.commands.run("echo $A; pgrep -fx 'sleep 4321'").stdout.startswith("b\n")


@pytest.mark.parametrize("whole", [False, True], ids=["control", "everything"])
def test_those_of_a_process_that_died_go(platform, template, whole):
    taken = create(platform, template)
    former = waiting(platform, 2)
    if whole:
        platform.kill_all()
        platform.up()
    else:
        (control,) = [pid for pid, role in platform.processes().items() if role == "control"]
        os.kill(control, signal.SIGKILL)
        host.until("another one serves", lambda: platform.get("/ready")[0] == 200, 30)
    host.until("the former ones are gone", lambda: not former & set(journalled(platform)), 30)
    # What was given away stays, and others are made when somebody asks again.
    assert taken.commands.run("pgrep -fx 'sleep 4321'").exit_code == 0
    create(platform, template)
    waiting(platform, 1)
    assert set(platform.listed()) | warm(platform) == set(journalled(platform))


def test_they_give_way_to_whoever_is_asked_for(platform, template):
    for _ in range(2):
        create(platform, template)
    waiting(platform, 3)
    others = [create(platform, "base") for _ in range(PLACES - 2)]
    assert all(other.is_running() for other in others)
    assert not warm(platform)
    with pytest.raises(e2b.ServiceBusyException, match="no node has room"):
        create(platform, "base")
    for other in others:
        other.kill()


def test_nobody_comes(platform, template):
    begun = time.monotonic()
    host.until("none waits", lambda: not warm(platform), IDLE_SECONDS + 20)
    assert time.monotonic() - begun < IDLE_SECONDS + 15
    # It is started then, for the one who comes.
    assert create(platform, template).files.read("/tmp/began")


def test_one_that_ends_is_made_again(platform, template):
    (id,) = warm(platform)
    for pid in {pid for path in platform.groups(id) for pid in host.read(f"{path}/cgroup.procs").split()}:
        # With its first process goes the rest of a sandbox, maybe before its turn here.
        with contextlib.suppress(ProcessLookupError):
            os.kill(int(pid), signal.SIGKILL)
    host.until("another one waits", lambda: warm(platform) and id not in journalled(platform), 30)
    waiting(platform, 1)
    assert create(platform, template).is_running()


def test_an_orderly_end_takes_them_along(platform, template):
    waiting(platform, 1)
    platform.process.send_signal(signal.SIGTERM)
    platform.process.wait(30)
    assert not warm(platform)
    platform.up()
    assert create(platform, template).is_running()
