"""Signals that ask a command to stop: Ctrl-C, and what shells and schedulers send."""

import contextlib
import os
import select
import signal
from pathlib import Path

# SIGUSR1 and SIGUSR2: what schedulers send before a time limit. SIGXCPU: the limit of CPU time is reached.
NAMES = ("SIGINT", "SIGTERM", "SIGHUP", "SIGUSR1", "SIGUSR2", "SIGXCPU")
INHERITED = set()  # processes that a shell had started before it became this one, by exec
STOPPING = [getattr(signal, name) for name in NAMES if hasattr(signal, name)]


def leave_on_signals(line):
    """End this process, and those it has started, when a signal comes: print a line and exit with 128 + n at once.

    No exception is raised: it would surface inside whatever library runs, which may swallow it or take it for an error
    of its own. Nothing needs to be unwound, because every file is replaced atomically.
    """

    INHERITED.update(children("self"))

    def stop(signum, frame):
        leave(128 + signum, line)

    for signum in STOPPING:
        if signal.getsignal(signum) is not signal.SIG_IGN:  # what the parent process ignores stays ignored, as by nohup
            signal.signal(signum, stop)


def leave(code, line=""):
    """End this process, and those it has started, with an exit code, at once; first, print a line on standard error.

    The interpreter would take a second to shut down. A signal that comes meanwhile would find no handler that works,
    and a thread of PyTorch that frees a tensor would abort the process.
    """
    kill_children("self")
    with contextlib.suppress(OSError, ValueError):
        if line and (os.name == "nt" or select.select([], [2], [], 0)[1]):  # nobody may read it
            os.write(2, f"{line}\n".encode())
    os._exit(code)


def kill_children(process):
    """Kill the processes that a process has started, such as a compiler, and theirs. Linux only."""
    for child in children(process) - INHERITED:
        kill_children(child)
        with contextlib.suppress(OSError):
            os.kill(int(child), signal.SIGKILL)


def children(process):
    """The ids of the processes that a process has started, as texts."""
    with contextlib.suppress(OSError):
        paths = Path(f"/proc/{process}/task").glob("*/children")
        return {child for path in paths for child in path.read_text(encoding="ascii").split()}
    return set()
