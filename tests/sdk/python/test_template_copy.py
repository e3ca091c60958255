"""Files on their way into templates: what is chosen, uploaded, unpacked, and how it lies there.
Numbers in parentheses: section 7 of the specification of templates."""

import gzip
import hashlib
import os
import pathlib
import uuid

import e2b
import pytest
from e2b.exceptions import FileUploadException

import raw_build
from raw_build import archive, entry

raw = raw_build.Client(os.environ["CASEMATE_TEST_URL"], os.environ["E2B_API_KEY"])


@pytest.fixture
def context(tmp_path):
    """A folder with a bit of everything; its content is this test's own."""
    files = {
        "a.txt": "a",
        "script.sh": "#!/bin/sh\necho ran\n",
        "sp ace ünï ☃.txt": "named",
        ".dot": "dot",
        "dir/b.txt": "b",
        "dir/sub/c.txt": "c",
        "dir/.hidden": "hidden",
        "src/x.py": "x",
        "src/y.py": "y",
        "src/z.txt": "z",
        "ignored.log": "no",
        "dir/ignored.log": "no",
        "dir/cache/no": "no",
        "empty-file": "",
    }
    for name, text in files.items():
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
        path.chmod(0o644)
    (tmp_path / "script.sh").chmod(0o755)
    (tmp_path / "dir/secret").write_text("s")
    (tmp_path / "dir/secret").chmod(0o600)
    (tmp_path / "dir/link").symlink_to("b.txt")
    (tmp_path / "dir/dangling").symlink_to("/nowhere")
    (tmp_path / "empty").mkdir()
    (tmp_path / "folder-link").symlink_to("src")
    os.link(tmp_path / "a.txt", tmp_path / "dir/second-name")
    (tmp_path / ".dockerignore").write_text("# no logs\n*.log\n**/*.log\n\n")
    (tmp_path / "unique").write_text(uuid.uuid4().hex)
    return tmp_path


def of(sdk, context, **options):
    return sdk.Template(file_context_path=context, **options).from_base_image()


async def tree(sdk, sandbox, path):
    """Type, mode, owners, name and link target of everything below."""
    form = "%y %m %u:%g %P %l\\n"
    listed = await sdk.run(sandbox, f"sudo find {path} -mindepth 1 -printf '{form}' | LC_ALL=C sort -k4")
    return [line.rstrip() for line in listed.stdout.splitlines()]


