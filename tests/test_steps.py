"""The three steps of a run, eager, compiled and of several processes, are one step to rounding."""

import subprocess
import sys

import pytest
import torch
from helpers import KMNIST, SMALL
from processes import PATIENCE, ROOT, TORCHRUN, command


@pytest.mark.slow
@pytest.mark.skipif(sys.platform != "linux", reason="needs Linux")
def test_three_steps_give_the_same_losses_and_weights(small_mnist, tmp_path, monkeypatch):
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    flags = (*KMNIST, *SMALL, "--data_dir", small_mnist, "--epochs", 2, "--precision", "float32", "--results_dir")
    python, *main = command(*flags)
    commands = {
        "eager": [python, *main, tmp_path / "eager", "--compile", "off"],
        "compiled": [python, *main, tmp_path / "compiled", "--compile", "on"],
        "processes": [python, *TORCHRUN, *main, tmp_path / "processes", "--compile", "off"],
    }
    saved = {}
    for name, arguments in commands.items():
        done = subprocess.run(arguments, cwd=ROOT, capture_output=True, text=True, timeout=PATIENCE)
        assert done.returncode == 0, done.stderr
        saved[name] = torch.load(tmp_path / name / "checkpoint.pt", weights_only=True)
    assert [saved[name]["config"]["compile"] for name in commands] == ["off", "on", "off"]
    for name in ("compiled", "processes"):
        for key, weight in saved["eager"]["model"].items():
            torch.testing.assert_close(saved[name]["model"][key], weight, rtol=1e-5, atol=1e-5)
        for row, other in zip(saved["eager"]["history"], saved[name]["history"], strict=True):
            assert {**other, "seconds": 0} == pytest.approx({**row, "seconds": 0}, rel=1e-5)
