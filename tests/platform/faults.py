"""A cluster under load, of which one part after the other is killed, stopped, slowed, cut or filled.

    python faults.py [--minutes N] [--seed S] [--only NAME…] [--beside PROGRAM]

Each fault is held for some seconds and ended; then the cluster has to be whole, and everything that
clients were told has to be so (`ledger.py`). While it lasts they hear errors after which one may ask
again, and no others. `scripts/cluster-faults` runs it by hand, `test_faults.py` in short.
"""

import argparse
import collections
import contextlib
import json
import random
import re
import signal
import sys
import time
from concurrent.futures import ThreadPoolExecutor

import e2b

import host
from clock import Clock
from cluster import Api, Node
from demo import Demo
from disturbances import FAULTS, release_changed
from edges import Edge
from ledger import Ledger, asked_until_told
from load import LIFE, REQUEST, Client, Witness
from proxies import Ways

# Who answered a client what: a status without the time of an answer's head is nginx's own.
TOLD = "$request_method $uri|$status|$upstream_header_time|$sent_http_should_retry"


# Where there is another release.
RELEASES = {"release changed": release_changed}


class Reached:
    """An API server, as one member reaches it."""

    def __init__(self, way):
        self.address = f"127.0.0.1:{way.port}"


class World(Demo):
    """The demo's cluster with ways of ours between its members, and clocks of ours in two of them."""

    name = "faults"
    room_mib = 256

    def __init__(self, say, clients, seed, seconds, beside=None):
        super().__init__(say)
        self.beside = beside
        self.random = random.Random(seed)
        self.seconds = seconds
        self.ledger = Ledger(say)
        self.seeds = [f"{seed} {n}" for n in range(clients)]
        self.clients, self.witnesses, self.faults, self.touched = [], [], collections.Counter(), []

    # Its parts.

    def servers(self):
        self.database_clock = self.opened.enter_context(contextlib.closing(Clock()))
        self.ways = self.opened.enter_context(contextlib.closing(Ways()))
        super().servers()
        self.nginx.log_format = TOLD

    def way(self, server, settings):
        """Settings that lead to a server by a way of their own."""
        way = self.ways.to(server.port)
        return way, {name: re.sub(rf":{server.port}\b", f":{way.port}", value) for name, value in settings.items()}

    def members(self):
        database, of_database = self.way(self.postgres, self.postgres.database("faults"))
        redis, of_redis = self.way(self.redis, self.redis.settings)
        bucket, of_bucket = self.way(self.bucket, self.bucket.settings)
        self.ways_to = {"postgres": [database], "redis": [redis], "bucket": [bucket]}
        self.ways_of = {}
        self.clocks = [self.opened.enter_context(contextlib.closing(Clock())) for _ in range(2)]
        settings = {**of_database, **of_redis, **of_bucket, **self.public}
        self.apis = [Api(f"faults-a{n}", **settings) for n in (1, 2)]
        self.edges = [Edge(f"faults-e{n}", self.apis, **of_redis) for n in (1, 2)]
        self.nodes = [self.node(n) for n in (1, 2, 3)]
        by_clock = dict(zip((self.apis[0], self.nodes[0]), self.clocks))
        for member, clock in by_clock.items():
            member.program = str(clock.program)
        if self.beside:
            # They begin with it, and come to the present one by `release_changed`.
            self.others = {member: member.program for member in [*self.apis, *self.edges, *self.nodes]}
            for member in self.others:
                clock = by_clock.get(member)
                member.program = str(clock.over(self.beside, "beside")) if clock else self.beside

    def node(self, n):
        """All that it says and hears goes ways of its own."""
        bucket, settings = self.way(self.bucket, self.bucket.settings)
        calls = [self.ways.to(api.calls) for api in self.apis]
        node = Node(f"faults-n{n}", [Reached(way) for way in calls], **settings)
        gate = self.ways.to(node.port)
        node.reached = gate.port
        self.ways_to["bucket"].append(bucket)
        self.ways_of[node.name] = [gate, bucket, *calls]
        return node

    def up(self):
        super().up()
        others = []
        for _ in self.nodes:
            sandbox, home = self.create_beside("base", others)
            others.append(sandbox)
            sandbox.set_timeout(LIFE)
            self.witnesses.append(Witness(self.ledger, sandbox, home))
        self.clients = [Client(self.ledger, self.client, seed) for seed in self.seeds]
        for one in [*self.witnesses, *self.clients]:
            one.start()

    def whole(self):
        """All speak with all."""
        for api in self.apis:
            host.until("an API server is ready", lambda: api.get("/ready")[0] == 200, 120)
            connected = lambda: sum(node["connected"] for node in api.nodes().values())
            host.until("it speaks with all nodes", lambda: connected() == len(self.nodes), 120, 0.3)
        for edge in self.edges:
            ready = lambda: edge.get("/ready", edge.health)[0] == 200 and edge.figure("casemate_edge_nodes")
            host.until("an edge knows all nodes", lambda: ready() == len(self.nodes), 120)

    # What happens to it.

    def hold(self, times=1, touched=()):
        """For as long as a run says, and until all that is to be reached was."""
        self.touched = touched
        others = [one for one in self.witnesses if one.home not in touched]
        before = [one.reached for one in others]
        time.sleep(self.seconds * times)
        reached = lambda: all(one.reached > then for one, then in zip(others, before))
        host.until("sandboxes are reached meanwhile", reached, 60)

    def disturb(self, name):
        self.say(name)
        self.ledger.phase = name
        before = {one: one.counts() for one in self.witnesses}
        for client in self.clients:
            client.working.set()
        (FAULTS.get(name) or RELEASES[name])(self, self.hold)
        self.whole()
        self.faults[name] += 1
        self.ledger.phase = f"after {name}"
        self.settle()
        for witness in self.witnesses:
            self.reached(witness, before[witness], witness.home in self.touched)

    def reached(self, witness, before, touched):
        """Those that nothing was done to were reached all the time, and their streams stayed."""
        reached, missed, breaks, _ = (now - then for now, then in zip(witness.counts(), before))
        if touched:
            again = witness.counts()[0], witness.heard
            both = lambda: witness.counts()[0] > again[0] and witness.heard > again[1]
            host.until("a witness is reached and heard again", both, 120)
        elif missed or breaks:
            missing = f"reached {reached} times, missed {missed} times, its stream broke {breaks} times"
            self.ledger.found(f"the witness at {witness.home.name}: {missing}")

    def settle(self):
        for client in self.clients:
            client.working.clear()
        for client in self.clients:
            assert client.resting.wait(240), "a client does not come to rest"
        with ThreadPoolExecutor(len(self.clients)) as pool:
            list(pool.map(lambda client: client.settle(), self.clients))

    def end(self):
        """Nothing is left that nobody knows of."""
        self.ledger.phase = "at the end"
        for one in [*self.clients, *self.witnesses]:
            one.ended = True
        for client in self.clients:
            client.join(60)
            client.give_up()
        for witness in self.witnesses:
            if not witness.home.runs(witness.sandbox.sandbox_id):
                self.ledger.found(f"the witness at {witness.home.name} does not run")
            asked_until_told(self.ledger, "kill", lambda: witness.sandbox.kill(request_timeout=REQUEST))
        # Of creates whose end nobody waited for.
        late = set(asked_until_told(self.ledger, "list", self.clients[0].listed))
        for id in late:
            asked_until_told(self.ledger, "kill", lambda: e2b.Sandbox.kill(id, **self.client))
        self.ledger.done["create without an answer, ended at last"] += len(late)
        left = lambda: {id for node in self.nodes for id in node.journalled()}
        try:
            host.until("no node has a sandbox", lambda: not left(), 120, 0.5)
        except AssertionError:
            self.ledger.found(f"sandboxes that no client knows of are left at nodes: {left()}")

    def close(self):
        # Broken off: what they still hear is of our own making.
        for one in [*self.clients, *self.witnesses]:
            one.ended = True
        super().close()

    # What it was.

    def told(self):
        """How often clients were answered with which error, by whom, and how marked."""
        counted = collections.Counter()
        for line in (self.nginx.dir / "access.log").read_text().splitlines():
            asked, status, answered, retry = line.split("|")
            if int(status) >= 400:
                by = "nginx" if answered.endswith("-") else "casemate"
                asked = re.sub(r"\bi[0-9a-z]{12,}\b|[0-9a-f]{8}-[0-9a-f-]{27}|[0-9a-z]{20}(:default)?", "ID", asked)
                counted[f"{status} {by} {asked}" + ("" if retry == "-" else f" Should-Retry: {retry}")] += 1
        return counted

    def report(self):
        """Lines of a table each."""
        ledger = self.ledger
        lines = [f"{sum(self.faults.values())} faults, {len(ledger.findings)} findings"]
        lines += [f"{count:8}  {name}" for name, count in sorted(self.faults.items())]
        lines += ["", "answered as asked"]
        lines += [f"{count:8}  {what}" for what, count in sorted(ledger.done.items())]
        lines += ["", "errors that clients heard, by what they may do"]
        kinds = collections.Counter()
        for (_, kind), count in ledger.errors.items():
            kinds[kind] += count
        lines += [f"{count:8}  {kind}" for kind, count in kinds.most_common()]
        lines += ["", "errors as the load balancer saw them"]
        lines += [f"{count:8}  {what}" for what, count in self.told().most_common()]
        lines += ["", "witnesses: reached, missed, streams broken, answers that came late"]
        lines += ["{:8}  {}  {}  {}".format(*one.counts()) for one in self.witnesses]
        return lines + ["", "findings", *ledger.findings]

    def details(self):
        """What clients heard, by fault."""
        for phase, shapes in self.ledger.shapes.items():
            yield phase
            yield from (f"{count:8}  {shape}" for shape, count in shapes.most_common(12))


