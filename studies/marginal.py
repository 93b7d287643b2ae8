"""The paper's Figure 3, and a test of its estimate of log p(x), appendix D: python -m studies.marginal [--quick]

AEVB, wake-sleep and Monte Carlo EM with three latents on 1,000 and 50,000 images; then the estimate against the truth
for two networks. The answer is in docs/studies.md; a first reader can skip this file.
"""

import functools
import itertools
import math
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch.distributions import MultivariateNormal

from inference import hmc, lattice
from model import bce
from studies import common, estimators, paper
from support.data.datasets import pixels
from support.latent import likelihood
from support.machine.arithmetic import fast_arithmetic
from support.seeds import generator

RUN = paper.Run("AEVB", latent_dim=3, hidden=100)
SIZES = (1000, 50_000)  # training images
NUMBERS = (31_600, 100_000, 316_000, 1_000_000, 3_160_000)  # images seen before an estimate, the first a rate's choice
QUICK_NUMBERS = (500, 1000)
IMAGES = 50  # of each set, whose log p(x) is estimated
TESTED = 100  # test images of the table
QUICK_IMAGES = 5
QUICK_TRIALS = 4
METHODS = (*paper.METHODS, "MCEM")
COLORS = paper.COLORS | {"MCEM": "#2a6fb8"}
LEAPS = 10  # of Monte Carlo EM, as the paper says
UPDATES = 5  # of the weights for each sample
FLOOR = 1e-3  # the least deviation of the Gaussian that is fitted to draws, in the prior's
REPEATS = 2
CELLS = {2: 20, 3: 6}  # by latents: of a lattice, per standard deviation of the prior and axis
QUICK_CELLS = {2: 5, 3: 1}
CHUNK = 25  # images at a time
SECOND = 3  # a peak counts if it is at most so many nats below the highest one


class Trial(NamedTuple):
    """How the estimate is made."""

    start: str = "the encoder's mean"  # of the chains
    draws: int = 50
    is_diagonal: bool = False  # the Gaussian that is fitted to them
    plan: hmc.Plan = hmc.Plan()


STARTS = [Trial(start) for start in ("a draw of p(z|x)", "the posterior's peak", "the encoder's mean", "the prior")]
TRIALS = {trial.start: trial for trial in STARTS} | {
    "500 draws": Trial(draws=500),
    "a diagonal Gaussian": Trial(is_diagonal=True),
    "10 leapfrog steps": Trial(plan=hmc.Plan(leaps=10)),
    "65% accepted": Trial(plan=hmc.Plan(target=0.65)),
    "a step size per image": Trial(plan=hmc.Plan(has_own_steps=True)),
    "500 trajectories first": Trial(plan=hmc.Plan(burn_in=500)),
}


def main():
    flags = common.parse(__doc__)
    common.load_dataset(flags)  # missing data are noticed here, once
    runs = {f"{method},{n}": (method, n) for n in SIZES for method in METHODS}
    curves = common.in_parallel(functools.partial(measure_curve, flags), runs)
    rows = [row for curve in curves for row in curve["rows"]]
    common.report(flags.results_dir / "marginal.csv", rows)
    draw_curves(rows).savefig(flags.results_dir / "marginal.png")
    tables = common.in_parallel(functools.partial(measure_trials, flags), {f"{d} latents": d for d in CELLS})
    common.report(flags.results_dir / "appendix_d.csv", [row for table in tables for row in table["rows"]])
    draw_errors([table["errors"] for table in tables]).savefig(flags.results_dir / "appendix_d.png")


def measure_curve(flags, run):
    """Train a method on a number of images, or find it done: its rows of marginal.csv, and the weights of its model."""
    path = flags.results_dir / "runs" / f"marginal,{run[0]},{run[1]}.pt"
    settings = (RUN, paper.RATES, paper.BATCH, paper.DEVIATION, paper.SEED, NUMBERS, IMAGES, CELLS, FLOOR)
    settings += (Trial(), LEAPS, UPDATES)
    identity = repr((run, settings))
    return common.load_or_compute(path, identity, flags.overwrite, functools.partial(fit, flags, *run))


def fit(flags, method, n):
    """What `measure_curve` returns, computed."""
    count, numbers, cells = (QUICK_IMAGES, QUICK_NUMBERS, QUICK_CELLS) if flags.quick else (IMAGES, NUMBERS, CELLS)
    dataset = common.load_dataset(flags)
    dataset = dataset._replace(train_images=dataset.train_images[:n], test_images=dataset.test_images[:count])
    exact = functools.partial(exact_means, cells)
    with fast_arithmetic():
        firsts = {rate: train_curve(dataset, method, rate, numbers[:1], exact)[0][-1]["train"] for rate in paper.RATES}
        rate = max(firsts, key=firsts.get)
        points, model = train_curve(dataset, method, rate, numbers, functools.partial(estimates, exact, method))
    rows = [{"method": method, "trained on": n, "rate": rate} | point for point in points]
    return {"rows": rows, "weights": model.state_dict()}


