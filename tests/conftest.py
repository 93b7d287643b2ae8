import csv
import multiprocessing
import os
import resource
import socket
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

import main

ROOT = Path(__file__).parent.parent
FORKS = multiprocessing.get_context("forkserver")
FORKS.set_forkserver_preload(["main", "train"])


def write_idx(path, magic, array):
    """An IDX file of uint8 values."""
    header = np.array([magic, *array.shape], dtype=">u4").tobytes()
    path.write_bytes(header + array.astype(np.uint8).tobytes())


def write_mnist(folder, n_train=300, n_test=60):
    """A stand-in for MNIST in torchvision's layout: each class a bar at a height of its own, in noise."""
    raw = folder / "MNIST" / "raw"
    raw.mkdir(parents=True)
    rng = np.random.default_rng(0)
    for prefix, n in (("train", n_train), ("t10k", n_test)):
        labels = np.arange(n) % 10
        images = rng.integers(0, 60, (n, 28, 28))
        images[np.arange(n)[:, None], 4 + 2 * labels[:, None] + np.arange(2), 6:22] = 250
        write_idx(raw / f"{prefix}-images-idx3-ubyte", 2051, images)
        write_idx(raw / f"{prefix}-labels-idx1-ubyte", 2049, labels)
    return folder


@pytest.fixture(scope="session")
def small_mnist(tmp_path_factory):
    """A --data_dir with 300 training and 60 test images. Read only."""
    return write_mnist(tmp_path_factory.mktemp("data"))


def cli(*arguments, **environment):
    """main.py as its user runs it, in a process of its own."""
    return subprocess.run(
        [sys.executable, ROOT / "main.py", *map(str, arguments)],
        env={**os.environ, **environment},
        capture_output=True,
        text=True,
        timeout=120,
    )


def free_port():
    """A port of this machine that nobody listens on."""
    with socket.create_server(("127.0.0.1", 0)) as probe:
        return probe.getsockname()[1]


def metrics(folder):
    """The rows of metrics.csv as dicts of text."""
    with open(folder / "metrics.csv", newline="") as file:
        return list(csv.DictReader(file))


def contents(folder):
    """Every file below a folder and its bytes."""
    return {path.relative_to(folder): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def _main(argv, log, file_size):
    """In a child process: main.py with its output in a file, and no file allowed to grow beyond file_size bytes."""
    descriptor = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
    os.dup2(descriptor, 1)
    os.dup2(descriptor, 2)
    if file_size:
        resource.setrlimit(resource.RLIMIT_FSIZE, (file_size, file_size))
    sys.exit(main.main(argv))


def started(*arguments, log, file_size=None):
    """main.py in a process of its own that has PyTorch already imported: it starts in a moment, and can be killed."""
    process = FORKS.Process(target=_main, args=([str(a) for a in arguments], log, file_size))
    process.start()
    return process
