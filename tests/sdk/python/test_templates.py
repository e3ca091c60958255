"""Templates by name, tag and id; lists of them; builds that wait, run and are superseded.
Numbers in parentheses: section 7 of the specification of templates."""

import os
import time
import urllib.parse
import uuid

import e2b
import pytest

import raw_build
from raw_build import run

raw = raw_build.Client(os.environ["CASEMATE_TEST_URL"], os.environ["E2B_API_KEY"])
NO_BUILD = "00000000-0000-0000-0000-000000000000"


def small(sdk, said=""):
    return sdk.Template().from_base_image().run_cmd(f"echo '{said}' > said")


async def said_by(sdk, reference):
    sandbox = await sdk.create(reference, timeout=60)
    said = (await sdk.run(sandbox, "cat said")).stdout.strip()
    await sdk.do(sandbox.kill())
    return said


async def refused(sdk, reference, status, said):
    with pytest.raises(e2b.SandboxException) as caught:
        await sdk.create(reference)
    assert caught.value.status_code == status and said in str(caught.value), str(caught.value)


async def test_builds_and_names(sdk):
    """(1, 2, 3, 4, 34, 36)"""
    name = sdk.fresh_name()
    assert await sdk.do(sdk.Template.exists(name)) is False
    first = await sdk.build(small(sdk, "first"), name)
    assert (first.info.name, first.info.alias, first.info.tags) == (name, name, ["default"])
    assert first.lines[:3] == [
        "Build started",
        f"Requesting build for template: {name}",
        f"Template created with ID: {first.info.template_id}, Build ID: {first.info.build_id}",
    ]
    assert len(first.info.template_id) == 20 and uuid.UUID(first.info.build_id).version == 4
    assert await sdk.do(sdk.Template.alias_exists(name)) is True
    again = await sdk.do(sdk.Template.build(small(sdk, "again"), alias=name.upper()))
    assert again.template_id == first.info.template_id and again.build_id != first.info.build_id
    tagged = await sdk.build(small(sdk, "tagged"), f"{name}:v1", tags=["v1", "A"])
    assert tagged.info.template_id == first.info.template_id and sorted(tagged.info.tags) == ["a", "v1"]
    template = first.info.template_id
    for reference, said in [
        (name, "again"),
        (f"default/{name}", "again"),
        (f"{name}:default", "again"),
        (template, "again"),
        (f"{template}:v1", "tagged"),
        (f"default/{name}:a", "tagged"),
        (f"{name}:{first.info.build_id}", "first"),
        (f"{template}:{again.build_id}", "again"),
    ]:
        assert await said_by(sdk, reference) == said, reference
    for reference, expected in [
        (f"{name}:v1", True), (f"default/{name}:a", True), (f"{name}:none", False), (f"{name}:default", True),
    ]:  # fmt: skip
        assert await sdk.do(sdk.Template.exists(reference)) is expected, reference
    await sdk.fails(e2b.TemplateException, lambda: sdk.Template.exists(f"somebody/{name}"))
    # The platform's own base is nobody's, and there.
    assert await sdk.do(sdk.Template.exists("base")) is True
    with pytest.raises(e2b.TemplateException, match="Name must be provided"):
        await sdk.do(sdk.Template.build(small(sdk)))


