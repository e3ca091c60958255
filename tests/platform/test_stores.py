"""A platform whose store is PostgreSQL and whose catalog is Redis, and what becomes of both."""

import json
import signal
import sqlite3

import e2b
import pytest

import host
from instance import Instance, bare_environment, casemate
from servers import PASSWORD, Postgres, Redis


@pytest.fixture(scope="module")
def postgres():
    with Postgres() as server:
        yield server


@pytest.fixture(scope="module")
def redis():
    with Redis() as server:
        yield server


@pytest.fixture(scope="module")
def stored(postgres, redis):
    """One platform for the tests that leave it usable."""
    instance = Instance("stored", **postgres.database("stored"), **redis.settings)
    try:
        instance.up()
        yield instance
    finally:
        instance.close()


def serve(sandbox, text):
    """A service inside, and that it answers."""
    sandbox.files.write("/home/user/index.html", text)
    sandbox.commands.run("python3 -m http.server 8000 --bind 127.0.0.1", background=True, cwd="/home/user")
    return sandbox.sandbox_id


def answers(instance, id, text):
    return instance.port_of(id, 8000)[2] == text.encode()


def test_rows_are_in_the_database_and_routes_in_redis(stored, postgres, redis):
    sandbox = stored.create(metadata={"of": "test"})
    assert sandbox.commands.run("echo $((6 * 7))").stdout == "42\n"
    rows = postgres.sql(f"SELECT state, metadata FROM sandboxes WHERE id = '{sandbox.sandbox_id}'", "stored")
    assert rows == ['running|{"of":"test"}'], rows
    assert any(sandbox.sandbox_id in key for key in redis.call("KEYS", "*"))
    assert not (stored.data_dir / "control/store.sqlite").exists()
    assert sandbox.sandbox_id in stored.listed()
    sandbox.pause()
    assert e2b.Sandbox.connect(sandbox.sandbox_id, **stored.client).commands.run("true").exit_code == 0
    stored.kill(sandbox.sandbox_id)
    assert sandbox.sandbox_id not in stored.listed()
    assert stored.port_of(sandbox.sandbox_id, 8000)[0] == 502


def past_of(instance, id):
    """Its events, its log and its samples, as the API reads them."""
    key = {"X-API-Key": instance.client["api_key"]}
    read = lambda path: json.loads(instance.get(path, key)[2])
    return (
        [event["type"] for event in read(f"/events/sandboxes/{id}?orderAsc=true")],
        read(f"/v2/sandboxes/{id}/logs")["logs"],
        read(f"/sandboxes/{id}/metrics"),
    )


def test_the_past_is_in_the_database_too(stored, postgres):
    sandbox = stored.create()
    host.until("it was measured", lambda: all(past_of(stored, sandbox.sandbox_id)), 30)
    stored.kill(sandbox.sandbox_id)
    ended = ["sandbox.lifecycle.created", "sandbox.lifecycle.killed"]
    host.until("its end is noted", lambda: past_of(stored, sandbox.sandbox_id)[0] == ended, 30)
    kinds = postgres.sql(
        f"SELECT kind FROM casemate_history.events WHERE sandbox = '{sandbox.sandbox_id}' ORDER BY number", "stored"
    )
    assert kinds == ["created", "killed"], kinds
    assert not (stored.data_dir / "control/history.sqlite").exists()


def test_nothing_that_was_acknowledged_is_lost_with_the_database(stored, postgres):
    kept, ended = stored.create(metadata={"kept": "yes"}), stored.create()
    serve(kept, "still here")
    host.until("it serves", lambda: answers(stored, kept.sandbox_id, "still here"))
    stored.kill(ended.sandbox_id)
    postgres.kill()
    # What runs is reached as before; what needs the store says so, and that it may be tried again.
    assert answers(stored, kept.sandbox_id, "still here")
    status, headers, _ = stored.get(
        f"/sandboxes/{kept.sandbox_id}", {"X-API-Key": stored.client["api_key"]}
    )
    assert status == 503, status
    assert stored.get("/ready")[0] == 503
    postgres.start()
    host.until("it is ready again", lambda: stored.get("/ready")[0] == 200, 30)
    assert stored.connect(kept.sandbox_id).commands.run("echo on").stdout == "on\n"
    assert kept.sandbox_id in stored.listed() and ended.sandbox_id not in stored.listed()
    assert stored.create().commands.run("true").exit_code == 0
    stored.end_all()


