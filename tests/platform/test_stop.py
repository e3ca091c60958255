"""Ctrl-C, status and down without purge (decision 6)."""

import json
import os
import pathlib
import signal
from concurrent.futures import ThreadPoolExecutor

import host
from instance import Instance, bare_environment, casemate


def status(instance, *more):
    return casemate(*more, "status", "--data-dir", str(instance.data_dir))


def test_ctrl_c_leaves_sandboxes_and_down_ends_them(main):
    main.end_all()
    sandbox = main.create()
    count = "i=0; while sleep 0.1; do echo $i >>/tmp/n; i=$((i+1)); done"
    sandbox.commands.run(count, background=True, timeout=0).disconnect()
    key = main.client["api_key"]

    os.kill(main.pid, signal.SIGINT)
    assert main.process.wait(20) == 0
    said = main.said()
    assert "1 sandboxes go on running" in said, said[-1000:]
    assert f"casemate down --data-dir {main.data_dir}" in said
    assert main.runs(sandbox.sandbox_id)
    assert "does not run" in status(main).stdout and status(main).returncode == 3
    told = json.loads(status(main, "--json").stdout)
    assert (told["running"], told["journalled_sandboxes"]) == (False, 1)

    # Taken over, with the same key, and it went on meanwhile.
    assert main.up() < 15
    assert main.client["api_key"] == key
    assert main.listed() == [sandbox.sandbox_id]
    lines = main.connect(sandbox.sandbox_id).files.read("/tmp/n").split()
    assert lines == [str(n) for n in range(len(lines))]

    # Ended by `down` when no platform runs.
    os.kill(main.pid, signal.SIGINT)
    assert main.process.wait(20) == 0
    assert main.runs(sandbox.sandbox_id)
    main.down()
    assert not host.processes_inside(main.id)
    assert (main.data_dir / "credentials.env").exists()

    assert main.up() < 15
    assert main.client["api_key"] == key
    assert main.listed() == []
    assert main.create().commands.run("echo again").stdout == "again\n"

    # And by `down` while one runs.
    main.down()
    assert main.process.poll() == 0
    assert not host.processes_inside(main.id)
    assert main.client["api_key"] == key
    assert main.up() < 15
    assert main.listed() == []


def test_sigterm_is_the_same(main):
    sandbox = main.create()
    os.kill(main.pid, signal.SIGTERM)
    assert main.process.wait(20) == 0
    assert main.runs(sandbox.sandbox_id)
    main.up()
    assert main.listed() == [sandbox.sandbox_id]
    main.end_all()


def test_the_death_of_up_alone_ends_its_children_and_no_sandbox(main):
    sandbox = main.create()
    children = [pid for pid in main.processes() if pid != main.pid]
    os.kill(main.pid, signal.SIGKILL)
    main.process.wait(10)
    host.until("its children end", lambda: not any(host.command_line(pid) for pid in children))
    assert main.runs(sandbox.sandbox_id)
    main.up()
    assert main.connect(sandbox.sandbox_id).commands.run("echo on").stdout == "on\n"
    main.end_all()


def test_a_platform_that_was_stopped_is_named_instead_of_waited_for(main):
    sandbox = main.create()
    former, mark = main.process, main.mark
    os.kill(former.pid, signal.SIGSTOP)
    try:
        # Each gives it ten seconds; all of them the same ones.
        with ThreadPoolExecutor() as pool:
            ask = lambda verb: casemate(verb, "--data-dir", str(main.data_dir), timeout=30)
            asked = pool.map(ask, ("status", "df", "down"))
            main.spawn("--take-over")
            ended = main.process.wait(30)
            said, main.process, main.mark = main.said(), former, mark
            assert ended == 1 and f"process {former.pid} does not answer" in said
            for ran in asked:
                assert ran.returncode == 1, ran.stdout
                assert f"the platform's process {former.pid} does not answer" in ran.stderr
    finally:
        os.kill(main.pid, signal.SIGCONT)
    host.until("it goes on", lambda: status(main).returncode == 0)
    # What `down` was told did not happen does not happen later.
    assert sandbox.commands.run("echo on").stdout == "on\n"
    assert main.create().commands.run("echo too").stdout == "too\n"
    main.end_all()


def test_status_says_when_api_and_edge_do_not_answer(main):
    control = [pid for pid, role in main.processes().items() if role == "control"]
    for pid in control:
        os.kill(pid, signal.SIGSTOP)
    try:
        assert "API and edge do not answer" in status(main).stdout
        told = json.loads(status(main, "--json").stdout)
        assert (told["ready"], told["answers"]) == (False, False)
    finally:
        for pid in control:
            os.kill(pid, signal.SIGCONT)
    host.until("ready", lambda: ", ready" in status(main).stdout)


def test_a_log_in_json_is_nothing_but_json():
    """Standard error of a whole life, and of a start that fails."""
    instance = Instance("json", CASEMATE_LOG_FORMAT="json")
    said = lambda: [line for line in instance.said().splitlines() if not line.startswith("casemate ready ")]
    try:
        instance.up()
        os.kill(instance.pid, signal.SIGINT)
        assert instance.process.wait(20) == 0
        events = [json.loads(line) for line in said()]
        told = " ".join(event["message"] for event in events)
        assert "credentials for SDKs" in told and "base template" in told and "stopping" in told
        instance.spawn(listen="192.0.2.1:1")
        assert instance.process.wait(20) == 1
        last = json.loads(said()[-1])
        assert last["level"] == "ERROR" and "cannot listen" in last["message"]
    finally:
        instance.close()


def test_verbs_take_a_relative_directory_and_unknown_ids_are_said(main):
    relative = str(main.data_dir.relative_to(pathlib.Path(main.data_dir).parent))
    for verb in (["status"], ["df"], ["top"], ["sandbox", "list"]):
        ran = casemate(*verb, "--data-dir", relative, cwd=main.data_dir.parent)
        assert ran.returncode == 0, ran.stderr
    environment = bare_environment(**main.credentials())
    for verb in ("logs", "metrics"):
        ran = casemate("sandbox", verb, "nosuchsandbox", env=environment)
        assert ran.returncode == 1 and "nothing is known of a sandbox nosuchsandbox" in ran.stderr
    # One that ended is known, also where nothing of it is shown.
    sandbox = main.create()
    sandbox.kill()
    for more in (["logs", "--search", "no such words"], ["metrics"]):
        found = lambda: casemate("sandbox", *more, sandbox.sandbox_id, env=environment).returncode == 0
        host.until("its log is there", found, 10)
