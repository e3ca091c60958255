"""What clients were told, and whether it is so: for loads under which a cluster is disturbed.

A client that got no answer knows only what its request may have done. It asks again, as clients do,
until it is told; from then on that is what must hold.
"""

import collections
import dataclasses
import re
import threading
import time

import connectrpc.errors
import e2b
import httpx
import pyqwest
from e2b import exceptions as told

# How long a cluster that is whole again may take to do what it is asked.
PATIENCE = 120
AGAIN, BROKEN, LATE, GONE, CONFLICT, HELD, WRONG = "again", "broken", "late", "gone", "conflict", "held", "wrong"
# Of a create with a key, whose server died before it had come of it.
UNKNOWN = "unknown"
# A client may ask again, and the second answer is as good as the first would have been.
RETRYABLE = {AGAIN, BROKEN, LATE}


def kind_of(error):
    """What a client makes of an error of the stock SDK."""
    match error:
        case told.ServiceBusyException() | told.RateLimitException() | told.SandboxUnreachableException():
            return AGAIN
        case told.SandboxNotRunningException() | told.NotFoundException():
            return GONE
        case told.TimeoutException() | httpx.TimeoutException():
            return LATE
        case e2b.CommandExitException() | told.AuthenticationException():
            return WRONG
        case told.SandboxException():
            return of_status(error)
        case connectrpc.errors.ConnectError():
            return BROKEN if isinstance(error.__cause__, TRANSPORT) else WRONG
    return BROKEN if isinstance(error, TRANSPORT) else WRONG


TRANSPORT = (httpx.TransportError, OSError, pyqwest.ReadError, pyqwest.WriteError, pyqwest.StreamError)


def of_status(error):
    """Of those that the SDK has no type for: by status, or by the word that stands for it."""
    if re.search("because there are (running|paused) sandboxes using it", str(error)):
        return HELD
    if "The outcome of the first request with this Idempotency-Key is not known" in str(error):
        return UNKNOWN
    first = re.match(r"(?:Code\.)?(\w+)", str(error))
    status = error.status_code or (first and first[1].lower())
    if str(status) in ("502", "503", "504", "unavailable"):
        return AGAIN
    if str(status) in ("404", "not_found"):
        return GONE
    return CONFLICT if str(status) in ("409", "already_exists") else WRONG


def shape_of(error):
    """Its text without what is different each time."""
    text = re.sub(r"\bi[0-9a-z]{12,}\b|[0-9a-f]{8}-[0-9a-f-]{27}", "ID", f"{type(error).__name__}: {error}")
    return re.sub(r"127\.0\.0\.1:\d+|\d{4,}", "N", " ".join(text.split()))[:200]


class Ledger:
    """Of all clients of a run."""

    def __init__(self, say=lambda text: None):
        self.lock = threading.Lock()
        self.say = say
        self.phase = "no fault"
        # What must not be; empty at the end.
        self.findings = []
        self.done = collections.Counter()
        self.errors = collections.Counter()
        self.shapes = collections.defaultdict(collections.Counter)

    def found(self, text):
        with self.lock:
            self.findings.append(f"{self.phase}: {text}")
        self.say(f"FOUND during {self.phase}: {text}")

    def did(self, what):
        with self.lock:
            self.done[what] += 1

    def failed(self, what, error, allowed=RETRYABLE):
        kind = kind_of(error)
        with self.lock:
            self.errors[self.phase, kind] += 1
            self.shapes[self.phase][f"{what}: {shape_of(error)}"] += 1
        if kind not in allowed:
            self.found(f"{what} was answered with {type(error).__name__}: {error} ({error.__cause__!r})")
        return kind


@dataclasses.dataclass
class Kept:
    """A sandbox of a client's, and what it may be: one thing each, but for what was not answered."""

    sandbox: e2b.Sandbox
    mark: str
    states: set = dataclasses.field(default_factory=lambda: {"running"})
    files: dict = dataclasses.field(default_factory=dict)

    @property
    def id(self):
        return self.sandbox.sandbox_id

    def content(self, shown, settled=False):
        """Compares what a look showed: the mark in its memory, then each file. What is found once all
        is settled is what there is from then on; before, a write may still be on its way."""
        lines = shown.splitlines()
        if lines[:1] != [self.mark]:
            return f"{self.id}: its memory holds {lines[:1]} and not {self.mark}"
        for (path, contents), line in zip(sorted(self.files.items()), lines[1:], strict=True):
            if line not in contents:
                return f"{self.id}: {path} is {line!r} and not one of {contents}"
            if settled:
                self.files[path] = {line}
        return None

    @property
    def look(self):
        """A command that shows it."""
        paths = "".join(f"; echo $(cat {path} 2>/dev/null || echo missing)" for path in sorted(self.files))
        return f"cat /dev/shm/mark{paths}"


def asked_until_told(ledger, what, ask, allowed=(), seconds=PATIENCE):
    """Asks again while the answer is that one may. What stays unanswered, and any other error but
    those that are allowed, which are given back, is a finding."""
    end = time.monotonic() + seconds
    while True:
        try:
            return ask()
        except Exception as error:
            kind = kind_of(error)
            if kind in allowed:
                return error
            if kind not in RETRYABLE | {CONFLICT} or time.monotonic() > end:
                ledger.found(f"{what}, asked again: {type(error).__name__}: {error} ({error.__cause__!r})")
                return error
        time.sleep(0.3)
