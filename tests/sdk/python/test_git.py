import e2b


async def test_a_repository_from_its_first_commit_to_a_pull(sdk, sandbox, home):
    git, origin, work, other = sandbox.git, f"{home}/o.git", f"{home}/w", f"{home}/v"
    await sdk.do(git.init(origin, bare=True, initial_branch="main"))
    await sdk.do(git.init(work, initial_branch="main"))
    await sdk.do(git.configure_user("Tester", "t@example.com", scope="local", path=work))
    await sdk.do(sandbox.files.write(f"{work}/f", "1\n"))
    status = await sdk.do(git.status(work))
    assert [(f.name, f.status) for f in status.file_status] == [("f", "untracked")]
    await sdk.do(git.add(work))
    await sdk.do(git.commit(work, "first"))
    assert (await sdk.do(git.status(work))).is_clean
    await sdk.do(git.remote_add(work, "origin", origin))
    assert await sdk.do(git.remote_get(work, "origin")) == origin
    assert await sdk.do(git.remote_get(work, "none")) is None
    await sdk.do(git.push(work, remote="origin", branch="main"))

    await sdk.do(git.clone(origin, other, branch="main", depth=1))
    await sdk.do(sandbox.files.write(f"{work}/f", "2\n"))
    await sdk.do(git.add(work, files=["f"], all=False))
    await sdk.do(git.commit(work, "second"))
    await sdk.do(git.push(work))
    await sdk.do(git.pull(other))
    assert await sdk.do(sandbox.files.read(f"{other}/f")) == "2\n"


async def repository(sdk, sandbox, path):
    git = sandbox.git
    await sdk.do(git.init(path, initial_branch="main"))
    await sdk.do(sandbox.files.write(f"{path}/f", "1\n"))
    await sdk.do(git.add(path))
    options = {"author_name": "T", "author_email": "t@example.com"}
    await sdk.do(git.commit(path, "first", **options))
    return git


async def test_branches(sdk, sandbox, home):
    git = await repository(sdk, sandbox, home)
    await sdk.do(git.create_branch(home, "side"))
    found = await sdk.do(git.branches(home))
    assert (sorted(found.branches), found.current_branch) == (["main", "side"], "side")
    await sdk.do(git.checkout_branch(home, "main"))
    await sdk.do(git.delete_branch(home, "side"))
    assert (await sdk.do(git.branches(home))).branches == ["main"]


async def test_reset_and_restore(sdk, sandbox, home):
    git = await repository(sdk, sandbox, home)
    path = f"{home}/f"
    await sdk.do(sandbox.files.write(path, "changed\n"))
    await sdk.do(git.add(home))
    await sdk.do(git.reset(home, mode="mixed"))
    assert (await sdk.do(git.status(home))).staged_count == 0
    await sdk.do(git.restore(home, ["f"]))
    assert await sdk.do(sandbox.files.read(path)) == "1\n"


async def test_settings(sdk, sandbox, home):
    git = await repository(sdk, sandbox, home)
    await sdk.do(git.set_config("pull.rebase", "false", scope="local", path=home))
    assert await sdk.do(git.get_config("pull.rebase", scope="local", path=home)) == "false"
    assert await sdk.do(git.get_config("no.such", scope="local", path=home)) is None
    await sdk.do(git.dangerously_authenticate("u", "p", host="git.example.com"))
    kept = await sdk.run(sandbox, "cat ~/.git-credentials")
    assert kept.stdout == "https://u:p@git.example.com\n"


async def test_a_push_without_a_remote_says_so(sdk, sandbox, home):
    git = await repository(sdk, sandbox, home)
    await sdk.fails((e2b.SandboxException, e2b.GitUpstreamException), lambda: git.push(home))
