"""Steps of templates as sandboxes show them: commands, variables, folders, users; the cache of what
they left; how they fail. Numbers in parentheses: section 7 of the specification of templates."""

import base64
import os
import traceback
import uuid

import e2b
import pytest

VALUES = {
    "QUOTES": "it's \"quoted\"",
    "BACKSLASH": "a\\b\\\\c\\n",
    "LINES": "two\nlines\n",
    "SUBSTITUTION": "`id` $(id) $((1+1))",
    "DASHES": "--dashes -n",
    "SPACES": "  two  spaces ",
    "UNICODE": "grüße ☃",
    "GLOB": "* ? [a]",
    "DOLLAR": "costs 5$ or $ 5",
}
# `bash -l` may set PATH anew: asked for under another name.
EXPANDED = {"OWN_PATH": "/own:${PATH}", "OWN_PATH_TOO": "$PATH:/own"}


def shown(*names):
    """A command that says values byte for byte."""
    listed = " ".join(f'"${name}"' for name in names)
    return f"printf '%s\\0' {listed} | base64 -w0"


def read_back(text):
    return base64.b64decode(text).decode().split("\0")[:-1]


async def test_what_steps_leave(sdk):
    """(19, 22, 23, 24, 39, 40)"""
    builder = sdk.Template().from_base_image()
    builder.run_cmd("id -un > who; pwd >> who; echo $HOME >> who; sudo -n id -un >> who")
    builder.run_cmd(["id -un > /who-root", "echo $HOME >> /who-root"], user="root")
    builder.run_cmd("cd /tmp; export LOST=1; touch /tmp/gone")
    builder.run_cmd('echo "${LOST-unset}" > lost; pwd >> lost')
    builder.set_envs(VALUES).set_envs({}).set_envs(EXPANDED).set_envs({"MADE": "made"})
    builder.run_cmd(f"{shown(*VALUES)} > values; {shown(*EXPANDED)} > expanded")
    builder.set_workdir("/srv/app/deep").run_cmd("pwd > here; touch mine")
    builder.set_workdir("sub").run_cmd("pwd > here")
    builder.set_workdir("/srv/$MADE").run_cmd("pwd > here")
    builder.set_user("builder").run_cmd("id -un > /tmp/who; echo $HOME >> /tmp/who; pwd >> /tmp/who")
    # Nothing stays in /tmp.
    builder.run_cmd("cp /tmp/who ~/who; sudo -n true 2>/dev/null && echo sudo >> ~/who || true")
    built = await sdk.build(builder)
    sandbox = await sdk.create(built.info.template_id)

    async def cat(path):
        return (await sdk.run(sandbox, f"sudo cat {path}", user="root")).stdout

    assert await cat("/home/user/who") == "user\n/home/user\n/home/user\nroot\n"
    assert await cat("/who-root") == "root\n/root\n"
    assert await cat("/home/user/lost") == "unset\n/home/user\n"
    assert read_back(await cat("/home/user/values")) == list(VALUES.values())
    before, after = read_back(await cat("/home/user/expanded"))
    assert before.startswith("/own:/") and after.startswith("/") and after.endswith(":/own")
    assert "/usr/bin" in before.split(":") and "/usr/bin" in after.split(":")
    assert await cat("/srv/app/deep/here") == "/srv/app/deep\n"
    assert await cat("/srv/app/deep/sub/here") == "/srv/app/deep/sub\n"
    assert await cat("/srv/made/here") == "/srv/made\n"
    owners = await sdk.run(sandbox, "stat -c %U:%G /srv /srv/app /srv/app/deep/sub /srv/made")
    assert owners.stdout.split() == ["root:root"] + 3 * ["user:user"]
    assert await cat("/home/builder/who") == "builder\n/home/builder\n/srv/made\n"
    # Whoever is last is who sandboxes begin as, and where.
    assert (await sdk.run(sandbox, "id -un; pwd; ls -A /tmp")).stdout == "builder\n/srv/made\n"
    await sdk.run(sandbox, "echo relative > here-too", user="user")
    # The agent's specification wins here: relative paths of files are below the home.
    assert await sdk.do(sandbox.files.read("/srv/made/here-too")) == "relative\n"
    # Variables are for building only.
    said = (await sdk.run(sandbox, "env")).stdout.splitlines()
    names = {line.partition("=")[0] for line in said}
    assert not names & {*VALUES, *EXPANDED, "MADE"}
    assert f"E2B_TEMPLATE_ID={built.info.template_id}" in said
    assert f"E2B_SANDBOX_ID={sandbox.sandbox_id}" in said
    info = await sdk.do(sandbox.get_info())
    assert (info.template_id, info.name) == (built.info.template_id, built.info.name)


