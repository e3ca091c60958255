"""Whose things are on the host, and what one sandbox can use up of what all share."""

import fcntl
import os
import pathlib
import struct

import host

NS_GET_OWNER_UID = 0xB704
ENOSYS = 38

CALL = "import ctypes; c = ctypes.CDLL(None, use_errno=True); print(c.syscall({}), ctypes.get_errno())"

TERMINALS = """
import os
held = []
try:
    for _ in range(400):
        held.append(os.openpty())
except OSError as error:
    print(len(held), error.errno)
"""


def first_process(main, sandbox):
    return int(main.record(sandbox.sandbox_id)["facts"]["pid"])


def owner_of_namespace(pid):
    with open(f"/proc/{pid}/ns/user") as namespace:
        told = fcntl.ioctl(namespace, NS_GET_OWNER_UID, struct.pack("I", 0))
    return struct.unpack("I", told)[0]


def test_a_user_namespace_belongs_to_its_own_first_id(main, sandbox):
    """The kernel counts watches, signals and queues against the owner: root would be everybody."""
    other = main.create()
    try:
        owners = []
        for one in (sandbox, other):
            pid = first_process(main, one)
            first = int(host.read(f"/proc/{pid}/uid_map").split()[1])
            assert owner_of_namespace(pid) == first == os.stat(f"/proc/{pid}").st_uid
            owners.append(first)
        assert 0 not in owners and owners[0] != owners[1]
    finally:
        other.kill()


def test_terminals_are_bounded_and_others_still_get_theirs(main, sandbox):
    other = main.create()
    try:
        sandbox.files.write("/tmp/t.py", TERMINALS)
        count, errno = sandbox.commands.run("ulimit -n 4096; python3 /tmp/t.py").stdout.split()
        assert 50 <= int(count) <= 64 and int(errno) != 0
        held = sandbox.commands.run(
            "ulimit -n 4096; python3 -c \"exec(open('/tmp/t.py').read()); import time; time.sleep(60)\"",
            background=True,
        )
        assert other.commands.run("python3 -c 'import os; os.openpty(); print(1)'").stdout == "1\n"
        held.kill()
    finally:
        other.kill()


def test_asynchronous_contexts_of_the_host_are_not_for_sandboxes(sandbox):
    """`io_setup` takes from one number for the whole host; a program is told that there is none."""
    said = sandbox.commands.run(f'python3 -c "{CALL.format("206, 1, ctypes.byref(ctypes.c_ulong())")}"')
    assert said.stdout.split() == ["-1", str(ENOSYS)]


def test_socket_buffers_are_part_of_the_memory_limit(main, sandbox):
    """Where limits are on version 1; version 2 counts them with the rest."""
    groups = {pathlib.Path(path).parts[4]: path for path in main.groups(sandbox.sandbox_id)}
    if "memory" not in groups:
        assert host.read("/sys/fs/cgroup/cgroup.controllers").split().count("memory") == 1
        return
    memory = int(host.read(f"{groups['memory']}/memory.limit_in_bytes"))
    buffers = int(host.read(f"{groups['memory']}/memory.kmem.tcp.limit_in_bytes"))
    assert memory == sandbox.get_info().memory_mb * 1024 * 1024
    assert buffers == memory // 8


def test_files_of_sandboxes_are_nobodys_programs_on_the_host(main, sandbox):
    """A set-user-id root file made inside is one of the host's root on disk: no one may run it."""
    assert (host.RUN.stat().st_mode & 0o777) == 0o700
    pool = str(host.RUN / main.id / "pool")
    options = [line.split()[3] for line in host.read("/proc/mounts").splitlines() if line.split()[1] == pool]
    assert options and all({"nosuid", "nodev"} <= set(one.split(",")) for one in options)


def test_the_agent_gets_its_turn_before_what_it_started(sandbox):
    ranks = sandbox.commands.run("ps -o ni= -p 1; ps -o ni= -p $$").stdout
    assert ranks.split() == ["-20", "0"]
    # And nobody inside can have the same.
    refused = sandbox.commands.run("sudo nice -n -5 true 2>&1 || true").stdout
    assert "Permission denied" in refused or "cannot set niceness" in refused


def test_each_process_has_no_more_rights_than_it_needs(main):
    users = {}
    for pid, role in main.processes().items():
        users.setdefault(role, set()).add(os.stat(f"/proc/{pid}").st_uid)
    assert users["control"] != users["egress"]
    assert 0 not in users["control"] | users["egress"]
