"""Builds under bad luck: what was kept of earlier ones is lost, profiles of images that talk, a sandbox
without memory, deaths between a layer's draft, its name and its row.

What goes wrong by a client's or a registry's fault is in test_builds.py.
"""

import os
import pathlib
import shutil
import subprocess
import uuid

import pytest

import host
import instance as instances
import raw_build
from instance import running
from raw_build import run
from test_builds import (  # noqa: F401 (fixtures)
    content, fresh_name, never_seen_image, nothing_left, ours, still_builds,
)

PLAN = "CASEMATE_INTERNAL_FAIL_POINTS"
DEATHS = "CASEMATE_INTERNAL_FAIL_LOG"
BASE_LOST = "error getting base template, you may need to rebuild it first"


@pytest.fixture(scope="module")
def platform():
    config = instances.ROOT / f"builds-luck-{os.getpid()}.toml"
    told = pathlib.Path(os.environ["CASEMATE_TEST_REGISTRY_CONFIG"]).read_text()
    # One build makes all others wait.
    config.write_text(f"[builds]\nat_once = 1\n\n{told}")
    with running("builds-luck", config=config) as made:
        yield made
    config.unlink()


# What is lost.


def lose(platform, kept=(), layers=()):
    """Takes files from under the platform, as somebody does who tidies up by hand."""
    for name in kept:
        path = host.RUN / platform.id / "pool/kept" / name
        deleted = subprocess.run(["btrfs", "subvolume", "delete", str(path)], capture_output=True)
        if deleted.returncode != 0:
            shutil.rmtree(path)
        assert not path.exists()
    for name in layers:
        shutil.rmtree(platform.data_dir / "node/layers" / name)


def states(platform):
    """Kept files and sealed layers that the cache names."""
    rows = platform.rows("SELECT layers, files FROM cached_layers")
    kept = {files for _, files in rows if files}
    layers = {name for told, _ in rows for name in raw_build.json.loads(told)["is"] if name.startswith("t-")}
    return kept, layers


def a_recipe():
    nonce = uuid.uuid4().hex
    return [run(f"cat /proc/sys/kernel/random/uuid > /home/user/said # {nonce}"), run(f"true # {nonce}")]


def said_again(lines):
    return [line for line in lines if "is lost" in line]


@pytest.mark.parametrize("what", ["kept", "layers", "both"])
def test_steps_whose_files_are_lost_are_made_again(platform, ours, what):
    name, steps = fresh_name(), a_recipe()
    before = states(platform)
    ids, told = ours.build(name, steps)
    assert told["status"] == "ready"
    first = content(platform, ours, name, "/home/user/said")
    kept, layers = (now - then for now, then in zip(states(platform), before))
    assert kept and layers
    lose(platform, kept if what != "layers" else (), layers if what != "kept" else ())
    ids, told = ours.build(name, steps)
    assert told["status"] == "ready", told
    lines = ours.messages(*ids)
    assert len(said_again(lines)) == {"kept": len(kept), "layers": 1, "both": len(kept) + 1}[what], lines
    # What still stood was taken.
    cached = [line for line in lines if line.startswith("CACHED [builder")]
    assert len(cached) == (2 if what == "layers" else 0), lines
    said = content(platform, ours, name, "/home/user/said")
    assert (said == first) == (what != "both")
    # Once is enough.
    ids, told = ours.build(name, steps)
    assert told["status"] == "ready" and said_again(ours.messages(*ids)) == []
    ours.delete(ids[0])
    nothing_left(platform)


def test_an_unpacked_image_that_is_lost_is_unpacked_again(platform, ours):
    image, name = never_seen_image(), fresh_name()
    before = states(platform)
    ids, told = ours.build(name, [run("true")], fromImage=image, seconds=180)
    assert told["status"] == "ready", told
    _, layers = (now - then for now, then in zip(states(platform), before))
    lose(platform, layers=layers)
    ids, told = ours.build(name, [run("true")], fromImage=image, seconds=180)
    assert told["status"] == "ready", told
    lines = ours.messages(*ids)
    assert said_again(lines) and any("Uncompressing layer" in line for line in lines), lines
    sandbox = platform.create(template=name)
    assert sandbox.commands.run("true").exit_code == 0
    sandbox.kill()
    ours.delete(ids[0])
    nothing_left(platform)


def test_a_template_that_is_lost_is_no_ground_and_can_be_built_again(platform, ours):
    parent, child, steps = fresh_name(), fresh_name(), a_recipe()
    before = states(platform)
    ids, told = ours.build(parent, steps)
    assert told["status"] == "ready"
    _, layers = (now - then for now, then in zip(states(platform), before))
    lose(platform, layers=layers)
    of_child, told = ours.build(child, [run("true")], fromTemplate=parent)
    assert told["status"] == "error"
    assert (told["reason"]["step"], told["reason"]["message"]) == ("base", BASE_LOST)
    _, told = ours.build(parent, steps)
    assert told["status"] == "ready", told
    _, told = ours.build(child, [run("cat /home/user/said")], fromTemplate=parent)
    assert told["status"] == "ready", told
    ours.delete(of_child[0])
    ours.delete(ids[0])
    nothing_left(platform)


