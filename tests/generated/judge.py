"""Whether an answer is one that this platform may give."""

import collections
import json
import re

import agent
from wire import envelopes

RPC_CODES = {
    "canceled": 499,
    "unknown": 500,
    "invalid_argument": 400,
    "deadline_exceeded": 504,
    "not_found": 404,
    "already_exists": 409,
    "permission_denied": 403,
    "resource_exhausted": 429,
    "failed_precondition": 400,
    "aborted": 409,
    "out_of_range": 400,
    "unimplemented": 501,
    "internal": 500,
    "unavailable": 503,
    "data_loss": 500,
    "unauthenticated": 401,
}

# Every 5xx that the contract demands: operation, status, what it says. Nothing else may be one.
NOT_BUILT = "is not available in this version of Casemate$"
DEMANDED = [
    # Decision 12: fields that ask for what is not built yet.
    (
        r"POST (/v2)?/sandboxes|PUT /sandboxes/\{sandboxID\}/network",
        501,
        rf"^'[\w.: ]+' {NOT_BUILT}",
    ),
    # envd.md 1.3: a compression that nobody offers.
    (r"POST /(process.Process|filesystem.Filesystem)/\w+", 501, "^unknown compression "),
    # envd.md 3.9: E2B's codes for what a process cannot take.
    (
        r".*/(SendInput|StreamInput|Update|CloseStdin|SendSignal|Connect)",
        501,
        "^invalid (input|event) type",
    ),
    (r".*/SendSignal", 501, "^invalid signal: "),
    (r".*/SendSignal", 500, "^error sending signal: os: process already finished"),
    (r".*/(SendInput|StreamInput)", 500, "^error writing to (stdin|tty): "),
    (r".*/CloseStdin", 500, "^error closing stdin: cannot close stdin for PTY"),
    (r".*/Update", 500, "^error resizing tty: tty not assigned to process"),
    # envd.md 4.5 to 4.7: what the file system itself refuses.
    (r".*/Stat", 500, "^error getting file info: "),
    (r".*/MakeDir", 500, "^error getting file info: |^path is a file: |^mkdir /"),
    (r".*/Move", 500, "^error renaming: |path is a file: |^error getting file info: "),
    (r".*/Remove", 500, "^error removing file or directory: "),
    (r".*/ListDir", 500, "^error reading directory |^error getting file info: "),
    (r".*/(CreateWatcher|WatchDir)", 500, "^error (statting|adding) path "),
    (r".*/(GetWatcherEvents|WatchDir)", 500, "^watcher error: "),
    # envd.md 5.6 to 5.8.
    (r"GET /files", 500, "^error (checking if path exists|opening file) '"),
    (r"POST /files", 500, "^error (parsing multipart form|reading form|ensuring directories): "),
    (r"POST /files", 500, "^error (opening file|writing file|changing file ownership): "),
    (r"POST /files(/compose)?", 507, "not enough (disk space|inodes) available"),
    (r"POST /files/compose", 500, "^error ensuring directories: |^error: "),
]


NOT_FOUND = "The sandbox was not found"
PORT_CLOSED = "The sandbox is running but port is not open"
INTERRUPTED = "The connection into the sandbox ended before it answered"


