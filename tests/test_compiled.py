"""The compiled step has the eager step's gradient; --compile, input dropout and fast arithmetic do as they say."""

import dataclasses
import json
import os
from pathlib import Path

import pytest
import torch
from helpers import KMNIST, SMALL, assert_same_training, equal
from processes import children, run_command
from torch._dynamo.exc import TorchDynamoException
from torch.fx.experimental.proxy_tensor import make_fx

import train
from support.data import datasets
from support.errors import UserError
from support.machine import arithmetic, compiled, processes
from support.run.config import Config
from support.seeds import generator

LONG = compiled.STEPS_THAT_PAY
VARIANTS = {
    "plain": {},
    "vamp": {"prior": "vamp"},
    "frozen encoder": {},
}
SLOW_VARIANTS = {
    "mmd": {"divergence": "mmd"},
    "bfloat16": {"precision": "bfloat16"},
    "deep": {"hidden_dims": (20, 10), "latent_dim": 5},
    "weighted": {"divergence_weight": 0.5},
    "mixture": {"prior": "mixture"},
}


@pytest.fixture
def no_code_generation(monkeypatch):
    """A step is traced, which refuses what a program cannot hold, but runs with PyTorch's own operations."""

    def trace(function, example):
        with torch.no_grad():
            return make_fx(function, tracing_mode="fake")(*example)

    monkeypatch.setattr(compiled, "compile_program", trace)


@pytest.fixture
def no_compiler(monkeypatch):
    """Compiling fails as it does where there is no C++ compiler."""

    def fail(*graph, **options):
        raise RuntimeError("No working C++ compiler found\nin PATH")

    monkeypatch.setattr(torch._inductor, "standalone_compile", fail)


def trained(dataset, config, steps=3, frozen=False):
    """The losses of some steps on whole batches, and the weights and Adam's moments after them."""
    run = train.begin(config, dataset)
    if frozen:
        run.model.encoder.requires_grad_(False)
    run.model.train()
    losses = []
    for i in range(steps):
        eps = torch.randn(64, config.latent_dim, generator=generator(i))
        losses.append(run.step(run, dataset.train_images[64 * i : 64 * (i + 1)], eps))
    states = [value for state in run.optimizer.state.values() for value in state.values()]
    return [torch.stack(losses), *run.model.parameters(), *states]


@pytest.mark.parametrize(
    "variant", [*VARIANTS, *(pytest.param(name, marks=pytest.mark.slow) for name in SLOW_VARIANTS)]
)
def test_compiled_step_is_the_eager_step(small_mnist, no_code_generation, variant):
    """Losses, weights and Adam's state, also of weights that are frozen."""
    config = Config(hidden_dims=(16,), batch_size=64, device="cpu", precision="float32", lr=0.01)
    config = dataclasses.replace(config, **(VARIANTS | SLOW_VARIANTS)[variant])
    dataset = datasets.load("mnist", small_mnist)
    eager, program = (
        trained(dataset, dataclasses.replace(config, compile=choice), frozen=variant == "frozen encoder")
        for choice in ("off", "on")
    )
    assert len(eager) == len(program)
    tolerance = {"rtol": 1e-2, "atol": 1e-4} if variant == "bfloat16" else {"rtol": 1e-4, "atol": 1e-5}
    for one, other in zip(eager, program, strict=True):
        torch.testing.assert_close(other, one, **tolerance)


def test_compiled_step_follows_a_scheduler_that_changes_the_betas(small_mnist, no_code_generation):
    dataset = datasets.load("mnist", small_mnist)
    config = Config(hidden_dims=(16,), batch_size=64, device="cpu", precision="float32")

    def weights(choice):
        run = train.begin(dataclasses.replace(config, compile=choice), dataset)
        run.scheduler = torch.optim.lr_scheduler.OneCycleLR(run.optimizer, 0.02, total_steps=10)  # cycles beta1
        train.train_epoch(run, 1)
        return torch.cat([parameter.detach().flatten() for parameter in run.model.parameters()])

    torch.testing.assert_close(weights("on"), weights("off"), rtol=1e-4, atol=1e-5)


