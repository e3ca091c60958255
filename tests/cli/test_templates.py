"""`casemate template`: Dockerfiles become templates.

CASEMATE names the program; what leads to the platform is in the environment. All recipes begin with
the platform's own base, so that no registry is needed.
"""

import json
import os
import pathlib
import signal
import subprocess
import time
import uuid

import pytest

CASEMATE = os.environ["CASEMATE"]
TEMPLATES = pathlib.Path(__file__).parents[2] / "templates"


def casemate(*args, check=0, timeout=180):
    """Runs a verb, which must end with `check`; answers what it wrote."""
    ran = subprocess.run([CASEMATE, *args], stdin=subprocess.DEVNULL, capture_output=True,
                         text=True, timeout=timeout)
    assert ran.returncode == check, (args, ran.returncode, ran.stdout[-500:], ran.stderr[-2000:])
    return ran


def answer(*args, **options):
    return json.loads(casemate("--json", *args, **options).stdout)


@pytest.fixture
def name():
    name = f"cli-{uuid.uuid4().hex[:12]}"
    yield name
    subprocess.run([CASEMATE, "template", "delete", name], capture_output=True, timeout=60)


@pytest.fixture
def context(tmp_path):
    """A folder with a Dockerfile of these lines, and files."""
    def make(*lines, **files):
        (tmp_path / "Dockerfile").write_text("\n".join(["FROM e2bdev/base", *lines, ""]))
        for file, content in files.items():
            (tmp_path / file).write_text(content)
        return str(tmp_path)
    return make


def in_sandbox(template, script):
    made = answer("sandbox", "create", "--template", template, "--timeout", "120")
    try:
        return casemate("sandbox", "exec", made["sandboxID"], "--", "sh", "-c", script).stdout
    finally:
        casemate("sandbox", "kill", made["sandboxID"])


def test_a_dockerfile_becomes_a_template(name, context, tmp_path):
    folder = context(
        "ENV WHAT='a b'",
        "WORKDIR /app",
        "COPY --chown=user --chmod=640 one two /app/in/",
        "COPY <<EOF /app/made",
        "what is $WHAT",
        "EOF",
        'RUN ["touch", "it\'s there"]',
        "RUN <<END",
        "cat /app/in/one /app/made > /app/all",
        "END",
        "USER user",
        "EXPOSE 80",
        one="1\n", two="2\n", three="3\n")
    (tmp_path / ".dockerignore").write_text("t*\n!two\n")
    built = casemate("template", "build", "--context", folder, name, "--cpu", "1", "--memory", "256")
    assert built.stdout.startswith("built ") and name in built.stdout
    assert "Dockerfile:13: EXPOSE has no effect" in built.stderr
    assert "RUN" in built.stderr and "\x1b" not in built.stderr
    said = in_sandbox(name, "id -un; pwd; cat all; ls; stat -c '%a %U' in/one")
    assert said == "user\n/app\n1\nwhat is a b\nall\nin\nit's there\nmade\n640 user\n"
    row = next(row for row in answer("template", "list") if name in row["aliases"])
    assert (row["cpuCount"], row["memoryMB"], row["buildStatus"]) == (1, 256, "ready")
    assert name in casemate("template", "list").stdout

    again = casemate("template", "build", "--context", folder, name)
    assert again.stderr.count("CACHED [builder") >= 6, again.stderr
    anew = casemate("template", "build", "--context", folder, name, "--no-cache")
    assert "CACHED [builder" not in anew.stderr


