"""Builds of templates where something goes wrong: registries that lie, uploads that are cut off, two
teams, processes of ours that die. Each ends with a clear error, the next build works, and nothing is
left of the first.

How builds go well is tried with the SDKs: tests/sdk. Links that have expired and registries that say
nothing for minutes are tried with a clock of their own, in casemate-api and casemate-images.
"""

import gzip
import io
import json
import os
import pathlib
import signal
import socket
import tarfile
import time
import urllib.parse
import uuid

import e2b
import pytest

import host
import instance as instances
import push
import raw_build
from images import DOCKER_MANIFEST
from instance import running
from lying import Registry
from raw_build import archive, entry, run

UPLOAD_MIB = 8
DISK_MIB = 1024
SETTINGS = """\
[limits]
disk_mib = {disk}

[uploads]
upload_mib_max = {upload}

[images.registries."{lying}"]
insecure = true
"""


@pytest.fixture(scope="module")
def lying():
    registry = Registry()
    yield registry
    registry.close()


@pytest.fixture(scope="module")
def platform(lying):
    config = instances.ROOT / f"builds-{os.getpid()}.toml"
    told = pathlib.Path(os.environ["CASEMATE_TEST_REGISTRY_CONFIG"]).read_text()
    settings = SETTINGS.format(lying=lying.host, disk=DISK_MIB, upload=UPLOAD_MIB)
    config.write_text(f"{settings}\n{told}")
    with running("builds", config=config, CASEMATE_IMAGES_IMAGE_MIB_MAX="1000") as made:
        yield made
    config.unlink()


@pytest.fixture(scope="module")
def ours(platform):
    return raw_build.Client(platform.url, platform.credentials()["E2B_API_KEY"])


@pytest.fixture(scope="module")
def theirs(platform):
    """Another team's client; `slug` is its name."""
    client = raw_build.Client(platform.url, platform.team("theirs"))
    client.slug = "theirs"
    return client


def fresh_name():
    return f"b-{uuid.uuid4().hex[:10]}"


def started(platform, client, reference):
    return e2b.Sandbox.create(reference, timeout=120, **{**platform.client, "api_key": client.key})


def content(platform, client, reference, path):
    sandbox = started(platform, client, reference)
    try:
        return sandbox.files.read(path)
    finally:
        sandbox.kill()


def still_builds(client):
    """The next build works."""
    ids, told = client.build(fresh_name(), [run(f"echo well # {uuid.uuid4()}")])
    assert told["status"] == "ready", told
    assert client.delete(ids[0])[0] == 204


def leftovers(platform):
    """What is there and belongs to nothing: neither to a template nor to the cache of its steps."""
    found = [f"sandbox {path.stem}" for path in (platform.data_dir / "node/journal").iterdir()]
    found += [f"process {pid}" for pid in host.processes_inside(platform.id)]
    named, kept = set(), set()
    for layers, files in platform.rows("SELECT layers, files FROM cached_layers"):
        named.update(json.loads(layers)["is"])
        kept.add(files)
    for (layers,) in platform.rows("SELECT layers FROM builds"):
        named.update(json.loads(layers)["is"])
    for path in (platform.data_dir / "node/layers").iterdir():
        if path.name.startswith(("b-", "s-", "e-")) or path.name in named:
            continue
        found.append(f"layer {path.name}")
    kept_dir = host.RUN / platform.id / "pool/kept"
    found += [f"kept {path.name}" for path in kept_dir.iterdir() if path.name not in kept]
    uploads = {sha256 for (sha256,) in platform.rows("SELECT sha256 FROM uploads")}
    folder = platform.data_dir / "control/uploads"
    for path in folder.rglob("*") if folder.exists() else []:
        if path.is_file() and path.name not in uploads:
            found.append(f"upload {path.name}")
    return found


def nothing_left(platform, seconds=60):
    end = time.monotonic() + seconds
    while found := leftovers(platform):
        assert time.monotonic() < end, found
        time.sleep(0.2)


# Images.


