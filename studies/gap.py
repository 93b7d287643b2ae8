"""Where do the nats between log p(x) and the bound go? python -m studies.gap [--quick]

log p(x) - ELBO = KL(q(z|x) || p(z|x)) of 784-400-2, epoch by epoch and image by image, split into what the encoder and
what the family of Gaussians costs; and a remedy, dropout of the encoder's input. The answer is in docs/studies.md; a
first reader can skip this file.
"""

import dataclasses
import functools
from typing import NamedTuple

import torch
from matplotlib.patches import Ellipse

import train
from inference import gaussians
from studies import common
from support.data.datasets import pixels
from support.latent import likelihood
from support.machine import arithmetic
from support.run import checkpoint
from support.run.config import Config
from variants import build_model

SHORT = Config(epochs=30, lr=8e-3, schedule="onecycle")
LONG = dataclasses.replace(SHORT, epochs=100)
DEEP = Config(epochs=40, batch_size=256, lr=2e-3, schedule="onecycle", hidden_dims=(1024, 512, 256))
SEEDS = {SHORT: (1, 2, 3, 4, 5), LONG: (1, 2, 3, 4, 5), DEEP: (1, 2, 3)}
SETTINGS = ("hidden_dims", "epochs", "schedule", "input_dropout", "seed")
DROPOUTS = (0.0, 0.1, 0.2, 0.3)
CHOICE_SEEDS = (1, 2)
HELD_OUT = 5000  # training images
CHOSEN = 0.2  # of DROPOUTS, on the held-out images

SNAPSHOTS = (1, 3, 10, 30, 100)  # the epochs after which the documented run is measured
DETAILED_IMAGES = 10_000  # training images that are measured in the documented run
TRAIN_IMAGES = 2000  # in another
SPLIT_IMAGES = 500  # of each set, whose best Gaussians are searched
QUICK_IMAGES = 20

FAR = 3  # standard deviations of q(z|x)

SHARES = (0.1, 0.3, 0.5, 0.7, 0.9, 0.97)  # of the test images that have a smaller gap than a digit of the figure
PANEL_CELLS = 200  # per axis
ELLIPSE = 2  # standard deviations
MARKERS = {"train": 7, "test": 4}  # sizes, so that one shows under the other
COLORS = {"train": "#8c9aa8", "test": "#1f4e79", "encoder": "#c4483d", "best Gaussian": "#2e8b57"}
COLUMNS = {
    "BCE": ("bce", 2),
    "KLD": ("kld", 2),
    "total": ("total", 2),
    "log p(x)": ("log_p", 2),
    "gap": ("gap", 2),
    "log p(x), train": ("train_log_p", 2),
    "gap, train": ("train_gap", 2),
}


class Run(NamedTuple):
    """A run of the study.

    held_out: whether its test set is held-out training images. detailed: whether it is measured after each of
    SNAPSHOTS, with its best Gaussians, and on more training images; or else after its last epoch.
    """

    config: Config
    held_out: bool = False
    detailed: bool = False

    def path(self, flags):
        """The run's file."""
        settings = [f"{name}={common.plain(getattr(self.config, name))}" for name in SETTINGS]
        name = ",".join(["gap", *settings, *["held_out"] * self.held_out])
        return flags.results_dir / "runs" / f"{name}.pt"

    @property
    def identity(self):
        """All that decides what is measured, as text."""
        counts = (SNAPSHOTS, DETAILED_IMAGES, SPLIT_IMAGES) if self.detailed else (TRAIN_IMAGES,)
        return repr((common.config_text(self.config), self.held_out, self.detailed, counts))


class Measured(NamedTuple):
    """What is measured of a model on N images, in nats; `best` and `distance`, if at all, of `few` of them."""

    log_p: torch.Tensor  # (N,)
    elbo: torch.Tensor  # (N,), of the encoder's q(z|x)
    best: torch.Tensor | None = None  # the ELBO of the image's best Gaussian
    distance: torch.Tensor | None = None  # from the mean of q to the posterior's peak, in deviations of q

    @property
    def gap(self):
        """KL(q(z|x) || p(z|x)), (N,)."""
        return self.log_p - self.elbo

    def summary(self):
        """The figures for gap.csv: means over the images, unless the name says otherwise."""
        figures = {
            "log_p": mean(self.log_p),
            "elbo": mean(self.elbo),
            "gap": mean(self.gap),
            "gap_median": self.gap.median().item(),
            "gap_p90": self.gap.quantile(0.9).item(),
        }
        if self.best is not None:
            # The gap varies a lot from image to image, but not the part of it that `few` images are enough for.
            figures["approximation"] = mean(few(self.log_p) - self.best)
            figures["amortisation"] = figures["gap"] - figures["approximation"]
            figures["far"] = mean(self.distance > FAR)
        return figures


