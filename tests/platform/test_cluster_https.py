"""API servers and edges whose clients come over https."""

import http.client
import json
import os
import socket
import ssl
import subprocess
import sys

import pytest

import host
from cluster import Api, Node
from edges import Edge
from instance import ROOT, free_port
from servers import Postgres, Redis

DOMAIN = "casemate.localhost"
# A process of its own: what it trusts is said by its environment.
CLIENT = """
import json, os
import e2b

options = json.loads(os.environ["OPTIONS"])
sandbox = e2b.Sandbox.create(timeout=120, **options)
sandbox.files.write("/home/user/page/index.html", "from inside")
serve = "cd /home/user/page && python3 -m http.server 3000 --bind 127.0.0.1"
sandbox.commands.run(serve, background=True)
ran = sandbox.commands.run("echo $((6 * 7))").stdout
print(json.dumps({"id": sandbox.sandbox_id, "ran": ran}))
"""


def https():
    return {"CASEMATE_TLS_MODE": "local", "CASEMATE_TLS_LISTEN": f"127.0.0.1:{free_port()}"}


@pytest.fixture(scope="module")
def parts():
    with Postgres() as postgres, Redis() as redis:
        api = Api("s1", **postgres.database("cluster"), **redis.settings, **https())
        node = Node("s1", [api])
        edge = Edge("se1", [api], **redis.settings, **https())
        try:
            api.up()
            node.settings["JOIN_TOKEN"] = api.token("node")
            edge.settings["JOIN_TOKEN"] = api.token("edge")
            node.up()
            edge.up()
            host.until("sandboxes can be made", lambda: api.get("/ready")[0] == 200, 60)
            yield api, edge
        finally:
            node.close()
            edge.close()
            api.close()


def url(part):
    return f"https://{part.settings['CASEMATE_TLS_LISTEN']}"


def visit(part, name, ca, **headers):
    """Over https to a name, which is looked up nowhere; status and body."""
    at, port = part.settings["CASEMATE_TLS_LISTEN"].split(":")
    conn = http.client.HTTPConnection(f"{name}:{port}")
    context = ssl.create_default_context(cafile=ca)
    with context.wrap_socket(socket.create_connection((at, int(port)), 20), server_hostname=name) as conn.sock:
        conn.request("GET", "/", headers={"Connection": "close", **headers})
        answer = conn.getresponse()
        return answer.status, answer.read().decode()


def test_the_stock_sdk_runs_a_command_over_https(parts):
    api, edge = parts
    bundle = ROOT / f"cluster-https-{os.getpid()}.pem"
    bundle.write_text("".join((part.data_dir / "ca.pem").read_text() for part in parts))
    options = {"api_key": api.client["api_key"], "api_url": url(api), "sandbox_url": url(edge), "domain": DOMAIN}
    environment = {**os.environ, "OPTIONS": json.dumps(options), "SSL_CERT_FILE": str(bundle)}
    try:
        ran = subprocess.run(
            [sys.executable, "-c", CLIENT], env=environment, capture_output=True, text=True, timeout=120
        )
    finally:
        bundle.unlink()
    assert ran.returncode == 0, ran.stderr
    told = json.loads(ran.stdout)
    assert told["ran"] == "42\n"
    try:
        # A service of it, by its name, through the edge's certificate for all names of the domain.
        name, ca = f"3000-{told['id']}.{DOMAIN}", edge.data_dir / "ca.pem"
        host.until("the service answers", lambda: visit(edge, name, ca) == (200, "from inside"))
        # The other's authority vouches for itself alone.
        with pytest.raises(ssl.SSLCertVerificationError):
            visit(edge, name, api.data_dir / "ca.pem")
        # The http listeners stay as they are.
        assert edge.into(told["id"], 3000) == (200, "from inside")
        assert told["id"] in api.listed()
    finally:
        assert api.kill(told["id"])
