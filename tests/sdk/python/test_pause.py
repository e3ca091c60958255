"""Pause, connect, what happens at the timeout, and what traffic wakes."""

import asyncio
import datetime
import http.client
import json
import socket
import urllib.request
import uuid

import e2b
import pytest
from e2b import PtySize, SandboxQuery, SandboxState

from edge import API, ask, connect, serve
from test_abuse import send
from test_files import routed
from test_network import listening
from test_sandbox import gone

MISSING = "i00000000000000000000"
TO_FILES = {"action": "pause", "mode": "filesystem"}
WAKES = {"on_timeout": "pause", "auto_resume": True}


async def boot_id(sdk, sandbox):
    return (await sdk.run(sandbox, "cat /proc/sys/kernel/random/boot_id")).stdout


async def state(sdk, sandbox):
    """As anybody may ask: this wakes nothing."""
    return (await sdk.do(sandbox.get_info())).state


def detail(sandbox):
    """What the SDK does not show: `pauseMode` is there when a pause is over."""
    return json.loads(send("GET", f"/sandboxes/{sandbox.sandbox_id}")[1])


async def left(sdk, sandbox):
    end = (await sdk.do(sandbox.get_info())).end_at
    return (end - datetime.datetime.now(datetime.timezone.utc)).total_seconds()


def stays(seconds, wanted):
    return wanted - 10 < seconds <= wanted


async def paused(sdk, sandbox, seconds=5):
    async def is_it():
        return await state(sdk, sandbox) == SandboxState.PAUSED

    await sdk.until("the pause", is_it, seconds)


async def test_a_pause_keeps_what_runs(sdk):
    sandbox = await sdk.create()
    boot = await boot_id(sdk, sandbox)
    host = await serve(sdk, sandbox, 8000)
    await sdk.do(sandbox.files.write("kept", "kept"))
    ticking = "while true; do date +%s%N >> ticks; sleep 0.02; done"
    ticker = await sdk.run(sandbox, ticking, background=True)

    async def ticks():
        return [int(line) for line in (await sdk.do(sandbox.files.read("ticks"))).split()]

    await sdk.run(sandbox, "until [ $(wc -l < ticks) -gt 2 ]; do sleep 0.01; done")
    first = int(ask(host)[1].split()[0])
    assert await sdk.do(sandbox.pause()) is True
    info = await sdk.do(sandbox.get_info())
    assert info.state == SandboxState.PAUSED and info.envd_unresponsive_at_pause is None
    assert info.end_at <= datetime.datetime.now(datetime.timezone.utc)
    assert await sdk.do(sandbox.is_running()) is False
    assert await sdk.do(sandbox.pause()) is False
    await sdk.pause(0.5)

    same = await sdk.do(sandbox.connect(timeout=120))
    assert same.sandbox_id == sandbox.sandbox_id
    assert await state(sdk, sandbox) == SandboxState.RUNNING

    async def ticks_with_a_gap():
        found = await ticks()
        gap = max(after - at for at, after in zip(found, found[1:]))
        return found if gap >= 500_000_000 else None

    # The gap is there once it ticks again.
    before = await sdk.until("a gap in the ticks", ticks_with_a_gap)

    async def ticks_again():
        return len(await ticks()) > len(before)

    await sdk.until("further ticks", ticks_again)
    assert await boot_id(sdk, sandbox) == boot
    assert int(ask(host)[1].split()[0]) == first + 1
    assert await sdk.do(sandbox.files.read("kept")) == "kept"
    assert await sdk.do(sandbox.commands.kill(ticker.pid)) is True