async def test_tags(sdk):
    """(35)"""
    name = sdk.fresh_name()
    first = await sdk.build(small(sdk, "first"), name)
    running = await sdk.create(name)
    told = await sdk.do(sdk.Template.assign_tags(f"{name}:default", ["Stable", "v1"]))
    assert told.build_id == first.info.build_id and sorted(told.tags) == ["stable", "v1"]
    second = await sdk.build(small(sdk, "second"), name)
    tags = await sdk.do(sdk.Template.get_tags(name))
    assert [(tag.tag, tag.build_id) for tag in tags] == [
        ("default", second.info.build_id), ("stable", first.info.build_id), ("v1", first.info.build_id),
    ]  # fmt: skip
    assert all(tag.created_at for tag in tags)
    assert await said_by(sdk, f"{name}:stable") == "first"
    # Moved, by a tag and by a build.
    told = await sdk.do(sdk.Template.assign_tags(f"{name}:default", "stable"))
    assert (told.build_id, told.tags) == (second.info.build_id, ["stable"])
    assert await said_by(sdk, f"{name}:stable") == "second"
    await sdk.do(sdk.Template.assign_tags(f"{name}:{first.info.build_id}", "stable"))
    assert await said_by(sdk, f"default/{name}:stable") == "first"
    assert await sdk.do(sdk.Template.remove_tags(name, "stable")) is None
    await sdk.do(sdk.Template.remove_tags(f"default/{name}", ["v1", "never-there"]))
    await refused(sdk, f"{name}:v1", 404, "tag 'v1' does not exist for template")
    assert [tag.tag for tag in await sdk.do(sdk.Template.get_tags(first.info.template_id))] == ["default"]
    assert (await sdk.run(running, "cat said")).stdout == "first\n"
    missing = sdk.fresh_name()
    for call in [
        lambda: sdk.Template.remove_tags(name, "default"),
        lambda: sdk.Template.remove_tags(f"{name}:v1", "v1"),
        lambda: sdk.Template.assign_tags(name, []),
        lambda: sdk.Template.assign_tags(name, "No Tag"),
        lambda: sdk.Template.assign_tags(name, str(uuid.uuid4())),
        lambda: sdk.Template.assign_tags(f"{name}:none", "v2"),
        lambda: sdk.Template.assign_tags(missing, "v2"),
        lambda: sdk.Template.assign_tags(f"somebody/{name}", "v2"),
        lambda: sdk.Template.get_tags(missing),
    ]:
        await sdk.fails(e2b.TemplateException, call)
    status, headers, body = raw.send("DELETE", "/templates/tags", {"name": name, "tags": ["x"]})
    assert (status, body) == (204, b"")
    for body, said in [
        ({"name": name, "tags": []}, "At least one tag is required"),
        ({"name": name, "tags": ["default"]}, "Cannot delete the 'default' tag"),
        ({"name": f"{name}:x", "tags": ["x"]}, "Template name should not contain a tag"),
        ({"name": f"somebody/{name}", "tags": ["x"]}, "namespace 'somebody' must match your team 'default'"),
    ]:
        status, told = raw.ask("DELETE", "/templates/tags", body)
        assert status == 400 and said in told["message"], told


def test_requests_that_are_refused():
    """(3, 6, 7): a status and a text each."""
    name = f"r-{uuid.uuid4().hex[:8]}"
    made = raw.request(name)
    for body, status, said in [
        ({}, 400, "Name is required"),
        ({"name": "Not a name!"}, 400, "Invalid name: "),
        ({"name": "a" * 129}, 400, ""),
        ({"name": f"{name}:"}, 400, "nvalid"),
        ({"name": f"{name}:{uuid.uuid4()}"}, 400, "tag cannot be a UUID"),
        ({"name": name, "tags": [str(uuid.uuid4())]}, 400, "tag cannot be a UUID"),
        ({"name": name, "tags": ["no tag"]}, 400, "Invalid tag: "),
        ({"name": f"somebody/{name}"}, 400, "namespace 'somebody' must match your team 'default'"),
        ({"name": name, "cpuCount": 3}, 400, "CPU count must be 1 or an even number"),
        ({"name": name, "cpuCount": 34}, 400, "CPU count must be at most 32"),
        ({"name": name, "memoryMB": 1025}, 400, "Memory must be divisible by 2"),
        ({"name": name, "memoryMB": 64}, 400, ""),
        ({"name": name, "cpuCount": 3, "memoryMB": 1025}, 400, "CPU count must be 1 or an even number"),
        ({"name": made["templateID"]}, 409, f"Alias '{made['templateID']}' is already used"),
    ]:
        got, told = raw.ask("POST", "/v3/templates", body)
        assert got == status and said in told["message"] and told["code"] == status, (body, told)
    assert raw.ask("POST", "/v3/templates", [1])[0] == 400
    assert raw.send("POST", "/v3/templates", {"name": name}, key=False)[0] == 401
    for path in ("/templates", f"/templates/{made['templateID']}", f"/templates/{made['templateID']}/builds/{made['buildID']}"):
        status, told = raw.ask("POST", path, {"dockerfile": "FROM a"})
        assert status in (400, 401, 410), (path, status, told)
    raw.delete(made["templateID"])