@contextlib.contextmanager
def world(say, *settings):
    made = World(say, *settings)
    with contextlib.closing(made):
        made.up()
        yield made


def main():
    asked = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    asked.add_argument("--minutes", type=float, default=10, help="no fault begins after so long; each once at least")
    asked.add_argument("--seconds", type=float, default=5, help="how long a fault is held")
    asked.add_argument("--clients", type=int, default=3)
    asked.add_argument("--seed", type=int, default=random.randrange(1 << 32))
    asked.add_argument("--only", nargs="+", choices=[*FAULTS, *RELEASES], metavar="NAME")
    asked.add_argument(
        "--beside", metavar="PROGRAM", help="of another release: all begin with it, and are changed over under load"
    )
    asking, asked = asked, asked.parse_args()
    kinds = asked.only or [*FAULTS, *(RELEASES if asked.beside else [])]
    if not asked.beside and RELEASES.keys() & set(kinds):
        asking.error("another release is named by --beside PROGRAM")
    # `kill` ends it as Ctrl-C does: nothing is left.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(1))
    begun = time.monotonic()
    say = lambda text: print(f"-- {time.monotonic() - begun:6.1f} {text}", flush=True)
    say(f"seed {asked.seed}")
    with world(say, asked.clients, asked.seed, asked.seconds, asked.beside) as made:
        disturbing = time.monotonic()
        rounds = 0
        while not rounds or time.monotonic() < disturbing + asked.minutes * 60:
            names = made.random.sample(kinds, len(kinds))
            for name in names:
                if not rounds or time.monotonic() < disturbing + asked.minutes * 60:
                    made.disturb(name)
            rounds += 1
        made.end()
        print(*made.details(), "", f"seed {asked.seed}", *made.report(), sep="\n", flush=True)
        sys.exit(bool(made.ledger.findings))


if __name__ == "__main__":
    main()
