"""Other packages on the same work: whose loss is a bound on log p(x), and who is fast? python -m benchmarks.peers

Each peer trains 784-400-2 on MNIST's grey pixels, float32, Adam 1e-3, batches of 128, two threads, in a virtual
environment of its own, made in a temporary folder. They take turns with this project, an epoch each. Prints the tables
of docs/peers.md: what each peer's numbers are, against closed forms at its own weights after an epoch; its speed; and
what stood in the way. --folder DIR keeps the environments for the next time.
"""

import argparse
import contextlib
import dataclasses
import functools
import json
import os
import platform
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from types import MappingProxyType
from typing import NamedTuple

import numpy as np
import torch

from benchmarks import run_benchmark
from benchmarks.losses import closed_terms, read, read_average
from benchmarks.speed import BATCH_SIZE, COMPILED, PEAK_UNIT, ROOT, project, race
from model import VAE
from support.data import datasets
from support.latent.likelihood import quadrature
from support.run.config import Config, default_data_dir, directory, whole_number

UV = "uv==0.13.9"  # installs from one cache by hard links: PyTorch lies on the disk once
NEWEST = "2026-11-27"  # of the packages that the pinned ones need
TORCH = "torch==2.14.1"
THREADS = 2
OURS = {"this project, compiled": COMPILED, "this project, eager": {"compile": "off"}}
WORKER = ROOT / "benchmarks" / "adapters" / "worker.py"


class Peer(NamedTuple):
    """A package, what is installed, and what stood in the way of the work."""

    adapter: str  # a file in adapters/
    packages: tuple[str, ...]  # the peer first
    obstacle: str = "none"
    environment: dict[str, str] = MappingProxyType({})


KERAS, JAX = "keras==3.15.1", "jax==0.10.2"
ON_JAX, ON_TORCH = {"KERAS_BACKEND": "jax"}, {"KERAS_BACKEND": "torch"}
REFUSES_GREY = "its Bernoulli refuses grey pixels unless validation is off"
PEERS = {
    "pytorch/examples": Peer(
        "pytorch_examples",
        (TORCH, "torchvision==0.29.1", "pillow==13.0.0"),
        "a script, not a package: its loop, rewritten",
    ),
    "Lightning": Peer("lightning_module", ("lightning==2.6.6", TORCH), "no VAE of its own: this project's model"),
    "pythae": Peer("pythae_vae", ("pythae==0.1.2", TORCH), "its layers have 512 units: its base classes, subclassed"),
    "Keras on JAX": Peer("keras_vae", (KERAS, JAX), "no VAE of its own: a Model with compute_loss", ON_JAX),
    "Keras on torch": Peer("keras_vae", (KERAS, TORCH), "no VAE of its own: a Model with compute_loss", ON_TORCH),
    "Pyro": Peer("pyro_svi", ("pyro-ppl==1.9.2", TORCH), REFUSES_GREY),
    "NumPyro": Peer("numpyro_svi", ("numpyro==0.22.0", JAX), "log p of a grey pixel is -inf: a factor in its place"),
    "TensorFlow Probability": Peer(
        "tfp_layers",
        ("tensorflow-probability==0.25.0", "tensorflow-cpu==2.21.0", "tf-keras==2.21.0"),
        "needs tf-keras, which it does not install",
    ),
    "JAX scan": Peer("jax_epoch", (JAX,), "leaves out the last batch, which is smaller"),
    "pixyz": Peer("pixyz_vae", ("pixyz==0.3.2", TORCH)),
    "multivae": Peer("multivae_mvae", ("multivae==1.0.3", TORCH), REFUSES_GREY),
    "PyOD": Peer("pyod_vae", ("pyod==3.6.7", TORCH, "tqdm==4.70.1"), "needs torch and tqdm, which it does not install"),
    "pyautoencoder": Peer(
        "pyautoencoder_vae",
        ("pyautoencoder==2.1.0", TORCH, "numpy==2.4.6"),
        "none (NumPy, for the benchmark, is not installed with it)",
    ),
    "rapidae": Peer("rapidae_vae", ("rapidae==0.0.5", KERAS, JAX), "installs Keras without a backend", ON_JAX),
}


class PeerError(ImportError):
    """A peer does not install or run. `race` leaves it out, as it does where a package is missing."""


