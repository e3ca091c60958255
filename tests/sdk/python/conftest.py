"""One set of tests for both SDKs: `sdk.do(…)` takes what the sync one answers and awaits what the
async one does."""

import inspect
import os
import time
import uuid

import pytest

import reflection

reflection.watch()

import e2b  # noqa: E402  (its classes are wrapped just above)

# The SDK knows of the platform what these say, over http or https; the tests' own requests go to
# its listener of http.
for name in ("E2B_API_KEY", "CASEMATE_TEST_URL"):
    if not os.environ.get(name):
        raise SystemExit(f"{name} is not set: see scripts/test")


class Sdk:
    def __init__(self, kind):
        self.kind = kind
        self.is_async = kind == "async"
        self.Sandbox = e2b.AsyncSandbox if self.is_async else e2b.Sandbox
        self.made = []

    async def do(self, answer):
        return await answer if inspect.isawaitable(answer) else answer

    async def create(self, *args, **options):
        """A sandbox that is killed when the tests are over."""
        options.setdefault("timeout", 120)
        sandbox = await self.do(self.Sandbox.create(*args, **options))
        self.made.append(sandbox)
        return sandbox

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
