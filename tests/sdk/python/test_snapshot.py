"""Snapshots, sandboxes from them, and forks: files are kept, memory is not."""

import datetime
import json
import uuid

import e2b
import pytest
from e2b import SandboxQuery, SandboxState

from test_abuse import send
from test_pause import MISSING, boot_id, left, state, stays


def a_name():
    return f"snap-{uuid.uuid4().hex[:12]}"


async def all_of(sdk, pages):
    found = []
    while pages.has_next:
        found += await sdk.do(pages.next_items())
    return found


async def ids_of(sdk, pages):
    return [snapshot.snapshot_id for snapshot in await all_of(sdk, pages)]


async def test_a_snapshot_is_a_template_of_its_own(sdk):
    source = await sdk.create(envs={"GREETING": "of the source"}, metadata={"of": "the source"})
    boot = await boot_id(sdk, source)
    await sdk.do(source.files.write("kept", "before"))
    await sdk.run(source, "sudo sh -c 'echo root > /etc/kept; chmod 600 /etc/kept'")
    sleeping = await sdk.run(source, "sleep 4322", background=True)
    open_one = await sdk.run(source, "read line; echo $line", background=True, stdin=True)
    snapshot = await sdk.do(source.create_snapshot())
    assert snapshot.snapshot_id.endswith(":default") and snapshot.names == []
    # The source goes on as if nothing had been.
    await sdk.do(source.files.write("kept", "after"))
    assert await boot_id(sdk, source) == boot
    assert await sdk.do(source.commands.kill(sleeping.pid)) is True
    await sdk.do(source.commands.send_stdin(open_one.pid, "heard\n"))
    assert (await sdk.do(open_one.wait())).stdout == "heard\n"

    seen = "pgrep -fx 'sleep 4322'; cat kept; sudo stat -c :%U:%a /etc/kept; echo $GREETING; pwd"

    async def check(sandbox):
        assert sandbox.sandbox_id != source.sandbox_id
        assert (await sdk.run(sandbox, seen)).stdout == "before:root:600\nnew\n/home/user\n"
        assert await boot_id(sdk, sandbox) != boot
        info = await sdk.do(sandbox.get_info())
        assert (info.metadata, info.template_id) == ({"made": "anew"}, snapshot.snapshot_id[:-8])
        assert stays(await left(sdk, sandbox), 90)

    options = {"envs": {"GREETING": "new"}, "metadata": {"made": "anew"}, "timeout": 90}
    made = await sdk.create(snapshot.snapshot_id, **options)
    await check(made)
    await sdk.do(source.kill())
    # Without its tag, by which the default one is meant; and after the source's end.
    again = await sdk.create(snapshot.snapshot_id.removesuffix(":default"), **options)
    await check(again)
    query = SandboxQuery(template=snapshot.snapshot_id.removesuffix(":default"))
    listed = await all_of(sdk, sdk.Sandbox.list(query=query))
    assert {info.sandbox_id for info in listed} == {made.sandbox_id, again.sandbox_id}
    # What it writes is not in the snapshot, and lasts like everything else.
    await sdk.do(again.files.write("kept", "mine"))
    await sdk.do(again.pause(mode="filesystem"))
    await sdk.do(again.connect(timeout=60))
    assert await sdk.do(again.files.read("kept")) == "mine"
    await sdk.do(again.kill())

    for in_use in ("running", "paused"):
        error = await sdk.fails(
            e2b.SandboxException, lambda: sdk.Sandbox.delete_snapshot(snapshot.snapshot_id)
        )
        assert error.status_code == 400 and f"{in_use} sandboxes using it" in str(error)
        await sdk.do(made.pause())
    await sdk.do(made.kill())
    assert await sdk.do(sdk.Sandbox.delete_snapshot(snapshot.snapshot_id)) is True
    assert await sdk.do(sdk.Sandbox.delete_snapshot(snapshot.snapshot_id)) is False
    with pytest.raises(e2b.SandboxException) as caught:
        await sdk.create(snapshot.snapshot_id)
    assert caught.value.status_code == 404


