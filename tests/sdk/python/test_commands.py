import asyncio

import e2b
import pytest


async def test_run_gives_output_and_exit_code(sdk, sandbox):
    seen = []
    result = await sdk.run(
        sandbox,
        "echo out; echo err >&2",
        on_stdout=lambda text: seen.append(("out", text)),
        on_stderr=lambda text: seen.append(("err", text)),
    )
    assert (result.stdout, result.stderr, result.exit_code) == ("out\n", "err\n", 0)
    assert sorted(seen) == [("err", "err\n"), ("out", "out\n")]
    error = await sdk.fails(
        e2b.CommandExitException, lambda: sandbox.commands.run("echo no >&2; exit 7")
    )
    assert (error.exit_code, error.stderr) == (7, "no\n")


async def test_run_as_asked(sdk, sandbox):
    assert (await sdk.run(sandbox, "whoami; pwd")).stdout == "user\n/home/user\n"
    assert (await sdk.run(sandbox, "whoami; echo ~", user="root")).stdout == "root\n/root\n"
    assert (await sdk.run(sandbox, "pwd", cwd="/tmp")).stdout == "/tmp\n"
    assert (await sdk.run(sandbox, "echo $A", envs={"A": "ü 1"})).stdout == "ü 1\n"
    result = await sdk.run(sandbox, "echo hidden", retain_output=False)
    assert (result.stdout, result.exit_code) == (None, 0)


async def test_run_refuses_what_is_not_there(sdk, sandbox):
    error = await sdk.fails(
        e2b.InvalidArgumentException, lambda: sandbox.commands.run("true", cwd="/no/where")
    )
    assert "cwd '/no/where' does not exist" in str(error)
    await sdk.fails(
        e2b.AuthenticationException, lambda: sandbox.commands.run("true", user="nobody-here")
    )
    missing = await sdk.fails(
        e2b.CommandExitException, lambda: sandbox.commands.run("no-such-program")
    )
    assert missing.exit_code == 127


async def test_a_timeout_kills(sdk, sandbox):
    mark = "sleep 4242"
    await sdk.fails(e2b.TimeoutException, lambda: sandbox.commands.run(mark, timeout=1))
    await sdk.until("the kill", lambda: without(sdk, sandbox, mark))


async def without(sdk, sandbox, mark):
    processes = await sdk.do(sandbox.commands.list())
    return not any(mark in argument for process in processes for argument in process.args)


async def test_list_connect_and_kill_a_background_command(sdk, sandbox):
    handle = await sdk.run(sandbox, "echo ready; sleep 3000", background=True, envs={"X": "1"})
    listed = {process.pid: process for process in await sdk.do(sandbox.commands.list())}
    assert listed[handle.pid].args == ["-l", "-c", "echo ready; sleep 3000"]
    assert listed[handle.pid].cmd == "/bin/bash"
    other = await sdk.do(sandbox.commands.connect(handle.pid))
    assert other.pid == handle.pid
    assert await sdk.do(sandbox.commands.kill(handle.pid)) is True
    error = await sdk.fails(e2b.CommandExitException, lambda: other.wait())
    assert error.exit_code != 0
    await sdk.fails(e2b.CommandExitException, lambda: handle.wait())
    assert await sdk.do(sandbox.commands.kill(handle.pid)) is False
    await sdk.fails(e2b.NotFoundException, lambda: sandbox.commands.connect(999_999))


async def test_output_of_a_handle(sdk, sandbox):
    handle = await sdk.run(sandbox, "echo a; echo b >&2; exit 3", background=True)
    error = await sdk.fails(e2b.CommandExitException, lambda: handle.wait())
    assert (error.stdout, error.stderr, error.exit_code) == ("a\n", "b\n", 3)
    if sdk.is_async:
        assert (handle.stdout, handle.stderr, handle.exit_code) == ("a\n", "b\n", 3)
        assert handle.error is None or "3" in handle.error
    killed = await sdk.run(sandbox, "sleep 3000", background=True)
    assert await sdk.do(killed.kill()) is True
    await sdk.fails(e2b.CommandExitException, lambda: killed.wait())


