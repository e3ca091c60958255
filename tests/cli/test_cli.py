"""The verbs of `casemate` that are clients, against a running platform.

CASEMATE names the program, CASEMATE_DATA_DIR the platform's data directory; of the environment in
its credentials.env what leads there is set, over http or over https.
"""

import fcntl
import json
import os
import pty
import select
import signal
import struct
import subprocess
import termios
import time

import pytest

CASEMATE = os.environ["CASEMATE"]
DATA_DIR = os.environ["CASEMATE_DATA_DIR"]


def casemate(*args, stdin=b"", check=0, env=None):
    """Runs a verb, which must end with `check`; answers what it wrote."""
    ran = subprocess.run([CASEMATE, *args], input=stdin, capture_output=True, timeout=60, env=env)
    assert ran.returncode == check, (args, ran.returncode, ran.stdout[-500:], ran.stderr[-500:])
    return ran


def answer(*args, **options):
    return json.loads(casemate("--json", *args, **options).stdout)


@pytest.fixture(scope="module")
def sandbox():
    id = casemate("sandbox", "create", "--timeout", "300", "--env", "CLI=yes", "--metadata", "of=cli")
    id = id.stdout.decode().strip()
    yield id
    # The last test may have ended it.
    subprocess.run([CASEMATE, "sandbox", "kill", id], capture_output=True, timeout=60)


def test_list_shows_what_was_created(sandbox):
    rows = answer("sandbox", "list", "--metadata", "of=cli")
    assert [row["sandboxID"] for row in rows] == [sandbox]
    assert answer("sandbox", "list", "--metadata", "of=nobody") == []
    assert sandbox in casemate("sandbox", "list").stdout.decode()


def test_metrics_logs_and_top_tell_of_a_sandbox(sandbox):
    end = time.monotonic() + 30
    while not (metrics := answer("sandbox", "metrics", sandbox)):
        assert time.monotonic() < end, "no sample came"
        time.sleep(0.2)
    assert metrics[0]["cpuCount"] == 2 and metrics[0]["memTotal"] == 512 << 20
    assert "MEMORY" in casemate("sandbox", "metrics", sandbox, "--start", "0").stdout.decode()
    rows = {row["sandbox"]["sandboxID"]: row for row in answer("top")}
    assert rows[sandbox]["metrics"]["memUsed"] > 0
    assert sandbox in casemate("top").stdout.decode()
    while not answer("sandbox", "logs", sandbox, "--search", "Agent started"):
        assert time.monotonic() < end, "the agent is not in the log"
        time.sleep(0.2)
    logs = answer("sandbox", "logs", sandbox)
    assert {"Sandbox created", "Agent started"} <= {entry["message"] for entry in logs}
    assert answer("sandbox", "logs", sandbox, "--search", "no such thing") == []
    assert "Sandbox created" in casemate("sandbox", "logs", sandbox, "--level", "info").stdout.decode()
    casemate("sandbox", "logs", sandbox, "--limit", "1001", check=2)


def test_df_says_what_takes_space(sandbox):
    # The names of our tests are no settings of the platform.
    bare = {name: value for name, value in os.environ.items() if not name.startswith("CASEMATE")}
    df = lambda *args: answer("df", "--data-dir", DATA_DIR, *args, env=bare)
    mib = 1 << 20

    def of_sandbox():
        rows = df("--limit", "100")["sandboxes"]["largest"]
        return next(row for row in rows if row["name"] == sandbox)

    before = of_sandbox()
    assert before["limit"] == 10 << 30
    casemate("sandbox", "exec", sandbox, "--", "sh", "-c", "head -c 40m /dev/urandom > /tmp/df; sync")
    end = time.monotonic() + 60
    while (after := of_sandbox())["used"] < before["used"] + 40 * mib:
        assert time.monotonic() < end, (before, after)
        time.sleep(0.5)
    told = df()
    assert told["sandboxes"]["running"] >= 1 and told["sandboxes"]["used"] >= after["used"]
    assert len(df("--limit", "0")["sandboxes"]["largest"]) == 0
    assert 40 * mib < told["pool"]["used"] < told["pool"]["size"]
    assert 40 * mib < told["pool"]["image"] <= told["disk"]["used"] < told["disk"]["size"]
    base = next(row for row in told["layers"]["largest"] if row.get("template") == "base")
    assert 50 * mib < base["used"] <= told["layers"]["used"]
    assert 0 < told["store"] < 100 * mib and 0 < told["history"] < 100 * mib
    # As `du` finds it, all of it is somewhere. The pool may take its next 256 MiB between the two, and
    # layers that nothing needs any more may be on their way out: `du` fails of that.
    for left in reversed(range(15)):
        told = df()
        parts = sum(told[name] for name in ("store", "history", "other"))
        ours = parts + told["layers"]["used"] + told["pool"]["image"]
        ran = subprocess.run(["du", "-sxB1", "--count-links", DATA_DIR], stdout=subprocess.PIPE)
        du = int(ran.stdout.split()[0])
        if ran.returncode == 0 and abs(ours - du) < 20 * mib:
            break
        assert left, (ours, du)
        time.sleep(2)
    shown = casemate("df", "--data-dir", DATA_DIR, env=bare).stdout.decode()
    assert sandbox in shown and "history with logs" in shown and "(base)" in shown
    casemate("df", "--data-dir", "/nonexistent", check=1, env=bare)
    casemate("df", "--data-dir", DATA_DIR, "--limit", "101", check=2, env=bare)


