"""What the studies share: how they train and measure their runs, and how they write tables and figures.

A run is `main.run` of a Config. The same call begins it, continues it, or finds it done, so an interrupted study
continues with the same command. Skip this file on a first reading.
"""

import argparse
import concurrent.futures
import contextlib
import csv
import dataclasses
import functools
import multiprocessing
import os
import signal
import statistics
import sys
import threading
import time
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from matplotlib.figure import Figure
from tqdm import tqdm

import main
import train
import utils
from studies import measures
from support.data import datasets
from support.errors import UserError
from support.latent import likelihood
from support.latent.units import active_units
from support.machine.environment import usable_cpus
from support.run import checkpoint, storage
from support.run.config import Config, default_data_dir, directory
from support.run.console import exit_code
from support.run.signals import leave_on_signals
from support.seeds import generator
from variants.priors import moments

FLAGS = {"--data_dir", "--results_dir", "--quick", "--overwrite"}
DOCUMENTED = Config(epochs=100)  # the run of the README
# The code that decides what a study measures, beside the study's own.
MEASURING = (*checkpoint.ARITHMETIC, "inference/*.py", "support/latent/*.py")
SAMPLES = 500  # per image, for log p(x) with more than two latents
QUICK_SAMPLES = 100
QUICK_EPOCHS = 2
DRAWS_SEED = 1  # not EVALUATION_SEED: z would be made from the very draws that it is compared with
EVERY = 5  # the bound and log p(x) are means over every fifth test image
ENCODED = 1000  # training images encoded at a time
IMAGE_SIDE = 28  # pixels
POINT_SIZE = 1.3  # typographic points
GAP = 2  # pixels around an image in a picture of many


class Result(NamedTuple):
    """A finished run, and what is measured at its best epoch: the columns of a study's CSV after the settings."""

    config: Config
    epoch: int  # the best one
    bce: float  # this, kld, total and both log_p: nats per image, over every fifth test image
    kld: float | None  # None under MMD
    total: float
    train_total: float  # in training, over that epoch
    log_p: float  # by quadrature, or with `SAMPLES` samples per image
    ess: float | None  # the median effective sample size of log_p; None by quadrature
    unsure: float | None  # the share of the images with fewer than 5 effective samples; None by quadrature
    active_units: int
    knn_accuracy: float
    sliced_wasserstein: float  # this and mmd: between q(z) and p(z), in standard deviations of the prior
    mmd: float
    seconds: float  # of training, all epochs

    def load_model(self):
        """The model of the best epoch."""
        return checkpoint.load_model(self.config.results_dir / "best.pt")


def parse(description, names=()):
    """The flags of a study: data_dir, results_dir, quick and overwrite, and dataset if several names may be given.

    Makes results_dir. overwrite is the time before which files are to be replaced, in seconds; 0: none are.
    """
    parser = argparse.ArgumentParser(description=(description or "").partition("\n")[0], allow_abbrev=False)
    if names:
        parser.add_argument("--dataset", choices=names, default=names[0], help=f"default: {names[0]}")
    data_dir, results_dir = default_data_dir(), Path("results/studies")
    parser.add_argument("--data_dir", "--data-dir", type=directory, default=data_dir, help=f"default: {data_dir}")
    parser.add_argument(
        "--results_dir", "--results-dir", type=directory, default=results_dir, help=f"default: {results_dir}"
    )
    tiny = "does the study work? tiny runs on scikit-learn's digits, in the folder quick of --results_dir"
    parser.add_argument("--quick", action="store_true", help=tiny)
    parser.add_argument("--overwrite", action="store_true", help="train every run again")
    flags = parser.parse_args()
    flags.overwrite *= time.time()  # what this command has written itself stays
    if flags.quick:
        flags.results_dir /= "quick"  # never over the results of a full study
    flags.results_dir.mkdir(parents=True, exist_ok=True)
    return flags


def load_dataset(flags):
    """The dataset that a study trains on."""
    return datasets.load("digits" if flags.quick else "mnist", flags.data_dir)


def measure_runs(flags, runs, settings):
    """Train and measure runs, one process per core.

    Args:
        runs: a Config for each run; its data, place and device are filled in here.
        settings: the names of the fields of Config that tell the study's runs apart.

    Returns: a Result for each run, in the order of `runs`.
    """
    load_dataset(flags)  # missing data are noticed here, once
    runs = [complete(config, flags, settings) for config in runs]
    k = QUICK_SAMPLES if flags.quick else SAMPLES
    print(f"The output of the runs is in {flags.results_dir / 'runs'}")
    return in_parallel(functools.partial(measure, k=k), {config.results_dir.name: config for config in runs})