async def test_what_copies_leave(sdk, context):
    """(13, 25): all rows of 4.4."""
    builder = of(sdk, context, file_ignore_patterns=["dir/cache"])
    # A file: to a name, into a folder, into one that is there.
    builder.copy("a.txt", "/srv/file/exact.txt").copy("a.txt", "/srv/file/into/")
    builder.make_dir("there").copy(pathlib.Path("a.txt"), pathlib.Path("/home/user/there"))
    # A folder: its content, into what is there.
    builder.run_cmd("mkdir -p merged/sub && echo old > merged/b.txt && echo kept > merged/kept && chmod 700 merged/sub")
    builder.copy("dir", "merged").copy("./dir/", "/srv/dir").copy("empty", "/srv/empty")
    builder.copy("src/*.py", "/srv/glob/").copy("d*", "/srv/star")
    builder.copy(["a.txt", "script.sh"], "/srv/several/", user="root", mode=0o600)
    builder.copy("dir", "/srv/owned", user="daemon:games", mode=0o750)
    builder.copy("script.sh", "/srv/of-daemon", user="daemon")
    builder.copy("sp ace ünï ☃.txt", "/srv/sp ace/")
    builder.copy("dir", "/srv/resolved", resolve_symlinks=False)
    builder.copy("dir/link", "/srv/followed", resolve_symlinks=True)
    builder.copy("folder-link", "/srv/link")
    builder.copy("src", "/srv/plain", gzip=False)
    # Relative to the folder and owned by the user of the moment.
    builder.set_workdir("/srv/work").set_user("root").copy("a.txt", "relative/").copy("a.txt", "renamed")
    builder.copy_items(
        [
            {"src": "a.txt", "dest": "/srv/items/a", "user": "user", "mode": 0o4711},
            {"src": ["src/x.py", "src/y.py"], "dest": "/srv/items/", "gzip": False},
            {"src": "a.txt", "dest": "/srv/items/forced", "forceUpload": True, "resolveSymlinks": True},
        ]
    )
    built = await sdk.build(builder.set_user("user").set_workdir("/home/user"))
    assert "All file uploads completed" in built.lines
    sandbox = await sdk.create(built.info.template_id)
    found = lambda path: tree(sdk, sandbox, path)
    own = "user:user"
    assert await found("/srv/file") == [
        f"f 644 {own} exact.txt", f"d 755 {own} into", f"f 644 {own} into/a.txt",
    ]
    assert await found("/home/user/there") == [f"f 644 {own} a.txt"]
    of_dir = [
        f"f 644 {own} b.txt",
        f"l 777 {own} dangling /nowhere",
        f"f 644 {own} .hidden",
        f"l 777 {own} link b.txt",
        f"f 644 {own} second-name",
        f"f 600 {own} secret",
        f"d 755 {own} sub",
        f"f 644 {own} sub/c.txt",
    ]
    assert sorted(await found("/srv/dir")) == sorted(of_dir)
    assert sorted(await found("/srv/resolved")) == sorted(of_dir)
    merged = [line.replace("d 755", "d 700") for line in of_dir] + [f"f 644 {own} kept"]
    assert sorted(await found("/home/user/merged")) == sorted(merged)
    assert await found("/srv/empty") == []
    assert await found("/srv/glob") == [f"f 644 {own} x.py", f"f 644 {own} y.py"]
    # Behind a glob the folder keeps its name.
    assert f"d 755 {own} dir" in await found("/srv/star") and f"f 644 {own} dir/b.txt" in await found("/srv/star")
    assert await found("/srv/several") == ["f 600 root:root a.txt", "f 600 root:root script.sh"]
    for line in await found("/srv/owned"):
        kind, mode, owner = line.split()[:3]
        assert owner == "daemon:games" and (mode == "750" or kind == "l"), line
    assert await found("/srv/of-daemon") == []
    stat = await sdk.run(sandbox, "stat -c '%a %U:%G' /srv/of-daemon /srv/work/relative/a.txt /srv/work/renamed")
    assert stat.stdout.splitlines() == ["755 daemon:daemon", "644 root:root", "644 root:root"]
    assert await found("'/srv/sp ace'") == [f"f 644 {own} sp ace ünï ☃.txt"]
    assert await found("/srv/plain") == [f"f 644 {own} {name}" for name in ("x.py", "y.py", "z.txt")]
    assert (await sdk.run(sandbox, "readlink /srv/link; stat -c %F /srv/followed")).stdout == "src\nregular file\n"
    assert await found("/srv/items") == [
        f"f 4711 {own} a", "f 644 root:root forced", "f 644 root:root x.py", "f 644 root:root y.py",
    ]
    said = await sdk.run(sandbox, "cat /srv/file/into/a.txt merged/b.txt merged/sub/c.txt merged/kept && sh /srv/of-daemon")
    assert said.stdout == "abckept\nran\n"


async def test_the_whole_context(sdk, context):
    sandbox = await sdk.started(of(sdk, context, file_ignore_patterns=["src/*", "!src/x.py"]).copy(".", "/srv/all"))
    found = {line.split(maxsplit=3)[3] for line in await tree(sdk, sandbox, "/srv/all")}
    assert {"a.txt", ".dot", "dir/sub/c.txt", "empty", "empty-file", "src/x.py", "dir/link b.txt"} <= found
    assert not found & {"ignored.log", "dir/ignored.log", "src/y.py", "src/z.txt"}
    # What is copied over something replaces it.
    builder = of(sdk, context).run_cmd("cd /home/user && mkdir -p at && ln -s /etc/passwd at/a.txt && ln -s /srv at/src", user="root")
    builder.run_cmd("mkdir -p /srv/kept", user="root").copy(".", "/home/user/at", user="root")
    sandbox = await sdk.started(builder)
    seen = await sdk.run(sandbox, "stat -c %F at/a.txt; cat at/a.txt; readlink at/src; cat /srv/x.py; ls -d /srv/kept; grep -c . /etc/passwd")
    kind, rest = seen.stdout.split("\n", 1)
    assert kind == "regular file" and rest.startswith("a/srv\nx/srv/kept\n") and int(rest.split()[-1]) > 10


