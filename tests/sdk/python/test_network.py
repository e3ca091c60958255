"""Ports of a sandbox from outside, and its way out. What is attacked is made by the test itself."""

import base64
import os
import socket
import subprocess

import e2b
import edge
import pytest

from edge import API, ask, serve

SERVER = "python3 -m http.server {port} --bind {bind}"


@pytest.mark.parametrize("bind", ["0.0.0.0", "127.0.0.1", "::1"])
async def test_a_port_is_reachable_wherever_it_listens(sdk, sandbox, bind):
    port = {"0.0.0.0": 3210, "127.0.0.1": 3211, "::1": 3212}[bind] + (10 if sdk.is_async else 0)
    server = await sdk.run(sandbox, SERVER.format(port=port, bind=bind), background=True, cwd="/etc")
    host = sandbox.get_host(port)
    await sdk.until("the port", lambda: ask(host)[0] == 200)
    assert b"e2b.local" in ask(host, "/hostname")[1]
    by_headers = {"E2b-Sandbox-Id": sandbox.sandbox_id, "E2b-Sandbox-Port": str(port)}
    assert ask(API.netloc, "/hostname", by_headers)[0] == 200
    await sdk.do(server.kill())


async def test_a_closed_port_and_a_dead_sandbox_have_their_answers(sdk, sandbox):
    status, body = ask(sandbox.get_host(9))
    assert status == 502 and b"port is not open" in body
    status, body = ask(f"80-i00000000000000000000.{sandbox.sandbox_domain}")
    assert status == 502 and b"was not found" in body
    status, body = ask(sandbox.get_host(9), headers={"Accept": "text/html", "User-Agent": "Mozilla/5.0"})
    assert status == 502 and body.startswith(b"<html") and b"no service running on port" in body


async def test_a_websocket_passes_both_ways(sdk, sandbox):
    port = 3300 + (1 if sdk.is_async else 0)
    echo = (
        "import socket\n"
        f"s = socket.create_server(('127.0.0.1', {port}))\n"
        "c, _ = s.accept()\n"
        "head = b''\n"
        "while b'\\r\\n\\r\\n' not in head: head += c.recv(1024)\n"
        "c.sendall(b'HTTP/1.1 101 Switching Protocols\\r\\n'\n"
        "          b'Connection: Upgrade\\r\\nUpgrade: websocket\\r\\n\\r\\n')\n"
        "while data := c.recv(1024): c.sendall(data[::-1])\n"
        "c.sendall(b'bye')\n"
    )
    await sdk.do(sandbox.files.write("echo.py", echo))
    await sdk.run(sandbox, "python3 echo.py", background=True)
    await sdk.until("the listener", lambda: listening(sdk, sandbox, port))
    with socket.create_connection((API.hostname, API.port or 80), timeout=10) as stream:
        key = base64.b64encode(os.urandom(16)).decode()
        stream.sendall(
            f"GET / HTTP/1.1\r\nHost: {sandbox.get_host(port)}\r\nConnection: Upgrade\r\n"
            f"Upgrade: websocket\r\nSec-WebSocket-Version: 13\r\nSec-WebSocket-Key: {key}\r\n\r\n"
            .encode()
        )
        head = b""
        while b"\r\n\r\n" not in head:
            head += stream.recv(1)
        assert head.startswith(b"HTTP/1.1 101")
        stream.sendall(b"abc")
        assert stream.recv(16) == b"cba"
        # Half-close inside the upgraded connection: our end is over, theirs is not.
        stream.shutdown(socket.SHUT_WR)
        assert stream.recv(16) == b"bye"


async def listening(sdk, sandbox, port):
    found = await sdk.run(sandbox, f"ss -ltnH sport = :{port}")
    return found.stdout.strip()


async def connects(sdk, sandbox, address, port):
    code = f"import socket; socket.create_connection(('{address}', {port}), 3)"
    result = await sdk.run(sandbox, f'python3 -c "{code}" && echo yes || echo no')
    return result.stdout.strip() == "yes"


async def test_the_host_is_closed(sdk, sandbox):
    """The target is a listener of this test on every address that the host has."""
    gateway = (await sdk.run(sandbox, "ip route show default | cut -d' ' -f3")).stdout.strip()
    own = subprocess.run(["hostname", "-I"], capture_output=True, text=True, check=True).stdout
    with socket.create_server(("0.0.0.0", 0)) as server:
        port = server.getsockname()[1]
        targets = [a for a in {gateway, *own.split()} if ":" not in a and reaches(a, port)]
        assert targets, "the host has an address that it reaches itself"
        for address in targets:
            assert not await connects(sdk, sandbox, address, port), address


