"""The images that the tests build from, all made of the base archive: no other registry is asked."""

import os

import push
from layers import GZIP, OCI_GZIP, OCI_ZSTD, Entries, base_layer, write_layer

PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
DOCKER_MANIFEST = "application/vnd.docker.distribution.manifest.v2+json"
OCI_MANIFEST = "application/vnd.oci.image.manifest.v1+json"
OCI_INDEX = "application/vnd.oci.image.index.v1+json"
DOCKER_CONFIG = "application/vnd.docker.container.image.v1+json"
OCI_CONFIG = "application/vnd.oci.image.config.v1+json"
# cap_net_raw, permitted and effective, as the kernel keeps it (revision 2 of its format).
NET_RAW = bytes.fromhex("0100000200200000" + "00" * 12)


# What a sandbox must find of the two, and what it must not: tests/sdk/python/test_images.py.
def lower(tar):
    add = Entries(tar)
    add.folder("opt/layers")
    for name in ("gone", "kept", "becomes-a-folder"):
        add.file(f"opt/layers/{name}", f"{name} of the lower layer\n")
    add.folder("opt/layers/emptied")
    add.file("opt/layers/emptied/old", "old\n")
    add.folder("opt/layers/whited")
    add.file("opt/layers/whited/inside", "inside\n")
    add.folder("opt/layers/becomes-a-file")
    add.file("opt/layers/becomes-a-file/inside", "inside\n")
    add.folder("opt/layers/real")
    add.symlink("opt/layers/alias", "real")


def upper(tar):
    add = Entries(tar)
    add.whiteout("opt/layers/gone")
    add.whiteout("opt/layers/whited")
    add.opaque("opt/layers/emptied")
    add.file("opt/layers/emptied/new", "new\n")
    add.folder("opt/layers/becomes-a-folder")
    add.file("opt/layers/becomes-a-folder/inside", "inside\n")
    add.file("opt/layers/becomes-a-file", "a file\n")
    # Through a link of the layer below, which stays one.
    add.file("opt/layers/alias/through", "through\n")
    # No entry says how its folders are.
    add.file("opt/layers/no/parents/here", "here\n")
    add.file("opt/layers/first", "linked\n", mode=0o640)
    add.hard_link("opt/layers/second", "opt/layers/first")
    add.hard_link("opt/layers/kept-too", "opt/layers/kept")
    add.file("opt/layers/setuid", "#!/bin/sh\n", mode=0o4755)
    add.file("opt/layers/owned", "owned\n", mode=0o600, uid=12345, gid=54321)
    add.file("opt/layers/noted", "noted\n", pax={"SCHILY.xattr.user.note": "of the image"})
    add.file("opt/layers/able", "#!/bin/sh\n", mode=0o755, pax={"SCHILY.xattr.security.capability": NET_RAW.decode()})
    add.sparse("opt/layers/sparse", 64 << 20, 32 << 20, b"in the middle")
    add.character_device("opt/layers/device", 1, 3)
    add.file(f"opt/layers/{'long-' * 40}name", "long\n")
    add.file("opt/layers/n\u00e4me \u2603", "unicode\n")


def rhel(tar):
    Entries(tar).file("usr/lib/os-release", 'ID="rhel"\nID_LIKE="fedora"\nVERSION_ID="9.4"\n')


def shell_less(tar):
    add = Entries(tar)
    add.folder("etc")
    add.file("etc/os-release", "ID=debian\nVERSION_ID=12\nVERSION_CODENAME=bookworm\n")
    add.file("etc/passwd", "root:x:0:0:root:/root:/sbin/nologin\n")
    add.file("hello", "hello\n")


class Images:
    def __init__(self, registry, base, cache_dir):
        self.registry = registry
        self.cache_dir = cache_dir
        self.base = base_layer(base, cache_dir)

    def small(self, name, media_type, fill):
        return write_layer(os.path.join(self.cache_dir, f"{name}.layer"), media_type, fill)

    def manifest(self, repository, tag, layers, *, oci=False, architecture="amd64", **config):
        """Pushes layers, config and manifest; gives the manifest's descriptor."""
        for layer in layers:
            self.registry.blob_from_file(repository, layer.digest, layer.path)
        described = {
            "architecture": architecture,
            "os": "linux",
            "config": config,
            "rootfs": {"type": "layers", "diff_ids": [layer.diff_id for layer in layers]},
            "history": [{"created_by": "tests/registry"} for _ in layers],
        }
        config_type = OCI_CONFIG if oci else DOCKER_CONFIG
        media_type = OCI_MANIFEST if oci else DOCKER_MANIFEST
        manifest = {
            "schemaVersion": 2,
            "mediaType": media_type,
            "config": self.registry.json_blob(repository, described, config_type),
            "layers": [layer.descriptor(OCI_GZIP if oci and layer.media_type == GZIP else None) for layer in layers],
        }
        return self.registry.manifest(repository, tag, manifest)

    def push(self):
        debian = {
            "Env": [f"PATH={PATH}", "FROM_IMAGE=yes", "EMPTY="],
            # Not for sandboxes: they have users, folders and commands of their own.
            "Cmd": ["/bin/false"],
            "Entrypoint": ["/bin/false"],
            "User": "daemon",
            "WorkingDir": "/var/mail",
        }
        for tag in ("12", "latest"):
            self.manifest("debian", tag, [self.base], **debian)
        # The registry is a mirror of Docker Hub, too. What a base of ours cannot be is not there.
        for name in ("library/debian:stable", "library/python:3", "library/node:lts"):
            self.manifest(*name.split(":"), [self.base], Env=[f"PATH={PATH}", f"FROM_IMAGE={name}"])
        stacked = [self.base, self.small("lower", OCI_GZIP, lower), self.small("upper", OCI_ZSTD, upper)]
        self.manifest("layers", "latest", stacked, oci=True, Env=[f"PATH={PATH}"])
        self.manifest("rhel", "latest", [self.base, self.small("rhel", GZIP, rhel)], Env=[f"PATH={PATH}"])
        bare = self.small("shell-less", GZIP, shell_less)
        self.manifest("noshell", "latest", [bare])
        self.manifest("arm", "latest", [bare], architecture="arm64")
        amd = self.manifest("multi", None, [self.base], oci=True, Env=[f"PATH={PATH}", "FROM_IMAGE=multi"])
        arm = self.manifest("multi", None, [bare], oci=True, architecture="arm64")
        platforms = [(arm, "arm64"), (amd, "amd64")]
        index = {
            "schemaVersion": 2,
            "mediaType": OCI_INDEX,
            "manifests": [{**of, "platform": {"os": "linux", "architecture": name}} for of, name in platforms],
        }
        self.registry.manifest("multi", "latest", index)