async def test_files_and_folders(sdk):
    builder = sdk.Template().from_base_image()
    builder.make_dir("one").make_dir(["two", "a folder/below"], mode=0o700)
    builder.make_dir("/of-root", user="root", mode=0o1755)
    builder.run_cmd("echo 1 > one/file; echo 2 > two/file; touch old other 'with space'")
    builder.rename("old", "new").rename("other", "new", force=True)
    builder.rename("/of-root", "/still of-root", user="root")
    builder.make_symlink("one/file", "link").make_symlink("two/file", "link", force=True)
    builder.make_symlink("/home/user/one", "/etc/link", user="root")
    builder.remove("with space").remove(["one/none", "two/none"], force=True)
    builder.remove("/home/user/two", recursive=True, user="root")
    sandbox = await sdk.started(builder)
    listed = "find . -mindepth 1 -not -name '.*' -printf '%y %m %u %p %l\\n' | LC_ALL=C sort -k4"
    assert (await sdk.run(sandbox, listed)).stdout.replace(" \n", "\n") == (
        "d 755 user ./a folder\n"
        "d 700 user ./a folder/below\n"
        "l 777 user ./link two/file\n"
        "f 644 user ./new\n"
        "d 755 user ./one\n"
        "f 644 user ./one/file\n"
    )
    found = await sdk.run(sandbox, "stat -c '%A %U' '/still of-root'; readlink /etc/link")
    assert found.stdout == "drwxr-xr-t root\n/home/user/one\n"


async def test_a_clone_of_a_repository(sdk):
    builder = sdk.Template().from_base_image()
    commit = "git -c user.name=n -c user.email=e@e commit -q"
    builder.run_cmd(
        "git init -q -b main /srv/origin && cd /srv/origin"
        f" && echo one > file && git add file && {commit} -m one"
        f" && echo two > file && {commit} -am two"
        f" && git checkout -q -b side && echo three > file && {commit} -am three",
        user="root",
    )
    builder.run_cmd("git config --global --add safe.directory '*'")
    builder.git_clone("/srv/origin", "of main", branch="main")
    builder.git_clone("file:///srv/origin", branch="side", depth=1, path="/home/user/side")
    builder.git_clone("/srv/origin")
    builder.run_cmd("git config --global --add safe.directory '*'", user="root")
    builder.git_clone("/srv/origin", "/srv/root's", user="root")
    sandbox = await sdk.started(builder)
    seen = "for at in 'of main' side origin; do git -C \"$at\" log --format=%s | tr '\\n' ' '; done"
    assert (await sdk.run(sandbox, seen)).stdout == "two one three three two one "
    assert (await sdk.run(sandbox, "git -C 'of main' branch -r")).stdout.split() == ["origin/main"]
    assert (await sdk.run(sandbox, "stat -c %U \"/srv/root's/file\"")).stdout == "root\n"


async def test_packages(sdk):
    if os.environ.get("CASEMATE_TEST_INTERNET") != "1":
        pytest.skip("CASEMATE_TEST_INTERNET is not 1")
    builder = sdk.Template().from_base_image()
    builder.apt_install(["bc"], no_install_recommends=True, fix_missing=True)
    builder.pip_install("iniconfig==2.3.1").pip_install(["idna==3.10"], g=False)
    builder.npm_install("left-pad@1.3.0").npm_install(["is-odd@3.0.1"], dev=True)
    builder.npm_install("is-number@7.0.0", g=True)
    sandbox = await sdk.started(builder)
    assert (await sdk.run(sandbox, "echo 6*7 | bc")).stdout == "42\n"
    of = "import iniconfig, idna; print(iniconfig.__file__); print(idna.__file__)"
    of_all, of_user = (await sdk.run(sandbox, f"python3 -c '{of}'")).stdout.split()
    assert not of_all.startswith("/home/") and of_user.startswith("/home/user/.local/")
    told = (await sdk.run(sandbox, "cat package.json; npm ls -g is-number")).stdout
    assert '"left-pad"' in told and "devDependencies" in told and "is-number@7.0.0" in told


def random_to(path, nonce):
    """A command that leaves something else each time that it is carried out."""
    return f"cat /proc/sys/kernel/random/uuid > {path} # {nonce}"