def test_framings_and_escapes():
    """(1, 8, 9)"""
    name = f"f-{uuid.uuid4().hex[:8]}"
    chunked = lambda text: iter([text[:7].encode(), text[7:].encode()])
    json_type = {"Content-Type": "application/json"}
    # With an iterator http.client sends chunks and no length, as Node does.
    status, _, body = raw.send("POST", "/v3/templates", chunked(f'{{"name": "{name.upper()}"}}'), json_type)
    assert status == 202, body
    made = raw_build.json.loads(body)
    assert set(made) == {"templateID", "buildID", "public", "aliases", "names", "tags"}
    assert (made["aliases"], made["names"], made["tags"]) == ([name], [f"default/{name}"], ["default"])
    assert made["public"] is False
    ids = made["templateID"], made["buildID"]
    recipe = '{"fromImage": "e2bdev/base", "steps": [], "unknown": {"a": [1]}}'
    path = f"/v2/templates/{ids[0]}/builds/{ids[1]}"
    status, headers, body = raw.send("POST", path, chunked(recipe), {**json_type, "User-Agent": "e2b-js-sdk/2.51.0"})
    # An empty answer says its length: SDKs fail on an empty one in chunks.
    assert (status, headers["Content-Length"], body) == (202, "0", b"")
    assert raw.wait(*ids)["status"] == "ready"
    escaped = urllib.parse.quote(f"default/{name}", safe="")
    assert raw.ask("GET", f"/templates/aliases/{escaped}%3Adefault") == (200, {"templateID": ids[0], "public": False})
    assert raw.ask("GET", f"/templates/{escaped}/tags")[0] == 200
    # Decoded once.
    assert raw.ask("GET", f"/templates/aliases/{escaped.replace('%', '%25')}")[0] == 400
    patch = f"/v2/templates/{escaped}"
    for public in ("true", "false"):
        status, _, body = raw.send("PATCH", patch, chunked(f'{{"public": {public}}}'), json_type)
        assert status == 200 and raw_build.json.loads(body) == {"names": [f"default/{name}"]}
        assert raw.ask("GET", f"/templates/aliases/{name}")[1]["public"] is (public == "true")
    status, _, body = raw.send("DELETE", "/templates/tags", chunked(f'{{"name": "{name}", "tags": ["a"]}}'), json_type)
    assert status == 204, body
    status, headers, body = raw.send("DELETE", f"/templates/{escaped}")
    assert (status, body) == (204, b"")


