"""Templates of images in registries: what of an image is in their sandboxes, and what is not.
The images are made by tests/registry. Numbers in parentheses: section 7 of the specification."""

import os

import e2b
import pytest

OPEN = os.environ["CASEMATE_TEST_REGISTRY"]
PRIVATE = os.environ["CASEMATE_TEST_REGISTRY_PRIVATE"]
LOGIN = {
    "username": os.environ["CASEMATE_TEST_REGISTRY_USER"],
    "password": os.environ["CASEMATE_TEST_REGISTRY_PASSWORD"],
}


async def test_an_image_of_a_registry(sdk):
    """(32) and 4.2: its files and its variables, and nothing else of it."""
    builder = sdk.Template().from_image(f"{OPEN}/debian:12")
    builder.run_cmd('echo "$FROM_IMAGE,${EMPTY-unset}" > seen; id -un >> seen; pwd >> seen')
    built = await sdk.build(builder)
    assert any(f"[base] FROM {OPEN}/debian:12" in line for line in built.lines)
    sandbox = await sdk.create(built.info.template_id)
    assert (await sdk.run(sandbox, "cat seen; id -un; pwd")).stdout == (
        "yes,unset\nuser\n/home/user\nuser\n/home/user\n"
    )
    assert "FROM_IMAGE" not in (await sdk.run(sandbox, "env")).stdout
    for command in ("bash", "curl", "git", "jq", "sudo", "ss", "ping"):
        await sdk.run(sandbox, f"command -v {command}")
    assert (await sdk.run(sandbox, "sudo -n id -u; . /etc/os-release; echo $ID $VERSION_ID")).stdout == "0\ndebian 12\n"
    # What the image says of single files.
    assert (await sdk.run(sandbox, "stat -c '%a %U' /usr/bin/sudo /etc/shadow /tmp; getcap /usr/bin/ping")).stdout == (
        "4755 root\n640 root\n1777 root\n/usr/bin/ping cap_net_raw=ep\n"
    )
    # Another one of the same image takes nothing from the network, and a moment.
    again = await sdk.build(sdk.Template().from_image(f"{OPEN}/debian:12").run_cmd("true"))
    assert any(line.startswith("CACHED [base] FROM") for line in again.lines)


LAYERS = """
cd /opt/layers
ls -d gone whited emptied/old 2>/dev/null
cat emptied/new becomes-a-folder/inside becomes-a-file real/through no/parents/here kept
readlink alias
stat -c '%h %a %n' first second kept kept-too
stat -c '%a %U:%G %n' setuid no no/parents
stat -c '%a %u:%g %n' owned
getcap able
stat -c '%s %n' sparse
[ $(stat -c %b sparse) -lt 8192 ] && echo has holes
tail -c +33554433 sparse | head -c 13; echo
head -c 33554432 sparse | tr -d '\\0' | wc -c
ls -d device long-* n* 2>/dev/null
python3 -c 'import os; print(os.getxattr("noted", "user.note").decode())'
"""


async def test_what_layers_say(sdk):
    """Two small layers, one gzip and one zstd, above a base: tests/registry/images.py."""
    built = await sdk.build(sdk.Template().from_image(f"{OPEN}/layers"))
    sandbox = await sdk.create(built.info.template_id)
    seen = (await sdk.run(sandbox, LAYERS, user="root")).stdout
    assert seen.splitlines() == [
        "new", "inside", "a file", "through", "here", "kept of the lower layer",
        "real",
        "2 640 first", "2 640 second", "2 644 kept", "2 644 kept-too",
        "4755 root:root setuid", "755 root:root no", "755 root:root no/parents",
        "600 12345:54321 owned",
        "able cap_net_raw=ep",
        f"{64 << 20} sparse",
        "has holes",
        "in the middle",
        "0",
        "long-" * 40 + "name", "no", "noted", "n\u00e4me \u2603",
        "of the image",
    ]  # fmt: skip


async def test_the_right_one_of_an_index(sdk):
    builder = sdk.Template().from_image(f"{OPEN}/multi:latest").run_cmd("echo $FROM_IMAGE > ~/seen; uname -m >> ~/seen")
    sandbox = await sdk.started(builder)
    assert (await sdk.run(sandbox, "cat seen")).stdout == "multi\nx86_64\n"