def test_exec_gives_streams_and_exit_code(sandbox):
    script = "echo out; echo err >&2; echo $CLI; exit 7"
    ran = casemate("sandbox", "exec", sandbox, "--", "sh", "-c", script, check=7)
    assert (ran.stdout, ran.stderr) == (b"out\nyes\n", b"err\n")


def test_exec_passes_input_and_its_end(sandbox):
    blob = os.urandom(3_000_000)
    assert casemate("sandbox", "exec", sandbox, "--", "cat", stdin=blob).stdout == blob


def test_exec_ends_while_nobody_reads_its_input(sandbox):
    ran = casemate("sandbox", "exec", sandbox, "--", "head", "-c", "3", stdin=b"abcdef" * 1_000_000)
    assert ran.stdout == b"abc"


def test_exec_ends_beside_an_input_that_stays_open(sandbox):
    read, write = os.pipe()
    command = [CASEMATE, "sandbox", "exec", sandbox, "--", "echo", "done"]
    try:
        ran = subprocess.run(command, stdin=read, capture_output=True, timeout=20)
    finally:
        os.close(read)
        os.close(write)
    assert (ran.returncode, ran.stdout) == (0, b"done\n")


def test_exec_in_json(sandbox):
    args = ("--user", "root", "--workdir", "/tmp", "--env", "A=1", "--")
    script = "id -u; pwd; echo $A"
    ran = casemate("--json", "sandbox", "exec", sandbox, *args, "sh", "-c", script)
    said = json.loads(ran.stdout)
    assert (said["stdout"], said["exitCode"]) == ("0\n/tmp\n1\n", 0)


def test_a_signal_ends_the_command_and_not_only_us(sandbox):
    command = [CASEMATE, "sandbox", "exec", sandbox, "--", "sleep", "4711"]
    running = subprocess.Popen(command, stdin=subprocess.DEVNULL)
    # A pattern that does not find itself.
    look = "cat /proc/[0-9]*/cmdline | tr '\\0' ' ' | grep -q '[s]leep 4711'"
    find = ("sandbox", "exec", sandbox, "--", "sh", "-c", look)
    deadline = time.monotonic() + 20
    while subprocess.run([CASEMATE, *find], capture_output=True, stdin=subprocess.DEVNULL).returncode:
        assert time.monotonic() < deadline
    running.send_signal(signal.SIGINT)
    assert running.wait(20) == 128 + signal.SIGTERM
    casemate(*find, check=1)


def test_what_is_not_there_is_said(sandbox):
    gone = casemate("sandbox", "exec", "nosuchsandbox0", "--", "true", check=1)
    assert b"there is no sandbox nosuchsandbox0" in gone.stderr
    user = casemate("sandbox", "exec", sandbox, "-u", "nobody1", "--", "true", check=1)
    assert b"invalid username" in user.stderr
    casemate("sandbox", "exec", sandbox, "--", "nosuchprogram", check=127)
    both = casemate("--json", "sandbox", "kill", "nosuchsandbox0", check=1)
    assert json.loads(both.stdout)[0]["killed"] is False


def states(*args):
    return {row["sandboxID"]: row["state"] for row in answer("sandbox", "list", *args)}


