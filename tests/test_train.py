"""Training: every image once per epoch, the same bits for the same seed, and no influence of the evaluation."""

import dataclasses
import types

import pytest
import torch

import train
from model import VAE
from support import seeds
from support.data import datasets
from support.errors import UserError
from support.machine import compiled, devices, processes
from support.run.config import Config
from support.seeds import generator, seed_dropout

CONFIG = Config(epochs=2, batch_size=64, hidden_dims=(32,), precision="float32")


@pytest.fixture(scope="module")
def dataset(small_mnist):
    return datasets.load("mnist", small_mnist)


def trained(dataset, **flags):
    """A run after its last epoch."""
    run = train.begin(dataclasses.replace(CONFIG, **flags), dataset)
    for _ in train.epochs(run):
        pass
    return run


def weights(run):
    """Every parameter in one vector."""
    return torch.nn.utils.parameters_to_vector(run.model.parameters()).detach()


def recorded_epoch(dataset, epoch=1, **flags):
    """The images, (N, 784), and the noise, (N, latent_dim), that an epoch gives to its steps, batch by batch."""
    batches = []
    run = train.begin(dataclasses.replace(CONFIG, **flags), dataset)
    run.step = lambda run, images, eps: batches.append((images, eps)) or torch.zeros(2)
    losses = train.train_epoch(run, epoch)
    assert losses.shape == (len(batches), 2)
    return batches


def test_epoch_visits_every_image_once(dataset):
    numbered = dataset._replace(train_images=torch.arange(300).view(300, 1).expand(300, 784).contiguous())
    batches = recorded_epoch(numbered, batch_size=128)
    assert [len(images) for images, _ in batches] == [128, 128, 44]
    assert [eps.shape for _, eps in batches] == [(128, 2), (128, 2), (44, 2)]
    assert torch.cat([images[:, 0] for images, _ in batches]).sort().values.tolist() == list(range(300))


def test_order_and_noise_follow_from_seed_and_epoch(dataset):
    images, eps = map(torch.cat, zip(*recorded_epoch(dataset), strict=True))
    same_images, same_eps = map(torch.cat, zip(*recorded_epoch(dataset), strict=True))
    assert torch.equal(images, same_images)
    assert torch.equal(eps, same_eps)
    for flags in ({"epoch": 2}, {"seed": 2}):
        other_images, other_eps = map(torch.cat, zip(*recorded_epoch(dataset, **flags), strict=True))
        assert not torch.equal(images, other_images)
        assert not torch.equal(eps, other_eps)


def test_step_reports_sums_of_its_batch_before_the_update(dataset):
    run = train.begin(CONFIG, dataset)
    images = dataset.train_images[5:25]
    eps = torch.randn(20, 2, generator=generator(0))
    bce, kld, *_ = run.model(datasets.pixels(images), eps)
    expected = torch.stack([bce.sum(), kld.sum()]).detach()
    torch.testing.assert_close(run.step(run, images, eps), expected)


def test_step_is_adam_on_mean_of_weighted_terms(dataset):
    """With its first step, Adam moves each parameter by the learning rate against the sign of the gradient."""
    run = train.begin(dataclasses.replace(CONFIG, divergence_weight=3.0, lr=0.01), dataset)
    before = weights(run)
    eps = torch.randn(20, 2, generator=generator(0))
    bce, kld, *_ = run.model(datasets.pixels(dataset.train_images[:20]), eps)
    gradients = torch.autograd.grad((bce + 3 * kld).mean(), list(run.model.parameters()))
    gradient = torch.nn.utils.parameters_to_vector(gradients)
    run.step(run, dataset.train_images[:20], eps)
    clear = gradient.abs() > 1e-4  # far above Adam's epsilon
    torch.testing.assert_close((weights(run) - before)[clear], -0.01 * gradient.sign()[clear], rtol=1e-3, atol=1e-6)


@pytest.mark.parametrize("part", ["encoder", "optimizer"])
def test_run_with_a_part_replaced_and_not_the_others_is_refused(dataset, part):
    run = train.begin(CONFIG, dataset)
    if part == "encoder":
        run.model.encoder = torch.nn.Linear(784, 4)
    else:
        run.optimizer = torch.optim.SGD(run.model.parameters())
    with pytest.raises(ValueError, match="optimizer"):
        next(train.epochs(run))


def test_epochs_yield_rows_that_add_up(dataset):
    run = train.begin(CONFIG, dataset)
    seen = []
    for epoch, (row, test) in enumerate(train.epochs(run, lambda *progress: seen.append(progress[:2])), 1):
        assert row is run.history[-1]
        assert row["epoch"] == epoch
        assert row["test_bce"] == test.bce
        assert row["train_total"] == pytest.approx(row["train_bce"] + row["train_divergence"])
        assert test.z.shape == test.mu.shape == (60, 2)
    assert seen == [(epoch, batch) for epoch in (1, 2) for batch in range(5)]
    assert run.history[1]["test_total"] < run.history[0]["test_total"]


