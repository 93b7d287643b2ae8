"""Signals that ask a command to stop: Ctrl-C, and what shells and schedulers send."""

import contextlib
import os
import select
import signal
from pathlib import Path

STOPPING = [getattr(signal, name) for name in ("SIGINT", "SIGTERM", "SIGHUP", "SIGUSR1") if hasattr(signal, name)]


def leave_on_signals(line):
    """End this process, and those it has started, when a signal comes: print a line and exit with 128 + n at once.

    No exception is raised: it would surface inside whatever library runs, which may swallow it or take it for an error
    of its own. Nothing needs to be unwound, because every file is replaced atomically.

    Args:
        line: what is printed on standard error; "" for nothing.
    """

    def leave(signum, frame):
        kill_children("self")
        say(line)
        os._exit(128 + signum)

    for signum in STOPPING:
        if signal.getsignal(signum) is not signal.SIG_IGN:  # what the parent process ignores stays ignored, as by nohup
            signal.signal(signum, leave)


def say(line):
    """Write a line to standard error, unless nobody can take it now."""
    with contextlib.suppress(OSError, ValueError):
        if line and (os.name == "nt" or select.select([], [2], [], 0)[1]):
            os.write(2, f"{line}\n".encode())


def kill_children(process):
    """Kill the processes that a process has started, such as a compiler, and theirs. Linux only."""
    for path in Path(f"/proc/{process}/task").glob("*/children"):
        with contextlib.suppress(OSError):
            for child in path.read_text(encoding="ascii").split():
                kill_children(child)
                os.kill(int(child), signal.SIGKILL)