def test_status_and_trigger():
    """(14, 15, 16), and that what waits says nothing."""
    made = raw.request(f"s-{uuid.uuid4().hex[:8]}")
    ids = made["templateID"], made["buildID"]
    told = raw.status(*ids)
    assert told == {"templateID": ids[0], "buildID": ids[1], "status": "waiting", "logs": [], "logEntries": []}
    assert raw.ask("GET", f"/templates/{ids[0]}/builds/{ids[1]}/logs") == (200, {"logs": []})
    other = str(uuid.uuid4())
    status, told = raw.ask("GET", f"/templates/{ids[0]}/builds/{other}/status")
    assert status == 400 and told["message"] == f"Build '{other}' not found"
    assert raw.ask("GET", f"/templates/{ids[0]}/builds/no-uuid/status")[0] == 400
    assert raw.trigger(ids[0], other, fromImage="e2bdev/base")[0] == 404
    status, told = raw.trigger(ids[0], "no-uuid", fromImage="e2bdev/base")
    assert status == 400 and "Invalid build ID" in told["message"]
    assert raw.trigger(*ids, steps="none")[0] == 400
    for query in ("logsOffset=-1", "limit=101", "level=loud", "logsOffset=x"):
        assert raw.ask("GET", f"/templates/{ids[0]}/builds/{ids[1]}/status?{query}")[0] == 400, query
    status, told = raw.trigger(*ids, fromImage="e2bdev/base", steps=[run(f"echo out; echo err >&2 # {ids[1]}")], readyCmd="echo asked")
    assert (status, told) == (202, None)
    status, told = raw.trigger(*ids, fromImage="e2bdev/base")
    assert (status, told["message"]) == (400, "build is not in waiting state")
    raw.wait(*ids)
    status, told = raw.trigger(*ids, fromImage="e2bdev/base")
    assert (status, told["message"]) == (400, "build is not in waiting state")
    everything = raw.messages(*ids)
    loud = raw.messages(*ids, level="info")
    assert "[ready] [stdout]: asked" in everything and "[ready] [stdout]: asked" not in loud and loud
    assert raw.messages(*ids, level="error") == []
    assert len(raw.status(*ids, limit=2)["logEntries"]) == 2
    step = [e for e in raw.status(*ids, level="info")["logEntries"] if e.get("step") == "1"]
    assert {"[builder 1/1] [stdout]: out", "[builder 1/1] [stderr]: err"} <= {e["message"] for e in step}
    path = f"/templates/{ids[0]}/builds/{ids[1]}/logs"
    forward = raw.ask("GET", f"{path}?limit=100&direction=forward")[1]["logs"]
    backward = raw.ask("GET", f"{path}?limit=3&direction=backward")[1]["logs"]
    messages = [entry["message"] for entry in forward]
    assert messages == everything[:100]
    assert [entry["message"] for entry in backward] == everything[-3:][::-1]
    later = raw.ask("GET", f"{path}?cursor={int(time.time() * 1000) + 60_000}")[1]["logs"]
    assert later == []
    raw.delete(ids[0])


def test_recipes_that_are_refused():
    name = f"w-{uuid.uuid4().hex[:8]}"
    for body, said in [
        ({}, "must specify either fromImage or fromTemplate"),
        ({"fromImage": "a", "fromTemplate": "b"}, "cannot specify both fromImage and fromTemplate"),
    ]:
        made = raw.request(name)
        ids = made["templateID"], made["buildID"]
        status, told = raw.trigger(*ids, **body)
        assert status == 500 and said in told["message"], told
        assert raw.status(*ids)["status"] == "error"
    for step, said in [
        ({"type": "TELEPORT", "args": ["a"]}, "command type TELEPORT is not implemented"),
        ({"type": "RUN", "args": []}, "RUN requires command argument"),
        ({"type": "ENV", "args": []}, "ENV does not support passing no arguments"),
        ({"type": "ENV", "args": ["a"]}, "ENV requires both a key and value arguments"),
        ({"type": "WORKDIR", "args": []}, "WORKDIR requires a path argument"),
        ({"type": "USER", "args": []}, "USER requires a username argument"),
        ({"type": "COPY", "args": ["a"], "filesHash": "0" * 64}, "COPY requires a local path and a container path"),
        ({"type": "COPY", "args": ["a", "b"]}, "COPY requires files hash to be set"),
    ]:
        ids, told = raw.build(name, [step])
        assert told["status"] == "error" and said in told["reason"]["message"], told
        assert told["reason"]["step"] == "1"
    # In any case of letters, and by their other names.
    steps = [
        {"type": "run", "args": ["echo 1 > ~/one"]},
        {"type": "ARG", "args": ["A", "two"]},
        {"type": "Run", "args": ["echo $A >> ~/one", ""], "force": True, "resolveSymlinks": False, "gzip": True},
    ]
    ids, told = raw.build(name, steps)
    assert told["status"] == "ready", told
    raw.delete(ids[0])