def in_parallel(work, items):
    """Apply a function to each of some named items, one process per core; a line is printed as each is done.

    Args:
        work: a function of one item.
        items: from a name to its item.

    Returns: what `work` returned, in the order of `items`.
    """
    # The processes import PyTorch after this. One thread each is faster than sharing all cores.
    os.environ["OMP_NUM_THREADS"] = "1"
    workers = usable_cpus()
    print(f"{len(items)} runs, {workers} at a time", flush=True)
    pool = concurrent.futures.ProcessPoolExecutor(
        max_workers=workers,
        mp_context=multiprocessing.get_context("spawn" if sys.platform == "win32" else "forkserver"),
        initializer=start_worker,
    )
    try:
        futures = {pool.submit(work, item): name for name, item in items.items()}
        for done, future in enumerate(concurrent.futures.as_completed(futures), 1):
            outcome = "failed; the runs under way are awaited" if future.exception() else "done"
            print(f"{done} of {len(items)} {outcome}: {futures[future]}", flush=True)
            future.result()  # raises what the run raised
        return [future.result() for future in futures]
    except concurrent.futures.BrokenExecutor as error:
        raise UserError("a process of the study was killed, perhaps because memory ran out") from error
    finally:
        pool.shutdown(cancel_futures=True)


def start_worker():
    """Let Ctrl-C end a process of the pool at once, without a word: the main process reports it."""
    signal.signal(signal.SIGINT, signal.SIG_DFL)
    tqdm.set_lock(threading.RLock())  # tqdm's own lock is a semaphore, which would outlive the process


def complete(config, flags, settings):
    """The Config with which a study trains a run: on one core, in a directory named after its settings."""
    if flags.quick:
        config = dataclasses.replace(config, epochs=QUICK_EPOCHS)
    name = ",".join(f"{setting}={plain(getattr(config, setting))}" for setting in settings)
    return dataclasses.replace(
        config,
        dataset="digits" if flags.quick else "mnist",
        data_dir=flags.data_dir,
        results_dir=flags.results_dir / "runs" / name,
        device="cpu",
        log_interval=10**6,
        overwrite=bool(flags.overwrite),
        named=frozenset({"dataset"}),  # a run never falls back to another dataset
    )


def hold_out(dataset, n):
    """The dataset with its last n training images in place of the test set."""
    return dataset._replace(
        train_images=dataset.train_images[:-n],
        train_labels=dataset.train_labels[:-n],
        test_images=dataset.train_images[-n:],
        test_labels=dataset.train_labels[-n:],
    )


def load_saved(path, identity, overwrite):
    """What `save` has written to a file since the time `overwrite`, or None if there is nothing.

    Raises:
        UserError: the file is damaged, of another identity, or of other code in the sense of `MEASURING`.
    """
    if not path.exists() or path.stat().st_mtime < overwrite:
        return None
    saved = checkpoint.read(path)
    if saved.get("identity") != [identity, checkpoint.fingerprint(MEASURING)]:
        raise UserError(f"{path} holds a run of other settings or other code; --overwrite trains every run again")
    return saved["content"]


def save(path, identity, content):
    """Write tensors and plain values to a file, and what they are the outcome of: text."""
    identity = [identity, checkpoint.fingerprint(MEASURING)]
    storage.write(path, checkpoint.serialize({"format": checkpoint.FORMAT, "identity": identity, "content": content}))


def load_or_compute(path, identity, overwrite, work):
    """What `work` returns, which is saved to a file, or what an earlier study has saved there."""
    content = load_saved(path, identity, overwrite)
    if content is None:
        content = work()
        save(path, identity, content)
    return content


def config_text(config):
    """A Config as text. Where its data and its results lie does not matter."""
    return repr(dataclasses.replace(config, data_dir=Path(), results_dir=Path()))


def plain(value):
    """A setting as part of a directory's name: (512, 256) becomes 512-256."""
    return "-".join(map(str, value)) if isinstance(value, tuple) else value


def train_run(config):
    """Train a run, or find it done. Its output goes to a file beside its directory.

    Returns: the rows of its epochs, and the model of the best one.
    """
    folder = config.results_dir
    folder.parent.mkdir(parents=True, exist_ok=True)
    with contextlib.ExitStack() as stack:
        log = stack.enter_context(open(f"{folder}.log", "a", encoding="utf-8"))
        stack.enter_context(contextlib.redirect_stdout(log))
        stack.enter_context(contextlib.redirect_stderr(log))
        main.run(config)
    return checkpoint.load(folder / "checkpoint.pt").history, checkpoint.load_model(folder / "best.pt")


def measure(config, k):
    """Train a run, or find it done, and measure it.

    Args:
        k: samples per image for log p(x) with more than two latents.

    Returns: a Result.
    """
    history, model = train_run(config)
    best = checkpoint.best_of(history)
    dataset = datasets.load(config.dataset, config.data_dir)
    return Result(
        config=config,
        epoch=best["epoch"],
        train_total=best["train_total"],
        seconds=sum(row["seconds"] for row in history),
        **measure_likelihood(model, config, dataset, k),
        **measure_latents(model, dataset),
    )


def measure_likelihood(model, config, dataset, k):
    """The bound and log p(x) of the same test images: otherwise their difference would also be that of the images."""
    images = dataset.test_images[::EVERY]
    bce, divergence, *_ = train.evaluate(model, images)
    estimate = likelihood.estimate(model, images, k)
    is_exact = estimate.k is None
    return {
        "bce": bce,
        "kld": divergence if config.divergence == "kl" else None,
        "total": bce + config.divergence_weight * divergence,
        "log_p": estimate.log_p.double().mean().item(),
        "ess": None if is_exact else estimate.ess.median().item(),
        "unsure": None if is_exact else (estimate.ess < likelihood.FEW_SAMPLES).double().mean().item(),
    }


