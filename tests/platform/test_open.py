"""What answers without a key, who may read the metrics, and the verbs' JSON."""

import json

from instance import casemate


def test_health_ready_and_the_document_need_no_key(main):
    assert main.get("/health")[::2] == (200, b"ok: Health check successful")
    assert main.get("/ready")[0] == 200
    status, headers, body = main.get("/openapi.json")
    document = json.loads(body)
    assert status == 200 and "json" in headers["content-type"]
    assert document["openapi"].startswith("3.")
    assert {"/sandboxes", "/v2/sandboxes", "/sandboxes/{sandboxID}"} <= set(document["paths"])


def test_metrics_are_for_this_machine_and_for_tokens(main):
    def metrics(**headers):
        named = {name.replace("_", "-"): value for name, value in headers.items()}
        return main.get("/metrics", named)

    status, _, body = metrics()
    assert status == 200 and b"e2b_active_sandboxes_total" in body
    for name in ["Forwarded", "Via", "X_Forwarded_For", "X_Forwarded_Host", "X_Forwarded_Anything"]:
        status, _, body = metrics(**{name: "127.0.0.1"})
        assert status == 401 and json.loads(body)["code"] == 401, name
    token = (main.data_dir / "secrets/admin_token").read_text().strip()
    assert metrics(Via="1.1 p", X_Admin_Token=token)[0] == 200
    assert metrics(Via="1.1 p", X_Admin_Token=token[:-1])[0] == 401
    assert metrics(Via="1.1 p", X_Admin_Token="")[0] == 401
    # The key of a team is not the operator's.
    assert metrics(Via="1.1 p", X_API_Key=main.client["api_key"])[0] == 401
    assert metrics(Via="1.1 p", Authorization="Bearer ")[0] == 401


def test_the_metrics_count_sandboxes(main, sandbox):
    lines = main.get("/metrics")[2].decode().splitlines()
    values = dict(line.rsplit(" ", 1) for line in lines if not line.startswith("#"))
    assert int(values["e2b_active_sandboxes_total"]) == len(main.listed()) >= 1


def test_a_wrong_key_is_refused(main):
    good = main.client["api_key"]
    for key in ["", "e2b_", good[:-1], good + "0", good[:-1] + "g", "e2b_" + "0" * 40, "x" * 5000]:
        for path in ["/sandboxes", "/v2/sandboxes", "/sandboxes/nosuchsandbox"]:
            status, _, body = main.get(path, {"X-API-Key": key})
            assert status == 401, (key[:60], path)
            assert json.loads(body)["code"] == 401
    assert main.get("/v2/sandboxes", {"X-API-Key": good})[0] == 200


def test_status_in_json(main, sandbox):
    ran = casemate("--json", "status", "--data-dir", str(main.data_dir))
    told = json.loads(ran.stdout)
    assert (ran.returncode, told["running"], told["ready"]) == (0, True, True)
    assert (told["instance"], told["pid"], told["url"]) == (main.id, main.pid, main.url)
    assert told["node"]["sandboxes"] == len(main.listed())
    roles = main.processes()
    assert {role: roles[pid] for role, pid in told["processes"].items()} == {
        "control": "control",
        "egress": "egress",
    }


def test_doctor_in_json(main):
    ran = casemate("--json", "doctor", "--data-dir", str(main.data_dir))
    told = json.loads(ran.stdout)
    assert (ran.returncode, told["ok"]) == (0, True)
    by_name = {finding["what"]: finding["state"] for finding in told["findings"]}
    for what in ["rights", "kernel", "cgroups", "user namespaces", "idmapped mounts", "disk", "nft"]:
        assert by_name[what] == "good", (what, told)


def test_credentials_and_secrets_are_roots(main):
    for name in ["credentials.env", "secrets/admin_token", "secrets/api_key_secret"]:
        stat = (main.data_dir / name).stat()
        assert (stat.st_uid, stat.st_mode & 0o077) == (0, 0), name
    assert (main.data_dir / "secrets").stat().st_mode & 0o077 == 0
    assert (main.data_dir / "node").stat().st_mode & 0o077 == 0


def test_secrets_are_not_in_the_log(main, sandbox):
    sandbox.commands.run("echo $SECRET", envs={"SECRET": "not-for-logs-5551"})
    log = main.log.read_text(errors="replace")
    secrets = [main.client["api_key"], main.credentials()["E2B_ACCESS_TOKEN"], "not-for-logs-5551"]
    secrets += [path.read_text().strip() for path in (main.data_dir / "secrets").iterdir()]
    assert [secret for secret in secrets if secret in log] == []
