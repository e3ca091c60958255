"""Values that are right, nearly right, and not right at all."""

import gzip
import json
import string
from urllib.parse import quote

ODD_TEXTS = [
    "", " ", "a", "0", "-1", "true", "null", "base", "base:default", "../../etc/passwd", "/", "//",
    "a/b", "a/b:c", "%00", "%2F", "\0", "a\0b", "\r\nX-Injected: 1", "\n", "\t", "'", '"', "\\",
    "ä", "日本語", "🙂", "\u202e", "\ufeff", "\ud800", "\U0010ffff", "${PORT}", "{{x}}", "<script>",
    "' OR 1=1 --", "1; DROP TABLE sandboxes", "*", "*.example.com", "0.0.0.0/0", "::/0", "::1",
    "999.1.1.1", "1.2.3.4/33", "10.0.0.0/-1", "1.2.3.4", "example.com", "localhost:1", "https://x",
    "2026-01-01T00:00:00Z", "2026-13-45T99:99:99Z", "9" * 40, "1e309", "-0", "0x10", "NaN",
    "a" * 255, "a" * 256, "a" * 4096, "ä" * 5000, "x" * 70_000,
    "00000000-0000-0000-0000-000000000000",
]
ODD_NUMBERS = [
    0, -1, 1, 2, 100, 101, 1000, 1001, 3600, 3601, 86_400, 86_401, 2**31 - 1, 2**31, -(2**31),
    2**32, 2**53, 2**63 - 1, 2**63, 2**64, 10**30, -(10**30), 0.5, -0.0, 1.0, 1e10, 1e308, 5e-324,
]
LETTERS = string.ascii_lowercase + string.digits


def word(rng, size=8):
    return "".join(rng.choices(LETTERS, k=size))


def odd(rng, depth=0):
    """Any JSON value."""
    kind = rng.randrange(9)
    if kind < 2:
        return rng.choice(ODD_TEXTS)
    if kind < 4:
        return rng.choice(ODD_NUMBERS)
    if kind == 4:
        return rng.choice([None, True, False])
    if kind == 5 or depth > 3:
        return rng.choice([[], {}, [[]], [{}], {"": None}])
    if kind == 6:
        return [odd(rng, depth + 1) for _ in range(rng.randrange(4))]
    if kind == 7:
        return {rng.choice(ODD_TEXTS): odd(rng, depth + 1) for _ in range(rng.randrange(4))}
    nested = rng.choice([None, 1, "x"])
    for _ in range(rng.choice([5, 50, 120, 127, 128, 129, 200])):
        nested = [nested] if rng.random() < 0.5 else {"a": nested}
    return nested


def mutated(rng, value):
    """`value` with one thing wrong in it, somewhere."""
    if isinstance(value, dict) and value and rng.random() < 0.8:
        changed = dict(value)
        name = rng.choice(list(changed))
        kind = rng.randrange(8)
        if kind == 0:
            del changed[name]
        elif kind == 1:
            changed[rng.choice(ODD_TEXTS)] = odd(rng)
        elif kind == 2:
            changed[name.swapcase()] = changed.pop(name)
        elif kind == 3:
            changed[name] = [changed[name]]
        else:
            changed[name] = mutated(rng, changed[name])
        return changed
    if isinstance(value, list) and value and rng.random() < 0.8:
        changed = list(value)
        at = rng.randrange(len(changed))
        kind = rng.randrange(5)
        if kind == 0:
            return changed * rng.choice([2, 100, 600])
        if kind == 1:
            return {str(i): item for i, item in enumerate(changed)}
        changed[at] = mutated(rng, changed[at])
        return changed
    if isinstance(value, str) and value and rng.random() < 0.4:
        at = rng.randrange(len(value))
        return value[:at] + rng.choice(ODD_TEXTS) + value[at:]
    return odd(rng)


def written(value):
    """JSON text of it; lone surrogates stay escapes."""
    return json.dumps(value).encode()


def spoilt(rng, raw):
    """JSON text that a parser must not take, or may take in more than one way."""
    at = rng.randrange(len(raw) + 1)
    deep = rng.choice([100, 127, 128, 1000, 50_000])
    return rng.choice(
        [
            raw[:at], raw + b" x", raw + raw,
            raw[:at] + bytes([rng.randrange(256)]) + raw[at + 1 :], b"\xef\xbb\xbf" + raw,
            raw.decode("utf-8", "replace").encode("utf-16"),
            raw[:-1] + b',"timeout":1,"timeout":2}', raw[:-1] + b',"metadata":{"a":"1","a":"2"}}',
            raw[:-1] + b',"x":1e400}', raw[:-1] + b',"x":NaN}', raw[:-1] + b',"x":01}',
            raw[:-1] + b',"x":"\\ud800"}', raw[:-1] + b',"x":"\xff\xfe"}',
            raw[:-1] + b',"x":' + b"[" * deep + b"]" * deep + b"}",
            raw[:-1] + b',"x":' + b'{"a":' * deep + b"1" + b"}" * deep + b"}",
            raw[:-1] + b',"x":"' + b"a" * rng.choice([1000, 100_000, 3_000_000]) + b'"}',
            raw[:-1] + b',"x":' + b"9" * 10_000 + b"}", raw.replace(b'"', b"'"), b"[" + raw + b"]",
            b"/* */" + raw, b"\0" + raw, b" \n\t" * 1000 + raw, b"", b" ", b"null", b"[]", b"{}",
            b'""', b"0", b"templateID=base&timeout=5", gzip.compress(raw),
            rng.randbytes(rng.randrange(300)),
        ]
    )


def segment(rng, text):
    """A path segment, encoded in one of the ways that clients use or should not use."""
    kind = rng.randrange(10)
    if kind < 6:
        return quote(text, safe="")
    if kind == 6:
        return "".join(f"%{byte:02X}" for byte in text.encode("utf-8", "replace"))
    if kind == 7:
        return quote(quote(text, safe=""), safe="")
    return rng.choice(
        [
            "%ff", "%zz", "%", "%2", "%00", "%2e%2e", "..", ".", "", "%E2%82", "a%0d%0ab",
            quote("é" * 200),
        ]
    )


def query(rng, pairs):
    """Pairs as a query, rarely in an odd way."""
    coded = [f"{quote(name, safe='')}={quote(text, safe='')}" for name, text in pairs]
    if rng.random() < 0.1:
        more = ["&", "=", "%", "a=%ff", "%zz=1", "a[]=1", "a=1=2", "+", "limit", "x=" + "y" * 3000]
        coded.insert(rng.randrange(len(coded) + 1), rng.choice(more))
    return "&".join(coded)
