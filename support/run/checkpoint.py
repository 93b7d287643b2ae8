"""A run on the disk: what it saves, and which run in a directory a command continues or refuses to touch."""

import contextlib
import csv
import dataclasses
import functools
import hashlib
import io
import math
import sys
import warnings
import zipfile
from collections import Counter
from pathlib import Path
from typing import NamedTuple

import torch

from support.errors import UserError, naming
from support.machine import devices
from support.run import files, storage
from support.run.config import FLAGS, Config, differences, from_plain, to_plain
from variants import build_model

FORMAT = 2
NUMBERS = ("train_bce", "train_divergence", "train_total", "test_bce", "test_divergence", "test_total", "seconds")
COLUMNS = (
    *("epoch", "train_bce", "train_kld", "train_total", "test_bce", "test_kld", "test_total", "seconds"),
    *("train_divergence", "test_divergence"),
)
ROOT = Path(__file__).parent.parent.parent
# The files that decide the arithmetic of a run.
ARITHMETIC = (
    *("model.py", "train.py", "support/seeds.py"),
    *("support/data/datasets.py", "support/machine/arithmetic.py", "support/machine/compiled.py"),
    *("support/machine/processes.py", "support/machine/steps.py", "variants/*.py"),
)
CONTENT_ERRORS = (KeyError, TypeError, ValueError, AttributeError)  # of a nested value that is not what it should be
WAYS_OUT = "replace it with --overwrite, or name another --results_dir"
AUTO = {"precision", "compile"}  # what auto chooses for them depends on the machine
EVERYWHERE = ("float32", "off")  # values of --precision and --compile that every machine has
LEARNING_RATE = {"--lr", "--schedule", "--epochs", "--batch_size"}  # what it depends on


class Saved(NamedTuple):
    """What a checkpoint.pt holds: the run's settings, code and rows, and the states of its moving parts.

    named: those of AUTO that its commands named. data: `Dataset.checksums`, and None if an earlier version wrote it.
    """

    config: Config
    fingerprint: str
    history: list[dict]
    model: dict
    optimizer: dict
    scheduler: dict
    named: frozenset[str]
    data: torch.Tensor | None
    threads: int | None


def find_saved(config):
    """The run that the command continues, or None to begin one. Raises UserError for files that no run wrote."""
    folder = config.results_dir
    if config.overwrite:
        return None
    if (folder / "checkpoint.pt").exists():
        return load(folder / "checkpoint.pt")
    if foreign := files.present(folder):
        raise UserError(f"{foreign[0]} was not written by a run that can be continued: {WAYS_OUT}")
    return None


def fill_open_flags(config, saved):
    """The command's Config, every choice that it leaves open filled in from the saved run.

    --resume leaves open every flag that is not named, except where to compute; --precision auto and --compile auto are
    open always. What auto chose for the saved run is chosen again unless every machine has it.
    """
    if saved is None:
        return config
    own = {name for name in AUTO if getattr(config, name) == "auto"}
    if config.resume:
        own |= {field.name for field in FLAGS} - config.named - {"resume", "overwrite", "results_dir", "device"}
    values = {name: getattr(saved.config, name) for name in own}
    values |= {name: "auto" for name in own & (AUTO - saved.named) if values[name] not in EVERYWHERE}
    return dataclasses.replace(config, **values, named=config.named | saved.named)


def check_same_run(config, saved, data=None):
    """Raise UserError, naming what differs, if the command's run is not the saved one.

    A run may be continued to more epochs than it was begun with. --resume goes on with whatever fits the weights.
    `data` is `Dataset.checksums`, and None before the dataset is read.
    """
    folder = config.results_dir
    done = len(saved.history)
    found = differences(saved.config, config)
    if config.epochs < done and (config.resume or not found):
        raise UserError(f"{folder} holds {done} finished epochs: name --epochs {done} or more, or {WAYS_OUT}")
    if config.resume:
        return check_fit(config, saved, found)
    if found:
        named = "; ".join(f"{flag} {there} there, {here} here" for flag, there, here in found)
        raise UserError(
            f"{folder} holds another run ({named}): {WAYS_OUT}, or continue it with --resume, without these flags or "
            "with their new values"
        )
    if saved.fingerprint != fingerprint():
        raise UserError(f"{folder} holds a run of other code: {WAYS_OUT}, or continue it all the same with --resume")
    if changed := data_changes(saved.data, data):
        raise UserError(
            f"{folder} holds a run on other data ({changed}): {WAYS_OUT}, or go on with these with --resume"
        )


def check_fit(config, saved, found):
    """Raise UserError that names those of the differences `found` which give the model other weights."""
    with refuse_damage(config.results_dir / "checkpoint.pt", *CONTENT_ERRORS):
        shapes = {name: tensor.shape for name, tensor in saved.model.items()}
    unfit = []
    for flag, there, here in found:
        alone = dataclasses.replace(saved.config, **{flag[2:]: getattr(config, flag[2:])})
        with torch.device("meta"):  # takes no memory
            state = build_model(alone).state_dict()
        if {name: tensor.shape for name, tensor in state.items()} != shapes:
            unfit.append(f"{flag} {there} there, {here} here")
    if unfit:
        own = f"leave these flags out, or {WAYS_OUT}"
        raise UserError(f"the weights of the run in {config.results_dir} do not fit {'; '.join(unfit)}: {own}")


