"""How long does an epoch take, how long compiling, and how long the whole command? python -m benchmarks.speed

784-400-2 on MNIST in batches of 128. Each contender runs in its own process. They take turns, one epoch each, round
after round, so that a machine whose speed drifts treats them alike. Nothing that is written stays. The whole benchmark
takes about ten minutes on two cores. With --against DIR, it runs the documented command of this checkout and of another
one in turn instead.
"""

import argparse
import contextlib
import dataclasses
import functools
import multiprocessing
import os
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import torch
import torch.nn.functional as F
from PIL import Image

import explorer
import pictures
import train
from benchmarks import run_benchmark
from model import VAE, kld
from support.data import datasets
from support.errors import UserError
from support.machine.arithmetic import fast_arithmetic, find_precision
from support.run import checkpoint, report
from support.run.config import Config, default_data_dir, directory, whole_number

BATCH_SIZE = 128
BATCH_SIZES = (32, 64, 128, 256, 512, 1024)
FRACTIONS = {"1/4": 0.25, "1/2": 0.5, "all": 1.0}
SIZE_ROUNDS = 3
EPOCHS = 100  # of the run whose parts beside training are timed
ROOT = Path(__file__).parent.parent
COMMAND = ("main.py", "--epochs", "100", "--log_interval", "30", "--device", "cpu")
COMPILED = {"compile": "on", "named": frozenset({"compile"})}  # named: where that fails, the run does not go on eagerly
PEAK_UNIT = 1e9 if sys.platform == "darwin" else 1e6  # ru_maxrss: bytes on macOS, kilobytes elsewhere


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0], allow_abbrev=False)
    parser.add_argument("--data_dir", "--data-dir", type=directory, default=default_data_dir())
    parser.add_argument("--rounds", type=whole_number, default=7, help="timed epochs per contender (default: 7)")
    parser.add_argument(
        "--against", type=directory, help="another checkout, whose whole command runs in turn with this one"
    )
    flags = parser.parse_args()
    if flags.against:
        if not (flags.against / COMMAND[0]).exists():
            parser.error(f"{flags.against} is no checkout of this project")
        compare_commands(flags)
        return
    config = Config(device="cpu", data_dir=flags.data_dir, batch_size=BATCH_SIZE, compile="off")
    dataset = datasets.load("mnist", flags.data_dir)

    print_contenders(*race(find_contenders(config), flags.rounds))
    with tempfile.TemporaryDirectory() as folder:
        print_compiling(time_compiling(config, folder))
        with fast_arithmetic():
            print_parts(time_parts(dataclasses.replace(config, results_dir=Path(folder)), dataset, flags.rounds))
        print_commands([("warm", *time_command(ROOT, flags.data_dir, folder))])

    sizes = {f"{name} of the data": functools.partial(project, config, share) for name, share in FRACTIONS.items()}
    for n in BATCH_SIZES:
        sizes[f"batches of {n}"] = functools.partial(project, dataclasses.replace(config, batch_size=n))
    print_sizes(race(sizes, SIZE_ROUNDS)[0])


def find_contenders(config):
    """The contenders by name: context managers that yield a function that trains for an epoch."""
    best = find_precision("auto", torch.device("cpu"))
    contenders = {
        "conventional loop": functools.partial(conventional, config),
        "JAX scan, float32": functools.partial(jax_scan, config),
    }
    for precision in dict.fromkeys((best, "float32")):
        mine = dataclasses.replace(config, precision=precision)
        compiled = dataclasses.replace(mine, **COMPILED)
        contenders[f"this project, {precision}, compiled"] = functools.partial(project, compiled)
        contenders[f"this project, {precision}, eager"] = functools.partial(project, mine)
        contenders[f"products alone, {precision}"] = functools.partial(products, mine)
    return contenders


@contextlib.contextmanager
def conventional(config):
    """The loop of most tutorials: a DataLoader makes a PIL image and a tensor of each digit; float32, Adam."""
    from torchvision.transforms import ToTensor  # here: the other contenders do without

    images = datasets.load("mnist", config.data_dir).train_images.view(-1, 28, 28).numpy()
    to_tensor = ToTensor()

    def collate(rows):
        return torch.stack([to_tensor(Image.fromarray(images[i])) for i in rows])

    loader = torch.utils.data.DataLoader(range(len(images)), config.batch_size, shuffle=True, collate_fn=collate)
    model = VAE()
    optimizer = torch.optim.Adam(model.parameters(), config.lr)

    def epoch():
        for batch in loader:
            x = batch.view(-1, 784)
            mu, logvar = model.encode(x)
            logits = model.decode(model.reparameterize(mu, logvar, torch.randn_like(mu)))
            bce = F.binary_cross_entropy(logits.sigmoid(), x, reduction="sum")
            divergence = kld(mu, logvar).sum()
            optimizer.zero_grad()
            ((bce + divergence) / len(x)).backward()
            optimizer.step()
            bce.item()  # tutorials add up the losses here
            divergence.item()

    yield epoch