def test_tags_and_logs(name, context, tmp_path):
    folder = context("RUN echo in v1")
    first = answer("template", "build", "--context", folder, f"{name}:v1", "--tag", "old")
    assert sorted(first["tags"]) == ["old", "v1"] and first["status"] == "ready"
    other = tmp_path / "other"
    other.write_text("FROM e2bdev/base\nRUN echo in v2; echo -e '\\033[31mred\\033[0m' >&2\n")
    second = answer("template", "build", "-f", str(other), "--context", folder, f"{name}:v2")
    for asked, expected in [(f"{name}:old", "in v1"), (f"{name}:v2", "in v2"), (name, "in v2"),
                            (first["buildID"], "in v1"), (f"{name}:{second['buildID']}", "in v2")]:
        said = casemate("template", "logs", asked).stdout
        assert expected in said and "\x1b" not in said, (asked, said)
    entries = answer("template", "logs", name)
    assert {"info"} <= {entry["level"] for entry in entries}
    errors = answer("template", "logs", name, "--level", "error")
    assert all(entry["level"] == "error" for entry in errors)
    gone = casemate("template", "logs", f"{name}:v3", check=1)
    assert f"the template {name} has no tag v3" in gone.stderr
    nobody = casemate("template", "logs", str(uuid.uuid4()), check=1)
    assert "there is no build" in nobody.stderr
    assert "there is no template nobody-1" in casemate("template", "logs", "nobody-1", check=1).stderr


def test_a_failing_step_is_named_with_its_line(name, context):
    folder = context("", "# nothing", "RUN echo so far", "RUN echo said before; exit 3")
    failed = casemate("template", "build", "--context", folder, name, check=1)
    last = failed.stderr.strip().splitlines()[-1]
    assert "Dockerfile:5: " in last and "exit status 3" in last, failed.stderr
    assert "said before" in failed.stderr
    in_json = casemate("--json", "template", "build", "--context", folder, name, check=1)
    said = json.loads(in_json.stdout)
    assert said["status"] == "error" and "exit status 3" in said["reason"]


def test_what_cannot_be_built_is_refused_before_the_server_hears_of_it(name, context):
    for lines, expected in [
        (["RUN x", "FROM y"], "line 3: a second FROM"),
        (["COPY --from=a /b /c"], "line 2: COPY --from is not supported"),
        (["NOTHING"], "line 2: unknown instruction: NOTHING"),
        (["COPY ../x /y"], "path escapes the context directory"),
        (["COPY nothing /y"], "Dockerfile:2: No files found in"),
    ]:
        failed = casemate("template", "build", "--context", context(*lines), name, check=1)
        assert expected in failed.stderr, failed.stderr
    casemate("template", "build", "--context", "/nowhere", name, check=1)
    assert not any(name in row["aliases"] for row in answer("template", "list"))


def test_ctrl_c_leaves_the_build_and_says_how_to_go_on(name, context):
    folder = context("RUN echo begun; sleep 5")
    command = [CASEMATE, "template", "build", "--context", folder, name]
    with subprocess.Popen(command, stdin=subprocess.DEVNULL, stderr=subprocess.PIPE,
                          text=True) as running:
        for line in running.stderr:
            if "[builder 1/" in line:
                break
        running.send_signal(signal.SIGINT)
        rest = running.stderr.read()
        assert running.wait(20) == 130
    assert "the build goes on: `casemate template logs" in rest
    end = time.monotonic() + 60
    while True:
        row = next(row for row in answer("template", "list") if name in row["aliases"])
        if row["buildStatus"] == "ready":
            break
        assert time.monotonic() < end, row
        time.sleep(0.2)


def test_a_start_command_runs_in_each_sandbox(name, context):
    source = (TEMPLATES / "httpbin" / "httpbin.py").read_text()
    folder = context("COPY httpbin.py /opt/httpbin/httpbin.py", "USER user",
                     'CMD ["python3", "/opt/httpbin/httpbin.py"]', **{"httpbin.py": source})
    ready = "curl -fs http://127.0.0.1:8080/health"
    casemate("template", "build", "--context", folder, "--ready", ready, name)
    script = """for try in $(seq 100); do curl -fs localhost:8080/health >/dev/null && break; sleep 0.1; done
        curl -s -X PUT -d hello 'localhost:8080/anything/x?a=1'
        curl -s -o /dev/null -w '%{http_code} ' localhost:8080/status/418
        curl -s -o /dev/null -w '%{http_code}' localhost:8080/nothing"""
    said = in_sandbox(name, script)
    body, statuses = said.rsplit("}\n", 1)
    body = json.loads(body + "}")
    assert (body["method"], body["data"], body["args"]) == ("PUT", "hello", {"a": ["1"]})
    assert statuses == "418 404"