def data_changes(there, here):
    """How many images differ between two `Dataset.checksums`, in words; "" if they agree, or one of them is unknown."""
    if there is None or here is None or torch.equal(there, here):
        return ""
    before, now = (Counter(checksums.tolist()) for checksums in (there, here))
    gone, new = (before - now).total(), (now - before).total()
    if not gone + new:
        return "the same images in another order, as after renaming files"
    return f"of its {len(there):,} images {gone:,} are gone or have changed, and {new:,} are new"


def restore(run, saved):
    """Put a new run where the saved one stopped. Raises UserError if the states do not fit."""
    path = run.config.results_dir / "checkpoint.pt"
    new_groups = run.optimizer.state_dict()["param_groups"]
    with refuse_damage(path, Exception):  # what a wrong state makes PyTorch raise is no closed list
        run.model.load_state_dict(saved.model)
        run.optimizer.load_state_dict(saved.optimizer)
    changed = {flag for flag, *_ in differences(saved.config, run.config)}
    if changed & LEARNING_RATE or data_changes(saved.data, run.dataset.checksums):
        move_schedule(run, new_groups, len(saved.history))
    else:
        with refuse_damage(path, Exception):
            run.scheduler.load_state_dict(saved.scheduler)
    run.history = saved.history


def check_best(run):
    """Raise UserError if best.pt is not of the best epoch, unless that is the last one, which is saved again."""
    best = best_of(run.history)
    path = run.config.results_dir / "best.pt"
    if best is run.history[-1]:
        return
    if not path.exists():
        raise UserError(f"{path} is missing: put it back, or {WAYS_OUT}")
    if read(path).get("row") != best:
        raise UserError(f"{path} is not of epoch {best['epoch']}, the best of this run: {WAYS_OUT}")


def update_files(run, saved):
    """Remove files that training on will make wrong; a finished run of other code is saved as one of this code."""
    folder = run.config.results_dir
    has_changed = data_changes(saved.data, run.dataset.checksums)
    if len(run.history) < run.config.epochs:
        files.remove(folder / name for name in files.LAST)
        if has_changed:  # nothing can show images again that are not there
            paths = [files.frame(folder, "latent", row["epoch"]) for row in run.history]
            files.remove(path.with_suffix(suffix) for path in paths for suffix in (".npy", ".npz"))
    elif saved.fingerprint != fingerprint() and not has_changed:
        save(run)


