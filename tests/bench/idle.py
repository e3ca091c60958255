"""What a cluster asks PostgreSQL and Redis for in a minute in which nobody asks it for anything: first one
API server, then two, with three nodes each time. Starts a cluster of its own on this machine.

    CASEMATE=PROGRAM CASEMATE_TEST_BASE=BASE PYTHONPATH=tests/platform PYTHON tests/bench/idle.py [SECONDS]
"""

import sys
import time

import host
import servers
from cluster import Api, Node
from counted import Counted, redis_commands

SECONDS = int(sys.argv[1]) if len(sys.argv) > 1 else 120
NODES = 3
DATABASE = "idle"
# Until what a start brings about is over.
SETTLED = 45


def measured(what):
    time.sleep(SETTLED)
    postgres.sql("SELECT pg_stat_statements_reset()", "postgres")
    redis.call("CONFIG", "RESETSTAT")
    wire, begun = postgres.wire(), time.monotonic()
    time.sleep(SECONDS)
    minutes = (time.monotonic() - begun) / 60
    found, wire, commands = postgres.statements(DATABASE), postgres.wire() - wire, redis_commands(redis)
    cells = [*found["store"], *found["history"], wire, sum(commands.values())]
    print(f"| {what} | " + " | ".join(f"{cell / minutes:.0f}" for cell in cells) + " |", flush=True)
    told = ", ".join(f"{word} {number / minutes:.0f}" for word, number in sorted(commands.items()))
    print(f"    redis: {told}", file=sys.stderr)
    for calls, of, query in sorted(postgres.seen, reverse=True)[:25]:
        print(f"    {calls / minutes:.0f} {of}: {query[:110]}", file=sys.stderr)


with Counted() as postgres, servers.Redis() as redis:
    settings = {**postgres.database(DATABASE), **redis.settings}
    postgres.sql("CREATE EXTENSION pg_stat_statements", "postgres")
    apis = [Api(f"idle{n}", **settings) for n in range(2)]
    nodes = [Node(f"idle{n}", apis) for n in range(NODES)]
    try:
        apis[0].up()
        for node in nodes:
            node.join(apis[0].token("node"))
            node.up()
        connected = lambda: sum(one["connected"] for one in apis[0].nodes().values()) == NODES
        host.until("nodes speak", connected, 60)
        print("| a minute of | statements of the store | their WAL, bytes | statements of the history "
              "| their WAL, bytes | bytes on the wire, both ways | Redis commands |")
        print("|---|---|---|---|---|---|---|")
        measured("one API server, three nodes")
        apis[1].up()
        measured("two API servers, three nodes")
    finally:
        for one in [*nodes, *apis]:
            one.close()
