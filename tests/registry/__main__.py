"""Registries on loopback with the tests' images in them, an open one, one with a password, and both
behind the logins of Amazon and Google:

    python3 tests/registry DIR BASE

BASE is the archive of the base template. DIR keeps layers and what was pushed for as long as the
archive is the same, so that a second run pushes nothing that is there. When both answer, `DIR/env` (variables of the tests) and
`DIR/casemate.toml` (what a platform is told of the registries) are there. They end with this process.
"""

import json
import os
import pathlib
import shlex
import shutil
import signal
import socket
import subprocess
import sys
import time

import clouds
import push
import slim
from images import Images

USER = "puller"
PASSWORD = "only-for-tests"
# Of that password, by `htpasswd -nbB`: the registry knows no other form.
HTPASSWD = "puller:$2y$05$EHAVR5hgbsczjSBCPhr7LOYiYZqSr.ypkfAYhEkWXUYOHxmklUPbO\n"

CONFIG = """\
version: 0.1
log: {{level: warn, accesslog: {{disabled: true}}}}
storage:
  filesystem: {{rootdirectory: {store}}}
  delete: {{enabled: true}}
http: {{addr: "{address}"}}
"""
LOGIN = "auth: {{htpasswd: {{realm: tests, path: {path}}}}}\n"

PLATFORM = """\
[images]
ecr_endpoint = "http://{amazon}"

[images.registries."{open}"]
insecure = true

[images.registries."{private}"]
insecure = true

[images.registries."{amazon}"]
insecure = true

[images.registries."{google}"]
insecure = true

[images.registries."docker.io"]
mirrors = ["http://{open}"]
fallback = false

[images.aliases]
"ubuntu:22.04" = "{open}/debian:12"
"""


def free_address():
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return f"127.0.0.1:{listener.getsockname()[1]}"


class Served:
    """One `docker-registry`. Both have one store: what is pushed to the open one is in the other."""

    def __init__(self, dir, name, login=False):
        self.address = free_address()
        text = CONFIG.format(store=dir / "store", address=self.address)
        if login:
            passwords = dir / "htpasswd"
            passwords.write_text(HTPASSWD)
            text += LOGIN.format(path=passwords)
        config = dir / f"{name}.yml"
        config.write_text(text)
        with open(dir / f"{name}.log", "wb") as log:
            command = ["docker-registry", "serve", str(config)]
            self.process = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=log, stderr=log)

    def wait(self, registry, seconds=20):
        end = time.monotonic() + seconds
        while True:
            try:
                return registry.ask("GET", "/v2/")
            except (OSError, push.PushError) as error:
                if self.process.poll() is not None or time.monotonic() > end:
                    raise SystemExit(f"the registry at {self.address} does not answer: {error}")
                time.sleep(0.05)

    def end(self):
        self.process.terminate()
        self.process.wait(20)


def whole(path, text):
    """Whoever sees the file sees all of it."""
    draft = path.with_suffix(".draft")
    draft.write_text(text)
    draft.rename(path)


def prepare(dir, base):
    """The folder, emptied when what it has is of another archive."""
    about = os.stat(base)
    stamp = f"{os.path.realpath(base)} {about.st_size} {about.st_mtime_ns}\n"
    noted = dir / "stamp"
    if not noted.exists() or noted.read_text() != stamp:
        shutil.rmtree(dir, ignore_errors=True)
        dir.mkdir(parents=True)
        noted.write_text(stamp)
    (dir / "env").unlink(missing_ok=True)


def main():
    dir, base = pathlib.Path(sys.argv[1]).resolve(), sys.argv[2]
    prepare(dir, base)
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(0))
    served = []
    try:
        served.append(Served(dir, "open"))
        served.append(Served(dir, "private", login=True))
        opened, private = (one.address for one in served)
        registry = push.Registry(opened)
        served[0].wait(registry)
        served[1].wait(push.Registry(private, USER, PASSWORD))
        images = Images(registry, base, str(dir))
        images.push()
        slim.push(images)
        amazon, google = (clouds.Served(kind, opened).address for kind in (clouds.Amazon, clouds.Google))
        platform = PLATFORM.format(open=opened, private=private, amazon=amazon, google=google)
        whole(dir / "casemate.toml", platform)
        told = {
            "CASEMATE_TEST_REGISTRY": opened,
            "CASEMATE_TEST_REGISTRY_PRIVATE": private,
            "CASEMATE_TEST_REGISTRY_USER": USER,
            "CASEMATE_TEST_REGISTRY_PASSWORD": PASSWORD,
            "CASEMATE_TEST_AWS_REGISTRY": amazon,
            "CASEMATE_TEST_AWS": json.dumps([clouds.ACCESS_KEY, clouds.SECRET_KEY, clouds.REGION]),
            "CASEMATE_TEST_GCP_REGISTRY": google,
            "CASEMATE_TEST_GCP": json.dumps(clouds.ACCOUNT),
            "CASEMATE_TEST_REGISTRY_CONFIG": str(dir / "casemate.toml"),
        }
        whole(dir / "env", "".join(f"{name}={shlex.quote(value)}\n" for name, value in told.items()))
        # Until somebody ends us, or one of them ends.
        os.wait()
        raise SystemExit("a registry ended by itself")
    finally:
        for one in served:
            one.end()


if __name__ == "__main__":
    main()