@contextlib.contextmanager
def jax_scan(config):
    """The same epoch, compiled by JAX. Raises ImportError if JAX is not installed."""
    from benchmarks.jax_scan import make_epoch

    images = datasets.load("mnist", config.data_dir).train_images
    yield make_epoch(datasets.pixels(images).numpy(), config.batch_size)


@contextlib.contextmanager
def project(config, share=1.0):
    """This project's epoch, over a share of the training images."""
    with fast_arithmetic():
        dataset = datasets.load("mnist", config.data_dir)
        n = int(share * len(dataset.train_images))
        dataset = dataset._replace(train_images=dataset.train_images[:n], train_labels=dataset.train_labels[:n])
        run = train.begin(config, dataset)
        yield lambda: train.train_epoch(run, 1)


@contextlib.contextmanager
def products(config):
    """The large matrix products of an epoch and nothing else: two forward and three backward per batch."""
    batches = -(-60_000 // config.batch_size)
    dtype = getattr(torch, config.precision)
    x = torch.randn(config.batch_size, 784).to(dtype)
    hidden = torch.randn(config.batch_size, 400).to(dtype)
    weight = torch.randn(400, 784).to(dtype)

    def epoch():
        for _ in range(batches):
            x @ weight.T  # encoder, forward
            hidden @ weight  # decoder, forward
            hidden.T @ x  # encoder's weights, backward
            x @ weight.T  # decoder's input, backward
            x.T @ hidden  # decoder's weights, backward

    with fast_arithmetic():
        yield epoch


def race(contenders, rounds):
    """Time each contender for a first epoch and then `rounds` more; one that lacks a package, or ends, is left out.

    Args:
        contenders: from `find_contenders`.

    Returns: by name, the seconds of each epoch, the peak memory of the contender's process in GB, and the page faults
        of its last epoch.
    """
    context = multiprocessing.get_context("spawn")
    pipes = {}
    for name, make_epoch in contenders.items():
        pipe, end = context.Pipe()
        context.Process(target=serve, args=(end, make_epoch), daemon=True).start()
        end.close()  # a process that fails is then an EOFError here, not a wait without end
        try:
            problem = pipe.recv()
        except EOFError:
            problem = "it has ended"
        if problem:
            print(f"left out: {name} ({problem})")
        else:
            pipes[name] = pipe
    seconds = {name: [] for name in pipes}
    memory = {}
    faults = {}
    for _ in range(1 + rounds):
        for name, pipe in list(pipes.items()):
            try:
                pipe.send(True)
                elapsed, memory[name], faults[name] = pipe.recv()
            except (EOFError, BrokenPipeError):
                print(f"left out: {name} (it has ended)")
                del pipes[name]
            else:
                seconds[name].append(elapsed)
    for pipe in pipes.values():
        pipe.send(False)
    return {name: seconds[name] for name in pipes}, memory, faults


def serve(pipe, make_epoch):
    """In the contender's process: prepare, and then time one epoch per message."""
    with contextlib.ExitStack() as stack:
        try:
            epoch = stack.enter_context(make_epoch())
        except (ImportError, UserError) as error:
            pipe.send(str(error))
            return
        pipe.send(None)
        while pipe.recv():
            before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
            start = time.perf_counter()
            epoch()
            elapsed = time.perf_counter() - start
            usage = resource.getrusage(resource.RUSAGE_SELF)
            pipe.send((elapsed, usage.ru_maxrss / PEAK_UNIT, usage.ru_minflt - before))


def time_compiling(config, folder):
    """The seconds of the first four steps, by the state of the compiler's cache, which is put into a folder."""
    run = functools.partial(project, dataclasses.replace(config, **COMPILED), 4 * config.batch_size / 60_000)
    keep_cache_in(folder)  # the command finds it there
    seconds = {}
    for state in ("cold", "warm"):
        seconds |= race({state: run}, 0)[0]
    return {state: first for state, (first,) in seconds.items()}


def keep_cache_in(folder):
    """Let the processes that are started from now on keep the compiler's cache in a folder."""
    os.environ["TMPDIR"] = folder
    os.environ.pop("TORCHINDUCTOR_CACHE_DIR", None)


def compare_commands(flags):
    """Run the documented command of another checkout and of this one in turn, each time with a cold cache."""
    rows = []
    for _ in range(flags.rounds):
        for name, checkout in (("the other checkout", flags.against), ("this checkout", ROOT)):
            with tempfile.TemporaryDirectory() as folder:
                keep_cache_in(folder)
                rows.append((name, *time_command(checkout, flags.data_dir, folder)))
    print_commands(rows)
    for value, what in ((1, "seconds"), (2, "peak memory")):
        pairs = zip(rows[::2], rows[1::2], strict=True)
        print(
            f"{what}: this checkout takes {statistics.median(b[value] / a[value] for a, b in pairs):.2f} of the other"
        )


def time_command(checkout, data_dir, folder):
    """The seconds of a checkout's whole documented command, and the peak memory of its process in GB."""
    flags = ["--data_dir", str(data_dir), "--results_dir", str(Path(folder) / "command"), "--overwrite"]
    start = time.perf_counter()
    process = subprocess.Popen([sys.executable, *COMMAND, *flags], cwd=checkout, stdout=subprocess.DEVNULL)
    _, status, usage = os.wait4(process.pid, 0)  # the memory of this process, not of all that ran before
    if status:
        raise UserError(f"{' '.join(COMMAND)} failed in {checkout}")
    return time.perf_counter() - start, usage.ru_maxrss / PEAK_UNIT


@contextlib.contextmanager
def timed(seconds, name):
    """Append the seconds of what is done inside to seconds[name]."""
    start = time.perf_counter()
    yield
    seconds.setdefault(name, []).append(time.perf_counter() - start)


def time_parts(config, dataset, rounds):
    """Time what an epoch and a run cost beside training.

    Returns: by name, the seconds of each repeat: EPOCHS of what each epoch does, `rounds` of what a run does once.
    """
    run = train.begin(dataclasses.replace(config, epochs=EPOCHS), dataset)
    first = next(train.epochs(run))
    run.history.clear()
    seconds = {}
    with contextlib.redirect_stdout(None):
        for epoch in range(1, EPOCHS + 1):
            # The losses fall as they do in a run, and each epoch is the best so far: best.pt is written every time.
            row = {**first.row, "epoch": epoch}
            for part in ("train", "test"):
                row[f"{part}_total"] = first.row[f"{part}_total"] - 20 * (1 - 1 / epoch)
            time_epoch(seconds, run, row)
        for _ in range(rounds):
            time_start_and_end(seconds, run)
    return seconds


def time_epoch(seconds, run, row):
    """Time what follows the training of an epoch, as main.py does it."""
    with timed(seconds, "evaluation"):
        test = train.evaluate(run.model, run.dataset.test_images)
    run.history.append(row)
    epoch = train.Result(row, test)
    with timed(seconds, "checkpoint.pt, best.pt, metrics.csv"):
        checkpoint.save(run)
    with timed(seconds, "the three pictures, config.json"):
        report.show_epoch(run, epoch)
        pictures.write_epoch(run, epoch)
    with timed(seconds, "explorer: the epoch's latent means"):
        explorer.save_means(run, epoch)


def time_start_and_end(seconds, run):
    """Time what a run does once."""
    config = run.config
    with timed(seconds, "start: imports"):
        subprocess.run([sys.executable, "-c", "import train"], cwd=ROOT, check=True)
    with timed(seconds, "start: data"):
        datasets.load(config.dataset, config.data_dir)
    with timed(seconds, "end: explorer.html"):
        explorer.write(config, run.dataset, run.history)
    with timed(seconds, "end: pictures and log p(x)"):
        pictures.write_last(run)
        report.show_end(run)


def print_contenders(seconds, memory, faults):
    """Print the table of contenders; a speed-up is the median, over the rounds, of the ratio to the first of them."""
    base = next(iter(seconds))
    print(
        f"\n| an epoch of 60,000 images | median s | range | speed-up over the {base} | first epoch s | peak GB | page "
        "faults per step |\n|---|---|---|---|---|---|---|"
    )
    steps = -(-60_000 // BATCH_SIZE)
    for name, values in seconds.items():
        ratios = [slow / fast for slow, fast in zip(seconds[base][1:], values[1:], strict=True)]
        print(
            f"| {name} | {summary(values)} | {statistics.median(ratios):.2f} | {values[0]:.2f} | {memory[name]:.2f} | "
            f"{faults[name] / steps:.1f} |"
        )


def print_compiling(seconds):
    """Print how long compiling takes."""
    print("\n| compiling the step | s |\n|---|---|")
    for state, value in seconds.items():
        print(f"| with a {state} cache | {value:.1f} |")


def print_commands(rows):
    """Print how long the whole command takes: rows of a name, seconds and GB."""
    print(f"\n| {' '.join(COMMAND)} | s | peak GB |\n|---|---|---|")
    for name, seconds, memory in rows:
        print(f"| {name} | {seconds:.1f} | {memory:.2f} |")


def print_parts(seconds):
    """Print the table of what a run costs beside training."""
    print("\n| beside training | median ms |\n|---|---|")
    for name, values in seconds.items():
        print(f"| {name} | {1000 * statistics.median(values):.0f} |")


def print_sizes(seconds):
    """Print the table of this project's epoch with less data, and with other batch sizes."""
    print("\n| this project's epoch | median s | range |\n|---|---|---|")
    for name, values in seconds.items():
        print(f"| {name} | {summary(values)} |")


def summary(values):
    """Median and range of the seconds of epochs, the first left out."""
    return f"{statistics.median(values[1:]):.2f} | {min(values[1:]):.2f} to {max(values[1:]):.2f}"


if __name__ == "__main__":
    run_benchmark("speed.py", main)
