"""Amazon's and Google's logins, through the SDK: tests/registry/clouds.py has what they log in at. That
nothing of them is kept is tried in tests/platform/test_logins.py."""

import json
import os

import pytest

AWS, GCP = os.environ["CASEMATE_TEST_AWS_REGISTRY"], os.environ["CASEMATE_TEST_GCP_REGISTRY"]
KEY, SECRET, REGION = json.loads(os.environ["CASEMATE_TEST_AWS"])
ACCOUNT = json.loads(os.environ["CASEMATE_TEST_GCP"])


async def builds(sdk, template):
    sandbox = await sdk.started(template.run_cmd("echo $FROM_IMAGE > ~/seen"))
    assert (await sdk.run(sandbox, "cat seen")).stdout == "yes\n"


async def test_an_image_of_amazons(sdk):
    await builds(sdk, sdk.Template().from_aws_registry(f"{AWS}/debian:12", KEY, SECRET, REGION))


@pytest.mark.parametrize("kind", ["dict", "file"])
async def test_an_image_of_googles(sdk, kind, tmp_path):
    """Both ways in which the SDK takes a service account."""
    (tmp_path / "account.json").write_text(json.dumps(ACCOUNT, indent=2))
    account = {"dict": ACCOUNT, "file": str(tmp_path / "account.json")}[kind]
    await builds(sdk, sdk.Template().from_gcp_registry(f"{GCP}/debian:12", account))


@pytest.mark.parametrize(
    ("keys", "said"),
    [
        ((KEY, "wrong" + SECRET, REGION), "access denied to"),
        (("AKIANOBODYS000000000", SECRET, REGION), "access denied to"),
        ((KEY, SECRET, "us-east-1"), "access denied to"),
        (("short", SECRET, REGION), "invalid registry credentials: the AWS access key is not"),
        ((KEY, "two\nlines", REGION), "invalid registry credentials: the AWS secret key is"),
        ((KEY, SECRET, "eu@evil.example"), "invalid registry credentials: the AWS region is not"),
    ],
)
async def test_keys_that_are_wrong_at_amazon(sdk, keys, said):
    template = sdk.Template().skip_cache().from_aws_registry(f"{AWS}/debian:12", *keys)
    built, error, status = await sdk.fails_to_build(template)
    assert status.reason.step == "base" and said in str(error), str(error)
    assert not any(part in "\n".join([*built.lines, str(error)]) for part in keys[:2])


@pytest.mark.parametrize(
    ("account", "said"),
    [
        ({**ACCOUNT, "private_key": "another-key"}, "access denied to"),
        ("not JSON, only-secret", "invalid registry credentials: the service account is not a JSON object"),
        ('["only-secret"]', "invalid registry credentials: the service account is not a JSON object"),
    ],
)
async def test_accounts_that_are_wrong_at_google(sdk, account, said, tmp_path):
    # A text is the name of a file to the SDK.
    if isinstance(account, str):
        (tmp_path / "account.json").write_text(account)
        account = str(tmp_path / "account.json")
    template = sdk.Template().skip_cache().from_gcp_registry(f"{GCP}/debian:12", account)
    built, error, status = await sdk.fails_to_build(template)
    assert status.reason.step == "base" and said in str(error), str(error)
    assert not any(part in "\n".join([*built.lines, str(error)]) for part in ("another-key", "only-secret"))


async def test_no_login_and_anothers(sdk):
    """Logins of one kind are none of another, and layers on this disk are no way around."""
    for image in (f"{AWS}/debian:12", f"{GCP}/debian:12"):
        again = lambda: sdk.Template().skip_cache()
        for template in (again().from_image(image), again().from_image(image, username="AWS", password="a-guess")):
            _, error, _ = await sdk.fails_to_build(template)
            assert str(error).startswith(f"access denied to '{image}'"), str(error)
