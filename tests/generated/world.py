"""Who asks, and what there is to ask about: teams, their keys, their sandboxes."""

import asyncio
import collections
import contextlib
import dataclasses
import datetime
import json
import re
import secrets
import sqlite3
import time
import uuid
from urllib.parse import unquote_to_bytes

import host
from wire import Connection, envelope, envelopes, head

# Sandboxes of a team at once: those that requests made, and those that we made for them.
LIVE_MAX = 4
SETTLED = 2
# Requests into one of ours, until it makes room for a fresh one.
USES_MAX = 800
# Processes that go on: one that reads, one with a terminal, one that does neither.
LASTING = [
    {"process": {"cmd": "cat"}, "tag": "cat"},
    {"process": {"cmd": "cat"}, "tag": "terminal", "pty": {"size": {"cols": 80, "rows": 24}}},
    {"process": {"cmd": "sleep", "args": ["7200"]}, "tag": "sleep"},
]
SANDBOX_ID = re.compile(rb"\bi[a-z0-9]{20}\b")
TOKEN = re.compile(rb"\b[0-9a-f]{64}\b")
DEFAULT_HOST = ("Host", "api.local")


@dataclasses.dataclass(eq=False)
class Sandbox:
    id: str
    token: str
    team: "Team"
    # Nobody may change it.
    anchor: bool = False
    # One story's alone.
    kept: bool = False
    # Ours, with files in it, and used for long.
    settled: bool = False
    uses: int = 0
    pids: collections.deque = dataclasses.field(default_factory=lambda: collections.deque([1], 8))
    watchers: collections.deque = dataclasses.field(
        default_factory=lambda: collections.deque(["w"], 8)
    )
    # Of processes that are not to be ended.
    lasting: list = dataclasses.field(default_factory=lambda: [1])
    # The agent's process, as the host sees it.
    agent: int = 0
    # Once a start from files had another agent.
    made: float = dataclasses.field(default_factory=time.time)


class Team:
    def __init__(self, name, id, key=""):
        self.name, self.id, self.key = name, id, key
        self.marker = f"marker-{secrets.token_hex(12)}"
        self.live, self.dead = [], collections.deque([], 50)
        self.key_ids = collections.deque([str(uuid.uuid4())], 20)
        self.cursors = collections.deque(["x"], 20)
        # The one that nobody may change, and how it was.
        self.anchor, self.anchored = None, None
        self.making = 0

    def any(self, rng):
        """A sandbox that runs, mostly one with a history."""
        settled = [sandbox for sandbox in self.live if sandbox.settled]
        chosen = rng.choice(settled if settled and rng.random() < 0.8 else self.live)
        chosen.uses += 1
        return chosen


