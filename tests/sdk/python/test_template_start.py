"""Templates with a start command: what runs in their sandboxes before anybody can ask.
Numbers in parentheses: section 7 of the specification of templates."""

import time
import traceback

import e2b
import pytest

import edge

SERVE = "python3 -m http.server {port} --bind 127.0.0.1"


def server(lines):
    """What the platform said, of what the SDK logged."""
    return lines[lines.index("Waiting for logs...") + 1 : -1]


async def listed(sdk, sandbox):
    return await sdk.do(sandbox.commands.list())


async def test_it_runs_when_the_sandbox_is_there(sdk):
    """(27, 39) and 6.1."""
    start = SERVE.format(port=8765)
    builder = sdk.Template().from_base_image()
    # What was seen to start once is not started again for a build.
    builder.set_envs({"OF_START": "it's set", "FRESH": sdk.fresh_name()}).set_workdir("/srv/page").run_cmd("echo served > index.html")
    built = await sdk.build(builder.set_start_cmd(start, e2b.wait_for_port(8765)))
    said = server(built.lines)
    order = [
        f"Running start command: {start}",
        f"Waiting for template to be ready: {e2b.wait_for_port(8765).get_cmd()}",
        "Template is ready",
    ]
    places = [next(at for at, line in enumerate(said) if line.endswith(text)) for text in order]
    assert places == sorted(places)
    for options in ({}, {"envs": {"OF_CREATE": "1"}}, {"metadata": {"a": "b"}}):
        sandbox = await sdk.create(built.info.template_id, **options)
        # No waiting: it is what clients do who know that a service is there.
        assert (await sdk.run(sandbox, "curl -s http://127.0.0.1:8765/")).stdout == "served\n"
        assert edge.ask(sandbox.get_host(8765)) == (200, b"served\n")
        (process,) = await listed(sdk, sandbox)
        assert (process.cmd, process.args) == ("/bin/bash", ["-l", "-c", start])
        assert process.cwd == "/srv/page"
        environment = (await sdk.run(sandbox, f"tr '\\0' '\\n' < /proc/{process.pid}/environ")).stdout
        assert "OF_START=it's set\n" in environment and "HOME=/home/user\n" in environment
        # Those of the create are for what clients start: it may have been started before.
        assert "OF_CREATE" not in environment
        of_clients = (await sdk.run(sandbox, "env")).stdout
        assert "OF_START" not in of_clients
        assert ("OF_CREATE=1\n" in of_clients) is ("envs" in options)
        await sdk.do(sandbox.kill())
    # An ordinary process: it can be killed, and does not come again.
    sandbox = await sdk.create(built.info.template_id)
    (process,) = await listed(sdk, sandbox)
    assert await sdk.do(sandbox.commands.kill(process.pid)) is True

    async def nothing():
        return not await listed(sdk, sandbox)

    await sdk.until("the start command's end", nothing)
    # As any other, it lives on through a pause with memory.
    sandbox = await sdk.create(built.info.template_id)
    (process,) = await listed(sdk, sandbox)
    await sdk.do(sandbox.pause())
    await sdk.do(sandbox.connect())
    assert [one.pid for one in await listed(sdk, sandbox)] == [process.pid]
    # And begins anew where only files go on.
    await sdk.do(sandbox.pause(mode="filesystem"))
    await sdk.do(sandbox.connect())
    assert (await sdk.run(sandbox, "curl -s http://127.0.0.1:8765/")).stdout == "served\n"


async def test_a_start_that_was_seen_is_not_waited_for_again(sdk):
    fresh = sdk.fresh_name()

    def template(ready="sleep 1.5", **more):
        builder = sdk.Template().from_base_image().set_envs({"FRESH": fresh, **more})
        return builder.set_start_cmd("exec sleep infinity", ready)

    def began(built):
        return any("Running start command" in line for line in built.lines)

    first = await sdk.build(template())
    assert began(first)
    again = await sdk.build(template())
    assert not began(again)
    assert any("CACHED [finalize] START exec sleep infinity" in line for line in again.lines), again.lines
    sandbox = await sdk.create(again.info.template_id)
    assert [process.args[-1] for process in await listed(sdk, sandbox)] == ["exec sleep infinity"]
    await sdk.do(sandbox.kill())
    # Whatever it may depend on makes it another one.
    for builder, options in [
        (template("sleep 1.4"), {}),
        (template(MORE="1"), {}),
        (template(), {"memory_mb": 2048}),
        (template(), {"skip_cache": True}),
    ]:
        assert began(await sdk.build(builder, **options)), options


