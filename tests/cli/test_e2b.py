"""E2B's own command line (`@e2b/cli`, as locked in `e2b/`) against a running platform. It brings an
older SDK of its own, and so calls the first versions of create and connect.

Of the environment in the platform's credentials.env what leads there is set, over http or https.
"""

import json
import os
import pathlib
import re
import subprocess
import time
import uuid

import pytest

from test_cli import Terminal

E2B = str(pathlib.Path(__file__).parent / "e2b/node_modules/.bin/e2b")


@pytest.fixture(scope="module")
def environment(tmp_path_factory):
    """Nothing of the caller's home: what a login left there would be taken for us."""
    home = str(tmp_path_factory.mktemp("home"))
    return {**os.environ, "HOME": home, "NO_UPDATE_NOTIFIER": "1", "NO_COLOR": "1"}


@pytest.fixture(scope="module")
def e2b(environment):
    def run(*args, check=0, stdin=""):
        ran = subprocess.run(
            [E2B, "sandbox", *args], input=stdin, capture_output=True, text=True, timeout=60, env=environment
        )
        assert ran.returncode == check, (args, ran.returncode, ran.stdout[-500:], ran.stderr[-500:])
        return ran

    return run


@pytest.fixture(scope="module")
def sandbox(e2b):
    id = e2b("create", "--detach", "--timeout", "300", "-e", "GREETING=hello").stdout.strip()
    yield id
    e2b("kill", id)


@pytest.fixture(scope="module")
def lasting(e2b):
    """One that is paused at its end, and woken."""
    options = ("--lifecycle.ontimeout", "pause", "--lifecycle.autoresume", "--timeout", "90")
    id = e2b("create", "-d", "base", *options).stdout.strip()
    yield id
    e2b("kill", id)


def info(e2b, id):
    return json.loads(e2b("info", "-f", "json", id).stdout)


def until(what, probe, seconds=20):
    end = time.monotonic() + seconds
    while not (answer := probe()):
        assert time.monotonic() < end, what
        time.sleep(0.1)
    return answer


def test_create_info_and_list(e2b, sandbox, lasting):
    told = info(e2b, sandbox)
    assert (told["sandboxId"], told["name"], told["state"]) == (sandbox, "base", "running")
    assert told["lifecycle"] == {"onTimeout": "kill", "autoResume": False}
    assert info(e2b, lasting)["lifecycle"] == {"onTimeout": "pause", "autoResume": True}
    shown = e2b("info", sandbox).stdout
    assert f"Sandbox ID: {sandbox}" in shown and "State: running" in shown
    ids = lambda *args: [one["sandboxId"] for one in json.loads(e2b("list", "-f", "json", *args).stdout)]
    both = ids("-t", "base", "-o", "asc")
    assert both.index(sandbox) < both.index(lasting)
    assert ids("-l", "1", "-o", "desc") == [lasting]
    assert sandbox in e2b("list").stdout and sandbox not in e2b("list", "-s", "paused").stdout
    assert ids("-m", f"of={uuid.uuid4().hex}") == []
    e2b("info", "nosuchsandbox0", check=1)
    refused = e2b("create", "-d", "--lifecycle.autoresume", check=1)
    assert "requires --lifecycle.ontimeout pause" in refused.stderr


def test_exec(e2b, sandbox):
    ran = e2b("exec", "-u", "root", "-c", "/tmp", "-e", "A=1", sandbox, "sh", "-c", "id -u; pwd; echo $A; exit 7", check=7)
    assert ran.stdout == "0\n/tmp\n1\n"
    assert e2b("exec", sandbox, "cat", stdin="input\n").stdout == "input\n"
    e2b("exec", "-b", sandbox, "sleep", "4325")
    e2b("exec", sandbox, "pgrep", "-fx", "sleep 4325")
    assert e2b("exec", sandbox, "nosuchprogram", check=127).stdout == ""


def test_logs_and_metrics(e2b, sandbox):
    e2b("exec", sandbox, "true")

    def lines(*args):
        said = e2b("logs", "--format", "json", *args, sandbox).stdout.split("\n")
        return [json.loads(line) for line in said if line.startswith("{")]

    until("the process's line", lambda: [e for e in lines("--loggers", "process") if "ended" in e["message"]])
    assert {"Sandbox created", "Agent started"} <= {entry["message"] for entry in lines()}
    assert "Sandbox created" not in e2b("logs", "--level", "WARN", sandbox).stdout
    assert "Sandbox created" in e2b("logs", sandbox).stdout

    def samples():
        said = e2b("metrics", "--format", "json", sandbox).stdout.split("\n")
        return [json.loads(line) for line in said if line.startswith("{")]

    assert until("a sample", samples)[0]["cpuCount"] == 2
    assert "Memory:" in e2b("metrics", sandbox).stdout