@pytest.mark.parametrize(
    ("kind", "said"),
    [
        ("alters", "what the registry sent is not sha256:"),
        ("cuts", "retrieve"),
        ("refuses", "registry returned status code 500"),
        ("wants", "access denied to"),
        ("sends", "failed to pull image"),
        ("redirects", "failed to pull image"),
        ("babbles", ""),
        ("swells", "exceeds"),
    ],
)
def test_registries_that_lie(ours, lying, kind, said):
    ids, told = ours.build(fresh_name(), fromImage=f"{lying.host}/{kind}/image:1", seconds=120)
    assert told["status"] == "error" and told["reason"]["step"] == "base", told
    message = told["reason"]["message"]
    assert said in message and "internal error" not in message, message
    assert ours.delete(ids[0])[0] == 204


def test_a_stalled_download_can_be_cancelled(platform, ours, lying):
    name = fresh_name()
    ids = ours.begin(name, fromImage=f"{lying.host}/stalls/image:1")
    lying.was_asked("stalls", "blobs")
    begun = time.monotonic()
    newer, told = ours.build(name, [run("true")])
    assert told["status"] == "ready"
    told = ours.wait(*ids, 5)
    assert (told["status"], told["reason"]["message"]) == ("error", "build was cancelled")
    assert time.monotonic() - begun < 30
    ours.delete(ids[0])
    nothing_left(platform)


# Uploads.


def upload_socket(client, url, declared, content):
    """Begins a PUT by hand."""
    parts = urllib.parse.urlsplit(url)
    peer = socket.create_connection((client.at.hostname, client.at.port), timeout=30)
    target = f"{parts.path}?{parts.query}" if parts.query else parts.path
    head = f"PUT {target} HTTP/1.1\r\nHost: {parts.netloc}\r\nContent-Length: {declared}\r\n\r\n"
    peer.sendall(head.encode() + content)
    return peer


def test_uploads_that_are_cut_off(platform, ours):
    made = ours.request(fresh_name())
    name = raw_build.hashlib.sha256(uuid.uuid4().bytes).hexdigest()
    url = ours.link(made["templateID"], name)["url"]
    for sent in (0, 1, 3 << 20):
        upload_socket(ours, url, 4 << 20, os.urandom(sent)).close()
    nothing_left(platform)
    assert ours.link(made["templateID"], name)["present"] is False
    # One that is under way is not there yet, and harms no other.
    slow = upload_socket(ours, url, 1 << 20, bytes(1 << 19))
    assert ours.link(made["templateID"], name)["present"] is False
    whole = archive(entry("a", data=b"whole"))
    assert ours.put(url, whole)[0] // 100 == 2
    assert ours.link(made["templateID"], name)["present"] is True
    slow.close()
    step = raw_build.copy(".", "/home/user/copied", name)
    assert ours.trigger(made["templateID"], made["buildID"], fromImage="e2bdev/base", steps=[step])[0] == 202
    assert ours.wait(made["templateID"], made["buildID"])["status"] == "ready"
    assert content(platform, ours, made["templateID"], "/home/user/copied/a") == "whole"
    ours.delete(made["templateID"])
    nothing_left(platform)


def test_uploads_that_are_too_large(platform, ours):
    made = ours.request(fresh_name())
    name = "0" * 64
    url = ours.link(made["templateID"], name)["url"]
    much = (UPLOAD_MIB << 20) + 1
    peer = upload_socket(ours, url, much, b"")
    assert b" 413 " in peer.recv(4096).split(b"\r\n")[0]
    peer.close()
    # In chunks nobody says how much there will be.
    chunk = bytes(1 << 20)
    try:
        status = ours.put(url, (chunk for _ in range(UPLOAD_MIB + 2)))[0]
        assert status == 413
    except OSError:
        pass
    assert ours.link(made["templateID"], name)["present"] is False
    assert ours.put(url, bytes(UPLOAD_MIB << 20))[0] // 100 == 2
    ours.delete(made["templateID"])
    nothing_left(platform)