def move_schedule(run, groups, epochs):
    """Reset the optimizer's settings to `groups`, and move the schedule to the end of an epoch."""
    for group, new in zip(run.optimizer.param_groups, groups, strict=True):
        group.update({name: value for name, value in new.items() if name != "params"})
    run.scheduler.last_epoch = epochs * -(-len(run.dataset.train_images) // run.config.batch_size) - 1
    with warnings.catch_warnings(action="ignore"):  # PyTorch expects a step of the optimizer before
        run.scheduler.step()


def say_changes(run, saved):
    """Print each way in which a continued run differs from its beginning."""
    for flag, there, here in differences(saved.config, run.config):
        print(f"Continuing with {flag} {here} in place of {there}")
    if changed := data_changes(saved.data, run.dataset.checksums):
        print(f"Continuing on other data: {changed}")
    threads = torch.get_num_threads()
    if saved.threads not in (None, threads):
        print(f"Continuing on {threads} threads in place of {saved.threads}: results may differ in their last digits")
    if saved.fingerprint != fingerprint():
        print("WARNING: the code has changed since this run began; the result may differ", file=sys.stderr)


def save(run):
    """Write checkpoint.pt, then what follows from it: best.pt, if the last epoch is the best, and metrics.csv.

    A kill in between leaves the latter two an epoch behind; a continued run saves its last epoch again.
    """
    folder = run.config.results_dir
    state = {
        "format": FORMAT,
        "config": to_plain(run.config),
        "fingerprint": fingerprint(),
        "named": sorted(run.config.named & AUTO),
        "data": run.dataset.checksums,
        "threads": torch.get_num_threads(),
        "history": run.history,
        "model": run.model.state_dict(),
        "optimizer": run.optimizer.state_dict(),
        "scheduler": run.scheduler.state_dict(),
    }
    storage.write(folder / "checkpoint.pt", serialize(state))
    if len(run.history) == 1:  # only now, so that a failed start keeps the run it would have replaced
        files.clear(folder)
    if best_of(run.history) is run.history[-1]:
        best = {"format": FORMAT, "config": to_plain(run.config), "row": run.history[-1], "model": state["model"]}
        storage.write(folder / "best.pt", serialize(best))
    storage.try_write(folder / "metrics.csv", metrics_csv(run.history, has_kld=run.config.divergence == "kl"))


def load(path):
    """The run in a checkpoint.pt. Raises UserError if it is damaged or of another version, OSError if unreadable."""
    saved = read(path)
    config = read_config(saved, path)
    with refuse_damage(path, *CONTENT_ERRORS):
        history = [checked_row(row, epoch) for epoch, row in enumerate(saved["history"], 1)]
        if not history:
            raise ValueError("no epoch is finished")
        states = (saved[name] for name in ("model", "optimizer", "scheduler"))
        named, data, threads = (saved.get(name) for name in ("named", "data", "threads"))
        if data is not None and data.dtype != torch.int32:
            raise ValueError("no checksums of images")
        return Saved(config, str(saved["fingerprint"]), history, *states, frozenset(named or ()), data, threads)


def read_config(saved, path):
    """The Config in what `read` has read. Raises UserError if it is damaged, or has flags that this version lacks."""
    with refuse_damage(path, *CONTENT_ERRORS):
        unknown = saved["config"].keys() - {field.name for field in FLAGS}
        if not unknown:
            return from_plain(saved["config"])
    raise UserError(f"{path} has flags of another version of this program ({', '.join(sorted(unknown))}): {WAYS_OUT}")


def load_model(path):
    """The model in a best.pt, on the CPU, ready for use. Raises UserError if it is damaged, OSError if unreadable."""
    saved = read(path)
    config = read_config(saved, path)
    with torch.device("meta"):  # takes no memory before the shapes are known to agree
        model = build_model(config)
    with refuse_damage(path, Exception):  # what wrong weights make PyTorch raise is no closed list
        model.load_state_dict(saved["model"], assign=True)
    if any(parameter.dtype != torch.float32 for parameter in model.parameters()):
        raise damage(path)
    return model.eval()


def read(path):
    """The dict in a file that torch.save wrote, on the CPU. Only tensors and plain values are unpickled, never code.

    Raises UserError if it is damaged or of another version, OSError if unreadable.
    """
    with naming(path):
        content = Path(path).read_bytes()
    # What a damaged file makes zipfile and torch.load raise is no closed list.
    with refuse_damage(path, Exception), warnings.catch_warnings(action="ignore"):
        if zipfile.ZipFile(io.BytesIO(content)).testzip() is not None:
            raise zipfile.BadZipFile("a checksum does not agree")
        saved = torch.load(io.BytesIO(content), map_location="cpu", weights_only=True)
    if not isinstance(saved, dict):
        raise damage(path)
    if saved.get("format") != FORMAT:
        raise UserError(f"{path} was written by another version of this program: {WAYS_OUT}")
    return saved


@contextlib.contextmanager
def refuse_damage(path, *errors):
    """Turn the errors that a file's content causes into a UserError that calls the file damaged."""
    try:
        yield
    except errors as error:
        if devices.is_missing_memory(error):
            raise
        raise damage(path) from error


def damage(path):
    """The error of a file whose content is wrong."""
    return UserError(f"{path} is damaged, or was not written by this program: {WAYS_OUT}")


def checked_row(row, epoch):
    """A row of the history with every figure finite. Raises KeyError, TypeError or ValueError if it is none."""
    figures = {name: row[name] for name in NUMBERS}
    if row["epoch"] != epoch or len(row) != 1 + len(NUMBERS):
        raise ValueError("a row of another epoch or with other columns")
    if not all(type(figure) is float and math.isfinite(figure) for figure in figures.values()):
        raise ValueError("a figure that is not finite")
    return {"epoch": epoch, **figures}


def best_of(history):
    """The row of the lowest test_total; the first of equals."""
    return min(history, key=lambda row: row["test_total"])


def metrics_csv(history, has_kld):
    """The bytes of metrics.csv: nats per image to four decimals, seconds to three; kld is empty where there is none."""
    text = io.StringIO(newline="")
    table = csv.DictWriter(text, COLUMNS, lineterminator="\n")
    table.writeheader()
    for row in history:
        cells = {name: f"{row[name]:.4f}" for name in NUMBERS}
        cells |= {f"{part}_kld": cells[f"{part}_divergence"] if has_kld else "" for part in ("train", "test")}
        table.writerow({**cells, "epoch": row["epoch"], "seconds": f"{row['seconds']:.3f}"})
    return text.getvalue().encode()


@functools.cache
def fingerprint(patterns=ARITHMETIC):
    """A digest of source files: those that decide the arithmetic of a run, if no others are named."""
    digest = hashlib.sha256()
    for pattern in patterns:
        for path in sorted(ROOT.glob(pattern)):
            digest.update(path.read_text(encoding="utf-8").encode())  # read as text: line ends do not count
    return digest.hexdigest()


def serialize(saved):
    """The bytes that torch.save makes of a dict."""
    buffer = io.BytesIO()
    torch.save(saved, buffer)
    return buffer.getvalue()
