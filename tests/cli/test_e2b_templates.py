"""The `template` commands of E2B's own command line against a running platform."""

import json
import subprocess
import sys
import uuid

import pytest

# The environment is a fixture.
from test_e2b import E2B, environment  # noqa: F401

DOCKERFILE = """\
FROM ubuntu:22.04
ENV GREETING=hello
WORKDIR /srv/app
COPY page ./page
RUN echo $GREETING > greeting
"""


@pytest.fixture(scope="module")
def e2b(environment):  # noqa: F811
    def run(*args, check=0, cwd=None):
        ran = subprocess.run(
            [E2B, *args], stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=180, env=environment, cwd=cwd
        )
        assert ran.returncode == check, (args, ran.returncode, ran.stdout[-1500:], ran.stderr[-1500:])
        return ran

    return run


@pytest.fixture
def folder(tmp_path):
    (tmp_path / "page").mkdir()
    (tmp_path / "page/index.html").write_text("served")
    (tmp_path / "e2b.Dockerfile").write_text(DOCKERFILE)
    return tmp_path


def fresh_name():
    return f"cli-{uuid.uuid4().hex[:8]}"


def listed(e2b, name):
    """What the list says of a template."""
    found = json.loads(e2b("template", "list", "-f", "json").stdout)
    return next((item for item in found if name in item["aliases"]), None)


def test_create_list_and_delete(e2b, folder):
    """Section 7, 42."""
    name = fresh_name()
    start = "cd /srv/app/page && python3 -m http.server 8800"
    options = ["-p", str(folder), "-c", start, "--ready-cmd", "curl -sf http://localhost:8800/"]
    options += ["--cpu-count", "1", "--memory-mb", "512"]
    said = e2b("template", "create", *options, name).stdout
    assert f"Requesting build for template: {name}" in said and "[builder 1/" in said
    item = listed(e2b, name)
    assert (item["buildStatus"], item["cpuCount"], item["memoryMB"], item["public"]) == ("ready", 1, 512, False)
    assert item["names"] == [f"default/{name}"] and item["createdBy"] is None
    shown = e2b("template", "list").stdout
    assert name in shown and item["templateID"] in shown and item["envdVersion"] in shown
    made = e2b("sandbox", "create", "--detach", name).stdout.strip()
    seen = "id -un; pwd; cat /srv/app/greeting; curl -s http://localhost:8800/index.html"
    assert e2b("sandbox", "exec", made, "sh", "-c", seen).stdout == "user\n/srv/app\nhello\nserved"
    refused = e2b("template", "delete", "-y", name, check=1)
    assert "running sandboxes using it" in refused.stdout + refused.stderr
    e2b("sandbox", "kill", made)
    # Again, and once more from another folder by its Dockerfile's name.
    assert "CACHED [builder 1/" in e2b("template", "create", *options, name).stdout
    (folder / "other").write_text("FROM e2bdev/base\nRUN echo other > other\n")
    e2b("template", "ct", "-d", "other", "--no-cache", name, cwd=folder)
    assert listed(e2b, name)["buildCount"] == 3
    e2b("template", "delete", "-y", name)
    assert listed(e2b, name) is None
    gone = e2b("template", "delete", "-y", name, check=1)
    assert "404" in gone.stdout + gone.stderr and "not found" in gone.stdout + gone.stderr


def test_publish_and_unpublish(e2b, folder):
    name = fresh_name()
    e2b("template", "create", "-p", str(folder), name)
    said = e2b("template", "publish", "-y", name).stdout
    assert f"default/{name}" in said and listed(e2b, name)["public"] is True
    e2b("template", "unpublish", "-y", name)
    assert listed(e2b, name)["public"] is False
    missing = e2b("template", "publish", "-y", fresh_name(), check=1)
    assert "not found" in missing.stdout + missing.stderr
    e2b("template", "delete", "-y", listed(e2b, name)["templateID"])


def test_a_build_that_fails(e2b, folder):
    name = fresh_name()
    (folder / "e2b.Dockerfile").write_text("FROM e2bdev/base\nRUN echo why >&2; exit 7\n")
    ran = e2b("template", "create", "-p", str(folder), name, check=1)
    said = ran.stdout + ran.stderr
    assert "failed to run command 'echo why >&2; exit 7': exit status 7" in said and "[stderr]: why" in said
    (folder / "e2b.Dockerfile").write_text("FROM debian:no-such-tag\n")
    ran = e2b("template", "create", "-p", str(folder), name, check=1)
    assert "not found" in ran.stdout + ran.stderr
    assert listed(e2b, name)["buildStatus"] == "error"
    e2b("template", "delete", "-y", name)
    # Refused before anything is asked.
    e2b("template", "create", "-p", str(folder), "Not a name!", check=1)
    e2b("template", "create", "-p", str(folder), "-c", "true", name, check=1)
    (folder / "e2b.Dockerfile").unlink()
    e2b("template", "create", "-p", str(folder), name, check=1)
    assert listed(e2b, name) is None
    # What came before it is not taught any more, and says so itself.
    e2b("template", "build", check=1)


def build_of(folder, script, environment):  # noqa: F811
    """Runs what the command line wrote."""
    ran = subprocess.run(
        [sys.executable, script], cwd=folder, env=environment, capture_output=True, text=True, timeout=120
    )
    assert ran.returncode == 0, (ran.stdout[-1500:], ran.stderr[-1500:])


def test_init_writes_what_can_be_built(e2b, environment, tmp_path):  # noqa: F811
    name = fresh_name()
    e2b("template", "init", "-p", str(tmp_path), "-n", name, "-l", "python-sync")
    build_of(tmp_path / name, "build_prod.py", environment)
    assert listed(e2b, name)["buildStatus"] == "ready"
    e2b("template", "delete", "-y", name)
    for language, file in [("typescript", "template.ts"), ("python-async", "template.py")]:
        other = fresh_name()
        e2b("template", "init", "-p", str(tmp_path), "-n", other, "-l", language)
        assert (tmp_path / other / file).exists()


def test_migrate_writes_what_can_be_built(e2b, environment, folder):  # noqa: F811
    name = fresh_name()
    (folder / "e2b.toml").write_text(
        f'template_id = "of-old"\ntemplate_name = "{name}"\ndockerfile = "e2b.Dockerfile"\n'
        'start_cmd = "sleep 4390"\nready_cmd = "true"\ncpu_count = 1\nmemory_mb = 256\n'
    )
    e2b("template", "migrate", "-p", str(folder), "-l", "python-sync")
    assert (folder / "e2b.toml.old").exists() and not (folder / "e2b.toml").exists()
    build_of(folder, "build_prod.py", environment)
    item = listed(e2b, name)
    assert (item["buildStatus"], item["cpuCount"], item["memoryMB"]) == ("ready", 1, 256)
    made = e2b("sandbox", "create", "-d", name).stdout.strip()
    assert e2b("sandbox", "exec", made, "cat", "/srv/app/greeting", "page/index.html").stdout == "hello\nserved"
    e2b("sandbox", "exec", made, "pgrep", "-f", "sleep 4390")
    e2b("sandbox", "kill", made)
    e2b("template", "delete", "-y", name)