def test_pause_and_resume(e2b, lasting):
    e2b("exec", "-b", lasting, "sleep", "4326")
    assert "has been paused" in e2b("pause", lasting).stdout
    assert "is already paused" in e2b("pause", lasting).stdout
    assert info(e2b, lasting)["state"] == "paused"
    assert lasting in e2b("list", "-s", "paused").stdout
    assert lasting not in e2b("list").stdout
    assert "has been resumed" in e2b("resume", lasting).stdout
    assert info(e2b, lasting)["state"] == "running"
    e2b("exec", lasting, "pgrep", "-fx", "sleep 4326")
    # A command is enough to go on.
    e2b("pause", lasting)
    e2b("exec", lasting, "pgrep", "-fx", "sleep 4326")
    for verb in ("pause", "resume"):
        assert "wasn't found" in e2b(verb, "nosuchsandbox0", check=1).stderr


def test_snapshots(e2b, sandbox):
    name = f"cli-{uuid.uuid4().hex[:8]}"
    e2b("exec", sandbox, "sh", "-c", "echo kept > kept")
    unnamed = e2b("snapshot", "create", sandbox).stdout.split()[2]
    assert unnamed.endswith(":default")
    assert f"default/{name}:v1" in e2b("snapshot", "create", "-n", f"{name}:v1", sandbox).stdout
    listed = json.loads(e2b("snapshot", "list", "-f", "json", sandbox).stdout)
    assert [one["snapshotId"] for one in listed] == [f"default/{name}:v1", unnamed]
    assert listed[0]["names"] == [f"default/{name}"]
    assert len(json.loads(e2b("snapshot", "list", "-f", "json", "-l", "1", sandbox).stdout)) == 1
    shown = e2b("snapshot", "list", "-n", name).stdout
    assert name in shown and unnamed not in shown
    made = e2b("create", "-d", f"{name}:v1").stdout.strip()
    assert e2b("exec", made, "cat", "kept").stdout == "kept\n"
    e2b("snapshot", "delete", unnamed)
    assert "running sandboxes using it" in e2b("snapshot", "delete", f"default/{name}:v1", check=1).stderr
    e2b("kill", made)
    e2b("snapshot", "delete", f"default/{name}:v1")
    assert json.loads(e2b("snapshot", "list", "-f", "json", sandbox).stdout) == []
    assert "wasn't found" in e2b("snapshot", "delete", unnamed).stderr


def test_connect_and_create_are_terminals(e2b, environment, sandbox):
    terminal = Terminal([E2B, "sandbox", "connect", "-e", "A=1", sandbox], 40, 100, env=environment)
    # The arithmetic keeps the echo of what is typed from being taken for the answer.
    terminal.asks(b"echo $(stty size)-$A-$((1+1))", b"40 100-1-2")
    terminal.type(b"exit\n")
    assert terminal.process.wait(20) == 0
    assert info(e2b, sandbox)["state"] == "running"

    terminal = Terminal([E2B, "sandbox", "create", "--timeout", "30"], 24, 80, env=environment)
    seen = terminal.asks(b"echo id=$E2B_SANDBOX_ID=", b"id=i")
    while not (made := re.search(rb"id=(i[a-z0-9]+)=", seen)):
        seen += terminal.until(b"=")
    made = made[1].decode()
    assert info(e2b, made)["state"] == "running"
    terminal.type(b"exit\n")
    assert terminal.process.wait(20) == 0
    e2b("kill", made)


def test_kill(e2b):
    ids = [e2b("create", "-d", "--timeout", "60").stdout.strip() for _ in range(2)]
    e2b("pause", ids[0])
    e2b("kill", *ids)
    for id in ids:
        assert "wasn't found" in e2b("kill", id).stderr
    # All that are paused, and no others.
    kept, asleep = (e2b("create", "-d", "--timeout", "60").stdout.strip() for _ in range(2))
    e2b("pause", asleep)
    e2b("kill", "--all", "-s", "paused")
    e2b("info", asleep, check=1)
    assert info(e2b, kept)["state"] == "running"
    e2b("kill", kept)
