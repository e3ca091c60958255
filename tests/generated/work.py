"""One thing to do, and what is known about it for the judge."""

import dataclasses
import time


@dataclasses.dataclass
class Work:
    # `rest`, `agent`, `edge`, `raw`, `frames`, `orders`.
    kind: str
    operation: str
    method: str = "GET"
    pieces: list = dataclasses.field(default_factory=list)
    # Whose eyes see the answer; none is a stranger.
    team: object = None
    # The administrator reads everything.
    all_seeing: bool = False
    # The caller may do this.
    proper: bool = False
    # The sandbox that the request goes into.
    sandbox: object = None
    # A stream, from which we hang up after so many seconds.
    stay: float = None
    # The time of day before it was asked.
    begun: float = dataclasses.field(default_factory=time.time)
    facts: dict = dataclasses.field(default_factory=dict)

    @property
    def raw(self):
        return b"".join(self.pieces)
