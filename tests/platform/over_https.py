"""A client that knows a domain, a key and whom to trust, and nothing else: the stock SDK over https.

Runs in a mount namespace of its own, where /etc/hosts is a file of its test: the C library resolves
no name below `localhost`, and the sandbox's name is known only after it was made. Prints JSON.
"""

import json
import os
import ssl
import sys
import time
import urllib.request

import e2b

DOMAIN = os.environ["E2B_DOMAIN"]
HOST = DOMAIN.split(":")[0]


def resolve(*names):
    with open("/etc/hosts", "a") as hosts:
        hosts.writelines(f"127.0.0.1 {name}\n" for name in names)


def fetch(url, seconds=10):
    """With what every Python program trusts, which SSL_CERT_FILE says."""
    end = time.monotonic() + seconds
    while True:
        try:
            with urllib.request.urlopen(url, timeout=10) as answer:
                return answer.read().decode()
        except OSError:
            if time.monotonic() > end:
                raise
            time.sleep(0.1)


def main():
    told = {"named": sorted(name for name in os.environ if name.startswith("E2B_"))}
    resolve(HOST, f"api.{HOST}")
    with e2b.Sandbox.create(timeout=120) as sandbox:
        host = sandbox.get_host(3000)
        resolve(f"49983-{sandbox.sandbox_id}.{HOST}", host.split(":")[0])
        told["id"], told["host"] = sandbox.sandbox_id, host
        told["ran"] = sandbox.commands.run("echo $((6 * 7))").stdout
        sandbox.files.write("/home/user/page/index.html", "from inside")
        told["read"] = sandbox.files.read("/home/user/page/index.html")
        told["large"] = len(sandbox.commands.run("head -c 3000000 /dev/zero | tr '\\0' x").stdout)
        serve = "cd /home/user/page && python3 -m http.server 3000 --bind 127.0.0.1"
        sandbox.commands.run(serve, background=True)
        told["fetched"] = fetch(f"https://{host}/")
        told["signed"] = fetch(sandbox.download_url("/home/user/page/index.html"))
        told["listed"] = any(
            item.sandbox_id == sandbox.sandbox_id for item in e2b.Sandbox.list().next_items()
        )
        try:
            context = ssl.create_default_context(cafile="/etc/ssl/certs/ca-certificates.crt")
            urllib.request.urlopen(f"https://{host}/", context=context, timeout=10)
        except OSError as error:
            told["untrusted"] = str(error)
    json.dump(told, sys.stdout)


main()