class Zeros(io.RawIOBase):
    def readable(self):
        return True

    def read(self, count=-1):
        return bytes(count)


def bomb(size):
    out = io.BytesIO()
    with gzip.GzipFile(fileobj=out, mode="wb", compresslevel=9) as packed:
        with tarfile.open(fileobj=packed, mode="w|") as tar:
            made = tarfile.TarInfo("zeros")
            made.size = size
            tar.addfile(made, Zeros())
    return out.getvalue()


def test_a_decompression_bomb(platform, ours):
    packed = bomb(2 * DISK_MIB << 20)
    assert len(packed) < UPLOAD_MIB << 20
    ids, told = ours.copied(packed, target="/srv/bomb", seconds=120)
    assert told["status"] == "error" and told["reason"]["step"] == "1", told
    assert "internal error" not in told["reason"]["message"], told
    assert ours.delete(ids[0])[0] == 204
    still_builds(ours)
    nothing_left(platform)


def test_a_step_that_fills_its_disk(platform, ours):
    command = "head -c 3G /dev/zero > /srv/much"
    ids, told = ours.build(fresh_name(), [run(command, "root")], seconds=120)
    assert told["status"] == "error" and told["reason"]["step"] == "1", told
    assert told["reason"]["message"] == f"failed to run command '{command}': exit status 1"
    assert any("space" in line or "quota" in line for line in ours.messages(*ids))
    ours.delete(ids[0])
    still_builds(ours)
    nothing_left(platform)


# Two teams.


def test_names_of_two_teams(platform, ours, theirs):
    """Section 7 of the specification, 5, 10 and 37; 1.4."""
    name = fresh_name()
    (mine, build), told = ours.build(name, [run("echo ours > said")])
    assert told["status"] == "ready"
    for reference in (mine, f"default/{name}", f"{mine}:{build}", name):
        with pytest.raises(e2b.SandboxException) as caught:
            started(platform, theirs, reference)
        assert caught.value.status_code == 404, reference
        ids, told = theirs.build(fresh_name(), fromTemplate=reference)
        assert told["status"] == "error" and told["reason"]["step"] == "base", told
        assert "not found" in told["reason"]["message"]
        assert theirs.delete(ids[0])[0] == 204
    # Nothing of it can be read or changed, by its id or its name.
    full = urllib.parse.quote(f"default/{name}", safe="")
    for method, path, body, statuses in [
        ("GET", f"/templates/{mine}", None, (403,)),
        ("GET", f"/templates/{mine}/tags", None, (403,)),
        ("GET", f"/templates/{name}/tags", None, (404,)),
        ("GET", f"/templates/{mine}/builds/{build}/status", None, (403,)),
        ("GET", f"/templates/{mine}/builds/{build}/logs", None, (403,)),
        ("GET", f"/templates/{mine}/files/{'0' * 64}", None, (404,)),
        ("GET", f"/templates/aliases/{name}", None, (404,)),
        ("GET", f"/templates/aliases/{full}", None, (400,)),
        ("POST", f"/v2/templates/{mine}/builds/{build}", {"fromImage": "e2bdev/base"}, (403,)),
        ("POST", "/v3/templates", {"name": f"default/{name}"}, (400,)),
        ("POST", "/templates/tags", {"target": name, "tags": ["x"]}, (404,)),
        ("POST", "/templates/tags", {"target": mine, "tags": ["x"]}, (403, 404)),
        ("POST", "/templates/tags", {"target": f"default/{name}", "tags": ["x"]}, (400,)),
        ("DELETE", "/templates/tags", {"name": mine, "tags": ["x"]}, (403, 404)),
        ("PATCH", f"/v2/templates/{mine}", {"public": True}, (403,)),
        ("PATCH", f"/v2/templates/{name}", {"public": True}, (404,)),
        ("DELETE", f"/templates/{mine}", None, (403,)),
        ("DELETE", f"/templates/{name}", None, (404,)),
    ]:
        status, told = theirs.ask(method, path, body)
        assert status in statuses, (method, path, status, told)
    assert mine not in [item["templateID"] for item in theirs.ask("GET", "/templates")[1]]
    # A name of theirs is another template.
    (other, _), told = theirs.build(name, [run("echo theirs > said")])
    assert told["status"] == "ready" and other != mine
    said = {client: content(platform, client, name, "/home/user/said") for client in (ours, theirs)}
    assert said == {ours: "ours\n", theirs: "theirs\n"}
    # Public: to start and to build on, and nothing more.
    assert ours.ask("PATCH", f"/v2/templates/{name}", {"public": True})[0] == 200
    for reference in (f"default/{name}", mine):
        assert content(platform, theirs, reference, "/home/user/said") == "ours\n"
    child, told = theirs.build(fresh_name(), [run("cat said > child")], fromTemplate=f"default/{name}")
    assert told["status"] == "ready"
    assert theirs.ask("PATCH", f"/v2/templates/{mine}", {"public": False})[0] == 403
    assert theirs.delete(mine)[0] == 403
    assert ours.ask("PATCH", f"/v2/templates/{name}", {"public": False})[0] == 200
    with pytest.raises(e2b.SandboxException):
        started(platform, theirs, f"default/{name}")
    # What they built on it stays theirs.
    assert ours.delete(mine)[0] == 204
    assert content(platform, theirs, child[0], "/home/user/child") == "ours\n"
    for template in (other, child[0]):
        assert theirs.delete(template)[0] == 204


