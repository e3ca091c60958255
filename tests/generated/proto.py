"""Messages of the agent in binary, encoded by its own `.proto` files."""

import base64
import pathlib
import re
import struct

WHERE = pathlib.Path(__file__).resolve().parents[2] / "crates" / "envd-wire" / "proto"
TOKEN = re.compile(r'//[^\n]*|"[^"]*"|[\w.]+|[{}=;<>,()]')
WIRE_TYPES = {"uint32": 0, "int32": 0, "int64": 0, "sint32": 0, "bool": 0}


class Messages:
    """`fields[message]`: JSON name → (number, type, kind), kind one of `one`, `many`, `map`."""

    def __init__(self):
        self.fields, self.enums, self.rpcs = {}, {}, {}
        for path in sorted(WHERE.glob("*.proto")):
            tokens = [t for t in TOKEN.findall(path.read_text()) if not t.startswith("//")]
            self.package = path.stem
            self.read(iter(tokens), [])

    def read(self, tokens, inside):
        for token in tokens:
            if token == "}":
                return
            if token in ("message", "enum", "service", "oneof"):
                self.block(token, tokens, inside)
            elif token == "rpc":
                self.rpc(tokens, inside)
            elif token in ("syntax", "package", "import", "option"):
                until(tokens, ";")
            else:
                self.field(token, tokens, inside)

    def block(self, kind, tokens, inside):
        name = next(tokens)
        next(tokens)
        if kind == "oneof":
            return self.read(tokens, inside)
        path = [*inside, name]
        if kind == "enum":
            words = until(tokens, "}")
            pairs = zip(words[0::4], words[2::4], strict=False)
            self.enums[name] = {word: int(number) for word, number in pairs}
            return None
        self.fields.setdefault(".".join(path), {})
        return self.read(tokens, path)

    def rpc(self, tokens, inside):
        name, words = next(tokens), until(tokens, ";")
        request, response = "".join(words).strip("()").split(")returns(")
        streams = request.startswith("stream"), response.startswith("stream")
        path = f"/{self.package}.{inside[-1]}/{name}"
        self.rpcs[path] = (request.removeprefix("stream"), *streams)

    def field(self, first, tokens, inside):
        words = [first, *until(tokens, ";")]
        kind = "one"
        if words[0] == "map":
            kind, words = "map", ["map", *words[6:]]
        elif words[0] in ("repeated", "optional"):
            kind = "many" if words[0] == "repeated" else "one"
            words = words[1:]
        type_, name, _, number = words
        self.fields[".".join(inside)][camel(name)] = (int(number), type_, kind)

    def find(self, type_, inside):
        """A message by its name as seen from another one."""
        path = inside.split(".")
        while path:
            if ".".join([*path, type_]) in self.fields:
                return ".".join([*path, type_])
            path.pop()
        return type_

    def encode(self, message, value):
        out = b""
        for name, item in value.items():
            number, type_, kind = self.fields[message][name]
            if kind == "map":
                for key, text in item.items():
                    pair = length_delimited(1, key.encode()) + length_delimited(2, text.encode())
                    out += length_delimited(number, pair)
            else:
                for one in item if kind == "many" else [item]:
                    out += self.one(message, number, type_, one)
        return out

    def one(self, message, number, type_, value):
        if type_ in self.enums:
            return varint(number << 3) + varint(self.enums[type_].get(value, 0))
        if type_ in WIRE_TYPES:
            return varint(number << 3) + varint(int(value))
        if type_ == "string":
            return length_delimited(number, value.encode())
        if type_ == "bytes":
            return length_delimited(number, base64.b64decode(value))
        found = self.find(type_, message)
        return length_delimited(number, self.encode(found, value))


def until(tokens, end):
    words = []
    for token in tokens:
        if token == end:
            return words
        words.append(token)
    raise ValueError(end)


def camel(name):
    first, *rest = name.split("_")
    return first + "".join(word.capitalize() for word in rest)


def varint(number):
    number &= (1 << 64) - 1
    out = bytearray()
    while number > 0x7F:
        out.append(number & 0x7F | 0x80)
        number >>= 7
    return bytes(out) + bytes([number])


def length_delimited(number, payload):
    return varint(number << 3 | 2) + varint(len(payload)) + payload


def spoilt(rng, encoded):
    """Bytes that are not quite this message."""
    at = rng.randrange(len(encoded) + 1)
    return rng.choice(
        [
            encoded[:at], encoded[:at] + bytes([rng.randrange(256)]) + encoded[at + 1 :],
            encoded[:at] + rng.randbytes(rng.randrange(1, 9)) + encoded[at:],
            encoded + b"\xff" * 11, encoded + length_delimited(1000, b"unknown"),
            encoded + varint(1 << 3 | 2) + varint(1 << 62),
            encoded + varint(1 << 3 | 2) + b"\x04\xff\xfe\xfd\xfc", encoded + b"\x0b" * 200,
            encoded + b"\x0a\x00" * 2000, encoded + varint(1 << 3) + varint((1 << 64) - 1),
            encoded + varint(2 << 3 | 5) + struct.pack("<f", 1.5),
            rng.randbytes(rng.randrange(200)),
        ]
    )