async def test_pause_by_id_and_its_older_names(sdk):
    sandbox = await sdk.create()
    boot = await boot_id(sdk, sandbox)
    for pause in [
        lambda: sdk.Sandbox.pause(sandbox.sandbox_id),
        lambda: sandbox.beta_pause(),
        lambda: sdk.Sandbox.beta_pause(sandbox.sandbox_id),
        lambda: sandbox.pause(keep_memory=True),
        lambda: sandbox.pause(mode="full"),
    ]:
        assert await sdk.do(pause()) is True
        assert await sdk.do(pause()) is False
        other = await sdk.do(sdk.Sandbox.connect(sandbox.sandbox_id, timeout=120))
        assert await boot_id(sdk, other) == boot
    await sdk.fails(e2b.SandboxNotFoundException, lambda: sdk.Sandbox.pause(MISSING))
    await sdk.do(sandbox.kill())
    await sdk.fails(e2b.SandboxNotFoundException, lambda: sandbox.pause())


async def test_of_a_pause_with_files_only_files_are_left(sdk):
    sandbox = await sdk.create(envs={"GREETING": "hello"}, metadata={"kept": "yes"})
    boots = [await boot_id(sdk, sandbox)]
    await sdk.do(sandbox.files.write("kept", "kept"))
    for pause in [
        lambda: sandbox.pause(mode="filesystem"),
        lambda: sdk.Sandbox.pause(sandbox.sandbox_id, keep_memory=False),
        lambda: sandbox.beta_pause(mode="filesystem"),
    ]:
        await sdk.run(sandbox, "sleep 4321", background=True)
        assert await sdk.do(pause()) is True
        assert await sdk.do(sandbox.is_running()) is False
        await sdk.do(sandbox.connect(timeout=120))
        boots.append(await boot_id(sdk, sandbox))
        seen = "pgrep -fx 'sleep 4321'; echo $GREETING; whoami; pwd; cat kept"
        assert (await sdk.run(sandbox, seen)).stdout == "hello\nuser\n/home/user\nkept"
    # With its memory kept, it can still be started anew.
    await sdk.run(sandbox, "sleep 4321", background=True)
    await sdk.do(sandbox.pause())
    await sdk.do(sdk.Sandbox.connect(sandbox.sandbox_id, timeout=120, on_resume="reboot"))
    boots.append(await boot_id(sdk, sandbox))
    assert (await sdk.run(sandbox, seen)).stdout == "hello\nuser\n/home/user\nkept"
    assert len(set(boots)) == 5
    assert (await sdk.do(sandbox.get_info())).metadata == {"kept": "yes"}
    # For one that runs it is nothing to do.
    await sdk.do(sandbox.connect(timeout=120, on_resume="reboot"))
    assert await boot_id(sdk, sandbox) == boots[-1]


async def test_what_the_sdk_refuses_by_itself(sdk, sandbox):
    for call in [
        lambda: sandbox.pause(mode="half"),
        lambda: sandbox.pause(True, mode="full"),
        lambda: sandbox.connect(on_resume="perhaps"),
    ]:
        await sdk.fails(e2b.InvalidArgumentException, call)
    for lifecycle in [
        {"on_timeout": "sleep"},
        {"on_timeout": "kill", "auto_resume": True},
        {"on_timeout": TO_FILES, "auto_resume": True},
        {"on_timeout": {"action": "kill", "mode": "full"}},
    ]:
        await sdk.fails(e2b.InvalidArgumentException, lambda: sdk.Sandbox.create(lifecycle=lifecycle))
    assert await sdk.do(sandbox.is_running()) is True


async def test_a_strict_pause_asks_the_agent(sdk):
    sandbox = await sdk.create()
    boot = await boot_id(sdk, sandbox)
    assert await sdk.do(sandbox.pause(strict=True)) is True
    await sdk.do(sandbox.connect(timeout=120))
    assert await boot_id(sdk, sandbox) == boot
    # The agent stands still until a program beside it wakes it.
    stop = "sleep 0.1; kill -STOP $0; sleep 3; kill -CONT $0"
    stop = f"setsid sh -c '{stop}' $(pgrep -P 1 -f '^envd') > /dev/null 2>&1 &"
    await sdk.run(sandbox, stop, user="root")

    async def is_silent():
        try:
            await sdk.do(sandbox.is_running(request_timeout=0.2))
        except Exception:
            return True

    await sdk.until("its silence", is_silent)
    await sdk.fails(e2b.exceptions.ServiceBusyException, lambda: sandbox.pause(strict=True))
    assert await state(sdk, sandbox) == SandboxState.RUNNING
    await sdk.until("the agent", lambda: sandbox.is_running())
    assert await boot_id(sdk, sandbox) == boot


