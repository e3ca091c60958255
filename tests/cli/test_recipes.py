"""The recipes of templates/ and the examples of examples/, as their READMEs say they are used. What they
begin with comes from a mirror: tests/registry/slim.py."""

import json
import os
import pathlib
import re
import subprocess
import sys
import uuid

import pytest

ROOT = pathlib.Path(__file__).parents[2]
CASEMATE = os.environ["CASEMATE"]

pytestmark = pytest.mark.skipif(os.environ.get("CASEMATE_TEST_INTERNET") != "1", reason="CASEMATE_TEST_INTERNET is not 1")


def casemate(*args, timeout=600):
    ran = subprocess.run([CASEMATE, *args], stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=timeout)
    assert ran.returncode == 0, (args, ran.stdout[-500:], ran.stderr[-3000:])
    return ran.stdout


@pytest.fixture
def inside(request):
    """Builds a recipe and runs scripts in a sandbox of it."""
    recipe, *options = request.param
    name = f"{recipe}-{uuid.uuid4().hex[:8]}"
    casemate("template", "build", "--context", str(ROOT / "templates" / recipe), *options, name)
    made = json.loads(casemate("--json", "sandbox", "create", "--template", name, "--timeout", "300"))
    yield lambda script: casemate("sandbox", "exec", made["sandboxID"], "--", "bash", "-c", script)
    casemate("sandbox", "kill", made["sandboxID"])
    casemate("template", "delete", name)


@pytest.mark.parametrize("inside", [("base",)], indirect=True)
def test_base(inside):
    assert inside("id -un; pwd; python3 -c 'print(6 * 7)'; node -p '6 * 7'; gcc --version >/dev/null; npm --version >/dev/null; git --version >/dev/null") == "user\n/home/user\n42\n42\n"


@pytest.mark.parametrize("inside", [("node",)], indirect=True)
def test_node(inside):
    assert inside("id -un; pwd; node; command -v git curl ss ps | wc -l") == "user\n/home/user\nv22.0.0\n4\n"


@pytest.mark.parametrize("inside", [("python",)], indirect=True)
def test_python(inside):
    said = inside("id -un; python3 -c 'import numpy, pandas, requests; print(pandas.Series(numpy.arange(4)).sum())'; ls /tmp")
    assert said == "user\n6\n"


@pytest.mark.parametrize("inside", [("httpbin", "--ready", "curl -fs http://127.0.0.1:8080/health")], indirect=True)
def test_httpbin(inside):
    asked = lambda rest: inside(f"curl -s http://127.0.0.1:8080{rest}")
    for method in ("GET", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"):
        said = json.loads(asked(f"/anything/x?a=1 -X {method} -H 'X-Own: yes' -d body"))
        assert (said["method"], said["path"], said["args"], said["data"]) == (method, "/anything/x", {"a": ["1"]}, "body")
        assert said["headers"]["X-Own"] == "yes"
    for method in ("post", "put", "patch", "delete"):
        assert json.loads(asked(f"/{method} -X {method.upper()} -H 'Content-Type: application/json' -d '[1]'"))["json"] == [1]
    status = lambda rest: inside(f"curl -s -o /dev/null -w '%{{http_code}} %{{num_redirects}} %{{size_download}}' http://127.0.0.1:8080{rest}")
    for path, said in [
        ("/status/204", "204 0 0"), ("/status/418", "418 0 0"), ("/status/503 -X PUT", "503 0 0"), ("/status/700", "404 0 4"),
        ("/get -I", "200 0 0"), ("/get -X POST", "405 0 40"), ("/redirect/3 -L -o /dev/null", "200 3"),
        ("/bytes/20000000", "200 0 20000000"), ("/bytes/999999999", "400 0"), ("/basic-auth/a/b", "401 0 0"),
        ("/basic-auth/a/b -u a:b", "200 0"), ("/drip?duration=0.5&numbytes=5", "200 0 5"),
    ]:  # fmt: skip
        path = f"'{path.split(' ')[0]}' {' '.join(path.split(' ')[1:])}"
        assert status(path).startswith(said), (path, said, status(path))
    took = float(inside("curl -s -o /dev/null -w '%{time_total}' http://127.0.0.1:8080/delay/1.5"))
    assert 1.5 <= took < 10
    # Large bodies, with and without a length; one that is too large is refused, and that is seen.
    large = "head -c 9000000 /dev/zero | tr '\\0' a | curl -s --data-binary @- %s http://127.0.0.1:8080/post | wc -c"
    assert int(inside(large % "")) > 9_000_000 and int(inside(large % "-H 'Transfer-Encoding: chunked'")) > 9_000_000
    assert inside("head -c 30000000 /dev/zero | curl -s -o /dev/null -w '%{http_code}' -T - -X POST http://127.0.0.1:8080/post") == "413"
    assert inside("head -c 30000000 /dev/zero > /tmp/f; curl -s -o /dev/null -w '%{http_code}' --data-binary @/tmp/f http://127.0.0.1:8080/post") == "413"
    assert [json.loads(line)["id"] for line in asked("/stream/3").splitlines()] == [0, 1, 2]
    assert json.loads(asked("/gzip --compressed"))["gzipped"] is True
    assert json.loads(asked("/cookies/set?a=b -L -c /tmp/jar"))["cookies"] == {"a": "b"}


def of_https():
    """What an example is told where the platform has https: its host names are of that."""
    told = (pathlib.Path(os.environ["CASEMATE_DATA_DIR"]) / "credentials.env").read_text()
    told = dict(re.findall(r"^(\w+)=['\"]?([^'\"\n]*)['\"]?$", told, re.M))
    return {**{name: value for name, value in os.environ.items() if name not in NOT_OF_HTTPS}, **{name: told[name] for name in OF_HTTPS}}


NOT_OF_HTTPS = ("E2B_API_URL", "E2B_SANDBOX_URL")
OF_HTTPS = ("E2B_API_KEY", "E2B_DOMAIN", "SSL_CERT_FILE", "NODE_EXTRA_CA_CERTS")


def test_the_python_example():
    folder = ROOT / "examples" / "python-web"
    ran = subprocess.run([sys.executable, str(folder / "run.py")], env=of_https(), capture_output=True, text=True, timeout=180)
    assert ran.returncode == 0 and ran.stdout.rstrip().endswith("says {'hello': 'Ada'}"), (ran.stdout[-500:], ran.stderr[-2000:])
    casemate("template", "delete", "example-python-web")


def test_the_javascript_example(tmp_path):
    """Beside the packages of the SDK's own suite, as `npm install` would lay them."""
    for file in (ROOT / "examples" / "javascript-web").iterdir():
        (tmp_path / file.name).write_bytes(file.read_bytes())
    (tmp_path / "node_modules").symlink_to(ROOT / "tests" / "sdk" / "js" / "node_modules")
    ran = subprocess.run(["node", "run.mjs"], env=of_https(), cwd=tmp_path, capture_output=True, text=True, timeout=180)
    assert ran.returncode == 0 and "path: '/hello'" in ran.stdout, (ran.stdout[-500:], ran.stderr[-2000:])
    casemate("template", "delete", "example-javascript-web")
