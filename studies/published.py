"""Can published log p(x) of VAEs be reached on binary MNIST? Trains them: python -m studies.published [--quick]

Three published networks by their own protocols, what may explain a difference, and a better recipe for the first. The
answer is in docs/studies.md; a first reader can skip this file.
"""

import dataclasses
import functools
import math
import time
from typing import NamedTuple

import torch
from torch import nn
from torch.optim.lr_scheduler import LambdaLR

import train
from studies import common
from support.data import datasets
from support.latent import likelihood
from support.machine.arithmetic import fast_arithmetic
from support.run.config import Config
from support.seeds import EVALUATION_SEED, generator
from variants import binary

HELD_OUT = 10_000  # the last training images; the best epoch is the one with the best bound on them
QUICK_HELD_OUT = 300
LOOKS = 100  # at the held-out images, at most
SAVE_EVERY = 10  # epochs
SAMPLES = 200  # per image, for log p(x) of all test images
QUICK_SAMPLES = 10
MORE_SAMPLES = (1000, 5000)  # for every 20th test image, to see the bias of SAMPLES
FEW = 20
CHANGED = ("model", "optimizer", "scheduler")  # what training changes of a train.Run
COLUMNS = ("run", "epoch", "train_total", "test_total", "log_p", "ess", "unsure", "log_p_1000", "log_p_5000", "minutes")

PYTHAE = Config(latent_dim=40, batch_size=100, lr=1e-4, epochs=500)
ALTOSAAR = Config(latent_dim=128, hidden_dims=(256, 256), lr=1e-3, epochs=166)
BURDA = Config(latent_dim=50, hidden_dims=(200, 200), batch_size=20, lr=1e-3, epochs=121)
SHORT = dataclasses.replace(PYTHAE, lr=2e-3, schedule="onecycle", epochs=60)


@dataclasses.dataclass(frozen=True)
class Trial:
    """How a network is trained: a Config, and what no flag sets."""

    config: Config
    protocol: str = ""  # a key of PROTOCOLS: another optimizer, schedule, activation
    draw: int = binary.BINARY_SEED  # seeds the draw of the pixels
    redraws: bool = False  # whether the training pixels are drawn again in every epoch
    held_out: int = HELD_OUT  # 0: all training images train, and the last epoch is taken
    marks: tuple[int, ...] = ()  # epochs whose models are measured besides the best one
    more_samples: bool = True  # whether log p(x) is also estimated with MORE_SAMPLES


def short(draw=binary.BINARY_SEED, redraws=False, **settings):
    """The network of pythae in 60 epochs."""
    return Trial(dataclasses.replace(SHORT, **settings), draw=draw, redraws=redraws, more_samples=False)


TRIALS = {
    "pythae": Trial(PYTHAE, "pythae", marks=(100, 200)),
    "pythae, two layers": Trial(dataclasses.replace(PYTHAE, hidden_dims=(400, 400)), "pythae", marks=(200,)),
    "recipe": Trial(dataclasses.replace(SHORT, epochs=200), redraws=True, held_out=0),
    "altosaar": Trial(ALTOSAAR, "altosaar", marks=(77,)),
    "burda, redrawn": Trial(BURDA, "burda", redraws=True, held_out=0, marks=(13, 40)),
    "short": short(),
    "short, redrawn": short(redraws=True),
    "short, two layers": short(hidden_dims=(400, 400)),
    "short, dropout": short(input_dropout=0.2),
    "short, draw 1": short(draw=1),
    "short, redrawn, 5e-3": short(redraws=True, lr=5e-3),
}


class Images(NamedTuple):
    """What a trial sees."""

    grey: torch.Tensor  # the training images before they are drawn, (N, 784) uint8
    dataset: datasets.Dataset  # binary; its training images are N
    held_out: torch.Tensor  # binary, (M, 784) uint8


def main():
    flags = common.parse(__doc__)
    common.load_dataset(flags)  # missing data are noticed here, once
    named = {name: (name, shorten(trial) if flags.quick else trial) for name, trial in TRIALS.items()}
    results = common.in_parallel(functools.partial(measure, flags=flags), named)
    rows = [row for result in results for row in result]
    common.write_csv(flags.results_dir / "published.csv", rows)
    cells = [["-" if row[column] is None else common.cell(row[column]) for column in COLUMNS] for row in rows]
    common.print_rows(COLUMNS, cells)


