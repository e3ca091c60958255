"""`casemate template import` and `export`: templates as OCI archives.

CASEMATE names the program; what leads to the platform is in the environment. `skopeo` and `umoci`
(Debian's) are other programs that read and write such archives.
"""

import hashlib
import io
import json
import os
import subprocess
import tarfile
import uuid

import pytest

from test_templates import CASEMATE, answer, casemate, context, in_sandbox, name  # noqa: F401

REGISTRY = os.environ["CASEMATE_TEST_REGISTRY"]

# Everything but what each build of a template writes anew: accounts, and the login shell's prompt.
# How many names a folder has differs between layers that are merged and one.
LISTING = r"""cd /; find bin/ etc/ opt/ srv/ usr/ var/ home/ root/ -xdev \
  -path etc/hosts -o -path etc/resolv.conf -o -path 'etc/profile.d*' \
  -o -type d -printf '%p %m %U:%G %T@\n' -o ! -type s -printf '%p %y %m %U:%G %n %s %l %T@\n' | sort
"""
WRITTEN_ANEW = ("etc/ ", "etc/group", "etc/gshadow", "etc/passwd", "etc/shadow", "etc/sudoers",
                "etc/.pwd.lock", "var/lib/dpkg ", "var/lib/dpkg/", "var/log/")


def as_root(template, script):
    made = answer("sandbox", "create", "--template", template, "--timeout", "120")
    try:
        return casemate("sandbox", "exec", "--user", "root", made["sandboxID"], "--", "sh", "-c", script).stdout
    finally:
        casemate("sandbox", "kill", made["sandboxID"])


def listing(template):
    lines = as_root(template, LISTING).splitlines()
    return [line for line in lines if not line.startswith(WRITTEN_ANEW)]


@pytest.fixture
def other():
    name = f"cli-{uuid.uuid4().hex[:12]}"
    yield name
    subprocess.run([CASEMATE, "template", "delete", name], capture_output=True, timeout=60)


def tool(*command):
    ran = subprocess.run(command, capture_output=True, text=True, timeout=300)
    assert ran.returncode == 0, (command, ran.stdout[-500:], ran.stderr[-2000:])
    return ran.stdout


def export(template, path):
    said = answer("template", "export", template, "-o", str(path), timeout=600)
    assert said["bytes"] == path.stat().st_size
    assert [file.name for file in path.parent.iterdir() if ".part" in file.name] == []
    return path


def documents(path):
    """The image's manifest and config, with all digests checked."""
    with tarfile.open(path) as archive:
        def read(digest):
            content = archive.extractfile("blobs/" + digest.replace(":", "/")).read()
            assert "sha256:" + hashlib.sha256(content).hexdigest() == digest
            return content
        assert json.load(archive.extractfile("oci-layout")) == {"imageLayoutVersion": "1.0.0"}
        entry, = json.load(archive.extractfile("index.json"))["manifests"]
        manifest = json.loads(read(entry["digest"]))
        layer, = manifest["layers"]
        assert len(read(layer["digest"])) == layer["size"]
        return manifest, json.loads(read(manifest["config"]["digest"]))


def repacked(path, into, change):
    """The archive with its parts as `change` wants them; None leaves one out."""
    with tarfile.open(path) as old, tarfile.open(into, "w") as new:
        for member in filter(tarfile.TarInfo.isfile, old):
            content = change(member, old.extractfile(member).read())
            if content is not None:
                member.size = len(content)
                new.addfile(member, io.BytesIO(content))
    return into


def refused(archive, name, *args):
    failed = casemate("template", "import", str(archive), name, *args, check=1, timeout=300)
    return failed.stderr.strip().splitlines()[-1]


