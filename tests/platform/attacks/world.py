"""Where attacks happen: a platform in a network of its own, and targets that belong to the test.

    this host ──── house ──── outside      house     a network namespace with `casemate up` in it
                     │  └──── plain          outside   every target outside of the host
                 sandboxes      │            plain     a machine without walls, for controls
                                └── outside

No packet can leave: none of the namespaces has a default route, which is looked at before anything
is sent, and all of them go with the test (decision 26).
"""

import contextlib
import functools
import json
import os
import pathlib
import shlex
import shutil
import socket
import subprocess
import sys
import time

import host
from attacks import calls, table
from instance import ROOT, Instance

HERE = pathlib.Path(__file__).resolve().parent
NUMBER = os.getpid() % 16384
NET = f"10.{214 + NUMBER // 8192}.{NUMBER // 64 % 128}.{NUMBER % 64 * 4}".rsplit(".", 1)
HOST, HOUSE = (f"{NET[0]}.{int(NET[1]) + last}" for last in (1, 2))
HOUSE_OUT, OUTSIDE, PLAIN = "198.18.0.1", "198.18.0.2", "198.18.0.6"
# Looks like one of the internet's.
OPEN = "198.51.100.9"
RESOLVER = "198.51.100.53"
# What one sandbox may reach, by name only.
NAMES = ["open.test", "*.wild.test"]
METADATA = ["169.254.169.254", "169.254.170.2", "168.63.129.16", "100.100.100.200", "192.0.0.192"]
PRIVATE = ["10.9.8.7", "172.16.9.9", "192.168.9.9"]
APART = "unshare -m -n -u -i -p -C --fork --mount-proc --kill-child".split()
OPEN6, METADATA6, LOCAL6 = "2001:db8::9", "fd00:ec2::254", "fe80::9"


def ip(line, space=None):
    at = ["-n", space] if space else []
    return host.output("ip", *at, *line.split())


class Marks:
    """Things of the host that attacks look for; all of them are the test's."""

    def __init__(self):
        self.name = f"cma-{os.getpid()}"
        self.canary = pathlib.Path(f"/tmp/{self.name}-canary")
        self.secret = os.urandom(8).hex()
        self.canary.write_text(self.secret)
        self.folder = ROOT / self.name
        self.folder.mkdir(parents=True)
        self.process = subprocess.Popen(["sleep", "1000"])
        self.listener = socket.socket(socket.AF_UNIX)
        self.listener.bind("\0" + self.name)
        self.listener.listen()
        self.key = 0x43000000 | os.getpid()
        self.memory = calls.call(29, self.key, 4096, 0o1600)
        os.close(calls.call(240, self.name.encode(), os.O_CREAT | os.O_RDWR, 0o600, None))

    def close(self):
        calls.call(241, self.name.encode())
        calls.call(31, self.memory, 0, None)
        self.listener.close()
        self.process.kill()
        self.process.wait()
        shutil.rmtree(self.folder)
        self.canary.unlink()


class Witness:
    """What arrives in a namespace."""

    def __init__(self, name, entering, *does):
        self.path = f"/tmp/cma-{os.getpid()}-{name}"
        command = [*entering, sys.executable, str(HERE / "witness.py"), self.path, *does]
        pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE}
        self.process = subprocess.Popen(command, **pipes)
        assert self.process.stdout.readline() == b"ready\n"

    def saw(self, data):
        return data in pathlib.Path(self.path).read_bytes()

    def close(self):
        self.process.kill()
        self.process.wait()
        pathlib.Path(self.path).unlink(missing_ok=True)


def entering(space):
    return ["nsenter", f"--net=/run/netns/{space}"]