def test_set_publishes_and_moves_tags(name, context, tmp_path):
    folder = context("RUN echo one > /what")
    first = answer("template", "build", "--context", folder, name)
    other = tmp_path / "other"
    other.write_text("FROM e2bdev/base\nRUN echo two > /what\n")
    second = answer("template", "build", "-f", str(other), "--context", folder, f"{name}:v2")
    said = casemate("template", "set", name, "--tag", "stable", "--tag", "v1").stdout
    assert first["buildID"] in said and "stable, v1" in said
    assert in_sandbox(f"{name}:stable", "cat /what") == "one\n"
    moved = answer("template", "set", f"{name}:v2", "--tag", "stable", "--remove-tag", "v1", "--public")
    assert (moved["buildID"], moved["public"]) == (second["buildID"], True)
    assert in_sandbox(f"{name}:stable", "cat /what") == "two\n"
    casemate("sandbox", "create", "--template", f"{name}:v1", check=1)
    row = next(row for row in answer("template", "list") if name in row["aliases"])
    assert row["public"] is True
    casemate("template", "set", f"{name}:{second['buildID']}", "--tag", "default")
    assert in_sandbox(name, "cat /what") == "two\n"
    private = answer("template", "set", name, "--private")
    assert private["public"] is False and private["names"][0].endswith(f"/{name}")
    row = next(row for row in answer("template", "list") if name in row["aliases"])
    assert row["public"] is False


def test_set_refuses_what_cannot_be_and_then_changes_nothing(name, context):
    casemate("template", "build", "--context", context(), name)
    casemate("template", "set", name, check=2)
    casemate("template", "set", name, "--public", "--private", check=2)
    for args, expected in [
        ((f"{name}:none", "--tag", "a", "--public"), "with tag 'none' not found"),
        ((name, "--tag", "a b", "--public"), "Invalid tag"),
        ((name, "--remove-tag", "default", "--public"), "Cannot delete the 'default' tag"),
        (("nobody-1", "--public"), "not found"),
        (("base", "--private"), "access"),
    ]:
        assert expected in casemate("template", "set", *args, check=1).stderr, args
    row = next(row for row in answer("template", "list") if name in row["aliases"])
    assert row["public"] is False


def test_gc_gives_room_back_and_takes_nothing_that_is_needed(name, context, tmp_path):
    folder = context("COPY big /big", "RUN cat /big /big > /twice", "RUN rm /twice",
                     big="0123456789abcdef" * 65536)
    # What a client that asked for a build may have sent stays, and other suites ask without building.
    for row in answer("template", "list"):
        if row["buildStatus"] in ("waiting", "building"):
            casemate("template", "delete", row["templateID"])
    first = answer("template", "build", "--context", folder, name)
    (tmp_path / "big").write_text("other")
    answer("template", "build", "--context", folder, name)
    recent = answer("template", "gc", "--older-than", "1h", "--dry-run")
    assert (recent["uploads"], recent["builds"]) == (0, 0)
    before = answer("template", "gc", "--dry-run")
    assert before["steps"] >= 4 and before["uploads"] >= 2 and before["builds"] >= 1
    assert before["layers"] >= 1 and before["bytes"] > 0
    assert answer("template", "gc", "--dry-run") == before
    gone = casemate("template", "gc").stdout
    assert gone.startswith(f"removed {before['steps']} results of steps, "), gone
    assert answer("template", "gc")["steps"] == 0
    casemate("sandbox", "create", "--template", f"{name}:{first['buildID']}", check=1)
    assert in_sandbox(name, "cat /big; ls /twice 2>&1 | wc -l") == "other1\n"
    anew = casemate("template", "build", "--context", folder, name)
    assert "built " in anew.stdout
    wrong = casemate("template", "gc", "--older-than", "1w", check=2)
    assert "such as 7d" in wrong.stderr


def test_delete(name, context):
    casemate("template", "build", "--context", context(), name)
    assert casemate("template", "delete", name).stdout == f"deleted {name}\n"
    assert f"there is no template {name}" in casemate("template", "delete", name, check=1).stderr