def test_training_losses_are_means_over_images(dataset):
    run = train.begin(dataclasses.replace(CONFIG, divergence_weight=10.0), dataset)
    run.step = lambda run, images, eps: torch.tensor([2.0, 1.0]) * len(images)
    row = next(train.epochs(run)).row
    assert (row["train_bce"], row["train_divergence"], row["train_total"]) == (2, 1, 12)


def test_seconds_of_an_epoch_are_those_of_its_training_alone(dataset, monkeypatch):
    """Each of five batches takes a second here, an evaluation ten, and what is done with its result a hundred."""
    now = [0]

    def passing(seconds, function):
        def work(*arguments):
            now[0] += seconds
            return function(*arguments)

        return work

    monkeypatch.setattr(train, "time", types.SimpleNamespace(perf_counter=lambda: now[0]))
    monkeypatch.setattr(train, "evaluate", passing(10, train.evaluate))
    run = train.begin(CONFIG, dataset)
    run.step = passing(1, run.step)
    for _ in train.epochs(run):
        now[0] += 100
    assert [row["seconds"] for row in run.history] == [5, 5]


def test_same_seed_gives_same_bits(dataset):
    assert torch.equal(weights(trained(dataset)), weights(trained(dataset)))
    assert not torch.equal(weights(trained(dataset)), weights(trained(dataset, seed=2)))


def test_first_weights_follow_from_seed(dataset):
    first, same, other = (train.begin(dataclasses.replace(CONFIG, seed=seed), dataset) for seed in (1, 1, 2))
    assert torch.equal(weights(first), weights(same))
    assert not torch.equal(weights(first), weights(other))


def test_continued_run_first_yields_its_last_epoch(dataset):
    run = trained(dataset)
    after = weights(run)
    (again,) = train.epochs(run)
    assert again.row is run.history[-1]
    assert again.test.bce == again.row["test_bce"]
    assert torch.equal(weights(run), after)


def test_evaluation_leaves_training_alone(dataset, monkeypatch):
    expected = weights(trained(dataset))
    evaluate = train.evaluate

    def evaluate_twice(model, images):
        first = evaluate(model, images)
        second = evaluate(model, images)
        assert first[:2] == second[:2]
        assert torch.equal(first.z, second.z)
        return second

    monkeypatch.setattr(train, "evaluate", evaluate_twice)
    assert torch.equal(weights(trained(dataset)), expected)
    model = VAE()
    before = torch.get_rng_state()
    evaluate_twice(model, dataset.test_images)
    assert torch.equal(torch.get_rng_state(), before)


def test_evaluation_does_not_depend_on_its_chunks(dataset, monkeypatch):
    torch.manual_seed(0)
    model = VAE()
    whole = train.evaluate(model, dataset.test_images)
    monkeypatch.setattr(train, "EVALUATION_CHUNK", 7)
    parts = train.evaluate(model, dataset.test_images)
    assert parts[:2] == pytest.approx(whole[:2], rel=1e-6)
    torch.testing.assert_close(parts.z, whole.z)


def test_bfloat16_training_is_close_to_float32(dataset):
    runs = [trained(dataset, precision=precision) for precision in ("float32", "bfloat16")]
    float32, bfloat16 = (run.history[-1] for run in runs)
    assert float32["train_bce"] != bfloat16["train_bce"]
    for name in ("train_bce", "test_bce", "test_total"):
        assert bfloat16[name] == pytest.approx(float32[name], rel=0.01)
    assert all(parameter.dtype == torch.float32 for parameter in runs[1].model.parameters())


def learning_rates(dataset, **flags):
    """The learning rate of each step of a run."""
    run = train.begin(dataclasses.replace(CONFIG, **flags), dataset)
    rates = []
    run.optimizer.register_step_pre_hook(lambda optimizer, *_: rates.append(optimizer.param_groups[0]["lr"]))
    for _ in train.epochs(run):
        pass
    return rates


def test_constant_schedule_keeps_learning_rate(dataset):
    assert learning_rates(dataset, lr=0.01) == [0.01] * 10


def test_onecycle_schedule_rises_in_first_tenth_and_falls(dataset):
    rates = learning_rates(dataset, lr=0.01, schedule="onecycle", epochs=8)
    assert len(rates) == 40
    peak = rates.index(max(rates))
    assert peak == 3  # 40 steps: the first tenth is steps 0 to 3
    assert rates[peak] == pytest.approx(0.01)
    assert rates[: peak + 1] == sorted(rates[: peak + 1])
    assert rates[peak:] == sorted(rates[peak:], reverse=True)
    falls = torch.tensor(rates[peak:]).diff()
    torch.testing.assert_close(falls, falls.mean().expand_as(falls), rtol=1e-3, atol=1e-9)  # along a line
    assert 0 < rates[-1] < 1e-4