def train_curve(dataset, method, rate, numbers, figures):
    """paper.train_curve of a new run, also by Monte Carlo EM; and its model."""
    run, model = paper.begin(dataset, RUN._replace(method=method), rate)
    if method != "MCEM":
        return paper.train_curve(run, model, numbers, figures), model
    z = model.prior.sample(len(dataset.train_images), generator(paper.SEED))
    train_epoch = functools.partial(mcem_epoch, {"z": z, "size": torch.full((1, 1), hmc.FIRST_STEP)})
    points = paper.train_curve(run, model, [number // UPDATES for number in numbers], figures, train_epoch)
    return [point | {"images": UPDATES * point["images"]} for point in points], model


def mcem_epoch(chains, run, epoch, on_batch):
    """train.train_epoch for Monte Carlo EM (appendix E): a trajectory of each image's chain, then updates of theta.

    Args:
        chains: "z" of the training images, and the "size" of a leapfrog step. Both are changed.
    """
    order = torch.randperm(len(chains["z"]), generator=generator(run.config.seed, epoch))
    source = generator(run.config.seed, epoch, 1)
    for batch, rows in enumerate(order.split(paper.BATCH)):
        x = pixels(run.dataset.train_images[rows])
        at = functools.partial(hmc.evaluate, log_joint(run.model, x))
        point, accepted = hmc.move(at, at(chains["z"][rows]), chains["size"], LEAPS, source)
        chains["z"][rows] = point.z
        chains["size"] = hmc.tune(chains["size"], accepted, hmc.Plan().target)
        for _ in range(UPDATES):
            run.optimizer.zero_grad()
            bce(run.model.decode(point.z), x).mean().backward()
            run.optimizer.step()
        if on_batch(epoch, batch, None):
            break


def exact_means(cells, model, *sets):
    """The mean log p(x) of training and of test images, by `exact`."""
    return {part: exact(model, images, cells).mean().item() for part, images in zip(paper.STYLES, sets, strict=True)}


def exact(model, images, cells):
    """log p(x), (N,), by a sum over a lattice. likelihood.quadrature takes ten times as long with three latents."""
    return lattice.log_p(functools.partial(log_joints, model), images, model.latent_dim, cells[model.latent_dim])


def log_joints(model, x, z):
    """log p(x, z) of every image x (N, 784) with every z (G, latent_dim), (N, G)."""
    return likelihood.log_likelihoods(model.decode(z), x) + model.prior.log_prob(z)


def log_joint(model, x):
    """log p(x, z), (N,), as a function of z (N, latent_dim), for images x (N, 784)."""
    return lambda z: model.prior.log_prob(z) - bce(model.decode(z), x)


def estimates(exact, method, model, *sets):
    """`exact`, and the paper's estimates. Their chains start at the encoder's mean; Monte Carlo EM has no encoder."""
    figures = exact(model, *sets)
    for part, images in zip(paper.STYLES, sets, strict=True):
        x, source = pixels(images), generator(paper.SEED)
        with torch.no_grad():
            start = model.prior.sample(len(x), source) if method == "MCEM" else model.encode(x)[0]
        found, _ = estimate(log_joint(model, x), start, Trial(), source)
        figures[f"{part}, appendix D"] = found.double().mean().item()
    return figures


def estimate(log_joint, start, trial, source):
    """The paper's estimate of log p(x) (appendix D): log of 1 / mean of q(z) / p(x, z) over draws z of p(z|x).

    q is a Gaussian that is fitted to as many other draws.

    Args:
        log_joint: from z (N, latent_dim) to log p(x, z), (N,).
        start: (N, latent_dim), where the chains begin.

    Returns: (N,), nats per image, and the share of accepted trajectories, (N,).
    """
    points, accepted = hmc.sample(log_joint, start, 2 * trial.draws, trial.plan, source)
    first, second = points.z.split(trial.draws)
    centred = first - first.mean(0)
    covariance = torch.einsum("kni,knj->nij", centred, centred) / (len(first) - 1)
    if trial.is_diagonal:
        covariance = covariance.diagonal(dim1=1, dim2=2).diag_embed()
    q = MultivariateNormal(first.mean(0), covariance + FLOOR**2 * torch.eye(start.shape[1]))
    log_ratios = q.log_prob(second) - points.log_density[len(first) :]
    return math.log(len(second)) - log_ratios.logsumexp(0), accepted


def measure_trials(flags, latents):
    """The rows of appendix_d.csv of a network, and its errors (N,) by trial, computed or found done."""
    path = flags.results_dir / "runs" / f"appendix_d,{latents}.pt"
    identity = repr((latents, TRIALS, TESTED, REPEATS, CELLS, FLOOR, SECOND, NUMBERS, paper.SEED))
    return common.load_or_compute(path, identity, flags.overwrite, functools.partial(compare, flags, latents))


def compare(flags, latents):
    """What `measure_trials` returns, computed: for the documented run, or AEVB of Figure 3 on all its images."""
    if latents == 2:
        _, model = common.train_run(common.complete(common.DOCUMENTED, flags, estimators.SETTINGS))
    else:
        model = paper.build(RUN, 784)
        model.load_state_dict(measure_curve(flags, ("AEVB", SIZES[-1]))["weights"])
    images = common.load_dataset(flags).test_images
    n, cells = (QUICK_IMAGES, QUICK_CELLS) if flags.quick else (TESTED, CELLS)
    images = images[:: len(images) // n][:n]
    truth = exact(model, images, cells)
    starts, has_several = find_starts_and_modes(model, images, cells[latents])
    rows, all_errors = [], {}
    for name, trial in itertools.islice(TRIALS.items(), QUICK_TRIALS if flags.quick else None):
        x, start = pixels(images).repeat(REPEATS, 1), starts[trial.start].repeat(REPEATS, 1)
        found, accepted = estimate(log_joint(model, x), start, trial, generator(paper.SEED))
        errors = found.view(REPEATS, n).double() - truth
        means = errors.mean(0)
        figures = {
            "error": means.mean(),
            "standard error": means.std() / n**0.5,
            "between repeats": errors.var(0).mean().sqrt(),
            "worst": errors.min(),
            "over a nat too low": (errors < -1).double().mean(),
            "accepted": accepted.mean(),
            "one mode": means[~has_several].mean(),
            "several modes": means[has_several].mean(),
            "share with several": has_several.double().mean(),
        }
        rows.append({"latents": latents, "trial": name} | {key: value.item() for key, value in figures.items()})
        all_errors[name] = errors.flatten()
    return {"rows": rows, "errors": all_errors}


@torch.no_grad()
def find_starts_and_modes(model, images, cells):
    """Where chains of images (N, 784) uint8 start, (N, latent_dim) by name, and whose posterior has several modes."""
    dims, source = model.latent_dim, generator(paper.SEED)
    z = lattice.box(dims, cells)
    window = cells // 4 * 2 + 1
    pool = F.max_pool2d if dims == 2 else F.max_pool3d
    drawn, peaks, several = [], [], []
    for x in map(pixels, images.split(CHUNK)):
        density = torch.cat([log_joints(model, x, part) for part in z.split(lattice.CELLS_AT_A_TIME)], 1)
        drawn.append(torch.multinomial(density.softmax(1), 1, generator=source).squeeze(1))
        peaks.append(density.argmax(1))
        raster = density.view(-1, 1, *[round(len(z) ** (1 / dims))] * dims)
        is_peak = (pool(raster, window, 1, window // 2) == raster).flatten(1)
        several.append((is_peak & (density > density.amax(1, keepdim=True) - SECOND)).sum(1) > 1)
    jitter = (torch.rand(len(images), dims, generator=source) - 0.5) / cells
    mu, _ = model.encode(pixels(images))
    places = (z[torch.cat(drawn)] + jitter, z[torch.cat(peaks)], mu, model.prior.sample(len(images), source))
    return dict(zip((trial.start for trial in STARTS), places, strict=True)), torch.cat(several)


def draw_curves(rows):
    """Figure 3: log p(x) and its estimate, in a panel for each number of training images."""
    figure = common.new_figure(1130, 460)
    for axes, n in zip(figure.subplots(1, len(SIZES)), SIZES, strict=True):
        for method, (part, style) in itertools.product(METHODS, paper.STYLES.items()):
            mine, color = [row for row in rows if (row["method"], row["trained on"]) == (method, n)], COLORS[method]
            images = [row["images"] for row in mine]
            axes.plot(images, [row[part] for row in mine], style, color=color, label=f"{method}, {part}")
            estimates = [row[f"{part}, appendix D"] for row in mine]
            axes.plot(images, estimates, "ox"[part == "test"], color=color, fillstyle="none", markersize=5)
        common.style(axes, f"{n:,} training images", xscale="log", xlabel="training images evaluated")
        ticks = sorted({row["images"] for row in rows if row["method"] == METHODS[0]})
        axes.set_xticks(ticks, [f"{number:,}" for number in ticks])
        axes.minorticks_off()
    figure.axes[0].set_ylabel("log p(x), nats per image")
    lines = figure.axes[0].get_legend_handles_labels()
    title = "lines: quadrature\nmarks: appendix D\n(o train, x test)"
    figure.legend(*lines, loc="outside right center", frameon=False, fontsize=9, title=title)
    return figure


def draw_errors(tables):
    """The figure: a panel for each network, in it the errors of the estimate by where the chains start.

    Args:
        tables: for each network, the errors (N,) by trial.
    """
    figure = common.new_figure(1130, 400)
    for axes, (latents, errors) in zip(figure.subplots(1, len(tables)), zip(CELLS, tables, strict=True), strict=True):
        for trial in STARTS:
            values = errors[trial.start].sort().values
            axes.plot(values, torch.linspace(0, 100, len(values)), label=trial.start)
        common.style(axes, f"{latents} latents", xlabel="estimate minus log p(x), nats", ylabel="% of the images below")
        axes.set_xscale("symlog", linthresh=1)
        axes.legend(frameon=False, fontsize=9, title="chains start at")
    return figure


if __name__ == "__main__":
    common.run_study(main)
