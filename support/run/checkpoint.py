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
from pathlib import Path
from typing import NamedTuple

import torch

from support.errors import UserError, naming
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
    *("model.py", "train.py", "support/seeds.py", "support/run/schedules.py"),
    *("support/data/datasets.py", "support/data/idx.py", "support/data/images.py"),
    *("support/machine/arithmetic.py", "support/machine/compiled.py", "support/machine/processes.py"),
    *("support/machine/steps.py", "variants/*.py"),
)
CONTENT_ERRORS = (KeyError, TypeError, ValueError, AttributeError)  # of a nested value that is not what it should be
WAYS_OUT = "replace it with --overwrite, or name another --results_dir"


class Saved(NamedTuple):
    """What a checkpoint.pt holds: the run's settings, code and rows, and the states of its moving parts."""

    config: Config
    fingerprint: str
    history: list[dict]
    model: dict
    optimizer: dict
    scheduler: dict


def find_saved(config):
    """The run that the command continues, or None to begin one.

    Raises:
        UserError: the directory holds a damaged checkpoint, or files that no run wrote.
    """
    folder = config.results_dir
    if config.overwrite:
        return None
    if (folder / "checkpoint.pt").exists():
        return load(folder / "checkpoint.pt")
    foreign = [path for path in files.present(folder) if path.suffix != ".part"]
    if foreign:
        raise UserError(f"{foreign[0]} was not written by a run that can be continued: {WAYS_OUT}")
    return None


def dataset_in(folder):
    """The dataset of the run in a folder, also of one to be replaced: "unknown" if damaged, None if there is no run."""
    if all(path.suffix == ".part" for path in files.present(folder)):
        return None
    try:
        return load(folder / "checkpoint.pt").config.dataset
    except (UserError, FileNotFoundError):
        return "unknown"


def fill_open_flags(config, saved):
    """The Config with which a command goes on: where it leaves a choice open, the saved run's own.

    --resume leaves open every flag that is not named; --precision auto and --compile auto are open always.
    """
    if saved is None:
        return config
    if config.resume:
        own = {field.name for field in FLAGS} - config.named - {"resume", "results_dir"}
        config = dataclasses.replace(config, **{name: getattr(saved.config, name) for name in own})
    auto = [name for name in ("precision", "compile") if getattr(config, name) == "auto"]
    return dataclasses.replace(config, **{name: getattr(saved.config, name) for name in auto})


def check_same_run(config, saved):
    """Raise UserError, naming what differs, if the command's run is not the saved one.

    A run may be continued to more epochs than it was begun with, unless its schedule depends on them.
    """
    done = len(saved.history)
    found = differences(saved.config, config)
    if config.schedule != "constant" and config.epochs != saved.config.epochs:
        found.append(
            f"--epochs {saved.config.epochs} there, {config.epochs} here, which --schedule {config.schedule} depends on"
        )
    elif config.epochs < done:
        found.append(f"{done} epochs finished there, --epochs {config.epochs} here")
    if found:
        own = "leave these flags out" if config.resume else "continue it with --resume, without these flags"
        raise UserError(f"{config.results_dir} holds another run ({'; '.join(found)}): {WAYS_OUT}, or {own}")
    if saved.fingerprint != fingerprint() and not config.resume:
        raise UserError(
            f"{config.results_dir} holds a run of other code: {WAYS_OUT}, or continue it all the same with --resume"
        )


def restore(run, saved):
    """Put a new run where the saved one stopped.

    Raises:
        UserError: the checkpoint does not fit its own settings, or best.pt is not of this run.
    """
    if saved.fingerprint != fingerprint():
        print("WARNING: the code has changed since this run began; the result may differ", file=sys.stderr)
    path = run.config.results_dir / "checkpoint.pt"
    with refuse_damage(path, Exception):  # what a wrong state makes PyTorch raise is no closed list
        run.model.load_state_dict(saved.model)
        run.optimizer.load_state_dict(saved.optimizer)
        run.scheduler.load_state_dict(saved.scheduler)
    with refuse_damage(path, ValueError):
        for parameter in run.model.parameters():
            check_shapes(parameter, run.optimizer.state[parameter])
    run.history = saved.history
    best = best_of(saved.history)
    if best is not saved.history[-1]:  # of the last epoch, best.pt is written again
        best_path = path.with_name("best.pt")
        if read(best_path).get("row") != best:
            raise UserError(f"{best_path} is not of epoch {best['epoch']}, the best of this run: {WAYS_OUT}")


