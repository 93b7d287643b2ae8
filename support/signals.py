"""Signals that ask a command to stop: Ctrl-C, and what shells and schedulers send."""

import contextlib
import signal
import threading

STOPPING = [getattr(signal, name) for name in ("SIGINT", "SIGTERM", "SIGHUP", "SIGUSR1") if hasattr(signal, name)]


class Interrupted(BaseException):
    """A signal, `signum`, asks the command to stop."""

    def __init__(self, signum):
        super().__init__(signum)
        self.signum = signum


@contextlib.contextmanager
def stop_on_signals():
    """Raise Interrupted when a signal comes; a second one of its kind ends the process at once."""

    def interrupt(signum, frame):
        signal.signal(signum, signal.SIG_DFL)
        raise Interrupted(signum)

    in_main_thread = threading.current_thread() is threading.main_thread()  # no other may handle signals
    before = {signum: signal.getsignal(signum) for signum in STOPPING if in_main_thread}
    for signum, handler in before.items():
        if handler is not signal.SIG_IGN:  # what the parent process ignores stays ignored, as under nohup
            signal.signal(signum, interrupt)
    try:
        yield
    finally:
        for signum, handler in before.items():
            signal.signal(signum, handler)
