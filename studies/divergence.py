"""The review's second open question, "the discrepancy must be KL", tried: python studies/divergence.py

First what five discrepancies make of two distributions that slide apart, without any network; then the VAE beside the
Wasserstein auto-encoder on 784-400-2, three seeds each.
"""

import common
import numpy as np
import torch
from matplotlib.patches import Circle
from scipy.special import erf, voigt_profile

import train
import utils
from model import MMD_SCALES, VAE

RECIPE = {"epochs": 50, "lr": 4e-3}
MODELS = {
    "VAE, BCE + KLD": {"divergence": "kl", "divergence_weight": 1.0},
    "WAE, BCE + 10 MMD²": {"divergence": "mmd", "divergence_weight": 10.0},
}
SHIFTS, CELL = np.linspace(0, 6, 121), 0.01
COLORS = {"KL": "#c4483d", "JS": "#2a7fb8", "TV": "#4a9a5b", "W1": "#20303f", "MMD": "#b07aa1"}
FAMILIES = {
    "gaussian": "N(0, 1) and N(shift, 1)",
    "uniform": "U(0, 1) and U(shift, shift + 1)",
}


def density(family, x, shift):
    """The density of the family's member at a shift, on cells of width CELL around x."""
    if family == "gaussian":
        return np.exp(-0.5 * (x - shift) ** 2) / np.sqrt(2 * np.pi)
    return ((x > shift) & (x < shift + 1)).astype(float)


def discrepancies(p, q, kernel):
    """KL(p || q), JS, TV, W1 and squared MMD of densities p, q on cells of width CELL, by sums over the cells.

    Args:
        kernel: the MMD's kernel of every two cells.
    """

    def kl(a, b):
        with np.errstate(divide="ignore"):
            return CELL * np.sum(a[a > 0] * np.log(a[a > 0] / b[a > 0]))

    middle, difference = (p + q) / 2, CELL * (p - q)
    return {
        "KL": kl(p, q),
        "JS": (kl(p, middle) + kl(q, middle)) / 2,
        "TV": np.abs(difference).sum() / 2,
        "W1": CELL * np.abs(np.cumsum(difference)).sum(),
        "MMD": difference @ kernel @ difference,
    }


def closed_forms(family, shift):
    """What is known of `discrepancies`: all but the JS of two Gaussians."""
    scales = 2 * np.array(MMD_SCALES)
    if family == "gaussian":  # an inverse multiquadratic of a Gaussian's draws is a Voigt profile
        root = np.sqrt(scales)
        kernel = [np.sum(np.pi * root * voigt_profile(t, np.sqrt(2), root)) for t in (0, shift)]
        known = {"KL": shift**2 / 2, "TV": erf(shift / np.sqrt(8)), "W1": shift}
    else:

        def twice_integrated(t):
            return np.sum(np.sqrt(scales) * t * np.arctan(t / np.sqrt(scales)) - scales / 2 * np.log(scales + t**2))

        kernel = [twice_integrated(t + 1) + twice_integrated(t - 1) - 2 * twice_integrated(t) for t in (0, shift)]
        overlap = max(0.0, 1 - shift)
        known = {"KL": np.inf if shift > 0 else 0.0, "JS": np.log(2) * (1 - overlap), "TV": 1 - overlap, "W1": shift}
    return known | {"MMD": 2 * (kernel[0] - kernel[1])}


def sliding():
    """What slides apart, family by family and shift by shift: rows of the five discrepancies."""
    rows = []
    for family in FAMILIES:
        x = np.arange(-8, 14, CELL) + CELL / 2
        scales = 2 * np.array(MMD_SCALES)
        squared = (x[:, None] - x) ** 2
        kernel = sum(scale / (scale + squared) for scale in scales)
        p = density(family, x, 0)
        for shift in SHIFTS:
            rows.append({"family": family, "shift": shift} | discrepancies(p, density(family, x, shift), kernel))
    return rows


