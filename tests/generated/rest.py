"""Requests of the REST API, from the document that the platform serves of itself."""

import gzip
import json
import pathlib
import re
from urllib.parse import urlencode

import values
from values import word
from wire import chunks, head
from work import Work

# The document has no place holders; their table is the source.
NOT_YET = pathlib.Path(__file__).resolve().parents[2] / "crates/casemate-api/src/not_yet.rs"
ROW = re.compile(r'\((\w+)\.clone\(\), "([^"]+)", (\w+),')

METHODS = ["GET", "POST", "PUT", "PATCH", "DELETE", "HEAD", "OPTIONS", "TRACE", "BREW", "get"]
CONTENT_TYPES = [
    "application/json", "application/json; charset=utf-8", "text/plain", "application/xml", "", "x",
    "application/x-www-form-urlencoded", "multipart/form-data; boundary=x",
    "application/octet-stream",
]
SAFE_FOR_ANCHORS = ("GET", "HEAD")


class Rest:
    def __init__(self, document):
        self.document = document
        self.served = []
        for path, item in document["paths"].items():
            for method, operation in item.items():
                self.served.append((method.upper(), path, operation))
        self.not_yet = [
            (method.upper(), path, {"security": security(access)})
            for method, path, access in ROW.findall(NOT_YET.read_text())
        ]
        assert len(self.not_yet) > 20, NOT_YET
        self.place_holders = {f"{method} {path}" for method, path, _ in self.not_yet}
        weights = {"GET /teams": 0.1, "DELETE /sandboxes/{sandboxID}": 0.3}
        self.weights = [weights.get(f"{m} {p}", 1) for m, p, _ in self.served]

    def size(self):
        return len(self.served) + len(self.not_yet)

    def operations(self):
        return {f"{method} {path}" for method, path, _ in self.served + self.not_yet}

    def generate(self, rng, world, index):
        """One request of one operation: the first ones go once round all."""
        every = self.served + self.not_yet
        if index < len(every):
            method, path, operation = every[index]
        elif rng.random() < 0.08:
            method, path, operation = rng.choice(self.not_yet)
        else:
            method, path, operation = rng.choices(self.served, self.weights)[0]
        kind = "not yet" if f"{method} {path}" in self.place_holders else "served"
        work = Work("rest", f"{method} {path}", method)
        work.facts.update(kind=kind, responses=operation.get("responses", {}))
        team = rng.choice([world.a, world.a, world.b])
        asking = self.caller(rng, world, team, operation.get("security") or [], work)
        wrong = rng.choices(
            ["nothing", "body", "text", "query", "path", "other"], [50, 20, 8, 9, 5, 8]
        )[0]
        target = self.path(rng, world, team, path, wrong == "path", work)
        pairs = self.parameters(rng, world, team, operation, wrong == "query")
        if pairs or wrong == "query":
            target += "?" + values.query(rng, pairs)
        headers = [
            ("Host", rng.choice(["api.local", f"127.0.0.1:{world.port}", "localhost"])),
            *asking,
        ]
        schema = operation.get("requestBody")
        content = next(iter(schema["content"].values())) if schema else {}
        raw = None
        if schema and "schema" not in content:
            # Any bytes, such as those of an upload.
            raw = rng.randbytes(rng.choice([0, 1, 1000, 70_000]))
        elif schema:
            body = self.sample(rng, content["schema"], world, team)
            if wrong == "body":
                body = values.mutated(rng, body)
            raw = values.written(body)
            if wrong == "text":
                raw = values.spoilt(rng, raw)
        elif wrong in ("body", "text"):
            raw = values.written(values.odd(rng))
        if "/sandboxes" in path and method == "POST" and rng.random() < 0.1:
            key = word(rng, 3) if rng.random() < 0.7 else rng.choice(values.ODD_TEXTS)
            headers.append(("Idempotency-Key", one_line(key)))
        if wrong == "other":
            method = self.otherwise(rng, method, headers, work)
        self.finish(rng, work, method, target, headers, raw, wrong == "other")
        return work

    def finish(self, rng, work, method, target, headers, raw, odd):
        """The body and what is said of it."""
        work.method = method
        if raw is None:
            if rng.random() < 0.3:
                headers.append(("Content-Length", "0"))
            work.pieces = [head(method, target, headers)]
            return
        kind = rng.choice(CONTENT_TYPES) if odd else "application/json"
        if kind:
            headers.append(("Content-Type", kind))
        if odd and rng.random() < 0.3:
            raw = gzip.compress(raw)
            headers.append(("Content-Encoding", "gzip"))
        if rng.random() < 0.15:
            headers.append(("Transfer-Encoding", "chunked"))
            framed = chunks(raw, rng.choice([1, 7, 4096]) if len(raw) < 10_000 else 65_536)
            at = rng.randrange(len(framed))
            work.pieces = [head(method, target, headers), framed[:at], framed[at:]]
        else:
            headers.append(("Content-Length", str(len(raw))))
            work.pieces = [head(method, target, headers) + raw]

    def otherwise(self, rng, method, headers, work):
        kind = rng.randrange(6)
        if kind < 2 and "anchor" not in work.facts:
            work.facts["other method"] = True
            changed = rng.choice(METHODS)
            # Answered as a GET without its body.
            served = "GET" if changed == "HEAD" else changed
            if f"{served} {work.operation.split(' ')[1]}" in self.place_holders:
                work.facts["kind"] = "not yet"
            return changed
        if kind == 2:
            headers.append(("Origin", "https://example.com"))
            headers.append(("Access-Control-Request-Method", rng.choice(METHODS)))
            work.facts["other method"] = True
            return "OPTIONS"
        if kind == 3:
            headers.append(
                (
                    rng.choice(["X-Team-ID", "Accept", "Range", "Cookie", "E2B-Sandbox-Port"]),
                    one_line(rng.choice(values.ODD_TEXTS)[:2000]),
                )
            )
            work.facts["odd header"] = True
        if kind == 4:
            headers.extend((f"X-{word(rng)}", word(rng, 200)) for _ in range(rng.choice([5, 60])))
        if kind == 5:
            headers.append(("Expect", "100-continue"))
        return method

    # Who asks.

    def caller(self, rng, world, team, schemes, work):
        """Headers of somebody; what they may read and whether the operation is theirs."""
        kind = rng.choices(["right", "none", "malformed", "unknown", "other"], [84, 4, 4, 4, 4])[0]
        if not schemes:
            work.facts.update(open=True)
        if kind == "right" and schemes:
            scheme = rng.choice(
                [s for s in schemes if "AuthProviderBearerAuth" not in s] or schemes
            )
            if "AuthProviderBearerAuth" not in scheme:
                work.proper = True
            headers = []
            for name in scheme:
                headers += self.credential(name, world, team)
            if "AdminApiKeyAuth" in scheme and "AdminTeamAuth" not in scheme:
                work.all_seeing = True
            else:
                # A user's token is team a's.
                work.team = world.a if "AccessTokenAuth" in scheme else team
            return headers
        if kind == "other":
            name = rng.choice(
                ["ApiKeyAuth", "AccessTokenAuth", "AdminTeamAuth", "AuthProviderBearerAuth"]
            )
            work.team = world.a if name == "AccessTokenAuth" else team
            work.proper = any(set(scheme) == {name} for scheme in schemes)
            return self.credential(name, world, team)
        if kind in ("malformed", "unknown"):
            text = rng.choice(values.ODD_TEXTS)[:500] if kind == "malformed" else None
            key = text if text is not None else "e2b_" + rng.randbytes(20).hex()
            bearer = text if text is not None else "sk_e2b_" + rng.randbytes(20).hex()
            return rng.choice(
                [
                    [("X-API-Key", one_line(key))],
                    [("Authorization", one_line(f"Bearer {bearer}"))],
                    [("X-Admin-Token", one_line(key)), ("X-Team-ID", team.id)],
                    [("X-API-Key", team.key[:-2]), ("X-API-Key", "e2b_")],
                    [("X-API-Key", team.key + "00")], [("X-API-Key", b"e2b_\xff\xfe")],
                    [("Authorization", "Bearer eyJhbGciOiJub25lIn0.e30.")],
                ]
            )
        return []

    def credential(self, name, world, team):
        return {
            "ApiKeyAuth": [("X-API-Key", team.key)],
            "AccessTokenAuth": [("Authorization", f"Bearer {world.access_token}")],
            "AdminApiKeyAuth": [("X-Admin-Token", world.admin_token)],
            "AdminTeamAuth": [("X-Team-ID", team.id)],
            "AuthProviderBearerAuth": [("Authorization", "Bearer a.b.c")],
            "AuthProviderTeamAuth": [("X-Team-ID", team.id)],
        }[name]

    # What is asked about.

    def path(self, rng, world, team, path, wrong, work):
        segments = path.split("/")
        spoilt = rng.randrange(1, len(segments)) if wrong else -1
        for at, part in enumerate(segments):
            text = part
            if part.startswith("{"):
                text = self.parameter(rng, world, team, part[1:-1], work)
                if rng.random() < 0.05:
                    text = one_text(rng.choice(values.ODD_TEXTS)[:1000])
                text = (
                    values.segment(rng, text) if rng.random() < 0.1 else values.quote(text, safe="")
                )
            if at == spoilt:
                text = values.segment(rng, one_text(text) or word(rng))
                work.facts["odd path"] = True
            if not text and part:
                work.facts["odd path"] = True
            segments[at] = text
        return "/".join(segments) or "/"

    def parameter(self, rng, world, team, name, work):
        if name == "sandboxID":
            return self.sandbox(rng, world, team, work)
        if name == "teamID":
            # An administrator may end a team's sandboxes: only those of team c, which is for that.
            if work.all_seeing or work.operation.startswith("POST /admin"):
                return world.c.id
            return rng.choice([team.id, team.id, world.a.id, world.b.id, values.ODD_TEXTS[-1]])
        if name == "apiKeyID":
            return rng.choice([*team.key_ids, *world.a.key_ids])
        return rng.choice(
            {"nodeID": [world.node], "alias": ["base", "base", "other/base", "x"]}.get(
                name, [word(rng)]
            )
        )

    def sandbox(self, rng, world, team, work):
        """Mostly one of the team's own that runs."""
        others = world.b if team is world.a else world.a
        kind = rng.randrange(20)
        if kind == 0 and work.method in SAFE_FOR_ANCHORS:
            work.facts["anchor"] = True
            return team.anchor.id
        if kind < 2:
            foreign = [others.anchor] if kind == 0 else [*others.live, *world.c.live]
            work.facts["foreign"] = rng.choice(foreign or [others.anchor]).id
            return work.facts["foreign"]
        if kind == 2:
            return rng.choice([*team.dead, "i" + word(rng, 20)])
        safe = work.method in SAFE_FOR_ANCHORS
        live = team.any(rng).id if safe else rng.choice(team.live).id
        if kind == 3:
            return rng.choice(
                [f"{live}-6532622b", f"{live}-a-b", live.upper(), live + "x", live[:-1], f"{live}-"]
            )
        return live

    def parameters(self, rng, world, team, operation, wrong):
        pairs = []
        for parameter in operation.get("parameters", []):
            if parameter["in"] != "query":
                continue
            if not parameter.get("required") and rng.random() < 0.6 and not wrong:
                continue
            name = parameter["name"]
            pairs.append((name, self.query_value(rng, world, team, name, parameter["schema"])))
        if wrong and pairs:
            at, kind = rng.randrange(len(pairs)), rng.randrange(5)
            name = pairs[at][0]
            if kind == 0:
                pairs.append((name, "1"))
            elif kind == 1:
                pairs[at] = (name, str(rng.choice(values.ODD_NUMBERS)))
            elif kind == 2:
                pairs[at] = (name, spoilt_cursor(rng, pairs[at][1]))
            else:
                pairs[at] = (name, one_text(rng.choice(values.ODD_TEXTS)))
        elif wrong:
            pairs.append((word(rng), one_text(rng.choice(values.ODD_TEXTS))))
        return pairs

    def query_value(self, rng, world, team, name, schema):
        if name == "nextToken":
            return rng.choice([*team.cursors, *world.a.cursors, *world.b.cursors])
        if name == "sandbox_ids":
            ids = [s.id for t in world.teams for s in t.live] + [
                world.a.anchor.id,
                world.b.anchor.id,
            ]
            return ",".join(rng.choices(ids, k=rng.choice([1, 2, 5, 100])))
        if name == "metadata":
            return (
                urlencode({"mark": rng.choice([world.a.marker, world.b.marker, "x"])})
                if rng.random() < 0.5
                else "k=v"
            )
        if schema["type"] == "integer":
            top = schema.get(
                "maximum", 2_000_000_000_000 if schema.get("format") == "int64" else 1000
            )
            return str(rng.randint(schema.get("minimum", 0), top))
        return {
            "state": rng.choice(["running", "paused", "running,paused"]),
            "order": rng.choice(["asc", "desc"]),
            "startedAfter": "2026-01-01T00:00:00Z",
            "template": rng.choice(["base", world.node, "x"]),
            "direction": rng.choice(["forward", "backward"]),
            "level": rng.choice(["debug", "info", "warn", "error"]),
            "search": rng.choice(["sandbox", "created", ""]),
            "metric": rng.choice(["concurrent_sandboxes", "sandbox_start_rate"]),
            "orderAsc": rng.choice(["true", "false"]),
        }.get(name, word(rng))

    # Bodies.

    def resolve(self, schema):
        while "$ref" in schema:
            schema = self.document["components"]["schemas"][schema["$ref"].rsplit("/", 1)[1]]
        return schema

    def sample(self, rng, schema, world, team, name=""):
        """A value that fits, and that is mostly available."""
        schema = self.resolve(schema)
        for choice in ("oneOf", "anyOf", "allOf"):
            if choice in schema:
                return self.sample(rng, rng.choice(schema[choice]), world, team, name)
        if name in FIT:
            return FIT[name](rng, team)
        kind = schema.get("type", "object")
        kind = next((k for k in kind if k != "null"), "null") if isinstance(kind, list) else kind
        if kind == "object":
            made = {}
            for key, inner in schema.get("properties", {}).items():
                if key in schema.get("required", []) or rng.random() < PRESENT.get(key, 0.3):
                    made[key] = self.sample(rng, inner, world, team, key)
            if "additionalProperties" in schema:
                count = rng.randrange(4)
                inner = schema["additionalProperties"]
                made |= {word(rng): self.sample(rng, inner, world, team) for _ in range(count)}
            return made
        if kind == "array":
            return [self.sample(rng, schema["items"], world, team) for _ in range(rng.randrange(3))]
        if kind == "integer":
            return rng.randint(schema.get("minimum", 0), schema.get("maximum", 1000))
        return {"boolean": rng.random() < 0.5, "string": word(rng), "number": rng.random()}.get(
            kind
        )

    def misfit(self, schema, value, where=""):
        """Where an answer differs from the document; none where it does not."""
        schema = self.resolve(schema)
        kinds = schema.get("type")
        if kinds is None:
            return None
        kinds = kinds if isinstance(kinds, list) else [kinds]
        if not any(IS[kind](value) for kind in kinds):
            return f"{where or '/'} is not {'/'.join(kinds)}"
        if isinstance(value, list):
            found = (
                self.misfit(schema.get("items", {}), v, f"{where}/{i}") for i, v in enumerate(value)
            )
            return next((misfit for misfit in found if misfit), None)
        if isinstance(value, dict):
            for key in schema.get("required", []):
                if key not in value:
                    return f"{where}/{key} is missing"
            known = schema.get("properties", {})
            found = (
                self.misfit(known[k], v, f"{where}/{k}") for k, v in value.items() if k in known
            )
            return next((misfit for misfit in found if misfit), None)
        return None