@pytest.mark.parametrize("files", [False, True], ids=["memory", "files"])
def test_a_paused_sandbox_goes_on_with_what_was_kept(files):
    id = casemate("sandbox", "create", "--timeout", "300").stdout.decode().strip()
    inside = lambda script: casemate("sandbox", "exec", id, "--", "sh", "-c", script).stdout
    how = ["--files"] if files else []
    try:
        inside("echo kept > kept; (sleep 4711 >/dev/null 2>&1 & echo $! > pid); sync")
        said = answer("sandbox", "pause", id, *how)
        assert said == {"sandboxID": id, "state": "paused", "memory": not files}
        assert states("--state", "paused")[id] == "paused" and id not in states("--state", "running")
        assert b"already paused" in casemate("sandbox", "pause", id, check=1).stderr
        row = casemate("sandbox", "list", "--state", "paused").stdout.decode()
        assert "paused" in next(line for line in row.splitlines() if line.startswith(id))
        said = answer("sandbox", "resume", id, "--timeout", "200")
        assert said == {"sandboxID": id, "state": "running", "resumed": True}
        assert answer("sandbox", "resume", id)["resumed"] is False
        assert inside("cat kept") == b"kept\n"
        # Processes are there exactly if memory was kept.
        alive = inside("grep -q '[4]711' /proc/$(cat pid)/cmdline 2>/dev/null && echo yes || echo no")
        assert alive == (b"no\n" if files else b"yes\n")
    finally:
        casemate("sandbox", "kill", id)


def test_what_sleeps_is_woken_by_exec_and_may_start_anew():
    id = casemate("sandbox", "create", "--timeout", "300").stdout.decode().strip()
    inside = lambda script: casemate("sandbox", "exec", id, "--", "sh", "-c", script).stdout
    try:
        casemate("sandbox", "pause", id)
        assert inside("echo awake") == b"awake\n"
        inside("echo kept > kept; (sleep 4711 >/dev/null 2>&1 & echo $! > pid); sync")
        casemate("sandbox", "pause", id)
        assert b"goes on" in casemate("sandbox", "resume", id, "--files").stdout
        assert inside("cat kept; grep -q '[4]711' /proc/$(cat pid)/cmdline || echo anew") == b"kept\nanew\n"
    finally:
        casemate("sandbox", "kill", id)


def test_snapshots_are_begun_with_listed_and_deleted(sandbox):
    write = "echo {} > /home/user/of; sync"
    casemate("sandbox", "exec", sandbox, "--", "sh", "-c", write.format("snapshot"))
    unnamed = casemate("sandbox", "snapshot", "create", sandbox).stdout.decode().strip()
    named = answer("sandbox", "snapshot", "create", sandbox, "--name", "of-the-cli:v1")
    casemate("sandbox", "exec", sandbox, "--", "sh", "-c", write.format("later"))
    assert named["snapshotID"].endswith("/of-the-cli:v1")
    listed = answer("sandbox", "snapshot", "list", "--sandbox", sandbox)
    assert [one["snapshotID"] for one in listed] == [named["snapshotID"], unnamed]
    shown = casemate("sandbox", "snapshot", "list").stdout.decode()
    assert unnamed in shown and "of-the-cli" in shown
    for snapshot in (unnamed, named["snapshotID"]):
        made = casemate("sandbox", "create", "--template", snapshot).stdout.decode().strip()
        try:
            read = casemate("sandbox", "exec", made, "--", "cat", "/home/user/of").stdout
            assert read == b"snapshot\n"
            busy = casemate("sandbox", "snapshot", "delete", snapshot, check=1)
            assert b"cannot delete" in busy.stderr, busy.stderr
        finally:
            casemate("sandbox", "kill", made)
        casemate("sandbox", "snapshot", "delete", snapshot)
        gone = casemate("sandbox", "snapshot", "delete", snapshot, check=1)
        assert b"there is no snapshot" in gone.stderr
    assert answer("sandbox", "snapshot", "list", "--sandbox", sandbox) == []