async def test_uploads_are_done_once(sdk, context):
    """(11, 26)"""
    builder = lambda: of(sdk, context).copy("unique", "/srv/unique")
    first = await sdk.build(builder())
    assert "Uploaded 'unique'" in first.lines and first.steps() == {1: True}
    again = await sdk.build(builder())
    assert "Skipping upload of 'unique', already cached" in again.lines and again.steps() == {1: False}
    forced = await sdk.build(of(sdk, context).copy("unique", "/srv/unique", force_upload=True))
    assert "Uploaded 'unique'" in forced.lines and forced.steps() == {1: True}
    # Other content, other owners, other modes: other steps.
    (context / "unique").write_text(uuid.uuid4().hex)
    changed = await sdk.build(builder())
    assert "Uploaded 'unique'" in changed.lines and changed.steps() == {1: True}
    owned = await sdk.build(of(sdk, context).copy("unique", "/srv/unique", user="root"))
    assert "Skipping upload of 'unique', already cached" in owned.lines and owned.steps() == {1: True}
    sandbox = await sdk.create(changed.info.template_id)
    assert await sdk.do(sandbox.files.read("/srv/unique")) == (context / "unique").read_text()
    # Nothing to copy is found out before anything is sent.
    with pytest.raises(ValueError, match="No files found"):
        await sdk.build(of(sdk, context).copy("not-there", "/"))


async def test_a_copy_that_fails(sdk, context):
    builder = of(sdk, context)
    builder.copy("a.txt", "/srv/a").copy("a.txt", "/srv/b", user="nobody-of-this-name")
    _, error, status = await sdk.fails_to_build(builder)
    assert status.reason.step == "2" and "user 'nobody-of-this-name' does not exist" in str(error)
    _, error, status = await sdk.fails_to_build(of(sdk, context).copy("dir", "/etc/passwd"))
    assert status.reason.step == "1" and "/etc/passwd" in str(error)


async def test_much_is_uploaded(sdk, context):
    size = 64 << 20
    with open(context / "big", "wb") as file:
        for _ in range(size >> 20):
            file.write(os.urandom(1 << 20))
    sandbox = await sdk.started(of(sdk, context).copy("big", "/srv/big", gzip=False))
    with open(context / "big", "rb") as file:
        expected = hashlib.file_digest(file, "sha256").hexdigest()
    assert (await sdk.run(sandbox, "sha256sum /srv/big")).stdout.split()[0] == expected


@pytest.fixture(scope="module")
def waiting():
    """A template with a build that waits, for links."""
    made = raw.request(f"links-{uuid.uuid4().hex[:8]}")
    yield made
    assert raw.delete(made["templateID"])[0] == 204


def fresh_hash():
    return hashlib.sha256(uuid.uuid4().bytes).hexdigest()


def test_links(waiting):
    """(10, 11, 12)"""
    template = waiting["templateID"]
    for wrong in ("abc", "g" * 64, "A" * 63, "0" * 65):
        status, told = raw.ask("GET", f"/templates/{template}/files/{wrong}")
        assert (status, told["message"]) == (400, "Invalid files hash"), wrong
    status, told = raw.ask("GET", f"/templates/{'z' * 20}/files/{fresh_hash()}")
    assert status == 404 and told["message"].startswith("Error when getting template: ")
    for content, headers in [
        (b"", {}),
        (archive(entry("a", data=b"a")), {"Content-Type": "application/octet-stream"}),
        (archive(entry("a", data=b"a"), packed=False), {"Content-Type": "text/plain"}),
    ]:
        # The name is the client's: it is no sum of anything.
        name = fresh_hash()
        link = raw.link(template, name)
        assert link["present"] is False
        status, body = raw.put(link["url"], content, headers)
        assert status // 100 == 2, body
        link = raw.link(template, name)
        assert link["present"] is True and link["url"]
        # Again, and with other content: the last one counts.
        assert raw.put(link["url"], content + b"more")[0] // 100 == 2


