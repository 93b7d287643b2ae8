"""The paper's Figure 2: AEVB and the wake-sleep algorithm: python -m studies.paper [--dataset frey_face] [--quick]

The bound on training and test images against the number of images seen, for each size of z, with the networks and the
optimiser of the paper's section 5. The answer is in docs/studies.md; a first reader can skip this file.
"""

import functools
import itertools
import math
from typing import NamedTuple

import torch
from torch import nn

import train
from inference import lattice
from inference.gaussian_vae import GaussianVAE
from model import VAE, bce, log_normal
from studies import common, frey
from support.machine.arithmetic import fast_arithmetic
from support.run.config import Config

BATCH = 100
DEVIATION = 0.01  # of the first weights, N(0, 0.01): the first author's library (anglepy) reads it so
RATES = (0.01, 0.02, 0.1)  # Adagrad's, one of which is chosen for each run
SEED = 1
PER_DECADE = 8  # measurements
FIRST = 10_000  # images seen before the first measurement
QUICK_SPANS = (500, 500, 5_000)
METHODS = ("AEVB", "wake-sleep")
COLORS = {"AEVB": "#c4483d", "wake-sleep": "#2e8b57", "film": "#2a6fb8"}
STYLES = {"train": "-", "test": "--"}
LOG_P = ("train_log_p", "test_log_p")
FREY_COLUMNS = ("split", "fold", "variance", "floor", "decay")
SPLITS = ("random", "film")  # of Frey Face
CHANGES = ({"variance": "pixel"}, {"variance": "shared"}, {"floor": 0.02}, {"decay": 0.0})
FIGURE = {"mnist": 10, "frey_face": 9}  # how many of the runs it shows, the first ones
QUICK_DIMS = (2, 3, 20)
QUICK_RUNS = 8
QUICK_FIGURE = 5


class Run(NamedTuple):
    """What tells the runs apart."""

    method: str
    latent_dim: int
    hidden: int = 500  # tanh units in each network
    last: int = 10_000_000  # images seen in all
    search: int = 100_000  # images seen before the choice of a rate
    split: str = ""  # this and the rest: of Frey Face
    fold: int = frey.FOLDS - 1  # that is held out
    variance: str = "image"
    floor: float = 0.0
    decay: float = 1.0  # the precision of the prior N(0, I) of the weights

    @property
    def name(self):
        """Of its file."""
        return ",".join(f"{field}={value}" for field, value in self._asdict().items() if value != "")


FREY = {"hidden": 200, "last": 2_371_400, "search": 50_000, "split": "random"}
RUNS = {
    "mnist": [Run(method, d) for d in (3, 5, 10, 20, 200) for method in METHODS],
    "frey_face": [
        *(Run(method, d, **FREY) for d in (2, 5, 10, 20) for method in METHODS),
        *(Run("AEVB", 2, **FREY | {"split": "film", "fold": fold}) for fold in reversed(range(frey.FOLDS))),
        *(Run("AEVB", 2, **FREY | change) for change in CHANGES),
    ],
}
LIMITS = {"mnist": (-210, -95), "frey_face": (400, 1250)}  # of the axis, nats per image


