"""Layers of test images: tar streams written entry by entry, so that they hold exactly what an image
may hold, and compressed as a registry keeps them."""

import contextlib
import dataclasses
import gzip
import hashlib
import io
import json
import os
import subprocess
import tarfile

GZIP = "application/vnd.docker.image.rootfs.diff.tar.gzip"
OCI_GZIP = "application/vnd.oci.image.layer.v1.tar+gzip"
OCI_ZSTD = "application/vnd.oci.image.layer.v1.tar+zstd"


@dataclasses.dataclass(frozen=True)
class Layer:
    """A compressed layer in a file."""

    path: str
    media_type: str
    digest: str
    size: int
    diff_id: str

    def descriptor(self, media_type=None):
        return {"mediaType": media_type or self.media_type, "size": self.size, "digest": self.digest}


class Summed(io.RawIOBase):
    """Passes bytes on and sums them."""

    def __init__(self, inner):
        self.inner = inner
        self.sum = hashlib.sha256()

    def writable(self):
        return True

    def write(self, data):
        self.sum.update(data)
        self.inner.write(data)
        return len(data)

    @property
    def digest(self):
        return f"sha256:{self.sum.hexdigest()}"


@contextlib.contextmanager
def _zstd_into(path):
    with open(path, "wb") as out:
        zstd = subprocess.Popen(["zstd", "-q", "-1", "-c"], stdin=subprocess.PIPE, stdout=out)
        try:
            yield zstd.stdin
        finally:
            zstd.stdin.close()
            if zstd.wait(60) != 0:
                raise RuntimeError("zstd failed")


@contextlib.contextmanager
def _gzip_into(path):
    with open(path, "wb") as out, gzip.GzipFile(fileobj=out, mode="wb", compresslevel=1, mtime=0) as packed:
        yield packed


def _digest_of(path):
    with open(path, "rb") as file:
        return f"sha256:{hashlib.file_digest(file, 'sha256').hexdigest()}"


def write_layer(path, media_type, fill):
    """Makes a layer of what `fill` adds to a `tarfile.TarFile`; the file appears when it is whole."""
    into = _zstd_into if media_type == OCI_ZSTD else _gzip_into
    draft = f"{path}.draft"
    with into(draft) as packed:
        summed = Summed(packed)
        with tarfile.open(fileobj=summed, mode="w|", format=tarfile.PAX_FORMAT) as tar:
            fill(tar)
    os.rename(draft, path)
    return Layer(path, media_type, _digest_of(path), os.path.getsize(path), summed.digest)


def base_layer(base, cache_dir):
    """The files of a base archive (`.tar.zst`) as one layer, made once."""
    path = os.path.join(cache_dir, "base.layer")
    noted = f"{path}.json"
    if os.path.exists(noted):
        with open(noted) as file:
            return Layer(**json.load(file))

    def fill(tar):
        with subprocess.Popen(["zstd", "-q", "-d", "-c", base], stdout=subprocess.PIPE) as zstd:
            with tarfile.open(fileobj=zstd.stdout, mode="r|") as source:
                for entry in source:
                    # What the platform says of the archive, and what is no image's.
                    if entry.name == "casemate-template.json" or entry.isdev():
                        continue
                    tar.addfile(entry, source.extractfile(entry) if entry.isreg() else None)
        if zstd.returncode != 0:
            raise RuntimeError(f"zstd cannot read {base}")

    layer = write_layer(path, GZIP, fill)
    with open(noted, "w") as file:
        json.dump(dataclasses.asdict(layer), file)
    return layer


class Entries:
    """Adds entries to a tar by the few things that matter."""

    def __init__(self, tar):
        self.tar = tar

    def add(self, name, kind=tarfile.REGTYPE, data=b"", mode=0o644, uid=0, gid=0, link="", pax=None, device=(0, 0)):
        entry = tarfile.TarInfo(name)
        entry.type, entry.mode, entry.uid, entry.gid = kind, mode, uid, gid
        entry.mtime, entry.linkname, entry.size = 1_600_000_000, link, len(data)
        entry.devmajor, entry.devminor = device
        entry.pax_headers = pax or {}
        self.tar.addfile(entry, io.BytesIO(data) if kind == tarfile.REGTYPE else None)

    def folder(self, name, mode=0o755, **more):
        self.add(name, tarfile.DIRTYPE, mode=mode, **more)

    def file(self, name, data=b"", **more):
        self.add(name, data=data.encode() if isinstance(data, str) else data, **more)

    def symlink(self, name, target):
        self.add(name, tarfile.SYMTYPE, link=target, mode=0o777)

    def hard_link(self, name, target):
        self.add(name, tarfile.LNKTYPE, link=target)

    def character_device(self, name, major, minor):
        self.add(name, tarfile.CHRTYPE, mode=0o666, device=(major, minor))

    def whiteout(self, path):
        folder, _, name = path.rpartition("/")
        self.file(f"{folder}/.wh.{name}")

    def opaque(self, folder):
        self.file(f"{folder}/.wh..wh..opq")

    def sparse(self, name, size, at, data):
        """A file of `size` bytes with `data` at `at` and holes around, as GNU tar writes it in POSIX
        archives (version 1.0): the map is the beginning of the content."""
        lines = f"2\n{at}\n{len(data)}\n{size}\n0\n".encode()
        lines += bytes(-len(lines) % 512)
        folder, _, leaf = name.rpartition("/")
        pax = {
            "GNU.sparse.major": "1",
            "GNU.sparse.minor": "0",
            "GNU.sparse.name": name,
            "GNU.sparse.realsize": str(size),
        }
        self.add(f"{folder}/GNUSparseFile.0/{leaf}", data=lines + data, pax=pax)