async def test_in_background(sdk):
    """(30): newer builds of the same name and tag."""
    name = sdk.fresh_name()
    slow = sdk.Template().from_base_image().run_cmd(f"echo begun; sleep 600 # {name}")
    info = await sdk.do(sdk.Template.build_in_background(slow, name, tags=["t"]))
    sdk.templates.add(info.template_id)
    assert (info.name, info.tags) == (name, ["t"])

    async def status():
        return await sdk.do(sdk.Template.get_build_status(info))

    async def begun():
        return any("begun" in entry.message for entry in (await status()).log_entries)

    await sdk.until("the step's beginning", begun, 60)
    assert (await status()).status == e2b.TemplateBuildStatus.BUILDING
    # Another tag is no rival; the same one is, from when it is triggered.
    await sdk.build(small(sdk, "other"), f"{name}:u")
    assert (await status()).status == e2b.TemplateBuildStatus.BUILDING
    waiting = raw.request(f"{name}:t")
    assert (await status()).status == e2b.TemplateBuildStatus.BUILDING
    newer = await sdk.build(small(sdk, "newer"), name, tags=["t"])
    told = await status()
    assert told.status == e2b.TemplateBuildStatus.ERROR and told.reason.message == "build was cancelled"
    assert told.reason.step is None
    superseded = raw.status(waiting["templateID"], waiting["buildID"])
    assert superseded["status"] == "error"
    message = "The build was canceled because it was superseded by a newer one."
    assert superseded["reason"]["message"] == message
    status, answer = raw.trigger(waiting["templateID"], waiting["buildID"], fromImage="e2bdev/base")
    assert (status, answer["message"]) == (400, "build is not in waiting state")
    assert await said_by(sdk, f"{name}:t") == "newer"
    assert newer.info.template_id == info.template_id


async def test_lists(sdk):
    """(33, 41) and 2.3."""
    name = sdk.fresh_name()
    built = await sdk.build(small(sdk, "listed"), name, cpu_count=1, memory_mb=256)
    template = built.info.template_id

    def listed():
        status, found = raw.ask("GET", "/templates")
        assert status == 200
        return next(item for item in found if item["templateID"] == template)

    item = listed()
    assert item["buildStatus"] == "ready" and item["buildID"] == built.info.build_id
    assert (item["cpuCount"], item["memoryMB"]) == (1, 256)
    assert item["diskSizeMB"] > 0 and item["envdVersion"] and item["createdBy"] is None
    assert (item["aliases"], item["names"], item["public"]) == ([name], [f"default/{name}"], False)
    assert (item["buildCount"], item["spawnCount"], item["lastSpawnedAt"]) == (1, 0, None)
    sandbox = await sdk.create(name)
    info = await sdk.do(sandbox.get_info())
    assert (info.cpu_count, info.memory_mb, info.envd_version) == (1, 256, item["envdVersion"])
    await sdk.until("the count", lambda: listed()["spawnCount"] == 1 and listed()["lastSpawnedAt"], 30)
    await sdk.fails_to_build(small(sdk).run_cmd("false"), name)
    item = listed()
    assert (item["buildStatus"], item["buildID"], item["buildCount"]) == ("error", built.info.build_id, 2)
    # Snapshots are no templates here, though they have builds.
    taken = await sdk.do(sandbox.create_snapshot())
    ids = [item["templateID"] for item in raw.ask("GET", "/templates")[1]]
    assert taken.snapshot_id.partition(":")[0] not in ids
    await sdk.do(sdk.Sandbox.delete_snapshot(taken.snapshot_id))

    pages, token = [], None
    while True:
        query = f"&nextToken={urllib.parse.quote(token)}" if token else ""
        status, headers, body = raw.send("GET", f"/v2/templates?limit=2{query}")
        page = raw_build.json.loads(body)
        assert status == 200 and len(page) <= 2
        pages += [item["templateID"] for item in page]
        if not (token := headers["X-Next-Token"]):
            break
    assert pages == ids[::-1] and len(set(pages)) == len(pages)
    for query in ("nextToken=rubbish", "limit=0", "limit=101", f"teamID={uuid.uuid4()}"):
        assert raw.ask("GET", f"/v2/templates?{query}")[0] == 400, query
    status, told = raw.ask("GET", f"/templates/{template}")
    assert status == 200
    assert [build["status"] for build in told["builds"]] == ["error", "ready"]
    ready = told["builds"][1]
    assert ready["buildID"] == built.info.build_id and ready["finishedAt"] and ready["diskSizeMB"] > 0
    status, headers, body = raw.send("GET", f"/templates/{template}?limit=1")
    assert len(raw_build.json.loads(body)["builds"]) == 1 and headers["X-Next-Token"]
    assert raw.ask("GET", f"/templates/{'z' * 20}")[0] == 404


