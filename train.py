"""Algorithm 1 of the paper: batches of images, one draw of eps per image, a step along the gradient of the bound.

No random state is saved. The order and the noise of an epoch follow from the seed and the epoch's number, so a
continued run is the run that was interrupted, and N processes reproduce the single-process run up to rounding.
"""

import dataclasses
import math
import time
from typing import NamedTuple

import torch

from model import VAE
from support.config import Config
from support.data import Dataset, pixels
from support.devices import ALONE, World, all_reduce, find_precision
from support.errors import UserError
from support.seeds import EVALUATION_SEED, epoch_noise, generator
from variants import build_model

EVALUATION_CHUNK = 500  # images at a time: their activations stay in the cache
WARM_UP = 0.1  # the share of a onecycle run in which the learning rate rises


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
    test_images = run.dataset.test_images
    if run.history:
        yield Epoch(run.history[-1], evaluate(run.model, test_images))
    for epoch in range(len(run.history) + 1, run.config.epochs + 1):
        start = time.perf_counter()
        losses = train_epoch(run, epoch, on_batch)
        check_finite(losses, epoch)
        means = losses.cpu().double().sum(0) / len(run.dataset.train_images)
        seconds = time.perf_counter() - start
        test = evaluate(run.model, test_images)
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
    for batch, index in enumerate(batches):
        losses[batch] = step(run, index, noise[batch])
        on_batch(epoch, batch, losses)
    return losses


def step(run, index, eps):
    """One step on the mean of BCE + weight * divergence over a batch.

    Each process takes the gradient on its share of the batch, and all_reduce adds the shares up. `index` (n,) are the
    batch's rows in the training images; `eps` (n, latent_dim) are draws of N(0, I).

    Returns: the batch's sums of BCE and divergence, (2,), in nats.
    """
    mine, my_eps = (part.tensor_split(run.world.size)[run.world.rank] for part in (index, eps))
    x = pixels(run.dataset.train_images.index_select(0, mine))
    with torch.autocast(x.device.type, torch.bfloat16, enabled=run.config.precision == "bfloat16"):
        bce, divergence, *_ = run.model(x, my_eps)
    bce = bce.sum()
    divergence = divergence.sum()
    loss = (bce + run.config.divergence_weight * divergence) / len(index)
    run.optimizer.zero_grad()
    loss.backward()
    losses = torch.stack([bce.detach(), divergence.detach()])
    all_reduce([losses, *(parameter.grad for parameter in run.model.parameters())], run.world)
    run.optimizer.step()
    run.scheduler.step()
    return losses


@torch.no_grad()
def evaluate(model, images):
    """Mean losses, in float32, of images (N, 784) uint8 at one z per image; the noise is always the same."""
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


def begin(config, dataset, world=ALONE):
    """A new run on the dataset's device, its weights drawn from the seed."""
    device = dataset.train_images.device
    config = dataclasses.replace(config, precision=find_precision(config.precision, device))
    torch.manual_seed(config.seed)
    model = build_model(config).to(device)
    optimizer = torch.optim.Adam(model.parameters(), config.lr, fused=True)
    steps = config.epochs * math.ceil(len(dataset.train_images) / config.batch_size)
    return Run(config, dataset, model, optimizer, make_scheduler(config, optimizer, steps), world=world)


def make_scheduler(config, optimizer, steps):
    """The learning rate by --schedule; onecycle rises from lr / 25 for a tenth of the steps, then falls to 0."""
    if config.schedule == "constant":
        return torch.optim.lr_scheduler.ConstantLR(optimizer, factor=1.0)
    steps = max(steps, 3)  # two up and one down: OneCycleLR divides by the lengths of its phases
    return torch.optim.lr_scheduler.OneCycleLR(
        optimizer,
        config.lr,
        steps,
        pct_start=max(WARM_UP, 2 / steps),
        anneal_strategy="linear",
        cycle_momentum=False,
    )


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