async def test_names_and_tags(sdk):
    name = a_name()
    source = await sdk.create()
    taken = {}
    for tag in ("", ":v2"):
        await sdk.do(source.files.write("kept", f"first {tag}"))
        snapshot = await sdk.do(source.create_snapshot(f"{name}{tag}"))
        assert snapshot.snapshot_id == f"default/{name}{tag or ':default'}"
        assert snapshot.names == [f"default/{name}"]
        taken[tag] = snapshot.snapshot_id
    for reference, content in [(name, "first "), (f"{name}:v2", "first :v2"), (taken[":v2"], "first :v2")]:
        made = await sdk.create(reference, timeout=30)
        assert await sdk.do(made.files.read("kept")) == content
        assert (await sdk.do(made.get_info())).name == name
        await sdk.do(made.kill())
    # Taken again under the same name: who begins right after has what was kept last.
    for turn in range(3):
        await sdk.do(source.files.write("kept", f"turn {turn}"))
        again = await sdk.do(sdk.Sandbox.create_snapshot(source.sandbox_id, name=f"default/{name}"))
        assert again.snapshot_id == taken[""]
        made = await sdk.create(name, timeout=30)
        assert await sdk.do(made.files.read("kept")) == f"turn {turn}"
        await sdk.do(made.kill())
    made = await sdk.create(f"{name}:v2", timeout=30)
    assert await sdk.do(made.files.read("kept")) == "first :v2"
    await sdk.do(made.kill())

    lists = lambda **options: ids_of(sdk, sdk.Sandbox.list_snapshots(**options))
    assert sorted(await lists(name=name)) == sorted(taken.values())
    assert await lists(name=f"{name}:v2") == [taken[":v2"]]
    assert await lists(name=f"default/{name}:default") == [taken[""]]
    assert await lists(name=a_name()) == []
    for wrong in ("somebody/" + name, "Not a name!"):
        for call in (
            lambda: source.create_snapshot(wrong),
            lambda: sdk.Sandbox.list_snapshots(name=wrong).next_items(),
        ):
            assert (await sdk.fails(e2b.SandboxException, call)).status_code == 400
    # All of a name's tags go together.
    assert await sdk.do(sdk.Sandbox.delete_snapshot(taken[":v2"])) is True
    assert await lists(name=name) == []
    assert await sdk.do(sdk.Sandbox.delete_snapshot(name)) is False
    for reference in (name, f"{name}:v2"):
        with pytest.raises(e2b.SandboxException) as caught:
            await sdk.create(reference)
        assert caught.value.status_code == 404


async def test_lists_of_snapshots(sdk):
    first, second = await sdk.create(), await sdk.create()
    taken = []
    for sandbox in (first, second, first, first):
        taken.append((await sdk.do(sandbox.create_snapshot())).snapshot_id)
    of_first = [taken[3], taken[2], taken[0]]
    pages = first.list_snapshots(limit=2)
    assert pages.has_next
    assert [s.snapshot_id for s in await sdk.do(pages.next_items())] == of_first[:2]
    assert pages.has_next and pages.next_token
    rest = sdk.Sandbox.list_snapshots(first.sandbox_id, limit=2, next_token=pages.next_token)
    for other in (pages, rest):
        assert [s.snapshot_id for s in await sdk.do(other.next_items())] == of_first[2:]
        assert not other.has_next
    assert await ids_of(sdk, second.list_snapshots()) == [taken[1]]
    assert await ids_of(sdk, second.list_snapshots(name=taken[0])) == []
    # Newest first; other tests may take some beside.
    everything = await ids_of(sdk, sdk.Sandbox.list_snapshots(limit=3))
    assert [id for id in everything if id in taken] == taken[::-1]
    assert await ids_of(sdk, sdk.Sandbox.list_snapshots(MISSING)) == []
    for id in taken:
        assert await sdk.do(sdk.Sandbox.delete_snapshot(id)) is True


async def test_memory_is_not_kept_and_nobody_is_told_otherwise(sdk):
    sandbox = await sdk.create()
    path = f"/sandboxes/{sandbox.sandbox_id}/snapshots"
    status, body = send("POST", path, b'{"memory":true}')
    assert status == 400 and json.loads(body)["error_code"] == "snapshot_memory_unsupported"
    for call in [
        lambda: sandbox.create_snapshot(mode="full"),
        lambda: sdk.Sandbox.create_snapshot(sandbox.sandbox_id, mode="full"),
    ]:
        error = await sdk.fails(e2b.SandboxException, call)
        assert error.status_code == 400 and "cannot be kept on this platform" in str(error)
    assert await ids_of(sdk, sandbox.list_snapshots()) == []
    taken = await sdk.do(sandbox.create_snapshot(mode="filesystem"))
    assert await ids_of(sdk, sandbox.list_snapshots()) == [taken.snapshot_id]
    assert await sdk.do(sdk.Sandbox.delete_snapshot(taken.snapshot_id)) is True


