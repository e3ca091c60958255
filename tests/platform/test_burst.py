"""A hundred sandboxes at once, all ended: nothing is left beyond the stock. A hundred forks of one:
each is its own, and takes what it writes."""

import os
from concurrent.futures import ThreadPoolExecutor

import host
from held import beyond_the_stock, held, open_files, stock

SANDBOXES = 100
# The default `node.slot_stock` is 32; it is filled up when a quarter is missing.
STOCK = 32
STOCK_LEAST = 25


def test_a_hundred_sandboxes_leave_nothing(main):
    main.end_all()
    host.until("the stock is full", lambda: min(stock(main)) >= STOCK_LEAST)
    before = beyond_the_stock(main)
    files = open_files(main)

    def life(number):
        sandbox = main.create()
        said = sandbox.commands.run(f"echo {number} | tee /home/user/mine").stdout
        return sandbox, said

    with ThreadPoolExecutor(25) as pool:
        made = list(pool.map(life, range(SANDBOXES)))
        assert [said for _, said in made] == [f"{number}\n" for number in range(SANDBOXES)]
        assert len(main.listed()) == SANDBOXES
        assert held(main)["journal"] == SANDBOXES
        assert all(pool.map(lambda one: main.kill(one[0].sandbox_id), made))
    assert main.listed() == []

    seen = {}

    def as_before():
        seen.clear()
        after = beyond_the_stock(main)
        # What former tests left to be cleared away in time may have become less.
        for name, was in before.items():
            less = isinstance(was, int) and after[name] < was
            if after[name] != was and not less:
                seen[name] = (was, after[name])
        # Without sandboxes there is the stock, and nothing else.
        for name in ("links", "layers", "leaving", "journal"):
            if after[name] != 0:
                seen[name] = after[name]
        assert not seen, seen
        return True

    host.until("as before", as_before, 30, pause=0.5)
    # Kept ready for the next burst, and not more of it with every burst.
    slots, layers = stock(main)
    assert slots <= SANDBOXES + STOCK and layers <= SANDBOXES + STOCK
    for pid, now in open_files(main).items():
        # Launchers' workers are others each time.
        count = files.get(pid, now)
        assert now <= count + 4 * slots, (main.processes()[pid], count, now)


def test_another_burst_needs_no_more(main):
    """What is kept is a stock: a second hundred makes it no larger."""
    kept = stock(main)
    with ThreadPoolExecutor(25) as pool:
        made = list(pool.map(lambda _: main.create(), range(SANDBOXES)))
        assert all(pool.map(lambda one: main.kill(one.sandbox_id), made))

    def settled():
        found = stock(main)
        assert found[0] <= max(kept[0], SANDBOXES + STOCK), (kept, found)
        return min(found) >= STOCK_LEAST

    host.until("the stock is full", settled)


FORKS = 100
MIB = 1 << 20


def test_a_hundred_forks_are_a_hundred_sandboxes(main):
    main.end_all()
    parent = main.create()
    count = "n=0; while :; do n=$((n + 1)); echo $n > /tmp/count; sleep 0.1; done"
    parent.commands.run(count, background=True, timeout=0)
    big = parent.commands.run("head -c 40000000 /dev/urandom > /home/user/big; sha256sum < /home/user/big").stdout
    look = "cat /home/user/mine /proc/sys/kernel/random/boot_id; sha256sum < /home/user/big"
    parent.files.write("/home/user/mine", "of the parent\n")
    before = parent.get_info()

    os.sync()
    used = taken(main)
    # As many as one call of the SDK takes.
    forks = [fork for _ in range(FORKS // 20) for fork in parent.fork(count=20, timeout=600)]
    with ThreadPoolExecutor(10) as pool:
        # What each of them finds, before any has written.
        found = [one.stdout.split("\n") for one in pool.map(lambda fork: fork.commands.run(look), forks)]
        list(pool.map(lambda fork: fork.files.write("/home/user/mine", fork.sandbox_id * 50_000), forks))
        written = list(pool.map(lambda fork: fork.files.read("/home/user/mine"), forks))
    os.sync()
    more = taken(main) - used

    assert [text for text, *_ in found] == ["of the parent"] * FORKS
    assert written == [fork.sandbox_id * 50_000 for fork in forks]
    assert {sums for *_, sums, _ in found} == {big.strip()}
    everybody = [parent, *forks]
    own = parent.commands.run(look).stdout.split("\n")
    for what, values in {
        "id": [one.sandbox_id for one in everybody],
        "token": [one._envd_access_token for one in everybody],
        # Its addresses follow from it.
        "slot": [str(main.record(one.sandbox_id)["facts"]["slot"]) for one in everybody],
        "boot": [lines[1] for lines in (own, *found)],
        "public host": [one.get_host(80) for one in everybody],
    }.items():
        assert len(set(values)) == FORKS + 1 and all(values), (what, sorted(values)[:5])
    # The parent goes on as it was.
    assert own[0] == "of the parent" and own[2] == big.strip()
    first = int(parent.files.read("/tmp/count") or 0)
    host.until("it counts on", lambda: int(parent.files.read("/tmp/count") or 0) > first)
    after = parent.get_info()
    assert (after.end_at, after.started_at) == (before.end_at, before.started_at)
    # A mebibyte each, and what a sandbox writes by itself; not 40 times as much.
    assert FORKS * MIB * 0.9 < more < FORKS * 4 * MIB, more
    main.end_all()


def taken(instance):
    pool = os.statvfs(f"/run/casemate/{instance.id}/pool")
    return (pool.f_blocks - pool.f_bfree) * pool.f_frsize
