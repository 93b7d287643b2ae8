"""Files that survive kills and odd file systems: atomic writes, and a lock on a directory."""

import contextlib
import errno
import os
import sys
import time

import filelock

from support.errors import UserError
from support.machine.environment import advice_on_srun

try:
    import fcntl
except ImportError:  # Windows, where every file system has locks
    fcntl = None

# What a file system answers that has no syncing, or no locks.
NO_SYNC = (errno.EINVAL, errno.ENOSYS, errno.ENOTSUP, errno.EOPNOTSUPP)
NO_LOCKS = (errno.ENOLCK, *NO_SYNC)
RENAME_SECONDS = 1.0


def partial(path):
    """Where a file lies while it is written."""
    return path.with_name(f".{path.name}.part")


def write(path, content):
    """Replace a file atomically: a reader, or a kill at any moment, finds the old bytes or the new ones.

    Where only the last step is refused, as for a file that a viewer holds open, the new bytes stay under `partial`.
    """
    part = partial(path)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        write_part(part, content)
        rename(part, path)
    except OSError as error:
        raise OSError(error.errno, error.strerror, str(path)) from error
    sync_directory(path.parent)


def try_write(path, content):
    """Replace a file that a run can do without: a refusal costs a warning, and leaves a `partial` as a sign."""
    try:
        write(path, content)
    except OSError as error:
        print(f"WARNING: {path}: {error.strerror}; the run goes on without it", file=sys.stderr)
        with contextlib.suppress(OSError):
            partial(path).touch()


def write_part(part, content):
    """Write a file and sync it; after an error there is none."""
    try:
        with open(part, "wb") as file:
            file.write(content)
            file.flush()
            sync(file.fileno())
    except BaseException:
        with contextlib.suppress(OSError):
            part.unlink(missing_ok=True)
        raise


def sync(descriptor):
    """Put a file's bytes on the disk, on a file system that knows how."""
    try:
        os.fsync(descriptor)
    except OSError as error:
        if error.errno not in NO_SYNC:
            raise


def rename(part, path):
    """Rename a file. A refusal may pass, as when a virus scanner has the file open: try again for a second."""
    deadline = time.monotonic() + RENAME_SECONDS
    while True:
        try:
            return os.replace(part, path)
        except PermissionError:
            if time.monotonic() > deadline:
                raise
            time.sleep(0.05)


def sync_directory(folder):
    """Make renames in a folder survive a power cut, in their order, where a folder can be synced."""
    with contextlib.suppress(OSError):  # the renames have succeeded, so this is no reason to stop
        descriptor = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)


@contextlib.contextmanager
def lock(folder):
    """Hold the directory, made if missing, against a second run. The lock ends with the process, however that ends."""
    path = folder / ".lock"
    try:
        folder.mkdir(parents=True, exist_ok=True)
        can_lock = has_locks(path)
    except OSError as error:
        is_file = isinstance(error, FileExistsError | NotADirectoryError)
        reason = "is not a directory" if is_file else f"cannot be written ({error.strerror})"
        raise UserError(f"{folder} {reason}; name another --results_dir") from error
    if not can_lock:
        print(f"WARNING: {folder} is on a file system without locks: start no second run there", file=sys.stderr)
        yield
        return
    try:
        held = filelock.FileLock(path, blocking=False).acquire()
    except filelock.Timeout as error:
        raise UserError(
            f"another run is writing to {folder}{advice_on_srun()}; wait for it, or name another --results_dir"
        ) from error
    with held:
        yield


def has_locks(path):
    """Whether a file, made if missing, can be locked. The versions of filelock differ in what they do if it cannot."""
    if fcntl is None:
        return True
    with open(path, "ab") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
        except OSError as error:
            return error.errno not in NO_LOCKS  # held by another run: it can be locked
    return True
