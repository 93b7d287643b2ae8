"""The compiled step has the eager step's gradient; --compile, input dropout and fast arithmetic do as they say."""

import dataclasses
import json
import os

import pytest
import torch
from helpers import KMNIST, SMALL, assert_same_training
from processes import run_command

import train
from support.data import datasets
from support.machine import arithmetic, compiled
from support.run.config import Config
from support.seeds import generator

LONG = compiled.STEPS_THAT_PAY
VARIANTS = {
    "plain": {},
    "vamp": {"prior": "vamp"},
}
SLOW_VARIANTS = {
    "mmd": {"divergence": "mmd"},
    "input dropout": {"input_dropout": 0.2},
    "bfloat16": {"precision": "bfloat16"},
    "deep": {"hidden_dims": (20, 10), "latent_dim": 5},
    "weighted": {"divergence_weight": 0.5},
    "mixture": {"prior": "mixture"},
}


@pytest.fixture
def no_code_generation(monkeypatch):
    """torch.compile captures the graph, and refuses a break in it, but runs it with PyTorch's own operations."""
    plain = torch.compile
    monkeypatch.setattr(
        torch, "compile", lambda function, mode=None, **options: plain(function, backend="eager", **options)
    )
    yield
    torch._dynamo.reset()


@pytest.fixture
def no_compiler(monkeypatch):
    """torch.compile fails as it does where there is no C++ compiler."""

    class CompilerMissing(torch._dynamo.exc.BackendCompilerFailed):
        def __init__(self):  # the signature of the base class differs between versions of PyTorch
            self.inner_exception = RuntimeError("No working C++ compiler found\nin PATH")
            Exception.__init__(self, "No working C++ compiler found")

    def fail(*inputs):
        raise CompilerMissing

    monkeypatch.setattr(torch, "compile", lambda function, **options: fail)


@pytest.mark.parametrize(
    "variant", [*VARIANTS, *(pytest.param(name, marks=pytest.mark.slow) for name in SLOW_VARIANTS)]
)
def test_compiled_step_has_the_gradient_of_the_eager_step(small_mnist, no_code_generation, variant):
    config = dataclasses.replace(
        Config(hidden_dims=(16,), batch_size=64, device="cpu", precision="float32"),
        **(VARIANTS | SLOW_VARIANTS)[variant],
    )
    dataset = datasets.load("mnist", small_mnist)
    eps = torch.randn(64, config.latent_dim, generator=generator(0))
    outcomes = []
    for choice in ("off", "on"):
        run = train.begin(dataclasses.replace(config, compile=choice), dataset)
        run.model.train()
        torch.manual_seed(0)
        losses = run.step(run, dataset.train_images[:64], eps)
        outcomes.append([losses, *(parameter.grad for parameter in run.model.parameters())])
    for eager, graph in zip(*outcomes, strict=True):
        torch.testing.assert_close(graph, eager, rtol=1e-4, atol=1e-5)


def test_last_and_smaller_batch_of_an_epoch_is_not_compiled(small_mnist, monkeypatch):
    sizes = []
    monkeypatch.setattr(
        torch, "compile", lambda function, **options: lambda *batch: sizes.append(len(batch[1])) or function(*batch)
    )
    run = train.begin(Config(hidden_dims=(16,), batch_size=64, compile="on"), datasets.load("mnist", small_mnist))
    assert len(train.train_epoch(run, 1)) == 5
    assert sizes == [64] * 4


@pytest.mark.parametrize(
    "choice, steps, device, expected",
    [
        ("off", LONG, "cpu", "off"),
        ("on", 1, "cpu", "on"),
        ("auto", LONG - 1, "cpu", "off"),
        ("auto", LONG, "mps", "off"),
    ],
)
def test_choice_that_needs_no_compiler_does_not_try_one(no_compiler, capsys, choice, steps, device, expected):
    assert compiled.find_compile(choice, torch.device(device), steps) == expected
    assert capsys.readouterr().err == ""


def test_auto_compiles_a_long_run(no_code_generation):
    assert compiled.find_compile("auto", torch.device("cpu"), LONG) == "on"


def test_auto_goes_on_without_a_compiler_and_says_so_in_one_line(no_compiler, capsys):
    assert compiled.find_compile("auto", torch.device("cpu"), LONG) == "off"
    (line,) = capsys.readouterr().err.splitlines()
    assert "torch.compile" in line and "No working C++ compiler found" in line


