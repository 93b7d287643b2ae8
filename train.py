"""Algorithm 1 of the paper: batches of images, one draw of eps per image, a step along the gradient of the bound.

No random state is saved. The order and the noise of an epoch follow from the seed and the epoch's number, so a
continued run is the run that was interrupted.
"""

import dataclasses
import math
import time
from collections.abc import Callable
from typing import NamedTuple

import torch

from model import VAE
from support.data.datasets import Dataset, pixels
from support.machine.steps import check_finite, check_parts, choose_objective, choose_step, resolve_auto
from support.run.config import Config
from support.seeds import EVALUATION_SEED, generator, seed_dropout
from variants import build_model
from variants.schedules import make_scheduler

EVALUATION_CHUNK = 500  # images at a time: their activations stay in the cache


def ignore(*progress):
    """Do nothing after a batch."""


def train_epoch(run, epoch, on_batch=ignore):
    """One pass over the training images: the paper's Algorithm 1, with Adam in place of SGD or Adagrad.

    Args:
        epoch: its number, from 1.
        on_batch: called after each batch with the epoch, the batch and the losses so far.

    Returns: each batch's sums of BCE and divergence, (batches, 2), in nats. They stay on the device: reading them
        synchronises it.
    """
    images = run.dataset.train_images
    source = generator(run.config.seed, epoch)
    order = torch.randperm(len(images), generator=source).to(images.device)
    noise = torch.randn(len(images), run.config.latent_dim, generator=source).to(images.device)
    seed_dropout(run.config.seed, epoch)
    run.model.train()
    losses = torch.zeros(math.ceil(len(images) / run.config.batch_size), 2, device=images.device)
    batches = zip(order.split(run.config.batch_size), noise.split(run.config.batch_size), strict=True)
    for batch, (rows, eps) in enumerate(batches):
        losses[batch] = run.step(run, images.index_select(0, rows), eps)
        on_batch(epoch, batch, losses)
    return losses


def objective(model, images, eps, weight):
    """What every step minimises: -ELBO, if the divergence is the KLD and its weight 1.

    Args:
        images: (N, 784) uint8.
        eps: (N, latent_dim), draws of N(0, I).

    Returns: the mean of BCE + weight * divergence, and the batch's sums of both, (2,), in nats.
    """
    bce, divergence, *_ = model(pixels(images), eps)
    losses = torch.stack([bce.sum(), divergence.sum()])
    return (losses[0] + weight * losses[1]) / len(images), losses.detach()


def step(run, images, eps):
    """One step of Adam on a batch's objective. Returns the batch's sums of BCE and divergence, (2,), in nats."""
    loss, losses = run.objective(run.model, images, eps, run.config.divergence_weight)
    run.optimizer.zero_grad()
    loss.backward()
    run.optimizer.step()
    run.scheduler.step()
    return losses


def epochs(run, on_batch=ignore):
    """Train a run to its last epoch; yield a `Result` after each.

    A continued run first yields the epoch it stopped after: a kill may have come before all its files were written.

    Args:
        on_batch: see `train_epoch`.

    Raises:
        UserError: a loss is not finite; the model is then not worth saving.
        ValueError: a part of the run was replaced, and does not fit the others.
    """
    check_parts(run)
    if run.history:
        yield Result(run.history[-1], evaluate(run.model, run.dataset.test_images))
    for epoch in range(len(run.history) + 1, run.config.epochs + 1):
        start = time.perf_counter()
        losses = train_epoch(run, epoch, on_batch)
        check_finite(run, losses, epoch)
        means = losses.cpu().double().sum(0) / len(run.dataset.train_images)
        seconds = time.perf_counter() - start
        test = evaluate(run.model, run.dataset.test_images)
        check_finite(run, torch.tensor([[test.bce, test.divergence]]), epoch, "on the test set")
        weight = run.config.divergence_weight
        row = {"epoch": epoch, **terms("train", *means.tolist(), weight)}
        row |= terms("test", test.bce, test.divergence, weight)
        run.history.append({**row, "seconds": seconds})
        yield Result(run.history[-1], test)


@torch.no_grad()
def evaluate(model, images):
    """Mean losses, in float32, of images (N, 784) uint8 at one z per image; the noise is always the same."""
    model.eval()
    eps = torch.randn(len(images), model.latent_dim, generator=generator(EVALUATION_SEED)).to(images.device)
    n_chunks = math.ceil(len(images) / EVALUATION_CHUNK)
    chunks = zip(images.tensor_split(n_chunks), eps.tensor_split(n_chunks), strict=True)  # none is of a single image
    outputs = zip(*(model(pixels(chunk), noise) for chunk, noise in chunks), strict=True)
    bce, divergence, z, mu = (torch.cat(output).cpu() for output in outputs)
    return Evaluation(bce.double().mean().item(), divergence.double().mean().item(), z, mu)


def terms(part, bce, divergence, weight):
    """The columns of metrics.csv for the training or test set, in nats per image."""
    return {f"{part}_bce": bce, f"{part}_divergence": divergence, f"{part}_total": bce + weight * divergence}


class Evaluation(NamedTuple):
    """BCE and divergence, in nats per image, and the latents z and mu, (N, latent_dim) each, on the CPU."""

    bce: float
    divergence: float
    z: torch.Tensor
    mu: torch.Tensor


class Result(NamedTuple):
    """A finished epoch: its row of metrics.csv, and the evaluation of the test set after it."""

    row: dict
    test: Evaluation


@dataclasses.dataclass
class Run:
    """All that training needs and changes."""

    config: Config
    dataset: Dataset
    model: VAE
    optimizer: torch.optim.Optimizer
    scheduler: torch.optim.lr_scheduler.LRScheduler
    objective: Callable = objective  # or the same in bfloat16
    step: Callable = step  # or a faster one that does the same
    history: list[dict] = dataclasses.field(default_factory=list)  # the rows of the finished epochs


def begin(config, dataset):
    """A new run on the dataset's device, its weights drawn from the seed."""
    device = dataset.train_images.device
    steps = config.epochs * math.ceil(len(dataset.train_images) / config.batch_size)
    config = resolve_auto(config, device, steps)
    torch.manual_seed(config.seed)
    model = build_model(config).to(device)
    optimizer = torch.optim.Adam(model.parameters(), config.lr, fused=True)
    scheduler = make_scheduler(config, optimizer, steps)
    return Run(
        config, dataset, model, optimizer, scheduler, choose_objective(config, objective), choose_step(config, step)
    )