class Numbers(NamedTuple):
    """What is measured of a peer beside its speed."""

    loss: str
    closed: str
    is_bound: str
    average: str
    log_p: str
    peak: float  # GB, after an epoch


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0], allow_abbrev=False)
    parser.add_argument("names", nargs="*", metavar="NAME", help=f"default: all of {', '.join(PEERS)}")
    parser.add_argument("--data_dir", "--data-dir", type=directory, default=default_data_dir())
    parser.add_argument("--rounds", type=whole_number, default=7, help="timed epochs per contender (default: 7)")
    parser.add_argument("--folder", type=directory, help="where to make the environments and keep them")
    flags = parser.parse_args()
    names = flags.names or list(PEERS)
    if unknown := [name for name in names if name not in PEERS]:
        parser.error(f"no such peer: {', '.join(unknown)}")
    limit_threads()
    with contextlib.ExitStack() as stack:
        folder = (flags.folder or Path(stack.enter_context(tempfile.TemporaryDirectory()))).resolve()
        folder.mkdir(parents=True, exist_ok=True)
        save_images(folder, datasets.load("mnist", flags.data_dir))
        numbers, problems = {}, {}
        for name in names:
            print(f"{time.strftime('%H:%M:%S')} {name}", file=sys.stderr)
            try:
                install(folder, name)
                numbers[name] = measure(folder, name)
            except PeerError as error:
                problems[name] = str(error)
        print_numbers(numbers)
        seconds, memory, _ = race(find_contenders(folder, numbers, flags.data_dir), flags.rounds)
    print_speed(seconds, numbers, memory)
    print_packages(names, problems)


def limit_threads():
    """Let this process and all that it starts compute on two CPUs, with two threads."""
    if hasattr(os, "sched_setaffinity"):
        os.sched_setaffinity(0, sorted(os.sched_getaffinity(0))[:THREADS])
    for name in ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "TF_NUM_INTRAOP_THREADS", "TF_NUM_INTEROP_THREADS"):
        os.environ[name] = str(THREADS)


def save_images(folder, dataset):
    """Write what the workers read: the training images, a batch of test images, and one more, an inverted digit."""
    test = dataset.test_images[: BATCH_SIZE + 1].clone()
    test[-1] = 255 - test[-1]
    np.savez(folder / "images.npz", train=dataset.train_images.numpy(), test=test.numpy())


def install(folder, name):
    """Make the environment of a peer, unless it is there.

    Raises:
        PeerError: its packages cannot be installed.
    """
    peer = PEERS[name]
    place = environment(folder, name)
    if (place / "installed").exists() and (place / "installed").read_text(encoding="utf-8") == repr(peer.packages):
        return
    uv = folder / "uv" / "bin" / "uv"
    commands = [
        [uv, "venv", "--quiet", "--clear", "--python", sys.executable, place],
        [uv, "pip", "install", "--quiet", "--exclude-newer", NEWEST, "--python", place, *peer.packages],
    ]
    if not uv.exists():
        commands = [
            [sys.executable, "-m", "venv", folder / "uv"],
            [folder / "uv" / "bin" / "python", "-m", "pip", "install", "--quiet", UV],
            *commands,
        ]
    settings = {**os.environ, "UV_CACHE_DIR": str(folder / "cache"), "UV_PYTHON_DOWNLOADS": "never"}
    for command in commands:
        done = subprocess.run(command, env=settings, capture_output=True, text=True)
        if done.returncode:
            raise PeerError(f"does not install: {' '.join((done.stderr or done.stdout).split())}")
    (place / "installed").write_text(repr(peer.packages), encoding="utf-8")


def environment(folder, name):
    """Where a peer's environment is."""
    return folder / name.lower().replace(" ", "-").replace("/", "-")


@contextlib.contextmanager
def started(folder, name):
    """A peer's worker process. Yields a function that sends it a line and returns its answer.

    Raises:
        PeerError: it has ended.
    """
    peer = PEERS[name]
    place = environment(folder, name)
    settings = {"HOME": str(folder), "CUDA_VISIBLE_DEVICES": "", "JAX_PLATFORMS": "cpu", **peer.environment}
    with open(place / "log.txt", "w", encoding="utf-8") as log:
        process = subprocess.Popen(
            [place / "bin" / "python", WORKER, peer.adapter, folder / "images.npz"],
            env=os.environ | settings,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=log,
            text=True,
        )

        def answer(line=None):
            if line:
                print(line, file=process.stdin, flush=True)
            if not (reply := process.stdout.readline()):
                raise PeerError(last_line(place / "log.txt"))
            return json.loads(reply)

        try:
            answer()
            yield answer
        finally:
            process.kill()
            process.wait()


