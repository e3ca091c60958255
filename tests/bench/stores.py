"""Starts two platforms, one with PostgreSQL and Redis of its own, and has `casemate bench` compare them.

    CASEMATE=PROGRAM CASEMATE_TEST_BASE=BASE PYTHONPATH=tests/platform PYTHON tests/bench/stores.py [TURNS]
"""

import subprocess
import sys

import servers
from instance import CASEMATE, Instance, bare_environment

TURNS = sys.argv[1] if len(sys.argv) > 1 else "16"

with servers.Postgres() as postgres, servers.Redis() as redis:
    alone = Instance("stores-alone")
    beside = Instance("stores-beside", **postgres.database("stores"), **redis.settings)
    try:
        for platform in (alone, beside):
            platform.up()
        command = [CASEMATE, "bench", "--only", "stores", "--count", TURNS, "--data-dir", alone.data_dir]
        command += ["--beside", beside.data_dir]
        for server in (postgres, redis):
            command += ["--beside-process", str(server.process.pid)]
        subprocess.run(command, check=True, env=bare_environment())
    finally:
        alone.close()
        beside.close()
