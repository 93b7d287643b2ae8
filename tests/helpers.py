"""What the tests share: a stand-in for MNIST, a call of main.py in this process, and comparisons of results."""

import contextlib
import csv
import io
import re
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch

import main
from support.run.config import FLAGS

SMALL = ("--hidden_dims", 16, "--batch_size", 64, "--log_interval", 1000)  # a network that trains in a moment
# For processes: nothing is known of KMNIST's contents, so its stand-in causes no warning.
KMNIST = ("--dataset", "kmnist")
PICTURES = (".png", ".gif", ".npy", ".npz", ".html")


class Finished(NamedTuple):
    """What a command left: its exit code, and what it printed."""

    code: int
    out: str
    err: str


def names_of_tests():
    """The names of all tests, also of those that this run leaves out."""
    texts = [path.read_text(encoding="utf-8") for path in Path(__file__).parent.glob("test_*.py")]
    return {name for text in texts for name in re.findall(r"^def (test_\w+)", text, re.MULTILINE)}


def call_main(*flags):
    """Call main.main with these flags, each turned into text. Returns a Finished."""
    out = io.TextIOWrapper(io.BytesIO(), "utf-8", newline="")
    err = io.TextIOWrapper(io.BytesIO(), "utf-8", newline="")
    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
        try:
            code = main.main([str(flag) for flag in flags])
        except SystemExit as end:  # of --help and of bad flags
            code = end.code
    texts = []
    for stream in (out, err):
        stream.flush()
        texts.append(stream.buffer.getvalue().decode("utf-8"))
    return Finished(code, *texts)


def write_idx(path, magic, array):
    """Write an IDX file of uint8 values: a big-endian header of the magic number and the sizes, then the values."""
    header = np.array([magic, *array.shape], dtype=">u4").tobytes()
    path.write_bytes(header + array.astype(np.uint8).tobytes())


def write_mnist(folder, n_train=300, n_test=60):
    """Write a stand-in for MNIST in torchvision's layout: each class a bar at its own height, in noise."""
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


def metrics(folder):
    """The rows of metrics.csv as dicts of text."""
    with open(folder / "metrics.csv", newline="") as file:
        return list(csv.DictReader(file))


def contents(folder):
    """Every file below a folder and its bytes; the lock, which is empty, apart."""
    paths = [path for path in folder.rglob("*") if path.is_file() and path.name != ".lock"]
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in paths}


def equal(a, b):
    """Whether two nested values are the same, tensors bit for bit."""
    if type(a) is not type(b):
        return False
    if isinstance(a, torch.Tensor):
        return a.dtype == b.dtype and torch.equal(a, b)
    if isinstance(a, dict):
        return a.keys() == b.keys() and all(equal(a[key], b[key]) for key in a)
    if isinstance(a, list | tuple):
        return len(a) == len(b) and all(map(equal, a, b))
    return a == b


def assert_same_run(one, other):
    """Assert that the runs in two folders ended with the same bits, except for their seconds and their folders."""
    assert_same_training(one, other)
    files = [contents(folder) for folder in (one, other)]
    assert files[0].keys() == files[1].keys()
    pictures = [name for name in files[0] if name.endswith(PICTURES)]
    assert [name for name in pictures if files[0][name] != files[1][name]] == []


def assert_same_training(one, other):
    """Assert what `assert_same_run` does, pictures apart."""
    assert_same_saved(one, other)
    rows = [[{**row, "seconds": None} for row in metrics(folder)] for folder in (one, other)]
    assert rows[0] == rows[1]


def assert_same_saved(one, other):
    """Assert that checkpoint.pt and best.pt in two folders hold the same bits, seconds apart."""
    for name in ("checkpoint.pt", "best.pt"):
        saved = [torch.load(folder / name, weights_only=True) for folder in (one, other)]
        assert equal(*map(without_seconds, saved)), f"{name} differs"


def without_seconds(saved):
    """The content of a checkpoint.pt or a best.pt that depends on nothing but the flags that define the run."""
    defining = [field.name for field in FLAGS if field.metadata["defines_run"]]
    same = {**saved, "config": {name: saved["config"][name] for name in defining}}
    if "history" in saved:
        same["history"] = [{**row, "seconds": None} for row in saved["history"]]
    if "row" in saved:
        same["row"] = {**saved["row"], "seconds": None}
    return same
