"""Logins to registries that a recipe gave: while a build runs and when it is over, nothing of them is in
the data directory, in a log, in an answer or in a list of processes."""

import base64
import json
import os
import pathlib
import uuid

import pytest

import raw_build
from instance import running

AWS, GCP = os.environ["CASEMATE_TEST_AWS_REGISTRY"], os.environ["CASEMATE_TEST_GCP_REGISTRY"]
KEY, SECRET, REGION = json.loads(os.environ["CASEMATE_TEST_AWS"])
ACCOUNT = json.loads(os.environ["CASEMATE_TEST_GCP"])
PRIVATE = os.environ["CASEMATE_TEST_REGISTRY_PRIVATE"]
USER, PASSWORD = os.environ["CASEMATE_TEST_REGISTRY_USER"], os.environ["CASEMATE_TEST_REGISTRY_PASSWORD"]
GUESS = "a-guess-that-is-wrong"
CHUNK = 1 << 20

LOGINS = {
    AWS: {"type": "aws", "awsAccessKeyId": KEY, "awsSecretAccessKey": SECRET, "awsRegion": REGION},
    GCP: {"type": "gcp", "serviceAccountJson": json.dumps(ACCOUNT)},
    PRIVATE: {"type": "registry", "username": USER, "password": PASSWORD},
}
WRONG = {
    AWS: {"type": "aws", "awsAccessKeyId": KEY, "awsSecretAccessKey": GUESS, "awsRegion": REGION},
    GCP: {"type": "gcp", "serviceAccountJson": json.dumps({**ACCOUNT, "private_key": GUESS})},
    PRIVATE: {"type": "registry", "username": USER, "password": GUESS},
}


def forms():
    """Each secret as it is, and as a header or another text would carry it."""
    texts = [SECRET, KEY, GUESS, PASSWORD, ACCOUNT["private_key"].split("\n")[1], json.dumps(ACCOUNT)[1:-1]]
    plain = [text.encode() for text in texts]
    basic = (f"_json_key:{json.dumps(ACCOUNT)}", f"{USER}:{PASSWORD}")
    return plain + [base64.b64encode(text.encode())[:60].rstrip(b"=") for text in basic]


def found_in(content, where):
    return [f"{text[:12]!r}… in {where}" for text in forms() if text in content]


def in_file(path):
    """Read by pieces that overlap, so that nothing is cut in two."""
    found, kept = [], b""
    try:
        with open(path, "rb") as file:
            while data := file.read(CHUNK):
                found += found_in(kept + data, path)
                kept = data[-8192:]
    except OSError:
        # It went meanwhile.
        pass
    return found


def on_disk(platform):
    found = in_file(platform.log)
    # The pool and the layers are the disks of sandboxes, who are told of no login.
    disks = {platform.data_dir / "node/pool.img", platform.data_dir / "node/layers"}
    for path in platform.data_dir.rglob("*"):
        if disks.isdisjoint([path, *path.parents]) and path.is_file() and not path.is_symlink():
            found += in_file(path)
    return found


def in_processes(platform):
    found = []
    for pid in [platform.pid, *platform.processes()]:
        for name in ("cmdline", "environ"):
            try:
                found += found_in(pathlib.Path(f"/proc/{pid}/{name}").read_bytes(), f"{name} of {pid}")
            except OSError:
                # It went meanwhile.
                pass
    return found


@pytest.fixture(scope="module")
def platform():
    with running("logins", config=os.environ["CASEMATE_TEST_REGISTRY_CONFIG"], CASEMATE_LOG_LEVEL="debug") as made:
        yield made


@pytest.mark.parametrize("registry", LOGINS, ids=["aws", "gcp", "basic"])
def test_nothing_of_a_login_is_kept(platform, registry):
    client = raw_build.Client(platform.url, platform.credentials()["E2B_API_KEY"])
    begin = lambda login, **more: client.begin(
        f"l-{uuid.uuid4().hex[:10]}", fromImage=f"{registry}/debian:12", fromImageRegistry=login, force=True, **more
    )
    wrong = begin(WRONG[registry])
    told = client.wait(*wrong, 60)
    assert told["status"] == "error" and told["reason"]["message"].startswith("access denied to"), told
    # Looked at while its steps run, too.
    right = begin(LOGINS[registry], steps=[raw_build.run("env; cat /proc/[0-9]*/environ | tr '\\0' '\\n'; echo begun; sleep 3", "root")])
    client.until_said(*right, "[stdout]: begun")
    assert in_processes(platform) == []
    told = client.wait(*right, 120)
    assert told["status"] == "ready", told
    answers = [client.status(*ids) for ids in (wrong, right)]
    answers += [client.ask("GET", path)[1] for path in ("/templates", f"/templates/{right[0]}")]
    said = [client.messages(*ids) for ids in (wrong, right)]
    assert found_in(json.dumps([answers, said]).encode(), "answers") == []
    assert on_disk(platform) == []
    # What looks for it would find it.
    (platform.data_dir / "planted").write_bytes(b"x" * (CHUNK - 5) + forms()[0])
    assert len(on_disk(platform)) == 1
    (platform.data_dir / "planted").unlink()
    for ids in (wrong, right):
        assert client.delete(ids[0])[0] == 204
