"""A wall clock that a test sets, for one program: a library of ours adds to it, and to nothing else, what a
file says. The host's clock is not touched."""

import functools
import pathlib
import shutil
import tempfile
import time

import host
from instance import CASEMATE

SHIFT = r"""
#include <fcntl.h>
#include <stdint.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <sys/time.h>
#include <time.h>
#include <unistd.h>

static volatile int64_t none, *shift = &none;

__attribute__((constructor)) static void begin(void) {
    int file = open(FILE_OF_SECONDS, O_RDONLY | O_CLOEXEC);
    if (file < 0) return;
    void *seen = mmap(0, sizeof *shift, PROT_READ, MAP_SHARED, file, 0);
    if (seen != MAP_FAILED) shift = seen;
    close(file);
}

int clock_gettime(clockid_t clock, struct timespec *now) {
    int failed = syscall(SYS_clock_gettime, clock, now);
    if (!failed && clock == CLOCK_REALTIME) now->tv_sec += *shift;
    return failed;
}

int gettimeofday(struct timeval *restrict now, void *restrict zone) {
    struct timespec fine;
    if (clock_gettime(CLOCK_REALTIME, &fine)) return -1;
    now->tv_sec = fine.tv_sec;
    now->tv_usec = fine.tv_nsec / 1000;
    return 0;
}

time_t time(time_t *out) {
    struct timespec fine;
    clock_gettime(CLOCK_REALTIME, &fine);
    if (out) *out = fine.tv_sec;
    return fine.tv_sec;
}
"""


class Clock:
    """The clock, and programs that go by it."""

    def __init__(self):
        # Where a process without privileges may read.
        self.dir = pathlib.Path(tempfile.mkdtemp(prefix="casemate-clock-"))
        self.dir.chmod(0o755)
        self.file = self.dir / "seconds"
        self.set(0)
        (self.dir / "shift.c").write_text(SHIFT)
        library = self.dir / "libshift.so"
        named = f'-DFILE_OF_SECONDS="{self.file}"'
        host.output("gcc", "-shared", "-fPIC", "-O1", named, "-o", str(library), str(self.dir / "shift.c"))
        self.library = library

    @functools.cached_property
    def program(self):
        return self.over(CASEMATE, "casemate")

    def over(self, program, name):
        """A program that goes by this clock."""
        copy = self.dir / name
        shutil.copy(program, copy)
        host.output("patchelf", "--add-needed", str(self.library), str(copy))
        return copy

    @property
    def environment(self):
        """With it a program that is linked to libraries goes by this clock."""
        return {"LD_PRELOAD": str(self.library)}

    def set(self, seconds):
        mode = "r+b" if self.file.exists() else "wb"
        with open(self.file, mode) as file:
            file.write(seconds.to_bytes(8, "little", signed=True))
        self.ahead = seconds

    def now(self):
        return time.time() + self.ahead

    def close(self):
        shutil.rmtree(self.dir)
