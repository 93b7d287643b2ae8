"""What a shell, a notebook, a cluster or a container hands down to the command. This module imports no torch."""

import contextlib
import os
import sys
from pathlib import Path, PurePosixPath
from typing import NamedTuple

# Where these are set to nothing, their readers take that for a value.
EMPTY_IS_UNSET = ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "GLOO_SOCKET_IFNAME", "NCCL_SOCKET_IFNAME")
NUMBERS_OF_TORCHRUN = ("RANK", "LOCAL_RANK", "WORLD_SIZE", "MASTER_PORT")
CGROUPS = PurePosixPath("/sys/fs/cgroup")


class World(NamedTuple):
    """This process among those that train together."""

    rank: int
    size: int


ALONE = World(0, 1)


def find_world():
    """This process's place among those that torchrun started; ALONE if it was not started so.

    Schedulers and shells set some of these variables too. torchrun sets all of them.
    """
    numbers = [os.environ.get(name, "") for name in NUMBERS_OF_TORCHRUN]
    if not os.environ.get("MASTER_ADDR") or not all(text.isdecimal() for text in numbers):
        return ALONE
    rank, _, size, _ = map(int, numbers)
    return World(rank, size) if rank < size else ALONE


@contextlib.contextmanager
def clean_environment():
    """Hide what the environment holds for other programs while matplotlib and torch are imported and used."""
    misleading = [name for name in EMPTY_IS_UNSET if not os.environ.get(name, "").strip()]
    hidden = {name: os.environ.pop(name) for name in (*misleading, "MPLBACKEND") if name in os.environ}
    is_first_import = "matplotlib" not in sys.modules
    try:
        yield
    finally:
        os.environ.update(hidden)
        if is_first_import and "matplotlib" in sys.modules and "MPLBACKEND" in hidden:
            with contextlib.suppress(ValueError):  # a notebook's backend, which need not be installed here
                sys.modules["matplotlib"].rcParams["backend"] = hidden["MPLBACKEND"]


def usable_cpus():
    """How many CPUs this process may keep busy: those it may run on, but no more than its cgroup's quota."""
    try:
        present = len(os.sched_getaffinity(0))
    except AttributeError:  # macOS, Windows
        present = os.cpu_count() or 1
    quota = cpu_quota(read_text("/proc/self/cgroup") or "", read_text)
    return present if quota is None else max(1, min(present, int(quota)))


def cpu_quota(groups, read):
    """The CPUs that the control groups of a process allow it, or None for no limit. A group's parents limit it too.

    Args:
        groups: the content of /proc/self/cgroup.
        read: a function from a path to the file's content, or None if there is no such file.
    """
    quotas = []
    for line in groups.splitlines():
        controllers, _, path = line.partition(":")[2].partition(":")
        if controllers and "cpu" not in controllers.split(","):
            continue
        inside = PurePosixPath(os.path.normpath(path).lstrip("/"))
        for group in (inside, *inside.parents):
            if controllers:  # version 1
                folder = CGROUPS / controllers / group
                files = [read(folder / f"cpu.cfs_{name}_us") for name in ("quota", "period")]
                numbers = [text or "" for text in files]
            else:
                numbers = (read(CGROUPS / group / "cpu.max") or "").split()
            quotas.append(as_quota(numbers))
    return min((quota for quota in quotas if quota is not None), default=None)


def as_quota(numbers):
    """Microseconds of CPU time per period, two texts, as CPUs; None if they set no limit (max, -1) or are missing."""
    try:
        quota, period = map(int, numbers)
    except ValueError:
        return None
    return quota / period if quota > 0 and period > 0 else None


def read_text(path):
    """The content of a text file, or None if it cannot be read."""
    try:
        return Path(path).read_text(encoding="utf-8")
    except (OSError, ValueError):
        return None