def test_a_parent_that_is_deleted_while_its_child_waits(platform, ours):
    parent = fresh_name()
    ids, told = ours.build(parent, a_recipe())
    assert told["status"] == "ready"
    busy = ours.begin(fresh_name(), [run(f"echo begun; sleep 600 # {uuid.uuid4()}")])
    ours.until_said(*busy, "[stdout]: begun")
    child = ours.begin(fresh_name(), [run("true")], fromTemplate=parent)
    ours.until_said(*child, "Waiting for other builds to end")
    layers = {
        name
        for (told,) in platform.rows(f"SELECT layers FROM builds WHERE id = '{ids[1]}'")
        for name in raw_build.json.loads(told)["is"]
        if name.startswith("t-")
    }
    assert ours.delete(ids[0])[0] == 204
    # As if the cache had forgotten it too, and the look for what nobody wants had come.
    lose(platform, layers=layers)
    ours.delete(busy[0])
    told = ours.wait(*child)
    assert told["status"] == "error"
    assert (told["reason"]["step"], told["reason"]["message"]) == ("base", BASE_LOST)
    ours.delete(child[0])
    still_builds(ours)
    nothing_left(platform)


# Profiles.

TALKING = [
    run("printf 'echo Welcome; printf more\\n' >> /etc/profile; "
        "printf 'echo goodbye\\n' >> /root/.bash_logout", "root"),
    {"type": "ENV", "args": ["LONG", "/srv${HOME}/x"]},
    {"type": "WORKDIR", "args": ["${LONG}/work"]},
    {"type": "USER", "args": ["another"]},
    run('echo "$LONG|$PWD|$(id -un)" > /home/another/said'),
]


def test_profiles_that_print(platform, ours):
    name = fresh_name()
    ids, told = ours.build(name, TALKING)
    assert told["status"] == "ready", (told, ours.messages(*ids, level="debug"))
    said = content(platform, ours, name, "/home/another/said")
    assert said == "/srv/root/x|/srv/root/x/work|another\n"
    ours.delete(ids[0])


@pytest.mark.parametrize(
    ("profile", "message"),
    [
        ("exit 0", "a login script of the image (/etc/profile, ~/.bash_profile) ended the shell"),
        ("echo oops >&2; exit 3", "exit status 3: oops"),
        ("exec >/dev/null", "or closed its standard output"),
    ],
)
def test_profiles_that_end(ours, profile, message):
    steps = [run(f"echo '{profile}' >> /etc/profile", "root"), {"type": "ENV", "args": ["A", "$HOME"]}]
    ids, told = ours.build(fresh_name(), steps)
    assert told["status"] == "error" and told["reason"]["step"] == "2", told
    assert message in told["reason"]["message"], told
    assert told["reason"]["message"].startswith("failed to evaluate environment variable A: ")
    ours.delete(ids[0])


# Memory and signals.


def test_a_step_without_memory_says_so(ours):
    command = "exec python3 -c 'b = bytearray(4 << 30)'"
    made = ours.request(fresh_name(), memoryMB=512)
    ids = made["templateID"], made["buildID"]
    assert ours.trigger(*ids, fromImage="e2bdev/base", steps=[run(command)])[0] == 202
    told = ours.wait(*ids)
    message = told["reason"]["message"]
    assert message == f"failed to run command '{command}': signal: killed, out of memory", told
    ours.delete(ids[0])
    ids, told = ours.build(fresh_name(), [run("kill -KILL $$")])
    assert told["reason"]["message"] == "failed to run command 'kill -KILL $$': signal: killed", told
    ours.delete(ids[0])


# Deaths.


@pytest.mark.parametrize(
    "point", ["seal.drafted", "seal.placed", "seal.answered", "seal.cached", "seal.removing"]
)
def test_deaths_around_a_seal(point):
    config = os.environ["CASEMATE_TEST_REGISTRY_CONFIG"]
    deaths = pathlib.Path(f"/tmp/casemate-test-{os.getpid()}-{uuid.uuid4().hex[:8]}.deaths")
    deaths.touch()
    # Control writes its own death down and is not root.
    deaths.chmod(0o622)
    try:
        with running("builds-seal", config=config, **{PLAN: f"{point}=1", DEATHS: str(deaths)}) as platform:
            client = raw_build.Client(platform.url, platform.credentials()["E2B_API_KEY"])
            name = fresh_name()
            ids = client.begin(name, [run(f"echo first > said # {name}")])
            if point == "seal.removing":
                assert client.wait(*ids)["status"] == "ready"
                ids = client.begin(name, [run(f"echo first > said # {name}", force=True)])
                assert client.wait(*ids)["status"] == "ready"
                # The first one's layer is nobody's once the template is gone.
                client.delete(ids[0])
            host.until("a death", lambda: point in deaths.read_text(), 60)
            platform.settings.clear()
            if platform.process.poll() is None:
                platform.kill_all()
            platform.up()
            if point != "seal.removing":
                told = client.wait(*ids)
                assert told["status"] == "error" and "interrupted" in told["reason"]["message"], told
            nothing_left(platform)
            again, told = client.build(name, [run(f"echo first > said # {name}")])
            assert told["status"] == "ready", told
            assert content(platform, client, name, "/home/user/said") == "first\n"
            assert client.delete(again[0])[0] == 204
            nothing_left(platform)
    finally:
        deaths.unlink()
