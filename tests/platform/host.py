"""What a platform has on this host, read from the host itself and never from the platform."""

import json
import os
import pathlib
import subprocess
import time

RUN = pathlib.Path("/run/casemate")
CGROUPS = pathlib.Path("/sys/fs/cgroup")
SWITCHES = [
    "net.ipv4.ip_forward",
    "net.ipv4.conf.all.rp_filter",
    "net.ipv4.conf.default.send_redirects",
]


def until(what, probe, seconds=15, pause=0.05):
    """Asks `probe` until its answer is true; what it raises meanwhile is shown at the end."""
    end = time.monotonic() + seconds
    while True:
        raised = None
        try:
            if answer := probe():
                return answer
        except Exception as error:
            raised = error
        if time.monotonic() > end:
            raise AssertionError(f"{what}: not within {seconds} s") from raised
        time.sleep(pause)


def output(*command):
    return subprocess.run(command, capture_output=True, text=True, check=True, timeout=60).stdout


def read(path):
    """Text of a file of /proc or /sys; empty when its owner is gone."""
    try:
        return pathlib.Path(path).read_text(errors="replace")
    except OSError:
        return ""


def switches():
    return {name: read("/proc/sys/" + name.replace(".", "/")).strip() for name in SWITCHES}


def command_line(pid):
    return read(f"/proc/{pid}/cmdline").replace("\0", " ").strip()


def children(pid):
    """Of all its threads; none of one that has just ended."""
    found = []
    try:
        for task in os.listdir(f"/proc/{pid}/task"):
            found += [int(child) for child in read(f"/proc/{pid}/task/{task}/children").split()]
    except (FileNotFoundError, ProcessLookupError):
        pass
    return found


def internal_role(line):
    """What a process is to its platform, by its command line."""
    words = line.split()
    return words[2] if words[1:2] == ["internal"] else None


def own_processes(up):
    """The processes of a platform: `up` and what it started of its own programs; role by pid."""
    found, ask = {up: "up"}, [up]
    while ask:
        for child in children(ask.pop()):
            if role := internal_role(command_line(child)):
                found[child] = role
                ask.append(child)
    return found


def resident_mib(pids):
    """Proportional memory of processes."""
    total = 0
    for pid in pids:
        for line in read(f"/proc/{pid}/smaps_rollup").splitlines():
            if line.startswith("Pss:"):
                total += int(line.split()[1])
    return total / 1024


def links(instance):
    names = os.listdir("/sys/class/net")
    return {name for name in names if name.startswith(f"cm{instance[:6]}-")}


def cgroups(instance):
    """Directories of all hierarchies, those of sandboxes included."""
    found = set()
    for root in [CGROUPS, *(path for path in CGROUPS.iterdir() if path.is_dir())]:
        for own in root.glob(f"casemate-{instance}*"):
            found.add(str(own))
            # Slots come and go while they are counted, which os.walk does not mind.
            found.update(folder for folder, _, _ in os.walk(own))
    return found


def sandbox_groups(instance, data_dir, id):
    """Directories of a sandbox's control groups, as the journal names them."""
    facts = json.loads(read(pathlib.Path(data_dir) / f"node/journal/{id}.json"))["record"]["facts"]
    places = [CGROUPS, *(path for path in CGROUPS.iterdir() if path.is_dir())]
    paths = [place / f"casemate-{instance}" / facts["group"] for place in places]
    return [str(path) for path in paths if path.is_dir()]


def processes_inside(instance):
    """Processes of its sandboxes: they are in the groups below the instance's own, where some
    hierarchies hold its launchers."""
    below = {path for path in cgroups(instance) if not path.endswith(f"casemate-{instance}")}
    return {pid for path in below for pid in read(f"{path}/cgroup.procs").split()}


def loop_devices(data_dir):
    found = set()
    for path in pathlib.Path("/sys/block").glob("loop*/loop/backing_file"):
        if str(data_dir) in read(path):
            found.add(path.parts[3])
    return found


def filter_elements(instance):
    """How many elements each set and map of the instance's table has."""
    listed = json.loads(output("nft", "-j", "list", "table", "inet", f"casemate_{instance}"))
    counts = {}
    for item in listed["nftables"]:
        for kind in ("set", "map"):
            if kind in item:
                counts[item[kind]["name"]] = len(item[kind].get("elem", []))
    return counts


def network_namespaces(pids):
    """Those that processes are in or hold open."""
    found = set()
    for pid in pids:
        paths = [f"/proc/{pid}/ns/net"]
        try:
            paths += [f"/proc/{pid}/fd/{name}" for name in os.listdir(f"/proc/{pid}/fd")]
        except OSError:
            continue
        for path in paths:
            try:
                target = os.readlink(path)
            except OSError:
                continue
            if target.startswith("net:["):
                found.add(target)
    return found


def traces(instance, data_dir):
    """Everything of an instance by its name, one line each; nothing after a purge."""
    found = [f"link {name}" for name in links(instance)]
    found += [f"cgroup {path}" for path in cgroups(instance)]
    found += [f"loop {name}" for name in loop_devices(data_dir)]
    mounts = read("/proc/mounts").splitlines()
    found += [f"mount {line}" for line in mounts if instance in line or str(data_dir) in line]
    tables = output("nft", "list", "tables").splitlines()
    found += [line for line in tables if f"casemate_{instance}" in line]
    addresses = output("ip", "-o", "address", "show").splitlines()
    found += [line for line in addresses if f"cm{instance[:6]}" in line]
    found += [f"run {path}" for path in RUN.glob("*") if instance in path.name]
    leases = RUN / "leases"
    for path in leases.iterdir() if leases.is_dir() else []:
        if instance in read(path):
            found.append(f"lease {path}")
    found += [f"pinned {path}" for path in pathlib.Path("/run/netns").glob(f"*{instance}*")]
    for name in os.listdir("/proc"):
        if name.isdigit() and f"{data_dir} " in command_line(name) + " ":
            found.append(f"process {name} {command_line(name)}")
    if os.path.exists(data_dir):
        found.append(f"directory {data_dir}")
    return found
