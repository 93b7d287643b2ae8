"""Standard output and standard error, whatever they are: a terminal, a pipe, a notebook, a full disk, or closed."""

import contextlib
import os
import re
import sys

from support.errors import UserError
from support.machine.environment import clean_environment


class Output:
    """A text stream in front of another: lines appear at once, and characters that it cannot encode are escaped.

    It asks nothing of the stream behind it but write(), and with None there, it drops what is written.

    Args:
        name: what a failed write is reported as, in a UserError. None: it is dropped, as there is no one to tell.
    """

    def __init__(self, stream, name=None):
        self.stream = stream
        self.name = name

    def write(self, text):
        """Write the text and flush it."""
        if self.stream is None:
            return len(text)
        encoding = getattr(self.stream, "encoding", None) or "utf-8"
        try:
            self.stream.write(text.encode(encoding, "backslashreplace").decode(encoding))
            if hasattr(self.stream, "flush"):
                self.stream.flush()
        except (OSError, ValueError) as error:  # ValueError: it is closed
            if self.name:
                raise UserError(f"{self.name}: {getattr(error, 'strerror', None) or error}") from error
        return len(text)

    def flush(self):
        """Nothing is left to do: each write flushes."""

    def isatty(self):
        """Whether this is a terminal that a person watches: a notebook saves all that a progress bar overwrites."""
        is_saved = "JPY_PARENT_PID" in os.environ or os.environ.get("TERM") == "dumb"
        with contextlib.suppress(AttributeError, ValueError):
            return not is_saved and self.stream.isatty()
        return False

    def __getattr__(self, name):
        """What else is asked, such as the size of the terminal, the stream itself may know."""
        return getattr(self.stream, name)


def exit_code(program, work, flags=None):
    """Call work() as the command `program` and return its exit code; an error the user can fix becomes a line.

    0: done; 1: cannot go on; 2: bad flags. `flags`: the set of those of a program other than main.py; the line then
    says which flags that it names are main.py's.
    """
    with robust_output(), clean_environment():
        try:
            work()
            return 0
        except SystemExit as end:  # of argparse, or of `require_packages`
            if not isinstance(end.code, str):
                return end.code
            message = end.code.removeprefix("error: ")
        except UserError as error:
            others = set(re.findall(r"--\w+", str(error))) - flags if flags else None
            message = f"{error} (flags of main.py: {', '.join(sorted(others))})" if others else str(error)
        except OSError as error:
            message = f"{error.filename}: {error.strerror or error}" if error.filename else error.strerror or error
        print(f"{program}: error: {message}", file=sys.stderr)
        return 1


@contextlib.contextmanager
def robust_output():
    """Put an Output in front of standard output and standard error while a command runs."""
    occupy_descriptors()
    out, err = Output(sys.stdout, "standard output"), Output(sys.stderr)
    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
        yield


def occupy_descriptors():
    """Open the null device for each standard descriptor that is closed: a file opened later would take its place."""
    for descriptor in range(3):
        try:
            os.fstat(descriptor)
        except OSError:
            os.open(os.devnull, os.O_RDWR)  # gets the lowest free number