def test_what_is_exported_and_imported_is_the_same(name, other, context, tmp_path):
    folder = context(
        "ENV GREETING='hello  world '",
        "ENV EMPTY=''",
        "RUN mkdir -p /opt/kept && cd /opt/kept && echo one > one && echo page > page && ln one two && ln -s one three"
        " && chown 1234:4321 one && chmod 6750 one && truncate -s 64M sparse"
        " && printf x | dd of=sparse bs=1 seek=40000000 conv=notrunc && touch -d '1999-01-02 03:04:05.678' old"
        " && cp /bin/true able && setcap cap_net_raw+ep able || cp /bin/true able",
        "RUN mkfifo -m 620 /opt/kept/pipe && chown 12:34 /opt/kept/pipe",
        "RUN python3 -c \"import os; os.setxattr('/opt/kept/old', 'user.note', b'noted')\"",
        "RUN useradd -m somebody",
        "WORKDIR /srv/here",
        "USER somebody")
    start = "printf '[%s]' \"$GREETING\" \"$EMPTY\" > /tmp/told; python3 -m http.server -d /opt/kept 8123"
    ready = "curl -sf http://localhost:8123/page"
    casemate("template", "build", "--context", folder, name, "--start", start, "--ready", ready)
    first = export(name, tmp_path / "first.tar")
    assert first.read_bytes() == export(name, tmp_path / "once-more.tar").read_bytes()
    manifest, config = documents(first)
    run = config["config"]
    assert run["User"] == "somebody" and run["WorkingDir"] == "/srv/here"
    assert {"GREETING=hello  world ", "EMPTY="} <= set(run["Env"])
    assert run["Cmd"] == ["/bin/bash", "-l", "-c", start]
    assert (config["os"], config["architecture"]) == ("linux", "amd64")

    imported = answer("template", "import", str(first), f"{other}:v1", "--tag", "more", timeout=600)
    assert imported["status"] == "ready" and sorted(imported["tags"]) == ["more", "v1"]
    assert listing(f"{other}:v1") == listing(name)
    script = ("id -un; pwd; cat /tmp/told; cd /opt/kept; stat -c ' %n %a %u:%g %h' one two;"
              "stat -c '%s %Y' sparse old; [ $(stat -c %b sparse) -lt 1000 ] && echo holes;"
              "python3 -c \"import os; print(os.getxattr('old', 'user.note'))\"; getcap able;"
              "curl -sf localhost:8123/page; grep -cE '^127.0.1.1 i[0-9a-z]{20}$' /etc/hosts")
    said = in_sandbox(f"{other}:v1", script)
    assert said.startswith("somebody\n/srv/here\n[hello  world ][] one 6750 1234:4321 2\n"), said
    assert "holes\nb'noted'\n" in said and said.endswith("page\n1\n"), said
    assert said == in_sandbox(name, script)

    # Once more it is taken from the cache, and what comes of it is still the same.
    again = casemate("template", "import", str(first), other, timeout=600)
    assert "CACHED [base] FROM ARCHIVE" in again.stderr, again.stderr
    second = export(f"{other}:v1", tmp_path / "second.tar")
    assert documents(second)[1]["config"] == config["config"]
    replaced = answer("template", "import", str(first), other, "--start", "sleep 1000", "--ready", "true")
    assert replaced["status"] == "ready"
    gone = in_sandbox(other, "curl -sf localhost:8123/page || echo nothing there")
    assert gone == "nothing there\n"


def test_what_can_be_in_no_image_is_named(name, context, tmp_path):
    casemate("template", "build", "--context", context("RUN mkdir /srv/d; touch /srv/d/.wh.x /srv/d/x"), name)
    refused = casemate("template", "export", name, "-o", str(tmp_path / "x.tar"), check=1, timeout=300)
    assert "the template cannot be an archive: 'srv/d/.wh.x': in an image a name" in refused.stderr, refused.stderr
    assert not [file for file in tmp_path.iterdir() if file.name.startswith("x.tar")]


def test_other_programs_read_it_and_it_can_come_from_a_registry(name, other, context, tmp_path):
    casemate("template", "build", "--context", context("ENV A=b", "RUN echo mine > /opt/mine"), name)
    path = export(f"{name}:default", tmp_path / "archive.tar")
    seen = json.loads(tool("skopeo", "inspect", f"oci-archive:{path}:default"))
    assert seen["Os"] == "linux" and len(seen["Layers"]) == 1 and "A=b" in seen["Env"]
    layout = tmp_path / "layout"
    tool("skopeo", "copy", f"oci-archive:{path}:default", f"oci:{layout}:default")
    tool("umoci", "unpack", "--image", f"{layout}:default", str(tmp_path / "bundle"))
    root = tmp_path / "bundle" / "rootfs"
    assert (root / "opt/mine").read_text() == "mine\n"
    assert list((root / "proc").iterdir()) == [] and (root / "tmp").stat().st_mode & 0o7777 == 0o1777
    pushed = f"{REGISTRY}/archives/{name}:1"
    tool("skopeo", "copy", "--dest-tls-verify=false", f"oci-archive:{path}:default", f"docker://{pushed}")
    dockerfile = tmp_path / "Dockerfile"
    dockerfile.write_text(f"FROM {pushed}\nRUN echo \"A is $A\"\n")
    built = casemate("template", "build", "-f", str(dockerfile), "--context", str(tmp_path), other, timeout=600)
    assert "A is b" in built.stderr
    assert in_sandbox(other, "id -un; cat /opt/mine") == "user\nmine\n"