def test_a_running_sandbox_of_another_team_hinders_no_delete(platform, ours, theirs):
    name = fresh_name()
    (mine, _), told = ours.build(name, [run("echo ours > said")])
    assert ours.ask("PATCH", f"/v2/templates/{name}", {"public": True})[0] == 200
    sandbox = started(platform, theirs, f"default/{name}")
    assert ours.delete(name)[0] == 204
    assert sandbox.files.read("/home/user/said") == "ours\n"
    sandbox.pause()
    sandbox.connect()
    assert sandbox.files.read("/home/user/said") == "ours\n"
    sandbox.kill()


def test_uploads_and_layers_of_two_teams(platform, ours, theirs):
    """Section 7, 11: what one team sent or built is never another's."""
    files_hash = raw_build.hashlib.sha256(uuid.uuid4().bytes).hexdigest()
    nonce = uuid.uuid4().hex
    step = run(f"cat /proc/sys/kernel/random/uuid > built # {nonce}")
    templates = {}
    for client, said in ((ours, b"ours"), (theirs, b"theirs")):
        made = client.request(fresh_name())
        ids = made["templateID"], made["buildID"]
        templates[client] = ids[0]
        link = client.link(ids[0], files_hash)
        assert link["present"] is False
        if client is theirs:
            # What the other team has under this hash is not had by naming it.
            early = client.request(fresh_name())
            copied = raw_build.copy(".", "/home/user/copied", files_hash)
            steps = {"fromImage": "e2bdev/base", "steps": [copied]}
            assert client.trigger(early["templateID"], early["buildID"], **steps)[0] == 202
            told = client.wait(early["templateID"], early["buildID"])
            assert told["status"] == "error" and told["reason"]["step"] == "1", told
            client.delete(early["templateID"])
        assert client.put(link["url"], archive(entry("said", data=said)))[0] // 100 == 2
        steps = [step, raw_build.copy(".", "/home/user/copied", files_hash)]
        assert client.trigger(*ids, fromImage="e2bdev/base", steps=steps)[0] == 202
        told = client.wait(*ids)
        assert told["status"] == "ready", told
        messages = client.messages(*ids)
        assert not any(line.startswith("CACHED [builder ") for line in messages)
    built = {client: content(platform, client, id, "/home/user/built") for client, id in templates.items()}
    assert built[ours] != built[theirs]
    for client, said in ((ours, "ours"), (theirs, "theirs")):
        assert content(platform, client, templates[client], "/home/user/copied/said") == said
        assert client.delete(templates[client])[0] == 204
    # A link carries its team: whoever has it puts files where that team looks, and nowhere else.
    mine, other = ours.request(fresh_name()), theirs.request(fresh_name())
    name = raw_build.hashlib.sha256(uuid.uuid4().bytes).hexdigest()
    assert theirs.put(ours.link(mine["templateID"], name)["url"], archive(entry("a")))[0] // 100 == 2
    assert ours.link(mine["templateID"], name)["present"] is True
    assert theirs.link(other["templateID"], name)["present"] is False
    ours.delete(mine["templateID"])
    theirs.delete(other["templateID"])


