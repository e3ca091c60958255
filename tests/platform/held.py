"""What a platform holds on this host, counted."""

import json
import pathlib

import host
from instance import casemate


def stock(instance):
    """(slots, layers) that are prepared, as the node says."""
    told = json.loads(casemate("--json", "status", "--data-dir", str(instance.data_dir)).stdout)
    return told["node"]["slots_ready"], told["node"]["layers_ready"]


def held(instance):
    """What the instance holds on the host, counted."""
    pool = host.RUN / instance.id / "pool"
    pids = instance.processes()
    mounts = [len(host.read(f"/proc/{pid}/mounts").splitlines()) for pid in pids]
    return {
        "processes": sorted(pids.values()),
        "inside": sorted(host.processes_inside(instance.id)),
        "links": len(host.links(instance.id)),
        "namespaces": len(host.network_namespaces(pids)),
        # A slot has one in each of several hierarchies, all of one name.
        "cgroups": len({pathlib.Path(path).name for path in host.cgroups(instance.id)}),
        "mounts": max(mounts),
        "loops": len(host.loop_devices(instance.data_dir)),
        "elements": host.filter_elements(instance.id),
        "journal": len(list((instance.data_dir / "node/journal").iterdir())),
        "layers": len(list((pool / "w").iterdir())),
        "leaving": len(list((pool / "x").iterdir())),
        "kept": len(list((pool / "kept").iterdir())),
        "subvolumes": len(host.output("btrfs", "subvolume", "list", str(pool)).splitlines()),
        "quotas": len(host.output("btrfs", "qgroup", "show", str(pool)).splitlines()),
    }


def beyond_the_stock(instance):
    """What is held less what the stock explains: the same before and after."""
    slots, layers = stock(instance)
    found = held(instance)
    found["links"] -= slots
    found["namespaces"] -= slots
    found["cgroups"] -= slots
    for name in ("layers", "subvolumes", "quotas"):
        found[name] -= layers
    return found


def open_files(instance):
    """How many descriptors each process holds."""
    found = {}
    for pid in instance.processes():
        try:
            found[pid] = len(list(pathlib.Path(f"/proc/{pid}/fd").iterdir()))
        except FileNotFoundError:
            pass
    return found


def files(instance):
    """How many files and folders the data directory has, those of layers left out."""
    node = instance.data_dir / "node"
    skipped = {node / "layers"}
    found, ask = 0, [instance.data_dir]
    while ask:
        for path in ask.pop().iterdir():
            found += 1
            if path.is_dir() and not path.is_symlink() and path not in skipped:
                ask.append(path)
    return found