async def test_lists_tell_running_and_paused_ones(sdk):
    run = f"states-{uuid.uuid4().hex}"
    made = [await sdk.create(metadata={"run": run}) for _ in range(4)]
    ids = [sandbox.sandbox_id for sandbox in made]
    await sdk.do(made[1].pause())
    await sdk.do(made[2].pause(mode="filesystem"))

    async def listed(*states, **options):
        query = SandboxQuery(metadata={"run": run}, state=list(states) or None)
        pages = sdk.Sandbox.list(query=query, **options)
        found = []
        while pages.has_next:
            found += await sdk.do(pages.next_items())
        return [(info.sandbox_id, info.state) for info in found]

    running, asleep = SandboxState.RUNNING, SandboxState.PAUSED
    both = [(ids[3], running), (ids[2], asleep), (ids[1], asleep), (ids[0], running)]
    assert await listed() == both
    assert await listed(limit=1) == both
    assert await listed(running, asleep, limit=3) == both
    assert await listed(order="asc", limit=2) == both[::-1]
    assert await listed(asleep) == both[1:3]
    assert await listed(running, limit=1) == [both[0], both[3]]
    # A paused one is killed like a running one, and so is one that was paused.
    assert await sdk.do(made[1].kill()) is True
    assert await sdk.do(made[1].kill()) is False
    await sdk.do(made[2].connect(timeout=120))
    assert await listed(asleep) == []
    assert await sdk.do(sdk.Sandbox.kill(ids[2])) is True
    assert await listed() == [both[0], both[3]]
    for sandbox in made[1:3]:
        await sdk.fails(e2b.SandboxNotFoundException, lambda: sandbox.connect())
        await sdk.fails(e2b.SandboxNotFoundException, lambda: sandbox.get_info())


async def test_how_long_it_lives_after_a_pause(sdk):
    sandbox = await sdk.create(timeout=600)
    began = (await sdk.do(sandbox.get_info())).started_at
    for seconds in (60, 900):
        await sdk.do(sandbox.pause())
        await sdk.fails(e2b.SandboxNotFoundException, lambda: sandbox.set_timeout(100))
        await sdk.do(sandbox.connect(timeout=seconds))
        assert stays(await left(sdk, sandbox), seconds)
    info = await sdk.do(sandbox.get_info())
    assert info.started_at > began
    # One that runs lives longer for it, never shorter.
    await sdk.do(sandbox.connect(timeout=60))
    assert (await sdk.do(sandbox.get_info())).end_at == info.end_at
    await sdk.do(sandbox.connect(timeout=1200))
    assert stays(await left(sdk, sandbox), 1200)
    await sdk.do(sandbox.pause())
    await sdk.do(sandbox.connect())
    assert stays(await left(sdk, sandbox), 300)
    await sdk.do(sandbox.pause())
    error = await sdk.fails(e2b.SandboxException, lambda: sandbox.connect(timeout=10_000_000))
    assert error.status_code == 400 and "Timeout cannot be greater than" in str(error)
    assert await state(sdk, sandbox) == SandboxState.PAUSED


