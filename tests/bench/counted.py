"""PostgreSQL that counts what it is asked, and what Redis was asked."""

import re
import subprocess

import servers

# What belongs to the history, by its tables.
PAST = re.compile(r"\b(subjects|young_samples|sample_chunks|team_points|events|logs|build_logs|build_subjects|sizes)\b")


class Counted(servers.Postgres):
    def command(self):
        return [*super().command(), "-c", "shared_preload_libraries=pg_stat_statements",
                "-c", "pg_stat_statements.track=top", "-c", "autovacuum=off"]

    def statements(self, database):
        """Of our user's since the reset: store and history apart, as calls and bytes of the log."""
        text = "SELECT calls, wal_bytes, replace(replace(query, chr(10), ' '), '|', ' ') FROM pg_stat_statements s " \
               f"JOIN pg_database d ON d.oid = s.dbid WHERE d.datname = '{database}'"
        found = {"store": [0, 0], "history": [0, 0]}
        self.seen = []
        for line in self.sql(text, "postgres"):
            calls, wal, query = line.split("|", 2)
            of = "history" if PAST.search(query) else "store"
            found[of][0] += int(calls)
            found[of][1] += int(wal)
            self.seen.append((int(calls), of, query))
        return found

    def wire(self):
        """Bytes that connections of the platform sent and received, by the kernel's count."""
        ran = subprocess.run(["ss", "-tinH", "dport", "=", f":{self.port}"], capture_output=True, text=True).stdout
        total = lambda name: sum(int(n) for n in re.findall(rf"\b{name}:(\d+)", ran))
        return total("bytes_sent") + total("bytes_received")


def redis_commands(redis):
    lines = redis.call("INFO", "commandstats")
    counts = {}
    for line in lines:
        found = re.match(r"cmdstat_([^:]+):calls=(\d+)", line)
        if found and found[1] not in ("info", "config|resetstat", "auth"):
            counts[found[1]] = int(found[2])
    return counts