class Row(NamedTuple):
    """A run of the remedy, in nats per image: a row of gap_dropout.csv after the settings."""

    epoch: int  # the best one by the test set; bce, kld and total are its losses at one z per image, as in metrics.csv
    bce: float
    kld: float
    total: float
    log_p: float  # this and the following: after the last epoch
    gap: float
    train_log_p: float
    train_gap: float


def main():
    flags = common.parse(__doc__)
    dataset = common.load_dataset(flags)
    documented, choice, remedy = plan(flags)
    runs = [documented, *choice, *remedy]
    common.in_parallel(functools.partial(measure_run, flags), {run.path(flags).stem: run for run in runs})

    model, measured = read_detailed(documented, flags)
    table = [
        {"epoch": epoch, "images": part, **images.summary()}
        for epoch, parts in measured.items()
        for part, images in parts.items()
    ]
    common.write_csv(flags.results_dir / "gap.csv", table)
    draw_curves(table, measured).savefig(flags.results_dir / "gap.png")
    images = measured_images(flags, documented, dataset)["test"]
    gap = measured[documented.config.epochs]["test"].gap
    draw_digits(model, images, gap).savefig(flags.results_dir / "gap_digits.png")
    cells = [[f"{value:.2f}" if isinstance(value, float) else value for value in row.values()] for row in table]
    common.print_rows(table[0], cells)

    rows = {run: read_row(run, flags) for run in choice + remedy}
    common.write_csv(
        flags.results_dir / "gap_dropout.csv", [settings_of(run) | row._asdict() for run, row in rows.items()]
    )
    common.print_table(("held out: network", "epochs", "dropout"), groups(choice, rows), COLUMNS)
    common.print_table(("network", "epochs", "dropout"), groups(remedy, rows) | differences(remedy, rows), COLUMNS)


def plan(flags):
    """The documented run, the runs by which the dropout is chosen, and those that are compared on the test set."""
    seeds = {SHORT: (1,)} if flags.quick else SEEDS
    choice_seeds = (1,) if flags.quick else CHOICE_SEEDS
    choice = [(SHORT, dropout, seed) for seed in choice_seeds for dropout in DROPOUTS]
    remedy = [(recipe, dropout, seed) for recipe in seeds for seed in seeds[recipe] for dropout in (0.0, CHOSEN)]

    def config(recipe, dropout=0.0, seed=1):
        epochs = common.QUICK_EPOCHS if flags.quick else recipe.epochs
        return dataclasses.replace(recipe, input_dropout=dropout, seed=seed, epochs=epochs)

    documented = Run(config(common.DOCUMENTED), detailed=True)
    return documented, [Run(config(*each), held_out=True) for each in choice], [Run(config(*each)) for each in remedy]


