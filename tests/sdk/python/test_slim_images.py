"""Templates of images as others publish them: with apt and little else, with users, homes, modes and
shells of their own. What they are made of: tests/registry/slim.py."""

import os

import pytest

OPEN = os.environ["CASEMATE_TEST_REGISTRY"]

pytestmark = pytest.mark.skipif(os.environ.get("CASEMATE_TEST_INTERNET") != "1", reason="CASEMATE_TEST_INTERNET is not 1")

# What is expected of every sandbox, whatever its image.
LOOK = """
id -un; pwd; sudo -n id -u; stat -c '%U %a' ~ /tmp /usr/local; . /etc/os-release; echo $VERSION_CODENAME
for program in bash curl git jq less ping socat ss sudo; do command -v $program >/dev/null || echo no $program; done
curl -s -o /dev/null --cacert /etc/ssl/certs/ca-certificates.crt file:///etc/hostname || echo no certificates
"""


def seen(release, home="/home/user", mode=755):
    return f"user\n{home}\n0\nuser {mode}\nroot 1777\nroot 777\n{release}\n"


async def test_debian_12_as_node_is_laid_out(sdk):
    """uid 1000 is somebody else's; what is below /usr/local is found by all."""
    sandbox = await sdk.started(sdk.Template().from_node_image("22-slim").run_cmd("node > ~/said; id -u >> ~/said"))
    assert (await sdk.run(sandbox, LOOK)).stdout == seen("bookworm")
    assert (await sdk.run(sandbox, "cat said; sudo -n -u node id -u; sudo stat -c %U /home/node/.profile")).stdout == (
        "v22.0.0\n1001\n1000\nnode\n"
    )
    assert "NODE_VERSION" not in (await sdk.run(sandbox, "env")).stdout


async def test_debian_13_as_python_is_laid_out(sdk):
    """Not even `useradd` is in it, and homes are closed since this release; the image's own Python goes before any other."""
    template = sdk.Template().from_python_image("3.12-slim").run_cmd("python > ~/said; python3 >> ~/said; echo $PYTHON_VERSION >> ~/said")
    sandbox = await sdk.started(template.apt_install("bc", no_install_recommends=True))
    assert (await sdk.run(sandbox, LOOK)).stdout == seen("trixie", mode=700)
    assert (await sdk.run(sandbox, "cat said; python3; echo 6*7 | bc")).stdout == (
        "Python 3.12.0\nPython 3.12.0\n3.12.0\nPython 3.12.0\n42\n"
    )


async def test_debian_11_with_sources_of_the_old_form(sdk):
    """/bin and /usr/bin are two folders; packages come by the site's mirrors all the same."""
    template = sdk.Template().from_debian_image("bullseye-slim").apt_install(["bc"], no_install_recommends=True)
    sandbox = await sdk.started(template)
    assert (await sdk.run(sandbox, LOOK)).stdout == seen("bullseye")
    assert (await sdk.run(sandbox, "echo 6*7 | bc; test -L /bin; echo $?")).stdout == "42\n1\n"


async def test_an_image_whose_users_and_modes_are_odd(sdk):
    """`user` has another home that is not there, /home/user is another's, /etc and /tmp are closed, and
    neither `PATH` nor `USER` nor `WORKDIR` of the image is of use here."""
    template = sdk.Template().from_image(f"{OPEN}/slim/odd").run_cmd("id -un > said; pwd >> said")
    sandbox = await sdk.started(template.set_user("app").run_cmd("pwd > said").set_user("user"))
    assert (await sdk.run(sandbox, LOOK)).stdout == seen("bookworm", "/srv/user")
    assert (await sdk.run(sandbox, "cat said; sudo cat /home/user/said; sudo stat -c '%U %a' /home/user/")).stdout == (
        "user\n/srv/user\n/data/home/user\napp 700\n"
    )


async def test_a_users_home_that_is_nowhere(sdk):
    """Debian's own users have homes that are not there; /nonexistent stays what it says."""
    template = sdk.Template().from_base_image().set_user("www-data").run_cmd("pwd; touch here")
    sandbox = await sdk.started(template)
    assert (await sdk.run(sandbox, "id -un; pwd; ls")).stdout == "www-data\n/var/www\nhere\n"
    _, error, status = await sdk.fails_to_build(sdk.Template().from_base_image().set_user("nobody").run_cmd("pwd"))
    assert status.reason.step == "2" and "cwd '/nonexistent' does not exist" in str(error), str(error)
    sandbox = await sdk.started(sdk.Template().from_base_image().set_user("nobody").set_workdir("/srv/own").run_cmd("touch here"))
    assert (await sdk.run(sandbox, "id -un; stat -c %U here")).stdout == "nobody\nnobody\n"


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("broken-apt", "E: The method driver /usr/lib/apt/methods/http could not be found."),
        ("broken-dpkg", "dpkg: error: configuration error: /etc/dpkg/dpkg.cfg.d/broken:1"),
        ("packageless", "ERROR: the image has no package manager (apt-get), and what every sandbox needs is not in it"),
        ("distroless", "ERROR: the image has no package manager (apt-get), and what every sandbox needs is not in it"),
    ],
)
async def test_images_that_cannot_be_provisioned(sdk, name, said):
    _, error, status = await sdk.fails_to_build(sdk.Template().from_image(f"{OPEN}/slim/{name}"))
    assert status.reason.step == "base" and status.reason.message == str(error)
    assert str(error).startswith("error waiting for provisioning sandbox: exit status: 1; provisioning output tail:\n")
    assert said in str(error), str(error)


async def test_another_shell_and_no_tmp(sdk):
    """/bin/sh is busybox, and what distributions say of themselves is in /usr/lib alone."""
    template = sdk.Template().from_image(f"{OPEN}/slim/busybox").run_cmd("readlink -f /bin/sh > ~/said; sh -c 'echo $0' >> ~/said")
    sandbox = await sdk.started(template)
    assert (await sdk.run(sandbox, "cat said; stat -c %a /tmp; sudo -n id -u")).stdout == "/usr/bin/busybox\nsh\n1777\n0\n"


async def test_bun(sdk):
    sandbox = await sdk.started(sdk.Template().from_bun_image().bun_install(["left-pad"], g=True))
    assert (await sdk.run(sandbox, "cat /usr/local/bun-said")).stdout == "install -g left-pad\n"


async def test_a_dockerfile_of_an_image(sdk):
    """A recipe as it stands beside a program of Node.js."""
    recipe = """
        FROM node:22-slim
        WORKDIR /app
        RUN echo 'console.log(1)' > index.js && chown -R node /app
        USER node
        ENV NODE_ENV=production
        RUN node > said; id -un >> said; echo $HOME $NODE_ENV >> said
        CMD ["sleep", "4711"]
    """
    dockerfile = "\n".join(line.strip() for line in recipe.strip().splitlines())
    template = sdk.Template().from_dockerfile(dockerfile).set_ready_cmd("true")
    sandbox = await sdk.started(template)
    assert (await sdk.run(sandbox, "id -un; pwd; cat said")).stdout == "node\n/app\nv22.0.0\nnode\n/home/node production\n"
    [process] = await sdk.do(sandbox.commands.list())
    assert process.args[-1] == "sleep 4711" and process.cwd == "/app"