def test_objective_of_the_user_is_what_a_compiled_step_minimises(small_mnist, no_code_generation):
    dataset = datasets.load("mnist", small_mnist)
    config = Config(hidden_dims=(16,), batch_size=64, device="cpu", precision="float32")

    def weights(choice, divergence_weight, objective=None):
        config_of_run = dataclasses.replace(config, compile=choice, divergence_weight=divergence_weight)
        run = train.begin(config_of_run, dataset)
        run.objective = objective or run.objective
        train.train_epoch(run, 1)
        return torch.cat([parameter.detach().flatten() for parameter in run.model.parameters()])

    def heavier(model, images, eps, weight):
        return train.objective(model, images, eps, 3 * weight)

    expected = weights("off", 3.0)
    assert not torch.allclose(weights("off", 1.0), expected, rtol=1e-4, atol=1e-5)
    for choice in ("off", "on"):
        torch.testing.assert_close(weights(choice, 1.0, heavier), expected, rtol=1e-4, atol=1e-5)


def test_update_is_that_of_torch_over_a_thousand_steps():
    theta = torch.randn(50, generator=generator(0))
    mine, m, v = theta.clone(), torch.zeros(50), torch.zeros(50)
    parameter = torch.nn.Parameter(theta.clone())
    adam = torch.optim.Adam([parameter], 0.01)
    group = adam.param_groups[0]
    source = generator(1)
    for t in range(1, 1001):
        parameter.grad = torch.randn(50, generator=source) * torch.arange(50) / 50  # the first one is always 0
        corrections = (torch.tensor(0.01 / (1 - 0.9**t)), torch.tensor((1 - 0.999**t) ** -0.5))
        compiled.update(mine, m, v, parameter.grad, corrections, group)
        adam.step()
    torch.testing.assert_close(mine, parameter.detach(), rtol=1e-5, atol=1e-6)
    torch.testing.assert_close(m, adam.state[parameter]["exp_avg"])
    torch.testing.assert_close(v, adam.state[parameter]["exp_avg_sq"])


def test_last_and_smaller_batch_of_an_epoch_is_not_compiled(small_mnist, monkeypatch):
    sizes = []

    def record(function, example):
        sizes.append(len(example[2]))
        return lambda rate, scale, images, *tensors: sizes.append(len(images)) or (torch.zeros(2),)

    monkeypatch.setattr(compiled, "compile_program", record)
    run = train.begin(Config(hidden_dims=(16,), batch_size=64, compile="on"), datasets.load("mnist", small_mnist))
    losses = train.train_epoch(run, 1)
    assert sizes == [64] * 4  # it is compiled for the second of four whole batches
    assert [bool(loss.any()) for loss in losses] == [True, False, False, False, True]


@pytest.mark.parametrize(
    "choice, steps, device, expected",
    [
        ("off", LONG, "cpu", "off"),
        ("on", 1, "cpu", "on"),
        ("auto", LONG, "cpu", "on"),
        ("auto", LONG - 1, "cpu", "off"),
        ("auto", LONG, "mps", "off"),
    ],
)
def test_auto_compiles_a_long_run(choice, steps, device, expected):
    assert compiled.find_compile(choice, torch.device(device), steps) == expected


@pytest.mark.parametrize("name", ["TORCH_COMPILE_DISABLE", "TORCHDYNAMO_DISABLE"])
def test_auto_does_not_compile_where_the_environment_forbids_it(monkeypatch, name):
    monkeypatch.setenv(name, "1")
    assert compiled.find_compile("auto", torch.device("cpu"), LONG) == "off"


def test_auto_goes_on_without_a_compiler_and_says_so_in_one_line(
    no_compiler, run_main, tmp_path, no_drawing, monkeypatch
):
    flags = (*SMALL, "--epochs", 2)
    assert run_main(tmp_path / "eager", *flags, "--compile", "off").code == 0
    monkeypatch.setattr(compiled, "STEPS_THAT_PAY", 1)
    done = run_main(tmp_path / "auto", *flags)
    assert done.code == 0
    assert done.err == "Going on without torch.compile, which does not work here: No working C++ compiler found\n"
    assert json.loads((tmp_path / "auto" / "config.json").read_text())["compile"] == "off"
    eager, auto = (torch.load(tmp_path / name / "checkpoint.pt", weights_only=True) for name in ("eager", "auto"))
    assert equal(eager["model"], auto["model"])
    assert equal(eager["optimizer"], auto["optimizer"])


def test_compiling_on_demand_without_a_compiler_is_refused_in_one_line(no_compiler, run_main, tmp_path):
    done = run_main(tmp_path / "results", *SMALL, "--compile", "on")
    assert done.code == 1
    (line,) = done.err.splitlines()
    assert "No working C++ compiler found" in line and "--compile off" in line
    assert run_main(tmp_path / "results", *SMALL, "--epochs", 1, "--compile", "off").code == 0


