"""What two sandboxes could notice of each other by files that both have. Runs inside.

places.py watch       says `ready`, and at the end of its input which places somebody opened meanwhile, and when
places.py hold        locks every place, says `ready`, and keeps the locks to the end of its input
places.py open        opens every place, and says which it could
places.py lock        tries to lock every place, and says which were taken
"""

import ctypes
import fcntl
import glob
import json
import os
import select
import struct
import sys
import time

LIBC = ctypes.CDLL(None, use_errno=True)
# Of opening for reading: the node, which rewrites some of a sandbox's files, only writes.
CLOSED_UNWRITTEN = 0x10


def places():
    """What every sandbox has and did not make itself, the agent's program among them."""
    found = ["/proc/1/exe", "/etc/passwd", "/usr/bin/env", "/dev", "/sys", *glob.glob("/proc/1/fd/*")]
    found += [each.path for each in os.scandir("/proc") if not each.name.isdigit() and each.name != "kmsg"]
    for top in ("/dev", "/sys", "/proc/sys", "/proc/pressure"):
        for folder, folders, files in os.walk(top):
            found += [os.path.join(folder, name) for name in folders + files]
    return [path for path in dict.fromkeys(found) if not path.endswith(("/ptmx", "/tty"))]


def opened():
    for path in places():
        try:
            yield path, os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_NOCTTY | os.O_CLOEXEC)
        except OSError:
            continue


def ready(count):
    print("ready", count, flush=True)


def watch():
    watcher, names = LIBC.inotify_init1(os.O_NONBLOCK), {}
    for path in places():
        number = LIBC.inotify_add_watch(watcher, path.encode(), CLOSED_UNWRITTEN)
        if number >= 0:
            names.setdefault(number, []).append(path)
    ready(len(names))
    seen, ended = [], False
    while not ended:
        ended = sys.stdin in select.select([sys.stdin, watcher], [], [])[0]
        now = time.time()
        seen += [(now, path) for number in events(watcher) for path in names.get(number, [])]
    return seen


def events(watcher):
    try:
        data = os.read(watcher, 1 << 20)
    except BlockingIOError:
        return set()
    found = set()
    while data:
        number, _, _, length = struct.unpack_from("iIII", data)
        found.add(number)
        data = data[16 + length :]
    return found


def hold():
    held = [fd for _, fd in opened() if locked(fd)]
    ready(len(held))
    sys.stdin.read()
    return len(held)


def locked(fd):
    try:
        fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        return True
    except BlockingIOError:
        return False
    except OSError:
        return True


def lock():
    taken = []
    for path, fd in opened():
        if not locked(fd):
            taken.append(path)
        # One file may have several names.
        os.close(fd)
    return taken


def open_all():
    found = []
    for path, fd in opened():
        os.close(fd)
        found.append(path)
    return found


if __name__ == "__main__":
    print(json.dumps({"watch": watch, "hold": hold, "open": open_all, "lock": lock}[sys.argv[1]]()))
