"""https: the stock SDKs with a domain and a key alone, certificates of all three kinds, and what
becomes of open connections when one changes."""

import contextlib
import http.client
import json
import os
import pathlib
import shutil
import socket
import ssl
import subprocess
import sys
import threading
import time

import httpx
import pytest

import host
from instance import ROOT, Instance, bare_environment, casemate, free_port

HERE = pathlib.Path(__file__).resolve().parent
DOMAIN = "casemate.localhost"


class Https(Instance):
    def __init__(self, name):
        super().__init__(name)
        self.tls_port = free_port()
        self.set("local")

    def set(self, mode, domain=DOMAIN, **settings):
        """What the next start is told."""
        self.domain = domain
        self.settings = {
            "CASEMATE_TLS_MODE": mode,
            "CASEMATE_TLS_LISTEN": f"127.0.0.1:{self.tls_port}",
            "CASEMATE_NODE_SLOT_STOCK": "4",
            **settings,
        }
        if domain != DOMAIN:
            self.settings["CASEMATE_SERVER_DOMAIN"] = f"{domain}:{self.tls_port}"

    def become(self, mode, domain=DOMAIN, **settings):
        """The same platform, started again with other settings."""
        self.process.terminate()
        self.process.wait(30)
        self.set(mode, domain, **settings)
        self.up()

    def trusting(self, ca=None, alpn=None):
        context = ssl.create_default_context(cafile=ca or self.data_dir / "ca.pem")
        if alpn:
            context.set_alpn_protocols(alpn)
        return context

    def dial(self, name=None, context=None):
        conn = socket.create_connection(("127.0.0.1", self.tls_port), timeout=20)
        try:
            context = context or self.trusting()
            return context.wrap_socket(conn, server_hostname=name or self.domain)
        except BaseException:
            conn.close()
            raise

    def visit(self, name=None, context=None, path="/health"):
        """A connection of its own each time; status and body."""
        conn = http.client.HTTPConnection(name or self.domain)
        with self.dial(name, context) as conn.sock:
            conn.request("GET", path, headers={"Connection": "close"})
            answer = conn.getresponse()
            return answer.status, answer.read()

    def shown(self, context=None):
        """The certificate that a client gets, whoever it trusts."""
        context = context or ssl._create_unverified_context()
        with self.dial(context=context) as conn:
            return conn.getpeercert(binary_form=True)


@pytest.fixture(scope="module")
def box():
    """One platform for all kinds of certificates, so that it imports its base once."""
    instance = Https("tls")
    try:
        instance.up()
        yield instance
    finally:
        instance.close()


@pytest.fixture
def local(box):
    if box.settings["CASEMATE_TLS_MODE"] != "local":
        box.become("local")
    return box


def as_client(instance, *command):
    """A program that knows a domain, a key and whom to trust. Names below `localhost` are in an
    /etc/hosts of its own, to which it adds."""
    hosts = ROOT / f"hosts-{os.getpid()}"
    shutil.copy("/etc/hosts", hosts)
    told = instance.credentials()
    known = ["E2B_DOMAIN", "E2B_API_KEY", "SSL_CERT_FILE", "NODE_EXTRA_CA_CERTS"]
    environment = {name: told[name] for name in known}
    laid = ["unshare", "--mount", "--propagation", "private", "sh", "-c"]
    laid += ['mount --bind "$0" /etc/hosts && exec "$@"', str(hosts)]
    try:
        ran = subprocess.run(
            [*laid, *command], env={**environment, "PATH": os.environ["PATH"]},
            capture_output=True, text=True, timeout=120,
        )
    finally:
        hosts.unlink()
    assert ran.returncode == 0, ran.stderr[-3000:]
    return json.loads(ran.stdout)


def test_the_python_sdk_needs_a_domain_and_a_key(local):
    told = as_client(local, sys.executable, str(HERE / "over_https.py"))
    assert told["named"] == ["E2B_API_KEY", "E2B_DOMAIN"]
    assert told["host"] == f"3000-{told['id']}.{DOMAIN}:{local.tls_port}"
    assert (told["ran"], told["read"], told["large"]) == ("42\n", "from inside", 3_000_000)
    assert told["fetched"] == told["signed"] == "from inside"
    assert told["listed"] and "CERTIFICATE_VERIFY_FAILED" in told["untrusted"]


def test_the_javascript_sdk_needs_a_domain_and_a_key(local):
    told = as_client(local, "node", str(HERE.parent / "sdk/js/over_https.js"))
    assert told == {"ran": "42\n", "read": "from inside", "fetched": "from inside"}