@torch.no_grad()
def measure_latents(model, dataset):
    """What `measures` tells about the latents of the test images."""
    *_, z, mu = train.evaluate(model, dataset.test_images)
    train_mu = torch.cat([model.encode(datasets.pixels(images))[0] for images in dataset.train_images.split(ENCODED)])
    # A learned prior has a scale of its own, so distances are in its standard deviations.
    mean, deviation = moments(model.prior)
    draws = (model.prior.sample(len(z), generator(DRAWS_SEED)) - mean) / deviation
    z = (z - mean) / deviation
    return {
        "active_units": active_units(mu),
        "knn_accuracy": measures.knn_accuracy(train_mu, dataset.train_labels, mu, dataset.test_labels),
        "sliced_wasserstein": measures.sliced_wasserstein(z, draws, generator(DRAWS_SEED, 1)),
        "mmd": measures.chunked_mmd(z, draws),
    }


def write_results(path, results, settings):
    """Write a CSV with a row per run: its settings, then its figures."""
    rows = []
    for result in results:
        figures = result._asdict()
        config = figures.pop("config")
        rows.append({setting: getattr(config, setting) for setting in settings} | figures)
    write_csv(path, rows)


def write_csv(path, rows):
    """Write dicts as a CSV: numbers to four decimals, a tuple as [1, 2], None as an empty cell."""
    with open(path, "w", newline="", encoding="utf-8") as file:
        table = csv.DictWriter(file, rows[0], lineterminator="\n")
        table.writeheader()
        table.writerows({name: cell(value) for name, value in row.items()} for row in rows)


def cell(value):
    """A value as it is written in a CSV."""
    if isinstance(value, float):
        return f"{value:.4f}"
    return list(value) if isinstance(value, tuple) else value


def print_table(labels, groups, columns):
    """Print a Markdown table with a row per group of runs that differ only in their seed.

    Args:
        labels: heads of the first columns.
        groups: from what stands under these heads (a tuple) to what is known of the group's runs, a tuple with names.
        columns: from a column's head to one of these names and its decimals.
    """
    rows = [(*names, *(summary(runs, *column) for column in columns.values())) for names, runs in groups.items()]
    print_rows((*labels, *columns), rows)


def report(path, rows):
    """Write dicts as a CSV, and print them as a table."""
    write_csv(path, rows)
    print_rows(rows[0], [map(cell, row.values()) for row in rows])


def print_rows(head, rows):
    """Print a Markdown table."""
    print()
    for cells in (head, ["---"] * len(head), *rows):
        print(f"| {' | '.join(map(str, cells))} |")
    print()


def summary(runs, field, decimals):
    """A field of some runs as text: mean ± standard deviation, or a dash if it is None."""
    values = [getattr(run, field) for run in runs]
    if None in values:
        return "-"
    deviation = f" ± {statistics.stdev(values):.{decimals}f}" if len(values) > 1 else ""
    return f"{statistics.mean(values):.{decimals}f}{deviation}"


def new_figure(width, height):
    """An empty figure of width x height pixels."""
    return Figure(figsize=(width / 100, height / 100), dpi=100, layout="constrained")


def style(axes, title, **settings):
    """Give a panel its title, a grid, and what else `axes.set` knows."""
    axes.set_title(title, fontsize=11)
    axes.set(**settings)
    axes.grid(color="#e8e8e8", linewidth=0.6)


def show_means(axes, mu, labels):
    """Show a point for each image at its latent mean, mu (N, 2), coloured by its class, labels (N,)."""
    axes.scatter(*mu.numpy().T, POINT_SIZE**2, np.array(utils.CLASS_COLORS)[labels.numpy()], marker="s", linewidths=0)


def show_draws(axes, model, n):
    """Show n decoded draws from a model's prior, ten in a row."""
    show_images(axes, 1 - model.sample(n, generator(DRAWS_SEED)).view(-1, 10, IMAGE_SIDE, IMAGE_SIDE))


def show_images(axes, images):
    """Show grey images (rows, columns, height, width), values in [0, 1], on white."""
    padded = torch.nn.functional.pad(images, (GAP,) * 4, value=1)
    axes.imshow(padded.permute(0, 2, 1, 3).flatten(2).flatten(0, 1), cmap="gray", vmin=0, vmax=1)
    axes.axis("off")


def run_study(study):
    """Call a study's main function, then print how long it took; end the process with its exit code."""

    def timed():
        start = time.perf_counter()
        study()
        print(f"{time.perf_counter() - start:.0f} s on this machine ({usable_cpus()} cores)")

    line = "Interrupted; the same command continues the study"
    if "--overwrite" in sys.argv:
        line = "Interrupted; --overwrite starts again; without it, runs that were not replaced yet count as done"
    leave_on_signals(line)
    sys.exit(exit_code(Path(sys.argv[0]).name, timed, FLAGS))
