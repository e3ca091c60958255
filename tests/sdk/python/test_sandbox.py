import datetime

import e2b
import pytest
from e2b import SandboxQuery, SandboxState

MISSING = "i00000000000000000000"


async def test_create_with_everything_that_is_kept(sdk):
    sandbox = await sdk.create(
        "base", timeout=300, metadata={"purpose": "a b", "ü": "ö"}, envs={"GREETING": "hello"}
    )
    info = await sdk.do(sandbox.get_info())
    assert info.sandbox_id == sandbox.sandbox_id
    assert info.metadata == {"purpose": "a b", "ü": "ö"}
    assert info.state == SandboxState.RUNNING
    assert (info.cpu_count, info.memory_mb) == (2, 512)
    assert info.name == "base"
    assert 295 < (info.end_at - info.started_at).total_seconds() < 305
    result = await sdk.run(sandbox, "echo $GREETING")
    assert result.stdout == "hello\n"


async def test_a_sandbox_knows_where_it_is(sdk, sandbox):
    host = sandbox.get_host(8000)
    assert host == f"8000-{sandbox.sandbox_id}.{sandbox.sandbox_domain}"
    assert sandbox.get_mcp_url() == f"https://{sandbox.get_host(50005)}/mcp"
    assert sandbox.envd_api_url and sandbox.envd_direct_url
    assert sandbox.connection_config.api_key
    assert sandbox.traffic_access_token is None or sandbox.traffic_access_token
    assert await sdk.do(sandbox.is_running())


async def test_the_mcp_token_is_read_from_its_file(sdk):
    sandbox = await sdk.create()
    await sdk.do(sandbox.files.write("/etc/mcp-gateway/.token", "t0ken", user="root"))
    assert await sdk.do(sandbox.get_mcp_token()) == "t0ken"


async def test_kill_ends_it_and_says_whether_it_was_there(sdk):
    first = await sdk.create()
    second = await sdk.create()
    assert await sdk.do(first.kill()) is True
    assert await sdk.do(first.kill()) is False
    assert await sdk.do(first.is_running()) is False
    assert await sdk.do(sdk.Sandbox.kill(second.sandbox_id)) is True
    assert await sdk.do(sdk.Sandbox.kill(MISSING)) is False
    await sdk.fails(e2b.TimeoutException, lambda: first.commands.run("true"))
    await sdk.fails(e2b.NotFoundException, lambda: first.get_info())


async def test_metrics_come_soon_and_tell_what_it_uses(sdk):
    sandbox = await sdk.create()
    before = datetime.datetime.now(datetime.timezone.utc) - datetime.timedelta(hours=1)
    await sdk.run(sandbox, "dd if=/dev/zero of=/tmp/some bs=1M count=20 && sync")

    async def written():
        metrics = await sdk.do(sandbox.get_metrics())
        return any(m.disk_used > 10 << 20 and m.mem_used > 0 for m in metrics) and metrics

    for one in await sdk.until("a sample with what was written", written, 60):
        assert one.timestamp > before
        assert (one.cpu_count, one.mem_total) == (2, 512 << 20)
        assert 0 <= one.cpu_used_pct <= 100
        assert one.disk_total > one.disk_used and one.mem_total > one.mem_used
        assert one.mem_cache >= 0
    hour = datetime.timedelta(hours=1)
    assert await sdk.do(sandbox.get_metrics(start=before - hour, end=before)) == []
    assert await sdk.do(sdk.Sandbox.get_metrics(sandbox.sandbox_id, start=before))
    assert await sdk.do(sdk.Sandbox.get_metrics(MISSING)) == []


async def test_connect_gives_the_same_sandbox(sdk):
    sandbox = await sdk.create()
    await sdk.do(sandbox.files.write("mark", "same"))
    other = await sdk.do(sdk.Sandbox.connect(sandbox.sandbox_id, timeout=300))
    assert other.sandbox_id == sandbox.sandbox_id
    assert await sdk.do(other.files.read("mark")) == "same"
    again = await sdk.do(sandbox.connect(timeout=300))
    assert again.sandbox_id == sandbox.sandbox_id
    await sdk.fails(e2b.NotFoundException, lambda: sdk.Sandbox.connect(MISSING))


