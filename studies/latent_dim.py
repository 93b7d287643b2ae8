"""Which latent dimension, and which network? Trains 24 pairs of them: python -m studies.latent_dim [--quick]

Eight latent dimensions and three networks, one seed: the bound, log p(x), the latents in use, how well the classes
separate, and the time. The answer is in docs/studies.md; a first reader can skip this file.
"""

import dataclasses

from studies import common
from support.run.config import Config

RECIPE = Config(epochs=15, batch_size=256, lr=2e-3, schedule="onecycle")
SETTINGS = ("latent_dim", "hidden_dims", "epochs", "batch_size", "lr")
LATENT_DIMS = (1, 2, 3, 5, 10, 20, 50, 200)
QUICK_DIMS = (2, 5, 10, 20)
NETWORKS = {"1024-512-256": (1024, 512, 256), "512-256": (512, 256), "400": (400,)}
COLORS = {"400": "#7a8794", "512-256": "#2a7fb8", "1024-512-256": "#c4483d"}
SAMPLED_DIMS = (2, 5, 10, 20)  # those of the paper's Figure 5
SAMPLED_NETWORK = "1024-512-256"
COLUMNS = {
    "-ELBO": ("total", 2),
    "log p(x)": ("log_p", 2),
    "ESS": ("ess", 0),
    "ESS < 5": ("unsure", 2),
    "active": ("active_units", 0),
    "kNN accuracy": ("knn_accuracy", 3),
    "-ELBO, train": ("train_total", 2),
    "seconds": ("seconds", 0),
}


def main():
    flags = common.parse(__doc__)
    latent_dims = QUICK_DIMS if flags.quick else LATENT_DIMS
    # The largest network comes first, so that no process is left alone with a long run at the end.
    names = [(network, latent_dim) for network in NETWORKS for latent_dim in latent_dims]
    runs = [dataclasses.replace(RECIPE, latent_dim=d, hidden_dims=NETWORKS[network]) for network, d in names]
    results = dict(zip(names, common.measure_runs(flags, runs, SETTINGS), strict=True))
    common.write_results(flags.results_dir / "latent_dim.csv", results.values(), SETTINGS)
    draw_curves(results, latent_dims).savefig(flags.results_dir / "latent_dim.png")
    draw_samples(results).savefig(flags.results_dir / "latent_dim_samples.png")
    groups = {name: [result] for name, result in results.items()}
    common.print_table(("network", "latent dimension"), groups, COLUMNS)


def draw_curves(results, latent_dims):
    """The figure: bound and log p(x), active units and kNN accuracy against the latent dimension.

    Args:
        results: from (network, latent dimension) to its Result.
    """
    figure = common.new_figure(1230, 430)
    bound, active, accuracy = figure.subplots(1, 3)
    for network, color in COLORS.items():
        mine = [results[network, latent_dim] for latent_dim in latent_dims]
        style = {"color": color, "marker": "o", "markersize": 4}
        bound.plot(latent_dims, [result.total for result in mine], label=f"{network}: -ELBO", **style)
        bound.plot(latent_dims, [-result.log_p for result in mine], ":", label=f"{network}: -log p(x)", **style)
        active.plot(latent_dims, [result.active_units for result in mine], label=network, **style)
        accuracy.plot(latent_dims, [100 * result.knn_accuracy for result in mine], label=network, **style)
    active.plot(latent_dims, latent_dims, "--", color="#bbbbbb", label="all of them")
    titles = ("nats per test image", "active units", "accuracy of 10 nearest neighbours, %")
    for axes, title in zip(figure.axes, titles, strict=True):
        axes.set_title(title, fontsize=11)
        axes.set(xscale="log", xlabel="latent dimension")
        axes.set_xticks(latent_dims, latent_dims)
        axes.set_xticks([], minor=True)
        axes.grid(color="#e8e8e8", linewidth=0.6)
        axes.legend(frameon=False, fontsize=8)
    active.set_yscale("log")
    active.set_yticks(latent_dims, latent_dims)
    active.set_yticks([], minor=True)
    return figure


def draw_samples(results):
    """The paper's Figure 5: decoded draws from the prior as the latent dimension grows, by the largest network."""
    figure = common.new_figure(1230, 340)
    figure.get_layout_engine().set(w_pad=0.15)
    for axes, latent_dim in zip(figure.subplots(1, len(SAMPLED_DIMS)), SAMPLED_DIMS, strict=True):
        common.show_draws(axes, results[SAMPLED_NETWORK, latent_dim].load_model(), 100)
        axes.set_title(f"{latent_dim}-D latent space", fontsize=11)
    return figure


if __name__ == "__main__":
    common.run_study(main)
