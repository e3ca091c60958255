"""Recipes that go wrong or mean harm, as the SDK's user sees them: a reason with its step, and a platform
that builds the next one."""

import pytest

FILL = "python3 -c 'a = []\nwhile True: a.append(b\"x\" * (1 << 24))'"


async def fails(sdk, template, step, said, **options):
    built, error, status = await sdk.fails_to_build(template, **options)
    assert status.status.value == "error" and status.reason.step == step, status
    assert status.reason.message == str(error) and said in str(error), str(error)
    assert "internal error" not in str(error), str(error)
    return built


async def builds(sdk, template, **options):
    return await sdk.started(template, **options)


async def test_all_memory(sdk):
    template = sdk.Template().from_base_image().run_cmd("true").run_cmd(FILL)
    built = await fails(sdk, template, "2", "failed to run command", memory_mb=512)
    assert any("2/2" in line for line in built.lines)


# As many as are allowed, asleep: ones that spin would take the machine from the tests beside this one.
# They close the output, for whose end a step waits.
FORKS = """import os, time
made = 0
try:
    while made < 100_000:
        if os.fork() == 0:
            os.closerange(0, 3)
            time.sleep(3600)
        made += 1
except OSError as error:
    os.write(1, f"{made > 50} {error.strerror}\\n".encode())
    os._exit(9)
"""


async def test_as_many_processes_as_are_allowed(sdk):
    template = sdk.Template().from_base_image().run_cmd(f"exec python3 -c '{FORKS}'")
    built = await fails(sdk, template, "1", "exit status 9")
    assert any("True Resource temporarily unavailable" in line for line in built.lines)
    sandbox = await builds(sdk, sdk.Template().from_base_image().run_cmd("echo still > ~/builds"))
    assert (await sdk.run(sandbox, "cat builds")).stdout == "still\n"


async def test_a_step_that_ends_all_there_is(sdk):
    """The agent among it, by which the platform sees what the step does."""
    template = sdk.Template().from_base_image().run_cmd("true").run_cmd("exec kill -9 -1", user="root")
    await fails(sdk, template, "2", "the agent of the sandbox was ended by something that runs in it")
    sandbox = await builds(sdk, sdk.Template().from_base_image().run_cmd("echo still > ~/builds"))
    assert (await sdk.run(sandbox, "cat builds")).stdout == "still\n"


async def test_processes_that_stay(sdk):
    """They neither hold a step up nor are in what is built."""
    stay = "(setsid sleep 4801 >/dev/null 2>&1 &); (setsid sh -c 'while :; do date >> /var/tmp/dates; sleep 0.01; done' >/dev/null 2>&1 &)"
    template = sdk.Template().from_base_image().run_cmd(stay, user="root").run_cmd("sleep 1; pgrep -fx 'sleep 4801' > ~/seen")
    sandbox = await builds(sdk, template)
    assert int((await sdk.run(sandbox, "cat seen")).stdout.split()[0]) > 0
    assert (await sdk.run(sandbox, "pgrep -fx 'sleep 4801' || echo none; tail -c1 /var/tmp/dates | wc -c")).stdout == "none\n1\n"


async def test_much_output(sdk):
    """In lines, and in a single one: the build goes on, and its log is bounded."""
    template = sdk.Template().from_base_image().run_cmd("yes | head -c 64M").run_cmd("head -c 64M /dev/zero | tr '\\0' a").run_cmd("echo the end")
    built = await sdk.build(template)
    assert len(built.lines) <= 100_100 and sum(map(len, built.lines)) < 20 << 20
    # What no line is left for is not shown; how it ended is.
    assert any(line.startswith("Build finished") for line in built.lines[-3:]), built.lines[-3:]


@pytest.mark.parametrize(
    ("command", "said"),
    [
        # Of the last touches, which are made by the image's own programs.
        ("rm /bin/bash", "bash"),
        ("rm -f /bin/sh /usr/bin/dash; mv /bin/bash /bin/gone", "bash"),
        ("printf '#!/bin/false\\n' > /usr/sbin/usermod; chmod 755 /usr/sbin/usermod", "configuration script failed"),
        ("sed -i 's,^user:.*,user:x:0:0::/:/bin/bash,' /etc/passwd", "home of 'user' cannot be '/'"),
    ],
)
async def test_what_is_needed_at_the_end_is_taken_away(sdk, command, said):
    template = sdk.Template().from_base_image().run_cmd(command, user="root")
    await fails(sdk, template, "finalize", said)


async def test_hostile_programs(sdk):
    """What a recipe puts in the place of programs runs inside the sandbox, and never outside."""
    evil = "#!/bin/sh\\nexec /bin/bash.real \"$@\"\\n"
    template = sdk.Template().from_base_image()
    template = template.run_cmd(f"mv /bin/bash /bin/bash.real; printf '{evil}' > /bin/bash; chmod 755 /bin/bash", user="root")
    template = template.run_cmd("printf '#!/bin/sh\\ntouch /srv/sudo-was-asked\\n' > /usr/bin/sudo; chmod 4755 /usr/bin/sudo", user="root")
    sandbox = await builds(sdk, template.run_cmd("id -un > ~/who"))
    assert (await sdk.run(sandbox, "cat who; sudo id; ls /srv")).stdout == "user\n"


async def test_users_that_are_rewritten(sdk):
    """Root under another name and no `user`: one is made."""
    template = sdk.Template().from_base_image().run_cmd("sed -i '/^user:/d' /etc/passwd /etc/shadow; sed -i '/^user:/d' /etc/group", user="root")
    sandbox = await builds(sdk, template)
    assert (await sdk.run(sandbox, "id -un; sudo -n id -u; stat -c %U ~")).stdout == "user\n0\nuser\n"


@pytest.mark.parametrize(
    ("start", "ready", "said"),
    [
        ("echo so far; exit 7", "sleep 3600", "start command failed: error running start command: exit status 7"),
        ("kill -9 $$", "sleep 3600", "start command failed: error running start command: signal: killed"),
        ("no-such-program", "sleep 3600", "exit status 127"),
        (FILL, "sleep 3600", "start command failed"),
    ],
)
async def test_start_commands_that_end(sdk, start, ready, said):
    """The reason says with what, and a ready command that waits holds nobody up."""
    template = sdk.Template().from_base_image().set_start_cmd(start, ready)
    built = await fails(sdk, template, "finalize", said, memory_mb=512)
    if "so far" in start:
        assert any("so far" in line for line in built.lines)