def measure_run(flags, run):
    """Train a run and write what is measured of it to its file, unless an earlier study has."""
    if common.load_saved(run.path(flags), run.identity, flags.overwrite):
        return
    dataset = common.load_dataset(flags)
    if run.held_out:
        dataset = common.hold_out(dataset, min(HELD_OUT, len(dataset.train_images) // 5))
    sets = measured_images(flags, run, dataset)
    measured = {}
    with arithmetic.fast_arithmetic():
        training = train.begin(run.config, dataset)
        for row, _ in train.epochs(training):
            if is_measured(run, row["epoch"]):
                measured[row["epoch"]] = {
                    part: measure(training.model, images, run.detailed)._asdict() for part, images in sets.items()
                }
    content = {"history": training.history, "weights": training.model.state_dict(), "measured": measured}
    common.save(run.path(flags), run.identity, content)


def is_measured(run, epoch):
    """Whether a run is measured after an epoch."""
    return epoch == run.config.epochs or (run.detailed and epoch in SNAPSHOTS)


def measured_images(flags, run, dataset):
    """The images that a run is measured on, (N, 784) uint8, by the name of their set."""
    n_train = DETAILED_IMAGES if run.detailed else TRAIN_IMAGES
    n_test = len(dataset.test_images)
    if flags.quick:
        n_train = n_test = QUICK_IMAGES
    return {"train": spread(dataset.train_images, n_train), "test": spread(dataset.test_images, n_test)}


def spread(images, n):
    """Evenly spread ones of the images, at least n of them and fewer than twice as many; all if they are fewer."""
    return images[:: max(1, len(images) // n)]


def few(images):
    """The images, or what is known of each, whose best Gaussians are searched."""
    return spread(images, SPLIT_IMAGES)


@torch.no_grad()
def measure(model, images, detailed):
    """A model Measured on images (N, 784) uint8; `detailed` asks for `best` and `distance`, too."""
    log_p = likelihood.quadrature(model, images)
    elbo = gaussians.encoder_bounds(model, images)
    if not detailed:
        return Measured(log_p, elbo)
    peaks = gaussians.posterior_peaks(model, few(images))
    mu, logvar = model.encode(pixels(few(images)))
    distance = ((peaks - mu).square() * torch.exp(-logvar)).sum(1).sqrt()
    *_, best = gaussians.best_gaussians(model, few(images), peaks)
    return Measured(log_p, elbo, best, distance)


def mean(values):
    """The mean of a tensor, as a float."""
    return values.double().mean().item()


def read(run, flags):
    """What `measure_run` has written: the history, the weights, and Measured by epoch and set."""
    saved = common.load_saved(run.path(flags), run.identity, overwrite=False)
    measured = {
        epoch: {part: Measured(**fields) for part, fields in parts.items()}
        for epoch, parts in saved["measured"].items()
    }
    return saved["history"], saved["weights"], measured


def read_detailed(run, flags):
    """The model of a run after its last epoch, and Measured by epoch and set."""
    _, weights, measured = read(run, flags)
    model = build_model(run.config)
    model.load_state_dict(weights)
    return model.eval(), measured


def read_row(run, flags):
    """The Row of a run."""
    history, _, measured = read(run, flags)
    best = checkpoint.best_of(history)
    last = measured[run.config.epochs]
    return Row(
        epoch=best["epoch"],
        bce=best["test_bce"],
        kld=best["test_divergence"],
        total=best["test_total"],
        log_p=mean(last["test"].log_p),
        gap=mean(last["test"].gap),
        train_log_p=mean(last["train"].log_p),
        train_gap=mean(last["train"].gap),
    )


def settings_of(run):
    """The first columns of gap_dropout.csv."""
    return {name: getattr(run.config, name) for name in SETTINGS} | {"held_out": run.held_out}


def groups(runs, rows):
    """The Rows of runs that differ only in their seed, for `common.print_table`."""
    grouped = {}
    for run in runs:
        grouped.setdefault(label(run, run.config.input_dropout), []).append(rows[run])
    return grouped


def differences(runs, rows):
    """The Rows with dropout minus those without, seed by seed, for `common.print_table`."""
    grouped = {}
    for run in runs:
        if run.config.input_dropout:
            without = rows[run._replace(config=dataclasses.replace(run.config, input_dropout=0.0))]
            difference = Row(*(a - b for a, b in zip(rows[run], without, strict=True)))
            grouped.setdefault(label(run, "difference"), []).append(difference)
    return grouped


def label(run, last):
    """The first cells of a run's row in a printed table."""
    return (common.plain(run.config.hidden_dims), run.config.epochs, last)


def draw_curves(table, measured):
    """The figure: log p(x) and ELBO by epoch, the two parts of the gap by epoch, and the gap by image.

    Args:
        table: the rows of gap.csv.
        measured: Measured by epoch and set.
    """
    figure = common.new_figure(1230, 420)
    values, parts, images = figure.subplots(1, 3)
    for part in ("train", "test"):
        rows = [row for row in table if row["images"] == part]
        epochs = [row["epoch"] for row in rows]
        style = {"color": COLORS[part], "marker": "o", "markersize": MARKERS[part]}
        curves = {name: [row[name] for row in rows] for name in ("log_p", "elbo", "amortisation", "approximation")}
        values.plot(epochs, curves["log_p"], "--", label=f"log p(x), {part}", **style)
        values.plot(epochs, curves["elbo"], label=f"ELBO, {part}", **style)
        values.fill_between(epochs, curves["elbo"], curves["log_p"], color=COLORS[part], alpha=0.15, linewidth=0)
        parts.plot(epochs, curves["amortisation"], label=f"amortisation, {part}", **style)
        parts.plot(epochs, curves["approximation"], ":", label=f"approximation, {part}", **style)
        gaps = measured[epochs[-1]][part].gap.clamp(min=1e-3).sort(descending=True).values
        images.plot(gaps, torch.linspace(0, 100, len(gaps)), color=COLORS[part], label=part)
    for axes in (values, parts):
        axes.set(xscale="log", xlabel="epoch")
        axes.set_xticks(epochs, epochs)
        axes.set_xticks([], minor=True)
    images.set(xscale="log", xlabel="gap, nats", xlim=(0.05, None), ylabel="% of the images with a larger gap")
    values.set_ylabel("nats per image")
    titles = ("log p(x) and its bound", "the gap's two parts, nats per image", f"the gap by image, epoch {epochs[-1]}")
    for axes, title in zip(figure.axes, titles, strict=True):
        axes.set_title(title, fontsize=11)
        axes.grid(color="#e8e8e8", linewidth=0.6)
        axes.legend(frameon=False, fontsize=9)
    return figure


def draw_digits(model, images, gap):
    """The figure: digits of small and large gaps with their posterior, q(z|x) and the best Gaussian.

    Args:
        images: (N, 784) uint8.
        gap: (N,), theirs.
    """
    chosen = gap.argsort()[[int(share * len(gap)) for share in SHARES]]
    images = images[chosen]
    with torch.no_grad():
        q = model.encode(pixels(images))
        *best, _ = gaussians.best_gaussians(model, images, gaussians.posterior_peaks(model, images))
    figure = common.new_figure(1230, 360)
    panels = figure.subplots(2, len(SHARES), height_ratios=(3, 1))
    for n, (above, below) in enumerate(panels.T):
        both = {"encoder": (q[0][n], q[1][n]), "best Gaussian": (best[0][n], best[1][n])}
        draw_posterior(above, model, images[n : n + 1], both)
        above.set_title(f"gap {gap[chosen[n]]:.1f} nats", fontsize=11)
        draw_decoded(below, model, images[n], both)
    figure.legend(*above.get_legend_handles_labels(), loc="outside lower center", ncols=2, frameon=False)
    return figure


@torch.no_grad()
def draw_posterior(axes, model, image, gaussians):
    """One panel: the density p(z|x) of an image (1, 784), and an ellipse around each of the Gaussians (mu, logvar)."""
    corners = torch.stack(
        [mu + sign * 1.5 * ELLIPSE * (0.5 * logvar).exp() for mu, logvar in gaussians.values() for sign in (-1, 1)]
    )
    low = corners.amin(0)
    high = corners.amax(0)
    centre = (low + high) / 2
    half = (high - low).max() / 2
    x, y = (torch.linspace(c - half, c + half, PANEL_CELLS) for c in centre)
    z = torch.cartesian_prod(y, x).flip(1)
    log_density = likelihood.log_likelihoods(model.decode(z), pixels(image)) + model.prior.log_prob(z)
    density = (log_density - log_density.max()).exp().view(PANEL_CELLS, PANEL_CELLS)
    axes.imshow(density, cmap="Greys", extent=(x[0], x[-1], y[0], y[-1]), origin="lower", aspect="equal")
    for name, (mu, logvar) in gaussians.items():
        width, height = (2 * ELLIPSE * (0.5 * logvar).exp()).tolist()
        style = {"color": COLORS[name], "linewidth": 1.5, "label": f"{name}, {ELLIPSE} sigma"}
        axes.add_patch(Ellipse(mu.tolist(), width, height, fill=False, **style))
    axes.set_xlabel("z 1", fontsize=8)
    axes.set_ylabel("z 2", fontsize=8)
    axes.tick_params(labelsize=8)
    axes.locator_params(nbins=3)


@torch.no_grad()
def draw_decoded(axes, model, image, gaussians):
    """An image (784,), and the decoder's at the mean of each of the Gaussians (mu, logvar), side by side."""
    decoded = [model.decode(mu).sigmoid() for mu, _ in gaussians.values()]
    side = common.IMAGE_SIDE
    sheet = torch.stack([pixels(image), *decoded]).view(-1, side, side).permute(1, 0, 2).reshape(side, -1)
    axes.imshow(1 - sheet, cmap="gray", vmin=0, vmax=1)
    colors = ("black", *(COLORS[name] for name in gaussians))
    for n, (caption, color) in enumerate(zip(("x", "decoded", "decoded"), colors, strict=True)):
        axes.text((n + 0.5) * side, side + 8, caption, color=color, fontsize=7, ha="center")
    axes.axis("off")


if __name__ == "__main__":
    common.run_study(main)
