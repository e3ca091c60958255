"""Attacks over the network. Runs inside a sandbox as its user, and as the host's root in network
namespaces, where it also forges what no sandbox's program can send. Python's own library only.

    packets.py PLAN       PLAN is a JSON list; gives what the sender saw, by name

Whatever is sent carries the attack's token, so that whoever receives it can tell.
"""

import json
import os
import socket
import struct
import sys
import threading

WAIT = 2
# Both ends of every slot's link have this one.
LINK = "eth0"
HARDWARE = bytes.fromhex("02636d000001")


def tcp(to, port, token):
    with socket.create_connection((to, port), timeout=WAIT) as connection:
        connection.sendall(token)
        connection.settimeout(WAIT)
        return "answered" if connection.recv(2) else "closed"


def http(to, port, token):
    with socket.create_connection((to, port), timeout=WAIT) as connection:
        connection.sendall(b"GET /health HTTP/1.1\r\nHost: localhost\r\nX-Token: " + token + b"\r\n\r\n")
        return "answered" if connection.recv(2) else "closed"


def udp(to, port, token, source=None, size=0, interface=None):
    kind, _, _, _, address = socket.getaddrinfo(to, port, type=socket.SOCK_DGRAM)[0]
    with socket.socket(kind, socket.SOCK_DGRAM) as one:
        one.settimeout(WAIT)
        one.setsockopt(socket.SOL_SOCKET, socket.SO_BROADCAST, 1)
        if source:
            one.bind((source, 0))
        one.sendto(token + bytes(max(size - 2 * len(token), 0)) + token, address)
        return "answered" if one.recvfrom(65536)[0] else "closed"


def ping(to, port, token):
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM, socket.IPPROTO_ICMP) as one:
        one.settimeout(WAIT)
        one.sendto(struct.pack("!BBHHH", 8, 0, 0, 0, 1) + token, (to, 0))
        while True:
            if one.recv(4096)[0] == 0:
                return "answered"


def question(name):
    labels = b"".join(bytes([len(label)]) + label for label in name.split(b"."))
    return struct.pack("!6H", 4711, 0x100, 1, 0, 0, 0) + labels + b"\0\0\1\0\1"


def dns(to, port, token):
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as one:
        one.settimeout(WAIT)
        one.sendto(question(token + b".test"), (to, port))
        return f"code {one.recv(4096)[3] & 15}"


def dns_tcp(to, port, token):
    with socket.create_connection((to, port), timeout=WAIT) as one:
        asked = question(token + b".test")
        one.sendall(struct.pack("!H", len(asked)) + asked)
        return f"code {one.recv(4096)[5] & 15}"


def text(to, port, token, says):
    """Says something over TCP, and hears the answer to its end. Whether it arrived, the witness knows."""
    with socket.create_connection((to, port), timeout=WAIT) as one:
        one.sendall(says.encode("latin-1").replace(b"TOKEN", token))
        return heard(one)


def hello(to, port, token, host=None, hides=False):
    """A TLS hello that carries the token beside the name."""
    long = lambda data: struct.pack("!H", len(data)) + data  # noqa: E731
    named = long(long(b"\0" + long(host.encode().replace(b"TOKEN", token)))) if host else b""
    extensions = struct.pack("!H", 0) + named if host else b""
    extensions += struct.pack("!H", 0xFE0D) + long(bytes(40)) if hides else b""
    extensions += struct.pack("!H", 0x1234) + long(token)
    body = b"\3\3" + bytes(32) + b"\0" + long(b"\x13\1") + b"\1\0" + long(extensions)
    message = b"\1" + struct.pack("!I", len(body))[1:] + body
    with socket.create_connection((to, port), timeout=WAIT) as one:
        one.sendall(b"\x16\3\1" + long(message))
        return heard(one)


def heard(connection):
    """In short; not whether it is what was wanted."""
    said = b""
    connection.settimeout(WAIT)
    try:
        while piece := connection.recv(4096):
            said += piece
    except TimeoutError:
        pass
    return f"heard {said[:60]!r}"


# Forged. The sender needs the right to make packets, which no sandbox has.


def checksum(data):
    total = sum(struct.unpack(f"!{len(data) // 2}H", data))
    total = (total & 0xFFFF) + (total >> 16)
    return ~(total + (total >> 16)) & 0xFFFF


