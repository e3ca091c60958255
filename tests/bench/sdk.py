"""Times the stock Python SDK: sdk.py COUNT TEMPLATE [create [FILE]]

Creates a sandbox and runs `true` in it, COUNT times, and writes the milliseconds of each as a JSON
list. With `create` no command is run, and before each there is a moment in which the platform may start
the next one; processors that slept make everything slower, so a floor is measured with it as well. With
FILE, to which the template's start command writes when it begins, every sandbox must have been started
before it was asked for. Where the API is comes from the environment, as for any program that uses the SDK.
Ending the sandbox is not timed.
"""

import json
import sys
import time

from e2b import Sandbox

WARM_UP = 5
# For the start of another sandbox, on a busy machine too.
MOMENT = 0.5


def once(template: str, runs: bool, file: str | None) -> float:
    if not runs:
        time.sleep(MOMENT)
    asked, begun = time.time(), time.perf_counter()
    sandbox = Sandbox.create(template, timeout=60)
    try:
        if runs:
            sandbox.commands.run("true")
        took = (time.perf_counter() - begun) * 1000
        if file and float(sandbox.files.read(file)) > asked:
            sys.exit("a sandbox was not started before it was asked for")
        return took
    finally:
        sandbox.kill()


def main() -> None:
    count, template, *more = sys.argv[1:]
    file = more[1] if more[1:] else None
    samples = [once(template, not more, file) for _ in range(WARM_UP + int(count))]
    json.dump(samples[WARM_UP:], sys.stdout)


if __name__ == "__main__":
    main()
