"""Fixtures that every test may use. What is imported by name stands in helpers.py."""

import os
import shutil
import signal
from pathlib import Path
from typing import NamedTuple

import pytest
import torch
from helpers import SMALL, Finished, call_main, write_mnist

import explorer
import utils
from support.data import datasets
from support.latent import likelihood
from support.run.signals import STOPPING

torch.set_num_threads(1)  # the tests' networks are small, and threads that share a busy core wait for each other
# A background job of a shell ignores Ctrl-C, and so would everything that is started here. What nohup ignores stays so.
for signum in STOPPING:
    if signum.name != "SIGHUP":
        signal.signal(signum, signal.default_int_handler if signum == signal.SIGINT else signal.SIG_DFL)


class FinishedRun(NamedTuple):
    """A run that was trained to its end: the flags of its command, its folder, and what it printed."""

    flags: tuple
    folder: Path
    done: Finished


@pytest.fixture(autouse=True)
def no_waiting_for_the_disk(monkeypatch):
    """Let runs in this process skip fsync: it takes half of their time, and protects against power cuts only."""
    monkeypatch.setattr(os, "fsync", lambda descriptor: None)


def estimate_roughly(patch):
    """Let log p(x) of small runs be rough, and their page begin with any image: it is a third of all tests' time."""
    for name, value in {"TILE_CELLS": 4, "HALVINGS": 1, "MOST_SAMPLES": 20}.items():
        patch.setattr(likelihood, name, value)
    patch.setattr(explorer, "first", lambda model, images: 0)


@pytest.fixture(autouse=True)
def rough_log_p(request, monkeypatch):
    """Runs estimate roughly, except in tests that are marked exact_log_p."""
    if not request.node.get_closest_marker("exact_log_p"):
        estimate_roughly(monkeypatch)


@pytest.fixture(scope="session", autouse=True)
def stand_ins_pass_for_published_files():
    """Runs in this process do not warn that the stand-in for MNIST is not MNIST."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(datasets, "files_with_other_contents", lambda name, arrays: [])
        yield


@pytest.fixture(scope="session")
def small_mnist(tmp_path_factory):
    """A --data_dir with a stand-in for MNIST, and for KMNIST: 300 training and 60 test images. Read only."""
    folder = write_mnist(tmp_path_factory.mktemp("data"))
    shutil.copytree(folder / "MNIST", folder / "KMNIST")
    return folder


@pytest.fixture(scope="session")
def finished_run(small_mnist, tmp_path_factory):
    """A finished run of three epochs on the small MNIST. Read only; `copied_run` is a copy to change."""
    folder = tmp_path_factory.mktemp("run") / "results"
    flags = (*SMALL, "--epochs", 3)
    with pytest.MonkeyPatch.context() as patch:
        estimate_roughly(patch)
        done = call_main("--data_dir", small_mnist, "--results_dir", folder, *flags)
    assert done.code == 0, done.err
    return FinishedRun(flags, folder, done)


@pytest.fixture
def copied_run(finished_run, tmp_path):
    """A copy of the finished run, which the test may change."""
    folder = tmp_path / "results"
    shutil.copytree(finished_run.folder, folder)
    return finished_run._replace(folder=folder)


@pytest.fixture
def run_main(small_mnist):
    """Run main.py in this process on the small MNIST: run_main(folder, *flags) -> Finished(code, out, err)."""

    def run(folder, *flags):
        return call_main("--data_dir", small_mnist, "--results_dir", folder, *flags)

    return run


@pytest.fixture
def no_drawing(monkeypatch):
    """Every picture of a run has the same content: drawing is most of a small run's time."""
    for name in ("image_grid", "reconstruction", "loss_curves", "latent_frame", "gif"):
        monkeypatch.setattr(utils, name, lambda *arguments: b"a picture")
