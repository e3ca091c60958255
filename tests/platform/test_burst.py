"""A hundred sandboxes at once, all ended: nothing is left beyond the stock."""

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