def test_altered_links(waiting):
    template, name = waiting["templateID"], fresh_hash()
    url = raw.link(template, name)["url"]
    head, _, token = url.rpartition("/")
    for at in (0, len(token) // 2, len(token) - 2):
        other = "A" if token[at] != "A" else "B"
        status, body = raw.put(f"{head}/{token[:at]}{other}{token[at + 1:]}", b"x")
        assert status == 403 and body, (at, status, body)
    for altered in (f"{head}/{token[:-4]}", f"{head}/x", f"{head}/{'A' * 4000}"):
        assert raw.put(altered, b"x")[0] in (403, 404, 414), altered[:80]
    assert raw.link(template, name)["present"] is False
    assert raw.send("GET", url[url.index("/", 8):], key=False)[0] in (404, 405)
    assert raw.put(url, b"x")[0] // 100 == 2


def test_uploads_that_are_too_large(waiting):
    template, name = waiting["templateID"], fresh_hash()
    url = raw.link(template, name)["url"]
    # Said ahead: refused at once, though nothing of it ever comes.
    status, body = raw.put(url, b"", {"Content-Length": str(1 << 50)})
    assert status == 413 and body
    assert raw.link(template, name)["present"] is False


def hostile():
    """Archives of which nothing may come, with the name that the message must say."""
    deep = "/".join(["d" * 200] * 30)
    return {
        "upwards": (archive(entry("../escaped", data=b"x")), "../escaped"),
        "upwards within": (archive(entry("a/../../escaped", data=b"x")), "a/../../escaped"),
        "absolute": (archive(entry("/etc/escaped", data=b"x")), "/etc/escaped"),
        "a device": (archive(entry("device", raw_build.tarfile.CHRTYPE)), "device"),
        "a fifo": (archive(entry("fifo", raw_build.tarfile.FIFOTYPE)), "fifo"),
        "a hard link to outside": (archive(entry("link", raw_build.tarfile.LNKTYPE, link="/etc/shadow")), "link"),
        "a hard link upwards": (archive(entry("link", raw_build.tarfile.LNKTYPE, link="../../etc/shadow")), "shadow"),
        "through a link": (
            archive(entry("out", raw_build.tarfile.SYMTYPE, link="/etc"), entry("out/escaped", data=b"x")),
            "out",
        ),
        "a long path": (archive(entry(deep, data=b"x")), ""),
    }


@pytest.mark.parametrize("name", hostile())
def test_hostile_archives(name):
    content, said = hostile()[name]
    ids, told = raw.copied(content)
    try:
        assert told["status"] == "error", name
        assert told["reason"]["step"] == "1" and said in told["reason"]["message"], told["reason"]
    finally:
        assert raw.delete(ids[0])[0] == 204


def test_archives_that_are_none():
    whole = archive(entry("a", data=b"a" * 100_000))
    for content in [
        b"",
        b"no archive at all" * 100,
        gzip.compress(b"packed, and no archive" * 100),
        whole[: len(whole) // 2],
        gzip.decompress(whole)[:50_000],
        b"\x1f\x8b" + os.urandom(1000),
    ]:
        ids, told = raw.copied(content)
        assert told["status"] == "error" and told["reason"]["step"] == "1", told
        assert "internal error" not in told["reason"]["message"], told
        raw.delete(ids[0])


async def test_links_of_archives_stay_links(sdk):
    """Nothing is read or written through them while files are put where they belong."""
    link = raw_build.tarfile.SYMTYPE
    content = archive(entry("shadow", link, link="/etc/shadow"), entry("dir", link, link="/root"))
    ids, told = raw.copied(content)
    assert told["status"] == "ready", told
    sandbox = await sdk.create(ids[0])
    seen = await sdk.run(sandbox, "readlink copied/shadow copied/dir; sudo stat -c %U:%G:%a /etc/shadow /root")
    assert seen.stdout.split() == ["/etc/shadow", "/root", "root:shadow:640", "root:root:700"]
    await sdk.do(sandbox.kill())
    raw.delete(ids[0])


def test_a_hundred_thousand_files():
    entries = [entry(f"{number % 100:02}/{number}") for number in range(100_000)]
    ids, told = raw.copied(archive(*entries), target="/srv/many", seconds=120)
    assert told["status"] == "ready", told
    sandbox = e2b.Sandbox.create(ids[0])
    assert sandbox.commands.run("find /srv/many -type f | wc -l").stdout.strip() == "100000"
    sandbox.kill()
    raw.delete(ids[0])


async def test_a_copy_without_its_upload(sdk):
    made = raw.request(sdk.fresh_name())
    ids = made["templateID"], made["buildID"]
    step = raw_build.copy(".", "/srv", fresh_hash())
    assert raw.trigger(*ids, fromImage="e2bdev/base", steps=[step])[0] == 202
    told = raw.wait(*ids)
    assert told["status"] == "error" and told["reason"]["step"] == "1"
    assert told["reason"]["message"].startswith("failed to open files object from storage")
    raw.delete(ids[0])


async def test_an_upload_that_is_refused(sdk, context, monkeypatch):
    """What the SDK says of it points to the step."""
    from e2b.template_async import main as async_main
    from e2b.template_sync import main as sync_main

    main = async_main if sdk.is_async else sync_main
    real = main.get_file_upload_link

    def spoiled(link):
        link.url = link.url[:-3]
        return link

    if sdk.is_async:

        async def link_of(*args):
            return spoiled(await real(*args))
    else:

        def link_of(*args):
            return spoiled(real(*args))

    monkeypatch.setattr(main, "get_file_upload_link", link_of)
    error = await sdk.fails(
        FileUploadException,
        lambda: sdk.Template.build(of(sdk, context).copy("unique", "/srv/unique"), sdk.fresh_name()),
    )
    assert "403" in str(error)
