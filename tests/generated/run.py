"""A run: workers, what they learn, what is counted, and the report."""

import asyncio
import collections
import functools
import itertools
import json
import random
import re
import shlex
import time

import agent
import edge
import frames
import host
from judge import Judge, is_success
from orders import Orders
from rest import Rest
from wire import Connection
from world import Sandbox, World

# How often each kind is generated; an order is some ten requests.
WEIGHTS = {"rest": 44, "agent": 42, "edge": 4, "raw": 6, "frames": 3, "orders": 0.7}
# Of each kind of fault.
FAULTS_SHOWN = 3
SUCCESS_MIN = 0.2


class Run:
    def __init__(self, instance, seed, count, workers=16, replays=None):
        self.instance, self.seed, self.count, self.workers = instance, seed, count, workers
        self.world = World(instance)
        self.replays = replays
        self.indexes = itertools.count()
        self.asked = 0
        self.faults = []
        self.statuses = collections.defaultdict(collections.Counter)
        self.kinds = collections.defaultdict(collections.Counter)
        self.slowest = []

    async def run(self):
        self.parts = self.long_lived()
        memory = self.memory()
        await self.world.prepare()
        self.rest = Rest(await self.world.call("GET", "/openapi.json", {}))
        self.judge = Judge(self.world, self.rest)
        begun = time.monotonic()
        workers = [asyncio.ensure_future(self.work()) for _ in range(self.workers)]
        await asyncio.gather(*workers)
        seconds = time.monotonic() - begun
        await self.finish()
        return self.report(seconds, memory)

    async def work(self):
        connection = Connection(self.world.port)
        while self.asked < self.count:
            index = next(self.indexes)
            rng = random.Random(f"{self.seed}:{index}")
            await self.world.tidy()
            await self.one(rng, index, connection)
        connection.close()

    async def one(self, rng, index, connection):
        kind = rng.choices(list(WEIGHTS), WEIGHTS.values())[0]
        if index < self.rest.size():
            kind = "rest"
        if kind == "orders":
            ask = functools.partial(self.ask_alone, index)
            await Orders(rng, self.world, ask, functools.partial(self.fault, index)).run()
            return
        work = {
            "rest": lambda: self.rest.generate(rng, self.world, index),
            "agent": lambda: agent.generate(rng, self.world),
            "edge": lambda: edge.routing(rng, self.world),
            "raw": lambda: edge.raw(rng, self.world),
            "frames": lambda: frames.generate(rng, self.world),
        }[kind]()
        if kind == "raw":
            answer = await edge.run(work, self.world.port)
        elif kind == "frames":
            answer = await frames.run(work, self.world.port)
        else:
            if rng.random() < 0.2:
                connection.close()
            answer = await connection.ask(work.pieces, work.method, work.stay)
        await self.judged(index, work, answer)

    async def ask_alone(self, index, work):
        connection = Connection(self.world.port)
        answer = await connection.ask(work.pieces, work.method, work.stay)
        connection.close()
        await self.judged(index, work, answer)
        return answer

    async def judged(self, index, work, answer):
        self.asked += 1
        if work.sandbox and work.sandbox.anchor:
            assert not work.proper, f"request {index} may change what is to stay"
        self.learn(work, answer)
        if wrong := await self.judge(work, answer):
            self.fault(index, work, answer, wrong)
        status = answer.status or answer.ended
        self.statuses[work.operation][status] += 1
        if work.facts.get("failed"):
            status = f"{status}, failed at its end"
        self.kinds[work.kind]["2xx" if is_success(work, answer) else status] += 1
        if answer.seconds > 1 and work.stay is None:
            self.slowest = sorted(
                [*self.slowest, (answer.seconds, work.operation, status)],
                reverse=True,
                key=lambda s: s[0],
            )[:10]

    def learn(self, work, answer):
        """What later requests can use."""
        team = work.team
        if team is None:
            return
        if token := answer.header("x-next-token"):
            team.cursors.append(token)
        if work.operation in ("POST /sandboxes", "POST /v2/sandboxes") and answer.status == 201:
            told = json.loads(answer.body)
            if told["sandboxID"].encode() not in self.world.owner_of:
                sandbox = Sandbox(
                    told["sandboxID"], told["envdAccessToken"], team, kept=work.kind == "orders"
                )
                work.facts["made"] = self.world.add(sandbox)
        elif work.operation == "POST /sandboxes/{sandboxID}/fork" and answer.status == 201:
            for fork in json.loads(answer.body):
                told = fork.get("sandbox")
                if told and told["sandboxID"].encode() not in self.world.owner_of:
                    self.world.add(Sandbox(told["sandboxID"], told["envdAccessToken"], team))
        elif work.operation == "POST /sandboxes/{sandboxID}/pause" and answer.status == 204:
            for sandbox in [s for s in team.live if s.id.encode() in work.raw]:
                self.world.rests(sandbox)
        elif work.operation.endswith("api-keys") and answer.status == 201:
            team.key_ids.append(json.loads(answer.body)["id"])
        elif work.operation == "DELETE /sandboxes/{sandboxID}" and answer.status == 204:
            for sandbox in [s for s in team.live if s.id.encode() in work.raw]:
                self.world.ended(sandbox)

    def fault(self, index, work, answer, wrong):
        """A line that says what was wrong, and a file with the bytes to send again."""
        self.faults.append((wrong, work.operation))
        if self.faults.count((wrong, work.operation)) > FAULTS_SHOWN:
            return
        path = self.replays / f"{self.seed}-{index}-{len(self.faults)}.request"
        path.write_bytes(work.raw)
        told = f"{answer.status} {answer.ended} {answer.seconds:.2f} s {answer.body[:300]!r}"
        print(f"FAULT {index} {work.operation}: {wrong}; {told}")
        again = f"nc -q 11 127.0.0.1 {self.world.port} <{shlex.quote(str(path))}"
        print(f"      {again}  # {work.raw[:700]!r}", flush=True)

    async def finish(self):
        """What only shows at the end."""
        for team in (self.world.a, self.world.b):
            mark = "GET", "/files?path=/home/user/mark"
            if not await self.world.is_there(team.anchor):
                self.faults.append((f"the sandbox of team {team.name} that nobody may touch is gone", ""))
            elif await self.world.shown(team.anchor) != team.anchored:
                self.faults.append((f"the sandbox of team {team.name} was changed", ""))
            elif await self.world.call_agent(team.anchor, *mark) != team.marker.encode():
                self.faults.append((f"a file of team {team.name} was changed", ""))
        for team in self.world.teams:
            for sandbox in [*team.live, *filter(None, [team.anchor])]:
                await self.world.end(sandbox)
            # What was made while its answer did not come to us, a page at a time.
            for _ in range(10):
                listed = await self.world.call("GET", "/v2/sandboxes", {"X-API-Key": team.key})
                for row in listed:
                    await self.world.call(
                        "DELETE", f"/sandboxes/{row['sandboxID']}", {"X-API-Key": team.key}
                    )
            if listed:
                self.faults.append((f"sandboxes of team {team.name} cannot be ended", ""))
        self.ends = await self.world.ends()
        self.faults += [(lost, "") for lost in self.world.lost]
        log = self.instance.said()
        self.faults += [
            (line[:300], "log") for line in log.splitlines() if re.search("panic", line, re.I)
        ]
        self.errors = collections.Counter(
            re.sub(r"[a-z0-9-]{20,}|\d+", "…", line.split(" ERROR ", 1)[1])[:160]
            for line in log.splitlines()
            if " ERROR " in line
        )
        if self.long_lived() != self.parts:
            self.faults.append((f"processes were {self.parts}, are {self.long_lived()}", ""))
        hit = {name for name, counts in self.statuses.items() if counts}
        self.unhit = sorted((self.rest.operations() | agent.operations()) - hit)

    def long_lived(self):
        """Processes that must not change; launchers have workers, each for one create."""
        roles = self.instance.processes()
        return {pid: roles[pid] for pid in host.children(self.instance.pid) if pid in roles}

    def memory(self):
        """Of each role, in MiB."""
        found = collections.Counter()
        for pid, role in self.instance.processes().items():
            found[role] += host.resident_mib([pid])
        return found

    def report(self, seconds, memory):
        after = self.memory()
        succeeded = sum(counts["2xx"] for counts in self.kinds.values())
        return {
            "seed": self.seed,
            "requests": self.asked,
            "seconds": round(seconds),
            "success_share": round(succeeded / max(1, self.asked), 3),
            "sandboxes": self.world.made,
            "ends": self.ends,
            "faults": len(self.faults),
            "fault_kinds": dict(
                collections.Counter(
                    f"{wrong} {operation}".strip() for wrong, operation in self.faults
                )
            ),
            "operations": len(self.statuses),
            "unhit": self.unhit,
            "kinds": {kind: plain(counts) for kind, counts in self.kinds.items()},
            "demanded_5xx": dict(self.judge.demanded),
            "log_errors": dict(self.errors),
            "slowest": [(round(s, 2), operation, status) for s, operation, status in self.slowest],
            "memory_mib": {role: [round(memory[role]), round(after[role])] for role in memory},
            "statuses": {name: plain(counts) for name, counts in sorted(self.statuses.items())},
        }


