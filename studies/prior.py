"""Must the prior be N(0, I)? Trains with a learned mixture and a VampPrior too: python -m studies.prior [--quick]

Three priors on 784-400-2, three seeds each. The answer is in docs/studies.md; a first reader can skip this file.
"""

import dataclasses

import numpy as np
import torch

import train
import utils
from studies import common
from support.run.config import Config
from support.seeds import generator
from variants.priors import moments

RECIPE = Config(epochs=30, lr=8e-3, schedule="onecycle")
SETTINGS = ("prior", "seed", "epochs", "lr")
NAMES = {"normal": "N(0, I)", "mixture": "mixture of 10 Gaussians", "vamp": "VampPrior, 10 pseudo-inputs"}
SEEDS = (1, 2, 3)
COLUMNS = {
    "BCE": ("bce", 2),
    "KLD": ("kld", 2),
    "-ELBO": ("total", 2),
    "log p(x)": ("log_p", 2),
    "kNN accuracy": ("knn_accuracy", 3),
    "sliced W2": ("sliced_wasserstein", 3),
    "MMD²": ("mmd", 4),
}
SIGMAS = (3, 2, 1)  # a contour encloses the share of the prior that N(0, I) has within so many standard deviations
FILLS = ("#eef1f5", "#d9e0e8", "#bcc8d6")
DRAWS = 20_000  # from the prior, to find the levels of the contours
GRID = 400  # points per axis at which the prior's density is computed
OUTLIERS = 0.003  # the share of the means that may lie outside a panel, on each side


def main():
    flags = common.parse(__doc__)
    seeds = SEEDS[:1] if flags.quick else SEEDS
    runs = [dataclasses.replace(RECIPE, prior=prior, seed=seed) for prior in NAMES for seed in seeds]
    results = common.measure_runs(flags, runs, SETTINGS)
    common.write_results(flags.results_dir / "prior.csv", results, SETTINGS)
    firsts = [result for result in results if result.config.seed == SEEDS[0]]
    draw_priors(firsts, common.load_dataset(flags)).savefig(flags.results_dir / "prior.png")
    groups = {(name,): [result for result in results if result.config.prior == prior] for prior, name in NAMES.items()}
    common.print_table(("prior",), groups, COLUMNS)


def draw_priors(results, dataset):
    """The figure: each model's prior density under the latent means of the test images, both standardised."""
    figure = common.new_figure(1230, 460)
    for axes, result in zip(figure.subplots(1, len(results)), results, strict=True):
        draw_prior(axes, result.load_model(), dataset)
        config = result.config
        axes.set_title(f"{NAMES[config.prior]}\nseed {config.seed}, {result.total:.2f} nats", fontsize=11)
    figure.axes[0].set_ylabel("standardised z 2")
    utils.class_legend(figure, dataset.classes, "outside right center")
    return figure


@torch.no_grad()
def draw_prior(axes, model, dataset):
    """One panel: contours of the prior's density, and a point for each test image."""
    mean, deviation = moments(model.prior)
    mu = (train.evaluate(model, dataset.test_images).mu - mean) / deviation
    x, y = panel_axes(mu.numpy())
    grid = torch.cartesian_prod(y, x).flip(1)
    density = model.prior.log_prob(grid * deviation + mean).view(GRID, GRID)
    levels = contour_levels(model.prior)
    axes.contourf(x, y, density, [*levels, density.max()], colors=FILLS)
    common.show_means(axes, mu, dataset.test_labels)
    axes.contour(x, y, density, levels, colors="#20303f", linewidths=0.8, linestyles="solid")
    axes.set(xlim=(x[0], x[-1]), ylim=(y[0], y[-1]), aspect="equal", xlabel="standardised z 1")


def panel_axes(mu):
    """The coordinates (GRID,) of a square panel's columns and rows that holds nearly all of mu (N, 2)."""
    low, high = np.quantile(mu, (OUTLIERS, 1 - OUTLIERS), axis=0)
    half = 0.55 * (high - low).max()
    return (torch.linspace(centre - half, centre + half, GRID) for centre in (low + high) / 2)


def contour_levels(prior):
    """The log densities above which the prior has the mass that N(0, I) has within each of SIGMAS in two dimensions."""
    log_densities = prior.log_prob(prior.sample(DRAWS, generator(common.DRAWS_SEED)))
    shares_outside = torch.exp(-torch.tensor(SIGMAS).square() / 2)
    return log_densities.quantile(shares_outside).tolist()


if __name__ == "__main__":
    common.run_study(main)