async def test_what_happens_at_the_timeout(sdk):
    with_memory = await sdk.create(lifecycle={"on_timeout": "pause"})
    files_only = await sdk.create(lifecycle={"on_timeout": TO_FILES})
    killed = await sdk.create(lifecycle={"on_timeout": {"action": "kill"}})
    unsaid = await sdk.create()
    boots = {}
    for sandbox, on_timeout in [
        (with_memory, "pause"),
        (files_only, "pause"),
        (killed, "kill"),
        (unsaid, "kill"),
    ]:
        info = await sdk.do(sandbox.get_info())
        assert info.lifecycle == {"on_timeout": on_timeout, "auto_resume": False}
        boots[sandbox] = await boot_id(sdk, sandbox)
        await sdk.do(sandbox.set_timeout(1))
    for sandbox, mode in [(with_memory, "full"), (files_only, "filesystem")]:
        await paused(sdk, sandbox)
        await sdk.until("its end", lambda: detail(sandbox).get("pauseMode") == mode)
    for sandbox in (killed, unsaid):
        await sdk.until("the end", lambda: gone(sdk, sandbox))
        await sdk.fails(e2b.SandboxNotFoundException, lambda: sandbox.connect())
    for sandbox, same in [(with_memory, True), (files_only, False)]:
        await sdk.do(sandbox.connect(timeout=60))
        assert (await boot_id(sdk, sandbox) == boots[sandbox]) is same
        # It is paused again when the new time is over.
        await sdk.do(sandbox.set_timeout(0))
    await paused(sdk, with_memory)
    await paused(sdk, files_only)


async def test_traffic_wakes(sdk):
    sandbox = await sdk.create(timeout=420, lifecycle=WAKES)
    info = await sdk.do(sandbox.get_info())
    assert info.lifecycle == {"on_timeout": "pause", "auto_resume": True}
    boot = await boot_id(sdk, sandbox)
    host = await serve(sdk, sandbox, 8000)
    first = int(ask(host)[1].split()[0])
    await sdk.do(sandbox.set_timeout(900))
    await sdk.do(sandbox.pause())
    assert int(ask(host)[1].split()[0]) == first + 1
    # As long as it was made for, whatever was said later.
    assert stays(await left(sdk, sandbox), 420)
    for call, answer in [
        (lambda: sandbox.commands.run("cat /proc/sys/kernel/random/boot_id"), boot),
        (lambda: sandbox.files.read("/proc/sys/kernel/random/boot_id"), boot),
        (lambda: sandbox.is_running(), True),
    ]:
        await sdk.do(sandbox.pause())
        woken = await sdk.do(call())
        assert getattr(woken, "stdout", woken) == answer
        assert await state(sdk, sandbox) == SandboxState.RUNNING
    # Nobody asks at its time's end: it sleeps until somebody does.
    await sdk.do(sandbox.set_timeout(0))
    await sdk.until("the pause", lambda: "pauseMode" in detail(sandbox))
    assert ask(host)[0] == 200
    # No token, no waking.
    await sdk.do(sandbox.pause())
    for headers in ({}, {"X-Access-Token": "0" * 64}):
        status, body = ask(sandbox.get_host(49983), "/health", headers)
        assert status == 403 and b"can't be resumed with the credentials provided" in body
    assert await state(sdk, sandbox) == SandboxState.PAUSED
    # Without memory there is no service to be woken for.
    await sdk.do(sandbox.connect(timeout=60))
    await sdk.do(sandbox.pause(mode="filesystem"))
    assert ask(host)[0] == 502
    assert await sdk.do(sandbox.is_running()) is False
    assert await state(sdk, sandbox) == SandboxState.PAUSED


async def test_whom_traffic_wakes_lives_five_minutes_at_least(sdk):
    sandbox = await sdk.create(timeout=30, lifecycle=WAKES)
    await sdk.do(sandbox.pause())
    # A closed port is traffic too.
    assert ask(sandbox.get_host(9))[0] == 502
    assert stays(await left(sdk, sandbox), 300)


