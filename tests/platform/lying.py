"""A registry that stalls, lies and cuts off: what is wrong with it is the first word of a repository."""

import gzip
import hashlib
import http.server
import io
import json
import tarfile
import threading
import time

MANIFEST = "application/vnd.oci.image.manifest.v1+json"
LAYER = "application/vnd.oci.image.layer.v1.tar+gzip"
CONFIG = "application/vnd.oci.image.config.v1+json"


def digest(data):
    return f"sha256:{hashlib.sha256(data).hexdigest()}"


def layer_of(size):
    """A layer with a file of so many zeros, packed; and the sum of what it unpacks to."""
    out, summed = io.BytesIO(), hashlib.sha256()

    class Both(io.RawIOBase):
        def writable(self):
            return True

        def write(self, data):
            summed.update(data)
            packed.write(data)
            return len(data)

    class Zeros(io.RawIOBase):
        def readable(self):
            return True

        def read(self, count=-1):
            return bytes(count)

    with gzip.GzipFile(fileobj=out, mode="wb", compresslevel=1, mtime=0) as packed:
        with tarfile.open(fileobj=Both(), mode="w|") as tar:
            entry = tarfile.TarInfo("zeros")
            entry.size = size
            tar.addfile(entry, Zeros())
    return out.getvalue(), f"sha256:{summed.hexdigest()}"


class Image:
    def __init__(self, size):
        self.layer, diff = layer_of(size)
        rootfs = {"type": "layers", "diff_ids": [diff]}
        self.config = json.dumps({"architecture": "amd64", "os": "linux", "config": {}, "rootfs": rootfs}).encode()
        describe = lambda kind, data: {"mediaType": kind, "size": len(data), "digest": digest(data)}
        self.manifest = json.dumps(
            {
                "schemaVersion": 2,
                "mediaType": MANIFEST,
                "config": describe(CONFIG, self.config),
                "layers": [describe(LAYER, self.layer)],
            }
        ).encode()
        self.blobs = {digest(data): data for data in (self.config, self.layer)}


class Handler(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def log_message(self, *_):
        pass

    def answer(self, status, body=b"", **headers):
        self.send_response(status)
        self.send_header("Content-Length", str(len(body)))
        for name, value in headers.items():
            self.send_header(name.replace("_", "-"), value)
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body)

    def do_HEAD(self):
        self.do_GET()

    def do_GET(self):
        try:
            self.lie()
        except OSError:
            # Whoever asked has gone.
            self.close_connection = True

    def lie(self):
        if self.path == "/v2/":
            return self.answer(200)
        kind, what, name = self.path.removeprefix("/v2/").split("/")[:1] + self.path.split("/")[-2:]
        self.server.asked.append((kind, what))
        image = self.server.images.get(kind, self.server.images["small"])
        if kind == "refuses":
            return self.answer(500, b"{}")
        if kind == "wants":
            return self.answer(401, b"{}", WWW_Authenticate='Basic realm="tests"')
        if kind == "sends":
            return self.answer(302, Location="http://169.254.169.254/latest/meta-data")
        if what == "manifests":
            body = image.manifest
            if kind == "babbles":
                body += b" " * (64 << 20)
            return self.answer(200, body, Content_Type=MANIFEST)
        blob = image.blobs.get(name)
        if blob is None:
            return self.answer(404, b"{}")
        if blob is image.config:
            return self.answer(200, blob)
        if kind == "alters":
            return self.answer(200, blob[:-1] + bytes([blob[-1] ^ 1]))
        if kind == "redirects":
            return self.answer(307, Location="http://127.0.0.1:1/blob")
        if kind in ("stalls", "cuts"):
            self.send_response(200)
            self.send_header("Content-Length", str(len(blob)))
            self.end_headers()
            self.wfile.write(blob[: len(blob) // 2])
            self.wfile.flush()
            self.close_connection = True
            if kind == "stalls":
                self.server.released.wait(900)
            return None
        return self.answer(200, blob)


class Registry(http.server.ThreadingHTTPServer):
    daemon_threads = True

    def __init__(self):
        super().__init__(("127.0.0.1", 0), Handler)
        self.images = {"small": Image(100_000), "swells": Image(1200 << 20)}
        self.asked = []
        self.released = threading.Event()
        threading.Thread(target=self.serve_forever, daemon=True).start()

    @property
    def host(self):
        return f"127.0.0.1:{self.server_address[1]}"

    def was_asked(self, kind, what, seconds=30):
        end = time.monotonic() + seconds
        while (kind, what) not in self.asked:
            assert time.monotonic() < end, f"nobody asked for {what} of {kind}"
            time.sleep(0.05)

    def close(self):
        self.released.set()
        self.shutdown()
        self.server_close()