def shorten(trial):
    """The trial with two epochs, of which the first is measured as well."""
    config = dataclasses.replace(trial.config, epochs=2, batch_size=64)
    return dataclasses.replace(trial, config=config, held_out=trial.held_out and QUICK_HELD_OUT, marks=(1,))


def measure(named, flags):
    """Train a trial, or find it trained, and measure its models: a row of published.csv for each.

    Args:
        named: the trial's name, and the trial.
    """
    name, trial = named
    images = split(trial, common.load_dataset(flags))
    run = begin(trial, images.dataset)
    path = flags.results_dir / "runs" / f"published,{name.replace(', ', '-').replace(' ', '_')}.pt"
    with fast_arithmetic():
        state = fit(trial, images, run, path, flags.overwrite)
    if "rows" not in state:
        state["rows"] = [
            row_of(trial, state, epoch, run) | measure_model(run.model, images, trial, flags.quick)
            for epoch in sorted(state["models"])
        ]
        save(state, trial, run, path)
    return [{"run": name} | row for row in state["rows"]]


def row_of(trial, state, epoch, run):
    """Put the weights after an epoch into the run's model; returns the first cells of their row of published.csv."""
    run.model.load_state_dict(state["models"][epoch])
    minutes = state["seconds"] / 60 * epoch / trial.config.epochs
    return {"epoch": epoch, "steps": epoch * steps_per_epoch(run), "minutes": minutes}


def split(trial, grey):
    """The Images of a trial, from grey ones."""
    n = len(grey.train_images) - trial.held_out
    drawn = binary.binary(grey, trial.draw)
    dataset = drawn._replace(train_images=drawn.train_images[:n], train_labels=drawn.train_labels[:n])
    return Images(grey.train_images[:n], dataset, drawn.train_images[n:])


def begin(trial, dataset):
    """A train.Run of the trial's network, optimizer and schedule."""
    run = train.begin(dataclasses.replace(trial.config, precision="float32"), dataset)
    if trial.protocol:
        PROTOCOLS[trial.protocol](run)
    return run


def follow_pythae(run):
    """The learning rate falls by 10^(-1/5) after 200 and after 350 epochs (Chadebec et al., 2022)."""
    follow(run, lambda epoch: 10 ** (-((epoch >= 200) + (epoch >= 350)) / 5))


def follow_altosaar(run):
    """RMSprop, its gradients centred."""
    run.optimizer = torch.optim.RMSprop(run.model.parameters(), run.config.lr, centered=True)
    follow(run, lambda epoch: 1.0)


def follow_burda(run):
    """Tanh, the initial weights of Glorot & Bengio, and rates 10^(-i/7) as high for 3^i epochs each, i = 0, 1, ...

    Burda et al. (2016), section 5, who go on to i = 7.
    """
    for network in (run.model.encoder, run.model.decoder):
        for i, layer in enumerate(network):
            if isinstance(layer, nn.ReLU):
                network[i] = nn.Tanh()
            elif isinstance(layer, nn.Linear):
                nn.init.xavier_uniform_(layer.weight)
                nn.init.zeros_(layer.bias)
    run.optimizer = torch.optim.Adam(run.model.parameters(), run.config.lr, eps=1e-4, fused=True)
    follow(run, burda_factor)


def burda_factor(epoch):
    """The learning rate in an epoch (0-based) relative to the first one's."""
    i = 0
    while epoch >= 3**i:
        epoch -= 3**i
        i += 1
    return 10 ** (-i / 7)


