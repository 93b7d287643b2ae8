"""What a shell, a notebook, a cluster or a container hands down to the command. This module imports no torch."""

import contextlib
import getpass
import logging
import os
import sys
import tempfile
import warnings
from typing import NamedTuple

from support.errors import UserError, load_package

NEEDED = ("numpy", "torch", "matplotlib", "PIL", "imageio", "tqdm", "filelock")
# Where these are set to nothing, their readers take that for a value.
EMPTY_IS_NONE = ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "LOKY_MAX_CPU_COUNT", "GLOO_SOCKET_IFNAME", "NCCL_SOCKET_IFNAME")
NUMBERS_OF_TORCHRUN = ("RANK", "LOCAL_RANK", "WORLD_SIZE", "MASTER_PORT")


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


def advice_on_srun():
    """What to add where a second run in a directory is refused: srun may have started the command more than once."""
    tasks = os.environ.get("SLURM_STEP_NUM_TASKS", "1")
    return "" if tasks == "1" else f" (srun starts {tasks} tasks: use --ntasks=1, or torchrun as in docs/cluster.md)"


@contextlib.contextmanager
def clean_environment():
    """Hide what other programs have set while matplotlib and torch are imported and used. At the end all is as before.

    Importing a package changes settings as well, such as the filters of warnings.
    """
    before = dict(os.environ)
    is_first_import = "matplotlib" not in sys.modules
    misleading = [name for name in EMPTY_IS_NONE if not before.get(name, "").strip()]
    for name in (*misleading, "MPLBACKEND"):
        os.environ.pop(name, None)
    os.environ.setdefault("USER", user_name())  # PyTorch asks for it when it compiles
    if os.path.expanduser("~") == "~":  # the user has no home, and matplotlib asks for it
        os.environ["HOME"] = "/"
    logger = logging.getLogger("matplotlib")
    level = logger.level
    logger.setLevel(logging.ERROR)  # it warns of a home directory that it cannot write to
    try:
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", "The value of the smallest subnormal")  # NumPy 1: denormals are flushed
            yield
    finally:
        logger.setLevel(level)
        for name in os.environ.keys() - before.keys():
            del os.environ[name]
        os.environ.update(before)
        if is_first_import and "matplotlib" in sys.modules and "MPLBACKEND" in before:
            with contextlib.suppress(ValueError):  # a notebook's backend, which need not be installed here
                sys.modules["matplotlib"].rcParams["backend"] = before["MPLBACKEND"]


def user_name():
    """The user's name; in a container, the user may have none."""
    try:
        return getpass.getuser()
    except (KeyError, OSError, ImportError):
        return f"uid-{os.getuid()}"


def require_packages():
    """Load what a package of commands needs, before it imports it; end the process with a line if that fails."""
    try:
        with clean_environment():
            tempfile.gettempdir()
            for name in NEEDED:
                load_package(name)
    except UserError as error:
        sys.exit(f"error: {error}")
    except FileNotFoundError:
        sys.exit("error: there is no temporary directory: set TMPDIR to one that can be written to")


def usable_cpus():
    """How many CPUs this process may keep busy: those it may run on, but no more than its cgroup's quota."""
    with warnings.catch_warnings(action="ignore"):  # joblib warns where /dev/shm cannot be written to
        return load_package("joblib").cpu_count()
