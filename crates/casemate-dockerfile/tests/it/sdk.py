"""Reads a JSON list of Dockerfiles, answers what the stock SDK makes of each: its recipe, or null."""

import contextlib
import io
import json
import os
import sys
import tempfile

from e2b import Template
from e2b.exceptions import TemplateException

context = tempfile.mkdtemp()
for name in ["a.txt", "b.txt", "my file.txt", "$X", "${X:-a}"]:
    with open(os.path.join(context, name), "w") as file:
        file.write(name)


def recipe(text):
    with contextlib.redirect_stdout(io.StringIO()):
        try:
            template = Template(file_context_path=context).from_dockerfile(text)
        except (ValueError, TemplateException):
            return None
        return json.loads(Template.to_json(template))


json.dump([recipe(text) for text in json.load(sys.stdin)], sys.stdout)