IS = {
    "object": lambda v: isinstance(v, dict),
    "array": lambda v: isinstance(v, list),
    "string": lambda v: isinstance(v, str),
    "boolean": lambda v: isinstance(v, bool),
    "integer": lambda v: isinstance(v, int) and not isinstance(v, bool),
    "number": lambda v: isinstance(v, (int, float)) and not isinstance(v, bool),
    "null": lambda v: v is None,
}

ADDRESSES = ["1.1.1.1", "8.8.8.8", "93.184.216.0/24", "10.0.0.0/8"]
# What fits where the schema alone does not say it.
FIT = {
    "templateID": lambda rng, team: "base",
    "timeout": lambda rng, team: rng.choice([60, 300, 3000]),
    "metadata": lambda rng, team: {"mark": team.marker, word(rng): word(rng)},
    "envVars": lambda rng, team: {"MARK": team.marker, word(rng).upper(): word(rng)},
    "autoPause": lambda rng, team: False,
    "autoPauseMemory": lambda rng, team: True,
    "autoResume": lambda rng, team: {"enabled": False},
    "mcp": lambda rng, team: {"server": {}},
    "iam": lambda rng, team: {"tokens": {}},
    "volumeMounts": lambda rng, team: [],
    "rules": lambda rng, team: {},
    "egressProxy": lambda rng, team: None,
    "allowPublicTraffic": lambda rng, team: True,
    "allowOut": lambda rng, team: rng.sample(ADDRESSES, rng.randrange(3)),
    "denyOut": lambda rng, team: rng.choice([[], ["0.0.0.0/0"], rng.sample(ADDRESSES, 2)]),
    "dnsServers": lambda rng, team: rng.choice([[], ["8.8.8.8"]]),
    "httpsPorts": lambda rng, team: [],
}
PRESENT = {"timeout": 0.9, "metadata": 0.9, "maskRequestHost": 0.02, "memory": 0.2}


def spoilt_cursor(rng, text):
    at = rng.randrange(len(text) + 1)
    return rng.choice(
        [text[:at], text[:at] + "A" + text[at:], text[::-1], text + "==", text.swapcase()]
    )


def one_text(text):
    """Without what no query can say in UTF-8."""
    return text.encode("utf-8", "ignore").decode()


def one_line(text):
    """A header's value: line ends and NUL belong to the raw requests."""
    return one_text(text).replace("\r", "").replace("\n", "").replace("\0", "")


def security(access):
    """As the document would say it, for operations that are not in it."""
    schemes = {
        "Team": [{"ApiKeyAuth": []}],
        "TeamOrToken": [{"ApiKeyAuth": []}, {"AccessTokenAuth": []}],
        "Admin": [{"AdminApiKeyAuth": []}],
        "Anybody": [],
        "Provider": [{"AuthProviderBearerAuth": []}],
        "ProviderTeam": [{"AuthProviderBearerAuth": [], "AuthProviderTeamAuth": []}],
        "UserOrProviderTeam": [{"AccessTokenAuth": []}],
    }
    return schemes[access]


def parsed(answer):
    try:
        return json.loads(answer.body)
    except ValueError:
        return None
