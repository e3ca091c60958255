"""Ctrl-C, status and down without purge (decision 6)."""

import json
import os
import signal

import host
from instance import casemate


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
