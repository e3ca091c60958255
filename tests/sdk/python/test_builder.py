"""What the SDK makes of a template before it is sent: a build that does something else than its
method says would otherwise be taken for ours."""

import json

import e2b
import pytest

DEV_START = (
    "sudo devcontainer up --workspace-folder /d && sudo /prepare-exec.sh /d | sudo tee /devcontainer.sh"
    " > /dev/null && sudo chmod +x /devcontainer.sh && sudo touch /devcontainer.up"
)


def wire(sdk, template):
    return json.loads(sdk.Template.to_json(template))


def runs(sdk, template):
    """The arguments of all steps, which must be commands."""
    steps = wire(sdk, template)["steps"]
    assert {step["type"] for step in steps} <= {"RUN"}
    return [step["args"] for step in steps]


def test_where_templates_begin(sdk):
    images = [
        (sdk.Template().from_debian_image(), "debian:stable"),
        (sdk.Template().from_debian_image("bookworm"), "debian:bookworm"),
        (sdk.Template().from_ubuntu_image(), "ubuntu:latest"),
        (sdk.Template().from_fedora_image(), "fedora:44"),
        (sdk.Template().from_alpine_image(), "alpine:3.24"),
        (sdk.Template().from_arch_image(), "archlinux:latest"),
        (sdk.Template().from_python_image(), "python:3"),
        (sdk.Template().from_node_image(), "node:lts"),
        (sdk.Template().from_bun_image(), "oven/bun:latest"),
        (sdk.Template().from_base_image(), "e2bdev/base"),
        (sdk.Template().from_image("some/image"), "some/image"),
    ]
    for template, image in images:
        assert wire(sdk, template) == {"fromImage": image, "force": False, "steps": []}
    of_template = sdk.Template().from_template("parent:v1")
    assert wire(sdk, of_template) == {"fromTemplate": "parent:v1", "force": False, "steps": []}
    with pytest.raises(ValueError, match="Cannot convert template built from another template"):
        sdk.Template.to_dockerfile(of_template)


def test_logins(sdk, tmp_path):
    told = wire(sdk, sdk.Template().from_image("i", username="u", password="p"))["fromImageRegistry"]
    assert told == {"type": "registry", "username": "u", "password": "p"}
    with pytest.raises(e2b.InvalidArgumentException, match="Both username and password"):
        sdk.Template().from_image("i", username="u")
    template = sdk.Template().from_aws_registry("i", "id", "secret", "eu-central-1")
    assert wire(sdk, template)["fromImageRegistry"] == {
        "type": "aws",
        "awsAccessKeyId": "id",
        "awsSecretAccessKey": "secret",
        "awsRegion": "eu-central-1",
    }
    (tmp_path / "account.json").write_text('{"a": 1}')
    for account in ("account.json", {"a": 1}):
        template = sdk.Template(file_context_path=tmp_path).from_gcp_registry("i", account)
        told = {"type": "gcp", "serviceAccountJson": '{"a": 1}'}
        assert wire(sdk, template)["fromImageRegistry"] == told


def test_what_methods_run(sdk):
    builder = sdk.Template().from_base_image()
    builder.bun_install().bun_install("a").bun_install(["a", "b"], g=True).bun_install("a", dev=True)
    builder.npm_install().npm_install(["a", "b"], dev=True).npm_install("a", g=True)
    builder.pip_install().pip_install(["a", "b"]).pip_install("a", g=False)
    builder.apt_install(["a", "b"], no_install_recommends=True, fix_missing=True)
    builder.git_clone("https://host/r.git", "/my dir", branch="b", depth=1, user="root")
    install = "DEBIAN_FRONTEND=noninteractive DEBCONF_NOWARNINGS=yes apt-get install -y"
    assert runs(sdk, builder) == [
        ["bun install"],
        ["bun install a"],
        ["bun install -g a b", "root"],
        ["bun install --dev a"],
        ["npm install"],
        ["npm install --save-dev a b"],
        ["npm install -g a", "root"],
        ["pip install .", "root"],
        ["pip install a b", "root"],
        ["pip install --user a"],
        [f"apt-get update && {install} --no-install-recommends --fix-missing a b", "root"],
        ["git clone https://host/r.git --branch b --single-branch --depth 1 '/my dir'", "root"],
    ]


def test_what_needs_a_certain_parent(sdk):
    of_base = sdk.Template().from_base_image()
    for call in [
        lambda: of_base.add_mcp_server("a"),
        lambda: of_base.beta_dev_container_prebuild("/d"),
        lambda: of_base.beta_set_dev_container_start("/d"),
    ]:
        with pytest.raises(e2b.BuildException):
            call()
    gateway = sdk.Template().from_template("mcp-gateway").add_mcp_server(["a", "b"])
    assert runs(sdk, gateway) == [["mcp-gateway pull a b", "root"]]
    container = sdk.Template().from_template("devcontainer").beta_dev_container_prebuild("/d")
    assert runs(sdk, container) == [["devcontainer build --workspace-folder /d", "root"]]
    told = wire(sdk, container.beta_set_dev_container_start("/d"))
    assert (told["startCmd"], told["readyCmd"]) == (DEV_START, "[ -f /devcontainer.up ]")


