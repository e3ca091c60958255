"""What is done to a cluster (`faults.py`), one thing at a time, each ended before it returns.

Each holds with the nodes whose sandboxes it may make unreachable: those of all others stay
reachable, and their streams open.
"""

import os
import signal
import subprocess

import host

FAULTS = {}


def fault(do):
    FAULTS[do.__name__.replace("_", " ")] = do
    return do


# Processes of ours.


@fault
def api_server_killed(world, hold):
    api = world.random.choice(world.apis)
    api.kill_process()
    hold()
    api.up()


@fault
def all_api_servers_killed(world, hold):
    for api in world.apis:
        api.kill_process()
    hold()
    for api in world.apis:
        api.up()


@fault
def edge_killed(world, hold):
    edge = world.random.choice(world.edges)
    edge.kill_process()
    hold(touched=world.nodes)
    edge.up()


@fault
def node_killed(world, hold):
    """Its main process; what it started ends with it, its sandboxes do not."""
    node = world.random.choice(world.nodes)
    os.kill(node.pid, signal.SIGKILL)
    node.process.wait(30)
    hold(touched=[node])
    node.up()


@fault
def node_killed_with_its_children(world, hold):
    node = world.random.choice(world.nodes)
    node.kill_all()
    hold(touched=[node])
    node.up()


@fault
def node_hung(world, hold):
    """It stands still, and its gate does not: for longer than a silence that is borne."""
    node = world.random.choice(world.nodes)
    os.kill(node.pid, signal.SIGSTOP)
    try:
        hold(6, touched=[node])
    finally:
        os.kill(node.pid, signal.SIGCONT)


def child_killed(role):
    def do(world, hold):
        node = world.random.choice(world.nodes)
        killed = {pid for pid, its in node.lasting().items() if its == role}
        assert killed, (role, node.processes())
        for pid in killed:
            os.kill(pid, signal.SIGKILL)
        # Connections into sandboxes go through the gate alone.
        hold(touched=[node] if role == "gate" else [])
        others = lambda: role in node.lasting().values() and not killed & set(node.lasting())
        host.until(f"another {role} is there", others, 60)

    return do


FAULTS |= {f"{role} killed": child_killed(role) for role in ("gate", "egress", "launcher")}


@fault
def rolling_restart(world, hold):
    """Of all there is, one after the other."""
    for member in [*world.apis, *world.edges, *world.nodes]:
        restart(world, member)
    hold(touched=world.nodes)


def restart(world, member):
    before = member.lasting() if member in world.nodes else []
    member.stop()
    member.up()
    world.whole()
    # A node's gate carries for a while what was open.
    host.until("those before are gone", lambda: not any(member.owns(pid) for pid in before), 120)


def release_changed(world, hold):
    """Another release (`--beside`) takes the place of the one that runs, process by process. In between
    one process of each role is of the one and the others are of the other."""
    nodes, apis, edges = world.nodes, world.apis, world.edges
    for members in ([nodes[0], apis[0], edges[0]], [*nodes[1:], *apis[1:], *edges[1:]]):
        for member in members:
            member.program, world.others[member] = world.others[member], member.program
            restart(world, member)
        hold(touched=nodes)


# PostgreSQL, Redis, the bucket.


def server_killed(name):
    def do(world, hold):
        server = getattr(world, name)
        server.kill()
        hold()
        server.start()

    return do


def server_stopped(name):
    """Its connections stay open, and nobody answers."""

    def do(world, hold):
        server = getattr(world, name)
        server.stop()
        try:
            hold(2)
        finally:
            server.go_on()

    return do


def way(name, what, times=1):
    """`what` is said to all ways to a server, and taken back."""

    def do(world, hold):
        for one in world.ways_to[name]:
            what(one)
        try:
            hold(times)
        finally:
            for one in world.ways_to[name]:
                one.heal()

    return do


for name, called in {"postgres": "PostgreSQL", "redis": "Redis", "bucket": "bucket"}.items():
    FAULTS |= {
        f"{called} stopped": server_stopped(name),
        f"{called} slow": way(name, lambda one: one.slow(0.1, 200_000)),
        f"{called} cut": way(name, lambda one: one.cut()),
        f"{called} cut in the middle of answers": way(name, lambda one: one.half(700)),
        f"{called} hung": way(name, lambda one: one.hang(), 2),
    }
# The emulator of a bucket keeps all in memory.
FAULTS |= {"PostgreSQL killed": server_killed("postgres"), "Redis killed": server_killed("redis")}
for status in (500, 503, 507):
    FAULTS[f"bucket answers {status}"] = way("bucket", lambda one, status=status: one.answer(status))


@fault
def PostgreSQL_full(world, hold):
    postgres = world.postgres
    fill = postgres.dir / "fill"
    subprocess.run(["dd", "if=/dev/zero", f"of={fill}", "bs=1M"], capture_output=True)
    try:
        hold(2)
    finally:
        fill.unlink()
    if not postgres.lives():
        # It gives up where it cannot even write what it would be restored from.
        world.say("PostgreSQL gave up on its full disk, and is started again")
        postgres.start()


@fault
def Redis_full(world, hold):
    world.redis.call("CONFIG", "SET", "maxmemory", "1")
    try:
        hold()
    finally:
        world.redis.call("CONFIG", "SET", "maxmemory", "0")


@fault
def PostgreSQL_and_Redis_killed(world, hold):
    world.postgres.kill()
    world.redis.kill()
    hold()
    world.postgres.start()
    world.redis.start()


# The network, and clocks.


def partition(what, times):
    def do(world, hold):
        node = world.random.choice(world.nodes)
        for one in world.ways_of[node.name]:
            what(one)
        try:
            hold(times, [node])
        finally:
            for one in world.ways_of[node.name]:
                one.heal()

    return do


# The second is longer than the silence after which a connection between machines is given up.
FAULTS |= {
    "node out of reach for a moment": partition(lambda one: one.hang(), 0.5),
    "node out of reach": partition(lambda one: one.hang(), 4),
    "node cut off": partition(lambda one: one.cut(), 1),
    "node slow to reach": partition(lambda one: one.slow(0.2, 100_000), 1),
}


@fault
def clocks_a_minute_apart(world, hold):
    """One jumps ahead and one back, and both return."""
    for clock, seconds in zip(world.clocks, (60, -60)):
        clock.set(seconds)
    try:
        hold(2)
    finally:
        for clock in world.clocks:
            clock.set(0)


@fault
def database_clock_set(world, hold):
    """By a minute, and back; API servers start anew by either."""
    for seconds in (world.random.choice((60, -60)), 0):
        world.database_clock.set(seconds)
        noticed = lambda: all("the database's clock was set" in api.said() for api in world.apis)
        host.until("servers notice it", noticed, 60)
        for api in world.apis:
            restart(world, api)
        hold()
