"""main.py in processes of its own, for tests that stop, kill or join them. Linux only."""

import contextlib
import functools
import json
import multiprocessing
import os
import signal
import socket
import subprocess
import sys
import threading
import time
from pathlib import Path

import numpy as np
import torch
from helpers import KMNIST, SMALL, metrics
from PIL import Image
from tqdm import tqdm

import main
from support.run import checkpoint
from support.run.signals import STOPPING, leave_on_signals

ROOT = Path(__file__).parent.parent
ENDLESS = 10**6  # epochs
PATIENCE = 300  # seconds until a process counts as hanging
INTERRUPTED = f"{main.INTERRUPTED}\n"
TORCHRUN = ("-m", "torch.distributed.run", "--standalone", "--nproc_per_node=2")  # arguments of Python


def command(*flags):
    """The command line of main.py with these flags."""
    return [sys.executable, str(ROOT / "main.py"), *map(str, flags)]


def run_command(*flags, **options):
    """Run main.py to its end, as a user does; `options` are those of subprocess.run. Returns a CompletedProcess."""
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True, "timeout": PATIENCE}
    return subprocess.run(command(*flags), **{**pipes, **options})


@functools.cache
def forks():
    """A server that has PyTorch imported: the processes it forks start in a moment."""
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["train", "explorer", "support.run.report", "torch._dynamo"])  # Adam imports it
    return context


def start(*flags, log, file_size=None):
    """Start main.py in a process forked from the server.

    Args:
        log: the file that gets the standard output and the standard error.
        file_size: the bytes beyond which no file may grow; None for no limit.
    """
    process = forks().Process(target=run_main, args=([str(flag) for flag in flags], log, file_size))
    process.start()
    return process


def run_main(argv, log, file_size):
    """The target of `start`."""
    import resource  # here: Windows has none, and collects this file all the same

    torch.set_num_threads(1)  # so small a network trains faster that way
    tqdm.set_lock(threading.RLock())  # in place of a semaphore, which a killed process would leave behind
    descriptor = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
    os.dup2(descriptor, 1)
    os.dup2(descriptor, 2)
    if file_size is not None:
        resource.setrlimit(resource.RLIMIT_FSIZE, (file_size, file_size))
    leave_on_signals(main.INTERRUPTED)
    sys.exit(main.main(argv))


def finish(*flags, log, file_size=None):
    """Run main.py in a process forked from the server, to its end. Returns the exit code."""
    process = start(*flags, log=log, file_size=file_size)
    process.join(PATIENCE)
    if process.exitcode is None:
        process.kill()
    return process.exitcode


def free_port():
    """A port of this machine that no process listens on."""
    with socket.create_server(("127.0.0.1", 0)) as probe:
        return probe.getsockname()[1]


def start_ranks(n, *flags, stdout=subprocess.DEVNULL):
    """Start main.py as n processes that train together, without torchrun, which would end them itself."""
    shared = {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(free_port()), "WORLD_SIZE": str(n)}
    return [
        subprocess.Popen(
            command(*flags),
            env={**os.environ, **shared, "RANK": str(rank), "LOCAL_RANK": str(rank), "OMP_NUM_THREADS": "1"},
            stdout=stdout,
            stderr=subprocess.PIPE,
            text=True,
        )
        for rank in range(n)
    ]


def wait_until(condition, process):
    """Wait until condition() holds. Fail if the process ends before, or if it takes too long."""
    deadline = time.monotonic() + PATIENCE
    while not condition():
        assert process.poll() is None, process.communicate()
        assert time.monotonic() < deadline, "it never happened"
        time.sleep(0.05)


def finished_epochs(folder):
    """How many epochs metrics.csv shows."""
    return len(metrics(folder)) if (folder / "metrics.csv").exists() else 0


@contextlib.contextmanager
def endless(data_dir, folder, launcher=(), ignored=()):
    """A run of a million epochs that has just finished one more, ended with the block.

    Args:
        launcher: arguments of Python before main.py, such as those of torchrun.
        ignored: signals that the parent process ignores.
    """
    before = finished_epochs(folder)
    flags = (*KMNIST, "--data_dir", data_dir, *SMALL, "--epochs", ENDLESS, "--results_dir", folder)
    python, *arguments = command(*flags)
    process = subprocess.Popen(
        [python, *launcher, *arguments],
        env={**os.environ, "OMP_NUM_THREADS": "1"},
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
        preexec_fn=functools.partial(set_signals, ignored),
    )
    try:
        wait_until(lambda: finished_epochs(folder) > before, process)
        yield process
    finally:
        workers = children(process.pid)
        process.kill()
        process.wait()
        process.stderr.close()
        for worker in workers:
            with contextlib.suppress(ProcessLookupError):
                os.kill(worker, signal.SIGKILL)


def set_signals(ignored):
    """Ignore some of the signals that stop a run, and none of the others: a shell may have started pytest otherwise."""
    for signum in STOPPING:
        signal.signal(signum, signal.SIG_IGN if signum in ignored else signal.SIG_DFL)


def without_network():
    """An environment in which every download fails at once."""
    dead = "http://127.0.0.1:9"
    return {**os.environ, "http_proxy": dead, "https_proxy": dead, "no_proxy": ""}


def children(pid):
    """The ids of the processes that a process has started."""
    try:
        threads = [path.read_text() for path in Path(f"/proc/{pid}/task").glob("*/children")]
    except OSError:  # it has ended
        return []
    return [int(child) for thread in threads for child in thread.split()]


def is_running(pid):
    """Whether there is a process of this id that has not ended."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except (FileNotFoundError, ProcessLookupError):
        return False


def check_intact(folder):
    """Assert what holds at any moment: under final names lie complete files, which agree with the checkpoint."""
    if not (folder / "checkpoint.pt").exists():
        return  # stopped before the first epoch was saved
    history = checkpoint.load(folder / "checkpoint.pt").history
    if len(history) > 1 or (folder / "metrics.csv").exists():  # else stopped between the first renames
        check_tables(folder, history)
    for path in (path for path in folder.rglob("*") if not path.name.startswith(".")):
        if path.suffix in (".png", ".gif"):
            Image.open(path).load()
        elif path.suffix == ".npy":
            np.load(path)
        elif path.suffix == ".npz":
            assert np.load(path)["points"].shape[0] == 2, path
        elif path.suffix == ".json":
            json.loads(path.read_text())
        elif path.suffix == ".html":
            assert path.read_text().rstrip().endswith("</html>"), path


def check_tables(folder, history):
    """Assert that best.pt and metrics.csv are of the checkpoint's last epoch, or of the one before.

    checkpoint.pt, best.pt and metrics.csv are renamed one after the other: in between, the latter are an epoch behind.
    """
    rows = metrics(folder)
    assert len(history) - len(rows) in (0, 1)
    for row, epoch in zip(rows, history, strict=False):
        assert row["test_total"] == f"{epoch['test_total']:.4f}"
    checkpoint.load_model(folder / "best.pt")
    bests = [checkpoint.best_of(history[:n]) for n in (len(rows), len(history))]
    assert checkpoint.read(folder / "best.pt")["row"] in bests
