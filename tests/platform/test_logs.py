"""What runs in a sandbox is in its log; what a sandbox writes there hurts nobody."""

import datetime
import json

import host
from instance import bare_environment, casemate

FULL = "Memory limit reached: the kernel ended a process"

# Root inside takes the agent's end of the log (pidfd_open, pidfd_getfd): it may look into the agent.
FORGE = r"""
import ctypes, json, os, sys, time
call = ctypes.CDLL(None, use_errno=True).syscall
line = json.dumps({"time": 0, "level": "error", "logger": "envd", "message": "\x1b[2J\x1b]0;forged\x07"}) + "\n"
for pid in filter(str.isdigit, os.listdir("/proc")):
    if open(f"/proc/{pid}/comm").read().strip() not in ("envd", "init"):
        continue
    for number in os.listdir(f"/proc/{pid}/fd"):
        try:
            kind = os.stat(f"/proc/{pid}/fd/{number}").st_mode
        except OSError:
            continue
        if kind & 0o170000 != 0o010000 or os.readlink(f"/proc/{pid}/fd/{number}").startswith("pipe:"):
            continue
        log = call(438, call(434, int(pid), 0), int(number), 0)
        if log < 0:
            sys.exit(f"refused: {ctypes.get_errno()}")
        os.set_blocking(log, False)
        end, sent = time.time() + 4, 0
        while time.time() < end:
            try:
                sent += os.write(log, (line + "x" * 5000 + "\n").encode())
            except BlockingIOError:
                time.sleep(0.01)
        print(sent)
        sys.exit()
sys.exit("there is none")
"""


def logs(main, id, query=""):
    key = main.client["api_key"]
    status, _, body = main.get(f"/v2/sandboxes/{id}/logs?direction=forward{query}", {"X-API-Key": key})
    assert status == 200, body
    return json.loads(body)["logs"]


def until_logged(main, id, right):
    """The log once it is right."""
    found = []

    def look():
        found[:] = logs(main, id)
        return right(found)

    host.until("logged", look, 20)
    return found


def ends(entries):
    return [e for e in entries if e["fields"].get("event_type") == "process_end"]


def test_processes_are_in_the_log_also_after_the_sandbox_s_end(main):
    sandbox = main.create()
    sandbox.commands.run("echo out; echo error >&2")
    sandbox.commands.run("exit 3", background=True)
    main.kill(sandbox.sandbox_id)
    entries = until_logged(main, sandbox.sandbox_id, lambda found: found[-1]["message"] == "Sandbox ended: killed")
    messages = [entry["message"] for entry in entries]
    assert messages[:2] == ["Sandbox created", "Agent started"] or messages[:2] == ["Agent started", "Sandbox created"]
    starts = [e["fields"] for e in entries if e["fields"].get("event_type") == "process_start"]
    assert [start["command"] for start in starts] == [
        "/bin/bash -l -c echo out; echo error >&2",
        "/bin/bash -l -c exit 3",
    ]
    first = ends(entries)[0]["fields"]
    assert first["pid"] == starts[0]["pid"] and first["process_result"] == "exit status 0"
    assert (first["stdout_bytes"], first["stderr_bytes"], first["pty_bytes"]) == ("4", "6", "0")
    times = [datetime.datetime.fromisoformat(entry["timestamp"]) for entry in entries]
    assert times == sorted(times)
    # The way of E2B's command line, and our own.
    status, _, body = main.get(
        f"/sandboxes/{sandbox.sandbox_id}/logs", {"X-API-Key": main.client["api_key"]}
    )
    lines = [json.loads(row["line"]) for row in json.loads(body)["logs"]]
    assert status == 200 and [line["message"] for line in lines] == messages
    assert all(isinstance(line["level"], str) for line in lines)
    environment = bare_environment(**main.credentials())
    ran = casemate("sandbox", "logs", sandbox.sandbox_id, env=environment)
    assert ran.returncode == 0 and "process_end" in ran.stdout, ran.stderr