async def test_deletes(sdk):
    """(38)"""
    name = sdk.fresh_name()
    built = await sdk.build(small(sdk), name)
    template = built.info.template_id
    sandbox = await sdk.create(name)
    for state in ("running", "paused"):
        status, told = raw.delete(name)
        assert status == 400
        assert told["message"] == f"cannot delete template '{name}' because there are {state} sandboxes using it" or (
            told["message"] == f"cannot delete template '{template}' because there are {state} sandboxes using it"
        )
        await sdk.do(sandbox.pause())
    await sdk.do(sandbox.kill())
    assert raw.delete(f"default%2F{name}")[0] == 204
    await refused(sdk, name, 404, f"template '{name}' not found")
    await refused(sdk, template, 404, f"template '{template}' not found")
    assert await sdk.do(sdk.Template.exists(name)) is False
    assert raw.delete(name)[0] == 404 and raw.delete(template)[0] == 404
    # The name is free, the id is not.
    again = await sdk.build(small(sdk), name)
    assert again.info.template_id != template
    assert raw.ask("POST", "/v3/templates", {"name": template})[0] == 409
    # A build that runs ends with its template.
    slow = sdk.fresh_name()
    ids = raw.begin(slow, [run(f"echo begun; sleep 600 # {slow}")])
    raw.until_said(*ids, "[stdout]: begun")
    assert raw.delete(ids[0])[0] == 204
    assert raw.ask("GET", f"/templates/{ids[0]}/builds/{ids[1]}/status")[0] in (400, 403, 404)


async def test_references_that_are_wrong(sdk):
    """6.3"""
    name = sdk.fresh_name()
    waiting = raw.request(name)
    assert await sdk.do(sdk.Template.exists(name)) is True
    assert await sdk.do(sdk.Template.exists(f"{name}:default")) is False
    await refused(sdk, name, 404, f"tag 'default' does not exist for template 'default/{name}'")
    await refused(sdk, f"{name}:{waiting['buildID']}", 404, "does not exist for template")
    await refused(sdk, f"nobody/{name}", 404, "not found")
    await refused(sdk, "Not a name!", 400, "Invalid template reference: ")
    await refused(sdk, "a:b:c", 400, "Invalid template reference: ")
    item = next(i for i in raw.ask("GET", "/templates")[1] if i["templateID"] == waiting["templateID"])
    assert (item["buildID"], item["buildStatus"], item["envdVersion"]) == (NO_BUILD, "waiting", "")
    assert (item["cpuCount"], item["memoryMB"], item["diskSizeMB"]) == (0, 0, 0)
    raw.delete(waiting["templateID"])


async def test_two_builds_of_the_same_at_once(sdk):
    """They build each layer once, and both are ready."""
    nonce = uuid.uuid4().hex
    step = run(f"echo carried out; sleep 1; cat /proc/sys/kernel/random/uuid > ~/said # {nonce}")
    both = [raw.begin(sdk.fresh_name(), [step]) for _ in range(2)]
    for ids in both:
        assert raw.wait(*ids)["status"] == "ready"
    said = [any("[stdout]: carried out" in line for line in raw.messages(*ids)) for ids in both]
    assert sorted(said) == [False, True]
    assert len({await said_by(sdk, ids[0]) for ids in both}) == 1
    for ids in both:
        assert raw.delete(ids[0])[0] == 204


async def test_steps_of_builds_are_held_like_sandboxes(sdk):
    """No way out of a build: what steps may reach and use is what sandboxes may."""
    steps = [
        run("! curl -s -m 3 http://169.254.169.254/ && ! curl -s -m 3 http://10.0.0.1/", "root"),
        run("! mount -t proc proc /mnt && ! mknod /dev/sda b 8 0", "root"),
        run(f"! curl -s -m 3 {os.environ['CASEMATE_TEST_URL']}", "root"),
        run("cat /dev/stdin | wc -c | grep -qx 0"),
    ]
    ids, told = raw.build(sdk.fresh_name(), steps)
    assert told["status"] == "ready", told.get("reason")
    raw.delete(ids[0])