@pytest.mark.parametrize("version", [ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3])
def test_http2_and_http1_are_agreed_on(local, version):
    for offered, agreed in [(["h2", "http/1.1"], "h2"), (["http/1.1"], "http/1.1"), (None, None)]:
        context = local.trusting(alpn=offered)
        context.minimum_version = context.maximum_version = version
        with local.dial(context=context) as conn:
            assert conn.selected_alpn_protocol() == agreed
            assert conn.version() == version.name.replace("v1_", "v1.")
        for http2 in (True, False):
            with httpx.Client(verify=local.trusting(), http1=not http2, http2=http2) as client:
                answer = client.get(f"https://127.0.0.1:{local.tls_port}/health")
                assert (answer.status_code, answer.http_version == "HTTP/2") == (200, http2)


@pytest.mark.filterwarnings("ignore:.*TLSv1_1 is deprecated")
def test_older_versions_are_refused(local):
    context = ssl._create_unverified_context()
    context.maximum_version = ssl.TLSVersion.TLSv1_1
    with pytest.raises(ssl.SSLError):
        local.dial(context=context)


def test_names_are_answered_and_others_get_the_same_certificate(local):
    for name in [DOMAIN, f"api.{DOMAIN}", "localhost", "127.0.0.1", "::1"]:
        assert local.visit(name)[0] == 200, name
    with pytest.raises(ssl.SSLCertVerificationError, match="not valid for 'other.example'"):
        local.dial("other.example")
    assert local.visit(f"3000-{'i' * 20}.{DOMAIN}")[0] == 502


def test_http_on_the_port_of_https_is_told(local):
    conn = http.client.HTTPConnection("127.0.0.1", local.tls_port, timeout=20)
    conn.request("GET", "/health")
    answer = conn.getresponse()
    assert (answer.status, answer.read()) == (
        400, b"This port speaks https, and the request was http.\n",
    )


def test_what_is_secret_is_roots_and_what_is_not_is_everybodys(local):
    for name, mode in [("secrets/tls_authority.json", 0o600), ("ca.pem", 0o644), ("ca-bundle.pem", 0o644)]:
        stat = (local.data_dir / name).stat()
        assert (stat.st_uid, stat.st_mode & 0o777) == (0, mode), name
    for name in ["ca.pem", "ca-bundle.pem"]:
        assert "PRIVATE" not in (local.data_dir / name).read_text()
    # The bundle serves programs that take one file for everything.
    system = pathlib.Path("/etc/ssl/certs/ca-certificates.crt").read_text()
    assert (local.data_dir / "ca-bundle.pem").read_text().endswith(system)
    assert "PRIVATE" not in local.log.read_text(errors="replace")


def test_the_end_of_the_certificate_is_told(local):
    lines = local.get("/metrics")[2].decode().splitlines()
    ends = [line for line in lines if line.startswith("casemate_tls_certificate_end_seconds ")]
    left = int(ends[0].split()[1]) - time.time()
    assert 89 * 86400 < left <= 90 * 86400
    ran = casemate("--json", "doctor", "--data-dir", str(local.data_dir), env=bare_environment(**local.settings))
    findings = {finding["what"]: finding for finding in json.loads(ran.stdout)["findings"]}
    assert findings["https"]["state"] == "good" and "until 20" in findings["https"]["found"]


def test_half_open_handshakes_lock_nobody_out(local):
    """As many as there may be, and more, of which none says anything."""
    idle = [socket.create_connection(("127.0.0.1", local.tls_port)) for _ in range(600)]
    try:
        begun = time.monotonic()
        assert local.visit()[0] == 200
        assert time.monotonic() - begun < 2
    finally:
        for conn in idle:
            conn.close()


def test_a_start_again_keeps_the_authority(local):
    before = (local.data_dir / "ca.pem").read_text()
    local.process.terminate()
    local.process.wait(30)
    local.up()
    assert (local.data_dir / "ca.pem").read_text() == before
    assert local.visit()[0] == 200
    # And so does a control process that died.
    control = next(pid for pid, role in local.processes().items() if role == "control")
    os.kill(control, 9)
    host.until("another one serves", lambda: answers(local))


def answers(instance):
    with contextlib.suppress(OSError):
        return instance.visit()[0] == 200


