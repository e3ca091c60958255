"""Several instances on a host, and starts that are refused: in words, at once."""

import os
import pathlib
import subprocess
import tempfile

import pytest

import host
from instance import BASE, CASEMATE, ROOT, Instance, bare_environment, casemate, free_port


def up(data_dir, listen=None, **options):
    """An `up` that must be refused; gives what it said."""
    listen = listen or f"127.0.0.1:{free_port()}"
    args = ("up", "--data-dir", str(data_dir), "--listen", listen, "--base", BASE)
    ran = casemate(*args, timeout=20, **options)
    assert ran.returncode == 1, (ran.returncode, ran.stderr)
    assert "panicked" not in ran.stderr and "casemate ready" not in ran.stdout
    return ran.stderr


def test_two_instances_share_nothing(main, small):
    assert main.id != small.id
    ours, theirs = main.create(), small.create()
    try:
        assert ours.sandbox_id not in small.listed() and theirs.sandbox_id not in main.listed()
        # The key of one is none of the other.
        for one, other in [(main, small), (small, main)]:
            headers = {"X-API-Key": one.client["api_key"]}
            assert other.get("/v2/sandboxes", headers)[0] == 401
        # Nor do their sandboxes share users.
        maps = [s.commands.run("cat /proc/self/uid_map").stdout.split() for s in (ours, theirs)]
        assert maps[0][1] != maps[1][1]
    finally:
        ours.kill()
        theirs.kill()


def test_a_locked_data_directory_is_refused(main):
    said = up(main.data_dir)
    assert "another casemate uses" in said and str(main.data_dir) in said
    assert main.get("/ready")[0] == 200


def test_a_used_port_is_refused(main):
    data_dir = ROOT / f"platform-port-{os.getpid()}"
    said = up(data_dir, f"127.0.0.1:{main.port}")
    assert f"cannot listen at 127.0.0.1:{main.port}" in said and "in use" in said
    # Nothing was begun.
    assert not data_dir.exists()


@pytest.mark.parametrize("kind", ["tmpfs", "overlay"])
def test_a_data_directory_on_the_wrong_file_system_is_refused(kind):
    with tempfile.TemporaryDirectory(dir=ROOT) as folder:
        at = pathlib.Path(folder) / "at"
        at.mkdir()
        options = ["-t", "tmpfs", "casemate-test", str(at)]
        if kind == "overlay":
            names = [pathlib.Path(folder) / name for name in ("lower", "upper", "work")]
            for name in names:
                name.mkdir()
            lower, upper, work = names
            layers = f"lowerdir={lower},upperdir={upper},workdir={work}"
            options = ["-t", "overlay", "-o", layers, "casemate-test", str(at)]
        host.output("mount", *options)
        try:
            said = up(at / "data")
            # An overlay is found out by what it cannot do, or by its name.
            assert "data dir" in said and (kind in said or "idmapped mounts" in said), said
        finally:
            host.output("umount", str(at))


def test_without_root_it_says_so():
    environment = bare_environment(HOME="/nonexistent")
    with tempfile.TemporaryDirectory() as folder:
        # As the user sees it: a copy that he may execute, a folder that he may write.
        os.chmod(folder, 0o755)
        program = pathlib.Path(folder) / "casemate"
        program.write_bytes(pathlib.Path(CASEMATE).read_bytes())
        program.chmod(0o755)
        for verb in ("up", "down", "status"):
            ran = subprocess.run(
                [program, verb, "--data-dir", f"{folder}/data"], capture_output=True, text=True,
                timeout=20, user=65534, group=65534, extra_groups=[], env=environment, cwd="/",
            )
            assert ran.returncode == 1, (verb, ran.stdout)
            assert "root" in ran.stderr and "sudo" in ran.stderr, (verb, ran.stderr)


def test_unknown_settings_are_refused():
    data_dir = ROOT / f"platform-settings-{os.getpid()}"
    said = up(data_dir, env=bare_environment(CASEMATE_LIMITS_DISC_MIB="64"))
    assert "CASEMATE_LIMITS_DISC_MIB" in said
    said = up(data_dir, env=bare_environment(CASEMATE_LIMITS_DISK_MIB="much"))
    assert "disk_mib" in said.lower()
    assert not data_dir.exists()


def test_an_archive_that_is_none_is_refused():
    instance = Instance("rubbish")
    try:
        with tempfile.NamedTemporaryFile(dir=ROOT, suffix=".tar.zst") as file:
            file.write(b"this is no archive" * 1000)
            file.flush()
            ran = casemate("up", "--data-dir", str(instance.data_dir), "--listen",
                           f"127.0.0.1:{instance.port}", "--base", file.name)
        assert ran.returncode == 1 and file.name in ran.stderr, ran.stderr
        assert "panicked" not in ran.stderr and "casemate ready" not in ran.stdout
        # It ended as a whole, and a second start would take nothing of it for a base.
        id = (instance.data_dir / "instance").read_text()
        assert "process" not in "".join(host.traces(id, instance.data_dir))
        assert not any((instance.data_dir / "node").glob("templates/*"))
    finally:
        instance.close()


def test_a_folder_that_is_closed_to_the_control_process():
    """As home directories are: refused at once, naming the folder, and fine once it lets through."""
    closed = pathlib.Path(tempfile.mkdtemp(dir=ROOT, prefix="closed-"))
    assert closed.stat().st_mode & 0o777 == 0o700
    instance = Instance("closed")
    instance.data_dir = closed / "data"
    try:
        said = up(instance.data_dir)
        assert f"{closed} is closed to others" in said and "chmod o+x" in said
        closed.chmod(0o711)
        instance.up()
        with instance.create() as sandbox:
            assert sandbox.commands.run("echo in").stdout == "in\n"
    finally:
        casemate("down", "--data-dir", str(instance.data_dir), "--purge")
        closed.rmdir()
