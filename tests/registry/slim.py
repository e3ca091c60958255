"""Images as others publish them, made of Debian's own packages by mmdebstrap: they have apt and little
else, so that provisioning has something to do. Above each, what is peculiar to an image of somebody.

What becomes of them: tests/sdk/python/test_slim_images.py.
"""

import concurrent.futures
import dataclasses
import json
import os
import subprocess
import tarfile

from layers import GZIP, Entries, Layer, write_layer

SUITES = ("bookworm", "trixie", "bullseye")
# What official images say of their packages: the files of both spellings, and what is in neither.
PUBLIC = "http://deb.debian.org/debian"
LIST = "etc/apt/sources.list"
PARAGRAPHS = "etc/apt/sources.list.d/debian.sources"
KEYRING = "/usr/share/keyrings/debian-archive-keyring.gpg"
LEFT_OUT = ("/usr/share/doc/*", "/usr/share/man/*", "/usr/share/locale/*")


def mirror():
    """Where this machine has Debian from."""
    command = ["apt-get", "indextargets", "--format", "$(REPO_URI) $(COMPONENT) $(RELEASE)", "Created-By: Packages"]
    for line in subprocess.run(command, check=True, capture_output=True, text=True).stdout.splitlines():
        uri, component, release = line.split(" ", 2)
        if component == "main" and release.startswith("bookworm") and "security" not in release:
            return uri.rstrip("/")
    return PUBLIC


def debian(suite, cache_dir):
    """The layer of one release, made once."""
    path = os.path.join(cache_dir, f"slim-{suite}.layer")
    noted = f"{path}.json"
    if os.path.exists(noted):
        with open(noted) as file:
            return Layer(**json.load(file))
    command = ["mmdebstrap", "--quiet", "--mode=root", "--variant=apt", "--format=tar"]
    command += [f"--dpkgopt=path-exclude={pattern}" for pattern in LEFT_OUT]
    command += [suite, "-", f"deb {mirror()} {suite} main"]

    def fill(tar):
        with subprocess.Popen(command, stdout=subprocess.PIPE) as made:
            with tarfile.open(fileobj=made.stdout, mode="r|") as source:
                for entry in source:
                    # What of this machine the program put there.
                    if entry.isdev() or entry.name.removeprefix("./") in ("etc/hostname", "etc/resolv.conf", LIST):
                        continue
                    tar.addfile(entry, source.extractfile(entry) if entry.isreg() else None)
            made.stdout.read()
        if made.returncode != 0:
            raise RuntimeError(f"mmdebstrap of {suite} failed")
        add = Entries(tar)
        if suite == "bullseye":
            add.file(LIST, f"deb {PUBLIC} {suite} main\n")
        else:
            add.file(PARAGRAPHS, f"Types: deb\nURIs: {PUBLIC}\nSuites: {suite}\nComponents: main\nSigned-By: {KEYRING}\n")

    layer = write_layer(path, GZIP, fill)
    with open(noted, "w") as file:
        json.dump(dataclasses.asdict(layer), file)
    return layer


def passwd(*more):
    """`/etc/passwd` of Debian, as far as images need it, and more users."""
    lines = ["root:x:0:0:root:/root:/bin/bash", "_apt:x:42:65534::/nonexistent:/usr/sbin/nologin"]
    lines += ["nobody:x:65534:65534:nobody:/nonexistent:/usr/sbin/nologin", *more]
    return "".join(f"{line}\n" for line in lines)


def node(tar):
    """The layout of `node`: uid 1000 is somebody else's, and the program is below /usr/local."""
    add = Entries(tar)
    add.file("etc/passwd", passwd("node:x:1000:1000::/home/node:/bin/bash"))
    add.folder("home/node", uid=1000, gid=1000)
    add.file("home/node/.profile", "", uid=1000, gid=1000)
    add.file("usr/local/bin/node", "#!/bin/sh\necho v22.0.0\n", mode=0o755)
    add.symlink("usr/local/bin/npm", "../lib/node_modules/npm/bin/npm-cli.js")
    add.file("usr/local/lib/node_modules/npm/bin/npm-cli.js", "#!/usr/bin/env node\n", mode=0o755)


def python(tar):
    """The layout of `python`: one of its own beside none of Debian's."""
    add = Entries(tar)
    add.file("usr/local/bin/python3.12", "#!/bin/sh\necho Python 3.12.0\n", mode=0o755)
    for name in ("python3", "python"):
        add.symlink(f"usr/local/bin/{name}", "python3.12")