def test_a_database_that_hangs_costs_bounded_time_and_no_sandbox(stored, postgres):
    sandbox = stored.create()
    serve(sandbox, "untouched")
    host.until("it serves", lambda: answers(stored, sandbox.sandbox_id, "untouched"))
    postgres.stop()
    try:
        assert answers(stored, sandbox.sandbox_id, "untouched")
        assert stored.get("/ready")[0] == 503
    finally:
        postgres.go_on()
    host.until("it is ready again", lambda: stored.get("/ready")[0] == 200, 60)
    assert stored.connect(sandbox.sandbox_id).commands.run("true").exit_code == 0
    stored.end_all()


def test_without_redis_everything_goes_on(stored, redis):
    before = stored.create()
    serve(before, "before")
    host.until("it serves", lambda: answers(stored, before.sandbox_id, "before"))
    redis.kill()
    try:
        assert answers(stored, before.sandbox_id, "before")
        meanwhile = stored.create()
        serve(meanwhile, "meanwhile")
        host.until("it serves", lambda: answers(stored, meanwhile.sandbox_id, "meanwhile"))
        meanwhile.pause()
        assert stored.connect(meanwhile.sandbox_id).commands.run("true").exit_code == 0
        stored.kill(before.sandbox_id)
        assert stored.port_of(before.sandbox_id, 8000)[0] == 502
    finally:
        # Without any data.
        redis.start()
    host.until("Redis is told", lambda: any(meanwhile.sandbox_id in key for key in redis.call("KEYS", "*")), 30)
    assert answers(stored, meanwhile.sandbox_id, "meanwhile")
    redis.stop()
    try:
        assert answers(stored, meanwhile.sandbox_id, "meanwhile")
        assert stored.create().commands.run("true").exit_code == 0
    finally:
        redis.go_on()
    stored.end_all()


def test_sandboxes_survive_every_process_of_ours_and_both_stores(stored, postgres, redis):
    sandbox = stored.create()
    sandbox.commands.run("echo kept > /tmp/kept")
    stored.kill_all()
    redis.kill()
    postgres.kill()
    postgres.start()
    redis.start()
    stored.up()
    found = stored.connect(sandbox.sandbox_id)
    assert found.commands.run("cat /tmp/kept").stdout == "kept\n"
    stored.end_all()


def test_no_log_has_the_password(stored):
    text = stored.log.read_text(errors="replace")
    assert PASSWORD not in text and "p%40ss" not in text


def test_a_second_platform_is_refused_the_same_database(stored, postgres, redis):
    settings = {**postgres.database("unused"), **redis.settings}
    settings["DATABASE_URL"] = settings["DATABASE_URL"].replace("/unused", "/stored")
    other = Instance("other-owner", **settings)
    try:
        other.spawn()
        host.until("it says why", lambda: "belongs to another installation" in other.said(), 60)
        assert stored.get("/ready")[0] == 200
    finally:
        other.process.send_signal(signal.SIGTERM)
        other.process.wait(60)
        other.close()


def test_a_machine_that_has_grown_moves_into_a_database(postgres):
    instance = Instance("grown")
    settings = postgres.database("grown")
    migrate = ["migrate", "--from", "sqlite", "--to", "postgres", "--data-dir", str(instance.data_dir)]
    environment = bare_environment(**settings)
    try:
        instance.up()
        running, paused = instance.create(metadata={"n": "1"}), instance.create()
        running.commands.run("echo moved > /tmp/moved")
        paused.pause()
        snapshot = running.create_snapshot()
        host.until("there is a past", lambda: all(past_of(instance, running.sandbox_id)), 30)
        events, lines, samples = past_of(instance, running.sandbox_id)
        refused = casemate(*migrate, env=environment)
        assert refused.returncode != 0 and "another casemate uses" in refused.stderr, refused.stderr
        instance.process.send_signal(signal.SIGTERM)
        instance.process.wait(60)
        moved = casemate(*migrate, env=environment)
        assert moved.returncode == 0, moved.stderr
        again = casemate(*migrate, env=environment)
        assert again.returncode != 0 and "no store in" in again.stderr, again.stderr
        # Without its database nothing goes on with what was there before, or with nothing.
        instance.spawn()
        assert ended_with(instance, "moved into a database: set DATABASE_URL again")
        instance.settings = settings
        instance.up()
        assert sorted(instance.listed()) == sorted([running.sandbox_id, paused.sandbox_id])
        assert instance.connect(running.sandbox_id).commands.run("cat /tmp/moved").stdout == "moved\n"
        assert instance.connect(paused.sandbox_id).commands.run("true").exit_code == 0
        forked = instance.create(template=snapshot.snapshot_id)
        assert forked.commands.run("cat /tmp/moved").stdout == "moved\n"
        moved_events, moved_lines, moved_samples = past_of(instance, running.sandbox_id)
        assert moved_events[: len(events)] == events
        assert all(line in moved_lines for line in lines) and all(sample in moved_samples for sample in samples)
        assert (instance.data_dir / "control/history.sqlite.moved").exists()
        assert not (instance.data_dir / "control/history.sqlite").exists()
        former = sqlite3.connect(instance.data_dir / "control/store.sqlite.moved")
        counted = former.execute("SELECT count(*) FROM teams").fetchone()[0]
        assert postgres.sql("SELECT count(*) FROM teams", "grown") == [str(counted)]
        assert casemate("migrate", "--data-dir", str(instance.data_dir), env=environment).returncode == 0
    finally:
        instance.close()