def test_programs_have_no_descriptor_of_the_log(sandbox):
    listed = sandbox.commands.run("ls -l /proc/self/fd; sudo ls -l /proc/self/fd").stdout
    assert "/log" not in listed, listed
    numbers = {line.split(" -> ")[0].split()[-1] for line in listed.splitlines() if " -> " in line}
    assert numbers <= {"0", "1", "2", "3"}, listed


def test_a_process_that_ends_while_the_platform_is_down_is_logged(main):
    main.end_all()
    sandbox = main.create()
    running = sandbox.commands.run("sleep 4", background=True, timeout=0)
    assert not ends(until_logged(main, sandbox.sandbox_id, lambda found: len(found) >= 3))
    main.kill_all()
    groups = main.groups(sandbox.sandbox_id)
    host.until("it ended", lambda: len(processes(groups)) <= 2, 20)
    main.up()
    entries = until_logged(main, sandbox.sandbox_id, ends)
    assert ends(entries)[0]["fields"]["pid"] == str(running.pid)
    main.kill(sandbox.sandbox_id)


def processes(groups):
    return {pid for path in groups for pid in host.read(f"{path}/cgroup.procs").split()}


def test_a_full_memory_is_a_warning(main, sandbox):
    other = main.create()
    try:
        sandbox.commands.run("python3 -c 'x = b\"x\" * (2 << 30)' || true")
        entries = until_logged(main, sandbox.sandbox_id, lambda found: FULL in [e["message"] for e in found])
        warning = next(e for e in entries if e["message"] == FULL)
        assert warning["level"] == "warn" and warning["fields"]["processes"] == "1"
        assert FULL not in [e["message"] for e in logs(main, other.sandbox_id)]
    finally:
        other.kill()


def full(entries):
    return [e for e in entries if e["message"] == FULL]


def test_a_full_memory_right_before_the_end_is_a_warning_too(main):
    for _ in range(3):
        sandbox = main.create()
        sandbox.commands.run("tail /dev/zero || true")
        sandbox.kill()
        ended = lambda found: found[-1]["message"] == "Sandbox ended: killed"
        assert len(full(until_logged(main, sandbox.sandbox_id, ended))) == 1


def test_a_full_memory_while_the_platform_is_down_is_a_warning_once(main):
    main.end_all()
    sandbox = main.create()
    sandbox.commands.run("tail /dev/zero || true")
    until_logged(main, sandbox.sandbox_id, full)
    sandbox.commands.run("sleep 3; tail /dev/zero", background=True, timeout=0)
    main.kill_all()
    groups = main.groups(sandbox.sandbox_id)
    host.until("it ended", lambda: len(processes(groups)) <= 2, 30)
    main.up()
    entries = until_logged(main, sandbox.sandbox_id, lambda found: len(full(found)) > 1)
    assert [e["fields"]["processes"] for e in full(entries)] == ["1", "1"]
    # What was told is told by no other process again.
    main.take_over().wait(30)
    sandbox.commands.run("echo after")
    entries = until_logged(main, sandbox.sandbox_id, lambda found: len(ends(found)) == 3)
    assert len(full(entries)) == 2
    sandbox.kill()


def test_a_flood_of_forged_lines_stays_small_harmless_and_at_home(main, sandbox):
    other = main.create()
    try:
        sandbox.files.write("/tmp/forge.py", FORGE)
        forged = sandbox.commands.run("python3 /tmp/forge.py", user="root")
        assert int(forged.stdout) > 65_536
        found = lambda entries: any("forged" in e["message"] for e in entries)
        entries = until_logged(main, sandbox.sandbox_id, found)
        assert len(entries) < 700
        environment = bare_environment(**main.credentials())
        shown = casemate("sandbox", "logs", sandbox.sandbox_id, env=environment).stdout
        assert "forged" in shown and "\x1b" not in shown and "\x07" not in shown
        # Nobody else's log has it, and both sandboxes work.
        other.commands.run("true")
        until_logged(main, other.sandbox_id, ends)
        assert not found(logs(main, other.sandbox_id))
        sandbox.commands.run("true")
    finally:
        other.kill()
