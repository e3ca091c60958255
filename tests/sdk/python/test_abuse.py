"""Abuse that a client can see: a clear error each, and no neighbour hurt."""

import http.client
import json
import os
import urllib.parse

import e2b

API = urllib.parse.urlsplit(os.environ["CASEMATE_TEST_URL"])
KEY = os.environ["E2B_API_KEY"]


def send(method, path, body=b"", headers=None):
    connection = http.client.HTTPConnection(API.hostname, API.port or 80, timeout=30)
    try:
        head = {"X-API-Key": KEY, "Content-Type": "application/json", **(headers or {})}
        connection.request(method, path, body=body, headers=head)
        answer = connection.getresponse()
        return answer.status, answer.read()
    except (BrokenPipeError, ConnectionResetError):
        # Refused while we were still sending: that is an answer too.
        return None, b""
    finally:
        connection.close()


async def neighbour_is_well(sdk, sandbox):
    assert (await sdk.run(sandbox, "echo well")).stdout == "well\n"


async def test_a_body_of_a_hundred_megabytes(sdk, sandbox):
    body = b'{"templateID":"' + b"a" * 100_000_000 + b'"}'
    status, _ = send("POST", "/sandboxes", body)
    assert status in (413, None)
    await neighbour_is_well(sdk, sandbox)


async def test_a_header_of_a_megabyte(sdk, sandbox):
    status, _ = send("GET", "/v2/sandboxes", headers={"X-Long": "a" * 1_000_000})
    assert status in (400, 431, None)
    await neighbour_is_well(sdk, sandbox)


async def test_wrong_types_and_rubbish(sdk, sandbox):
    for body in [
        b"",
        b"null",
        b"[]",
        b"{",
        b"\xff\xfe",
        b'{"templateID":5}',
        b'{"templateID":"base","timeout":"soon"}',
        b'{"templateID":"base","timeout":-1}',
        b'{"templateID":"base","timeout":1e300}',
        b'{"templateID":"base","metadata":{"a":{}}}',
        b'{"templateID":"base","envVars":[1]}',
        b'{"templateID":"' + b"[" * 100_000 + b'"}',
        b"[" * 100_000,
    ]:
        status, text = send("POST", "/sandboxes", body)
        assert status in (400, 404), (body[:60], status)
        error = json.loads(text)
        assert error["code"] == status and error["message"], body[:60]
    for path in ["/sandboxes/..%2f..%2fetc", "/sandboxes/%00", "/sandboxes/" + "a" * 5000]:
        assert send("GET", path)[0] in (400, 404, 414), path
    await neighbour_is_well(sdk, sandbox)


async def test_too_much_of_everything(sdk, sandbox):
    for field in [
        {"envVars": {"A": "x" * 400_000}},
        {"metadata": {"A": "x" * 100_000}},
        {"network": {"allowOut": ["192.0.2.1"] * 1000}},
        {"timeout": 10_000_000},
    ]:
        status, text = send("POST", "/sandboxes", json.dumps({"templateID": "base", **field}))
        assert status == 400, (list(field), status, text[:200])
    await neighbour_is_well(sdk, sandbox)


async def test_paths_and_links_stay_inside(sdk, sandbox, home):
    """Root inside may read all of its own files, and none of the host's."""
    mark = "CASEMATE" + os.urandom(8).hex()
    with open(f"/tmp/{mark}", "w") as file:
        file.write(mark)
    try:
        for path in [f"../../../../../../tmp/{mark}", f"/proc/1/root/tmp/{mark}", f"/tmp/{mark}"]:
            await sdk.fails(
                e2b.FileNotFoundException, lambda: sandbox.files.read(path, user="root")
            )
        await sdk.run(sandbox, f"mkdir {home} && ln -s ../../../../../tmp/{mark} {home}/l")
        await sdk.fails(e2b.FileNotFoundException, lambda: sandbox.files.read(f"{home}/l"))
        await sdk.run(sandbox, f"ln -s loop {home}/loop")
        await sdk.fails(e2b.SandboxException, lambda: sandbox.files.read(f"{home}/loop"))
    finally:
        os.unlink(f"/tmp/{mark}")


async def test_output_that_nobody_reads(sdk):
    sandbox = await sdk.create()
    handle = await sdk.run(sandbox, "yes", background=True)
    await sdk.pause(2)
    await neighbour_is_well(sdk, sandbox)
    await sdk.do(handle.disconnect())
    assert await sdk.do(sandbox.commands.kill(handle.pid)) is True


# Threads with small stacks: of processes the memory limit would stop fewer.
BOMB = """
import os, threading, time
threading.stack_size(65536)
made = 0
try:
    while made < 8000:
        threading.Thread(target=time.sleep, args=(60,), daemon=True).start()
        made += 1
except RuntimeError:
    pass
print(made, flush=True)
os._exit(0)
"""


async def test_a_fork_bomb_ends_at_the_limit(sdk, sandbox):
    bombed = await sdk.create()
    await sdk.do(bombed.files.write("bomb.py", BOMB))
    made = int((await sdk.run(bombed, "python3 bomb.py", timeout=60)).stdout)
    assert 1000 < made < 2048
    await neighbour_is_well(sdk, sandbox)
    await neighbour_is_well(sdk, bombed)
    await sdk.do(bombed.kill())


async def test_memory_ends_at_the_limit(sdk, sandbox):
    hungry = await sdk.create()
    eat = "python3 -c 'x = bytearray(1 << 30); print(len(x))'"
    error = await sdk.fails(e2b.CommandExitException, lambda: hungry.commands.run(eat))
    assert error.exit_code != 0
    await neighbour_is_well(sdk, sandbox)
    await sdk.do(hungry.kill())
