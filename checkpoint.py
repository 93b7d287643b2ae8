"""The results directory: its lock, files written whole or not at all, and what a run may continue or replace."""

import contextlib
import csv
import io
import os
import warnings
import zipfile
from pathlib import Path

import filelock
import torch

FILES = (
    *("config.json", "metrics.csv", "best.pt", "checkpoint.pt"),
    *("loss.png", "latent.gif", "manifold.png", "samples.png"),
)
FRAMES = ("reconstruction", "latent")
LOSSES = ("train_bce", "train_kld", "train_total", "test_bce", "test_kld", "test_total")
# What makes a run the run it is; --resume may not change it. The rest of a checkpoint's flags it only remembers.
IDENTITY = ("dataset", "latent_dim", "hidden_dims", "seed", "batch_size", "lr", "schedule", "precision")
REMEMBERED = (*IDENTITY, "epochs", "log_interval")


class CheckpointError(ValueError):
    """A checkpoint or results directory that cannot be used as asked; the message is for the user."""


def read(path):
    """The dict in a file that torch.save wrote, on the CPU. Only tensors and plain values are unpickled, never code.

    Raises:
        CheckpointError: truncated, altered (by the archive's checksums), or holding anything else.
        OSError: it cannot be read.
    """
    content = Path(path).read_bytes()
    try:
        with zipfile.ZipFile(io.BytesIO(content)) as archive:
            intact = archive.testzip() is None
        with warnings.catch_warnings(action="ignore"):  # of what is wrong: that is said below, in one line
            saved = torch.load(io.BytesIO(content), map_location="cpu", weights_only=True)
    except Exception as error:  # what a damaged archive makes zipfile, pickle and torch raise is no closed list
        raise CheckpointError(f"{path} is damaged, or was not written by this program") from error
    if not intact or not isinstance(saved, dict):
        raise CheckpointError(f"{path} is damaged, or was not written by this program")
    return saved


def write(path, content):
    """Replace a file as a whole: whoever reads it, and whatever kills us, finds the old bytes or the new ones."""
    path.parent.mkdir(parents=True, exist_ok=True)
    part = path.with_name(f".{path.name}.part")
    try:
        with open(part, "wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        os.replace(part, path)
    except OSError as error:
        with contextlib.suppress(OSError):
            part.unlink(missing_ok=True)
        raise OSError(error.errno, error.strerror, str(path)) from error


def serialized(saved):
    """The bytes that torch.save makes of it."""
    buffer = io.BytesIO()
    torch.save(saved, buffer)
    return buffer.getvalue()


@contextlib.contextmanager
def locked(folder):
    """Hold the directory, made if missing, against a second run. The lock ends with the process, however that ends."""
    folder.mkdir(parents=True, exist_ok=True)
    lock = filelock.FileLock(folder / ".lock", blocking=False)
    try:
        lock.acquire()
    except filelock.Timeout as error:
        message = f"another run is writing to {folder}; wait for it, or name another --results_dir"
        raise CheckpointError(message) from error
    try:
        yield
    finally:
        lock.release()


def frame(folder, kind, epoch):
    """The path of an epoch's picture."""
    return folder / kind / f"epoch_{epoch:03d}.png"


def clear(folder):
    """Remove what a run wrote, and what a killed one left half-written; nothing else. Whether there was a run."""
    held_one = (folder / "checkpoint.pt").exists()
    for name in FILES:
        (folder / name).unlink(missing_ok=True)
    leftovers = [*folder.glob(".*.part")]
    for kind in FRAMES:
        leftovers += [*(folder / kind).glob("epoch_*.png"), *(folder / kind).glob(".epoch_*.part")]
    for path in leftovers:
        path.unlink()
    return held_one


def best_of(history):
    """The epoch, as a dict, of the lowest test_total; the first of equals."""
    return min(history, key=lambda epoch: epoch["test_total"])


def metrics_csv(history):
    """metrics.csv's bytes: nats per image to four decimals, seconds to three."""
    text = io.StringIO(newline="")
    table = csv.writer(text, lineterminator="\n")
    table.writerow(("epoch", *LOSSES, "seconds"))
    for epoch in history:
        table.writerow((epoch["epoch"], *(f"{epoch[name]:.4f}" for name in LOSSES), f"{epoch['seconds']:.3f}"))
    return text.getvalue().encode()


def save(folder, config, model, optimizer, scheduler, history):
    """Write best.pt if the last epoch is the best, metrics.csv, and then, last, the checkpoint that stands for them.

    A kill between two of them leaves the first ones an epoch ahead; a resumed run computes that epoch again, to the
    same bits.
    """
    config = {flag: config[flag] for flag in REMEMBERED}
    epoch, weights = history[-1], model.state_dict()
    if best_of(history) is epoch:
        write(folder / "best.pt", serialized({"network": model.network, "model": weights, "config": config, **epoch}))
    write(folder / "metrics.csv", metrics_csv(history))
    state = {
        "config": config,
        "epoch": epoch["epoch"],
        "history": history,
        "model": weights,
        "optimizer": optimizer.state_dict(),
        "scheduler": scheduler and scheduler.state_dict(),
    }
    write(folder / "checkpoint.pt", serialized(state))


def check_replaceable(folder):
    """Raise CheckpointError if the directory holds an unfinished run, or files of a run's names that no run wrote."""
    path = folder / "checkpoint.pt"
    ways_out = "replace it with --overwrite, or name another --results_dir"
    if path.exists():
        saved = read(path)
        config, done = saved.get("config"), saved.get("epoch")
        epochs = config.get("epochs") if isinstance(config, dict) else None
        if not isinstance(done, int) or not isinstance(epochs, int):
            raise CheckpointError(f"{path} was not written by this program: {ways_out}")
        if done < epochs:
            raise CheckpointError(
                f"{folder} holds an unfinished run (epoch {done} of {epochs}): continue it with --resume, {ways_out}"
            )
        return
    foreign = [name for name in FILES if (folder / name).exists()]
    if foreign and "config.json" not in foreign:
        raise CheckpointError(f"{folder / foreign[0]} is not of a run of this program: {ways_out}")


def resumable(folder, given):
    """The checkpoint in the directory. Raises CheckpointError if there is none, or if a flag that the user gave would
    make it another run."""
    path = folder / "checkpoint.pt"
    if not path.exists():
        raise CheckpointError(f"there is no checkpoint in {folder} to continue; start the run without --resume")
    saved = read(path)
    config, done = saved.get("config"), saved.get("epoch")
    if not isinstance(config, dict) or not set(REMEMBERED) <= set(config) or done != len(saved.get("history", ())):
        raise CheckpointError(f"{path} was not written by this program")
    differences = [
        f"{key} {config[key]}, not {given[key]}" for key in IDENTITY if given.get(key, config[key]) != config[key]
    ]
    if differences:
        raise CheckpointError(
            f"{path} is of another run: {'; '.join(differences)}. Leave these flags out, or start anew"
        )
    epochs = given.get("epochs", config["epochs"])
    if epochs < done:
        raise CheckpointError(f"the run in {folder} has finished {done} epochs already; give --epochs {done} or more")
    if config["schedule"] != "constant" and epochs != config["epochs"]:
        raise CheckpointError(
            f"a {config['schedule']} schedule is laid out over its run's {config['epochs']} epochs and cannot be "
            f"stretched to {epochs}; start a new run for that"
        )
    return saved