async def test_disconnect_leaves_the_command_running(sdk, sandbox):
    handle = await sdk.run(sandbox, "sleep 3000", background=True)
    await sdk.do(handle.disconnect())
    assert not await without(sdk, sandbox, "sleep 3000")
    assert await sdk.do(sandbox.commands.kill(handle.pid)) is True


async def test_stdin_by_pid(sdk, sandbox):
    handle = await sdk.run(sandbox, "cat", background=True, stdin=True)
    await sdk.do(sandbox.commands.send_stdin(handle.pid, "one\n"))
    await sdk.do(sandbox.commands.send_stdin(handle.pid, b"two\n"))
    await sdk.do(sandbox.commands.close_stdin(handle.pid))
    assert (await sdk.do(handle.wait())).stdout == "one\ntwo\n"


async def test_stdin_by_handle(sdk, sandbox):
    handle = await sdk.run(sandbox, "cat; echo end", background=True, stdin=True)
    await sdk.do(handle.send_stdin("text\n"))
    await sdk.do(handle.close_stdin())
    assert (await sdk.do(handle.wait())).stdout == "text\nend\n"


async def test_stdin_as_a_stream(sdk, sandbox):
    handle = await sdk.run(sandbox, "wc -c", background=True, stdin=True)
    chunks = ["x" * 100_000] * 20
    if sdk.is_async:
        stream = sandbox.commands.stream_input(handle.pid)
        for chunk in chunks:
            await stream.send(chunk)
        await stream.close()
    else:
        sandbox.commands.stream_input(handle.pid, chunks)
    await sdk.do(sandbox.commands.close_stdin(handle.pid))
    assert (await sdk.do(handle.wait())).stdout == "2000000\n"


async def test_without_stdin_a_command_sees_its_end(sdk, sandbox):
    assert (await sdk.run(sandbox, "cat; echo end")).stdout == "end\n"


async def test_much_output_comes_whole_and_in_order(sdk, sandbox):
    result = await sdk.run(sandbox, "seq 1 300000")
    lines = result.stdout.split()
    assert len(lines) == 300_000 and lines == [str(n) for n in range(1, 300_001)]
    bytes_out = await sdk.run(sandbox, "head -c 20000000 /dev/zero | tr '\\0' x")
    assert len(bytes_out.stdout) == 20_000_000


async def test_two_readers_see_the_same(sdk, sandbox):
    handle = await sdk.run(
        sandbox, "read line; for i in 1 2 3; do echo $i; done", background=True, stdin=True
    )
    other = await sdk.do(sandbox.commands.connect(handle.pid))
    await sdk.do(handle.send_stdin("go\n"))
    first = await sdk.do(handle.wait())
    second = await sdk.do(other.wait())
    assert first.stdout == second.stdout == "1\n2\n3\n"


async def test_commands_at_the_same_time(sdk, sandbox):
    if not sdk.is_async:
        handles = [await sdk.run(sandbox, f"sleep 1; echo {n}", background=True) for n in range(10)]
        results = [await sdk.do(handle.wait()) for handle in handles]
    else:
        runs = [sandbox.commands.run(f"sleep 1; echo {n}") for n in range(10)]
        results = await asyncio.gather(*runs)
    assert [result.stdout for result in results] == [f"{n}\n" for n in range(10)]


async def test_sudo_works_and_root_is_root(sdk, sandbox):
    assert (await sdk.run(sandbox, "sudo id -u")).stdout == "0\n"
    result = await sdk.run(sandbox, "sudo sh -c 'echo x > /root/mark' && sudo cat /root/mark")
    assert result.stdout == "x\n"
    with pytest.raises(e2b.CommandExitException):
        await sdk.run(sandbox, "cat /etc/shadow")


async def test_the_tools_of_the_base_are_there(sdk, sandbox):
    tools = "python3 python pip node npm git curl wget jq unzip ping sudo ss make rg"
    await sdk.run(sandbox, f"for tool in {tools}; do command -v $tool || exit 1; done")
    assert (await sdk.run(sandbox, "node -p 1+1")).stdout == "2\n"
    script = "import sqlite3, ssl, venv; print(1 + 1)"
    assert (await sdk.run(sandbox, f'python -c "{script}"')).stdout == "2\n"