def test_forks_begin_with_the_files_of_one_that_runs_on(sandbox):
    script = "echo forked > /home/user/of; sync"
    casemate("sandbox", "exec", sandbox, "--", "sh", "-c", script)
    ids = casemate("sandbox", "fork", sandbox, "--count", "3", "--timeout", "60").stdout.decode().split()
    try:
        assert len(set(ids)) == 3 and states()[sandbox] == "running"
        for id in ids:
            read = casemate("sandbox", "exec", id, "--", "cat", "/home/user/of").stdout
            assert read == b"forked\n"
    finally:
        casemate("sandbox", "kill", *ids)
    rows = answer("sandbox", "fork", sandbox)
    assert [row["error"] for row in rows] == [None]
    casemate("sandbox", "kill", rows[0]["sandboxID"])
    casemate("sandbox", "fork", sandbox, "--count", "101", check=2)
    gone = casemate("sandbox", "fork", "nosuchsandbox0", check=1)
    assert b"404" in gone.stderr


class Terminal:
    """A program at a terminal of ours."""

    def __init__(self, command, rows, columns, **options):
        self.master, slave = pty.openpty()
        self.resize(rows, columns)
        self.before = termios.tcgetattr(slave)
        self.slave = slave
        self.process = subprocess.Popen(
            command, stdin=slave, stdout=slave, stderr=slave, start_new_session=True,
            preexec_fn=lambda: fcntl.ioctl(0, termios.TIOCSCTTY, 0), **options,
        )

    def resize(self, rows, columns):
        fcntl.ioctl(self.master, termios.TIOCSWINSZ, struct.pack("HHHH", rows, columns, 0, 0))

    def type(self, text):
        os.write(self.master, text)

    def until(self, text, seconds=20):
        seen, deadline = b"", time.monotonic() + seconds
        while text not in seen:
            assert time.monotonic() < deadline, (text, seen)
            if select.select([self.master], [], [], 0.2)[0]:
                seen += os.read(self.master, 65536)
        return seen

    def asks(self, command, text):
        """Types a command, if need be several times, until its answer is seen."""
        for attempt in range(10):
            self.type(command + b"\n")
            try:
                return self.until(text, 3)
            except AssertionError:
                if attempt == 9:
                    raise


def test_shell_is_a_terminal_of_our_size_and_ends_with_its_code(sandbox):
    terminal = Terminal([CASEMATE, "sandbox", "shell", sandbox], 40, 100)
    # The arithmetic keeps the echo of what is typed from being taken for the answer.
    terminal.type(b"stty size; echo ready-$((1+1))\n")
    assert b"40 100" in terminal.until(b"ready-2")
    terminal.resize(33, 77)
    terminal.asks(b"stty size", b"33 77")
    # Ctrl-C is the inner terminal's, not ours. A shell may lose what is typed right behind it.
    terminal.type(b"sleep 1000\n\x03")
    terminal.asks(b"echo alive-$((3+3))", b"alive-6")
    terminal.type(b"exit 9\n")
    assert terminal.process.wait(20) == 9
    assert termios.tcgetattr(terminal.slave) == terminal.before


def test_shell_without_a_terminal_says_what_to_do(sandbox):
    assert b"sandbox exec" in casemate("sandbox", "shell", sandbox, check=1).stderr


def test_a_key_works_until_it_is_revoked():
    admin = ("--data-dir", DATA_DIR)
    made = answer("key", "create", "--name", "of the cli", *admin)
    listed = answer("key", "list", *admin)
    assert [key["name"] for key in listed if key["id"] == made["id"]] == ["of the cli"]
    assert made["key"] not in json.dumps(listed)
    with_key = dict(os.environ, E2B_API_KEY=made["key"])
    casemate("sandbox", "list", env=with_key)
    casemate("key", "revoke", made["id"], *admin)
    refused = casemate("sandbox", "list", env=with_key, check=1)
    assert b"401" in refused.stderr
    casemate("key", "revoke", made["id"], *admin, check=1)


def test_keys_need_the_platforms_own_directory_and_say_so():
    """Whatever address and key are set."""
    ran = casemate("key", "list", "--data-dir", "/nowhere", check=1)
    assert b"on a machine of it: /nowhere has no" in ran.stderr and b"E2B_API" not in ran.stderr


def test_the_data_directory_is_enough():
    bare = {name: value for name, value in os.environ.items() if not name.startswith("E2B_")}
    casemate("sandbox", "list", "--data-dir", DATA_DIR, env=bare)


def test_kill_all_leaves_none():
    for _ in range(2):
        casemate("sandbox", "create")
    casemate("sandbox", "kill", "--all")
    assert answer("sandbox", "list") == []