async def test_many_that_ask_at_once_wake_it_once(sdk):
    sandbox = await sdk.create(lifecycle=WAKES)
    host = await serve(sdk, sandbox, 8000)
    first = int(ask(host)[1].split()[0])
    await sdk.do(sandbox.pause())
    answers = await asyncio.gather(*(asyncio.to_thread(ask, host) for _ in range(8)))
    assert [status for status, _ in answers] == [200] * 8
    assert sorted(int(body.split()[0]) for _, body in answers) == list(range(first + 1, first + 9))


async def test_traffic_wakes_nobody_who_did_not_ask_for_it(sdk):
    sandbox = await sdk.create(lifecycle={"on_timeout": "pause", "auto_resume": False})
    host = await serve(sdk, sandbox, 8000)
    await sdk.do(sandbox.pause())
    status, body = ask(host)
    assert status == 502 and b"was not found" in body
    for call in [
        lambda: sandbox.commands.run("true"),
        lambda: sandbox.files.list("/"),
        lambda: sandbox.files.read("/etc/hostname"),
        lambda: sandbox.pty.create(PtySize(24, 80), **({"on_data": print} if sdk.is_async else {})),
    ]:
        await sdk.fails(e2b.exceptions.SandboxNotRunningException, call)
    assert await state(sdk, sandbox) == SandboxState.PAUSED
    await sdk.do(sandbox.connect(timeout=60))
    assert ask(host)[0] == 200


async def test_what_is_open_ends_at_a_pause_and_says_so(sdk):
    sandbox = await sdk.create()
    handle = await sdk.run(sandbox, "read line; echo $line", background=True, stdin=True)
    more = {"on_data": print} if sdk.is_async else {}
    terminal = await sdk.do(sandbox.pty.create(PtySize(24, 80), **more))
    ended = []
    more = {"on_event": print, "on_exit": ended.append} if sdk.is_async else {}
    watch = await sdk.do(sandbox.files.watch_dir("/home/user", **more))
    host = await serve(sdk, sandbox, 8000)
    idle, streamed = connect(), connect()
    ask(host, connection=idle)
    streamed.request("GET", "/stream", headers={"Host": host})
    stream = streamed.getresponse()
    assert stream.read(5) == b"more\n"
    await sdk.do(sandbox.pause())

    for call in (lambda: handle.wait(), lambda: terminal.wait()):
        await sdk.fails(e2b.exceptions.SandboxNotRunningException, call)
    if sdk.is_async:
        await sdk.until("the end of the watch", lambda: ended)
        assert isinstance(ended[0], e2b.exceptions.SandboxNotRunningException)
    else:
        await sdk.fails(
            e2b.exceptions.SandboxNotRunningException, lambda: watch.get_new_events()
        )
    with pytest.raises((http.client.IncompleteRead, ConnectionError)):
        while stream.read(100):
            pass
        raise ConnectionResetError("it ended without a last chunk")

    await sdk.do(sandbox.connect(timeout=120))
    # All of them go on inside, and can be had again.
    other = await sdk.do(sandbox.commands.connect(handle.pid))
    await sdk.do(sandbox.commands.send_stdin(handle.pid, "heard\n"))
    assert (await sdk.do(other.wait())).stdout == "heard\n"
    assert await sdk.do(sandbox.pty.kill(terminal.pid)) is True
    if not sdk.is_async:
        await sdk.do(sandbox.files.write("seen", ""))
        await sdk.until(
            "the event", lambda: any(e.name == "seen" for e in watch.get_new_events())
        )
        watch.stop()
    # To the edge one may stay open: what it asks next is answered.
    held = idle.sock
    assert held and ask(host, connection=idle)[0] == 200 and idle.sock is held


