"""Errors that end a command with one line instead of a traceback."""

import contextlib
import importlib
import sys

DISTRIBUTIONS = {"sklearn": "scikit-learn", "PIL": "pillow"}  # what pip calls them


class UserError(Exception):
    """An error the user can fix; its message is one line that says what to do."""


def first_line(error):
    """The first line of an error or warning; PyTorch adds advice and stack traces below."""
    return next((line.strip() for line in str(error).splitlines() if line.strip()), type(error).__name__)


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


def load_package(name):
    """Import and return a module of another project.

    Raises:
        UserError: its package is missing, or cannot be loaded on this machine.
    """
    try:
        return importlib.import_module(name)
    except ModuleNotFoundError as error:
        missing = error.name.partition(".")[0]
        if missing in sys.stdlib_module_names:
            raise UserError(f"this Python was built without {missing.strip('_')}: use another one") from error
        package = DISTRIBUTIONS.get(missing, missing)
        raise UserError(f"the package {package} is not installed: pip install {package}") from error
    except (ImportError, OSError, RuntimeError, MemoryError) as error:
        package = name.partition(".")[0]
        package = "torch torchvision" if package.startswith("torch") else DISTRIBUTIONS.get(package, package)
        reason = f"{name} is installed, but cannot be loaded here ({first_line(error)})"
        raise UserError(f"{reason}: pip install --force-reinstall {package}") from error