async def test_connect_never_shortens_a_life(sdk):
    sandbox = await sdk.create(timeout=600)
    before = (await sdk.do(sandbox.get_info())).end_at
    await sdk.do(sandbox.connect(timeout=10))
    assert (await sdk.do(sandbox.get_info())).end_at == before


async def test_set_timeout_moves_the_end_both_ways(sdk):
    sandbox = await sdk.create(timeout=60)
    for seconds, by_id in [(600, False), (90, True)]:
        if by_id:
            await sdk.do(sdk.Sandbox.set_timeout(sandbox.sandbox_id, seconds))
        else:
            await sdk.do(sandbox.set_timeout(seconds))
        info = await sdk.do(sdk.Sandbox.get_info(sandbox.sandbox_id))
        left = info.end_at - datetime.datetime.now(datetime.timezone.utc)
        assert abs(left.total_seconds() - seconds) < 5
    await sdk.fails(e2b.NotFoundException, lambda: sdk.Sandbox.set_timeout(MISSING, 60))


async def test_it_ends_when_its_time_is_over(sdk):
    sandbox = await sdk.create(timeout=1)
    await sdk.until("the end", lambda: gone(sdk, sandbox), seconds=4)


async def gone(sdk, sandbox):
    return not await sdk.do(sandbox.is_running())


async def test_list_filters_and_pages(sdk):
    run = f"run-{sdk.kind}-{datetime.datetime.now().timestamp()}"
    made = [await sdk.create(metadata={"run": run, "n": str(n)}) for n in range(3)]
    ids = [sandbox.sandbox_id for sandbox in made]
    query = SandboxQuery(metadata={"run": run}, state=[SandboxState.RUNNING])
    pages = sdk.Sandbox.list(query=query, limit=2)
    assert pages.has_next
    first = await sdk.do(pages.next_items())
    assert len(first) == 2 and pages.has_next and pages.next_token
    rest = sdk.Sandbox.list(query=query, limit=2, next_token=pages.next_token)
    second = await sdk.do(pages.next_items())
    assert [s.sandbox_id for s in await sdk.do(rest.next_items())] == [
        s.sandbox_id for s in second
    ]
    assert not pages.has_next
    assert sorted(s.sandbox_id for s in first + second) == sorted(ids)
    one = sdk.Sandbox.list(query=SandboxQuery(metadata={"run": run, "n": "1"}))
    assert [s.sandbox_id for s in await sdk.do(one.next_items())] == [ids[1]]
    oldest = await sdk.do(sdk.Sandbox.list(query=query, order="asc").next_items())
    assert [s.sandbox_id for s in oldest] == ids
    paused = SandboxQuery(metadata={"run": run}, state=[SandboxState.PAUSED])
    assert await sdk.do(sdk.Sandbox.list(query=paused).next_items()) == []


async def test_it_works_as_a_context(sdk):
    created = await sdk.create()
    if sdk.is_async:
        async with created as sandbox:
            assert await sandbox.is_running()
    else:
        with created as sandbox:
            assert sandbox.is_running()
    assert await sdk.do(created.is_running()) is False


async def test_one_idempotency_key_makes_one_sandbox(sdk):
    key = f"key-{sdk.kind}-{int(datetime.datetime.now().timestamp() * 1000)}"
    first = await sdk.create(idempotency_key=key)
    second = await sdk.create(idempotency_key=key)
    assert first.sandbox_id == second.sandbox_id


async def test_a_port_of_the_agent_cannot_speak_tls(sdk):
    with pytest.raises(e2b.SandboxException) as caught:
        await sdk.create(network={"https_ports": [49983]})
    assert caught.value.status_code == 400
    assert "49983" in str(caught.value)


async def test_an_unknown_template_is_not_found(sdk):
    with pytest.raises(e2b.SandboxException) as caught:
        await sdk.create("no-such-template")
    assert "no-such-template" in str(caught.value)
    assert caught.value.status_code == 404


async def test_a_wrong_key_is_refused(sdk):
    wrong = "e2b_" + "0" * 40
    with pytest.raises(e2b.AuthenticationException):
        await sdk.create(api_key=wrong)
    pages = sdk.Sandbox.list(api_key=wrong)
    await sdk.fails(e2b.AuthenticationException, lambda: pages.next_items())