class Judge:
    def __init__(self, world, rest):
        self.world, self.rest = world, rest
        self.demanded = collections.Counter()

    async def __call__(self, work, answer):
        """What is wrong with it; none when nothing is."""
        if not work.all_seeing:
            heads = " ".join(f"{name}: {value}" for name, value in answer.headers)
            seen = heads.encode("latin-1", "replace") + b" " + readable(answer)
            if leak := self.world.strangers_in(seen, work.raw, work.team):
                return f"leak: {leak}"
        if answer.ended in ("late", "broken"):
            return answer.ended
        judge = {
            "rest": self.of_rest,
            "agent": self.of_agent,
            "edge": self.of_edge,
            "raw": self.of_raw,
            "frames": self.of_frames,
        }
        if work.kind == "orders":
            return await (self.of_agent if work.sandbox else self.of_rest)(work, answer)
        return await judge[work.kind](work, answer)

    def is_demanded(self, work, status, message):
        for operation, code, says in DEMANDED:
            fits = status == code and re.fullmatch(operation, work.operation)
            if fits and re.search(says, message):
                self.demanded[f"{status} {work.operation}: {says}"] += 1
                return True
        if status == 504 and work.facts.get("timeout") and message == "context deadline exceeded":
            self.demanded["504 with Connect-Timeout-Ms"] += 1
            return True
        return False

    # REST.

    async def of_rest(self, work, answer):
        if answer.ended == "cut":
            return "cut"
        status, facts = answer.status, work.facts
        if status in (414, 431) and len(work.raw) > 65_534:
            return None
        if status >= 400:
            if fault := self.rest_error(work, answer):
                return fault
        elif fault := self.rest_success(work, answer):
            return fault
        if self.is_told_or_changed(work, answer):
            return "another team's sandbox is told or changed"
        if facts.keys() & {"odd path", "odd header", "other method", "open"}:
            return None
        if not work.proper and status not in (401, 403):
            return "a stranger is not refused"
        return None

    def is_told_or_changed(self, work, answer):
        foreign = work.facts.get("foreign")
        if not foreign or answer.status >= 300:
            return False
        return work.method not in ("GET", "HEAD", "OPTIONS") or foreign.encode() in answer.body

    def rest_error(self, work, answer):
        kind, message = answer.header("content-type"), reason(answer)
        # One routing header alone: the edge's own text.
        if "odd header" in work.facts and answer.status == 400 and kind.startswith("text/plain"):
            return None
        if work.method != "HEAD":
            told = as_json(answer.body)
            known = {"code", "message", "error_code"}
            if not isinstance(told, dict) or not {"code", "message"} <= set(told) <= known:
                return "the error has another shape"
            if told["code"] != answer.status or not isinstance(message, str) or not message:
                return "code or message of the error"
            if not kind.startswith("application/json"):
                return "content type of the error"
        if work.facts["kind"] == "not yet" and answer.status == 501:
            if work.method == "HEAD" or re.search(NOT_BUILT, message):
                self.demanded["501 of operations not there yet"] += 1
                return None
        if answer.status >= 500 and not self.is_demanded(work, answer.status, message):
            return "5xx"
        return None

    def rest_success(self, work, answer):
        facts = work.facts
        if not work.proper and not facts.get("open") and work.method != "OPTIONS":
            return "a stranger is served"
        said = facts.get("responses", {}).get(str(answer.status))
        if said and "content" in said and work.method != "HEAD" and "other method" not in facts:
            kind = next(iter(said["content"]))
            if kind == "application/json":
                told = as_json(answer.body)
                if misfit := self.rest.misfit(said["content"][kind].get("schema", {}), told):
                    return f"not as the document says: {misfit}"
        return None

    # The agent, through the edge.

    async def of_agent(self, work, answer):
        status, facts = answer.status, work.facts
        if answer.ended == "cut" or status == 502 or is_interrupted(answer):
            return await self.of_ended(work, answer)
        if work.method == "HEAD" or status in (204, 206, 304):
            open_to_all = "/health" in work.operation or "no sandbox" in facts
            fine = work.proper or status >= 400 or open_to_all
            return None if fine else "a stranger is served"
        if facts.get("reserved"):
            return None if status in (400, 401, 404) else "a kept path is served"
        if status < 400:
            if not work.proper and work.method != "OPTIONS" and work.operation != "GET /health":
                return "a stranger is served"
            return self.of_stream(work, answer) if facts.get("streams") and status == 200 else None
        return self.of_agent_error(work, answer)

    async def of_ended(self, work, answer):
        """502, cut and interrupted answers: right when the sandbox is not there, or was not meanwhile."""
        if "no sandbox" in work.facts:
            return None if answer.status == 502 else answer.ended
        if await self.world.is_there(work.sandbox, work.begun):
            return f"{answer.status} of a running sandbox" if answer.status else "cut"
        if answer.status == 502 and work.method != "HEAD" and reason(answer) != NOT_FOUND:
            return "502 with another reason"
        return None

    def of_stream(self, work, answer):
        messages = list(envelopes(answer.text))
        if answer.ended != "left":
            if not messages or messages[-1][0] != 2:
                return "a stream without its end"
            told = as_json(messages[-1][1])
            if not isinstance(told, dict):
                return "the end of the stream is no JSON"
            if error := told.get("error"):
                work.facts["failed"] = True
                code = RPC_CODES.get(error.get("code"))
                if code is None or not isinstance(error.get("message"), str):
                    return "the error of the stream has another shape"
                if code >= 500 and not self.is_demanded(work, code, error["message"]):
                    return f"{error['code']} at the end of the stream"
        agent.learn(work, answer, messages)
        return None

    def of_agent_error(self, work, answer):
        told, status = as_json(answer.text), answer.status
        message = told.get("message") if isinstance(told, dict) else None
        if isinstance(told, dict) and isinstance(message, str) and message:
            code = told.get("code")
            right = code == status if isinstance(code, int) else RPC_CODES.get(code) == status
            if not right:
                return "the code of the error"
        elif not (status in (404, 405, 415, 416, 406, 400, 401, 431) and len(answer.body) < 500):
            return "the error has another shape"
        if status >= 500 and not self.is_demanded(work, status, message or ""):
            return "5xx"
        return None

    # The rest.

    async def of_edge(self, work, answer):
        if answer.ended == "cut":
            return "cut"
        page = answer.header("content-type").startswith("text/html")
        if answer.status == 502 and (page or work.method == "HEAD"):
            return None
        if answer.status == 502 and reason(answer) in (NOT_FOUND, PORT_CLOSED):
            return None
        return "5xx" if answer.status >= 500 else None

    async def of_raw(self, work, answer):
        for one in work.facts["answers"]:
            if one.status >= 500 and not await self.is_right(work, one):
                return "5xx"
        return None

    async def is_right(self, work, one):
        told = as_json(one.body)
        if is_interrupted(one):
            return await self.is_gone(work)
        if one.status == 502 and isinstance(told, dict):
            named = (told.get("sandboxId"), told.get("port", 49983))
            # A changed request may name another sandbox or port; else it must have ended.
            if named != (work.sandbox.id, 49983):
                return True
            return told["message"] == NOT_FOUND and await self.is_gone(work)
        return self.is_demanded(work, one.status, reason(one))

    async def of_frames(self, work, answer):
        if work.proper and answer.ended != "whole":
            return None if await self.is_gone(work) else "cut"
        if answer.status == 502 and (self.is_of_another(work, answer) or await self.is_gone(work)):
            return None
        if is_interrupted(answer) and await self.is_gone(work):
            return None
        return "5xx" if answer.status >= 500 else None

    def is_of_another(self, work, answer):
        """A change may have made the id that of no sandbox."""
        told = as_json(answer.body) or {}
        return (
            not work.proper
            and told.get("message") == NOT_FOUND
            and told.get("sandboxId") != work.sandbox
        )

    async def is_gone(self, work):
        return not await self.world.is_there(work.sandbox, work.begun)


def reason(answer):
    """What an error says."""
    told = as_json(answer.body)
    return told.get("message", "") if isinstance(told, dict) else ""


def is_interrupted(answer):
    """A pause came before an answer."""
    return answer.status == 503 and reason(answer).startswith(INTERRUPTED)


def readable(answer):
    """The body as a reader sees it, as far as it came."""
    try:
        return answer.text
    except Exception:
        return answer.body


def as_json(body):
    try:
        return json.loads(body)
    except ValueError:
        return None


def is_success(work, answer):
    return (
        200 <= answer.status < 300
        and not work.facts.get("failed")
        and answer.ended in ("whole", "left", "quiet", "ended", "alive")
    )