def test_ready_helpers(sdk):
    expected = {
        e2b.wait_for_port(80).get_cmd(): '[ -n "$(ss -Htuln sport = :80)" ]',
        e2b.wait_for_url("http://h/a b", 204).get_cmd(): (
            'curl -s -o /dev/null -w "%{http_code}" \'http://h/a b\' | grep -q "204"'
        ),
        e2b.wait_for_process("my server").get_cmd(): "pgrep 'my server' > /dev/null",
        e2b.wait_for_file("/a b").get_cmd(): "[ -f '/a b' ]",
        e2b.wait_for_timeout(2500).get_cmd(): "sleep 2",
    }
    for command, said in expected.items():
        assert command == said
    told = wire(sdk, sdk.Template().from_base_image().set_ready_cmd(e2b.wait_for_port(80)))
    assert "startCmd" not in told and told["readyCmd"] == e2b.wait_for_port(80).get_cmd()


def test_what_is_forced(sdk):
    """3.2 of the specification."""
    later = sdk.Template().from_base_image().run_cmd("a").skip_cache().run_cmd("b").set_user("c")
    told = wire(sdk, later)
    assert not told["force"] and [step["force"] for step in told["steps"]] == [False, True, True]
    told = wire(sdk, sdk.Template().skip_cache().from_base_image().run_cmd("a"))
    assert told["force"] and told["steps"][0]["force"]


def test_hashes_of_files(sdk, tmp_path):
    """3.4 of the specification, its test vector."""
    (tmp_path / "a.txt").write_text("hello\n")
    (tmp_path / "a.txt").chmod(0o644)
    context = lambda: sdk.Template(file_context_path=tmp_path).from_base_image()
    step = wire(sdk, context().copy("a.txt", "a.txt", user="u:g", mode=0o4755, force_upload=True))["steps"][0]
    assert step == {
        "type": "COPY",
        "args": ["a.txt", "a.txt", "u:g", "4755"],
        "force": True,
        "forceUpload": True,
        "filesHash": "49ccf0a0a1bce4bd8b8c004d206fb8b1692166706930faa40827886fa70b08f5",
    }
    with pytest.raises(ValueError, match="No files found in"):
        sdk.Template.to_json(context().copy("missing", "/"))
    for outside in ("/etc/passwd", "../a.txt", "a/../../b"):
        with pytest.raises(e2b.TemplateException, match="Invalid source path"):
            context().copy(outside, "/")
        with pytest.raises(e2b.TemplateException, match="Invalid source path"):
            context().copy_items([{"src": outside, "dest": "/"}])


DOCKERFILE = """\
# syntax=docker/dockerfile:1
FROM debian:12
ARG VERSION=1
ENV GREETING="hello you"
WORKDIR /srv/app
COPY --chown=user:user --chmod=644 a.txt b.txt ./
RUN echo $VERSION && \\
    echo two
USER user
EXPOSE 80
CMD ["python3", "-m", "http.server"]
"""


def test_dockerfiles(sdk, tmp_path):
    for name in ("a.txt", "b.txt"):
        (tmp_path / name).write_text(name)
    (tmp_path / "Dockerfile").write_text(DOCKERFILE)
    for given in (DOCKERFILE, str(tmp_path / "Dockerfile")):
        template = sdk.Template(file_context_path=tmp_path).from_dockerfile(given)
        told = wire(sdk, template)
        assert told["fromImage"] == "debian:12"
        assert [(step["type"], step["args"]) for step in told["steps"]] == [
            ("USER", ["root"]),
            ("WORKDIR", ["/"]),
            ("ENV", ["VERSION", "1"]),
            ("ENV", ["GREETING", "hello you"]),
            ("WORKDIR", ["/srv/app"]),
            ("COPY", ["a.txt", "./", "user:user", "0644"]),
            ("COPY", ["b.txt", "./", "user:user", "0644"]),
            ("RUN", ["echo $VERSION &&     echo two"]),
            ("USER", ["user"]),
        ]
        assert (told["startCmd"], told["readyCmd"]) == ("python3 -m http.server", "sleep 20")
    again = sdk.Template.to_dockerfile(template)
    assert again.startswith("FROM debian:12\n") and "ENTRYPOINT python3 -m http.server\n" in again
    for wrong, why in [("RUN true\n", "must contain a FROM"), ("FROM a\nFROM b\n", "Multi-stage")]:
        with pytest.raises(Exception, match=why):
            sdk.Template().from_dockerfile(wrong)