def test_continued_run_whose_compiler_is_gone_goes_on_as_it_is_told(run_main, tmp_path, monkeypatch, no_drawing):
    assert run_main(tmp_path, *SMALL, "--epochs", 1, "--compile", "on").code == 0  # too short to be compiled

    def fail(*graph, **options):
        raise RuntimeError("no compiler")

    monkeypatch.setattr(torch._inductor, "standalone_compile", fail)
    done = run_main(tmp_path, *SMALL, "--epochs", 2)
    assert done.err.endswith("; use --compile off --resume\n")
    assert run_main(tmp_path, *SMALL, "--epochs", 2, "--compile", "off", "--resume").code == 0


def test_compiler_that_fails_in_several_processes_is_a_line():
    with pytest.raises(UserError) as refusal, processes.explain_lost_process():
        raise TorchDynamoException("no compiler\n\nSet TORCHDYNAMO_VERBOSE=1")
    assert str(refusal.value) == "torch.compile does not work here: no compiler; use --compile off"


def test_compiler_that_fails_is_quoted(monkeypatch, run_main, tmp_path):
    """As with a space in TMPDIR, which PyTorch does not quote."""

    def fail(*graph, **options):
        raise RuntimeError("C++ compile error\n\nCommand:\ng++ a.cpp\n\nOutput:\ng++: fatal error: no file /tmp/a\nend")

    monkeypatch.setattr(torch._inductor, "standalone_compile", fail)
    done = run_main(tmp_path, *SMALL, "--epochs", 1, "--compile", "on")
    assert done.err == (
        "main.py: error: torch.compile does not work here: g++: fatal error: no file /tmp/a; use --compile off\n"
    )


def test_choice_is_recorded_and_kept_by_a_continued_run(no_code_generation, run_main, tmp_path, no_drawing):
    assert run_main(tmp_path, *SMALL, "--epochs", 1, "--compile", "on").code == 0
    assert run_main(tmp_path, *SMALL, "--epochs", 2).code == 0
    assert json.loads((tmp_path / "config.json").read_text())["compile"] == "on"


@pytest.mark.parametrize("options", [{"weight_decay": 0.1}, {"amsgrad": True}, None], ids=str)
def test_run_with_another_optimizer_is_eager_and_says_so(small_mnist, no_code_generation, capsys, options):
    """AdamW has Adam's state: the compiled step would train on with Adam."""
    dataset = datasets.load("mnist", small_mnist)
    weights = []
    for choice in ("off", "on"):
        run = train.begin(Config(hidden_dims=(16,), batch_size=64, precision="float32", compile=choice), dataset)
        kind = torch.optim.AdamW if options is None else torch.optim.Adam
        run.optimizer = kind(run.model.parameters(), lr=1e-3, **(options or {}))
        run.scheduler = torch.optim.lr_scheduler.ConstantLR(run.optimizer, factor=1.0)
        train.train_epoch(run, 1)
        train.train_epoch(run, 2)
        weights.append(torch.nn.utils.parameters_to_vector(run.model.parameters()))
    assert torch.equal(*weights)
    (line,) = capsys.readouterr().err.splitlines()
    assert "the compiled step is that of torch.optim.Adam" in line


@pytest.mark.slow
def test_many_networks_are_compiled_in_one_process(small_mnist, no_code_generation):
    dataset = datasets.load("mnist", small_mnist)
    for width in range(8, 20):
        config = Config(hidden_dims=(width,), batch_size=64, precision="float32", compile="on")
        assert trained(dataset, config)[0].isfinite().all()


@pytest.mark.slow
def test_compiled_run_starts_no_process_that_lasts_and_agrees_with_an_eager_one(small_mnist, monkeypatch, tmp_path):
    monkeypatch.setenv("TORCHINDUCTOR_CACHE_DIR", str(tmp_path))
    dataset = datasets.load("mnist", small_mnist)
    before = dict(os.environ)
    runs = []
    for choice in ("off", "on"):
        config = Config(hidden_dims=(16,), batch_size=64, precision="float32", compile=choice, epochs=3)
        runs.append(train.begin(config, dataset))
        for _ in train.epochs(runs[-1]):
            pass
    assert runs[1].config.compile == "on"
    assert {name for name in os.environ.keys() - before.keys() if not name.startswith("_TORCHINDUCTOR")} == set()
    commands = [Path(f"/proc/{child}/cmdline").read_text() for child in children(os.getpid())]
    assert [command for command in commands if "compile_worker" in command] == []
    for one, other in zip(*(run.model.parameters() for run in runs), strict=True):
        torch.testing.assert_close(other, one, rtol=1e-4, atol=1e-4)


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