def ended_with(instance, words):
    """`up` ends by itself with one error that has these words, and tries nothing twice."""
    code, said = instance.process.wait(60), instance.said()
    errors = [line for line in said.splitlines() if line.startswith("casemate: ")]
    assert code == 1 and len(errors) == 1 and words in errors[0], said
    assert "started again" not in said and "base template" not in said, said
    return True


def test_up_ends_where_its_database_can_never_do(stored, postgres):
    port = postgres.port
    theirs, own = stored.settings["DATABASE_URL"], f"postgres://casemate@127.0.0.1:{port}/postgres"
    for name, settings, words in [
        ("theirs", {"DATABASE_URL": theirs, "DATABASE_PASSWORD": PASSWORD}, "belongs to another installation (node-"),
        ("password", {"DATABASE_URL": own, "DATABASE_PASSWORD": "bad"},
         f'cannot connect to database postgres at 127.0.0.1:{port}: password authentication failed for user "casemate"'),
        ("none", {"DATABASE_URL": own.removesuffix("postgres") + "nosuch", "DATABASE_PASSWORD": PASSWORD}, 'database "nosuch" does not exist'),
        ("tls", {"DATABASE_URL": f"{own}?sslmode=require", "DATABASE_PASSWORD": PASSWORD}, "?sslmode=disable"),
    ]:
        instance = Instance(f"never-{name}", **settings)
        try:
            instance.spawn()
            assert ended_with(instance, words)
            # Nothing is there that a platform would hold on this host.
            assert not (instance.data_dir / "node/templates").exists()
        finally:
            instance.close()


def test_up_waits_for_a_database_that_is_away():
    server = Postgres()
    settings = {"DATABASE_URL": f"postgres://casemate@127.0.0.1:{server.port}/postgres", "DATABASE_PASSWORD": PASSWORD}
    instance = Instance("patient", **settings)
    try:
        instance.spawn()
        away = f"the database is waited for: open the store: cannot connect to database postgres at 127.0.0.1:{server.port}: "
        host.until("it says so", lambda: away in instance.said(), 60)
        server.start()
        host.until("it is ready", lambda: f"casemate ready {instance.url}" in instance.said(), 120)
        assert instance.process.poll() is None
    finally:
        instance.close()
        server.close()


@pytest.mark.parametrize(
    "settings, word",
    [
        ({"DATABASE_URL": "mysql://localhost/x"}, "DATABASE_URL"),
        ({"DATABASE_URL": "postgres://u:secret-word@localhost/x?sslmode=maybe"}, "sslmode"),
        ({"DATABASE_PASSWORD": "secret-word"}, "DATABASE_URL"),
        ({"REDIS_URL": "redis://:secret-word@192.0.2.1"}, "plain text"),
        ({"REDIS_URL": "http://localhost"}, "REDIS_URL"),
    ],
)
def test_wrong_settings_are_refused_by_name_and_without_secrets(settings, word):
    ran = casemate("up", "--data-dir", "/nonexistent/casemate", env=bare_environment(**settings))
    assert ran.returncode != 0 and word in ran.stderr, ran.stderr
    assert "secret-word" not in ran.stderr + ran.stdout