async def test_a_connection_that_was_upgraded_ends_at_a_pause(sdk):
    sandbox = await sdk.create()
    echo = (
        "import socket\n"
        "s = socket.create_server(('127.0.0.1', 8001))\n"
        "c, _ = s.accept()\n"
        "while b'\\r\\n\\r\\n' not in c.recv(4096): pass\n"
        "c.sendall(b'HTTP/1.1 101 Switching Protocols\\r\\n'\n"
        "          b'Connection: Upgrade\\r\\nUpgrade: websocket\\r\\n\\r\\n')\n"
        "while data := c.recv(1024): c.sendall(data)\n"
    )
    await sdk.do(sandbox.files.write("echo.py", echo))
    await sdk.run(sandbox, "python3 echo.py", background=True)
    await sdk.until("the listener", lambda: listening(sdk, sandbox, 8001))
    with socket.create_connection((API.hostname, API.port or 80), timeout=10) as stream:
        stream.sendall(
            f"GET / HTTP/1.1\r\nHost: {sandbox.get_host(8001)}\r\nConnection: Upgrade\r\n"
            "Upgrade: websocket\r\n\r\n".encode()
        )
        assert stream.recv(4096).startswith(b"HTTP/1.1 101")
        stream.sendall(b"abc")
        assert stream.recv(16) == b"abc"
        await sdk.do(sandbox.pause())
        try:
            assert stream.recv(16) == b""
        except ConnectionResetError:
            pass


async def test_tokens_and_signed_links_survive(sdk):
    sandbox = await sdk.create()
    await sdk.do(sandbox.files.write("signed", "hi"))
    link = sandbox.download_url("signed", user="user", use_signature_expiration=60)
    for mode in ("full", "filesystem"):
        await sdk.do(sandbox.pause(mode=mode))
        other = await sdk.do(sdk.Sandbox.connect(sandbox.sandbox_id, timeout=60))
        assert urllib.request.urlopen(routed(sandbox, link)).read() == b"hi"
        same = other.download_url("signed", user="user")
        assert urllib.request.urlopen(routed(other, same)).read() == b"hi"
        # The first object's token is good for what follows.
        await sdk.do(sandbox.files.write("signed", "hi"))


async def test_rules_of_the_network_survive(sdk):
    rules = {"allow_out": ["allowed.test", "192.0.2.7"], "deny_out": [e2b.ALL_TRAFFIC]}
    sandbox = await sdk.create(network={**rules, "dns_servers": ["192.0.2.53"]})

    async def said(name):
        asked = f"curl -s -m 10 --resolve {name}:80:192.0.2.1 http://{name}/"
        return (await sdk.run(sandbox, f"{asked} || true")).stdout

    async def resumed(mode):
        await sdk.do(sandbox.pause(mode=mode))
        await sdk.do(sandbox.connect(timeout=120))
        return (await sdk.do(sandbox.get_info())).network

    made = (await sdk.do(sandbox.get_info())).network
    assert made == {**rules, "dns_servers": ["192.0.2.53"]}
    for mode in ("full", "filesystem"):
        assert await resumed(mode) == made
        assert "'www.allowed.test' is not in this sandbox's allowOut" in await said("www.allowed.test")
    await sdk.do(sandbox.update_network({**rules, "allow_out": ["www.allowed.test"]}))
    updated = (await sdk.do(sandbox.get_info())).network
    for mode in ("full", "filesystem"):
        assert await resumed(mode) == updated
        assert "'allowed.test' is not in this sandbox's allowOut" in await said("allowed.test")
        assert "is not in this sandbox's allowOut" not in await said("www.allowed.test")
    await sdk.do(sandbox.pause())
    await sdk.fails(e2b.SandboxNotFoundException, lambda: sandbox.update_network({}))

    closed = await sdk.create(allow_internet_access=False)
    for mode in ("full", "filesystem"):
        await sdk.do(closed.pause(mode=mode))
        await sdk.do(closed.connect(timeout=60))
        assert (await sdk.do(closed.get_info())).allow_internet_access is False
        lookup = "getent hosts example.com || echo none"
        assert (await sdk.run(closed, lookup)).stdout == "none\n"
