"""Signals that ask a command to stop: Ctrl-C, and what shells and schedulers send."""

import contextlib
import signal
import sys
import threading

AGAIN = 0.1  # seconds until a signal is sent again
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

    def send_again(unraisable):
        """Send a signal again whose exception Python drops, as it does in callbacks of weak references."""
        if not isinstance(unraisable.exc_value, Interrupted):
            report_unraisable(unraisable)
            return
        signum = unraisable.exc_value.signum
        signal.signal(signum, interrupt)
        timers.append(threading.Timer(AGAIN, signal.raise_signal, (signum,)))
        timers[-1].start()

    timers = []
    report_unraisable = sys.unraisablehook
    in_main_thread = threading.current_thread() is threading.main_thread()  # no other may handle signals
    before = {signum: signal.getsignal(signum) for signum in STOPPING if in_main_thread}
    for signum, handler in before.items():
        if handler is not signal.SIG_IGN:  # what the parent process ignores stays ignored, as under nohup
            signal.signal(signum, interrupt)
    sys.unraisablehook = send_again
    try:
        yield
    finally:
        for timer in timers:
            timer.cancel()
        sys.unraisablehook = report_unraisable
        for signum, handler in before.items():
            signal.signal(signum, handler)