def test_an_image_with_a_password_is_not_anothers(platform, ours, theirs):
    image = f"{os.environ['CASEMATE_TEST_REGISTRY_PRIVATE']}/debian:12"
    login = {
        "type": "registry",
        "username": os.environ["CASEMATE_TEST_REGISTRY_USER"],
        "password": os.environ["CASEMATE_TEST_REGISTRY_PASSWORD"],
    }
    ids, told = ours.build(fresh_name(), fromImage=image, fromImageRegistry=login, seconds=120)
    assert told["status"] == "ready", told
    other, told = theirs.build(fresh_name(), fromImage=image)
    assert told["status"] == "error" and told["reason"]["message"].startswith("access denied to"), told
    ours.delete(ids[0])
    theirs.delete(other[0])


def test_builds_at_once_are_counted(ours):
    """Section 7, 31."""
    made = [ours.request(fresh_name())["templateID"] for _ in range(20)]
    status, told = ours.ask("POST", "/v3/templates", {"name": fresh_name()})
    assert status == 429 and "maximum number of concurrent template builds (20)" in told["message"]
    for template in made:
        assert ours.delete(template)[0] == 204
    still_builds(ours)


# Deaths.


def control_of(platform):
    """The control process, when it is there."""
    return next((pid for pid, role in platform.lasting().items() if role == "control"), None)


def kill_control(platform):
    pid = control_of(platform)
    os.kill(pid, signal.SIGKILL)
    host.until("another control process", lambda: control_of(platform) not in (None, pid))
    host.until("an answer", lambda: platform.get("/ready")[0] == 200, 60)


def kill_everything(platform):
    platform.kill_all()
    platform.up()


def in_base(ours, lying, name):
    lying.asked.clear()
    ids = ours.begin(name, fromImage=f"{lying.host}/stalls/image:{uuid.uuid4().hex[:8]}", force=True)
    lying.was_asked("stalls", "manifests")
    return ids


def never_seen_image():
    """The same layers under another manifest: no earlier build has unpacked it."""
    registry = push.Registry(os.environ["CASEMATE_TEST_REGISTRY"])
    manifest = registry.json("/v2/debian/manifests/12", DOCKER_MANIFEST)
    config = registry.json(f"/v2/debian/blobs/{manifest['config']['digest']}")
    tag = uuid.uuid4().hex
    config["config"]["Env"].append(f"TAG={tag}")
    manifest["config"] = registry.json_blob("debian", config, manifest["config"]["mediaType"])
    registry.manifest("debian", tag, manifest)
    return f"{registry.host}/debian:{tag}"


def in_unpacking(ours, lying, name):
    ids = ours.begin(name, fromImage=never_seen_image())
    # Hundreds of megabytes are on their way into a sandbox.
    ours.until_said(*ids, "Uncompressing layer")
    return ids


def in_step(ours, lying, name):
    ids = ours.begin(name, [run("echo first > first"), run(f"echo begun; sleep 600 # {name}")])
    ours.until_said(*ids, "[stdout]: begun")
    return ids


def in_copy(ours, lying, name):
    made = ours.request(name)
    ids = made["templateID"], made["buildID"]
    files = ours.upload(ids[0], archive(*(entry(f"{number}", data=b"x") for number in range(30_000))))
    steps = [raw_build.copy(".", "/srv/many", files)]
    assert ours.trigger(*ids, fromImage="e2bdev/base", steps=steps)[0] == 202
    ours.until_said(*ids, "[builder 1/1] COPY")
    return ids


