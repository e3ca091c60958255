"""Times the stock Python SDK: sdk.py COUNT TEMPLATE

Creates a sandbox and runs `true` in it, COUNT times, and writes the milliseconds of each as a JSON
list. Where the API is comes from the environment, as for any program that uses the SDK. Ending the
sandbox is not timed.
"""

import json
import sys
import time

from e2b import Sandbox

WARM_UP = 5


def once(template: str) -> float:
    begun = time.perf_counter()
    sandbox = Sandbox.create(template, timeout=60)
    try:
        sandbox.commands.run("true")
        return (time.perf_counter() - begun) * 1000
    finally:
        sandbox.kill()


def main() -> None:
    count, template = int(sys.argv[1]), sys.argv[2]
    samples = [once(template) for _ in range(WARM_UP + count)]
    json.dump(samples[WARM_UP:], sys.stdout)


if __name__ == "__main__":
    main()
