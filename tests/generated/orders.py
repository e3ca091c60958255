"""Requests whose order is the point: ending what is used, using what ended."""

import asyncio
import json

import agent
import values
from values import word
from wire import envelope, head
from work import Work


def rest(operation, team, path, body=None, more=()):
    method, _ = operation.split(" ")
    work = Work("orders", operation, method, team=team, proper=True)
    work.facts["kind"] = "served"
    raw = b"" if body is None else values.written(body)
    headers = [
        ("Host", "api.local"),
        ("X-API-Key", team.key),
        ("Content-Length", str(len(raw))),
        *more,
    ]
    work.pieces = [head(method, path, headers) + raw]
    return work


def on(operation, sandbox, body=None):
    path = operation.split(" ")[1].replace("{sandboxID}", sandbox.id)
    return rest(operation, sandbox.team, path, body)


def rpc(sandbox, name, body, stay=None, timeout=None):
    path = next(path for path in agent.MESSAGES.rpcs if path.endswith(f"/{name}"))
    streams = any(agent.MESSAGES.rpcs[path][1:])
    work = Work("orders", f"POST {path}", "POST", team=sandbox.team, proper=True, sandbox=sandbox)
    work.stay = stay
    work.facts.update(streams=streams, name=name, timeout=timeout)
    raw = values.written(body)
    raw = envelope(raw) if streams else raw
    kind = "application/connect+json" if streams else "application/json"
    headers = [
        ("Host", "localhost"), ("E2b-Sandbox-Id", sandbox.id), ("E2b-Sandbox-Port", "49983"),
        ("X-Access-Token", sandbox.token), ("Content-Type", kind),
        ("Content-Length", str(len(raw))),
    ]
    if timeout:
        headers.append(("Connect-Timeout-Ms", timeout))
    work.pieces = [head("POST", path, headers) + raw]
    return work


def upload(sandbox, pieces):
    work = Work("orders", "POST /files", "POST", team=sandbox.team, proper=True, sandbox=sandbox)
    size = str(sum(len(piece) for piece in pieces))
    headers = [
        ("Host", "localhost"), ("E2b-Sandbox-Id", sandbox.id), ("E2b-Sandbox-Port", "49983"),
        ("X-Access-Token", sandbox.token), ("Content-Type", "application/octet-stream"),
        ("Content-Length", size),
    ]
    work.pieces = [head("POST", "/files?path=f0", headers), *pieces]
    return work


def sleeping(seconds):
    return {"process": {"cmd": "sleep", "args": [str(seconds)]}}