def test_an_archive_that_others_made(name, tmp_path):
    path = tmp_path / "archive.tar"
    source = f"docker://{REGISTRY}/layers"
    tool("skopeo", "copy", "--src-tls-verify=false", source, f"oci-archive:{path}:mine")
    imported = answer("template", "import", str(path), name, "--cpu", "1", "--memory", "512", timeout=600)
    assert imported["status"] == "ready"
    row = next(row for row in answer("template", "list") if name in row["aliases"])
    assert (row["cpuCount"], row["memoryMB"]) == (1, 512)
    script = ("id -un; pwd; cd /opt/layers; ls -d gone 2>/dev/null; cat kept becomes-a-file; ls emptied;"
              "stat -c '%a %h' first; sudo stat -c '%u:%g' owned; cat alias/through")
    assert in_sandbox(name, script) == ("user\n/home/user\nkept of the lower layer\na file\nnew\n"
                                        "640 2\n12345:54321\nthrough\n")
    # In the older form of `docker save` as well.
    docker = tmp_path / "docker.tar"
    source = f"docker://{REGISTRY}/debian:12"
    tool("skopeo", "copy", "--src-tls-verify=false", source, f"docker-archive:{docker}:mine:1")
    imported = answer("template", "import", str(docker), name, "--ref", "mine:1", timeout=600)
    assert imported["status"] == "ready"
    assert in_sandbox(name, "id -un; ls /opt/layers 2>/dev/null || true") == "user\n"
    said = refused(path, name, "--ref", "yours")
    assert "the archive cannot be used: it holds no image named 'yours': it holds mine" in said, said


def test_archives_that_lie_are_refused(name, tmp_path):
    path = tmp_path / "archive.tar"
    tool("skopeo", "copy", "--src-tls-verify=false", f"docker://{REGISTRY}/noshell", f"oci-archive:{path}")
    whole = path.read_bytes()
    cut = tmp_path / "cut.tar"
    cut.write_bytes(whole[:len(whole) // 2])
    assert refused(cut, name).endswith("the archive cannot be used: it ends early")
    text = tmp_path / "text"
    text.write_text("FROM scratch\n" * 100)
    assert refused(text, name).endswith("the archive cannot be used: it is no tar archive")

    def largest(member, content):
        with tarfile.open(path) as archive:
            return member.size == max(one.size for one in archive)

    def flipped(member, content):
        return content[:-1] + bytes([content[-1] ^ 1]) if largest(member, content) else content
    said = refused(repacked(path, tmp_path / "flipped.tar", flipped), name)
    assert "is not what the digest says" in said, said
    said = refused(repacked(path, tmp_path / "less.tar", lambda member, content:
                            None if largest(member, content) else content), name)
    assert "the archive cannot be used: it has no blob sha256:" in said, said

    def climbs(member, content):
        if member.name == "oci-layout":
            member.name = "../oci-layout"
        return content
    said = refused(repacked(path, tmp_path / "climbs.tar", climbs), name)
    assert "it has an entry named '../oci-layout', which leads out of it" in said, said

    def of_another_processor(member, content):
        if member.name != "index.json":
            return content
        index = json.loads(content)
        entry, = index["manifests"]
        for architecture in ("arm64", "riscv64"):
            index["manifests"].append({**entry, "platform": {"os": "linux", "architecture": architecture}})
        del index["manifests"][0]
        return json.dumps(index).encode()
    said = refused(repacked(path, tmp_path / "arm.tar", of_another_processor), name)
    assert 'does not match expected "amd64"' in said, said
    # Nothing of all that is a template.
    assert all(name not in row["aliases"] or row["buildStatus"] == "error" for row in answer("template", "list"))
    missing = casemate("template", "import", str(tmp_path / "none.tar"), name, check=1)
    assert "read " in missing.stderr and "No such file" in missing.stderr


def test_where_an_export_goes(name, context, tmp_path):
    gone = casemate("template", "export", "nobody-1", "-o", str(tmp_path / "x"), check=1)
    assert "there is no template nobody-1" in gone.stderr
    assert list(tmp_path.iterdir()) == []
    in_json = casemate("--json", "template", "export", "base", check=1)
    assert "goes with -o alone" in in_json.stderr
    folder = casemate("template", "export", "base", "-o", str(tmp_path), check=1)
    assert folder.stderr.splitlines() == [f"casemate: {tmp_path} is a folder: name a file"]
    # What is no file does not become one, and a link stays a link.
    pipe, link, file = tmp_path / "pipe", tmp_path / "link", tmp_path / "file.tar"
    os.mkfifo(pipe)
    file.write_text("before")
    link.symlink_to(file)
    with open(tmp_path / "piped.tar", "wb") as into, subprocess.Popen(["cat", str(pipe)], stdout=into) as reader:
        said = answer("template", "export", "base", "-o", str(pipe), timeout=600)
        assert reader.wait(60) == 0
    assert pipe.is_fifo() and said["bytes"] == (tmp_path / "piped.tar").stat().st_size
    export("base", link)
    assert link.is_symlink() and file.read_bytes() == (tmp_path / "piped.tar").read_bytes()
    with open(tmp_path / "base.tar", "wb") as into:
        ran = subprocess.run([CASEMATE, "template", "export", "base"], stdout=into,
                             stderr=subprocess.PIPE, timeout=600)
    assert ran.returncode == 0, ran.stderr
    documents(tmp_path / "base.tar")