def check_shapes(parameter, state):
    """Raise ValueError if an optimizer's state does not fit its parameter: load_state_dict does not look at shapes."""
    if not state or any(value.shape not in (parameter.shape, ()) for value in state.values()):
        raise ValueError("a moment has another shape than its parameter")


def save(run):
    """Write checkpoint.pt, then what follows from it: best.pt, if the last epoch is the best, and metrics.csv.

    A kill in between leaves the latter two an epoch behind; a continued run saves its last epoch again.
    """
    folder = run.config.results_dir
    state = {
        "format": FORMAT,
        "config": to_plain(run.config),
        "fingerprint": fingerprint(),
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
    storage.write(folder / "metrics.csv", metrics_csv(run.history, has_kld=run.config.divergence == "kl"))


def load(path):
    """The run in a checkpoint.pt. Raises UserError if it is damaged or of another version, OSError if unreadable."""
    saved = read(path)
    with refuse_damage(path, *CONTENT_ERRORS):
        history = [checked_row(row, epoch) for epoch, row in enumerate(saved["history"], 1)]
        if not history:
            raise ValueError("no epoch is finished")
        states = (saved[name] for name in ("model", "optimizer", "scheduler"))
        return Saved(from_plain(saved["config"]), str(saved["fingerprint"]), history, *states)


def load_model(path):
    """The model in a best.pt, on the CPU, ready for use.

    Raises:
        UserError: the file is damaged or not a best.pt of this program.
        OSError: it cannot be read.
    """
    saved = read(path)
    with refuse_damage(path, *CONTENT_ERRORS):
        config = from_plain(saved["config"])
        weights = saved["model"]
    with torch.device("meta"):  # takes no memory before the shapes are known to agree
        model = build_model(config)
    with refuse_damage(path, Exception):  # what wrong weights make PyTorch raise is no closed list
        model.load_state_dict(weights, assign=True)
    if any(parameter.dtype != torch.float32 for parameter in model.parameters()):
        raise damage(path)
    return model.eval()


def read(path):
    """The dict in a file that torch.save wrote, on the CPU. Only tensors and plain values are unpickled, never code.

    Raises:
        UserError: the file is damaged, or of another version of this program.
        OSError: it cannot be read.
    """
    with naming(path):
        content = Path(path).read_bytes()
    with refuse_damage(path, Exception):  # what a damaged file makes zipfile and torch.load raise is no closed list
        saved = unpack(content)
    if not isinstance(saved, dict):
        raise damage(path)
    if saved.get("format") != FORMAT:
        raise UserError(f"{path} was written by another version of this program: {WAYS_OUT}")
    return saved


def unpack(content):
    """What torch.save has written as the bytes `content`, its checksums checked."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        with zipfile.ZipFile(io.BytesIO(content)) as archive:
            if archive.testzip() is not None:
                raise zipfile.BadZipFile("a checksum does not agree")
        return torch.load(io.BytesIO(content), map_location="cpu", weights_only=True)


@contextlib.contextmanager
def refuse_damage(path, *errors):
    """Turn the errors that a file's content causes into a UserError that calls the file damaged."""
    try:
        yield
    except errors as error:
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
def fingerprint():
    """A digest of the source files that decide the arithmetic of a run."""
    digest = hashlib.sha256()
    for pattern in ARITHMETIC:
        for path in sorted(ROOT.glob(pattern)):
            digest.update(path.read_text(encoding="utf-8").encode())  # read as text: line ends do not count
    return digest.hexdigest()


def serialize(saved):
    """The bytes that torch.save makes of a dict."""
    buffer = io.BytesIO()
    torch.save(saved, buffer)
    return buffer.getvalue()
