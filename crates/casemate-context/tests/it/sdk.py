"""Reads {"contexts": […], "sources": […]}, answers for each context the hash that the stock SDK has
for each source, or null where it refuses."""

import json
import sys

from e2b import Template
from e2b.exceptions import TemplateException


def hash_of(context, source):
    try:
        template = Template(file_context_path=context).from_base_image().copy(source, "/dest/")
        return json.loads(Template.to_json(template))["steps"][0]["filesHash"]
    except (ValueError, TemplateException):
        return None


asked = json.load(sys.stdin)
answer = [[hash_of(context, source) for source in asked["sources"]] for context in asked["contexts"]]
json.dump(answer, sys.stdout)
