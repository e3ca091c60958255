import e2b
from e2b import PtySize

SIZE = PtySize(rows=24, cols=80)


async def open_pty(sdk, sandbox, seen, **options):
    """A terminal whose output goes to the list `seen`, once `read` or `wait` takes it."""
    if sdk.is_async:
        options["on_data"] = seen.append
    return await sdk.do(sandbox.pty.create(SIZE, **options))


async def end(sdk, handle, seen):
    """Waits for the terminal's end; gives all that it showed."""
    if sdk.is_async:
        await handle.wait()
    else:
        handle.wait(on_pty=seen.append)
    return b"".join(seen).decode()


async def test_a_terminal_is_one(sdk, sandbox):
    seen = []
    handle = await open_pty(sdk, sandbox, seen, envs={"MARK": "m1"}, cwd="/tmp")
    lines = b"tty; stty size; echo $TERM-$MARK-$PWD; whoami; exit\n"
    await sdk.do(sandbox.pty.send_stdin(handle.pid, lines))
    shown = await end(sdk, handle, seen)
    for part in ("/dev/pts/", "24 80", "xterm-256color-m1-/tmp", "user"):
        assert part in shown, shown


async def test_resize_reaches_the_terminal(sdk, sandbox):
    seen = []
    handle = await open_pty(sdk, sandbox, seen, user="root")
    await sdk.do(sandbox.pty.resize(handle.pid, PtySize(rows=50, cols=132)))
    await sdk.do(sandbox.pty.send_stdin(handle.pid, b"stty size; id -u; exit\n"))
    shown = await end(sdk, handle, seen)
    assert "50 132" in shown and "\n0\r" in shown, shown


async def test_input_as_a_stream(sdk, sandbox):
    seen = []
    handle = await open_pty(sdk, sandbox, seen)
    chunks = [b"echo first", b"-second\n", b"exit\n"]
    if sdk.is_async:
        stream = sandbox.pty.stream_input(handle.pid)
        for chunk in chunks:
            await stream.send(chunk)
        await stream.close()
    else:
        sandbox.pty.stream_input(handle.pid, chunks)
    assert "first-second" in await end(sdk, handle, seen)


async def test_connect_sees_further_output(sdk, sandbox):
    handle = await open_pty(sdk, sandbox, [])
    await sdk.do(handle.disconnect())
    seen = []
    options = {"on_data": seen.append} if sdk.is_async else {}
    other = await sdk.do(sandbox.pty.connect(handle.pid, **options))
    assert other.pid == handle.pid
    await sdk.do(sandbox.pty.send_stdin(handle.pid, b"echo $((40+2)); exit\n"))
    assert "42" in await end(sdk, other, seen)


async def test_kill_ends_a_terminal(sdk, sandbox):
    handle = await open_pty(sdk, sandbox, [])
    assert await sdk.do(sandbox.pty.kill(handle.pid)) is True
    await sdk.fails(e2b.CommandExitException, lambda: handle.wait())
    assert await sdk.do(sandbox.pty.kill(handle.pid)) is False


async def test_ctrl_c_interrupts_what_runs(sdk, sandbox):
    seen = []
    handle = await open_pty(sdk, sandbox, seen)
    await sdk.do(sandbox.pty.send_stdin(handle.pid, b"sleep 3000\n"))
    await sdk.until("the sleep", lambda: sleeping(sdk, sandbox))
    await sdk.do(sandbox.pty.send_stdin(handle.pid, b"\x03"))
    await sdk.do(sandbox.pty.send_stdin(handle.pid, b"echo after-$?; exit\n"))
    assert "after-130" in await end(sdk, handle, seen)


async def sleeping(sdk, sandbox):
    found = await sdk.run(sandbox, "pgrep -fx 'sleep 3000' || true")
    return found.stdout.strip()