def test_a_successor_takes_the_listener_of_https_too(local):
    """Nobody is refused, and what is under way ends as it began."""
    sandbox = local.create()
    sandbox.commands.run("head -c 30000000 /dev/zero > /tmp/large")
    sandbox.commands.run("cd /tmp && python3 -m http.server 3000 --bind 127.0.0.1", background=True)
    name = f"3000-{sandbox.sandbox_id}.{DOMAIN}"
    host.until("it serves", lambda: local.visit(name, path="/")[0] == 200)
    over, failed, done = threading.Event(), [], [0]

    def visitors():
        while not over.is_set():
            try:
                assert local.visit()[0] == 200
                done[0] += 1
            except Exception as error:
                failed.append(repr(error))

    threads = [threading.Thread(target=visitors) for _ in range(3)]
    for thread in threads:
        thread.start()
    try:
        with begin_download(local, name) as download:
            former = local.take_over()
            assert former.wait(20) == 0
            before = done[0]
            host.until("they go on", lambda: done[0] > before + 3)
            assert rest_of(download) == 30_000_000
    finally:
        over.set()
        for thread in threads:
            thread.join(30)
    assert failed == [], failed[:3]
    local.end_all()


class begin_download:
    """A request whose answer nobody has read yet."""

    def __init__(self, instance, name, context=None):
        self.conn = instance.dial(name, context)
        self.conn.settimeout(30)
        self.conn.sendall(f"GET /large HTTP/1.1\r\nHost: {name}\r\nConnection: close\r\n\r\n".encode())
        self.head = self.conn.recv(1)

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.conn.close()


def rest_of(download):
    # Records are small, so pieces are many.
    pieces = [download.head]
    while piece := download.conn.recv(1 << 20):
        pieces.append(piece)
    head, body = b"".join(pieces).split(b"\r\n\r\n", 1)
    assert head.split()[1] == b"200", head
    return len(body)


def make_pair(folder, ca, *names):
    """Signed by an authority that lies in `ca`, made at its first use."""
    run = lambda *args: subprocess.run(args, check=True, capture_output=True)
    key = ["-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes"]
    if not (ca / "ca.pem").exists():
        ca.mkdir(parents=True, exist_ok=True)
        run("openssl", "req", "-x509", *key, "-keyout", str(ca / "ca.key"), "-out", str(ca / "ca.pem"),
            "-days", "5", "-subj", "/CN=authority of a test", "-addext", "keyUsage=critical,keyCertSign")
    folder.mkdir(parents=True, exist_ok=True)
    request, names_file = folder / "request", folder / "names"
    names_file.write_text("subjectAltName=" + ",".join(names) + "\n")
    run("openssl", "req", *key, "-keyout", str(folder / "key.pem"), "-out", str(request), "-subj", "/CN=test")
    run("openssl", "x509", "-req", "-in", str(request), "-CA", str(ca / "ca.pem"), "-CAkey",
        str(ca / "ca.key"), "-days", "5", "-extfile", str(names_file), "-out", str(folder / "chain.pem"))
    return folder


@pytest.fixture(scope="module")
def scratch():
    """Where the control process, which is nobody, can read."""
    made = ROOT / f"tls-{os.getpid()}"
    made.mkdir(parents=True)
    yield made
    shutil.rmtree(made)


def test_files_that_change_are_followed_and_broken_ones_are_not(box, scratch):
    names = ["DNS:box.example", "DNS:*.box.example"]
    pairs = [make_pair(scratch / f"pair-{n}", scratch / "ca", *names) for n in range(2)]
    live = scratch / "live"
    live.mkdir()
    put = lambda pair, name: os.replace(shutil.copy(pair / name, live / "new"), live / name)
    for name in ["chain.pem", "key.pem"]:
        put(pairs[0], name)
    der = [ssl.PEM_cert_to_DER_cert((pair / "chain.pem").read_text()) for pair in pairs]
    # Root reads the key, and nobody else.
    os.chmod(live / "key.pem", 0o600)
    box.become(
        "files", "box.example",
        CASEMATE_TLS_CERTIFICATE=str(live / "chain.pem"), CASEMATE_TLS_KEY=str(live / "key.pem"),
    )
    context = box.trusting(scratch / "ca/ca.pem")
    assert "SSL_CERT_FILE" not in box.credentials()
    sandbox = box.create()
    sandbox.commands.run("head -c 30000000 /dev/zero > /tmp/large")
    sandbox.commands.run("cd /tmp && python3 -m http.server 3000", background=True)
    name = f"3000-{sandbox.sandbox_id}.box.example"
    host.until("it serves", lambda: box.visit(name, context, "/")[0] == 200)
    with begin_download(box, name, context) as download:
        # A chain without its key, as for the moment between two copies, or for good.
        put(pairs[1], "chain.pem")
        host.until("it is told", lambda: "the new certificate is not used" in box.said())
        assert box.shown() == der[0]
        put(pairs[1], "key.pem")
        host.until("it is taken", lambda: box.shown() == der[1])
        assert box.visit(context=context)[0] == 200
        (live / "key.pem").write_text("no key")
        time.sleep(3)
        assert box.shown() == der[1]
        assert rest_of(download) == 30_000_000
    # A control process that starts again knows what was good.
    control = next(pid for pid, role in box.processes().items() if role == "control")
    os.kill(control, 9)
    host.until("another one serves", lambda: answers_as(box, context))
    assert box.shown() == der[1]
    # And a successor that could show nothing is refused before anybody makes room for it.
    former, mark = box.process, box.mark
    box.spawn("--take-over")
    assert box.process.wait(20) == 1 and "cannot be used" in box.said()
    box.process, box.mark = former, mark
    assert former.poll() is None and box.visit(context=context)[0] == 200
    box.end_all()


