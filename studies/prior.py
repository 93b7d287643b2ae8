"""The review's first open question, "a prior must be chosen", tried: python studies/prior.py

N(0, I), a learned mixture of ten Gaussians and the VampPrior with ten pseudo-inputs, on 784-400-2, three seeds each.
"""

import common
import numpy as np
import torch

import train
import utils
from model import PRIORS

RECIPE = {"epochs": 30, "lr": 8e-3}
NAMES = {"normal": "N(0, I)", "mixture": "mixture of 10 Gaussians", "vamp": "VampPrior, 10 pseudo-inputs"}
SIGMAS = (3, 2, 1)  # a contour holds the share of the prior that N(0, I) has within so many deviations
DRAWS, GRID, OUTLIERS = 20_000, 400, 0.003  # the share of the means that may lie beyond a panel's edge, on each side


@torch.no_grad()
def contours(rows, dataset):
    """The figure: for each row's model the prior's density under the means of the test digits, both standardised."""
    figure = common.figure(1230, 460)
    for axes, row in zip(figure.subplots(1, len(rows)), rows, strict=True):
        model = train.VAE.load(row["best"])
        mean, deviation = train.moments(model.prior)
        mu = ((train.evaluate(model, dataset.test_images)[3] - mean) / deviation).numpy()
        low, high = np.quantile(mu, (OUTLIERS, 1 - OUTLIERS), axis=0)
        half = 0.55 * (high - low).max()
        x, y = (torch.linspace(c - half, c + half, GRID) for c in (low + high) / 2)
        grid = torch.cartesian_prod(y, x).flip(1)
        density = model.prior.log_prob(grid * deviation + mean).view(GRID, GRID)
        draws = model.prior.log_prob(model.prior.sample(DRAWS, train.generator(1)))
        levels = draws.quantile(torch.exp(-torch.tensor(SIGMAS).square() / 2)).tolist()
        axes.contourf(x, y, density, [*levels, density.max()], colors=["#eef1f5", "#d9e0e8", "#bcc8d6"])
        utils.scatter(axes, mu, dataset.test_labels.numpy(), 1.3)
        axes.contour(x, y, density, levels, colors="#20303f", linewidths=0.8, linestyles="solid")
        axes.set(xlim=(x[0], x[-1]), ylim=(y[0], y[-1]), aspect="equal", xlabel="standardised z 1")
        axes.set_title(f"{NAMES[row['prior']]}\nseed {row['seed']}, {row['total']:.2f} nats", fontsize=11)
    figure.axes[0].set_ylabel("standardised z 2")
    utils.class_legend(figure, "outside right center")
    return figure


def main():
    flags = common.parse(__doc__)
    seeds = (1,) if flags.quick else (1, 2, 3)
    runs = [{"prior": prior, "seed": seed, **RECIPE} for prior in PRIORS for seed in seeds]
    rows = common.measured(flags, runs)
    common.write_rows(flags.results_dir / "prior.csv", rows)
    figure = contours([row for row in rows if row["seed"] == 1], common.dataset(flags))
    figure.savefig(flags.results_dir / "prior.png", dpi=100)
    columns = {"bce": 2, "kld": 2, "total": 2, "log_p": 2, "knn_accuracy": 3, "sliced_wasserstein": 3, "mmd": 4}
    heads = ("prior", "BCE", "KLD", "-ELBO", "log p(x)", "kNN accuracy", "sliced W2", "MMD²")
    each = {name: [row for row in rows if row["prior"] == prior] for prior, name in NAMES.items()}
    common.print_table(
        heads, [[name, *(common.summary(mine, *column) for column in columns.items())] for name, mine in each.items()]
    )


if __name__ == "__main__":
    common.run(main)
