"""Calls of what is not there yet; apart from the tests, so that they do not count as covering."""


def calls(sandbox):
    cls = type(sandbox)
    yield "pause", lambda: sandbox.pause()
    yield "pause by id", lambda: cls.pause(sandbox.sandbox_id)
    yield "create_snapshot", lambda: sandbox.create_snapshot()
    yield "list_snapshots", lambda: cls.list_snapshots().next_items()
