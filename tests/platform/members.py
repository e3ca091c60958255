"""Members of a cluster in raw bytes: what a machine in foreign hands can say to the others."""

import json
import pathlib
import random
import socket
import ssl
import string
import struct
import subprocess
import tempfile
import threading
import time

from instance import casemate

HELLO = {"hello": {"version": 8, "oldest": 7}}
CONTROL, CALLS, DIAL, CARRY = (f"casemate-{name}/1" for name in ("control", "calls", "dial", "carry"))


def key_pair(folder):
    """Its private half as PEM, and its public one as members say it: a point in hexadecimal."""
    at = pathlib.Path(folder) / "key.pem"
    subprocess.run(["openssl", "ecparam", "-name", "prime256v1", "-genkey", "-noout", "-out", at], check=True)
    command = ["openssl", "ec", "-in", at, "-pubout", "-outform", "DER"]
    point = subprocess.run(command, check=True, capture_output=True).stdout[-65:]
    return at.read_text(), point.hex()


def frame(said):
    data = said if isinstance(said, bytes) else json.dumps(said).encode()
    return struct.pack(">I", len(data)) + data


def exactly(stream, count):
    got = b""
    while len(got) < count:
        piece = stream.recv(count - len(got))
        if not piece:
            raise EOFError
        got += piece
    return got


def heard(stream):
    """The next frame that is no sign of life."""
    while True:
        [length] = struct.unpack(">I", exactly(stream, 4))
        if length:
            return json.loads(exactly(stream, length))


def ask(stream, call, id=1):
    stream.sendall(frame({"id": id, "call": call}))
    return heard(stream)["reply"]["result"]


class Stranger:
    """Speaks TLS, and shows no certificate."""

    def context(self, protocols, server=False):
        made = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER if server else ssl.PROTOCOL_TLS_CLIENT)
        made.minimum_version = ssl.TLSVersion.TLSv1_3
        made.check_hostname, made.verify_mode = False, ssl.CERT_NONE
        made.set_alpn_protocols(protocols)
        return made

    def dial(self, port, protocol, source="127.0.0.1"):
        plain = socket.create_connection(("127.0.0.1", port), 30, source_address=(source, 0))
        return self.context([protocol]).wrap_socket(plain)

    def answers(self, port, call, protocol):
        """What it is told; `None`: its connection was closed."""
        try:
            with self.dial(port, protocol) as stream:
                return ask(stream, call)
        except (EOFError, OSError):
            return None


class Member(Stranger):
    """Joined as a machine does, by a process of its own."""

    def __init__(self, api, role, name, folder):
        self.dir = pathlib.Path(folder) / name
        place = ["--address", "127.0.0.1:1"] if role == "node" else []
        command = ["join", api.token(role), "--role", role, "--name", name, "--data-dir", self.dir]
        joined = casemate(*map(str, command), "--api", api.address, *place)
        assert joined.returncode == 0, joined.stderr
        self.identity = json.loads((self.dir / "member/identity.json").read_text())
        self.name = self.identity["member"]["name"]

    def context(self, protocols, server=False):
        made = super().context(protocols, server)
        with tempfile.NamedTemporaryFile("w") as file:
            file.write(self.identity["certificate"] + "\n" + self.identity["key"])
            file.flush()
            made.load_cert_chain(file.name)
        return made


