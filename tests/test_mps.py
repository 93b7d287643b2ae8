"""The whole command on a device like Apple's mps, which has no float64 and lacks some operations."""

import itertools

import pytest
import torch
from helpers import SMALL, metrics
from mps import Mps, operations_without_kernel

from support.machine import devices

COMBINATIONS = list(itertools.product(("normal", "mixture", "vamp"), ("kl",), (1, 2, 3, 5)))
COMBINATIONS += [("normal", "mmd", dims) for dims in (1, 2, 4)]
FAST = [("normal", "kl", 2)]
COMBINATIONS = [pytest.param(*each, marks=[pytest.mark.slow] * (each not in FAST)) for each in COMBINATIONS]


@pytest.fixture
def mps(monkeypatch):
    """A machine whose only accelerator is mps."""
    monkeypatch.setattr(devices, "present_device", lambda kind: torch.device(kind) if kind == "mps" else None)
    with Mps():
        yield


def test_device_of_this_test_refuses_what_mps_refuses(mps):
    x = torch.ones(3, 3, device="mps")
    assert {"special_ndtri", "_linalg_eigh"} & operations_without_kernel()
    for refused in (x.double, x.numpy, lambda: x @ torch.ones(3, 3), lambda: torch.special.ndtri(x)):
        with pytest.raises((TypeError, RuntimeError)):
            refused()
    assert (x @ x).cpu().double().sum() == 27


@pytest.mark.parametrize(("prior", "divergence", "dims"), COMBINATIONS)
def test_run_on_mps_is_complete(mps, run_main, no_drawing, tmp_path, prior, divergence, dims):
    flags = ("--prior", prior, "--divergence", divergence, "--latent_dim", dims, *SMALL, "--hidden_dims", 4)
    done = run_main(tmp_path, *flags, "--epochs", 1)
    assert (done.code, done.err) == (0, "")
    assert "====> Best epoch: 1 of 1" in done.out
    assert (tmp_path / "explorer.html").exists() == (dims == 2)
    done = run_main(tmp_path, *flags, "--epochs", 2)
    assert (done.code, done.err) == (0, "")
    assert len(metrics(tmp_path)) == 2