def packet(source, to, protocol, payload, fragment=0, number=4711):
    head = struct.pack(
        "!BBHHHBBH4s4s",
        0x45,
        0,
        20 + len(payload),
        number,
        fragment,
        64,
        protocol,
        0,
        socket.inet_aton(source),
        socket.inet_aton(to),
    )
    return head[:10] + struct.pack("!H", checksum(head)) + head[12:] + payload


def send_frames(frames, kind=0x0800, to=HARDWARE):
    with socket.socket(socket.AF_PACKET, socket.SOCK_RAW, socket.htons(kind)) as link:
        link.bind((LINK, kind))
        own = link.getsockname()[4]
        for frame in frames:
            link.send(to + own + struct.pack("!H", kind) + frame)
    return "sent"


def fresh():
    """A number that no pieces of an earlier datagram wait under: the kernel puts them together."""
    return int.from_bytes(os.urandom(2), "big")


def datagram(port, payload):
    return struct.pack("!4H", 40000, port, 8 + len(payload), 0) + payload


def forged_udp(to, port, token, source):
    return send_frames([packet(source, to, 17, datagram(port, token))])


def forged_fragments(to, port, token, source):
    """The ports are in a first fragment of eight bytes, the rest comes in pieces, backwards."""
    whole = datagram(port, token + bytes(-len(token) % 8))
    pieces = [whole[at : at + 8] for at in range(0, len(whole), 8)]
    last, number = len(pieces) - 1, fresh()
    return send_frames(
        [
            packet(source, to, 17, piece, (at if at == last else 0x2000 | at), number)
            for at, piece in reversed(list(enumerate(pieces)))
        ]
    )


def forged_overlap(to, port, token, source):
    """A first fragment to an open port, and a second one that writes a closed port over it."""
    harmless, real = datagram(53, bytes(24)), datagram(port, token + bytes(-len(token) % 8))
    number = fresh()
    return send_frames(
        [
            packet(source, to, 17, harmless[:16], 0x2000, number),
            packet(source, to, 17, real[:16], 0x2000, number),
            packet(source, to, 17, real[16:], 2, number),
        ]
    )


def forged_protocol(to, port, token, source):
    for protocol in (47, 50, 132, 4):
        send_frames([packet(source, to, protocol, token)])
    return "sent"


def forged_tcp(to, port, token, source):
    """The middle of a connection that never began."""
    head = struct.pack("!HHIIBBHHH", 40000, port, 1, 1, 0x50, 0x18, 1024, 0, 0)
    false = socket.inet_aton(source) + socket.inet_aton(to) + struct.pack("!BBH", 0, 6, 20 + len(token))
    sum_ = checksum(false + head + token + bytes(len(token) % 2))
    return send_frames([packet(source, to, 6, head[:16] + struct.pack("!H", sum_) + head[18:] + token)])


def forged_error(to, port, token, source):
    """Says to another sandbox that its packets do not fit."""
    inner = packet(to, source, 17, datagram(port, b""))
    body = struct.pack("!BBHHH", 3, 4, 0, 0, 68) + inner + token + bytes(len(token) % 2)
    body = body[:2] + struct.pack("!H", checksum(body)) + body[4:]
    return send_frames([packet(source, to, 1, body)])


def forged_arp(to, port, token, source):
    """Claims an address for a card that nobody has."""
    card = bytes.fromhex("020000c0ffee")
    claim = struct.pack("!HHBBH", 1, 0x0800, 6, 4, 2) + card + socket.inet_aton(source)
    return send_frames([claim + HARDWARE + socket.inet_aton(to)] * 3, 0x0806, b"\xff" * 6)


def run(plan, found):
    plan = dict(plan)
    name, kind, token = plan.pop("name"), plan.pop("kind"), plan.pop("token").encode()
    try:
        found[name] = globals()[kind](token=token, **plan)
    except TimeoutError:
        found[name] = "silence"
    except OSError as error:
        found[name] = error.strerror or str(error)


def main():
    found = {}
    threads = [threading.Thread(target=run, args=(plan, found)) for plan in json.loads(sys.argv[1])]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    print(json.dumps(found), flush=True)


if __name__ == "__main__":
    main()
    os._exit(0)
