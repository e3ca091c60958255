"""Clients of a cluster with the stock SDK, that remember what they were told (`ledger.py`)."""

import random
import threading
import time
import uuid

import e2b

import host
from ledger import CONFLICT, GONE, HELD, LATE, RETRYABLE, UNKNOWN, Kept, asked_until_told

LIFE = 3600
BRIEF = 25
# The SDK's own is a minute; one that is hung is then asked again sooner.
REQUEST = 30
SANDBOXES, SNAPSHOTS = 3, 2


class Client(threading.Thread):
    """Does one thing after the other, at random, to sandboxes of its own."""

    def __init__(self, ledger, options, seed):
        super().__init__(daemon=True)
        self.ledger = ledger
        self.options = {**options, "request_timeout": REQUEST}
        self.random = random.Random(seed)
        self.kept, self.killed, self.unknown, self.snapshots, self.deleted, self.briefs = [], [], [], {}, [], []
        self.working, self.resting, self.ended = threading.Event(), threading.Event(), False
        self.crashed = None

    # Its life.

    def run(self):
        try:
            while not self.ended:
                if not self.working.is_set():
                    self.resting.set()
                    self.working.wait(0.2)
                    continue
                self.resting.clear()
                self.step()
                time.sleep(self.random.uniform(0.02, 0.25))
        except Exception as error:
            self.crashed = error
            self.ledger.found(f"a client could not go on: {error!r}")
        finally:
            self.resting.set()

    def step(self):
        running = [one for one in self.kept if one.states == {"running"}]
        paused = [one for one in self.kept if one.states == {"paused"}]
        few = len(running) + len(paused) < SANDBOXES and len(self.kept) < 2 * SANDBOXES
        choices = [(self.create, None, 3)] if few else []
        choices += [(self.list, None, 1)]
        choices += [(self.brief, None, 1)] if len(self.briefs) < 2 else []
        if running:
            one = self.random.choice(running)
            many = (self.command, 5), (self.write, 4), (self.read, 4), (self.extend, 1), (self.pause, 2)
            choices += [(do, one, weight) for do, weight in (*many, (self.kill, 1))]
            choices += [(self.snapshot, one, 1)] if len(self.snapshots) < SNAPSHOTS else []
        if paused:
            choices += [(self.resume, self.random.choice(paused), 4)]
        if self.snapshots:
            choices += [(self.delete_snapshot, self.random.choice(sorted(self.snapshots)), 1)]
        do, of, _ = self.random.choices(choices, [weight for *_, weight in choices])[0]
        do(of) if of is not None else do()

    def tried(self, what, ask, one=None, target=None):
        """The answer, or nothing; a sandbox is what was asked of it, or may be."""
        try:
            answer = ask()
        except Exception as error:
            # The SDK repeats by itself, and meets what its first request still does.
            self.ledger.failed(what, error, RETRYABLE | {CONFLICT, HELD, UNKNOWN})
            if one and target:
                one.states = one.states | {target}
            return None
        self.ledger.did(what)
        if one and target:
            one.states = {target}
        return True if answer is None else answer

    # What it does.

    def create(self):
        template = "base"
        if self.snapshots and self.random.random() < 0.5:
            template = self.random.choice(sorted(self.snapshots))
        asked = {
            "template": template, "timeout": LIFE, "metadata": {"mark": uuid.uuid4().hex},
            "idempotency_key": uuid.uuid4().hex if self.random.random() < 0.5 else None,
        }
        made = self.tried("create", lambda: e2b.Sandbox.create(**asked, **self.options))
        if made is None:
            return self.unknown.append(asked)
        self.begin(made, asked)

    def begin(self, made, asked):
        """Its first files; what of a snapshot it began with is looked at."""
        one = Kept(made, asked["metadata"]["mark"], files=dict(self.snapshots.get(asked["template"], {})))
        mark = lambda: made.commands.run(f"echo {one.mark} > /dev/shm/mark", timeout=REQUEST)
        if self.tried("command", mark) is None:
            # Whether it was written is not known; what it is good for needs it.
            return self.unknown.append({**asked, "idempotency_key": None})
        self.kept.append(one)

    def command(self, one):
        ran = self.tried("command", lambda: one.sandbox.commands.run(one.look, timeout=REQUEST))
        if ran and (wrong := one.content(ran.stdout)):
            self.ledger.found(wrong)

    def write(self, one):
        path, text = f"/home/user/file{self.random.randrange(3)}", uuid.uuid4().hex
        before = one.files.get(path, {"missing"})
        if len(before) > 1:
            # A former one may still be on its way, and come last.
            return
        wrote = self.tried("write", lambda: one.sandbox.files.write(path, text, request_timeout=REQUEST))
        # One that broke off may have left a file that is empty, or a part.
        one.files[path] = {text} if wrote else {*before, *(text[:at] for at in range(len(text) + 1))}

    def read(self, one):
        known = [path for path, contents in one.files.items() if len(contents) == 1 and "missing" not in contents]
        if known:
            path = self.random.choice(known)
            text = self.tried("read", lambda: one.sandbox.files.read(path, request_timeout=REQUEST))
            if text is not None and {text} != one.files[path]:
                self.ledger.found(f"{one.id}: {path} reads {text!r} and not {one.files[path]}")

    def extend(self, one):
        self.tried("set_timeout", lambda: one.sandbox.set_timeout(LIFE, request_timeout=REQUEST))

    def pause(self, one):
        self.tried("pause", lambda: one.sandbox.pause(request_timeout=REQUEST), one, "paused")

    def resume(self, one):
        self.tried("resume", lambda: one.sandbox.connect(timeout=LIFE, request_timeout=REQUEST), one, "running")

    def snapshot(self, one):
        files = {path: set(contents) for path, contents in one.files.items()}
        taken = self.tried("snapshot", lambda: one.sandbox.create_snapshot(request_timeout=REQUEST))
        if taken:
            self.snapshots[taken.snapshot_id] = files

    def delete_snapshot(self, id):
        # Whether or not it is answered, nobody begins with it any more.
        del self.snapshots[id]
        self.deleted.append(id)
        self.tried("delete snapshot", lambda: e2b.Sandbox.delete_snapshot(id, **self.options))

    def kill(self, one):
        if self.tried("kill", lambda: one.sandbox.kill(request_timeout=REQUEST), one, "gone") is not None:
            self.kept.remove(one)
            self.killed.append(one.id)

    def list(self):
        shown = self.tried("list", self.listed)
        if shown is not None:
            self.compare(shown)

    def listed(self, **query):
        pages, found = e2b.Sandbox.list(query=e2b.SandboxQuery(**query) if query else None, **self.options), {}
        while pages.has_next:
            found |= {item.sandbox_id: item.state.value for item in pages.next_items()}
        return found

    def compare(self, shown):
        for one in self.kept:
            if shown.get(one.id, "gone") not in one.states:
                self.ledger.found(f"{one.id} is to be {one.states}, and is listed as {shown.get(one.id, 'gone')}")
        if back := set(self.killed) & set(shown):
            self.ledger.found(f"killed and listed: {back}")

    def brief(self):
        """One with a short life: no clock that is wrong ends it early."""
        begun = time.monotonic()
        made = self.tried("create, briefly", lambda: e2b.Sandbox.create(timeout=BRIEF, **self.options))
        if made is not None:
            self.briefs.append((made.sandbox_id, begun, time.monotonic()))

    # Whether what it was told is so. The cluster is whole, and this client does nothing else.

    def settle(self):
        self.settle_creates()
        for one in list(self.kept):
            self.settle_one(one)
        self.settle_briefs()
        for id in list(self.deleted):
            gone = lambda: e2b.Sandbox.delete_snapshot(id, **self.options)
            # Not while sandboxes run that began with it.
            if not isinstance(asked_until_told(self.ledger, f"delete of snapshot {id}", gone, {HELD}), Exception):
                self.deleted.remove(id)
        shown = asked_until_told(self.ledger, "list", self.listed)
        if isinstance(shown, dict):
            self.compare(shown)
        self.settle_snapshots()

    def settle_creates(self):
        for asked in self.unknown:
            mark = asked["metadata"]
            if asked["idempotency_key"]:
                ask = lambda: e2b.Sandbox.create(**asked, **self.options)
                # Its snapshot may be deleted; that its outcome is not known is an answer as well. That it is
                # in progress is none: whoever made it has its answer by now, or has freed its key.
                asked_until_told(self.ledger, f"create {mark}", ask, {GONE, UNKNOWN})
            found = asked_until_told(self.ledger, f"list of {mark}", lambda: self.listed(metadata=mark))
            if asked["idempotency_key"] and len(found) > 1:
                self.ledger.found(f"made twice with one key: {found}")
            for id in found if isinstance(found, dict) else ():
                asked_until_told(self.ledger, f"kill {id}", lambda: e2b.Sandbox.kill(id, **self.options))
                self.killed.append(id)
        self.unknown.clear()

    def settle_one(self, one):
        """What was not answered is asked once more; then it is looked at."""
        ask = lambda what, do, allowed=(): asked_until_told(self.ledger, f"{what} of {one.id}", do, allowed)
        if "gone" in one.states:
            ask("kill", lambda: one.sandbox.kill(request_timeout=REQUEST))
            self.kept.remove(one)
            return self.killed.append(one.id)
        if len(one.states) > 1 or one.states == {"paused"} and self.random.random() < 0.5:
            ask("resume", lambda: one.sandbox.connect(timeout=LIFE, request_timeout=REQUEST))
            one.states = {"running"}
        info = ask("get_info", lambda: e2b.Sandbox.get_info(one.id, **self.options), {GONE})
        state = "gone" if isinstance(info, Exception) else info.state.value
        if state not in one.states:
            self.ledger.found(f"{one.id} is to be {one.states}, and is {state}")
            self.kept.remove(one)
        elif state == "running":
            ran = ask("look", lambda: one.sandbox.commands.run(one.look, timeout=REQUEST))
            wrong = isinstance(ran, Exception) or one.content(ran.stdout, settled=True)
            if wrong:
                self.kept.remove(one)
                wrong is True or self.ledger.found(wrong)
        self.ledger.did("look")

    def settle_briefs(self):
        for brief in list(self.briefs):
            id, begun, made = brief
            before = time.monotonic()
            info = asked_until_told(
                self.ledger, f"get_info of {id}", lambda: e2b.Sandbox.get_info(id, **self.options), {GONE}
            )
            gone, now = isinstance(info, Exception), time.monotonic()
            if gone:
                self.briefs.remove(brief)
                self.ledger.did("end by deadline")
            if gone and now < begun + BRIEF - 1:
                self.ledger.found(f"{id} ended after {now - begun:.1f} s of {BRIEF}")
            if not gone and before > made + BRIEF + 60:
                self.ledger.found(f"{id} is there after {before - made:.1f} s of {BRIEF}")

    def settle_snapshots(self):
        """One of them is begun with."""
        for id in self.random.sample(sorted(self.snapshots), min(1, len(self.snapshots))):
            ask = lambda: e2b.Sandbox.create(id, timeout=LIFE, **self.options)
            made = asked_until_told(self.ledger, f"create of {id}", ask)
            if isinstance(made, Exception):
                continue
            one = Kept(made, "-", files=dict(self.snapshots[id]))
            look = lambda: made.commands.run(one.look.replace("cat /dev/shm/mark", "echo -"), timeout=REQUEST)
            ran = asked_until_told(self.ledger, f"look at {made.sandbox_id}", look)
            if not isinstance(ran, Exception) and (wrong := one.content(ran.stdout)):
                self.ledger.found(f"of snapshot {id}: {wrong}")
            asked_until_told(self.ledger, "kill", lambda: made.kill(request_timeout=REQUEST))
            self.killed.append(made.sandbox_id)
            self.ledger.did("look at a snapshot")

    def give_up(self):
        """Ends all that is left."""
        for one in self.kept:
            asked_until_told(self.ledger, f"kill {one.id}", lambda: one.sandbox.kill(request_timeout=REQUEST))
        for id, *_ in self.briefs:
            asked_until_told(self.ledger, f"kill {id}", lambda: e2b.Sandbox.kill(id, **self.options))
        for id in [*self.snapshots, *self.deleted]:
            asked_until_told(self.ledger, f"delete {id}", lambda: e2b.Sandbox.delete_snapshot(id, **self.options))