def last_line(path):
    """The last line of a worker's log: what it failed of."""
    lines = path.read_text(encoding="utf-8").splitlines()
    return lines[-1] if lines else "it ended without a word"


def measure(folder, name):
    """The Numbers of a peer, after its first epoch.

    Raises:
        PeerError: it does not run.
    """
    with started(folder, name) as answer:
        answer("epoch")
        found = answer("measure")
    images = np.load(folder / "images.npz")["test"]
    decoder = [[np.array(values) for values in layer] for layer in found["decoder"]]
    terms = closed_terms(np.array(found["mu"]), np.array(found["logvar"]), decoder, images / 255)
    batch = terms.of(slice(BATCH_SIZE))
    reading = read(found["losses"], batch)
    average = log_p = "-"
    if reading and "evaluated" in found:
        average = read_average(found["evaluated"], reading, terms)
    if "log_p" in found:
        log_p = f"{found['log_p'] - true_log_p(decoder, images[:BATCH_SIZE]):+.2f}"
    return Numbers(
        f"{np.mean(found['losses']):.7g} ± {np.std(found['losses']) / len(found['losses']) ** 0.5:.2g}",
        f"{reading.of(batch):.7g}: {reading.words}" if reading else "none of the closed forms",
        "yes" if reading and reading.is_bound else "no",
        average,
        log_p,
        found["peak"] / PEAK_UNIT,
    )


def true_log_p(decoder, images):
    """The mean of log p(x) over uint8 images (N, 784), by quadrature, in nats, for a decoder's weights and biases."""
    model = VAE()
    with torch.no_grad():
        for layer, (weight, bias) in zip((model.decoder[0], model.decoder[2]), decoder, strict=True):
            layer.weight.copy_(torch.from_numpy(weight))
            layer.bias.copy_(torch.from_numpy(bias))
    return quadrature(model, torch.from_numpy(images)).double().mean().item()


def find_contenders(folder, names, data_dir):
    """The contenders of `race` by name: this project, and the peers that run."""
    config = Config(device="cpu", data_dir=data_dir, batch_size=BATCH_SIZE, precision="float32")
    ours = {name: functools.partial(project, dataclasses.replace(config, **flags)) for name, flags in OURS.items()}
    return ours | {name: functools.partial(peer_epoch, folder, name) for name in names}


@contextlib.contextmanager
def peer_epoch(folder, name):
    """A contender of `race`: a peer's epoch."""
    with started(folder, name) as answer:
        yield lambda: answer("epoch")


def print_numbers(numbers):
    """Print what each peer's numbers are."""
    heads = ("peer", "its loss of a batch", "closed form", "a bound?", "129 images, batches of 128", "log p(x), error")
    print_rows(heads, ([name, *found[:-1]] for name, found in numbers.items()))


def print_speed(seconds, numbers, memory):
    """Print how long an epoch takes; a ratio is the median, and the range, of the ratios round by round."""
    rows = []
    for name, times in seconds.items():
        ratios = [[a / b for a, b in zip(times[1:], seconds[title][1:], strict=True)] for title in OURS]
        peak = numbers[name].peak if name in numbers else memory[name]
        rows.append((name, *map(summary, (times[1:], *ratios)), f"{times[0]:.2f}", f"{peak:.2f}"))
    print_rows(("contender", "s per epoch", *(f"over {title}" for title in OURS), "first epoch s", "peak GB"), rows)


def summary(values):
    """Median and range."""
    return f"{statistics.median(values):.2f} ({min(values):.2f} to {max(values):.2f})"


def print_packages(names, problems):
    """Print what was installed, and what stood in the way."""
    rows = ((name, ", ".join(PEERS[name].packages), problems.get(name, PEERS[name].obstacle)) for name in names)
    print_rows(("peer", "installed", "first obstacle"), rows)
    versions = f"Python {platform.python_version()}; this project on torch {torch.__version__}"
    print(f"{processor()}, {THREADS} threads, {versions}")


def print_rows(heads, rows):
    """Print a Markdown table."""
    for cells in (heads, ["---"] * len(heads), *rows):
        print(f"| {' | '.join(cells)} |")
    print()


def processor():
    """The processor's name, where Linux tells."""
    with contextlib.suppress(OSError):
        for line in Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    return platform.machine()


if __name__ == "__main__":
    run_benchmark("peers.py", main)
