"""Algorithm 1 of the paper: batches of images, one draw of eps per image, a step along the gradient of the bound.

No random state is saved. The order and the noise of an epoch follow from the seed and the epoch's number, so a
continued run is the run that was interrupted, and N processes reproduce the single-process run up to rounding.
"""

import dataclasses
import functools
import math
import time
from typing import NamedTuple

import torch

from model import VAE
from support.compiled import compile_gradient, resolve_auto
from support.config import Config
from support.data import Dataset, pixels
from support.devices import ALONE, World, all_reduce
from support.errors import UserError
from support.schedules import check_parts, make_scheduler
from support.seeds import EVALUATION_SEED, epoch_noise, generator, seed_of
from variants import build_model

EVALUATION_CHUNK = 500  # images at a time: their activations stay in the cache


def ignore(*progress):
    """Do nothing after a batch."""


def epochs(run, on_batch=ignore):
    """Train a run to its last epoch; yield an `Epoch` after each.

    A continued run first yields the epoch it stopped after: a kill may have come before all its files were written.

    Args:
        on_batch: called after each batch with the epoch, the batch and `train_epoch`'s losses so far.

    Raises:
        UserError: a loss is not finite; the model is then not worth saving.
    """
    check_parts(run)
    if run.history:
        yield Epoch(run.history[-1], evaluate(run.model, run.dataset.test_images))
    for epoch in range(len(run.history) + 1, run.config.epochs + 1):
        start = time.perf_counter()
        losses = train_epoch(run, epoch, on_batch)
        check_finite(losses, epoch)
        means = losses.cpu().double().sum(0) / len(run.dataset.train_images)
        seconds = time.perf_counter() - start
        test = evaluate(run.model, run.dataset.test_images)
        if not math.isfinite(test.bce + test.divergence):
            raise not_finite(f"epoch {epoch}, on the test set")
        weight = run.config.divergence_weight
        row = {"epoch": epoch, **terms("train", *means.tolist(), weight)}
        row |= terms("test", test.bce, test.divergence, weight)
        run.history.append({**row, "seconds": seconds})
        yield Epoch(run.history[-1], test)


def train_epoch(run, epoch, on_batch=ignore):
    """One pass over the training images; returns each batch's sums of BCE and divergence, (batches, 2), in nats.

    The sums stay on the device: reading them synchronises it.
    """
    images = run.dataset.train_images
    order, eps = epoch_noise(run.config.seed, epoch, len(images), run.config.latent_dim)
    batches = order.to(images.device).split(run.config.batch_size)
    noise = eps.to(images.device).split(run.config.batch_size)
    losses = torch.zeros(len(batches), 2, device=images.device)
    run.model.train()
    torch.manual_seed(seed_of(run.config.seed, epoch, run.world.rank))  # of the input dropout
    for batch, index in enumerate(batches):
        losses[batch] = step(run, index, noise[batch])
        on_batch(epoch, batch, losses)
    return losses


def step(run, index, eps):
    """One step on the mean of BCE + weight * divergence over a batch; returns its sums of both, (2,), in nats.

    Each process takes the gradient on its share of the batch, and all_reduce adds the shares up. `index` (n,) are the
    batch's rows in the training images; `eps` (n, latent_dim) are draws of N(0, I).
    """
    mine, my_eps = (part.tensor_split(run.world.size)[run.world.rank] for part in (index, eps))
    images = run.dataset.train_images.index_select(0, mine)
    if run.config.compile == "on" and len(index) == run.config.batch_size:  # one shape: an epoch's last batch is eager
        losses = run.compiled_gradient(images, my_eps, run.config, len(index))
    else:
        run.optimizer.zero_grad()
        loss, losses = objective(run.model, images, my_eps, run.config, len(index))
        loss.backward()
    all_reduce([losses, *(parameter.grad for parameter in run.model.parameters())], run.world)
    run.optimizer.step()
    run.scheduler.step()
    return losses


def objective(model, images, eps, config, n):
    """The part of a batch's loss that falls to these images, and their sums of BCE and divergence, (2,), in nats.

    Args:
        images: (M, 784) uint8.
        n: images in the whole batch.
    """
    x = pixels(images)
    with torch.autocast(x.device.type, torch.bfloat16, enabled=config.precision == "bfloat16"):
        bce, divergence, *_ = model(x, eps)
    losses = torch.stack([bce.sum(), divergence.sum()])
    return (losses[0] + config.divergence_weight * losses[1]) / n, losses.detach()


@torch.no_grad()
def evaluate(model, images):
    """Mean losses, in float32, of images (N, 784) uint8 at one z per image; the noise is always the same."""
    model.eval()
    eps = torch.randn(len(images), model.latent_dim, generator=generator(EVALUATION_SEED)).to(images.device)
    chunks = zip(images.split(EVALUATION_CHUNK), eps.split(EVALUATION_CHUNK), strict=True)
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


class Epoch(NamedTuple):
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
    history: list[dict] = dataclasses.field(default_factory=list)  # the rows of the finished epochs
    world: World = ALONE

    @functools.cached_property
    def compiled_gradient(self):
        """The gradient of `objective`, compiled for batches of one size."""
        return compile_gradient(objective, self.model)


def begin(config, dataset, world=ALONE):
    """A new run on the dataset's device, its weights drawn from the seed."""
    device = dataset.train_images.device
    steps = config.epochs * math.ceil(len(dataset.train_images) / config.batch_size)
    config = resolve_auto(config, device, steps)
    torch.manual_seed(config.seed)
    model = build_model(config).to(device)
    optimizer = torch.optim.Adam(model.parameters(), config.lr, fused=True)
    return Run(config, dataset, model, optimizer, make_scheduler(config, optimizer, steps), world=world)


def check_finite(losses, epoch):
    """Raise UserError, naming the first bad batch, if an epoch's losses (batches, 2) are not all finite."""
    bad = (~losses.isfinite()).any(1).nonzero()
    if len(bad):
        raise not_finite(f"epoch {epoch}, batch {bad[0].item() + 1}")


def not_finite(where):
    """The error of a run whose loss is not finite."""
    return UserError(
        f"the loss is not finite in {where}: lower --lr, or avoid bfloat16 with --precision float32. "
        "The last checkpoint is intact"
    )
