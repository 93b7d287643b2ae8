"""The paper's Figure 2: AEVB and the wake-sleep algorithm on MNIST: python -m studies.paper [--quick]

The bound on training and test images against the number of images seen, for five sizes of z, with the networks and the
optimiser of the paper's section 5. The answer is in docs/studies.md; a first reader can skip this file.
"""

import functools
import itertools
import math

import torch
from torch import nn

import train
from model import VAE, bce, log_normal
from studies import common
from support.machine.arithmetic import fast_arithmetic
from support.run.config import Config

LATENT_DIMS = (3, 5, 10, 20, 200)
QUICK_DIMS = (3, 20)
HIDDEN = 500  # tanh units
BATCH = 100
DEVIATION = 0.01  # of the first weights, N(0, 0.01): the first author's library (anglepy) reads it so
RATES = (0.01, 0.02, 0.1)  # Adagrad's, one of which is chosen for each run
SEED = 1
PER_DECADE = 8  # measurements
FIRST = 10_000  # images seen before the first measurement
SEARCH = 100_000  # images seen before the choice of a rate
LAST = 10_000_000
QUICK_FIRST = QUICK_SEARCH = 500
QUICK_LAST = 5_000
METHODS = ("AEVB", "wake-sleep")
COLORS = {"AEVB": "#c4483d", "wake-sleep": "#2e8b57"}
STYLES = {"train": "-", "test": "--"}
BOUNDS = (-210, -95)  # the axis, nats per image


class WakeSleep(nn.Module):
    """What the wake-sleep algorithm (Hinton et al., 1995) minimises, in place of -ELBO, for the networks of a VAE.

    Wake: theta learns to decode z ~ q(z|x) of an image x. Sleep: phi learns to encode a dream (x, z) ~ p(x, z), whose z
    is known. Neither loss has a gradient in the other's weights, so one step on their sum is a step of both phases.
    """

    def __init__(self, model):
        super().__init__()
        self.model = model

    def forward(self, x, eps):
        """The losses of both phases, in nats.

        Args:
            x: (N, image_dim), pixels in [0, 1].
            eps: (N, latent_dim), draws of N(0, I).

        Returns: wake (N,) = -log p(x|z), where -log p(z) is left out because p(z) has no weights, and
            sleep (N,) = -log q(z|x) of as many dreams, with binary pixels.
        """
        with torch.no_grad():
            z = self.model.reparameterize(*self.model.encode(x), eps)
            dream_z = self.model.prior.sample(len(x))
            probabilities = self.model.decode(dream_z).sigmoid()
            # torch.bernoulli takes three times as long.
            dream_x = (torch.rand_like(probabilities) < probabilities).float()
        wake = bce(self.model.decode(z), x)
        sleep = -log_normal(dream_z, *self.model.encode(dream_x))
        return wake, sleep


def main():
    flags = common.parse(__doc__)
    latent_dims = QUICK_DIMS if flags.quick else LATENT_DIMS
    common.load_dataset(flags)  # missing data are noticed here, once
    runs = {f"{method},latent_dim={d}": (method, d) for d in latent_dims for method in METHODS}
    curves = common.in_parallel(functools.partial(measure_curve, flags), runs)
    rows = [row for curve in curves for row in curve]
    common.write_csv(flags.results_dir / "paper.csv", rows)
    draw_curves(rows, latent_dims).savefig(flags.results_dir / "paper.png")
    print_bounds(rows)


def measure_curve(flags, run):
    """Train a run at the best of RATES; or only read its curve, if an earlier study finished it.

    Args:
        run: its method and latent_dim.

    Returns: dicts with latent_dim, method, rate, and the fields of `train_curve`.
    """
    method, latent_dim = run
    path = flags.results_dir / "runs" / f"{method},latent_dim={latent_dim}.pt"
    identity = repr((run, spans(flags), RATES, HIDDEN, BATCH, DEVIATION, SEED, PER_DECADE))
    saved = common.load_saved(path, identity, flags.overwrite)
    if saved:
        return saved
    dataset = common.load_dataset(flags)
    first, search, last = spans(flags)
    with fast_arithmetic():
        firsts = {rate: train_curve(*begin(dataset, latent_dim, method, rate), [search])[-1] for rate in RATES}
        rate = max(RATES, key=lambda rate: firsts[rate]["train"])
        points = train_curve(*begin(dataset, latent_dim, method, rate), spaced(first, last))
    rows = [{"latent_dim": latent_dim, "method": method, "rate": rate} | point for point in points]
    common.save(path, identity, rows)
    return rows