def largest_error(rows):
    """The largest difference of a row of `sliding` from a closed form, where that is finite."""
    known = [(row, closed_forms(row["family"], row["shift"])) for row in rows]
    pairs = [(row[name], value) for row, values in known for name, value in values.items()]
    if any(np.isinf(found) != np.isinf(value) for found, value in pairs):
        return np.inf
    return max(abs(found - value) for found, value in pairs if np.isfinite(value))


def sliding_figure(rows):
    """The figure: above, the discrepancies against the shift; below, their derivatives, which are what trains."""
    figure = common.figure(1130, 720)
    for column, (family, title) in enumerate(FAMILIES.items()):
        mine = [row for row in rows if row["family"] == family]
        value, slope = (figure.add_subplot(2, 2, place + column) for place in (1, 3))
        for name, color in COLORS.items():
            values = np.array([row[name] for row in mine])
            if np.isinf(values).any():
                value.plot([], [], color=color, label=f"{name}: infinite at any shift")
                continue
            style = {"color": color, "linestyle": "--" if name == "W1" else "-"}  # over TV, which it equals at first
            value.plot(SHIFTS, values, label=name + "²" * (name == "MMD"), **style)
            slopes = np.diff(values) / np.diff(SHIFTS)
            slope.plot((SHIFTS[1:] + SHIFTS[:-1]) / 2, np.where(slopes > 1e-6, slopes, np.nan), **style)
        value.set_title(title, fontsize=11)
        value.legend(frameon=False, fontsize=9, loc="lower right")
        value.set(ylim=(0.01, 30), ylabel="discrepancy")
        slope.set(ylim=(1e-3, 10), ylabel="its derivative in the shift", xlabel="shift")
        for axes in (value, slope):
            axes.set(yscale="log", xlim=(0, SHIFTS[-1]))
            axes.grid(color="#e8e8e8", linewidth=0.6)
    return figure


@torch.no_grad()
def models_figure(rows, dataset):
    """The figure: for each row's model the means of the test digits, above decoded draws of N(0, I)."""
    figure = common.figure(1000, 690)
    axes = figure.subplots(2, len(rows), height_ratios=(3, 2))
    for above, below, (name, row) in zip(*axes, rows.items(), strict=True):
        model = VAE.load(row["best"])
        mu = train.evaluate(model, dataset.test_images)[3].numpy()
        utils.scatter(above, mu, dataset.test_labels.numpy(), 1.3)
        for radius in (1, 2, 3):
            above.add_patch(Circle((0, 0), radius, fill=False, color="#20303f", linewidth=0.6))
        above.set(xlim=(-4, 4), ylim=(-4, 4), aspect="equal")
        above.set_title(f"{name}, seed {row['seed']}", fontsize=11)
        common.show_draws(below, model, 60)
    utils.class_legend(figure, "outside right upper")
    return figure


def main():
    flags = common.parse(__doc__)
    rows = sliding()
    common.write_rows(flags.results_dir / "sliding.csv", rows)
    sliding_figure(rows).savefig(flags.results_dir / "sliding.png", dpi=100)
    print(f"sliding apart: the largest difference from a closed form is {largest_error(rows):.1e}")

    seeds = (1,) if flags.quick else (1, 2, 3)
    runs = [{**model, "seed": seed, **RECIPE} for model in MODELS.values() for seed in seeds]
    rows = common.measured(flags, runs)
    common.write_rows(flags.results_dir / "divergence.csv", rows)
    each = {name: rows[i * len(seeds) : (i + 1) * len(seeds)] for i, name in enumerate(MODELS)}
    firsts = {name: mine[0] for name, mine in each.items()}
    models_figure(firsts, common.dataset(flags)).savefig(flags.results_dir / "divergence.png", dpi=100)
    columns = {"bce": 2, "kld": 2, "log_p": 2, "knn_accuracy": 3, "sliced_wasserstein": 3, "mmd": 4}
    common.print_table(
        ("model", "BCE", "KLD", "log p(x)", "kNN accuracy", "sliced W2", "MMD²"),
        [[name, *(common.summary(mine, *column) for column in columns.items())] for name, mine in each.items()],
    )


if __name__ == "__main__":
    common.run(main)
