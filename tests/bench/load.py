"""What operations cost PostgreSQL and Redis: statements, rows of the write-ahead log and bytes on the
wire of the one, commands of the other. Starts a platform of its own.

    CASEMATE=PROGRAM CASEMATE_TEST_BASE=BASE PYTHONPATH=tests/platform PYTHON tests/bench/load.py [COUNT]
"""

import sys
import time

import servers
from counted import Counted, redis_commands
from instance import Instance

COUNT = int(sys.argv[1]) if len(sys.argv) > 1 else 50
DATABASE = "load"


def measured(name, work, count, settle=2.0, idle=None):
    """Runs it; what it took, less what goes on anyway."""
    postgres.sql("SELECT pg_stat_statements_reset()", "postgres")
    redis.call("CONFIG", "RESETSTAT")
    wire, begun = postgres.wire(), time.monotonic()
    work()
    time.sleep(settle)
    took = time.monotonic() - begun
    found, wire, commands = postgres.statements(DATABASE), postgres.wire() - wire, redis_commands(redis)
    less = (lambda value, key: value - idle[key] * took) if idle else (lambda value, key: value)
    row = {
        "store": less(found["store"][0], "store") / count,
        "store_wal": less(found["store"][1], "store_wal") / count,
        "history": less(found["history"][0], "history") / count,
        "history_wal": less(found["history"][1], "history_wal") / count,
        "wire": less(wire, "wire") / count,
        "redis": less(sum(commands.values()), "redis") / count,
    }
    told = ", ".join(f"{word} {number / count:.2f}" for word, number in sorted(commands.items()))
    print(f"| {name} | {row['store']:.2f} | {row['store_wal']:.0f} | {row['history']:.2f} "
          f"| {row['history_wal']:.0f} | {row['wire']:.0f} | {row['redis']:.2f} | {count} |", flush=True)
    print(f"    redis: {told}", file=sys.stderr)
    for calls, of, query in sorted(postgres.seen, reverse=True)[:8]:
        print(f"    {calls / count:.2f} {of}: {query[:110]}", file=sys.stderr)
    return {key: value * count / took for key, value in row.items()}


with Counted() as postgres, servers.Redis() as redis:
    platform = Instance("load", **postgres.database(DATABASE), **redis.settings)
    postgres.sql("CREATE EXTENSION pg_stat_statements", "postgres")
    try:
        platform.up()
        platform.kill(platform.create().sandbox_id)
        time.sleep(8)
        print("| what | statements of the store | their WAL, bytes | statements of the history | their WAL, bytes "
              "| bytes on the wire, both ways | Redis commands | count |")
        print("|---|---|---|---|---|---|---|---|")
        idle = measured("a minute without sandboxes (whole, not each)", lambda: time.sleep(60), 1, settle=0)
        made = []
        measured("create", lambda: made.extend(platform.create() for _ in range(COUNT)), COUNT, idle=idle)
        ids = [one.sandbox_id for one in made]
        with_many = measured(f"a minute with {COUNT} idle ones (whole, not each)", lambda: time.sleep(60), 1, settle=0)
        measured("list of all", lambda: [platform.listed() for _ in range(COUNT)], COUNT, idle=with_many)
        for one in made:
            one.files.write("/home/user/index.html", "x")
        made[0].commands.run("python3 -m http.server 8000 --bind 127.0.0.1", background=True, cwd="/home/user")
        time.sleep(2)
        measured("request to a port", lambda: [platform.port_of(ids[0], 8000) for _ in range(10 * COUNT)],
                 10 * COUNT, idle=with_many)
        measured("set_timeout", lambda: [one.set_timeout(900) for one in made], COUNT, idle=with_many)
        measured("pause", lambda: [one.pause() for one in made], COUNT, idle=with_many)
        measured("resume (connect)", lambda: [platform.connect(id) for id in ids], COUNT, idle=with_many)
        measured("kill", lambda: [platform.kill(id) for id in ids], COUNT, idle=idle)
        measured("kill of one that is gone", lambda: [platform.kill(id) for id in ids], COUNT, idle=idle)
    finally:
        platform.close()