class BernoulliVAE(VAE):
    """A VAE that says -log p(x|z) of binary pixels, and draws them: what training by wake-sleep needs."""

    def energy(self, z, x):
        """-log p(x|z): z (..., latent_dim), x (..., image_dim) -> (...)."""
        return bce(self.decode(z), x)

    def draw(self, z):
        """A draw of p(x|z)."""
        probabilities = self.decode(z).sigmoid()
        # torch.bernoulli takes three times as long.
        return (torch.rand_like(probabilities) < probabilities).float()


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
            sleep (N,) = -log q(z|x) of as many dreams, whose pixels are drawn.
        """
        with torch.no_grad():
            z = self.model.reparameterize(*self.model.encode(x), eps)
            dream_z = self.model.prior.sample(len(x))
            dream_x = self.model.draw(dream_z)
        wake = self.model.energy(z, x)
        sleep = -log_normal(dream_z, *self.model.encode(dream_x))
        return wake, sleep


def main():
    flags = common.parse(__doc__, tuple(RUNS))
    runs = RUNS[flags.dataset]
    if flags.quick:
        runs = [run for run in runs if run.latent_dim in QUICK_DIMS][:QUICK_RUNS]
    load(flags, runs[0])  # missing data are noticed here, once
    curves = common.in_parallel(functools.partial(measure_curve, flags), {run.name: run for run in runs})
    name = flags.results_dir / ("paper" if flags.dataset == "mnist" else f"paper_{flags.dataset}")
    common.write_csv(f"{name}.csv", [row for curve in curves for row in curve])
    common.print_rows(curves[0][0], [map(common.cell, curve[-1].values()) for curve in curves])
    shown = QUICK_FIGURE if flags.quick else FIGURE[flags.dataset]
    figure = dict(itertools.islice(zip(runs, curves, strict=True), shown))
    draw_curves(figure, LIMITS[flags.dataset]).savefig(f"{name}.png")
    if flags.dataset == "frey_face":
        models = [load_model(flags, run) for run in figure if (run.method, run.split) == ("AEVB", "random")]
        frey.draw_faces(models).savefig(f"{name}_samples.png")
        common.report(f"{name}_split.csv", compare_splits(flags, runs))


def compare_splits(flags, runs):
    """The bound and log p(x) of frames that were not trained on: of the random split, and of the split of the film.

    Returns: a dict for each stretch of the film, of the means over those of its frames that the random split held out.
    """
    frames = frey.load_frames(flags)
    unseen = frey.held_out(len(frames), "random")
    rows = []
    for run in sorted(run for run in runs if (run.split, run.latent_dim) == ("film", 2)):
        images = frames[unseen & frey.held_out(len(frames), "film", run.fold)]
        row = {"stretch": run.fold + 1, "frames": len(images)}
        for split in SPLITS:
            model = load_model(flags, runs[0] if split == "random" else run)
            row[f"bound, {split}"] = bound(model, images)
            row[f"log p(x), {split}"] = lattice.log_p(model.log_joint, images, 2, frey.CELLS).mean().item()
        rows.append(row | {"difference": row["log p(x), random"] - row["log p(x), film"]})
    return rows


def load(flags, run):
    """The dataset of a run."""
    return frey.load(flags, run.split, run.fold) if run.split else common.load_dataset(flags)


def measure_curve(flags, run):
    """Train a run, or find it done. Returns dicts with its settings, its rate, and the fields of `train_curve`."""
    return train_once(flags, run)["rows"]


def load_model(flags, run):
    """The model of a run, trained or found done."""
    model = build(run, math.prod(frey.SHAPE))
    model.load_state_dict(train_once(flags, run)["weights"])
    return model


def train_once(flags, run):
    """The rows of a run at the best of RATES, and the weights of its model; trained, or found done."""
    spans = QUICK_SPANS if flags.quick else (FIRST, run.search, run.last)
    identity = repr((run, *spans, RATES, BATCH, DEVIATION, SEED, PER_DECADE, frey.CELLS))
    path = flags.results_dir / "runs" / f"{run.name}.pt"
    return common.load_or_compute(
        path, identity, flags.overwrite, functools.partial(fit, load(flags, run), run, *spans)
    )


def fit(dataset, run, first, search, last):
    """What `train_once` returns; the numbers of images are those before a measurement, a rate's choice, and the end."""
    with fast_arithmetic():
        firsts = {rate: train_curve(*begin(dataset, run, rate), [search])[-1]["train"] for rate in RATES}
        rate = max(RATES, key=firsts.get)
        trained, model = begin(dataset, run, rate)
        points = train_curve(trained, model, spaced(first, last))
    settings = {name: getattr(run, name) for name in FREY_COLUMNS if run.split}
    settings |= {"latent_dim": run.latent_dim, "method": run.method, "rate": rate}
    rows = [settings | point | dict.fromkeys(LOG_P if run.split else ()) for point in points]
    if run.split and run.latent_dim == 2:
        for name, images in zip(LOG_P, (dataset.train_images[::4], dataset.test_images), strict=True):
            rows[-1][name] = lattice.log_p(model.log_joint, images, 2, frey.CELLS).mean().item()
    return {"rows": rows, "weights": model.state_dict()}


def spaced(first, last):
    """Numbers of images from `first` to `last`, PER_DECADE per decade, rounded to whole batches."""
    numbers = [first]
    for k in itertools.count(1):
        number = BATCH * round(first * 10 ** (k / PER_DECADE) / BATCH)
        if number > last:
            return numbers
        numbers.append(number)


