"""Requests in raw bytes, so that they may be wrong."""

import json
import re
import socket

AGENT = 49983


def connect(world, seconds=10):
    return socket.create_connection((world.platform.address, world.platform.port), timeout=seconds)


def exchange(world, data, seconds=10, bytes_max=1 << 20):
    """All that comes back until the other side closes or falls silent."""
    got = bytearray()
    with connect(world, seconds) as connection:
        try:
            connection.sendall(data)
            while len(got) < bytes_max:
                piece = connection.recv(65536)
                if not piece:
                    break
                got += piece
                if len(got) < 1 << 20 and whole(bytes(got)):
                    break
        except OSError:
            pass
    return bytes(got)


def whole(got):
    """Whether one answer is there; with its length, for others end with their connection."""
    head, found, body = got.partition(b"\r\n\r\n")
    length = re.search(rb"\r\ncontent-length: *(\d+)", head.lower())
    return bool(found) and length is not None and len(body) >= int(length[1])


def status(got):
    return int(got.split(b" ", 2)[1]) if got.startswith(b"HTTP/1.") else 0


def request(method, path, headers, body=b"", host="localhost"):
    lines = [f"{method} {path} HTTP/1.1", f"Host: {host}"]
    lines += [f"{name}: {value}" for name, value in headers.items()]
    if body:
        lines.append(f"Content-Length: {len(body)}")
    return "\r\n".join([*lines, "Connection: close", "", ""]).encode() + body


def ask(world, method, path, headers, body=b"", **more):
    """Status and body."""
    if isinstance(body, dict):
        headers, body = {**headers, "Content-Type": "application/json"}, json.dumps(body).encode()
    got = exchange(world, request(method, path, headers, body, **more))
    return status(got), got.partition(b"\r\n\r\n")[2]


def at(sandbox, port=AGENT, token=None):
    """Headers that lead to a port of a sandbox."""
    id = sandbox if isinstance(sandbox, str) else sandbox.sandbox_id
    headers = {"E2b-Sandbox-Id": id, "E2b-Sandbox-Port": str(port)}
    return {**headers, "X-Access-Token": token} if token else headers


def token_of(sandbox):
    return sandbox._envd_access_token
