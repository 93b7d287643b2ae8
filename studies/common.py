"""What the studies share: runs of main.py, taken up where they were left, and what the yardsticks say of them."""

import argparse
import concurrent.futures
import contextlib
import csv
import multiprocessing
import os
import signal
import statistics
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent.parent))

import torch
from matplotlib.figure import Figure

import checkpoint
import data
import main
import train
import yardsticks
from errors import UserError
from model import VAE

SAMPLES, QUICK_SAMPLES = 500, 10  # an image, for log p(x)
DRAWS_SEED = 1  # not evaluation's: z would be made of the very draws that it is compared with
EVERY = 5  # the bound and log p(x) are those of every fifth test image
QUICK = {"dataset": "digits", "epochs": 2}


def parse(description):
    """A study's flags: data_dir, results_dir, and whether to be quick, that is, only to show that it works."""
    parser = argparse.ArgumentParser(description=description.splitlines()[0])
    parser.add_argument("--data_dir", "--data-dir", default=main.DEFAULTS["data_dir"])
    parser.add_argument("--results_dir", "--results-dir", type=Path, default=Path("results/studies"))
    parser.add_argument("--quick", action="store_true", help="tiny runs on scikit-learn's digits, in a minute")
    flags = parser.parse_args()
    if flags.quick:  # never over the figures of a whole study
        flags.results_dir /= "quick"
    try:
        flags.results_dir.mkdir(parents=True, exist_ok=True)
    except (FileExistsError, NotADirectoryError):
        parser.error(f"{flags.results_dir} is not a directory; name another --results_dir")
    return flags


def dataset(flags):
    """The dataset that a study trains on."""
    return data.load("digits" if flags.quick else "mnist", flags.data_dir)


def measured(flags, runs):
    """What `measure` says of main.py's run with each of the dicts `runs` of its flags, a core each, in their order.

    A run that is in the results directory is taken up where it was left, and a finished one is measured again.
    """
    dataset(flags)  # so that data that are missing are noticed once, and now
    shared = {"dataset": "mnist", "data_dir": flags.data_dir, "schedule": "onecycle", "log_interval": 10**6}
    shared |= {"device": "cpu"}
    if flags.quick:
        runs = [run | QUICK for run in runs]
    names = [",".join(f"{flag}={value}" for flag, value in run.items()).replace(" ", "") for run in runs]
    folders = [flags.results_dir / "runs" / name for name in names]
    given = [shared | run | {"results_dir": str(folder)} for run, folder in zip(runs, folders, strict=True)]
    os.environ["OMP_NUM_THREADS"] = "1"  # of the runs, which import PyTorch anew: it is faster than two threads each
    print(f"{len(runs)} runs, {os.cpu_count()} at a time, logged in {flags.results_dir / 'runs'}", flush=True)
    pool = concurrent.futures.ProcessPoolExecutor(
        max_workers=os.cpu_count(),
        mp_context=multiprocessing.get_context("forkserver"),
        initializer=signal.signal,
        initargs=(signal.SIGINT, signal.SIG_DFL),  # Ctrl-C ends them without a word: this process has one
    )
    with pool:
        k = QUICK_SAMPLES if flags.quick else SAMPLES
        futures = [pool.submit(measure, each, k) for each in given]
        for done, future in enumerate(concurrent.futures.as_completed(futures), 1):
            future.result()  # raises what the run has raised
            print(f"{done} of {len(runs)}: {names[futures.index(future)]}", flush=True)
        return [run | future.result() for run, future in zip(runs, futures, strict=True)]


def measure(given, k):
    """Run main.py with the flags `given`, and return the best epoch's figures and yardsticks.

    Args:
        k: samples an image for log p(x).
    """
    folder = Path(given["results_dir"])
    folder.parent.mkdir(parents=True, exist_ok=True)
    with open(f"{folder}.log", "a") as log, contextlib.redirect_stdout(log):
        train.run(given | {"resume": (folder / "checkpoint.pt").exists()}, main.DEFAULTS)
    history = checkpoint.read(folder / "checkpoint.pt")["history"]
    best, model = checkpoint.best_of(history), VAE.load(folder / "best.pt")
    dataset = data.load(given["dataset"], given["data_dir"])
    *_, z, mu = train.evaluate(model, dataset.test_images)
    with torch.no_grad():
        train_mu = torch.cat([model.encode(data.pixels(images))[0] for images in dataset.train_images.split(1000)])
        # Distances are in the prior's deviations, as a learned one has a scale of its own.
        mean, deviation = train.moments(model.prior)
        draws = (model.prior.sample(len(z), train.generator(DRAWS_SEED)) - mean) / deviation
        z = (z - mean) / deviation
    # The bound and log p(x) of the same images, or their difference would be that of the images.
    some = dataset.test_images[::EVERY]
    terms = train.figures("test", *train.evaluate(model, some)[:2], {**main.DEFAULTS, **given})
    log_p, _ = train.likelihood(model, dataset, some, k)
    return {
        "epoch": best["epoch"],
        "bce": terms["test_bce"],
        "kld": terms["test_kld"],
        "total": terms["test_total"],
        "train_total": best["train_total"],
        "log_p": log_p,
        "active_units": yardsticks.active_units(mu),
        "knn_accuracy": yardsticks.knn_accuracy(train_mu, dataset.train_labels, mu, dataset.test_labels),
        "sliced_wasserstein": yardsticks.sliced_wasserstein(z, draws, train.generator(DRAWS_SEED)),
        "mmd": yardsticks.chunked_mmd(z, draws),
        "seconds": sum(epoch["seconds"] for epoch in history),
        "best": str(folder / "best.pt"),
    }


def write_rows(path, rows):
    """Write dicts as a CSV, figures to four decimals; the place of the weights is left out."""
    with open(path, "w", newline="") as file:
        table = csv.DictWriter(file, [name for name in rows[0] if name != "best"], lineterminator="\n")
        table.writeheader()
        for row in rows:
            shown = {name: f"{value:.4f}" if isinstance(value, float) else value for name, value in row.items()}
            table.writerow({name: value for name, value in shown.items() if name != "best"})


def summary(rows, column, decimals=2):
    """A column of some rows, one a seed, as text: mean ± standard deviation; a dash where it is empty."""
    values = [row[column] for row in rows]
    if None in values:
        return "-"
    deviation = f" ± {statistics.stdev(values):.{decimals}f}" if len(values) > 1 else ""
    return f"{statistics.mean(values):.{decimals}f}{deviation}"


def print_table(heads, rows):
    """Print a Markdown table."""
    for row in (heads, ["---"] * len(heads), *rows):
        print("| " + " | ".join(map(str, row)) + " |")


def show_draws(axes, model, n, gap=2):
    """Show n decoded draws from a model's prior, ten in a row."""
    images = torch.nn.functional.pad(model.sample(n, train.generator(1)).view(-1, 10, 28, 28), (gap,) * 4)
    side = 28 + 2 * gap
    axes.imshow(1 - images.permute(0, 2, 1, 3).reshape(-1, 10 * side), cmap="gray", vmin=0, vmax=1)
    axes.axis("off")


def figure(width, height):
    """An empty figure of width x height pixels, to be saved at 100 dots an inch."""
    return Figure(figsize=(width / 100, height / 100), layout="constrained")


def run(study):
    """Run study(), and end the process with 0, or with 1 and a line on what the user can mend."""
    try:
        study()
    except (UserError, OSError) as error:
        sys.exit(f"{Path(sys.argv[0]).name}: error: {error}")
    except KeyboardInterrupt:
        print("\nInterrupted; the same command goes on from here", file=sys.stderr)
        sys.exit(130)