async def test_the_cache_of_steps(sdk):
    """(17, 18), also between templates; and the last line of 4.6: what starts is no step."""
    nonce, name = uuid.uuid4().hex, sdk.fresh_name()

    def recipe(force_at=None, second=""):
        builder = sdk.Template().from_base_image()
        for number in (1, 2, 3):
            if number == force_at:
                builder.skip_cache()
            builder.run_cmd(random_to(f"r{number}", f"{nonce} {second if number == 2 else ''}"))
        return builder

    async def left(reference):
        sandbox = await sdk.create(reference)
        found = (await sdk.run(sandbox, "cat r1 r2 r3")).stdout.split()
        await sdk.do(sandbox.kill())
        return found

    first = await sdk.build(recipe(), name)
    assert first.steps() == {1: True, 2: True, 3: True}
    assert any(line.startswith("[builder 1/3] RUN cat /proc") for line in first.lines)
    of_first = await left(name)
    again = await sdk.build(recipe(), name)
    assert again.steps() == {1: False, 2: False, 3: False}
    assert any(line.startswith("CACHED [builder 1/3] RUN cat /proc") for line in again.lines)
    assert again.info.template_id == first.info.template_id
    assert again.info.build_id != first.info.build_id
    assert await left(name) == of_first
    # Another template, and one that starts something: the same steps.
    other = await sdk.build(recipe().set_ready_cmd("true"))
    assert other.steps() == {1: False, 2: False, 3: False}
    assert await left(other.info.template_id) == of_first
    # What is forced is carried out, and everything behind it; and it is what comes from then on.
    forced = await sdk.build(recipe(force_at=2), name)
    assert forced.steps() == {1: False, 2: True, 3: True}
    of_forced = await left(name)
    assert of_forced[0] == of_first[0] and not set(of_forced[1:]) & set(of_first)
    assert (await sdk.build(recipe(), name)).steps() == {1: False, 2: False, 3: False}
    assert await left(name) == of_forced
    # A step that says something else.
    changed = await sdk.build(recipe(second="changed"), name)
    assert changed.steps() == {1: False, 2: True, 3: True}
    # Everything, in either way.
    for options in ({"skip_cache": True}, {}):
        template = recipe() if options else sdk.Template().skip_cache().from_base_image()
        if not options:
            for number in (1, 2, 3):
                template.run_cmd(random_to(f"r{number}", f"{nonce} "))
        assert (await sdk.build(template, name, **options)).steps() == {1: True, 2: True, 3: True}


async def test_what_is_said_meanwhile(sdk):
    """(15, 17) and 4.1, 4.8: pages, order, levels."""
    nonce = uuid.uuid4().hex
    builder = sdk.Template().from_base_image()
    builder.run_cmd(f"echo to stdout; echo to stderr >&2; printf 'no end'; echo; echo '  trimmed  ' # {nonce}")
    builder.run_cmd(f"seq 250; printf '\\033[31mred\\033[0m\\n' # {nonce}")
    built = await sdk.build(builder)
    info, lines = built.info, built.lines
    server = lines[lines.index("Waiting for logs...") + 1 : -1]
    assert server[0] == f"Building template {info.template_id}/{info.build_id}"
    assert server[-1].startswith("Build finished, took ")
    assert any(line.startswith(("[base] FROM e2bdev/base", "CACHED [base] FROM e2bdev/base")) for line in server)
    for line in ("to stderr", "to stdout", "no end", "trimmed"):
        stream = "stderr" if line == "to stderr" else "stdout"
        assert f"[builder 1/2] [{stream}]: {line}" in server
    counted = [f"[builder 2/2] [stdout]: {number}" for number in range(1, 251)]
    first = server.index(counted[0])
    assert server[first : first + 251] == [*counted, "[builder 2/2] [stdout]: red"]
    assert "[finalize] Finalizing template build" in server
    assert {entry.level for entry in built.entries} <= {"debug", "info", "warn", "error"}
    assert isinstance(built.entries[0], e2b.LogEntryStart) and isinstance(built.entries[-1], e2b.LogEntryEnd)

    async def page(offset=None):
        told = await sdk.do(sdk.Template.get_build_status(info, logs_offset=offset))
        assert (told.status, told.reason, told.logs) == (e2b.TemplateBuildStatus.READY, None, [])
        assert (told.build_id, told.template_id) == (info.build_id, info.template_id)
        return [entry.message for entry in told.log_entries]

    assert await page() == server[:100]
    assert await page(100) == server[100:200]
    assert await page(len(server) - 1) == server[-1:]
    assert await page(len(server)) == [] and await page(1_000_000) == []
    stamps = [entry.timestamp for entry in (await sdk.do(sdk.Template.get_build_status(info))).log_entries]
    assert stamps == sorted(stamps)