@pytest.mark.parametrize("steps", [1, 2, 3])
def test_onecycle_schedule_of_few_steps_is_positive(dataset, steps):
    flags = {"schedule": "onecycle", "batch_size": -(-300 // steps), "epochs": 1, "lr": 0.01}
    rates = learning_rates(dataset, **flags)
    assert len(rates) == steps
    assert all(0 < rate <= 0.01 for rate in rates)


def test_loss_that_is_not_finite_is_refused_with_epoch_and_batch(dataset):
    run = train.begin(CONFIG, dataset)
    steps_done = []

    def step(run, images, eps):
        steps_done.append(len(images))
        eps[5] = torch.nan if len(steps_done) == 5 + 4 else eps[5]
        return train.step(run, images, eps)

    run.step = step
    with pytest.raises(UserError, match=r"not finite in epoch 2, batch 4: name a lower --lr"):
        for _ in train.epochs(run):
            pass
    assert len(run.history) == 1


def test_test_loss_that_is_not_finite_is_refused(dataset, monkeypatch):
    nothing = torch.zeros(60, 2)
    bad = train.Evaluation(float("inf"), 1.0, nothing, nothing)
    monkeypatch.setattr(train, "evaluate", lambda model, images: bad)
    run = train.begin(CONFIG, dataset)
    with pytest.raises(UserError, match=r"not finite in epoch 1, on the test set"):
        next(train.epochs(run))
    assert run.history == []


@pytest.fixture
def process(monkeypatch):
    """Make this one of several processes: process(rank, size)."""

    def become(rank, size):
        monkeypatch.setattr(processes, "rank", lambda: rank)
        monkeypatch.setattr(seeds, "rank", lambda: rank)
        monkeypatch.setattr(processes, "size", lambda: size)

    return become


@pytest.mark.parametrize("size", [2, 3])
@pytest.mark.parametrize("n", [64, 7, 1], ids="{} images".format)
def test_processes_share_losses_and_gradient_of_a_batch(dataset, monkeypatch, process, size, n):
    """A batch of a single image leaves the other processes without any. The mean of the gradients is all-reduced."""
    monkeypatch.setattr(processes, "DistributedDataParallel", lambda model, **options: model)
    monkeypatch.setattr(processes.dist, "all_reduce", lambda losses: None)
    images = dataset.train_images[:n]
    eps = torch.randn(n, 2, generator=generator(0))
    model = train.begin(CONFIG, dataset).model
    bce, kld, *_ = model(datasets.pixels(images), eps)
    gradients = torch.autograd.grad((bce + kld).mean(), list(model.parameters()))
    losses = torch.zeros(2)
    total = 0
    for rank in range(size):
        process(rank, size)
        run = train.begin(CONFIG, dataset)
        losses += run.step(run, images, eps)
        total = total + torch.cat([parameter.grad.flatten() for parameter in run.model.parameters()])
    torch.testing.assert_close(losses, torch.stack([bce.sum(), kld.sum()]).detach())
    expected = torch.cat([gradient.flatten() for gradient in gradients])
    torch.testing.assert_close(total / size, expected, rtol=1e-4, atol=1e-5)


def test_several_processes_compile_only_on_demand(dataset, process):
    for size, auto in ((1, "on"), (2, "off")):
        process(0, size)
        for choice, expected in (("auto", auto), ("on", "on")):
            config = dataclasses.replace(CONFIG, compile=choice, epochs=compiled.STEPS_THAT_PAY)
            assert train.begin(config, dataset).config.compile == expected


def test_single_process_needs_no_process_group(monkeypatch):
    for name in ("RANK", "WORLD_SIZE", "LOCAL_RANK"):
        monkeypatch.delenv(name, raising=False)
    with processes.joined(torch.device("cpu")):
        assert (processes.rank(), processes.size()) == (0, 1)
        assert processes.broadcast("value") == "value"
    assert not torch.distributed.is_initialized()


@pytest.mark.parametrize(
    ("error", "words"),
    [
        (
            RuntimeError("DefaultCPUAllocator: not enough memory"),
            r"lower --batch_size .* smaller network \(--hidden_dims",
        ),
        (MemoryError(), r"lower --batch_size .* smaller network \(--hidden_dims"),
    ],
    ids=["memory of torch", "memory of Python"],
)
def test_missing_memory_is_explained(error, words):
    with pytest.raises(UserError, match=words), devices.explain_missing_memory():
        raise error


def test_dropout_has_another_seed_than_the_noise_of_its_epoch(process):
    """And another one on each process: they drop other pixels."""
    found = [generator(1, 1).initial_seed()]
    for rank in range(2):
        process(rank, 2)
        seed_dropout(1, 1)
        found.append(torch.initial_seed())
    assert len(set(found)) == 3


def test_other_torch_errors_are_not_hidden():
    with (
        pytest.raises(RuntimeError, match="shapes"),
        devices.explain_missing_memory(),
        processes.explain_lost_process(),
    ):
        raise RuntimeError("shapes do not fit")


def test_network_too_large_for_memory_is_refused_in_one_line(run_main, tmp_path, monkeypatch):
    def refuse(config):
        raise RuntimeError("[enforce fail at alloc_cpu.cpp] DefaultCPUAllocator: can't allocate memory: 4e12 bytes")

    monkeypatch.setattr(train, "build_model", refuse)
    done = run_main(tmp_path / "results", "--hidden_dims", 10**9)
    assert done.code == 1
    assert "not enough memory: lower --batch_size" in done.err
    assert done.err.count("\n") == 1
