"""Pushes to a registry over its API, with the standard library alone.

The API is the OCI distribution specification's: https://github.com/opencontainers/distribution-spec.
"""

import base64
import hashlib
import http.client
import json
import os
import urllib.parse


class PushError(Exception):
    pass


class Registry:
    """One that listens on plain http; `host` is `name:port`."""

    def __init__(self, host, username=None, password=None):
        self.host = host
        self.headers = {}
        # Where a blob was put first.
        self.origins = {}
        if username is not None:
            login = base64.b64encode(f"{username}:{password}".encode()).decode()
            self.headers["Authorization"] = f"Basic {login}"

    def ask(self, method, path, body=None, headers=None, expected=(200,)):
        connection = http.client.HTTPConnection(self.host, timeout=60)
        try:
            connection.request(method, path, body=body, headers={**self.headers, **(headers or {})})
            answer = connection.getresponse()
            content = answer.read()
        finally:
            connection.close()
        if answer.status not in expected:
            raise PushError(f"{method} {path}: {answer.status} {content[:500]!r}")
        answer.content = content
        return answer

    def json(self, path, media_type="*/*"):
        return json.loads(self.ask("GET", path, headers={"Accept": media_type}).content)

    def has(self, repository, digest):
        return self.ask("HEAD", f"/v2/{repository}/blobs/{digest}", expected=(200, 404)).status == 200

    def _upload(self, repository, digest, body, size):
        began = self.ask("POST", f"/v2/{repository}/blobs/uploads/", headers={"Content-Length": "0"}, expected=(202,))
        place = urllib.parse.urlsplit(began.headers["Location"])
        query = f"{place.query}&" if place.query else ""
        path = f"{place.path}?{query}digest={urllib.parse.quote(digest)}"
        headers = {"Content-Type": "application/octet-stream", "Content-Length": str(size)}
        self.ask("PUT", path, body=body, headers=headers, expected=(201,))

    def blob_from_file(self, repository, digest, path):
        """From another repository that has it, or else from the file."""
        if self.has(repository, digest):
            return
        if origin := self.origins.get(digest):
            query = urllib.parse.urlencode({"mount": digest, "from": origin})
            mount = f"/v2/{repository}/blobs/uploads/?{query}"
            self.ask("POST", mount, headers={"Content-Length": "0"}, expected=(201,))
            return
        with open(path, "rb") as file:
            self._upload(repository, digest, file, os.path.getsize(path))
        self.origins[digest] = repository

    def json_blob(self, repository, value, media_type):
        """Gives the blob's descriptor."""
        text = json.dumps(value, separators=(",", ":")).encode()
        digest = f"sha256:{hashlib.sha256(text).hexdigest()}"
        if not self.has(repository, digest):
            self._upload(repository, digest, text, len(text))
        return {"mediaType": media_type, "size": len(text), "digest": digest}

    def manifest(self, repository, tag, manifest):
        """Under a tag, or under its digest alone; gives its descriptor."""
        text = json.dumps(manifest, separators=(",", ":")).encode()
        digest = f"sha256:{hashlib.sha256(text).hexdigest()}"
        headers = {"Content-Type": manifest["mediaType"]}
        self.ask("PUT", f"/v2/{repository}/manifests/{tag or digest}", text, headers, expected=(201,))
        return {"mediaType": manifest["mediaType"], "size": len(text), "digest": digest}
