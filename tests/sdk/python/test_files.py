import io
import os
import urllib.request
from urllib.error import HTTPError

import e2b
import pytest
from e2b import FileType


async def test_write_and_read_back(sdk, sandbox, home):
    path = f"{home}/deep/ünï cödé.txt"
    info = await sdk.do(sandbox.files.write(path, "one ü\n"))
    assert (info.name, info.path, info.type) == ("ünï cödé.txt", path, FileType.FILE)
    assert await sdk.do(sandbox.files.read(path)) == "one ü\n"
    await sdk.do(sandbox.files.write(path, b"\x00\xff" * 10))
    assert await sdk.do(sandbox.files.read(path, format="bytes")) == bytearray(b"\x00\xff" * 10)
    await sdk.do(sandbox.files.write(path, ""))
    assert await sdk.do(sandbox.files.read(path)) == ""


async def test_every_way_to_upload(sdk, sandbox, home):
    big = os.urandom(3_000_000)
    for name, options in {
        "form": {"use_octet_stream": False},
        "raw": {"use_octet_stream": True},
        "gzip": {"gzip": True},
    }.items():
        await sdk.do(sandbox.files.write(f"{home}/{name}", big, **options))
        for gzip in (False, True):
            back = await sdk.do(sandbox.files.read(f"{home}/{name}", format="bytes", gzip=gzip))
            assert bytes(back) == big, (name, gzip)
    await sdk.do(sandbox.files.write(f"{home}/io", io.BytesIO(big)))
    await sdk.do(sandbox.files.write(f"{home}/chunks", chunks(sdk, big)))
    result = await sdk.run(sandbox, f"cd {home} && sha256sum * | cut -d' ' -f1 | sort -u | wc -l")
    assert result.stdout == "1\n"


def chunks(sdk, data):
    parts = [data[at : at + 65_536] for at in range(0, len(data), 65_536)]

    async def slowly():
        for part in parts:
            yield part

    return slowly() if sdk.is_async else iter(parts)


async def test_read_as_a_stream(sdk, sandbox, home):
    data = os.urandom(5_000_000)
    await sdk.do(sandbox.files.write(f"{home}/big", data))
    stream = await sdk.do(sandbox.files.read(f"{home}/big", format="stream"))
    parts = [part async for part in stream] if sdk.is_async else list(stream)
    assert b"".join(parts) == data and len(parts) > 1


async def test_write_several_at_once(sdk, sandbox, home):
    files = [{"path": f"{home}/d{n}/f", "data": f"{n}"} for n in range(5)]
    infos = await sdk.do(sandbox.files.write_files(files))
    assert [info.path for info in infos] == [file["path"] for file in files]
    for file in files:
        assert await sdk.do(sandbox.files.read(file["path"])) == file["data"]


async def test_list_and_get_info(sdk, sandbox, home):
    await sdk.do(sandbox.files.write(f"{home}/a/b/c", "123"))
    await sdk.run(sandbox, f"ln -s b {home}/a/link && chmod 600 {home}/a/b/c")
    names = [(e.name, e.type) for e in await sdk.do(sandbox.files.list(f"{home}/a"))]
    assert ("b", FileType.DIR) in names and len(names) == 2
    deep = [e.path for e in await sdk.do(sandbox.files.list(home, depth=3))]
    assert f"{home}/a/b/c" in deep and home not in deep
    info = await sdk.do(sandbox.files.get_info(f"{home}/a/b/c"))
    assert (info.size, info.mode, info.owner, info.group) == (3, 0o600, "user", "user")
    assert info.permissions == "-rw-------" and info.modified_time is not None
    link = await sdk.do(sandbox.files.get_info(f"{home}/a/link"))
    assert link.symlink_target == f"{home}/a/b"


async def test_exists_make_rename_remove(sdk, sandbox, home):
    files = sandbox.files
    assert await sdk.do(files.make_dir(f"{home}/x/y")) is True
    assert await sdk.do(files.make_dir(f"{home}/x/y")) is False
    await sdk.do(files.write(f"{home}/x/y/f", "f"))
    moved = await sdk.do(sandbox.files.rename(f"{home}/x", f"{home}/z"))
    assert moved.path == f"{home}/z"
    assert await sdk.do(sandbox.files.exists(f"{home}/z/y/f")) is True
    assert await sdk.do(sandbox.files.exists(f"{home}/x")) is False
    await sdk.do(sandbox.files.remove(f"{home}/z"))
    assert await sdk.do(sandbox.files.exists(f"{home}/z")) is False


async def test_errors_name_what_is_wrong(sdk, sandbox, home):
    files = sandbox.files
    for call in [
        lambda: files.read(f"{home}/none"),
        lambda: files.list(f"{home}/none"),
        lambda: files.get_info(f"{home}/none"),
        lambda: files.rename(f"{home}/none", f"{home}/other"),
    ]:
        await sdk.fails(e2b.FileNotFoundException, call)
    await sdk.do(files.make_dir(home))
    await sdk.fails(e2b.InvalidArgumentException, lambda: files.read(home))
    await sdk.fails(e2b.InvalidArgumentException, lambda: files.write(home, "x"))
    await sdk.fails(e2b.AuthenticationException, lambda: files.read("/etc/hosts", user="nobody-x"))


async def test_whose_files(sdk, sandbox, home):
    await sdk.do(sandbox.files.write("relative", "r"))
    assert await sdk.do(sandbox.files.read("/home/user/relative")) == "r"
    await sdk.do(sandbox.files.write("relative", "root's", user="root"))
    assert await sdk.do(sandbox.files.read("/root/relative", user="root")) == "root's"
    owner = await sdk.run(sandbox, "sudo stat -c %U:%a /root/relative /home/user/relative")
    assert owner.stdout == "root:644\nuser:644\n"


async def test_metadata_is_kept(sdk, sandbox, home):
    path = f"{home}/m"
    info = await sdk.do(sandbox.files.write(path, "x", metadata={"Kind": "test", "empty": ""}))
    assert info.metadata == {"kind": "test", "empty": ""}
    found = await sdk.do(sandbox.files.get_info(path))
    assert found.metadata == {"kind": "test", "empty": ""}
    await sdk.do(sandbox.files.write(path, "y"))
    assert not (await sdk.do(sandbox.files.get_info(path))).metadata


async def test_signed_links_work_without_the_sdk(sdk, sandbox, home):
    path = f"{home}/signed"
    body = b"--b\r\nContent-Disposition: form-data; name=\"file\"; filename=\"x\"\r\n\r\nhi\r\n--b--\r\n"
    url = sandbox.upload_url(path, user="user", use_signature_expiration=60)
    kind = {"Content-Type": "multipart/form-data; boundary=b"}
    request = routed(sandbox, url, data=body, headers=kind)
    assert urllib.request.urlopen(request).status == 200
    link = sandbox.download_url(path, user="user", use_signature_expiration=60)
    assert urllib.request.urlopen(routed(sandbox, link)).read() == b"hi"
    for wrong in (link.replace("signed", "others"), link.replace("v1_", "v1_A")):
        with pytest.raises(HTTPError) as caught:
            urllib.request.urlopen(routed(sandbox, wrong))
        assert caught.value.code == 401


def routed(sandbox, url, **options):
    """With one URL for all sandboxes, headers say which one is meant."""
    request = urllib.request.Request(url, **options)
    request.add_header("E2b-Sandbox-Id", sandbox.sandbox_id)
    request.add_header("E2b-Sandbox-Port", "49983")
    return request