async def test_mirrors_and_aliases(sdk):
    """What stock recipes name comes from what the operator has."""
    for template, seen in [
        (sdk.Template().from_debian_image(), "library/debian:stable"),
        (sdk.Template().from_python_image("3"), "library/python:3"),
        (sdk.Template().from_node_image(), "library/node:lts"),
        (sdk.Template().from_ubuntu_image("22.04"), "yes"),
    ]:
        sandbox = await sdk.started(template.run_cmd("echo $FROM_IMAGE > ~/seen"))
        assert (await sdk.run(sandbox, "cat seen")).stdout == f"{seen}\n"


async def test_a_registry_with_a_password(sdk):
    image = f"{PRIVATE}/debian:12"
    sandbox = await sdk.started(sdk.Template().from_image(image, **LOGIN).run_cmd("echo $FROM_IMAGE > ~/seen"))
    assert (await sdk.run(sandbox, "cat seen")).stdout == "yes\n"
    # Whoever asks the registry again needs it again: layers on this disk are no way around.
    again = lambda: sdk.Template().skip_cache()
    for template in [
        again().from_image(image),
        again().from_image(image, username=LOGIN["username"], password="wrong"),
        again().from_gcp_registry(image, {"type": "service_account"}),
    ]:
        built, error, status = await sdk.fails_to_build(template)
        assert status.reason.step == "base", status
        assert str(error).startswith(f"access denied to '{image}'"), str(error)
        assert LOGIN["password"] not in "\n".join(built.lines) and "wrong" not in str(error)


async def test_aws_login_that_is_none(sdk):
    template = sdk.Template().skip_cache().from_aws_registry(f"{PRIVATE}/debian:12", "AKIDEXAMPLE", "secret-key", "no/../region")
    built, error, status = await sdk.fails_to_build(template)
    assert status.reason.step == "base"
    assert "secret-key" not in "\n".join([*built.lines, str(error)])


async def test_images_that_are_not_there(sdk):
    """(21)"""
    missing = "not found: the image or tag does not exist in the registry"
    unknown = "not found"
    for image, said in [
        (f"{OPEN}/debian:no-such-tag", f"image '{OPEN}/debian:no-such-tag' {missing}"),
        (f"{OPEN}/nosuch/image", unknown),
        ("fedora:44", unknown),
        (f"{OPEN}/debian@sha256:{'0' * 64}", unknown),
        ("Not An Image", "invalid image reference 'Not An Image'"),
        (f"{OPEN}/arm", 'image architecture "arm64" does not match expected "amd64"'),
        (f"{OPEN}/rhel", "ERROR: base image distribution ID='rhel' is not supported."),
    ]:
        template = sdk.Template()
        builder = template.from_image(image)  # This one.
        _, error, status = await sdk.fails_to_build(builder.run_cmd("true"))
        assert status.reason.step == "base" and said in str(error), (image, str(error))
        assert status.reason.message == str(error)
    # Without a shell there is nothing that could be made of it, and it is said.
    _, error, status = await sdk.fails_to_build(sdk.Template().from_image(f"{OPEN}/noshell"))
    assert status.reason.step == "base" and "internal error" not in str(error), str(error)


@pytest.mark.parametrize("place", ["127.0.0.1:9", "169.254.169.254", "10.0.0.1:5000", "[::1]:9", "localhost:9"])
async def test_registries_that_are_nobodys_to_name(sdk, place):
    """A recipe's author makes our process connect: never to closed networks."""
    _, error, status = await sdk.fails_to_build(sdk.Template().from_image(f"{place}/image"))
    assert status.reason.step == "base", str(error)


async def test_a_failed_build_leaves_the_tag(sdk):
    """(21)"""
    name = sdk.fresh_name()
    good = await sdk.build(sdk.Template().from_base_image().run_cmd("echo good > said"), name)
    await sdk.fails_to_build(sdk.Template().from_image(f"{OPEN}/debian:no-such-tag"), name)
    sandbox = await sdk.create(name)
    assert (await sdk.run(sandbox, "cat said")).stdout == "good\n"
    tags = await sdk.do(sdk.Template.get_tags(name))
    assert [tag.tag for tag in tags] == ["default"]
    assert (await sdk.do(sdk.Template.exists(f"{name}:default"))) is True
    assert good.info.template_id == (await sdk.do(sandbox.get_info())).template_id
