"""`down --purge` leaves nothing at all. Last: it ends the instances of the other tests."""

import host
from instance import casemate
from test_children import resolves


def test_a_purge_after_a_crash_leaves_nothing_and_the_neighbour_alone(main, small):
    """Also when nobody is there to be asked; the other instance's sandboxes stay whole."""
    sandbox, neighbour = small.create(), main.create()
    small.kill_all()
    assert small.runs(sandbox.sandbox_id)
    small.down("--purge")
    assert host.traces(small.id, small.data_dir) == []
    assert host.switches()["net.ipv4.ip_forward"] == "1"
    assert resolves(neighbour)
    main.create().kill()


def test_what_is_not_there_is_no_error(small):
    ran = casemate("down", "--purge", "--data-dir", str(small.data_dir))
    assert ran.returncode == 0 and "there is no platform" in ran.stderr
    ran = casemate("status", "--data-dir", str(small.data_dir))
    assert ran.returncode == 1 and "casemate up" in ran.stderr


def test_a_purge_leaves_nothing(main):
    running = [main.create() for _ in range(5)]
    assert all(main.runs(sandbox.sandbox_id) for sandbox in running)
    found = "\n".join(host.traces(main.id, main.data_dir))
    # The look itself sees what is there.
    for kind in ["link", "cgroup", "loop", "mount", "table", "run", "lease", "process", "directory"]:
        assert f"{kind} " in found, (kind, found)
    main.down("--purge")
    host.until("no process", lambda: main.process.poll() is not None)
    assert host.traces(main.id, main.data_dir) == []
    assert host.switches() == main.before