def follow(run, factor):
    """Let an epoch (0-based) have the run's learning rate times factor(epoch)."""
    steps = steps_per_epoch(run)
    run.scheduler = LambdaLR(run.optimizer, lambda step: factor(step // steps))


def steps_per_epoch(run):
    """Batches in an epoch."""
    return math.ceil(len(run.dataset.train_images) / run.config.batch_size)


PROTOCOLS = {"pythae": follow_pythae, "altosaar": follow_altosaar, "burda": follow_burda}


def fit(trial, images, run, path, overwrite):
    """Train a trial, continue it, or find it trained.

    Args:
        run: from `begin`; it is changed.
        path: the file in which the trial is saved.

    Returns: a dict; "models" are weights by epoch, at the trial's marks and at its best epoch, and "seconds" those of
        one core for all epochs.
    """
    state = {"epoch": 0, "seconds": 0.0, "models": {}, "best": None, "total": float("inf")}
    saved = common.load_saved(path, identity(trial), overwrite)
    if saved:
        state = saved["state"]
        for name in CHANGED:
            getattr(run, name).load_state_dict(saved[name])
    for epoch in range(state["epoch"] + 1, trial.config.epochs + 1):
        start = time.process_time()
        if trial.redraws:
            drawn = binary.binarise(images.grey, trial.draw, 0, epoch)
            run.dataset = run.dataset._replace(train_images=drawn)
        train.check_finite(run, train.train_epoch(run, epoch), epoch)
        keep(state, trial, run.model, images.held_out, epoch)
        state |= {"epoch": epoch, "seconds": state["seconds"] + time.process_time() - start}
        if epoch % SAVE_EVERY == 0 or epoch == trial.config.epochs:
            save(state, trial, run, path)
    return state


def keep(state, trial, model, held_out, epoch):
    """Keep the weights after an epoch in state["models"] if it is a mark of the trial or its best epoch so far."""
    is_last = epoch == trial.config.epochs
    is_best = is_last
    if trial.held_out:
        is_looked_at = is_last or epoch % math.ceil(trial.config.epochs / LOOKS) == 0
        held_out_total = total(model, held_out) if is_looked_at else float("inf")
        is_best = held_out_total < state["total"]
    if is_best and state["best"] not in (None, *trial.marks):
        del state["models"][state["best"]]
    if is_best and trial.held_out:
        state |= {"best": epoch, "total": held_out_total}
    if is_best or epoch in trial.marks:
        state["models"][epoch] = {name: value.clone() for name, value in model.state_dict().items()}


def identity(trial):
    """The trial as text."""
    counts = (HELD_OUT, LOOKS, SAMPLES, MORE_SAMPLES, FEW)
    return repr((common.config_text(trial.config), dataclasses.replace(trial, config=None), counts))


def save(state, trial, run, path):
    """Write a trial's file."""
    common.save(path, identity(trial), {"state": state} | {name: getattr(run, name).state_dict() for name in CHANGED})


def measure_model(model, images, trial, is_quick):
    """The figures of a model in published.csv, in nats per image of the test set, unless another is named.

    A total is BCE + KLD, minus the bound. ess is the median effective sample size of log_p, and unsure the share of the
    images with fewer than 5. log_p for more samples is log_p plus the difference from it over every 20th image, whose
    standard error is given.
    """
    test = images.dataset.test_images
    log_p, ess = estimate(model.eval(), test, QUICK_SAMPLES if is_quick else SAMPLES)
    row = {
        "train_total": total(model, images.dataset.train_images[: len(test)]),
        "held_out_total": total(model, images.held_out) if trial.held_out else None,
        "test_total": total(model, test),
        "log_p": log_p.mean().item(),
        "log_p_error": (log_p.std() / len(test) ** 0.5).item(),
        "ess": ess.median().item(),
        "unsure": (ess < likelihood.FEW_SAMPLES).double().mean().item(),
    }
    for more in MORE_SAMPLES:
        gain = estimate(model, test[::FEW], more)[0] - log_p[::FEW] if trial.more_samples else None
        row[f"log_p_{more}"] = None if gain is None else row["log_p"] + gain.mean().item()
        row[f"error_{more}"] = None if gain is None else (gain.std() / len(gain) ** 0.5).item()
    return row


def total(model, images):
    """BCE + KLD of images (N, 784) uint8, in nats per image."""
    evaluation = train.evaluate(model, images)
    return evaluation.bce + evaluation.divergence


def estimate(model, images, k):
    """log p(x) of images (N, 784) uint8 from k samples of q(z|x) each, in nats, and effective sample sizes: (N,)."""
    found = likelihood.importance_sampling(model, likelihood.Proposal(), images, k, generator(EVALUATION_SEED))
    return found.log_p.double(), found.ess


if __name__ == "__main__":
    common.run_study(main)
