"""Must the discrepancy be the KL divergence? Compares five, and the VAE with the WAE: python -m studies.divergence

First without a network: two distributions are shifted apart, and five discrepancies between them are computed. Then the
VAE and the Wasserstein auto-encoder are trained on 784-400-2, three seeds each. The answer is in docs/studies.md; a
first reader can skip this file.
"""

import dataclasses
from collections.abc import Callable
from typing import NamedTuple

import numpy as np
from matplotlib.patches import Circle
from scipy.special import erf, voigt_profile

import train
import utils
from studies import common
from support.run.config import Config
from variants.wae import SCALES

RECIPE = Config(epochs=50, lr=4e-3, schedule="onecycle")
SETTINGS = ("divergence", "divergence_weight", "seed", "epochs", "lr")
MODELS = {
    "VAE, BCE + KLD": dataclasses.replace(RECIPE, divergence="kl", divergence_weight=1.0),
    "WAE, BCE + 10 MMD²": dataclasses.replace(RECIPE, divergence="mmd", divergence_weight=10.0),
}
SEEDS = (1, 2, 3)
COLUMNS = {
    "BCE": ("bce", 2),
    "KLD": ("kld", 2),
    "log p(x)": ("log_p", 2),
    "kNN accuracy": ("knn_accuracy", 3),
    "sliced W2": ("sliced_wasserstein", 3),
    "MMD²": ("mmd", 4),
}
SHIFTS = np.linspace(0, 6, 121)
CELL = 0.01  # the integrals are sums over cells of this width
CELLS = np.arange(-8, 14, CELL) + CELL / 2
MMD_SCALES = 2 * np.array(SCALES)  # those of `variants.wae.mmd` in one dimension
COLORS = {"KL": "#c4483d", "JS": "#2a7fb8", "TV": "#4a9a5b", "W1": "#20303f", "MMD": "#b07aa1"}


def main():
    flags = common.parse(__doc__)
    rows = discrepancy_rows()
    common.write_csv(flags.results_dir / "sliding.csv", rows)
    draw_discrepancies(rows).savefig(flags.results_dir / "sliding.png")
    print(f"shifted distributions: the largest difference from a closed form is {largest_error(rows):.1e}")

    seeds = SEEDS[:1] if flags.quick else SEEDS
    runs = [dataclasses.replace(model, seed=seed) for model in MODELS.values() for seed in seeds]
    results = common.measure_runs(flags, runs, SETTINGS)
    common.write_results(flags.results_dir / "divergence.csv", results, SETTINGS)
    groups = {
        (name,): [result for result in results if result.config.divergence == model.divergence]
        for name, model in MODELS.items()
    }
    firsts = {name: group[0] for (name,), group in groups.items()}
    draw_models(firsts, common.load_dataset(flags)).savefig(flags.results_dir / "divergence.png")
    common.print_table(("model",), groups, COLUMNS)


class Family(NamedTuple):
    """Distributions on a line that differ by a shift, each compared with the one at shift 0."""

    title: str
    density: Callable  # shift -> the density at each of CELLS
    closed_forms: Callable  # shift -> the discrepancies that are known, by name


def gaussian_density(shift):
    """The density of N(shift, 1) at each of CELLS."""
    return np.exp(-0.5 * (CELLS - shift) ** 2) / np.sqrt(2 * np.pi)


def gaussian_closed_forms(shift):
    """The discrepancies between N(0, 1) and N(shift, 1); their JS has no closed form."""

    def expected_kernel(distance):
        # The difference of two draws is Gaussian, and an inverse multiquadratic averaged over it is a Voigt profile.
        roots = np.sqrt(MMD_SCALES)
        return np.sum(np.pi * roots * voigt_profile(distance, np.sqrt(2), roots))

    return {
        "KL": shift**2 / 2,
        "TV": erf(shift / np.sqrt(8)),
        "W1": shift,
        "MMD": 2 * (expected_kernel(0) - expected_kernel(shift)),
    }


def uniform_density(shift):
    """The density of U(shift, shift + 1) at each of CELLS."""
    middle = shift + 0.5
    return (np.abs(CELLS - middle) < 0.5).astype(float)


def uniform_closed_forms(shift):
    """The discrepancies between U(0, 1) and U(shift, shift + 1)."""

    def twice_integrated_kernel(t):
        roots = np.sqrt(MMD_SCALES)
        return np.sum(roots * t * np.arctan(t / roots) - MMD_SCALES / 2 * np.log(MMD_SCALES + t**2))

    def expected_kernel(distance):
        outer = twice_integrated_kernel(distance + 1) + twice_integrated_kernel(distance - 1)
        return outer - 2 * twice_integrated_kernel(distance)

    overlap = max(0.0, 1 - shift)
    return {
        "KL": np.inf if shift > 0 else 0.0,
        "JS": np.log(2) * (1 - overlap),
        "TV": 1 - overlap,
        "W1": shift,
        "MMD": 2 * (expected_kernel(0) - expected_kernel(shift)),
    }