async def test_those_that_come_next_are_started_already(sdk):
    start = "date +%s.%N > /home/user/began; sleep 0.5; exec " + SERVE.format(port=8780)
    built = await sdk.build(sdk.Template().from_base_image().set_start_cmd(start, e2b.wait_for_port(8780)))

    async def ahead():
        asked = time.time()
        sandbox = await sdk.create(built.info.template_id, envs={"A": str(asked)}, metadata={"n": str(asked)})
        began = float(await sdk.do(sandbox.files.read("began")))
        assert (await sdk.run(sandbox, "echo $A")).stdout == f"{asked}\n"
        await sdk.run(sandbox, "curl -s http://127.0.0.1:8780/")
        info = await sdk.do(sandbox.get_info())
        assert info.metadata == {"n": str(asked)} and info.started_at.timestamp() > asked - 1
        return began < asked

    await sdk.until("a sandbox that was there before it was asked for", ahead, 30)


async def test_many_at_once_are_ready_and_apart(sdk):
    start = "cat /proc/sys/kernel/random/uuid > /srv/mine; " + SERVE.format(port=8000)
    builder = sdk.Template().from_base_image().run_cmd("chmod 777 /srv", user="root").set_workdir("/srv")
    built = await sdk.build(builder.set_start_cmd(start, e2b.wait_for_url("http://127.0.0.1:8000/mine")))
    found = set()
    for _ in range(6):
        sandbox = await sdk.create(built.info.template_id)
        found.add((await sdk.run(sandbox, "curl -s http://127.0.0.1:8000/mine")).stdout)
        assert f"E2B_SANDBOX_ID={sandbox.sandbox_id}\n" in (await sdk.run(sandbox, "env")).stdout
        assert (await sdk.run(sandbox, "cat /run/e2b/.E2B_SANDBOX_ID")).stdout.strip() == sandbox.sandbox_id
        await sdk.do(sandbox.kill())
    assert len(found) == 6 and all(found)


READY = {
    "port": ("exec python3 -m http.server 7001", e2b.wait_for_port(7001), "ss -Htln sport = :7001 | grep -q ."),
    "url": (
        "mkdir -p w && cd w && echo 1 > here && python3 -m http.server 7002",
        e2b.wait_for_url("http://localhost:7002/not-here", 404),
        "curl -sf http://localhost:7002/here",
    ),
    "process": ("exec sleep 4399", e2b.wait_for_process("sleep"), "pgrep -fx 'sleep 4399'"),
    "file": ("sleep 1; touch '/home/user/it is up'; sleep 4398", e2b.wait_for_file("/home/user/it is up"), "ls 'it is up'"),
    "time": ("sleep 0.5; touch waited; sleep 4397", e2b.wait_for_timeout(1000), "ls waited"),
    "text": ("echo a > one; sleep 4396", "test -e one && echo ok", "cat one"),
}


@pytest.mark.parametrize("kind", READY)
async def test_ways_to_be_ready(sdk, kind):
    start, ready, check = READY[kind]
    built = await sdk.build(sdk.Template().from_base_image().set_start_cmd(start, ready))
    sandbox = await sdk.create(built.info.template_id)
    await sdk.run(sandbox, check)


async def test_a_start_command_that_ends(sdk):
    """It may, with 0, and what it left runs."""
    start = f"nohup {SERVE.format(port=7100)} > /dev/null 2>&1 & echo begun # {sdk.fresh_name()}"
    built = await sdk.build(sdk.Template().from_base_image().set_start_cmd(start, e2b.wait_for_port(7100)))
    assert any(line.endswith("[start] [stdout]: begun") for line in built.lines)
    sandbox = await sdk.create(built.info.template_id)
    await sdk.run(sandbox, "curl -sf http://127.0.0.1:7100/")


async def test_only_a_ready_command_and_neither(sdk):
    """(28)"""
    built = await sdk.build(sdk.Template().from_base_image().set_ready_cmd("test -d /home/user"))
    assert "Template is ready" in "\n".join(built.lines)
    sandbox = await sdk.create(built.info.template_id)
    assert await listed(sdk, sandbox) == []
    built = await sdk.build(sdk.Template().from_base_image())
    said = "\n".join(built.lines)
    assert "Running start command" not in said and "Waiting for template to be ready" not in said