def odd(tar):
    """`/home/user` is somebody's, `user` has a home elsewhere that is not there, what others can write is
    closed, and /home is a link."""
    add = Entries(tar)
    add.folder("etc", mode=0o555)
    for name in ("apt", "apt/sources.list.d", "dpkg"):
        add.folder(f"etc/{name}", mode=0o555)
    users = passwd("app:x:1000:1000::/home/user:/bin/sh", "user:x:4000:4000::/srv/user:/usr/sbin/nologin")
    add.file("etc/passwd", users, mode=0o444)
    add.whiteout("home")
    add.symlink("home", "data/home")
    add.folder("data/home/user", uid=1000, gid=1000, mode=0o700)
    add.folder("usr/local", mode=0o555)
    add.folder("tmp", mode=0o755)


def busybox(tar):
    """Above the base: another /bin/sh, no /tmp, and no /etc/os-release but the one in /usr/lib."""
    add = Entries(tar)
    with open("/bin/busybox", "rb") as file:
        add.file("usr/bin/busybox", file.read(), mode=0o755)
    add.symlink("usr/bin/sh", "busybox")
    add.whiteout("etc/os-release")
    add.whiteout("tmp")


def bun(tar):
    """Above the base: a program that notes what it was asked."""
    add = Entries(tar)
    add.file("usr/local/bin/bun", '#!/bin/sh\necho "$@" > /usr/local/bun-said\n', mode=0o755)


def whole_python(tar):
    """Above the base: its Python and pip, where the image `python` has them."""
    add = Entries(tar)
    for name, target in (("python3", "python3"), ("python", "python3"), ("pip", "pip3")):
        add.symlink(f"usr/local/bin/{name}", f"/usr/bin/{target}")


def broken_apt(tar):
    Entries(tar).whiteout("usr/lib/apt/methods/http")


def broken_dpkg(tar):
    add = Entries(tar)
    add.file("etc/dpkg/dpkg.cfg.d/broken", "no-such-option\n")


def packageless(tar):
    """A Debian without a package manager, as in images without a distribution's tools."""
    add = Entries(tar)
    for name in ("apt-get", "apt", "dpkg", "dpkg-query"):
        add.whiteout(f"usr/bin/{name}")


def distroless(tar):
    """A shell, what `/etc/os-release` says, and nothing else."""
    add = Entries(tar)
    add.folder("etc")
    add.file("etc/os-release", 'PRETTY_NAME="Distroless"\nID="debian"\nVERSION_ID="12"\nVERSION_CODENAME=bookworm\n')
    add.file("etc/passwd", "root:x:0:0:root:/root:/sbin/nologin\nnonroot:x:65532:65532::/home/nonroot:/sbin/nologin\n")
    add.folder("bin")
    with open("/bin/busybox", "rb") as file:
        add.file("bin/busybox", file.read(), mode=0o755)
    add.symlink("bin/sh", "busybox")


NODE = {"User": "node", "Env": ["NODE_VERSION=22.0.0"], "Entrypoint": ["docker-entrypoint.sh"]}
PYTHON = {"Env": ["PATH=/usr/local/bin:/usr/bin:/bin", "PYTHON_VERSION=3.12.0"], "Cmd": ["python3"]}
ODD = {"User": "app", "WorkingDir": "/app", "Env": ["PATH=/app/bin"]}
# By repository and tag: the release below, what is above it, and what the image says of commands.
IMAGES = {
    "library/debian:bookworm-slim": ("bookworm", None, {}),
    "library/debian:bullseye-slim": ("bullseye", None, {}),
    "library/node:22-slim": ("bookworm", node, NODE),
    "library/node:22-bookworm": ("bookworm", node, NODE),
    "library/python:3.12-bookworm": (None, whole_python, {}),
    "library/python:3.12-slim": ("trixie", python, PYTHON),
    "oven/bun:latest": (None, bun, {"User": "bun"}),
    "slim/odd:latest": ("bookworm", odd, ODD),
    "slim/busybox:latest": (None, busybox, {}),
    "slim/broken-apt:latest": ("bookworm", broken_apt, {}),
    "slim/broken-dpkg:latest": ("bookworm", broken_dpkg, {}),
    "slim/packageless:latest": ("bookworm", packageless, {}),
}


def push(images):
    """All of them; those that stock recipes name are where a mirror of Docker Hub has them."""
    with concurrent.futures.ThreadPoolExecutor() as pool:
        made = dict(zip(SUITES, pool.map(lambda suite: debian(suite, images.cache_dir), SUITES)))
    made[None] = images.base
    for name, (suite, fill, config) in IMAGES.items():
        above = [images.small(f"slim-{fill.__name__}", GZIP, fill)] if fill else []
        images.manifest(*name.split(":"), [made[suite], *above], **config)
    images.manifest("slim/distroless", "latest", [images.small("slim-distroless", GZIP, distroless)], User="nonroot")