def test_compiling_on_demand_without_a_compiler_is_refused_in_one_line(no_compiler, run_main, tmp_path):
    done = run_main(tmp_path / "results", *SMALL, "--compile", "on")
    assert done.code == 1
    (line,) = done.err.splitlines()
    assert "No working C++ compiler found" in line and "--compile off" in line


def test_choice_is_recorded_and_kept_by_a_continued_run(no_code_generation, run_main, tmp_path, no_drawing):
    assert run_main(tmp_path, *SMALL, "--epochs", 1, "--compile", "on").code == 0
    assert run_main(tmp_path, *SMALL, "--epochs", 2).code == 0
    assert json.loads((tmp_path / "config.json").read_text())["compile"] == "on"
    done = run_main(tmp_path, *SMALL, "--epochs", 3, "--compile", "off")
    assert done.code == 1
    assert "--compile on there, off here" in done.err


@pytest.mark.slow
def test_compiled_run_has_the_same_bits_with_a_cold_and_a_warm_cache_and_when_continued(
    small_mnist, tmp_path, monkeypatch
):
    monkeypatch.setenv("TORCHINDUCTOR_CACHE_DIR", str(tmp_path / "cache"))
    flags = (*KMNIST, *SMALL, "--data_dir", small_mnist, "--compile", "on", "--input_dropout", 0.2)
    for epochs in (3, 3, 1):
        folder = tmp_path / f"{len(list(tmp_path.iterdir()))}"
        done = run_command("--results_dir", folder, *flags, "--epochs", epochs)
        assert done.returncode == 0, done.stderr
    assert run_command("--results_dir", folder, *flags, "--epochs", 3).returncode == 0
    cold, warm, continued = sorted(path for path in tmp_path.iterdir() if path.name.isdigit())
    assert_same_training(cold, warm)
    assert_same_training(cold, continued)


@pytest.mark.slow
def test_compiled_run_says_nothing_of_a_cuda_toolkit_without_a_gpu(small_mnist, tmp_path):
    variables = {**os.environ, "CUDA_HOME": str(tmp_path), "CUDA_VISIBLE_DEVICES": ""}
    flags = (*KMNIST, *SMALL, "--data_dir", small_mnist, "--epochs", 1, "--compile", "on")
    done = run_command("--results_dir", tmp_path / "results", *flags, env=variables)
    assert (done.returncode, done.stderr) == (0, "")


def test_continued_run_draws_the_same_input_dropout(run_main, tmp_path, no_drawing):
    flags = (*SMALL, "--input_dropout", 0.3)
    assert run_main(tmp_path / "whole", *flags, "--epochs", 3).code == 0
    assert run_main(tmp_path / "parts", *flags, "--epochs", 2).code == 0
    torch.rand(7)  # other draws in between change nothing
    assert run_main(tmp_path / "parts", *flags, "--epochs", 3).code == 0
    assert_same_training(tmp_path / "whole", tmp_path / "parts")


def test_input_dropout_is_off_in_evaluation(small_mnist):
    dataset = datasets.load("mnist", small_mnist)
    run = train.begin(Config(hidden_dims=(16,), input_dropout=0.9), dataset)
    run.model.train()
    torch.testing.assert_close(
        train.evaluate(run.model, dataset.test_images).mu, run.model.encode(datasets.pixels(dataset.test_images))[0]
    )


def test_denormals_are_flushed_during_a_run_only():
    denormal = torch.full((64,), 1e-40)
    with arithmetic.fast_arithmetic():
        assert (denormal * 1).sum() == 0
    assert (denormal * 1).sum() > 0


CPUS = {
    "AMD with AVX-512": ({"cpu_name": "AMD EPYC", "avx512_f": True}, "medium"),
    "AMD with AVX2": ({"cpu_name": "AMD EPYC", "avx512_f": False}, "highest"),
    "Intel without AMX": ({"cpu_name": "Intel Xeon", "avx512_f": True}, "highest"),
    "AMX": ({"cpu_name": "AMD", "avx512_f": True, "amx_tile": True}, "highest"),
    "unknown": ({}, "highest"),
}


@pytest.mark.parametrize("cpu", CPUS)
def test_matmul_precision_is_lowered_only_where_products_stay_float32(monkeypatch, cpu):
    capabilities, expected = CPUS[cpu]
    monkeypatch.setattr(arithmetic, "cpu_capabilities", lambda: capabilities)
    with arithmetic.fast_arithmetic():
        assert torch.get_float32_matmul_precision() == expected
    assert torch.get_float32_matmul_precision() == "highest"
