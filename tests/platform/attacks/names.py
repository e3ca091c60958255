"""What a sandbox that may reach two domains does about them, and that it reaches those at all."""

import contextlib
import json
import os
import signal

import host
from attacks.table import attack
from attacks.world import METADATA, NAMES, OPEN, RESOLVER

GROUP = "Network: domains"
POLICY = {"allow_out": NAMES, "deny_out": ["0.0.0.0/0"]}


def asks(sandbox, url, *more):
    """What a server says: the address of it that was asked. Nothing when there is none."""
    command = f"curl --silent --fail --max-time 5 {' '.join(more)} {url} || true"
    return sandbox.commands.run(command).stdout


@contextlib.contextmanager
def hosts_entry(sandbox, address, name):
    sandbox.commands.run(f"cp /etc/hosts /tmp/hosts; echo {address} {name} >>/etc/hosts", user="root")
    try:
        yield
    finally:
        sandbox.commands.run("cat /tmp/hosts >/etc/hosts", user="root")


@attack(
    GROUP,
    "false-hosts-entry",
    "an allowed domain in `/etc/hosts` with the metadata service's address",
    "root",
    "the domain's real address is reached",
    "without the packet filter's rules the false one is",
)
def _(world):
    assert asks(world.named, "http://open.test/") == RESOLVER
    assert asks(world.named, "http://a.b.wild.test/", "--resolve", f"a.b.wild.test:80:{OPEN}") == RESOLVER
    with hosts_entry(world.named, METADATA[0], "open.test"):
        assert asks(world.named, "http://open.test/") == RESOLVER
        with world.without_rules():
            assert asks(world.named, "http://open.test/") == METADATA[0], "control"


@attack(
    GROUP,
    "connection-kept",
    "going on with a connection to a domain that is allowed no longer",
    "user",
    "it is ended",
    "it goes on while the domain is allowed",
)
def _(world):
    slow = "(printf 'POST / HTTP/1.1\\r\\nHost: open.test\\r\\nContent-Length: 600\\r\\n\\r\\n'; "
    slow += "while sleep 0.1; do printf x; done) | nc open.test 80 >/dev/null; echo ended"
    held = world.named.commands.run(f"timeout 20 bash -c {json.dumps(slow)}", background=True)
    flows = lambda: world.named.commands.run("ss -tnH state established dport = :80").stdout  # noqa: E731
    try:
        host.until("the connection", flows)
        world.named.update_network({**POLICY, "allow_out": ["open.test"]})
        assert flows(), "control"
        world.named.update_network({**POLICY, "allow_out": ["other.test"]})
        host.until("its end", lambda: not flows(), seconds=3)
    finally:
        held.kill()
        world.named.update_network(POLICY)
    assert asks(world.named, "http://open.test/") == RESOLVER


@attack(
    GROUP,
    "judge-killed",
    "waiting for the moment in which the process that judges names is not there",
    "user",
    "nothing is reached while it stands still, and nothing else when it is there again",
    "allowed domains are reached again",
)
def _(world):
    def egress():
        return next(pid for pid, role in world.platform.processes().items() if role == "egress")

    def all_asked():
        return [
            asks(world.named, f"http://{name}/", "--resolve", f"{name}:80:{OPEN}")
            for name in ("open.test", "evil.test")
        ]

    pid = egress()
    os.kill(pid, signal.SIGSTOP)
    try:
        assert all_asked() == ["", ""]
    finally:
        os.kill(pid, signal.SIGKILL)
    host.until("another one", lambda: egress() != pid)
    host.until("the allowed domain", lambda: all_asked() == [RESOLVER, ""])