def reaches(address, port):
    try:
        socket.create_connection((address, port), timeout=1).close()
    except OSError:
        return False
    return True


async def test_neighbours_are_closed(sdk, sandbox):
    other = await sdk.create()
    await sdk.run(other, SERVER.format(port=4000, bind="0.0.0.0"), background=True)
    await sdk.until("the server", lambda: listening(sdk, other, 4000))
    there = (await sdk.run(other, "hostname -I")).stdout.split()
    assert there, "a sandbox has an address"
    for address in there:
        assert await connects(sdk, other, address, 4000), "its own sandbox reaches it"
        assert not await connects(sdk, sandbox, address, 4000), address


TOKEN = "e2b-traffic-access-token"


async def test_a_private_sandbox_asks_for_its_token(sdk):
    sandbox = await sdk.create(
        network={"allow_public_traffic": False},
        lifecycle={"on_timeout": "pause", "auto_resume": True},
    )
    assert (await sdk.do(sandbox.get_info())).network == {"allow_public_traffic": False}
    right, wrong = {TOKEN: sandbox.traffic_access_token}, {TOKEN: "0" * 64}
    assert len(right[TOKEN]) == 64
    host = await serve(sdk, sandbox, 8000, right)
    for headers, text in [({}, b"is missing"), (wrong, b"is invalid")]:
        status, body = ask(host, headers=headers)
        assert status == 403 and b"secured with traffic access token" in body and text in body
        status, body = ask(host, headers={**headers, "User-Agent": "Mozilla/5.0"})
        assert status == 403 and body.startswith(b"<html")
    assert ask(sandbox.get_host(9), headers={})[0] == 403
    assert ask(sandbox.get_host(9), headers=right)[0] == 502
    # The agent has a token of its own.
    assert ask(sandbox.get_host(49983), "/health")[0] == 204
    assert await sdk.do(sandbox.files.exists("/etc")) is True
    # Nor does anybody wake it without.
    await sdk.do(sandbox.pause())
    for headers in ({}, wrong, {"X-Access-Token": right[TOKEN]}):
        status, body = ask(host, headers=headers)
        assert status == 403 and b"can't be resumed with the credentials provided" in body
    assert (await sdk.do(sandbox.get_info())).state == e2b.SandboxState.PAUSED
    assert ask(host, headers=right)[0] == 200
    other = await sdk.do(sdk.Sandbox.connect(sandbox.sandbox_id))
    assert other.traffic_access_token == right[TOKEN]
    assert ask(host)[0] == 403

    public = await sdk.create(network={"allow_public_traffic": True})
    assert public.traffic_access_token is None
    assert ask(await serve(sdk, public, 8000))[0] == 200


async def test_services_see_the_host_that_was_asked_for(sdk):
    sandbox = await sdk.create(network={"mask_request_host": "${PORT}-app.example.com"})
    mask = (await sdk.do(sandbox.get_info())).network
    assert mask == {"mask_request_host": "${PORT}-app.example.com"}
    host = await serve(sdk, sandbox, 8000)
    seen = lambda host: ask(host)[1].split()[1].decode()
    assert seen(host) == "8000-app.example.com"
    for mode in ("full", "filesystem"):
        await sdk.do(sandbox.pause(mode=mode))
        await sdk.do(sandbox.connect(timeout=60))
        if mode == "filesystem":
            await serve(sdk, sandbox, 8000)
        assert seen(host) == "8000-app.example.com"
    # An update of what leaves changes nothing of what comes in.
    await sdk.do(sandbox.update_network({"deny_out": ["192.0.2.0/24"]}))
    assert seen(host) == "8000-app.example.com"
    for wrong, text in [("a b", "mask request host is not valid"), ("b\u00fccher.example", "not ASCII")]:
        with pytest.raises(e2b.SandboxException) as caught:
            await sdk.create(network={"mask_request_host": wrong})
        assert caught.value.status_code == 400 and text in str(caught.value)