def answers_as(instance, context):
    with contextlib.suppress(OSError):
        return instance.visit(context=context)[0] == 200


class Authority:
    """Debian's `pebble`, which looks at our names, with a name server that says they are here."""

    def __init__(self, scratch, http_port, seconds=None):
        self.dir = scratch / f"pebble-{http_port}"
        pair = make_pair(self.dir, scratch / "ca", "IP:127.0.0.1")
        ports = self.port, managed, dns, self.records = [free_port() for _ in range(4)]
        settings = {
            "listenAddress": f"127.0.0.1:{ports[0]}",
            "managementListenAddress": f"127.0.0.1:{managed}",
            "certificate": str(pair / "chain.pem"),
            "privateKey": str(pair / "key.pem"),
            "httpPort": http_port,
            "tlsPort": free_port(),
        }
        if seconds:
            settings["certificateValidityPeriod"] = seconds
        config = self.dir / "config.json"
        config.write_text(json.dumps({"pebble": settings}))
        self.ca = scratch / "ca/ca.pem"
        self.managed = managed
        names = ["pebble-challtestsrv", "-http01", "", "-https01", "", "-tlsalpn01", "", "-defaultIPv6", ""]
        names += ["-dns01", f"127.0.0.1:{dns}", "-management", f"127.0.0.1:{self.records}"]
        pebble = ["pebble", "-config", str(config), "-dnsserver", f"127.0.0.1:{dns}"]
        self.log = open(ROOT / "logs/pebble.log", "ab")
        quick = {**os.environ, "PEBBLE_VA_NOSLEEP": "1"}
        start = lambda command: subprocess.Popen(command, stdout=self.log, stderr=self.log, env=quick)
        self.processes = [start(names), start(pebble)]

    def settings(self, **more):
        return {
            "CASEMATE_TLS_ACME_DIRECTORY": f"https://127.0.0.1:{self.port}/dir",
            "CASEMATE_TLS_ACME_CA": str(self.ca),
            "CASEMATE_TLS_ACME_TERMS_AGREED": "true",
            "CASEMATE_TLS_ACME_CONTACT": "ops@box.example",
            **more,
        }

    def root(self):
        """What clients of its certificates trust; another one each time it starts."""
        url = f"https://127.0.0.1:{self.managed}/roots/0"
        root = self.dir / "root.pem"
        context = ssl._create_unverified_context()
        # It makes its keys first, which takes its time on a busy machine.
        host.until("pebble answers", lambda: self.fetch(url, root, context), 60)
        return root

    def fetch(self, url, to, context):
        with contextlib.suppress(OSError, httpx.HTTPError):
            to.write_text(httpx.get(url, verify=context).text)
            return True

    def __enter__(self):
        try:
            self.root()
        except BaseException:
            self.__exit__()
            raise
        return self

    def __exit__(self, *_):
        for process in self.processes:
            process.kill()
            process.wait(10)
        self.log.close()


