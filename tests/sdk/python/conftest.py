"""One set of tests for both SDKs: `sdk.do(…)` takes what the sync one answers and awaits what the
async one does."""

import dataclasses
import inspect
import os
import re
import time
import uuid

import pytest

import reflection

reflection.watch()

import e2b  # noqa: E402  (its classes are wrapped just above)

# The SDK knows of the platform what these say, over http or https; the tests' own requests go to
# its listener of http.
for name in ("E2B_API_KEY", "CASEMATE_TEST_URL", "CASEMATE_TEST_REGISTRY"):
    if not os.environ.get(name):
        raise SystemExit(f"{name} is not set: see scripts/test")


@dataclasses.dataclass
class Built:
    """A build that the SDK waited for, and what it said meanwhile."""

    info: object
    entries: list

    @property
    def lines(self):
        return [entry.message for entry in self.entries]

    def steps(self):
        """Which steps were carried out (True) and which came from the cache, by number."""
        found = {}
        for line in self.lines:
            said = re.match(r"(CACHED )?\[builder (\d+)/\d+\] (?!\[)", line)
            if said:
                found[int(said[2])] = said[1] is None
        return found


class Sdk:
    def __init__(self, kind):
        self.kind = kind
        self.is_async = kind == "async"
        self.Sandbox = e2b.AsyncSandbox if self.is_async else e2b.Sandbox
        self.Template = e2b.AsyncTemplate if self.is_async else e2b.Template
        self.made = []
        self.templates = set()

    async def do(self, answer):
        return await answer if inspect.isawaitable(answer) else answer

    async def create(self, *args, **options):
        """A sandbox that is killed when the tests are over."""
        options.setdefault("timeout", 120)
        sandbox = await self.do(self.Sandbox.create(*args, **options))
        self.made.append(sandbox)
        return sandbox

    async def build(self, template, name=None, **options):
        """A template that is deleted when the tests are over."""
        entries = []
        options.setdefault("on_build_logs", entries.append)
        info = await self.do(self.Template.build(template, name or self.fresh_name(), **options))
        self.templates.add(info.template_id)
        return Built(info, entries)

    async def started(self, template, name=None, **options):
        """A sandbox of a template that is built for it."""
        built = await self.build(template, name, **options)
        return await self.create(built.info.template_id)

    async def fails_to_build(self, template, name=None, **options):
        """The SDK's exception, with what was said in `entries`, and the status as it is told."""
        name, entries = name or self.fresh_name(), []
        options.setdefault("on_build_logs", entries.append)
        error = await self.fails(
            e2b.BuildException, lambda: self.Template.build(template, name, **options)
        )
        said = [re.search(r"ID: (\w+), Build ID: (.+)", entry.message) for entry in entries]
        made = next(match for match in said if match)
        self.templates.add(made[1])
        info = e2b.BuildInfo(template_id=made[1], build_id=made[2], name=name, alias=name)
        return Built(info, entries), error, await self.do(self.Template.get_build_status(info))

    async def run(self, sandbox, command, **options):
        return await self.do(sandbox.commands.run(command, **options))

    async def fails(self, kind, call):
        """Runs `call`, which must raise `kind`; gives the exception."""
        with pytest.raises(kind) as caught:
            await self.do(call())
        return caught.value

    async def until(self, what, probe, seconds=10):
        """Asks `probe` until its answer is true."""
        end = time.monotonic() + seconds
        while True:
            answer = await self.do(probe())
            if answer:
                return answer
            assert time.monotonic() < end, f"{what} did not happen within {seconds} s"
            await self.pause(0.05)

    async def pause(self, seconds):
        if self.is_async:
            import asyncio

            await asyncio.sleep(seconds)
        else:
            time.sleep(seconds)

    async def close(self):
        for sandbox in self.made:
            await self.do(sandbox.kill())
        for template in self.templates:
            await self.do(self.Sandbox.delete_snapshot(template))

    @staticmethod
    def fresh_name():
        return f"t-{uuid.uuid4().hex[:12]}"


@pytest.fixture(scope="session", params=["sync", "async"])
async def sdk(request):
    sdk = Sdk(request.param)
    yield sdk
    await sdk.close()


@pytest.fixture(scope="session")
async def sandbox(sdk):
    """One sandbox for all tests that leave it usable."""
    return await sdk.create(timeout=1800)


@pytest.fixture
def home(sandbox):
    """A path of its own for each test; nothing is there yet."""
    return f"/home/user/t-{uuid.uuid4().hex[:12]}"


def pytest_collection_modifyitems(items):
    # Last, when all others have run.
    items.sort(key=lambda item: "test_reflection" in item.nodeid)