def in_start(ours, lying, name):
    ids = ours.begin(name, [run("true")], startCmd="echo begun; sleep 600", readyCmd="false")
    ours.until_said(*ids, "[start] [stdout]: begun")
    return ids


PHASES = [in_base, in_unpacking, in_step, in_copy, in_start]


@pytest.mark.parametrize("kill", [kill_control, kill_everything])
@pytest.mark.parametrize("phase", PHASES)
def test_deaths_in_each_phase(platform, ours, lying, phase, kill):
    name = fresh_name()
    before, told = ours.build(name, [run(f"echo before > said # {name}")])
    assert told["status"] == "ready"
    ids = phase(ours, lying, name)
    kill(platform)
    told = ours.wait(*ids)
    assert told["status"] == "error" and "interrupted" in told["reason"]["message"], told
    nothing_left(platform)
    # Who asks for the name has what was built before; the same recipe can be built again.
    assert content(platform, ours, name, "/home/user/said") == "before\n"
    again, told = ours.build(name, [run(f"echo again > said # {name}")])
    assert told["status"] == "ready", told
    assert content(platform, ours, name, "/home/user/said") == "again\n"
    assert ours.delete(ids[0])[0] == 204


@pytest.mark.parametrize("kill", [kill_control, kill_everything])
def test_a_death_while_a_build_waits(platform, ours, kill):
    """Nothing of it is in memory: it goes on, with its upload."""
    made = ours.request(fresh_name())
    ids = made["templateID"], made["buildID"]
    files = ours.upload(ids[0], archive(entry("a", data=b"kept")))
    cut = upload_socket(ours, ours.link(ids[0], "1" * 64)["url"], 1 << 20, bytes(1 << 19))
    kill(platform)
    cut.close()
    assert ours.status(*ids)["status"] == "waiting"
    assert ours.link(ids[0], files)["present"] is True
    steps = [raw_build.copy(".", "/home/user/copied", files)]
    assert ours.trigger(*ids, fromImage="e2bdev/base", steps=steps)[0] == 202
    assert ours.wait(*ids)["status"] == "ready"
    assert content(platform, ours, ids[0], "/home/user/copied/a") == "kept"
    ours.delete(ids[0])
    nothing_left(platform)


def test_templates_and_the_cache_outlive_everything(platform, ours):
    name, nonce = fresh_name(), uuid.uuid4().hex
    steps = [run(f"cat /proc/sys/kernel/random/uuid > said # {nonce}")]
    ids, told = ours.build(name, steps, startCmd="touch /tmp/up; sleep 600", readyCmd="test -e /tmp/up")
    assert told["status"] == "ready"
    said = content(platform, ours, name, "/home/user/said")
    kill_everything(platform)
    assert content(platform, ours, name, "/home/user/said") == said
    assert content(platform, ours, name, "/tmp/up") == ""
    assert ours.messages(*ids)[-1].startswith("Build finished")
    again, told = ours.build(name, steps)
    assert any(line.startswith("CACHED [builder 1/1]") for line in ours.messages(*again))
    assert content(platform, ours, name, "/home/user/said") == said
    ours.delete(ids[0])


# Ends by order.


@pytest.mark.parametrize("phase", PHASES)
def test_newer_builds_and_deletes_in_each_phase(platform, ours, lying, phase):
    name = fresh_name()
    older = phase(ours, lying, name)
    newer = phase(ours, lying, name)
    told = ours.wait(*older, 20)
    assert told["status"] == "error" and told["reason"]["message"] == "build was cancelled", told
    assert ours.delete(newer[0])[0] == 204
    assert ours.ask("GET", f"/templates/{newer[0]}/builds/{newer[1]}/status")[0] in (400, 403, 404)
    assert ours.ask("GET", f"/templates/aliases/{name}")[0] == 404
    still_builds(ours)
    host.until("no sandbox of a build", lambda: not list((platform.data_dir / "node/journal").iterdir()), 30)