def spans(flags):
    """The images seen before the first measurement, before the choice of a rate, and in all."""
    return (QUICK_FIRST, QUICK_SEARCH, QUICK_LAST) if flags.quick else (FIRST, SEARCH, LAST)


def spaced(first, last):
    """Numbers of images from `first` to `last`, PER_DECADE per decade, rounded to whole batches."""
    numbers = [first]
    for k in itertools.count(1):
        number = BATCH * round(first * 10 ** (k / PER_DECADE) / BATCH)
        if number > last:
            return numbers
        numbers.append(number)


def begin(dataset, latent_dim, method, rate):
    """A new run with the paper's networks and optimiser, and the model whose bound it improves."""
    config = Config(seed=SEED, latent_dim=latent_dim, batch_size=BATCH, lr=rate, precision="float32")
    torch.manual_seed(config.seed)
    model = tanh_vae(latent_dim)
    objective = model if method == "AEVB" else WakeSleep(model)
    # The prior N(0, I) of the weights adds half their squared norm to the loss of all N images.
    decay = 1 / len(dataset.train_images)
    optimizer = torch.optim.Adagrad(model.parameters(), rate, weight_decay=decay, fused=True)
    return train.Run(config, dataset, objective, optimizer, train.make_scheduler(config, optimizer, steps=1)), model


def tanh_vae(latent_dim, hidden_dim=HIDDEN, image_dim=784):
    """The paper's networks: a VAE with tanh units, all its weights and biases from N(0, 0.01)."""
    model = VAE(latent_dim, (hidden_dim,), image_dim)
    for network in (model.encoder, model.decoder):
        network[1] = nn.Tanh()
    for parameter in model.parameters():
        nn.init.normal_(parameter, std=DEVIATION)
    return model


def train_curve(run, model, numbers):
    """Train through the epoch in which the last of the numbers of images is seen; measure the bound after each of them.

    Returns: dicts with the number of images seen, and the bound on training and test images, in nats per image.
    """
    n = len(run.dataset.train_images)
    test_images = run.dataset.test_images
    train_images = run.dataset.train_images[:: n // len(test_images)]  # as many
    points = []

    def measure(epoch, batch, losses):
        seen = (epoch - 1) * n + (batch + 1) * BATCH
        if seen in numbers:
            points.append({"images": seen, "train": bound(model, train_images), "test": bound(model, test_images)})

    for epoch in range(1, -(-numbers[-1] // n) + 1):
        train.train_epoch(run, epoch, measure)
    return points


def bound(model, images):
    """The ELBO, one sample of z per image, averaged over images (N, 784) uint8, in nats."""
    evaluation = train.evaluate(model, images)
    total = evaluation.bce + evaluation.divergence
    return -math.inf if math.isnan(total) else -total  # a rate that is too high must not be the best


def draw_curves(rows, latent_dims):
    """The figure: a panel for each size of z, in it the bound on training and test images by both methods."""
    figure = common.new_figure(1230, 330)
    for axes, latent_dim in zip(figure.subplots(1, len(latent_dims), sharey=True), latent_dims, strict=True):
        for method, (part, style) in itertools.product(METHODS, STYLES.items()):
            mine = [row for row in rows if (row["latent_dim"], row["method"]) == (latent_dim, method)]
            bounds = [row[part] for row in mine]
            images = [row["images"] for row in mine]
            axes.plot(images, bounds, style, color=COLORS[method], linewidth=1.3, label=f"{method}, {part}")
        axes.set_title(f"$N_z$ = {latent_dim}", fontsize=11)
        axes.set(xscale="log", xlabel="training images seen", ylim=BOUNDS)
        axes.grid(color="#e8e8e8", linewidth=0.6)
    figure.axes[0].set_ylabel("bound, nats per image")
    figure.axes[0].legend(frameon=False, fontsize=8, loc="upper left")
    return figure


def print_bounds(rows):
    """Print the table: each run's rate and last bounds."""
    last = {(row["latent_dim"], row["method"]): row for row in rows}
    common.print_rows(
        ("latents", "method", "rate", "images", "train", "test"),
        [(*list(row.values())[:4], f"{row['train']:.2f}", f"{row['test']:.2f}") for row in last.values()],
    )


if __name__ == "__main__":
    common.run_study(main)
