"""The review's third open question, "nothing says which latent dimension or network", tried: studies/latent_dim.py

Eight latent dimensions times three networks, one seed: the bound, log p(x), how many latents are used, how well the
digits cluster, and the time.
"""

import common

from model import VAE

RECIPE = {"epochs": 15, "batch_size": 256, "lr": 2e-3}
LATENT_DIMS, QUICK_DIMS = (1, 2, 3, 5, 10, 20, 50, 200), (2, 5, 10, 20)
NETWORKS = {"400": [400], "512-256": [512, 256], "1024-512-256": [1024, 512, 256]}
COLORS = ("#7a8794", "#2a7fb8", "#c4483d")
SAMPLED = (2, 5, 10, 20)  # the latent dimensions of the paper's Figure 5


def curves(rows, latent_dims):
    """The figure: the bound with log p(x), the active units, and the neighbours' accuracy against the dimension."""
    figure = common.figure(1230, 430)
    bound, active, neighbours = figure.subplots(1, 3)
    for (network, hidden_dims), color in zip(NETWORKS.items(), COLORS, strict=True):
        mine = [row for row in rows if row["hidden_dims"] == hidden_dims]
        style = {"color": color, "marker": "o", "markersize": 4}
        bound.plot(latent_dims, [row["total"] for row in mine], label=f"{network}: -ELBO", **style)
        bound.plot(latent_dims, [-row["log_p"] for row in mine], ":", label=f"{network}: -log p(x)", **style)
        active.plot(latent_dims, [row["active_units"] for row in mine], label=network, **style)
        neighbours.plot(latent_dims, [100 * row["knn_accuracy"] for row in mine], label=network, **style)
    active.plot(latent_dims, latent_dims, "--", color="#bbbbbb", label="all of them")
    for axes, title in zip(
        figure.axes, ("nats per test image", "active units", "accuracy of 10 nearest neighbours, %"), strict=True
    ):
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


def samples(rows):
    """The paper's Figure 5: decoded draws from the prior as the latent dimension grows, by the largest network."""
    figure = common.figure(1230, 340)
    figure.get_layout_engine().set(w_pad=0.15)
    for axes, latent_dim in zip(figure.subplots(1, len(SAMPLED)), SAMPLED, strict=True):
        (row,) = (row for row in rows if row["latent_dim"] == latent_dim and len(row["hidden_dims"]) == 3)
        common.show_draws(axes, VAE.load(row["best"]), 100)
        axes.set_title(f"{latent_dim}-D latent space", fontsize=11)
    return figure


def main():
    flags = common.parse(__doc__)
    latent_dims = QUICK_DIMS if flags.quick else LATENT_DIMS
    # The largest network first, so that at the end no process waits long for another.
    runs = [
        {"latent_dim": latent_dim, "hidden_dims": hidden_dims, **RECIPE}
        for hidden_dims in reversed(NETWORKS.values())
        for latent_dim in latent_dims
    ]
    rows = common.measured(flags, runs)
    common.write_rows(flags.results_dir / "latent_dim.csv", rows)
    curves(rows, latent_dims).savefig(flags.results_dir / "latent_dim.png", dpi=100)
    samples(rows).savefig(flags.results_dir / "latent_dim_samples.png", dpi=100)
    columns = {"total": 2, "log_p": 2, "active_units": 0, "knn_accuracy": 3, "train_total": 2, "seconds": 0}
    common.print_table(
        ("network", "latent dimension", "-ELBO", "log p(x)", "active", "kNN accuracy", "-ELBO, train", "seconds"),
        [
            ["-".join(map(str, row["hidden_dims"])), row["latent_dim"]]
            + [common.summary([row], *column) for column in columns.items()]
            for row in rows
        ],
    )


if __name__ == "__main__":
    common.run(main)
