import contextlib
import os

import pytest
import torch
import torch.distributed as dist
import torch.multiprocessing as mp
from conftest import free_port

import data
import machine
import optim
import train
from model import VAE, Mixture

needs_cuda = pytest.mark.skipif(not torch.cuda.is_available(), reason="needs CUDA")


@pytest.fixture(scope="module")
def dataset(small_mnist):
    return data.load("mnist", small_mnist)


def fitted(dataset, epochs=2, seed=1, between=lambda model: None, wrap=lambda step: step):
    """The weights after a few epochs, and the last epoch's losses."""
    torch.manual_seed(seed)
    model = VAE(2, (32,))
    step = wrap(train.make_step(model, optim.Adam(model.parameters(), 1e-3), dataset.train_images))
    for epoch in range(epochs):
        losses = train.train_epoch(step, *train.epoch_noise(seed, epoch, 300, 2), batch_size=64)
        between(model)
    return torch.cat([p.detach().flatten() for p in model.parameters()]), losses


def test_one_batch_lowers_its_own_loss(dataset):
    torch.manual_seed(0)
    model = VAE()
    step = train.make_step(model, optim.Adam(model.parameters(), 1e-3), dataset.train_images)
    index, eps = torch.arange(64), torch.randn(64, 2)
    first = step(index, eps, 64).sum()
    for _ in range(20):
        last = step(index, eps, 64).sum()
    assert last < 0.7 * first, (first, last)


def test_a_step_reports_the_sums_of_the_batch_it_was_given(dataset):
    torch.manual_seed(0)
    model, index, eps = VAE(), torch.arange(5, 25), torch.randn(20, 2)
    bce, divergence, *_ = model(data.pixels(dataset.train_images[5:25]), eps)
    expected = torch.stack([bce.sum(), divergence.sum()])
    step = train.make_step(model, optim.Adam(model.parameters(), 1e-3), dataset.train_images)
    torch.testing.assert_close(step(index, eps, 20), expected.detach())


def test_every_image_is_seen_once_an_epoch_the_last_smaller_batch_included():
    batches = []

    def step(index, eps, n):
        batches.append(index)
        return torch.zeros(2)

    train.train_epoch(step, *train.epoch_noise(1, 1, 300, 2), batch_size=128)
    assert [len(batch) for batch in batches] == [128, 128, 44]
    assert torch.cat(batches).sort().values.tolist() == list(range(300))


def test_order_and_noise_follow_from_seed_and_epoch():
    order, eps = train.epoch_noise(1, 1, 300, 2)
    again = train.epoch_noise(1, 1, 300, 2)
    assert torch.equal(order, again[0]) and torch.equal(eps, again[1])
    for other in (train.epoch_noise(1, 2, 300, 2), train.epoch_noise(2, 1, 300, 2)):
        assert not torch.equal(order, other[0]) and not torch.equal(eps, other[1])


def test_same_seed_same_bits(dataset):
    assert torch.equal(fitted(dataset)[0], fitted(dataset)[0])
    assert not torch.equal(fitted(dataset)[0], fitted(dataset, seed=2)[0])


def test_evaluation_leaves_training_alone_and_repeats_itself(dataset):
    def evaluate(model):
        first, second = (train.evaluate(model, dataset.test_images) for _ in range(2))
        assert first[:2] == second[:2] and torch.equal(first[2], second[2])

    weights = fitted(dataset, between=evaluate)[0]
    assert torch.equal(weights, fitted(dataset)[0])
    model = VAE()
    before = torch.get_rng_state()
    evaluate(model)
    assert torch.equal(before, torch.get_rng_state())


def test_evaluation_is_the_mean_over_images_in_whatever_chunks(dataset, monkeypatch):
    torch.manual_seed(0)
    model = VAE()
    whole = train.evaluate(model, dataset.test_images)
    monkeypatch.setattr(train, "EVALUATION_CHUNK", 7)
    parts = train.evaluate(model, dataset.test_images)
    assert parts[:2] == pytest.approx(whole[:2], rel=1e-6)
    torch.testing.assert_close(parts[2], whole[2])


def test_bfloat16_trains_to_nearly_the_same_losses(dataset):
    losses = []
    for bfloat16 in (False, True):
        torch.manual_seed(0)
        model = VAE()
        step = train.make_step(model, optim.Adam(model.parameters(), 1e-3), dataset.train_images, bfloat16)
        losses.append(train.train_epoch(step, *train.epoch_noise(1, 1, 300, 2), batch_size=64).sum(0))
        assert next(model.parameters()).dtype == torch.float32
    torch.testing.assert_close(losses[0], losses[1], rtol=0.01, atol=0)


def test_replayed_batches_train_as_plain_ones(dataset):
    """A CUDA graph needs CUDA; what surrounds it, the static buffers and the uneven batch, is the same on a CPU."""
    captures = []

    def capture(function):
        captures.append(function)
        return function

    def wrap(step):
        return machine.replayed(step, 64, capture, contextlib.nullcontext)

    plain, replayed = fitted(dataset), fitted(dataset, wrap=wrap)
    assert len(captures) == 1, "full batches are captured once"
    assert torch.equal(plain[0], replayed[0]) and torch.equal(plain[1], replayed[1])