@pytest.fixture
def two_threads():
    before = torch.get_num_threads()
    torch.set_num_threads(2)
    yield
    torch.set_num_threads(before)


def test_denormals_are_flushed_in_every_thread_during_a_run_only(two_threads):
    denormals = torch.full((1_000_000,), 1e-40)  # enough for both threads, which start here
    for _ in range(2):
        assert (denormals * 1 > 0).all()
        with arithmetic.fast_arithmetic():
            assert (denormals * 1 == 0).all()


@pytest.fixture
def precision_of_products():
    """Set PyTorch's precision of float32 products, for one test."""
    before = torch.get_float32_matmul_precision()
    yield torch.set_float32_matmul_precision
    torch.set_float32_matmul_precision(before)


@pytest.mark.parametrize("precision", ["medium", "high", "highest"])
def test_precision_of_products_is_the_callers_again(precision_of_products, precision):
    def state():
        backends = (torch.backends, torch.backends.mkldnn, getattr(torch.backends.mkldnn, "matmul", None))
        return [torch.get_float32_matmul_precision(), *(getattr(b, "fp32_precision", None) for b in backends)]

    precision_of_products(precision)
    before = state()
    with arithmetic.fast_arithmetic():
        pass
    assert state() == before


def test_autocast_of_the_caller_changes_no_bit(small_mnist):
    """It would keep the first step's bfloat16 weights for as long as it lasts."""
    config = Config(hidden_dims=(16,), batch_size=64, precision="bfloat16")
    dataset = datasets.load("mnist", small_mnist)
    expected = trained(dataset, config)
    with torch.autocast("cpu", enabled=False):
        inside = trained(dataset, config)
    assert all(map(torch.equal, expected, inside))


AVX512 = {"avx512_f": True, "avx512_bf16": True}
CPUS = {  # what they can do, the precision of float32 products, and what --precision auto is
    "AMD with AVX-512": ({"is_intel": False, **AVX512}, "medium", "bfloat16"),
    "AMD with AVX-512 without bfloat16": ({"is_intel": False, "avx512_f": True}, "medium", "float32"),
    "AMD with AVX2": ({"is_intel": False, "avx512_f": False}, "highest", "float32"),
    "Intel without AMX": ({"is_intel": True, **AVX512}, "highest", "float32"),
    "Intel with AMX": ({"is_intel": True, **AVX512, "amx_tile": True, "amx_bf16": True}, "highest", "bfloat16"),
    "AMX": ({"is_intel": False, "avx512_f": True, "amx_tile": True}, "highest", "float32"),
    "unknown": ({"is_intel": False}, "highest", "float32"),
}


@pytest.mark.parametrize("cpu", CPUS)
def test_matmul_precision_is_lowered_only_where_products_stay_float32(monkeypatch, precision_of_products, cpu):
    capabilities, expected, _ = CPUS[cpu]
    monkeypatch.setattr(arithmetic, "cpu_capabilities", lambda: capabilities)
    precision_of_products("high")
    with arithmetic.fast_arithmetic():
        assert torch.get_float32_matmul_precision() == expected


@pytest.mark.parametrize("cpu", CPUS)
def test_auto_is_bfloat16_where_the_cpu_is_faster_in_it(monkeypatch, cpu):
    capabilities, _, expected = CPUS[cpu]
    monkeypatch.setattr(arithmetic, "cpu_capabilities", lambda: capabilities)
    assert arithmetic.find_precision("auto", torch.device("cpu")) == expected
    assert arithmetic.find_precision("auto", torch.device("mps")) == "float32"
    for named in ("float32", "bfloat16"):
        assert arithmetic.find_precision(named, torch.device("cpu")) == named


@pytest.mark.parametrize(("has_bfloat16", "expected"), [(True, "bfloat16"), (False, "float32")])
def test_auto_is_bfloat16_on_gpus_that_do_not_emulate_it(monkeypatch, has_bfloat16, expected):
    """PyTorch calls it supported on every GPU, as it can be emulated."""
    monkeypatch.setattr(
        torch.cuda, "is_bf16_supported", lambda including_emulation=True: including_emulation or has_bfloat16
    )
    assert arithmetic.find_precision("auto", torch.device("cuda")) == expected