class HostileNode(Member):
    """Its gate says what a test wants it to: answers by the call's name, and events."""

    def __init__(self, api, info, folder, name="hostile"):
        super().__init__(api, "node", name, folder)
        self.info = {**info, "node": self.name, "templates": []}
        self.answer, self.asked, self.before_synced = {}, [], ()
        self.watchers, self.got = [], []
        self.listener = socket.create_server(("127.0.0.1", 0))
        self.port = self.listener.getsockname()[1]
        threading.Thread(target=self.accept, daemon=True).start()
        _, public = key_pair(self.dir)
        place = {"address": f"127.0.0.1:{self.port}", "labels": {}, "isolation": "namespaces"}
        renewed = self.answers(api.calls, {"renew": {"public_key": public, "node": place}}, CONTROL)
        assert "Ok" in renewed, renewed

    def accept(self):
        context = self.context([CALLS, DIAL, CARRY], server=True)
        while True:
            try:
                plain, _ = self.listener.accept()
            except OSError:
                return
            threading.Thread(target=self.quietly, args=(self.serve, context, plain), daemon=True).start()

    def quietly(self, work, *args):
        try:
            work(*args)
        except (EOFError, OSError):
            pass

    def serve(self, context, plain):
        stream = context.wrap_socket(plain, server_side=True)
        if stream.selected_alpn_protocol() != CALLS:
            heard(stream)
            stream.sendall(frame({"Ok": None}))
            self.got.append(stream.recv(65536))
            stream.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: 7\r\n\r\nhostile")
            return
        turn = threading.Lock()

        def send(data):
            with turn:
                stream.sendall(data)

        def live():
            while True:
                time.sleep(2)
                send(b"\0\0\0\0")

        threading.Thread(target=self.quietly, args=(live,), daemon=True).start()
        while True:
            request = heard(stream)
            call = request["call"]
            name = call if isinstance(call, str) else next(iter(call))
            self.asked.append(name)
            send(frame({"reply": {"id": request["id"], "result": self.says(name, call)}}))
            if name in ("watch", "observe"):
                for event in self.before_synced:
                    send(frame({"event": event}))
                send(frame({"event": "synced"}))
                self.watchers.append(send)

    def says(self, name, call):
        if name in self.answer:
            return self.answer[name](call)
        said = {"hello": HELLO, "info": {"info": self.info}, "locate": {"located": None}, "layers": {"layers": []},
                "snapshots": {"snapshots": []}, "missing": {"missing": []}}
        return {"Ok": said.get(name, "done")}

    def tell(self, event):
        """To all who watch; those who left are forgotten."""
        data = frame({"event": event})
        for watcher in list(self.watchers):
            try:
                watcher(data)
            except OSError:
                self.watchers.remove(watcher)

    def close(self):
        self.listener.close()


def now(shift=0):
    return time.strftime("%Y-%m-%dT%H:%M:%S.000000Z", time.gmtime(time.time() + shift))


def running(id, team, **more):
    return {"running": {
        "sandbox": id, "team": team, "template": "base", "started_at": now(), "ends_at": now(600),
        "on_timeout": "kill", "recorded": True, **more,
    }}


CALLS_OF_ALL = [
    "info", "watch", "observe", "nodes", "time", HELLO, {"locate": {"sandbox": "iaaaaaaaaaaaaaaaaaaaa"}},
    {"kill": {"sandbox": "iaaaaaaaaaaaaaaaaaaaa", "reason": "killed"}}, {"layers": {"after": None}},
    {"dial": {"sandbox": "iaaaaaaaaaaaaaaaaaaaa", "port": 80}}, {"home": {"sandbox": "iaaaaaaaaaaaaaaaaaaaa"}},
    {"wake": {"sandbox": "iaaaaaaaaaaaaaaaaaaaa", "knock": {"for_agent": False, "access_token": [1], "traffic_token": None}}},
    {"renew": {"public_key": "04" * 65, "node": None}},
]


def noise(luck):
    """Bytes of a connection: frames as they should be, and one after which it is of no use."""
    good = [frame({"id": luck.getrandbits(64), "call": luck.choice(CALLS_OF_ALL)}) for _ in range(luck.randrange(12))]
    text = bytearray(frame({"id": 1, "call": luck.choice(CALLS_OF_ALL)}))
    for _ in range(luck.randrange(1, 6)):
        text[luck.randrange(len(text))] = luck.randrange(256)
    bad = luck.choice([
        bytes(text),
        struct.pack(">I", luck.choice([1, 2**20, 2**20 + 1, 2**31, 2**32 - 1])) + luck.randbytes(luck.randrange(200)),
        frame(luck.randbytes(luck.randrange(1, 400))),
        frame(b"[" * luck.randrange(1, 20_000)),
        frame(('{"id":1e999,"call":{"' + "".join(luck.choices(string.printable, k=30)) + '":1}}').encode()),
        b"\0" * luck.randrange(400),
        luck.randbytes(luck.randrange(1, 4)),
    ])
    return len(good) + 1, b"".join(good) + bad


def fuzz(member, port, protocol, frames, seed):
    """So many frames over as many connections as that takes."""
    luck, sent = random.Random(seed), 0
    context = member.context([protocol])
    while sent < frames:
        count, data = noise(luck)
        sent += count
        try:
            plain = socket.create_connection(("127.0.0.1", port), 30)
            with context.wrap_socket(plain) as stream:
                stream.sendall(data)
                stream.settimeout(0.01)
                while stream.recv(65536):
                    pass
        except OSError:
            pass
    return sent
