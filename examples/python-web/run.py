"""Builds a template with a web service in it, starts a sandbox, and asks the service."""

import json
import os
import sys
import urllib.request

from e2b import Sandbox, Template, default_build_logger, wait_for_url

NAME = "example-python-web"

template = (
    Template()
    .from_base_image()
    .copy("app.py", "/srv/app.py")
    .set_start_cmd("python3 /srv/app.py", wait_for_url("http://127.0.0.1:8000/"))
)
Template.build(template, NAME, cpu_count=1, memory_mb=256, on_build_logs=default_build_logger())

with Sandbox.create(NAME, timeout=60) as sandbox:
    # By http or https, as the API.
    host = sandbox.get_host(8000)
    scheme = os.environ.get("E2B_API_URL", "https://").split("://")[0]
    with urllib.request.urlopen(f"{scheme}://{host}/?name=Ada", timeout=30) as answer:
        said = json.load(answer)
    print(f"{host} says {said}")

if said != {"hello": "Ada"}:
    sys.exit("that is not what was asked for")
