"""A run that is called as a function, as in a notebook, leaves nothing changed behind, also after errors."""

import logging
import os
import signal
import socket
import sys
import threading
import warnings

import matplotlib
import pytest
import torch
from helpers import SMALL

import main
from support.run import report

FLAGS = (*SMALL, "--epochs", "1")
ENDINGS = {
    "done": (FLAGS, 0),
    "done in bfloat16": ((*FLAGS, "--precision", "bfloat16"), 0),
    "loss that is not finite": ((*FLAGS, "--lr", "1e30"), 1),
    "bad flag": (("--epochs", "x"), 2),
    "bug": (FLAGS, ZeroDivisionError),
}


@pytest.fixture
def settings_of_the_user(monkeypatch):
    """Settings that a run must neither obey nor change; reset after the test."""
    monkeypatch.setenv("MPLBACKEND", "module://matplotlib_inline.backend_inline")
    monkeypatch.setenv("OMP_NUM_THREADS", "")
    monkeypatch.delenv("USER", raising=False)
    precision = torch.get_float32_matmul_precision()
    timeout = socket.getdefaulttimeout()
    level = logging.getLogger("matplotlib").level
    torch.set_float32_matmul_precision("high")
    torch.set_default_dtype(torch.float64)
    socket.setdefaulttimeout(7)
    logging.getLogger("matplotlib").setLevel(logging.INFO)
    with warnings.catch_warnings(), matplotlib.rc_context():
        warnings.filterwarnings("ignore", "a filter of the user's")
        yield
    torch.set_float32_matmul_precision(precision)
    torch.set_default_dtype(torch.float32)
    socket.setdefaulttimeout(timeout)
    logging.getLogger("matplotlib").setLevel(level)


def snapshot():
    """What a process has set, by name."""
    loggers = {name: logging.getLogger(name) for name in list(logging.root.manager.loggerDict)}
    backends = {"all": torch.backends, "cuda": torch.backends.cuda.matmul, "mkldnn": torch.backends.mkldnn}
    backends |= {"mkldnn products": getattr(torch.backends.mkldnn, "matmul", None), "cudnn": torch.backends.cudnn}
    return {
        "environment": dict(os.environ),
        "working directory": os.getcwd(),
        "filters of warnings": list(warnings.filters),
        "levels of loggers": {name: logger.level for name, logger in loggers.items()},
        "precision of products": torch.get_float32_matmul_precision(),
        "precisions of backends": {name: getattr(part, "fp32_precision", None) for name, part in backends.items()},
        "denormals are kept": bool((torch.full((2**20,), 1e-40, dtype=torch.float32) * 1 > 0).all()),
        "threads": torch.get_num_threads(),
        "default dtype": torch.get_default_dtype(),
        "default device": torch.get_default_device(),
        "autocast": (torch.is_autocast_enabled("cpu"), torch.is_autocast_cache_enabled()),
        "gradients": torch.is_grad_enabled(),
        "torch.cuda.is_available": torch.cuda.is_available,
        "time-out of sockets": socket.getdefaulttimeout(),
        "signals": {signum: signal.getsignal(signum) for signum in signal.valid_signals()},
        "hooks": (sys.unraisablehook, sys.excepthook, threading.excepthook),
        "streams": (sys.stdout, sys.stderr),
        "settings of matplotlib": dict.copy(matplotlib.rcParams),
    }


@pytest.mark.parametrize("ending", ENDINGS)
def test_run_leaves_global_state_as_it_was(
    settings_of_the_user, small_mnist, tmp_path, no_drawing, monkeypatch, ending
):
    flags, expected = ENDINGS[ending]
    if expected is ZeroDivisionError:
        monkeypatch.setattr(report, "show_end", lambda run: 1 / 0)
    before = snapshot()
    try:
        code = main.main(["--data_dir", str(small_mnist), "--results_dir", str(tmp_path), *map(str, flags)])
    except ZeroDivisionError:
        code = ZeroDivisionError
    after = snapshot()
    assert code == expected
    known = after["levels of loggers"]
    after["levels of loggers"] = {name: known[name] for name in before["levels of loggers"]}
    changed = {name: (before[name], after[name]) for name in before if before[name] != after[name]}
    assert changed == {}
