"""The results directory: its lock, files written whole or not at all, and what a run may continue or replace."""

import contextlib
import csv
import io
import json
import math
import os
import re
import warnings
import zipfile
from pathlib import Path

import filelock
import torch

from data import TITLES
from errors import UserError
from model import DIVERGENCES, PRIORS
from optim import SCHEDULES

FILES = (
    *("checkpoint.pt", "best.pt", "metrics.csv"),
    *("loss.png", "latent.gif", "manifold.png", "samples.png", "explorer.html", "config.json"),
)
FRAMES = ("reconstruction", "latent")
LOSSES = ("train_bce", "train_kld", "train_total", "test_bce", "test_kld", "test_total")
DIVERGENCE = ("train_divergence", "test_divergence")  # what was minimised beside BCE: the KLD, or what stands for it
# What makes a run the run it is; --resume may not change it. The rest of a checkpoint's flags it only remembers.
IDENTITY = (
    *("dataset", "latent_dim", "hidden_dims", "seed", "batch_size", "lr", "schedule", "precision"),
    *("prior", "prior_components", "divergence", "divergence_weight"),
)
REMEMBERED = (*IDENTITY, "epochs", "log_interval")


def read(path):
    """The dict in a file that torch.save wrote, on the CPU. Only tensors and plain values are unpickled, never code.

    Raises:
        UserError: truncated, altered (by the archive's checksums), or holding anything else.
        OSError: it cannot be read.
    """
    content = Path(path).read_bytes()
    try:
        with zipfile.ZipFile(io.BytesIO(content)) as archive:
            intact = archive.testzip() is None
        with warnings.catch_warnings(action="ignore"):  # of what is wrong: that is said below, in one line
            saved = torch.load(io.BytesIO(content), map_location="cpu", weights_only=True)
    except Exception as error:  # what a damaged archive makes zipfile, pickle and torch raise is no closed list
        raise UserError(f"{path} is damaged, or was not written by this program") from error
    if not intact or not isinstance(saved, dict):
        raise UserError(f"{path} is damaged, or was not written by this program")
    return saved


def partial(path):
    """Where a file lies while it is written."""
    return path.with_name(f".{path.name}.part")