class Orders:
    """`ask` sends one piece of work and has it judged; `fault` notes what a judge of single answers
    cannot see."""

    def __init__(self, rng, world, ask, fault):
        self.rng, self.world, self.ask, self.fault = rng, world, ask, fault
        self.team = rng.choice([world.a, world.b])

    async def run(self):
        story = self.rng.choice(
            [
                self.killed_while_streaming, self.killed_twice, self.ended_by_time, self.made_once,
                self.killed_while_uploading, self.all_readers_hear_the_end,
                self.changed_while_ending, self.watched_and_removed,
            ]
        )
        await story()

    async def new(self, more=()):
        body = {"templateID": "base", "timeout": 120, "metadata": {"mark": self.team.marker}}
        work = rest("POST /v2/sandboxes", self.team, "/v2/sandboxes", body, more)
        await self.ask(work)
        return work.facts.get("made")

    async def afterwards(self, sandbox):
        """Nothing of an ended sandbox is there any more."""
        expected = {
            "GET /sandboxes/{sandboxID}": (404,),
            "POST /v2/sandboxes/{sandboxID}/connect": (404,),
            "POST /sandboxes/{sandboxID}/timeout": (404,),
            "DELETE /sandboxes/{sandboxID}": (404,),
        }
        bodies = {
            "POST /v2/sandboxes/{sandboxID}/connect": {},
            "POST /sandboxes/{sandboxID}/timeout": {"timeout": 9},
        }
        for operation, statuses in expected.items():
            work = on(operation, sandbox, bodies.get(operation))
            answer = await self.ask(work)
            if answer.status not in statuses:
                self.fault(work, answer, "an ended sandbox answers")
        work = rpc(sandbox, "List", {})
        answer = await self.ask(work)
        if answer.status != 502:
            self.fault(work, answer, "the agent of an ended sandbox answers")

    async def kill(self, sandbox):
        return await self.ask(on("DELETE /sandboxes/{sandboxID}", sandbox))

    async def killed_while_streaming(self):
        if sandbox := await self.new():
            stream = asyncio.ensure_future(self.ask(rpc(sandbox, "Start", sleeping(60), stay=8)))
            watch = asyncio.ensure_future(
                self.ask(rpc(sandbox, "WatchDir", {"path": "/tmp"}, stay=8))
            )
            await asyncio.sleep(self.rng.choice([0, 0.01, 0.2]))
            await self.kill(sandbox)
            for ended in (await stream, await watch):
                if ended.ended in ("left", "late"):
                    self.fault(rpc(sandbox, "Start", {}), ended, "a stream outlives its sandbox")
            await self.afterwards(sandbox)

    async def killed_twice(self):
        if sandbox := await self.new():
            answers = await asyncio.gather(
                *(self.kill(sandbox) for _ in range(self.rng.choice([2, 4])))
            )
            if 204 not in [answer.status for answer in answers]:
                self.fault(
                    on("DELETE /sandboxes/{sandboxID}", sandbox),
                    answers[0],
                    "no kill was told that it worked",
                )
            await self.afterwards(sandbox)

    async def ended_by_time(self):
        if sandbox := await self.new():
            seconds = self.rng.choice([0, 0, 1])
            await self.ask(on("POST /sandboxes/{sandboxID}/timeout", sandbox, {"timeout": seconds}))
            await asyncio.sleep(seconds + 0.5)
            await self.afterwards(sandbox)

    async def made_once(self):
        key = [("Idempotency-Key", word(self.rng, 20))]
        body = {"templateID": "base", "timeout": 60}
        asks = [rest("POST /v2/sandboxes", self.team, "/v2/sandboxes", body, key) for _ in range(3)]
        first = await asyncio.gather(*(self.ask(work) for work in asks[:2]))
        answers = [*first, await self.ask(asks[2])]
        made = {json.loads(a.body)["sandboxID"] for a in answers if a.status == 201}
        if len(made) != 1:
            self.fault(asks[2], answers[2], f"one key made {len(made)} sandboxes")
        other = rest("POST /v2/sandboxes", self.team, "/v2/sandboxes", body | {"timeout": 61}, key)
        if (answer := await self.ask(other)).status != 422:
            self.fault(other, answer, "another body under the same key")
        for sandbox in filter(None, [work.facts.get("made") for work in asks]):
            await self.kill(sandbox)

    async def killed_while_uploading(self):
        if sandbox := await self.new():
            work = upload(sandbox, [b"x" * 100_000 for _ in range(10)])
            sending = asyncio.ensure_future(self.ask(work))
            await asyncio.sleep(0.05)
            await self.kill(sandbox)
            await sending
            await self.afterwards(sandbox)

    async def all_readers_hear_the_end(self):
        if sandbox := await self.new():
            tag = word(self.rng)
            first = asyncio.ensure_future(
                self.ask(rpc(sandbox, "Start", {**sleeping(60), "tag": tag}, stay=8))
            )
            for _ in range(30):
                if tag.encode() in (await self.ask(rpc(sandbox, "List", {}))).body:
                    break
                await asyncio.sleep(0.1)
            chosen = {"process": {"tag": tag}}
            readers = [
                asyncio.ensure_future(self.ask(rpc(sandbox, "Connect", chosen, stay=8)))
                for _ in range(4)
            ]
            await asyncio.sleep(0.2)
            await self.ask(rpc(sandbox, "SendSignal", {**chosen, "signal": "SIGNAL_SIGKILL"}))
            for ended in [await first, *[await reader for reader in readers]]:
                if ended.ended != "whole":
                    self.fault(
                        rpc(sandbox, "Connect", chosen),
                        ended,
                        "a reader misses the end of a killed process",
                    )
            await self.ask(rpc(sandbox, "SendSignal", {**chosen, "signal": "SIGNAL_SIGKILL"}))
            await self.kill(sandbox)

    async def changed_while_ending(self):
        if sandbox := await self.new():
            changes = [
                on("PUT /sandboxes/{sandboxID}/network", sandbox, {"denyOut": ["1.1.1.1"]}),
                on("POST /sandboxes/{sandboxID}/timeout", sandbox, {"timeout": 300}),
                on("POST /sandboxes/{sandboxID}/refreshes", sandbox, {"duration": 60}),
                on("POST /v2/sandboxes/{sandboxID}/connect", sandbox, {"timeout": 300}),
                on("DELETE /sandboxes/{sandboxID}", sandbox),
            ]
            self.rng.shuffle(changes)
            await asyncio.gather(*(self.ask(work) for work in changes))
            await self.kill(sandbox)
            await self.afterwards(sandbox)

    async def watched_and_removed(self):
        if sandbox := await self.new():
            await self.ask(rpc(sandbox, "MakeDir", {"path": "/tmp/w"}))
            made = await self.ask(
                rpc(sandbox, "CreateWatcher", {"path": "/tmp/w", "recursive": True})
            )
            await self.ask(rpc(sandbox, "MakeDir", {"path": "/tmp/w/a/b"}))
            await self.ask(rpc(sandbox, "Remove", {"path": "/tmp/w"}))
            if made.status == 200:
                id = {"watcherId": json.loads(made.body)["watcherId"]}
                for name in (
                    "GetWatcherEvents",
                    "RemoveWatcher",
                    "GetWatcherEvents",
                    "RemoveWatcher",
                ):
                    await self.ask(rpc(sandbox, name, id))
            await self.kill(sandbox)