async def test_domains_are_judged_by_name(sdk):
    """A refusal needs no server: whatever is dialled, the name decides."""
    sandbox = await sdk.create(
        network={"allow_out": ["*.allowed.test"], "deny_out": [e2b.ALL_TRAFFIC]}
    )
    info = await sdk.do(sandbox.get_info())
    assert info.network["allow_out"] == ["*.allowed.test"]

    async def said(name):
        asked = f"curl -s -m 10 --resolve {name}:80:192.0.2.1 http://{name}/"
        return (await sdk.run(sandbox, asked)).stdout

    assert "'allowed.test' is not in this sandbox's allowOut" in await said("allowed.test")
    refused = await said("www.allowed.test")
    assert "not in this sandbox's allowOut" not in refused and "www.allowed.test" in refused
    await sdk.do(sandbox.update_network({"allow_out": ["allowed.test"], "deny_out": ["0.0.0.0/0"]}))
    assert "not in this sandbox's allowOut" in await said("www.allowed.test")
    error = await sdk.fails(
        e2b.SandboxException, lambda: sandbox.update_network({"allow_out": ["example.com"]})
    )
    assert error.status_code == 400 and "ALL_TRAFFIC" in str(error)


async def test_network_rules_are_shown_and_replaced(sdk):
    sandbox = await sdk.create(
        network={"allow_out": ["192.0.2.7", "198.51.100.0/24"], "deny_out": ["0.0.0.0/0"]}
    )
    info = await sdk.do(sandbox.get_info())
    assert info.network["allow_out"] == ["192.0.2.7", "198.51.100.0/24"]
    assert info.network["deny_out"] == ["0.0.0.0/0"]
    await sdk.do(sandbox.update_network({"deny_out": ["203.0.113.0/24"]}))
    info = await sdk.do(sandbox.get_info())
    assert not info.network.get("allow_out")
    assert info.network["deny_out"] == ["203.0.113.0/24"]
    await sdk.do(sdk.Sandbox.update_network(sandbox.sandbox_id, {}))
    info = await sdk.do(sandbox.get_info())
    assert not (info.network or {}).get("deny_out")
    error = await sdk.fails(
        e2b.SandboxException, lambda: sandbox.update_network({"deny_out": ["example.com"]})
    )
    assert error.status_code == 400


async def test_without_internet_a_sandbox_has_none(sdk, sandbox):
    closed = await sdk.create(allow_internet_access=False)
    assert (await sdk.do(closed.get_info())).allow_internet_access is False
    fetch = "pip download --no-deps --dest /tmp/x --timeout 5 --retries 0 iniconfig==2.3.1"
    await sdk.fails(e2b.CommandExitException, lambda: closed.commands.run(fetch))
    # What an update does not name is cleared, this too.
    await sdk.do(closed.update_network({}))
    assert (await sdk.do(closed.get_info())).allow_internet_access is None
    if os.environ.get("CASEMATE_TEST_INTERNET") == "1":
        await sdk.run(sandbox, fetch)
        await sdk.run(closed, fetch)


async def test_packages_can_be_installed(sdk):
    if os.environ.get("CASEMATE_TEST_INTERNET") != "1":
        pytest.skip("CASEMATE_TEST_INTERNET is not 1")
    sandbox = await sdk.create(timeout=600)
    await sdk.run(sandbox, "pip install iniconfig==2.3.1 && python -c 'import iniconfig'", timeout=120)
    await sdk.run(sandbox, "sudo pip install idna && python -c 'import idna'", timeout=120)
    await sdk.run(sandbox, "mkdir p && cd p && npm install left-pad@1.3.0", timeout=120)
    await sdk.run(sandbox, "cd p && node -e 'require(\"left-pad\")'")
    await sdk.run(
        sandbox, "sudo apt-get update && sudo apt-get install -y bc && echo 6*7 | bc", timeout=180
    )


SPEAKS_TLS = """
import http.server, ssl
server = http.server.HTTPServer(("127.0.0.1", 8443), http.server.SimpleHTTPRequestHandler)
context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
context.load_cert_chain("pair.pem")
server.socket = context.wrap_socket(server.socket, server_side=True)
server.serve_forever()
"""


async def test_a_service_that_speaks_tls_is_spoken_to_so(sdk):
    sandbox = await sdk.create(network={"https_ports": [8443]})
    await sdk.do(sandbox.files.write("serve.py", SPEAKS_TLS))
    await sdk.do(sandbox.files.write("mark", "by TLS"))
    make = "openssl req -x509 -newkey rsa:2048 -nodes -subj /CN=nobody -days 1 -keyout k -out c"
    await sdk.run(sandbox, f"{make} && cat k c > pair.pem")
    await sdk.run(sandbox, "python3 serve.py", background=True, timeout=0)
    host = sandbox.get_host(8443)
    await sdk.until("the server", lambda: edge.ask(host, "/mark")[0] == 200)
    assert edge.ask(host, "/mark") == (200, b"by TLS")
    await sdk.do(sandbox.kill())