class World:
    def __init__(self, instance):
        self.instance = instance
        self.port = instance.port
        told = instance.credentials()
        self.access_token = told["E2B_ACCESS_TOKEN"]
        self.admin_token = (instance.data_dir / "secrets/admin_token").read_text().strip()
        self.a = Team("a", told["CASEMATE_INTERNAL_TEAM_ID"], told["E2B_API_KEY"])
        self.b, self.c = Team("b", str(uuid.uuid4())), Team("c", str(uuid.uuid4()))
        self.teams = [self.a, self.b, self.c]
        self.owner_of, self.owner_of_token = {}, {}
        self.made, self.lost = 0, []
        self.node = "node"

    async def prepare(self):
        """Two more teams beside the installation's own, and a sandbox of each that stays."""
        store = self.instance.data_dir / "control/store.sqlite"
        with sqlite3.connect(store, timeout=10) as rows:
            for team in (self.b, self.c):
                row = (team.id, f"team-{team.id[:8]}", team.name, "good", time.time_ns() // 1000)
                columns = "id, slug, name, standing, created_at"
                rows.execute(f"INSERT INTO teams ({columns}) VALUES (?, ?, ?, ?, ?)", row)
        admin = {"X-Admin-Token": self.admin_token}
        for team in (self.b, self.c):
            made = await self.call(
                "POST", f"/admin/teams/{team.id}/api-keys", admin, {"name": "main"}
            )
            team.key = made["key"]
        self.node = (await self.call("GET", "/nodes", admin))[0]["id"]
        # Team c's are ended by the administrator now and then.
        for team in (self.a, self.b):
            team.anchor = await self.make(team, anchor=True)
            team.anchored = await self.shown(team.anchor)

    async def call(self, method, path, headers, body=None):
        """A plain request of our own; not one of those that are judged."""
        raw = b"" if body is None else json.dumps(body).encode()
        pairs = [DEFAULT_HOST, *headers.items(), ("Content-Length", str(len(raw)))]
        connection = Connection(self.port)
        answer = await connection.ask([head(method, path, pairs) + raw], method)
        connection.close()
        if answer.ended != "whole" or answer.status >= 300:
            raise RuntimeError(
                f"{method} {path}: {answer.status} {answer.ended} {answer.body[:300]}"
            )
        return json.loads(answer.body) if answer.body else None

    async def make(self, team, anchor=False):
        """A sandbox with the team's marker in everything that it can hold one in."""
        body = {
            "templateID": "base",
            "timeout": 7200,
            "metadata": {"mark": team.marker},
            "envVars": {"MARK": team.marker},
        }
        answer = await self.call("POST", "/v2/sandboxes", {"X-API-Key": team.key}, body)
        sandbox = Sandbox(
            answer["sandboxID"], answer["envdAccessToken"], team, anchor=anchor, settled=not anchor
        )
        await self.call_agent(sandbox, "POST", "/files?path=/home/user/mark", team.marker)
        for name in ("big", "untouched"):
            await self.call_agent(sandbox, "POST", f"/files?path=/home/user/{name}", "0123456789" * 30_000)
        sandbox.lasting = [await self.start(sandbox, asked) for asked in LASTING]
        sandbox.agent = await asyncio.to_thread(self.agent_of, sandbox)
        return self.add(sandbox)

    async def call_agent(self, sandbox, method, path, body=""):
        headers = self.to_agent(sandbox)
        headers["Content-Type"] = "application/octet-stream"
        raw = body.encode()
        pairs = [("Host", "127.0.0.1"), *headers.items(), ("Content-Length", str(len(raw)))]
        connection = Connection(self.port)
        answer = await connection.ask([head(method, path, pairs) + raw], method)
        connection.close()
        if answer.ended != "whole" or answer.status >= 300:
            raise RuntimeError(
                f"{method} {path}: {answer.status} {answer.ended} {answer.body[:300]}"
            )
        return answer.text

    async def start(self, sandbox, asked):
        """Starts a process and leaves it; its id."""
        raw = envelope(json.dumps(asked).encode())
        pairs = [("Host", "localhost"), *self.to_agent(sandbox).items()]
        pairs += [("Content-Type", "application/connect+json"), ("Content-Length", str(len(raw)))]
        asking = [head("POST", "/process.Process/Start", pairs) + raw]
        answer = await Connection(self.port).ask(asking, "POST", stay=0)
        for _, payload in envelopes(answer.body):
            if b'"pid"' not in payload:
                break
            return json.loads(payload)["event"]["start"]["pid"]
        raise RuntimeError(f"start: {answer.status} {answer.ended} {answer.body[:300]}")

    async def shown(self, sandbox):
        path, key = f"/sandboxes/{sandbox.id}", {"X-API-Key": sandbox.team.key}
        return await self.call("GET", path, key)

    def to_agent(self, sandbox):
        return {
            "E2b-Sandbox-Id": sandbox.id,
            "E2b-Sandbox-Port": "49983",
            "X-Access-Token": sandbox.token,
        }

    def agent_of(self, sandbox):
        """The first child of the sandbox's first process."""
        first = int(self.instance.record(sandbox.id)["facts"]["pid"])
        return min(host.children(first), default=0)

    def add(self, sandbox):
        self.owner_of[sandbox.id.encode()] = sandbox.team
        self.owner_of_token[sandbox.token.encode()] = sandbox.team
        self.made += 1
        if not sandbox.anchor and not sandbox.kept:
            sandbox.team.live.append(sandbox)
        return sandbox

    def ended(self, sandbox):
        if sandbox in sandbox.team.live:
            sandbox.team.live.remove(sandbox)
            sandbox.team.dead.append(sandbox.id)

    async def tidy(self):
        """Leaves each team with sandboxes to ask about, and not too many."""
        for team in self.teams:
            await self.tidy_one(team)
        while not (self.a.live and self.b.live):
            await asyncio.sleep(0.01)
            await self.tidy_one(self.a)
            await self.tidy_one(self.b)

    async def tidy_one(self, team):
        """Ends the oldest while there are too many, and makes what is missing."""
        made = [sandbox for sandbox in team.live if not sandbox.settled]
        used = [sandbox for sandbox in team.live if sandbox.uses > USES_MAX]
        for sandbox in [*made[: max(0, len(made) - LIVE_MAX)], *used]:
            self.ended(sandbox)
            await self.end(sandbox)
        if sum(sandbox.settled for sandbox in team.live) + team.making < SETTLED:
            team.making += 1
            # Team c's may be ended at any moment.
            with contextlib.suppress(*([RuntimeError, OSError] if team is self.c else [])):
                await self.make(team)
            team.making -= 1

    async def end(self, sandbox):
        if (
            sandbox.agent
            and not host.read(f"/proc/{sandbox.agent}/stat")
            and await self.is_there(sandbox, sandbox.made)
        ):
            self.lost.append(f"the agent of {sandbox.id} died")
        try:
            await self.call("DELETE", f"/sandboxes/{sandbox.id}", {"X-API-Key": sandbox.team.key})
        except RuntimeError as error:
            if ": 404 " not in str(error):
                raise

    async def is_there(self, sandbox, since=None):
        """Whether it runs and goes on running, as its owner sees it, and did so since that time of
        day: some are just being ended, or were paused and resumed meanwhile."""
        for _ in range(20):
            try:
                shown = await self.shown(sandbox)
            except RuntimeError as error:
                if ": 404 " not in str(error):
                    raise
                self.ended(sandbox)
                return False
            if shown["state"] == "paused":
                self.rests(sandbox)
                return False
            if since and datetime.datetime.fromisoformat(shown["startedAt"]).timestamp() > since:
                return False
            await asyncio.sleep(0.1)
        return True

    def rests(self, sandbox):
        """It is still asked about; a fresh one takes its place."""
        sandbox.settled = False

    async def ends(self):
        """Why our sandboxes ended, counted; those that nobody ended are lost. The history hears of
        them a moment later."""
        for _ in range(50):
            counts, lost = await self.count_ends()
            if sum(counts.values()) >= len(self.owner_of):
                break
            await asyncio.sleep(0.1)
        self.lost += lost
        return dict(counts)

    async def count_ends(self):
        counts, lost = collections.Counter(), []
        for team in self.teams:
            offset = 0
            while True:
                path = f"/events/sandboxes?limit=100&offset={offset}"
                page = await self.call("GET", path, {"X-API-Key": team.key})
                for event in page:
                    ours = event["sandbox_id"].encode() in self.owner_of
                    if ours and event["type"] == "sandbox.lifecycle.killed":
                        reason = (event["event_data"] or {}).get("reason")
                        counts[reason] += 1
                        if reason not in ("killed", "expired"):
                            lost.append(f"{event['sandbox_id']} ended: {reason}")
                if len(page) < 100:
                    break
                offset += 100
        return counts, lost

    def strangers_in(self, body, request, team):
        """What `team` (none: a stranger) must not read: others' markers, ids and tokens that were
        not in its own question."""
        request = unquote_to_bytes(unquote_to_bytes(request)).lower()
        for other in self.teams:
            if other is not team:
                if other.marker.encode() in body:
                    return f"marker of team {other.name}"
                if other.id.encode() in body and other.id.encode() not in request:
                    return f"id of team {other.name}"
        for found in SANDBOX_ID.findall(body):
            owner = self.owner_of.get(found, team)
            if owner is not team and found not in request:
                return f"sandbox id of team {owner.name}"
        for found in TOKEN.findall(body):
            owner = self.owner_of_token.get(found, team)
            if owner is not team and found not in request:
                return f"token of team {owner.name}"
        return None