def write(path, content):
    """Replace a file as a whole: whoever reads it, and whatever kills us, finds the old bytes or the new ones."""
    path.parent.mkdir(parents=True, exist_ok=True)
    part = partial(path)
    try:
        with open(part, "wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        os.replace(part, path)
        if os.name == "posix":  # elsewhere a directory cannot be opened
            sync_directory(path.parent)
    except OSError as error:
        with contextlib.suppress(OSError):
            part.unlink(missing_ok=True)
        raise OSError(error.errno, error.strerror, str(path)) from error


def sync_directory(folder):
    """Make renames in a folder last, in their order, through a power cut."""
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def serialized(saved):
    """The bytes that torch.save makes of it."""
    buffer = io.BytesIO()
    torch.save(saved, buffer)
    return buffer.getvalue()


@contextlib.contextmanager
def locked(folder, must_exist=False):
    """Hold the directory, made if missing, against a second run. The lock ends with the process, however that ends."""
    if must_exist and not (folder / "checkpoint.pt").exists():
        raise UserError(f"there is no checkpoint in {folder} to continue; start the run without --resume")
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except (FileExistsError, NotADirectoryError) as error:
        raise UserError(f"{folder} is not a directory; name another --results_dir") from error
    lock = filelock.FileLock(folder / ".lock", blocking=False)
    try:
        lock.acquire()
    except filelock.Timeout as error:
        message = f"another run is writing to {folder}; wait for it, or name another --results_dir"
        raise UserError(message) from error
    try:
        yield
    finally:
        lock.release()


def frame(folder, kind, epoch):
    """The path of an epoch's picture."""
    return folder / kind / f"epoch_{epoch:03d}.png"


def written(folder):
    """The paths in the directory that have the names of a run's files, and of what a kill left half-written of them."""
    pattern = re.compile(r"epoch_\d{3,}\.(png|npy)|\.epoch_\d{3,}\.(png|npy)\.part")
    frames = [path for kind in FRAMES for path in (folder / kind).glob("*") if pattern.fullmatch(path.name)]
    paths = [*frames, *(place(folder / name) for place in (Path, partial) for name in FILES)]
    return [path for path in paths if path.exists()]


def inventory(folder):
    """A run's files in the directory, and the inode of each, which is another once the file has been replaced."""
    return {path: path.stat().st_ino for path in written(folder)}


def clear(before):
    """Remove those files of an `inventory` that have not been replaced since."""
    for path, inode in before.items():
        if path.exists() and path.stat().st_ino == inode:
            path.unlink()


def clear_foreign(folder, epoch, latent_dim):
    """Remove what a run of so many latent dimensions has not written by an epoch.

    That is, what is left of a run that was being replaced by it when it was killed.
    """
    for path in written(folder):
        number = re.search(r"epoch_(\d+)", path.name)
        of_the_page = path.suffix == ".npy" or path.name == "explorer.html"
        if (number and int(number[1]) > epoch) or (of_the_page and latent_dim != 2):
            path.unlink()


def best_of(history):
    """The epoch, as a dict, of the lowest test_total; the first of equals."""
    return min(history, key=lambda epoch: epoch["test_total"])


def metrics_csv(history):
    """metrics.csv's bytes: nats per image to four decimals, seconds to three; an empty cell for a KLD that is none."""
    text = io.StringIO(newline="")
    table = csv.DictWriter(text, ("epoch", *LOSSES, "seconds", *DIVERGENCE), lineterminator="\n")
    table.writeheader()
    for epoch in history:
        losses = {name: "" if epoch[name] is None else f"{epoch[name]:.4f}" for name in (*LOSSES, *DIVERGENCE)}
        table.writerow({"epoch": epoch["epoch"], "seconds": f"{epoch['seconds']:.3f}", **losses})
    return text.getvalue().encode()


def save(folder, config, model, optimizer, history):
    """Write the checkpoint of the last epoch, and then what follows from it: best.pt, if that is the best, metrics.csv.

    A kill in between leaves the latter an epoch behind; `mend` brings them up.
    """
    state = {
        "config": {flag: config[flag] for flag in REMEMBERED},
        "epoch": len(history),
        "history": history,
        "model": model.state_dict(),
        "optimizer": optimizer.state,
    }
    write(folder / "checkpoint.pt", serialized(state))
    if best_of(history) is history[-1]:
        write_best(folder, config, model, history)
    write(folder / "metrics.csv", metrics_csv(history))


def mend(folder, config, model, history):
    """Bring best.pt and metrics.csv up to a checkpoint, with its model and history, that a kill left ahead of them."""
    path = folder / "best.pt"
    if best_of(history) is history[-1] and not (path.exists() and is_of(path, history[-1])):
        write_best(folder, config, model, history)
    write(folder / "metrics.csv", metrics_csv(history))


def is_of(path, epoch):
    """Whether the best.pt at a path is of an epoch, by all of its figures: another run's may have the same number."""
    saved = read(path)
    return all(type(saved.get(name)) is type(figure) and saved[name] == figure for name, figure in epoch.items())


def write_best(folder, config, model, history):
    """Write best.pt: the weights and figures of the last epoch, and what VAE.load needs."""
    config = {flag: config[flag] for flag in REMEMBERED}
    best = {"network": model.network, "model": model.state_dict(), "config": config, **history[-1]}
    write(folder / "best.pt", serialized(best))


def is_valid(config):
    """Whether a checkpoint's flags are all there and are what the command line would have taken."""
    if (
        not isinstance(config, dict)
        or not set(REMEMBERED) <= set(config)
        or not isinstance(config["hidden_dims"], list)
    ):
        return False
    names = [config[flag] for flag in ("schedule", "dataset", "precision", "prior", "divergence")]
    counts = [config[flag] for flag in ("epochs", "batch_size", "log_interval", "latent_dim", "prior_components")]
    counts += config["hidden_dims"]
    return (
        all(type(count) is int and count > 0 for count in counts)
        and (type(config["seed"]) is int and 0 <= config["seed"] < 2**63)
        and all(type(config[flag]) is float and 0 < config[flag] <= 3.4e38 for flag in ("lr", "divergence_weight"))
        and all(isinstance(name, str) for name in names)
        and config["schedule"] in SCHEDULES
        and config["dataset"] in TITLES
        and config["precision"] in ("float32", "bfloat16")
        and config["prior"] in PRIORS
        and config["divergence"] in DIVERGENCES
    )


def check_replaceable(folder):
    """Raise UserError if the directory holds an unfinished run, or files of a run's names that no run wrote."""
    path = folder / "checkpoint.pt"
    ways_out = "replace it with --overwrite, or name another --results_dir"
    if path.exists():
        try:
            saved = read(path)
        except UserError as error:
            raise UserError(f"{error}: {ways_out}") from error
        config, done = saved.get("config"), saved.get("epoch")
        if not is_valid(config) or not isinstance(done, int):
            raise UserError(f"{path} was not written by this program: {ways_out}")
        if done < config["epochs"]:
            raise UserError(
                f"{folder} holds an unfinished run (epoch {done} of {config['epochs']}): continue it with --resume, "
                f"{ways_out}"
            )
        return
    paths = [path for path in written(folder) if path.suffix != ".part"]
    try:
        ours = "latent_dim" in json.loads((folder / "config.json").read_bytes())
    except (FileNotFoundError, ValueError, TypeError, RecursionError):
        ours = False
    if paths and not ours:
        raise UserError(f"{paths[0]} is not of a run of this program: {ways_out}")


def resumable(folder, given):
    """The checkpoint in the directory, its flags and history checked; its tensors are the caller's to check.

    Raises UserError if it is damaged, if best.pt is not its best epoch's (but for a last epoch, whose
    best.pt is written again), or if a flag that the user gave would make it another run.
    """
    path = folder / "checkpoint.pt"
    saved = read(path)
    config, history = saved.get("config"), saved.get("history")
    if not is_valid(config) or not is_history(history) or saved.get("epoch") != len(history):
        raise UserError(f"{path} is damaged, or was not written by this program")
    differences = [
        f"{flag} {config[flag]}, not {given[flag]}"
        for flag in IDENTITY
        if given.get(flag, config[flag]) != config[flag]
    ]
    if differences:
        raise UserError(f"{path} goes on only as it began, with {'; '.join(differences)}. Leave these flags out")
    epochs = given.get("epochs", config["epochs"])
    if epochs < len(history):
        raise UserError(f"the run in {folder} has finished {len(history)} epochs: give --epochs {len(history)} or more")
    if config["schedule"] != "constant" and epochs != config["epochs"]:
        raise UserError(
            f"a {config['schedule']} schedule is laid out over its run's {config['epochs']} epochs and cannot be "
            f"stretched to {epochs}; start a new run for that"
        )
    best, path = best_of(history), folder / "best.pt"
    if best is not history[-1] and not is_of(path, best):
        raise UserError(f"{path} is not of epoch {best['epoch']}, this run's best")
    return saved


def is_history(history):
    """Whether it is a list of one or more epochs' figures."""

    def is_figure(value):
        return type(value) is float and math.isfinite(value)

    return (
        isinstance(history, list)
        and len(history) > 0
        and all(
            isinstance(epoch, dict)
            and epoch.keys() == {"epoch", *LOSSES, *DIVERGENCE, "seconds"}
            and epoch["epoch"] == number
            and all(is_figure(epoch[name]) for name in ("train_bce", "test_bce", "train_total", "test_total"))
            and all(is_figure(epoch[name]) for name in (*DIVERGENCE, "seconds"))
            and all(epoch[name] is None or is_figure(epoch[name]) for name in ("train_kld", "test_kld"))
            for number, epoch in enumerate(history, 1)
        )
    )