async def test_only_what_runs_is_kept(sdk):
    sandbox = await sdk.create()
    await sdk.do(sandbox.pause())
    await sdk.fails(e2b.SandboxNotFoundException, lambda: sandbox.create_snapshot())
    error = await sdk.fails(e2b.SandboxException, lambda: sandbox.fork())
    assert error.status_code == 409 and "is paused and cannot be forked" in str(error)
    assert await state(sdk, sandbox) == SandboxState.PAUSED
    await sdk.do(sandbox.kill())
    for call in [
        lambda: sandbox.create_snapshot(),
        lambda: sdk.Sandbox.create_snapshot(MISSING),
        lambda: sandbox.fork(),
        lambda: sdk.Sandbox.fork(MISSING),
    ]:
        await sdk.fails(e2b.SandboxNotFoundException, call)


async def test_forks_begin_with_the_files_of_one(sdk):
    options = {"allow_out": ["allowed.test"], "deny_out": [e2b.ALL_TRAFFIC], "allow_public_traffic": False}
    source = await sdk.create(
        envs={"GREETING": "hello"},
        metadata={"of": "forks"},
        network=options,
        lifecycle={"on_timeout": "pause", "auto_resume": True},
    )
    before = await sdk.do(source.get_info())
    boots = [await boot_id(sdk, source)]
    await sdk.do(source.files.write("kept", "kept"))
    sleeping = await sdk.run(source, "sleep 4323", background=True)
    forks = await sdk.do(source.fork(timeout=60, count=5))
    forks += await sdk.do(sdk.Sandbox.fork(source.sandbox_id, timeout=60))
    forks += await sdk.do(source.fork())
    sdk.made += forks
    assert len({fork.sandbox_id for fork in [source, *forks]}) == 8
    assert len({fork.traffic_access_token for fork in [source, *forks]}) == 8
    for at, fork in enumerate(forks):
        info = await sdk.do(fork.get_info())
        assert (info.template_id, info.name) == (before.template_id, "base")
        assert (info.metadata, info.lifecycle) == (before.metadata, before.lifecycle)
        assert info.network == before.network
        # Fifteen seconds when nothing is said, as in E2B.
        assert stays(await left(sdk, fork), 15 if at == 6 else 60)
        seen = "pgrep -fx 'sleep 4323'; echo $GREETING; cat kept; whoami; pwd"
        assert (await sdk.run(fork, f"cat kept; {seen}")).stdout == "kepthello\nkeptuser\n/home/user\n"
        boots.append(await boot_id(sdk, fork))
        await sdk.do(fork.files.write("kept", str(at)))
    assert len(set(boots)) == 8
    # Each has its own from then on.
    assert await sdk.do(source.files.read("kept")) == "kept"
    assert [await sdk.do(fork.files.read("kept")) for fork in forks] == list("0123456")
    assert await boot_id(sdk, source) == boots[0]
    assert await sdk.do(source.commands.kill(sleeping.pid)) is True
    assert (await sdk.do(source.get_info())).end_at == before.end_at
    # The files of a fork are no snapshot that anybody sees, and need nothing of the source's.
    assert await ids_of(sdk, source.list_snapshots()) == []
    await sdk.do(source.kill())
    assert await sdk.do(forks[0].files.read("kept")) == "0"
    forked = (await sdk.do(forks[0].fork(timeout=30)))[0]
    sdk.made.append(forked)
    assert await sdk.do(forked.files.read("kept")) == "0"


async def test_how_many_forks(sdk, sandbox):
    for count in (0, -1, 21):
        await sdk.fails(e2b.InvalidArgumentException, lambda: sandbox.fork(count=count))
    # The SDK refuses them; the platform as well.
    path = f"/sandboxes/{sandbox.sandbox_id}/fork"
    for count, text in [(0, "at least 1"), (101, "greater than 100")]:
        status, body = send("POST", path, json.dumps({"count": count}))
        assert status == 400 and text in json.loads(body)["message"]
    error = await sdk.fails(e2b.SandboxException, lambda: sandbox.fork(timeout=10_000_000))
    assert error.status_code == 400


async def test_events_tell_of_it(sdk):
    sandbox = await sdk.create()
    await sdk.do(sandbox.pause())
    await sdk.do(sandbox.connect(timeout=60))
    taken = await sdk.do(sandbox.create_snapshot())
    await sdk.do(sdk.Sandbox.delete_snapshot(taken.snapshot_id))
    await sdk.do(sandbox.kill())

    def told():
        status, body = send("GET", f"/events/sandboxes/{sandbox.sandbox_id}?orderAsc=true")
        assert status == 200
        return [event["type"].removeprefix("sandbox.lifecycle.") for event in json.loads(body)]

    await sdk.until("the last event", lambda: told()[-1:] == ["killed"])
    assert told() == ["created", "paused", "resumed", "checkpointed", "killed"]
