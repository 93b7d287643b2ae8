"""Errors that end a command with one line instead of a traceback."""

import contextlib
from pathlib import Path

ROOT = Path(__file__).parent.parent
DISTRIBUTIONS = {"sklearn": "scikit-learn", "PIL": "pillow"}  # what pip calls them


class UserError(Exception):
    """An error the user can fix; its message is one line that says what to do."""


def first_line(error):
    """The first line of an error or warning; PyTorch adds advice and stack traces below."""
    return next(iter(str(error).splitlines()), type(error).__name__)


@contextlib.contextmanager
def naming(path):
    """Name the path in an OSError that names no file.

    Opening a file raises one with its name; reading, writing or syncing an open file raises one without.
    """
    try:
        yield
    except OSError as error:
        if error.filename is not None:
            raise
        raise OSError(error.errno, error.strerror or str(error), str(path)) from error


@contextlib.contextmanager
def explain_missing_packages():
    """Turn the failed import of a package into a UserError that says how to install it."""
    try:
        yield
    except ModuleNotFoundError as error:
        package = (error.name or "").partition(".")[0]
        is_ours = (ROOT / package).exists() or (ROOT / f"{package}.py").exists()
        if is_ours:
            raise
        name = DISTRIBUTIONS.get(package, package)
        raise UserError(f"the package {name} is not installed: pip install {name}") from error