FAMILIES = {
    "gaussian": Family("N(0, 1) and N(shift, 1)", gaussian_density, gaussian_closed_forms),
    "uniform": Family("U(0, 1) and U(shift, shift + 1)", uniform_density, uniform_closed_forms),
}


def discrepancy_rows():
    """A row for each family and shift: its name, the shift, and the five discrepancies."""
    squared = (CELLS[:, None] - CELLS) ** 2
    kernel = sum(scale / (scale + squared) for scale in MMD_SCALES)
    rows = []
    for name, family in FAMILIES.items():
        p = family.density(0)
        for shift in SHIFTS:
            rows.append({"family": name, "shift": shift, **discrepancies(p, family.density(shift), kernel)})
    return rows


def discrepancies(p, q, kernel):
    """KL(p || q), JS, TV, W1 and squared MMD between two densities, by sums over the cells.

    Args:
        p, q: (cells,).
        kernel: (cells, cells), the MMD's kernel for every two cells.
    """
    middle = (p + q) / 2
    difference = CELL * (p - q)
    return {
        "KL": kl(p, q),
        "JS": (kl(p, middle) + kl(q, middle)) / 2,
        "TV": np.abs(difference).sum() / 2,
        "W1": CELL * np.abs(np.cumsum(difference)).sum(),
        "MMD": difference @ kernel @ difference,
    }


def kl(p, q):
    """KL(p || q) between two densities (cells,); infinite where q is zero and p is not."""
    inside = p > 0
    with np.errstate(divide="ignore"):
        return CELL * np.sum(p[inside] * np.log(p[inside] / q[inside]))


def largest_error(rows):
    """The largest difference between `discrepancy_rows` and the closed forms; infinite if only one of two is."""
    errors = []
    for row in rows:
        for name, known in FAMILIES[row["family"]].closed_forms(row["shift"]).items():
            both_infinite = np.isinf(row[name]) and np.isinf(known)
            errors.append(0.0 if both_infinite else abs(row[name] - known))
    return max(errors)


def draw_discrepancies(rows):
    """The figure: above, the discrepancies against the shift; below, their derivatives, which training follows."""
    figure = common.new_figure(1130, 720)
    for column, (name, family) in enumerate(FAMILIES.items(), 1):
        mine = [row for row in rows if row["family"] == name]
        value = figure.add_subplot(2, 2, column)
        slope = figure.add_subplot(2, 2, 2 + column)
        for discrepancy in COLORS:
            draw_discrepancy(value, slope, discrepancy, np.array([row[discrepancy] for row in mine]))
        value.set_title(family.title, fontsize=11)
        value.legend(frameon=False, fontsize=9, loc="lower right")
        value.set(ylim=(0.01, 30), ylabel="discrepancy")
        slope.set(ylim=(1e-3, 10), ylabel="its derivative in the shift", xlabel="shift")
        for axes in (value, slope):
            axes.set(yscale="log", xlim=(0, SHIFTS[-1]))
            axes.grid(color="#e8e8e8", linewidth=0.6)
    return figure


def draw_discrepancy(value, slope, name, values):
    """Plot a discrepancy at each of SHIFTS into the axes `value`, and its derivative into the axes `slope`."""
    if np.isinf(values).any():
        value.plot([], [], color=COLORS[name], label=f"{name}: infinite at any shift")
        return
    # W1 is dashed, as it begins on top of TV.
    style = {"color": COLORS[name], "linestyle": "--" if name == "W1" else "-"}
    value.plot(SHIFTS, values, label="MMD²" if name == "MMD" else name, **style)
    slopes = np.diff(values) / np.diff(SHIFTS)
    middles = (SHIFTS[1:] + SHIFTS[:-1]) / 2
    slope.plot(middles, np.where(slopes > 1e-6, slopes, np.nan), **style)


def draw_models(results, dataset):
    """The figure: the latent means of the test images for each model, above decoded draws of N(0, I).

    Args:
        results: from a model's name to its Result.
    """
    figure = common.new_figure(1000, 690)
    panels = figure.subplots(2, len(results), height_ratios=(3, 2))
    for above, below, (name, result) in zip(*panels, results.items(), strict=True):
        model = result.load_model()
        common.show_means(above, train.evaluate(model, dataset.test_images).mu, dataset.test_labels)
        for radius in (1, 2, 3):
            above.add_patch(Circle((0, 0), radius, fill=False, color="#20303f", linewidth=0.6))
        above.set(xlim=(-4, 4), ylim=(-4, 4), aspect="equal")
        above.set_title(f"{name}, seed {result.config.seed}", fontsize=11)
        common.show_draws(below, model, 60)
    utils.class_legend(figure, dataset.classes, "outside right upper")
    return figure


if __name__ == "__main__":
    common.run_study(main)