class Witness(threading.Thread):
    """A sandbox that counts, of whom nothing is asked but to be reached; and a stream of what it counts."""

    COUNT = "n=0; while :; do n=$((n+1)); echo $n; echo $n > /tmp/count; sleep 0.5; done"

    def __init__(self, ledger, sandbox, home):
        super().__init__(daemon=True)
        self.ledger, self.sandbox, self.home = ledger, sandbox, home
        self.pid = sandbox.commands.run(self.COUNT, background=True, timeout=0).pid
        host.until("it counts", lambda: sandbox.files.read("/tmp/count"), 60)
        self.last, self.ended, self.breaks, self.reached, self.missed, self.late, self.heard = 0, False, 0, 0, 0, 0, 0
        self.listener = threading.Thread(target=self.listen, daemon=True)

    def start(self):
        self.listener.start()
        super().start()

    def run(self):
        """Reaches it, again and again."""
        while not self.ended:
            try:
                count = int(self.sandbox.files.read("/tmp/count", request_timeout=REQUEST) or 0)
            except Exception as error:
                # How quick a machine is, is not the question.
                if self.ledger.failed("read of a witness", error) == LATE:
                    self.late += 1
                else:
                    self.missed += 1
            else:
                self.reached += 1
                # The shell that writes it empties it first.
                if count and count < self.last - 1:
                    self.ledger.found(f"the witness at {self.home.name} counted {self.last}, and now {count}")
                self.last = max(self.last, count)
            time.sleep(0.4)

    def listen(self):
        while not self.ended:
            try:
                for out, _, _ in self.sandbox.commands.connect(self.pid, timeout=0):
                    self.last = max([self.last, *(int(line) for line in (out or "").split())])
                    self.heard += 1
            except Exception as error:
                if not self.ended:
                    self.ledger.failed("stream of a witness", error)
            else:
                self.ended or self.ledger.found(f"the witness at {self.home.name} does not count any more")
            self.breaks += 1
            time.sleep(0.5)

    def counts(self):
        """Reached so often, missed so often, streams that broke, answers that came late."""
        return self.reached, self.missed, self.breaks, self.late