def plain(counts):
    return {str(status): counts[status] for status in sorted(counts, key=str)}


def listed(counts):
    return ", ".join(f"{status} {count}" for status, count in counts.items())


def shown(report):
    """For people; the result is the last line."""
    for name, counts in report["statuses"].items():
        yield f"{name}: {listed(counts)}"
    for name, count in sorted(report["demanded_5xx"].items()):
        yield f"demanded {count}: {name}"
    for name, count in report["log_errors"].items():
        yield f"in the log {count}: {name}"
    for name, count in report["fault_kinds"].items():
        yield f"fault {count}: {name}"
    for kind, counts in report["kinds"].items():
        yield f"{kind}, {sum(counts.values())}: {listed(counts)}"
    for seconds, operation, status in report["slowest"][:3]:
        yield f"slow: {seconds} s, {operation}, {status}"
    yield f"operations: {report['operations']}, never asked: {', '.join(report['unhit']) or 'none'}"
    memory = ", ".join(
        f"{role} {before} → {after}" for role, (before, after) in report["memory_mib"].items()
    )
    yield f"memory of the platform's processes, MiB: {memory}"
    yield f"sandboxes made {report['sandboxes']}, ends {report['ends']}"
    yield (
        f"{report['requests']} requests in {report['seconds']} s, seed {report['seed']}, "
        f"{report['success_share']:.1%} answered 2xx, {report['faults']} faults"
    )


def verdict(report):
    """Why the run failed; nothing where it did not."""
    if report["faults"]:
        yield f"{report['faults']} faults"
    if report["success_share"] < SUCCESS_MIN:
        yield "too few answers are 2xx"
    if report["unhit"]:
        yield f"never asked: {report['unhit']}"