@needs_cuda
def test_a_cuda_graph_trains_as_the_plain_step(dataset):
    dataset = dataset.to("cuda")
    results = []
    for wrap in (lambda step: step, lambda step: machine.replayed(step, 64)):
        torch.manual_seed(1)
        model = VAE(2, (32,)).cuda()
        step = wrap(train.make_step(model, optim.Adam(model.parameters(), 1e-3), dataset.train_images))
        for epoch in range(3):
            order, eps = (t.cuda() for t in train.epoch_noise(1, epoch, 300, 2))
            losses = train.train_epoch(step, order, eps, batch_size=64)
        results.append(losses)
    torch.testing.assert_close(*results, rtol=1e-4, atol=0)


@pytest.mark.parametrize("on_gpu", [False, pytest.param(True, marks=needs_cuda)])
def test_adam_is_pytorchs(on_gpu):
    device = "cuda" if on_gpu else "cpu"
    torch.manual_seed(0)
    start = [torch.randn(3, 4, device=device), torch.randn(5, device=device)]
    ours, theirs = ([torch.nn.Parameter(p.clone()) for p in start] for _ in range(2))
    mine = optim.Adam(ours, 0.1, betas=(0.9, 0.99))
    reference = torch.optim.Adam(theirs, lr=0.1, betas=(0.9, 0.99), fused=True)
    for lr in (0.1, 0.2, 0.05):
        mine.lr = reference.param_groups[0]["lr"] = lr
        for p, q in zip(ours, theirs, strict=True):
            p.grad = torch.randn_like(p)
            q.grad = p.grad.clone()
        mine.step()
        reference.step()
        torch.testing.assert_close(ours, theirs, rtol=1e-6 if on_gpu else 0, atol=0)


@pytest.mark.parametrize("steps", [3, 10, 469])
def test_one_cycle_is_pytorchs(steps):
    optimizer = torch.optim.SGD([torch.nn.Parameter(torch.ones(1))], lr=0.1)
    scheduler = torch.optim.lr_scheduler.OneCycleLR(
        optimizer, 0.1, steps, pct_start=max(0.1, 2 / steps), anneal_strategy="linear", cycle_momentum=False
    )
    for step in range(steps):
        assert optim.one_cycle(0.1, step, steps) == pytest.approx(optimizer.param_groups[0]["lr"])
        optimizer.step()
        if step < steps - 1:
            scheduler.step()


@pytest.mark.parametrize("steps", [1, 2])
def test_one_cycle_of_a_step_or_two_is_finite_and_positive(steps):
    assert all(0 < optim.one_cycle(0.1, step, steps) <= 0.1 for step in range(steps))


@pytest.mark.parametrize("latent_dim", [1, 2, 5])
def test_manifold_covers_the_prior(dataset, latent_dim):
    z = train.manifold(VAE(latent_dim, (8,)), dataset.test_images)
    assert z.shape == (400, latent_dim)
    assert abs(z.mean()) < 1e-3 and 1.5 < z.norm(dim=1).max() < 3.5
    if latent_dim == 2:
        assert z[0, 0] < 0 < z[0, 1], "the first image is the plane's upper left"


def test_quantiles_of_uniform_numbers_are_draws_of_the_prior():
    prior = Mixture(2, 3)
    prior.mu.data.copy_(torch.tensor([[-3.0, 0.0], [1.0, 2.0], [2.0, -1.0]]))
    prior.logvar.data.normal_(generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        z = train.quantiles(prior, torch.rand(50_000, 2, generator=torch.Generator().manual_seed(0)))
        draws = prior.sample(50_000, torch.Generator().manual_seed(1))
    torch.testing.assert_close(z.mean(0), draws.mean(0), atol=0.05, rtol=0)
    torch.testing.assert_close(z.T.cov(), draws.T.cov(), atol=0.15, rtol=0)


def gradients_of(rank, size, port, images, order, eps, path):
    os.environ.update(MASTER_ADDR="127.0.0.1", MASTER_PORT=str(port), RANK=str(rank), WORLD_SIZE=str(size))
    torch.set_num_threads(1)
    with machine.joined(torch.device("cpu")) as world:
        torch.manual_seed(0)
        model = VAE(2, (32,))
        net = model if size == 1 else torch.nn.parallel.DistributedDataParallel(model)
        optimizer = torch.optim.SGD(model.parameters(), lr=0)
        step = train.make_step(net, optimizer, images, world_size=size)
        gradients = []
        losses = train.train_epoch(
            step,
            order,
            eps,
            batch_size=64,
            world=world,
            after_batch=lambda *_: gradients.append(torch.cat([p.grad.flatten() for p in model.parameters()])),
        )
        if rank == 0:
            torch.save((losses, torch.stack(gradients)), path)


def test_two_processes_give_the_gradients_of_one(dataset, tmp_path):
    order, eps = train.epoch_noise(1, 1, 257, 2)  # the last batch is a single image: one process has none of it
    for size in (1, 2):
        arguments = (size, free_port(), dataset.train_images, order, eps, tmp_path / str(size))
        mp.spawn(gradients_of, arguments, nprocs=size)
    assert not dist.is_initialized()
    alone, together = (torch.load(tmp_path / str(size)) for size in (1, 2))
    assert alone[1].shape[0] == 5
    torch.testing.assert_close(together[0], alone[0], rtol=1e-5, atol=0)
    for one, two in zip(alone[1], together[1], strict=True):
        assert (one - two).norm() <= 1e-5 * one.norm()