class World:
    def __init__(self):
        self.names = {name: f"cma{os.getpid()}-{name}" for name in ("house", "outside", "plain")}
        self.undo = contextlib.ExitStack()
        self.witnesses = {}
        try:
            self.marks = Marks()
            self.undo.callback(self.marks.close)
            self.build()
        except BaseException:
            self.close()
            raise

    def build(self):
        house, outside, plain = self.names.values()
        link = f"cma{os.getpid()}"
        for name in self.names.values():
            self.undo.callback(subprocess.run, ["ip", "netns", "delete", name], check=False)
            ip(f"netns add {name}")
            ip("link set lo up", name)
        ip(f"link add {link} type veth peer name up0 netns {house}")
        ip(f"address add {HOST}/30 dev {link}")
        ip(f"link set {link} up")
        self.pair(house, "out0", f"{HOUSE_OUT}/30", outside, "eth0", f"{OUTSIDE}/30")
        self.pair(house, "plain0", "198.18.0.5/30", plain, "eth1", f"{PLAIN}/30")
        # IPv6 has its own way, for nothing of it passes the house.
        self.pair(plain, "eth0", "198.18.0.9/30", outside, "eth1", "198.18.0.10/30")
        ip(f"address add {HOUSE}/30 dev up0", house)
        ip("link set up0 up", house)
        for address in [OPEN, RESOLVER, *METADATA, *PRIVATE]:
            ip(f"address add {address}/32 dev lo", outside)
            ip(f"route add {address}/32 via {OUTSIDE}", house)
        for address in (OPEN6, METADATA6, LOCAL6):
            ip(f"address add {address}/64 dev eth1 nodad", outside)
            ip(f"address add {address.rsplit('::', 1)[0]}::8/64 dev eth0 nodad", plain)
        ip(f"route add 100.64.0.0/10 via {HOUSE_OUT}", outside)
        self.contained()
        self.watch("outside", entering(outside), "sniff", "serve", "web", "dns", OPEN, RESOLVER)
        self.platform = Instance(
            "attacks",
            netns=house,
            address=HOUSE,
            CASEMATE_NETWORK_DNS_UPSTREAMS=RESOLVER,
            CASEMATE_NODE_SLOT_STOCK="8",
            CASEMATE_NETWORK_CONNTRACK_PER_SANDBOX_MAX="300",
            CASEMATE_LIMITS_DISK_MIB="256",
        )
        self.undo.callback(self.platform.close)
        self.platform.up()
        self.sandbox, self.other = self.platform.create(), self.platform.create()
        self.closed = self.platform.create(allow_internet_access=False)
        self.named = self.platform.create(network={"allow_out": NAMES, "deny_out": ["0.0.0.0/0"]})
        self.watch("other", self.network_of(self.other), "sniff", "serve")
        self.watch("house", entering(house), "serve")

    def pair(self, here, link, address, there, other, its):
        ip(f"link add {link} type veth peer name {other} netns {there}", here)
        for space, name, own in ((here, link, address), (there, other, its)):
            ip(f"address add {own} dev {name}", space)
            ip(f"link set {name} up", space)

    def contained(self):
        """Nothing that is sent here can reach anybody else."""
        for name in self.names.values():
            for family in ("-4", "-6"):
                routes = host.output("ip", "-n", name, family, "route", "show", "table", "all")
                assert "default" not in routes, (name, routes)

    def watch(self, name, entering, *does):
        self.witnesses[name] = Witness(name, entering, *does)
        self.undo.callback(self.witnesses[name].close)

    def process_of(self, sandbox):
        return int(self.platform.record(sandbox.sandbox_id)["facts"]["pid"])

    def network_of(self, sandbox):
        return ["nsenter", f"--net=/proc/{self.process_of(sandbox)}/ns/net"]

    def address_of(self, sandbox):
        return sandbox.commands.run("hostname -I").stdout.split()[0]

    def gateway(self):
        return self.sandbox.commands.run("awk '/^nameserver/ { print $2 }' /etc/resolv.conf").stdout.strip()

    @contextlib.contextmanager
    def bound(self, path):
        """A file of a layer where everybody of the host can reach it, by the layer's own mount."""
        place = pathlib.Path(f"/var/tmp/{self.marks.name}-bound")
        place.touch()
        host.output("mount", "--bind", str(path), str(place))
        try:
            yield place
        finally:
            host.output("umount", str(place))
            place.unlink()

    def in_space(self, name):
        return entering(self.names[name])

    @contextlib.contextmanager
    def without_rules(self):
        """The packet filter's table is empty. Not away: the node would put it back."""
        name = ["inet", f"casemate_{self.platform.id}"]
        enter = self.in_space("house")
        rules = host.output(*enter, "nft", "list", "table", *name)
        self.contained()
        host.output(*enter, "nft", "flush", "table", *name)
        self.loopback_on_links(1)
        try:
            yield
        finally:
            self.loopback_on_links(0)
            again = f"delete table {' '.join(name)}\n{rules}"
            subprocess.run([*enter, "nft", "-f", "-"], input=again, text=True, check=True)

    def loopback_on_links(self, value):
        """The kernel's own refusal of loopback's addresses on other links, which a control is without."""
        for space in (self.in_space("house"), self.network_of(self.sandbox)):
            for name in ("route_localnet", "accept_local"):
                host.output(*space, "sysctl", "-q", "-w", f"net.ipv4.conf.all.{name}={value}")

    @functools.cache
    def calls(self):
        """What came of every attack of `calls.py`, by where it was run."""
        facts, rows = self.facts(), [row for rows in table.CALLS.values() for row in rows]
        self.sandbox.files.write("/tmp/calls.py", (HERE / "calls.py").read_text())
        inside = f"python3 /tmp/calls.py {shlex.quote(json.dumps(facts))}"
        found = {who: json.loads(self.sandbox.commands.run(inside, user=who, timeout=120).stdout) for who in table.BOTH}
        facts = json.dumps({**facts, "control": True, "folder": str(self.marks.folder)})
        around = {"apart": APART, "host": []}
        for where, enter in around.items():
            names = [row.name for row in rows if row.at == where]
            command = [*enter, sys.executable, str(HERE / "calls.py"), facts, *names]
            found[where] = json.loads(host.output(*command))
        return found

    def facts(self):
        marks, platform = self.marks, self.platform
        pool = host.RUN / platform.id / "pool"
        layer = platform.record(self.other.sandbox_id)["facts"]["layer"]
        (loop,) = host.loop_devices(platform.data_dir)
        return {
            "name": marks.name,
            "canary": str(marks.canary),
            "process": marks.process.pid,
            "key": marks.key,
            "paths": [str(path) for path in (platform.data_dir, host.RUN, pool, pool / "w" / layer / "upper")],
            "pool": str(pool),
            "disk": [int(part) for part in host.read(f"/sys/block/{loop}/dev").split(":")],
            "admin": str(platform.data_dir / "node/admin.sock"),
        }

    @functools.cache
    def sent(self):
        """What came of every attack of `packets.py`: whether it arrived, and what its sender saw."""
        rows = [row for rows in table.SENDS.values() for row in rows]
        found = {"attack": self.send_all("on", {row.name: (row, row.source) for row in rows})}
        sources = {"plain": "plain", "house": "house", "open": "sandbox"}
        for control, source in sources.items():
            some = {row.name: (row, source) for row in rows if row.control == control}
            found[control] = self.send_all(control, some)
        with self.without_rules():
            some = {row.name: (row, row.source) for row in rows if row.control == "rules"}
            found["rules"] = self.send_all("off", some)
        return found

    def send_all(self, run, rows):
        senders = {
            "sandbox": lambda plans: self.send_inside(self.sandbox, plans),
            "closed": lambda plans: self.send_inside(self.closed, plans),
            "named": lambda plans: self.send_inside(self.named, plans),
            "forged": lambda plans: self.send(self.network_of(self.sandbox), plans),
            **{name: lambda plans, name=name: self.send(self.in_space(name), plans) for name in self.names},
        }
        own, other = self.address_of(self.sandbox), self.address_of(self.other)
        known = {"OWN": own, "OTHER": other, "GATEWAY": self.gateway(), "HOUSE": HOUSE, "API": self.platform.port}
        said, tokens = {}, {name: f"cma-{run}-{name}" for name in rows}
        for source in dict.fromkeys(source for _, source in rows.values()):
            plans = [
                {
                    "name": name,
                    "token": tokens[name],
                    **{key: known.get(value, value) for key, value in row.plan.items()},
                }
                for name, (row, its) in rows.items()
                if its == source
            ]
            said.update(senders[source](plans))
        time.sleep(0.3)
        return {
            name: (said[name] == "answered" or self.saw(row.witness, tokens[name]), said[name])
            for name, (row, _) in rows.items()
        }

    def saw(self, witness, token):
        # A name server that was asked writes the name's length before it.
        if witness.startswith("<"):
            return self.witnesses["outside"].saw(witness.encode() + bytes([len(token)]) + token.encode())
        return self.witnesses[witness].saw(token.encode())

    def send(self, enter, plans):
        """Sends as the host's root, in a network namespace."""
        return json.loads(host.output(*enter, sys.executable, str(HERE / "packets.py"), json.dumps(plans)))

    def send_inside(self, sandbox, plans):
        sandbox.files.write("/tmp/packets.py", (HERE / "packets.py").read_text())
        sending = f"python3 /tmp/packets.py {shlex.quote(json.dumps(plans))}"
        return json.loads(sandbox.commands.run(sending, timeout=60).stdout)

    def close(self):
        self.undo.close()