def begin(dataset, run, rate):
    """A new train.Run with the paper's networks and optimiser, and the model whose bound it improves."""
    config = Config(seed=SEED, latent_dim=run.latent_dim, batch_size=BATCH, lr=rate, precision="float32")
    torch.manual_seed(config.seed)
    model = build(run, dataset.train_images.shape[1])
    objective = WakeSleep(model) if run.method == "wake-sleep" else model
    # The prior N(0, I) of the weights adds half their squared norm to the loss of all N images.
    decay = run.decay / len(dataset.train_images)
    optimizer = torch.optim.Adagrad(model.parameters(), rate, weight_decay=decay, fused=True)
    return train.Run(config, dataset, objective, optimizer, train.make_scheduler(config, optimizer, steps=1)), model


def build(run, image_dim):
    """The paper's networks for a run."""
    if not run.split:
        return tanh_vae(run.latent_dim, run.hidden, image_dim)
    return initialise(GaussianVAE(run.latent_dim, run.hidden, image_dim, run.variance, run.floor))


def tanh_vae(latent_dim, hidden_dim=500, image_dim=784):
    """The paper's networks for MNIST."""
    return initialise(BernoulliVAE(latent_dim, (hidden_dim,), image_dim))


def initialise(model):
    """Give a VAE tanh units, and draw all its weights and biases from N(0, 0.01)."""
    for network in (model.encoder, model.decoder):
        network[1] = nn.Tanh()
    for parameter in model.parameters():
        nn.init.normal_(parameter, std=DEVIATION)
    return model


def bound(model, images):
    """The ELBO, one sample of z per image, averaged over images (N, image_dim) uint8, in nats."""
    evaluation = train.evaluate(model, images)
    total = evaluation.bce + evaluation.divergence
    return -math.inf if math.isnan(total) else -total  # a rate that is too high must not be the best


def bounds(model, train_images, test_images):
    """The bound on both sets of images."""
    return {"train": bound(model, train_images), "test": bound(model, test_images)}


def train_curve(run, model, numbers, figures=bounds, train_epoch=train.train_epoch):
    """Train to the end of the epoch in which the last of the numbers of images is seen; measure on the way.

    Args:
        figures: from the model and equally many training and test images to a dict.
        train_epoch: as in train.py.

    Returns: dicts with the number of images seen, the first batch with each of them included, and the figures.
    """
    n = len(run.dataset.train_images)
    test_images = run.dataset.test_images
    train_images = run.dataset.train_images[:: max(1, n // len(test_images))]
    points = []

    def measure(epoch, batch, losses):
        seen = (epoch - 1) * n + min((batch + 1) * BATCH, n)
        if len(points) < len(numbers) and seen >= numbers[len(points)]:
            points.append({"images": seen} | figures(model, train_images, test_images))
        return len(points) == len(numbers)

    for epoch in range(1, -(-numbers[-1] // n) + 1):
        train_epoch(run, epoch, measure)
    return points


def draw_curves(curves, limits):
    """The figure: a panel for each size of z, in it the bound on training and test images.

    Args:
        curves: from a Run to its points.
    """
    latent_dims = list(dict.fromkeys(run.latent_dim for run in curves))
    figure = common.new_figure(1230, 330)
    panels = dict(zip(latent_dims, figure.subplots(1, len(latent_dims), sharey=True), strict=True))
    for (run, curve), (part, line) in itertools.product(curves.items(), STYLES.items()):
        axes = panels[run.latent_dim]
        images, values = zip(*((point["images"], point[part]) for point in curve), strict=True)
        name = "AEVB, the film's end held out" if run.split == "film" else run.method
        color = COLORS[run.split if run.split == "film" else run.method]
        axes.plot(images, values, line, color=color, linewidth=1.3, label=f"{name}, {part}")
        common.style(axes, f"$N_z$ = {run.latent_dim}", xscale="log", xlabel="training images seen", ylim=limits)
    figure.axes[0].set_ylabel("bound, nats per image")
    figure.axes[0].legend(frameon=False, fontsize=8, loc="upper left")
    return figure


if __name__ == "__main__":
    common.run_study(main)