async def test_the_logger_that_sdks_have(sdk, capsys):
    logger = e2b.default_build_logger(min_level="info")
    await sdk.build(sdk.Template().from_base_image().run_cmd("echo said"), on_build_logs=logger)
    assert "Build finished" in capsys.readouterr().out


def culprit(error):
    """The line of a test that an exception of the SDK points to."""
    return traceback.extract_tb(error.__traceback__)[-1].line


async def test_a_step_that_fails(sdk):
    """(20)"""
    builder = sdk.Template().from_base_image()
    builder.run_cmd("true")
    builder.set_envs({"A": "1"})
    builder.run_cmd("echo the reason >&2; echo more; exit 7")  # This one.
    builder.run_cmd("echo never")
    built, error, status = await sdk.fails_to_build(builder)
    message = "failed to run command 'echo the reason >&2; echo more; exit 7': exit status 7"
    assert str(error) == message and culprit(error).endswith("# This one.")
    assert status.status == e2b.TemplateBuildStatus.ERROR
    assert (status.reason.message, status.reason.step) == (message, "3")
    assert any("the reason" in entry.message for entry in status.reason.log_entries)
    assert "[builder 3/4] [stderr]: the reason" in built.lines
    assert f"Build failed: {message}" in built.lines
    assert not any("echo never" in line for line in built.lines)
    # Nobody begins with it.
    with pytest.raises(e2b.SandboxException) as caught:
        await sdk.create(built.info.name)
    assert caught.value.status_code == 404
    assert "tag 'default' does not exist for template" in str(caught.value)
    # What came before it is there the next time.
    builder = sdk.Template().from_base_image()
    builder.run_cmd("true").set_envs({"A": "1"}).run_cmd("echo repaired")
    assert (await sdk.build(builder, built.info.name)).steps()[1] is False


async def test_other_ways_to_fail(sdk):
    signal = sdk.Template().from_base_image()
    signal.run_cmd("kill -9 $$")
    by_nobody = sdk.Template().from_base_image()
    by_nobody.run_cmd("true", user="nobody-of-this-name")
    file = sdk.Template().from_base_image()
    file.set_workdir("/etc/passwd")
    name = sdk.Template().from_base_image()
    name.set_user("no such name")
    unset = sdk.Template().from_base_image()
    unset.set_workdir("/srv/leaves").run_cmd("cd / && rmdir /srv/leaves", user="root").run_cmd("true")
    for template, step, said in [
        (signal, "1", "failed to run command 'kill -9 $$': "),
        (by_nobody, "1", "nobody-of-this-name"),
        (file, "1", "failed to create workdir: "),
        (name, "1", "failed to create user: "),
        (unset, "3", "cwd '/srv/leaves' does not exist"),
    ]:
        _, error, status = await sdk.fails_to_build(template)
        assert status.reason.step == step and said in status.reason.message, status
        assert str(error) == status.reason.message


async def test_a_sandbox_is_as_asked_for(sdk):
    """(33) and what is fixed by a build."""
    builder = sdk.Template().from_base_image().run_cmd("true")
    options = {"cpu_count": 1, "memory_mb": 512, "min_free_disk_mb": 64}
    built = await sdk.build(builder, **options)
    sandbox = await sdk.create(built.info.template_id)
    info = await sdk.do(sandbox.get_info())
    assert (info.cpu_count, info.memory_mb) == (1, 512)
    assert info.envd_version
    assert (await sdk.run(sandbox, "id -un; pwd")).stdout == "user\n/home/user\n"
    # Others' nothing: the next one of the same begins anew.
    await sdk.run(sandbox, "echo mine > /home/user/mine; sudo touch /etc/mine")
    other = await sdk.create(built.info.template_id)
    with pytest.raises(e2b.CommandExitException):
        await sdk.run(other, "ls /home/user/mine")
    # Pauses, snapshots and forks are as with any other.
    await sdk.do(sandbox.pause())
    await sdk.do(sandbox.connect())
    assert (await sdk.run(sandbox, "cat mine")).stdout == "mine\n"
    taken = await sdk.do(sandbox.create_snapshot())
    made = await sdk.create(taken.snapshot_id)
    assert (await sdk.run(made, "cat mine; id -un; ls /etc/mine")).stdout == "mine\nuser\n/etc/mine\n"
    await sdk.do(made.kill())
    assert await sdk.do(sdk.Sandbox.delete_snapshot(taken.snapshot_id)) is True
