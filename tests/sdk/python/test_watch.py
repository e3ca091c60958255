import e2b
from e2b import FilesystemEventType


async def watch(sdk, sandbox, path, **options):
    """A watch and a function that gives all events until now."""
    seen = []
    if sdk.is_async:
        handle = await sandbox.files.watch_dir(path, on_event=seen.append, **options)
        return handle, lambda: seen
    handle = sandbox.files.watch_dir(path, **options)

    def events():
        seen.extend(handle.get_new_events())
        return seen

    return handle, events


async def has(sdk, events, name, kind):
    found = lambda: any((e.name, e.type) == (name, kind) for e in events())
    await sdk.until(f"{kind} of {name}", found)


async def test_every_kind_of_event(sdk, sandbox, home):
    await sdk.do(sandbox.files.make_dir(home))
    handle, events = await watch(sdk, sandbox, home)
    await sdk.do(sandbox.files.write(f"{home}/a", "1"))
    await has(sdk, events, "a", FilesystemEventType.CREATE)
    await has(sdk, events, "a", FilesystemEventType.WRITE)
    await sdk.run(sandbox, f"chmod 600 {home}/a")
    await has(sdk, events, "a", FilesystemEventType.CHMOD)
    await sdk.do(sandbox.files.rename(f"{home}/a", f"{home}/b"))
    await has(sdk, events, "a", FilesystemEventType.RENAME)
    await has(sdk, events, "b", FilesystemEventType.CREATE)
    await sdk.do(sandbox.files.remove(f"{home}/b"))
    await has(sdk, events, "b", FilesystemEventType.REMOVE)
    assert all(event.entry is None for event in events())
    await sdk.do(handle.stop())
    if not sdk.is_async:
        await sdk.fails(e2b.SandboxException, lambda: handle.get_new_events())


async def test_below_and_with_entries(sdk, sandbox, home):
    await sdk.do(sandbox.files.make_dir(f"{home}/x/y"))
    handle, events = await watch(sdk, sandbox, home, recursive=True, include_entry=True)
    await sdk.do(sandbox.files.write(f"{home}/x/y/f", "1"))
    await has(sdk, events, "x/y/f", FilesystemEventType.CREATE)
    created = [e for e in events() if e.name == "x/y/f" and e.entry is not None]
    assert created and created[0].entry.path == f"{home}/x/y/f"
    await sdk.run(sandbox, f"mkdir {home}/new && sleep 0.3 && touch {home}/new/g")
    await has(sdk, events, "new/g", FilesystemEventType.CREATE)
    await sdk.do(handle.stop())


async def test_only_folders_can_be_watched(sdk, sandbox, home):
    await sdk.do(sandbox.files.write(f"{home}/f", ""))

    def start(path):
        extra = {"on_event": print} if sdk.is_async else {}
        return lambda: sandbox.files.watch_dir(path, **extra)

    await sdk.fails(e2b.FileNotFoundException, start(f"{home}/none"))
    await sdk.fails(e2b.InvalidArgumentException, start(f"{home}/f"))
