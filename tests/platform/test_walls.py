"""What a sandbox cannot reach. Every target is on this machine, and has its control."""

import contextlib
import json
import os
import socket
import subprocess
import sys
import threading

import pytest

import host

SPACE = f"cmtest-{os.getpid()}"
PORT = 8765
# Ours, open for the instance `small` only.
PRIVATE = "10.213.77.1"
GATEWAY = "10.213.77.2"
METADATA = "169.254.169.254"

# Says for each `address port` whether a connection came about.
PROBE = """
import json, socket, sys
found = {}
for target in sys.argv[1:]:
    address, port = target.rsplit(" ", 1)
    try:
        with socket.create_connection((address, int(port)), timeout=3) as c:
            c.sendall(b"x\\n")
            found[target] = "open" if c.recv(2) == b"ok" else "mute"
    except OSError as error:
        found[target] = "closed"
print(json.dumps(found))
"""

ANSWER = """
import socket, sys, threading
def serve(address):
    listener = socket.create_server((address, int(sys.argv[1])))
    while True:
        connection, _ = listener.accept()
        connection.recv(2), connection.sendall(b"ok"), connection.close()
for address in sys.argv[2:]:
    threading.Thread(target=serve, args=(address,)).start()
"""


def probe(sandbox, *targets):
    sandbox.files.write("/tmp/probe.py", PROBE)
    named = " ".join(f"'{address} {port}'" for address, port in targets)
    return json.loads(sandbox.commands.run(f"python3 /tmp/probe.py {named}", timeout=50).stdout)


def reachable(address, port):
    """From the host: the control."""
    with socket.create_connection((address, port), timeout=3) as connection:
        connection.sendall(b"x\n")
        return connection.recv(2) == b"ok"


def ip(*args):
    host.output("ip", *args)


@pytest.fixture(scope="module")
def outside():
    """A network namespace with a private and the metadata address, and no way further. Only
    packets for our port are led to it, so that nobody else of this host meets it."""
    link = f"cmt{os.getpid()}"
    rules = [
        ["to", f"{address}/32", "ipproto", "tcp", "dport", str(PORT), "lookup", "4711"]
        for address in (PRIVATE, METADATA)
    ]
    with contextlib.ExitStack() as undo:
        undo.callback(subprocess.run, ["ip", "netns", "delete", SPACE], check=False)
        ip("netns", "add", SPACE)
        ip("link", "add", link, "type", "veth", "peer", "name", "eth0", "netns", SPACE)
        ip("address", "add", f"{GATEWAY}/30", "dev", link)
        ip("link", "set", link, "up")
        for address in (f"{PRIVATE}/30", f"{METADATA}/32"):
            ip("-n", SPACE, "address", "add", address, "dev", "eth0")
        for name in ("lo", "eth0"):
            ip("-n", SPACE, "link", "set", name, "up")
        assert "default" not in host.output("ip", "-n", SPACE, "route")
        for address in (PRIVATE, METADATA):
            ip("route", "add", f"{address}/32", "dev", link, "src", GATEWAY, "table", "4711")
        for rule in rules:
            undo.callback(subprocess.run, ["ip", "rule", "delete", *rule], check=False)
            ip("rule", "add", *rule)
        answers = [sys.executable, "-c", ANSWER, str(PORT), PRIVATE, METADATA]
        server = subprocess.Popen(["ip", "netns", "exec", SPACE, *answers])
        undo.callback(server.wait)
        undo.callback(server.kill)
        host.until("the targets answer", lambda: reachable(PRIVATE, PORT))
        yield


@pytest.fixture
def listener():
    """A server on every address of the host."""
    server = socket.create_server(("0.0.0.0", 0))

    def serve():
        with contextlib.suppress(OSError):
            while True:
                connection, _ = server.accept()
                connection.recv(2), connection.sendall(b"ok"), connection.close()

    threading.Thread(target=serve, daemon=True).start()
    yield server.getsockname()[1]
    server.shutdown(socket.SHUT_RDWR)
    server.close()


def test_metadata_and_private_addresses_are_closed(main, outside, sandbox):
    assert reachable(METADATA, PORT) and reachable(PRIVATE, PORT)
    targets = [(METADATA, PORT), (PRIVATE, PORT)]
    assert set(probe(sandbox, *targets).values()) == {"closed"}


def test_a_private_range_opens_by_name_and_the_metadata_address_stays_closed(small, outside):
    sandbox = small.create()
    try:
        targets = [(PRIVATE, PORT), (METADATA, PORT)]
        assert list(probe(sandbox, *targets).values()) == ["open", "closed"]
    finally:
        sandbox.kill()


def test_the_hosts_own_addresses_are_closed(main, small, sandbox, listener):
    """The API's port among them; the small one's sandbox may reach a neighbour range, not us."""
    listed = json.loads(host.output("ip", "-j", "-4", "address", "show"))
    ours = {a["local"] for link in listed for a in link["addr_info"]} - {"127.0.0.1"}
    assert ours and all(reachable(address, listener) for address in ours)
    resolver = sandbox.commands.run("awk '/^nameserver/ { print $2 }' /etc/resolv.conf").stdout
    assert resolver.strip() in ours
    targets = [(a, port) for a in sorted(ours) for port in (listener, main.port, 22)]
    found = probe(sandbox, *targets)
    assert [target for target, state in found.items() if state != "closed"] == []


def test_loopback_inside_is_not_the_hosts(main, sandbox, listener):
    assert reachable("127.0.0.1", listener)
    targets = [("127.0.0.1", listener), ("127.0.0.1", main.port), ("::1", main.port)]
    assert set(probe(sandbox, *targets).values()) == {"closed"}


def test_sandboxes_are_closed_to_each_other(main, small, sandbox):
    """Also those of another instance."""
    serve = "import http.server as h; h.test(h.SimpleHTTPRequestHandler, port=8000, bind='0.0.0.0')"
    others = [main.create(), small.create()]
    try:
        for other in others:
            other.commands.run(f'python3 -c "{serve}"', background=True)
            address = other.commands.run("hostname -I").stdout.split()[0]
            own = f"curl -s -o /dev/null -w '%{{http_code}}' http://{address}:8000/"
            host.until("it serves", lambda: other.commands.run(own).stdout == "200")
            assert probe(sandbox, (address, 8000)) == {f"{address} 8000": "closed"}
    finally:
        for other in others:
            other.kill()
