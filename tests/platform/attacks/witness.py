"""Says what arrives in a network namespace: listens, answers, and writes all of it to a file.

witness.py FILE [sniff] [serve] [web] [dns ADDRESS…]     one line `ready` when it does
"""

import socket
import struct
import sys
import threading

PORT = 8765
GROUP = "239.77.1.2"
REBIND = "169.254.169.254"
FILE = open(sys.argv[1], "ab", buffering=0)


def sniff():
    link = socket.socket(socket.AF_PACKET, socket.SOCK_RAW, socket.htons(3))
    yield
    while True:
        frame, address = link.recvfrom(65536)
        # Not what goes out from here.
        if address[2] != 4:
            FILE.write(frame)


def udp(family, where):
    one = socket.socket(family, socket.SOCK_DGRAM)
    if family == socket.AF_INET6:
        one.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
    one.bind((where, PORT))
    if family == socket.AF_INET:
        for number, _ in socket.if_nameindex():
            joined = struct.pack("4s4si", socket.inet_aton(GROUP), bytes(4), number)
            try:
                one.setsockopt(socket.IPPROTO_IP, socket.IP_ADD_MEMBERSHIP, joined)
            except OSError:
                # More links than the kernel joins for one socket.
                break
    yield
    while True:
        data, address = one.recvfrom(65536)
        FILE.write(data)
        answer_to(one, address)


def answer_to(one, address):
    try:
        one.sendto(b"ok", address)
    except OSError:
        # A false sender's address leads nowhere.
        pass


def tcp(family, where):
    one = socket.socket(family, socket.SOCK_STREAM)
    one.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    if family == socket.AF_INET6:
        one.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
    one.bind((where, PORT))
    one.listen(64)
    yield
    while True:
        connection, _ = one.accept()
        threading.Thread(target=answer, args=(connection,), daemon=True).start()


def answer(connection):
    connection.settimeout(5)
    try:
        FILE.write(connection.recv(4096))
        connection.sendall(b"ok")
    except OSError:
        pass
    connection.close()


def web(port):
    """Says which address of it was asked, to whoever asks."""
    listener = socket.create_server(("0.0.0.0", port))
    yield
    while True:
        connection, _ = listener.accept()
        threading.Thread(target=answer_web, args=(connection,), daemon=True).start()


def answer_web(connection):
    connection.settimeout(5)
    where = connection.getsockname()[0].encode()
    head = b"HTTP/1.1 200 OK\r\nContent-Type: text/plain\r\n"
    try:
        said = connection.recv(4096)
        FILE.write(b"<" + where + b" heard " + said + b">")
        connection.sendall(head + b"Content-Length: %d\r\n\r\n" % len(where) + where)
        # What comes on the same connection later is heard too.
        while said := connection.recv(4096):
            FILE.write(b"<" + where + b" heard " + said + b">")
    except OSError:
        pass
    connection.close()


def reply(asked, where):
    """The metadata service's address for `rebind.test`, this server's for all else."""
    FILE.write(b"<" + where.encode() + b" asked " + asked[12:] + b">")
    address = REBIND if b"rebind" in asked else where
    end = asked.index(b"\0", 12) + 5
    head = asked[:2] + struct.pack("!5H", 0x8180, 1, 1, 0, 0)
    return head + asked[12:end] + struct.pack("!HHHIH", 0xC00C, 1, 1, 1, 4) + socket.inet_aton(address)


def dns(where):
    one = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    one.bind((where, 53))
    yield
    while True:
        asked, address = one.recvfrom(4096)
        if len(asked) > 12:
            one.sendto(reply(asked, where), address)


def dns_tcp(where):
    listener = socket.create_server((where, 53))
    yield
    while True:
        connection, _ = listener.accept()
        with connection:
            connection.settimeout(3)
            try:
                asked = connection.recv(4096)[2:]
                said = reply(asked, where)
                connection.sendall(struct.pack("!H", len(said)) + said)
            except (OSError, ValueError):
                pass


def main():
    begun = []
    if "sniff" in sys.argv:
        begun.append(sniff())
    if "serve" in sys.argv:
        for kind in (udp, tcp):
            begun += [kind(socket.AF_INET, "0.0.0.0"), kind(socket.AF_INET6, "::")]
    if "web" in sys.argv:
        begun += [web(port) for port in (80, 443, 853)]
    if "dns" in sys.argv:
        for where in sys.argv[sys.argv.index("dns") + 1 :]:
            begun += [dns(where), dns_tcp(where)]
    threads = []
    for one in begun:
        next(one)
        threads.append(threading.Thread(target=lambda one=one: next(one, None), daemon=True))
    for thread in threads:
        thread.start()
    print("ready", flush=True)
    sys.stdin.read()


if __name__ == "__main__":
    main()
