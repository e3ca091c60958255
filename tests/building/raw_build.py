"""Template builds past the SDKs: requests as they send them, and such as they never would.

The texts and statuses that tests compare with are those of E2B's API.
"""

import gzip
import hashlib
import http.client
import io
import json
import tarfile
import time
import urllib.parse

TERMINAL = ("ready", "error")


class Client:
    """One team's, by its key."""

    def __init__(self, url, key):
        self.at = urllib.parse.urlsplit(url)
        self.key = key

    def send(self, method, path, body=None, headers=None, key=True, timeout=60):
        """Status, headers and body. A dictionary is sent as JSON, an iterator in chunks."""
        head = {"X-API-Key": self.key} if key else {}
        if isinstance(body, (dict, list)):
            body = json.dumps(body).encode()
            head["Content-Type"] = "application/json"
        connection = http.client.HTTPConnection(self.at.hostname, self.at.port or 80, timeout=timeout)
        try:
            connection.request(method, path, body=body, headers={**head, **(headers or {})})
            answer = connection.getresponse()
            return answer.status, answer.headers, answer.read()
        finally:
            connection.close()

    def ask(self, method, path, body=None, **options):
        """Status and what the JSON says; None when there is none."""
        status, _, content = self.send(method, path, body, **options)
        return status, json.loads(content) if content else None

    def request(self, name, **fields):
        """Asks for a build, which then waits."""
        status, told = self.ask("POST", "/v3/templates", {"name": name, **fields})
        assert status == 202, (status, told)
        return told

    def link(self, template, files_hash):
        status, told = self.ask("GET", f"/templates/{template}/files/{files_hash}")
        assert status == 201, (status, told)
        return told

    def put(self, url, content, headers=None):
        """Status and body; no key goes along. The link is followed on plain http to where the client
        reaches the platform, whatever scheme it names."""
        parts = urllib.parse.urlsplit(url)
        path = f"{parts.path}?{parts.query}" if parts.query else parts.path
        status, _, body = self.send("PUT", path, content, headers, key=False)
        return status, body

    def upload(self, template, content):
        """Gives the hash under which it is there."""
        files_hash = hashlib.sha256(content).hexdigest()
        status, body = self.put(self.link(template, files_hash)["url"], content)
        assert status // 100 == 2, (status, body)
        return files_hash

    def trigger(self, template, build, **body):
        # By this word a server knows which rules of building a client expects.
        headers = {"User-Agent": "e2b-python-sdk/2.63.0"}
        return self.ask("POST", f"/v2/templates/{template}/builds/{build}", body, headers=headers)

    def begin(self, name, steps=(), **body):
        """Requests and triggers; gives the ids."""
        made = self.request(name)
        ids = made["templateID"], made["buildID"]
        body.setdefault("fromImage", "e2bdev/base")
        if "fromTemplate" in body:
            del body["fromImage"]
        status, told = self.trigger(*ids, steps=list(steps), **body)
        assert status == 202, (status, told)
        return ids

    def status(self, template, build, **query):
        path = f"/templates/{template}/builds/{build}/status?{urllib.parse.urlencode(query)}"
        status, told = self.ask("GET", path)
        assert status == 200, (status, told)
        return told

    def messages(self, template, build, **query):
        """All lines so far, as a client reads them: page by page."""
        found = []
        while page := self.status(template, build, logsOffset=len(found), **query)["logEntries"]:
            assert len(page) <= 100
            found += page
        return [entry["message"] for entry in found]

    def wait(self, template, build, seconds=60):
        """The status when it is final."""
        return self.until(template, build, lambda told: told["status"] in TERMINAL, seconds)

    def until(self, template, build, holds, seconds=60):
        end = time.monotonic() + seconds
        while True:
            told = self.status(template, build)
            if holds(told):
                return told
            assert time.monotonic() < end, f"not within {seconds} s: {told}"
            assert told["status"] not in TERMINAL, told
            time.sleep(0.05)

    def until_said(self, template, build, text, seconds=60):
        """Waits for a line while the build runs."""
        def said(_):
            return any(text in message for message in self.messages(template, build))

        return self.until(template, build, said, seconds)

    def build(self, name, steps=(), seconds=60, **body):
        """The ids, and how it ended."""
        ids = self.begin(name, steps, **body)
        return ids, self.wait(*ids, seconds)

    def copied(self, content, target="/home/user/copied", source=".", name=None, seconds=60):
        """Uploads an archive and copies it; how that build ended."""
        made = self.request(name or f"copied-{time.time_ns()}")
        ids = made["templateID"], made["buildID"]
        step = copy(source, target, self.upload(ids[0], content))
        status, told = self.trigger(*ids, fromImage="e2bdev/base", steps=[step])
        assert status == 202, (status, told)
        return ids, self.wait(*ids, seconds)

    def delete(self, template):
        return self.ask("DELETE", f"/templates/{template}")


def run(command, user=None, force=False):
    return {"type": "RUN", "args": [command] + ([user] if user else []), "force": force}


def copy(source, target, files_hash):
    return {"type": "COPY", "args": [source, target, "", ""], "force": False, "filesHash": files_hash}


def entry(name, kind=tarfile.REGTYPE, data=b"", link="", mode=0o644):
    made = tarfile.TarInfo(name)
    made.type, made.linkname, made.size, made.mode = kind, link, len(data), mode
    if kind in (tarfile.CHRTYPE, tarfile.BLKTYPE):
        made.devmajor, made.devminor = 1, 3
    return made, data


def archive(*entries, packed=True):
    """A tar of `entry(…)`s, gzipped as the SDKs send it."""
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w", format=tarfile.PAX_FORMAT) as tar:
        for made, data in entries:
            tar.addfile(made, io.BytesIO(data) if data else None)
    return gzip.compress(out.getvalue(), 1) if packed else out.getvalue()
