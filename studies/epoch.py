"""Which epoch is reported? Choosing it on the test set against held-out images: python -m studies.epoch [--quick]

The documented run on 55,000 images, five seeds. After each epoch the 5,000 held-out images and the test set are
evaluated. The answer is in docs/results.md; a first reader can skip this file.
"""

import dataclasses
import functools
import statistics
from typing import NamedTuple

import train
from studies import common
from support.latent import likelihood
from support.machine import arithmetic
from variants import build_model

SEEDS = (1, 2, 3, 4, 5)
HELD_OUT = 5000  # training images
QUICK_HELD_OUT = 300
LAST = 10  # epochs
COLUMNS = {
    "best on the test set": ("best", 2),
    "best on held-out images": ("chosen", 2),
    "last": ("last", 2),
    "mean of the last ten": ("last_ten", 2),
    "log p(x): best on the test set": ("best_log_p", 2),
    "best on held-out images ": ("chosen_log_p", 2),
    "last ": ("last_log_p", 2),
}


class Row(NamedTuple):
    """A seed's row of epoch.csv: totals and log p(x) of the test images, in nats per image."""

    seed: int
    best_epoch: int  # by the test set
    best: float  # the total there
    chosen_epoch: int  # by the held-out images
    chosen: float
    last: float
    last_ten: float  # the mean over the last ten epochs
    best_log_p: float
    chosen_log_p: float
    last_log_p: float

    @property
    def optimism(self):
        """How much better the total is if the test set chooses the epoch."""
        return self.chosen - self.best


def main():
    flags = common.parse(__doc__)
    common.load_dataset(flags)  # missing data are noticed here, once
    seeds = SEEDS[:2] if flags.quick else SEEDS
    rows = common.in_parallel(functools.partial(measure, flags=flags), {f"seed {seed}": seed for seed in seeds})
    common.write_csv(flags.results_dir / "epoch.csv", [row._asdict() for row in rows])
    common.print_table(("seed",), {(row.seed,): [row] for row in rows} | {("all",): rows}, COLUMNS)
    print(f"The test set's choice is better by {common.summary(rows, 'optimism', 2)} nats")


def measure(seed, flags):
    """The Row of a seed, trained or found in its file."""
    epochs = common.QUICK_EPOCHS if flags.quick else common.DOCUMENTED.epochs
    config = dataclasses.replace(common.DOCUMENTED, seed=seed, epochs=epochs)
    path = flags.results_dir / "runs" / f"epoch,seed={seed}.pt"
    dataset = common.load_dataset(flags)
    n_held_out = QUICK_HELD_OUT if flags.quick else HELD_OUT
    identity = repr((common.config_text(config), n_held_out))
    work = functools.partial(fit, config, dataset, n_held_out)
    saved = common.load_or_compute(path, identity, flags.overwrite, work)
    totals, weights = saved["test"], saved["weights"]
    best, chosen = argmin(totals), argmin(saved["held_out"])

    def log_p(epoch):
        model = build_model(config)
        model.load_state_dict(weights[epoch + 1])
        return likelihood.quadrature(model.eval(), dataset.test_images).double().mean().item()

    return Row(
        seed=seed,
        best_epoch=best + 1,
        best=totals[best],
        chosen_epoch=chosen + 1,
        chosen=totals[chosen],
        last=totals[-1],
        last_ten=statistics.mean(totals[-LAST:]),
        best_log_p=log_p(best),
        chosen_log_p=log_p(chosen),
        last_log_p=log_p(len(totals) - 1),
    )


def fit(config, dataset, n_held_out):
    """Train without the last images. Returns both totals by epoch, and the weights of the epochs that a row needs."""
    totals = {"held_out": [], "test": []}
    weights = {}
    with arithmetic.fast_arithmetic():
        run = train.begin(config, common.hold_out(dataset, n_held_out))
        for result in train.epochs(run):
            test = train.evaluate(run.model, dataset.test_images)
            totals["held_out"].append(result.row["test_total"])
            totals["test"].append(test.bce + test.divergence)
            epoch = len(totals["test"])
            needed = {argmin(values) + 1 for values in totals.values()} | {epoch}
            weights[epoch] = {name: value.clone() for name, value in run.model.state_dict().items()}
            weights = {epoch: weights[epoch] for epoch in needed}
    return totals | {"weights": weights}


def argmin(values):
    """The position of the smallest value."""
    return min(range(len(values)), key=values.__getitem__)


if __name__ == "__main__":
    common.run_study(main)