async def test_starts_that_fail(sdk):
    """(27)"""
    builder = sdk.Template().from_base_image()
    builder.run_cmd("true")
    final = builder.set_start_cmd("echo why >&2; sleep 0.2; exit 3", "false")  # This one.
    built, error, status = await sdk.fails_to_build(final)
    assert str(error) == "start command failed: error running start command: exit status 3"
    assert status.reason.step == "finalize" and status.reason.message == str(error)
    assert any(line.endswith("[start] [stderr]: why") for line in built.lines)
    assert traceback.extract_tb(error.__traceback__)[-1].line.endswith("# This one.")
    with pytest.raises(e2b.SandboxException) as caught:
        await sdk.create(built.info.name)
    assert caught.value.status_code == 404


async def test_what_children_have_of_their_parents(sdk):
    """(22, 29)"""
    builder = sdk.Template().from_base_image()
    builder.set_envs({"OF_PARENT": "kept"}).set_workdir("/srv/parent").run_cmd("echo parent > file")
    builder.set_user("somebody")
    parent = await sdk.build(builder.set_start_cmd(SERVE.format(port=7200), e2b.wait_for_port(7200)))

    async def child(template, name=None):
        built = await sdk.build(template, name)
        return built, await sdk.create(built.info.template_id)

    # Variables, folder and start command; the user is `user` again.
    plain = sdk.Template().from_template(parent.info.name)
    plain.run_cmd("echo $OF_PARENT > ~/seen; pwd >> ~/seen; id -un >> ~/seen")
    built, sandbox = await child(plain)
    assert (await sdk.run(sandbox, "cat ~/seen", user="user")).stdout == "kept\n/srv/parent\nuser\n"
    assert (await sdk.run(sandbox, "id -un; pwd")).stdout == "user\n/srv/parent\n"
    assert (await sdk.run(sandbox, "curl -s http://127.0.0.1:7200/file")).stdout == "parent\n"
    (process,) = await listed(sdk, sandbox)
    owner = await sdk.run(sandbox, f"stat -c %U /proc/{process.pid}", user="root")
    assert owner.stdout == "somebody\n" and process.cwd == "/srv/parent"
    # A child of the child, with a start command of its own.
    own = sdk.Template().from_template(f"{built.info.template_id}:{built.info.build_id}")
    own.set_envs({"OF_CHILD": "too"})
    _, sandbox = await child(own.set_start_cmd("echo $OF_PARENT $OF_CHILD > ~/started; sleep 4394", e2b.wait_for_file("/home/user/started")))
    assert (await sdk.run(sandbox, "cat ~/started")).stdout == "kept too\n"
    assert (await sdk.run(sandbox, "ss -Htln sport = :7200")).stdout == ""
    # A child lives on without its parents, and its parents' later builds are not its own.
    await sdk.build(sdk.Template().from_base_image(), parent.info.name)
    assert await sdk.do(sandbox.kill()) is True
    _, sandbox = await child(sdk.Template().from_template(built.info.template_id))
    assert (await sdk.run(sandbox, "curl -s http://127.0.0.1:7200/file")).stdout == "parent\n"


async def test_parents_that_are_not_there(sdk):
    """(29): the build is accepted, and fails in its first phase."""
    name = sdk.fresh_name()
    for parent, said in [
        (name, f"template '{name}' not found"),
        ("base:no-such-tag", "tag 'no-such-tag' does not exist for template 'base'"),
        ("Not a name!", "invalid template reference: "),
    ]:
        template = sdk.Template()
        builder = template.from_template(parent)
        _, error, status = await sdk.fails_to_build(builder.run_cmd("true"))
        assert status.reason.step == "base" and said in str(error), str(error)


async def test_a_snapshot_as_parent(sdk):
    source = await sdk.create()
    await sdk.do(source.files.write("/home/user/of-snapshot", "kept"))
    taken = await sdk.do(source.create_snapshot())
    await sdk.do(source.kill())
    builder = sdk.Template().from_template(taken.snapshot_id)
    built = await sdk.build(builder.run_cmd("cp of-snapshot copied"))
    assert await sdk.do(sdk.Sandbox.delete_snapshot(taken.snapshot_id)) is True
    sandbox = await sdk.create(built.info.template_id)
    assert (await sdk.run(sandbox, "cat copied of-snapshot")).stdout == "keptkept"