@pytest.mark.parametrize("where", ["redirect", "main"])
def test_acme_with_a_challenge_over_http(box, scratch, where):
    port, domain = free_port(), f"{where}.example"
    more = {"CASEMATE_TLS_HTTP_LISTEN": f"127.0.0.1:{port}"} if where == "redirect" else {}
    with Authority(scratch, port if more else box.port) as authority:
        box.become("acme", domain, **authority.settings(**more))
        context = box.trusting(authority.root())
        host.until("a certificate", lambda: answers_as(box, context), 30)
        for name in [domain, f"api.{domain}", f"sandbox.{domain}"]:
            assert box.visit(name, context)[0] == 200, name
        assert box.get("/.well-known/acme-challenge/nothing")[0] == 404
        kept = box.shown()
        for path in ["account.json", "certificate.pem"]:
            assert (box.data_dir / "control/acme" / path).stat().st_mode & 0o777 == 0o600
        if more:
            conn = http.client.HTTPConnection("127.0.0.1", port, timeout=20)
            conn.request("GET", "/a?b=c", headers={"Host": domain})
            answer = conn.getresponse()
            to = f"https://{domain}:{box.tls_port}/a?b=c"
            assert (answer.status, answer.headers["location"]) == (308, to)
        # What is there is used, and nobody is asked again.
        former = box.take_over()
        assert former.wait(20) == 0
        assert box.shown() == kept and "got a certificate" not in box.said()


def test_acme_with_a_record_renewed_ahead(box, scratch):
    """The wildcard, and a certificate so short that it must be renewed while we look."""
    hook, calls = scratch / "hook", scratch / "calls"
    with Authority(scratch, free_port(), seconds=30) as authority:
        calls.touch()
        os.chmod(calls, 0o666)
        hook.write_text(
            "#!/bin/sh\nset -e\n"
            f'echo "$(id -un) $1 $2" >> {calls}\n'
            'case $1 in present) to=set-txt;; cleanup) to=clear-txt;; esac\n'
            f'curl -sSf -d "{{\\"host\\":\\"$2.\\",\\"value\\":\\"$3\\"}}" http://127.0.0.1:{authority.records}/$to\n'
        )
        os.chmod(hook, 0o755)
        box.become("acme", "record.example", **authority.settings(
            CASEMATE_TLS_ACME_CHALLENGE="dns-01",
            CASEMATE_TLS_ACME_DNS_HOOK=str(hook),
            CASEMATE_TLS_ACME_DNS_WAIT_SECONDS="0",
        ))
        context = box.trusting(authority.root())
        host.until("a certificate", lambda: answers_as(box, context), 30)
        assert box.visit("49983-abc.record.example", context)[0] == 502
        first = box.shown()
        host.until("another one", lambda: box.shown() != first, 40)
        assert box.visit("api.record.example", context)[0] == 200
        told = calls.read_text().split("\n")
        assert "casemate present _acme-challenge.record.example" in told
        assert "casemate cleanup _acme-challenge.record.example" in told


def test_an_authority_that_is_away_costs_https_and_nothing_else(box):
    box.become(
        "acme", "away.example",
        CASEMATE_TLS_ACME_DIRECTORY=f"https://127.0.0.1:{free_port()}/dir",
        CASEMATE_TLS_ACME_TERMS_AGREED="true",
    )
    host.until("it is told", lambda: "no certificate could be had" in box.said())
    sandbox = box.create()
    assert sandbox.commands.run("echo here").stdout == "here\n"
    box.kill(sandbox.sandbox_id)
    with pytest.raises(ssl.SSLError):
        box.shown()


def test_settings_that_cannot_work_are_refused_before_anything_is_made(scratch):
    for settings, part in [
        ({"CASEMATE_TLS_MODE": "local", "CASEMATE_SERVER_DOMAIN": "localhost:8443"}, "has one label"),
        ({"CASEMATE_TLS_MODE": "acme"}, "acme_terms_agreed"),
        (
            {
                "CASEMATE_TLS_MODE": "files",
                "CASEMATE_TLS_CERTIFICATE": str(scratch / "nothing"),
                "CASEMATE_TLS_KEY": str(scratch / "nothing"),
            },
            "cannot read",
        ),
    ]:
        ran = casemate("up", "--data-dir", str(scratch / "none"), "--listen", f"127.0.0.1:{free_port()}",
                       env=bare_environment(**settings))
        assert ran.returncode == 1 and part in ran.stderr, ran.stderr


def test_https_is_turned_on_by_a_successor(box):
    """From a platform that has none, whose message is that of earlier versions; and off again."""
    box.become("off")
    sandbox = box.create()
    assert box.credentials()["E2B_DOMAIN"] == f"localhost:{box.port}"
    box.set("local")
    assert box.take_over().wait(20) == 0
    assert box.visit()[0] == 200
    assert box.credentials()["E2B_DOMAIN"] == f"{DOMAIN}:{box.tls_port}"
    assert sandbox.commands.run("echo still").stdout == "still\n"
    box.set("off")
    assert box.take_over().wait(20) == 0
    with pytest.raises(OSError):
        box.dial()
    assert sandbox.commands.run("echo still").stdout == "still\n"
    box.end_all()
