"""Config: every flag once, with its default, help, check, and whether it defines the run.

The command line, --help, config.json, what --resume may change and the table in docs/usage.md follow from the fields.
This module imports no torch, so that --help answers at once.
"""

import argparse
import dataclasses
import json
import math
import os
from pathlib import Path

DATASETS = ("mnist", "binary_mnist", "fashion_mnist", "kmnist", "digits")


class BadValue(argparse.ArgumentTypeError, ValueError):
    """A text that is no value of a flag, in words that argparse prints."""


def number(kind, low, high, meaning):
    """A check that accepts the numbers of a kind from low to high."""

    def check(text):
        try:
            value = kind(text)
        except ValueError:
            value = math.nan
        if not low <= value <= high:
            raise BadValue(f"{text!r} is not {meaning}")
        return value

    return check


whole_number = number(int, 1, 10**9, "a whole number from 1 to 1,000,000,000")
seed_number = number(int, 0, 2**63 - 1, "a whole number from 0 to 2^63 - 1")
positive = number(float, 1.2e-38, 3.4e38, "a positive, finite number")  # that float32 can hold
share = number(float, 0, 1 - 2**-53, "a number from 0 up to, but not including, 1")


def directory(text):
    """A path; ~ and $VARIABLES are expanded."""
    if not text:
        raise BadValue("an empty path names no directory")
    return Path(os.path.expanduser(os.path.expandvars(text)))


def dataset_name(text):
    """The name of a dataset, or the absolute path of a folder of images, which must be there."""
    if text in DATASETS:
        return text
    path = directory(text)
    if not os.path.isdir(path):  # Path.is_dir raises an error for a name that is too long
        raise BadValue(f"{text!r} is neither one of {', '.join(DATASETS)} nor a directory")
    return os.path.abspath(path)


dataset_name.names = (*DATASETS, "DIR")
# Saved paths are neither expanded nor checked again.
directory.saved = Path
dataset_name.saved = str


def one_of(*names):
    """A check that accepts only these names."""

    def check(text):
        if text not in names:
            raise BadValue(f"{text!r} is not one of {', '.join(names)}")
        return text

    check.names = names
    return check


def flag(default, help, check=None, defines_run=True):
    """A field of Config.

    Args:
        check: turns the flag's text into its value, or raises BadValue. None: the flag is a switch.
        defines_run: whether a run with another value is another run.
    """
    metadata = {"help": help, "check": check, "defines_run": defines_run}
    if callable(default):
        return dataclasses.field(default_factory=default, metadata=metadata)
    return dataclasses.field(default=default, metadata=metadata)


def default_data_dir():
    """$VAE_DATA_DIR, or data."""
    return directory(os.environ.get("VAE_DATA_DIR") or "data")


@dataclasses.dataclass(frozen=True)
class Config:
    """The settings of a run, one field per flag, and the names of the flags that the user gave."""

    epochs: int = flag(10, "passes over the training set", whole_number, defines_run=False)
    batch_size: int = flag(128, "images per step, over all processes", whole_number)
    log_interval: int = flag(10, "batches between status lines", whole_number, defines_run=False)
    seed: int = flag(1, "seeds the weights, the order of the images and the noise", seed_number)
    device: str = flag("auto", "where to train", one_of("auto", "cpu", "cuda", "mps"), defines_run=False)
    lr: float = flag(1e-3, "Adam's learning rate; the highest one under onecycle", positive)
    schedule: str = flag("constant", "learning-rate schedule", one_of("constant", "onecycle"))
    latent_dim: int = flag(2, "size of z", whole_number)
    hidden_dims: tuple[int, ...] = flag(
        (400,), "widths of the encoder's hidden layers; the decoder mirrors them", whole_number
    )
    dataset: str = flag(
        "mnist", "what to train on; DIR is a folder of images, with one sub-folder per class", dataset_name
    )
    data_dir: Path = flag(default_data_dir, "where datasets are, or are downloaded to", directory, defines_run=False)
    results_dir: Path = flag(Path("results"), "where the run writes", directory, defines_run=False)
    precision: str = flag("auto", "dtype of the layers during training", one_of("auto", "float32", "bfloat16"))
    compile: str = flag(
        "auto", "train through torch.compile; auto: if the run is long enough to gain", one_of("auto", "on", "off")
    )
    input_dropout: float = flag(0.0, "share of the pixels that the encoder does not see in training", share)
    prior: str = flag(
        "normal", "p(z): N(0, I), a learned mixture of Gaussians, or the VampPrior", one_of("normal", "mixture", "vamp")
    )
    prior_components: int = flag(10, "Gaussians in a learned prior", whole_number)
    divergence: str = flag(
        "kl", "what keeps the latents near the prior: KL, or the MMD of a Wasserstein auto-encoder", one_of("kl", "mmd")
    )
    divergence_weight: float = flag(1.0, "weight of the divergence relative to BCE", positive)
    resume: bool = flag(
        False, "continue the run in --results_dir; flags that are not named are the run's own", defines_run=False
    )
    overwrite: bool = flag(False, "replace the run in --results_dir", defines_run=False)
    named: frozenset[str] = frozenset()


MMD_NEEDS_NORMAL = "--divergence mmd compares z with draws from N(0, I): leave --prior at normal"
FLAGS = tuple(field for field in dataclasses.fields(Config) if field.metadata)


def parse(argv=None):
    """The Config of a command line. A bad flag ends the process with exit code 2 and a line on stderr."""
    parser = argparse.ArgumentParser(
        prog="main.py",
        description="Train a variational auto-encoder and draw its latent space.",
        epilog="See README.md and docs/usage.md.",
        argument_default=argparse.SUPPRESS,
        allow_abbrev=False,
    )
    for field in FLAGS:
        _add_flag(parser, field)
        if field.name == "device":
            parser.add_argument(
                *_spellings("no_cuda"), dest="device", action="store_const", const="cpu", help="same as --device cpu"
            )
    given = vars(parser.parse_args(argv))
    if "hidden_dims" in given:
        given["hidden_dims"] = tuple(given["hidden_dims"])
    from_environment = frozenset({"data_dir"} if os.environ.get("VAE_DATA_DIR") else ())
    config = Config(**given, named=from_environment | {name for name in given if given[name] != "auto"})
    if config.resume and config.overwrite:
        parser.error("--resume continues a run and --overwrite replaces it: give one of the two")
    if config.divergence == "mmd" and config.prior != "normal":
        parser.error(MMD_NEEDS_NORMAL)
    results = Path(os.path.realpath(config.results_dir))  # Path.resolve raises an error for links in a circle
    taken = {results, *results.parents, results / "latent", results / "reconstruction"}
    if config.dataset not in DATASETS and Path(os.path.realpath(config.dataset)) in taken:
        parser.error(
            f"pictures in --results_dir {config.results_dir} would become images of --dataset {config.dataset}: name a "
            "--results_dir outside it"
        )
    return config


def to_plain(config):
    """Every flag and its value as a dict of plain values, for JSON and checkpoints."""
    values = {field.name: getattr(config, field.name) for field in FLAGS}
    return json.loads(json.dumps(values, default=str))


def from_plain(values):
    """The Config that `to_plain` was made of; a flag that is newer than the values has its default.

    Raises:
        KeyError, ValueError, TypeError, AttributeError: the values are not those of a Config.
    """
    fields = {field.name: field for field in FLAGS}
    return Config(**{name: _checked(fields[name], value) for name, value in values.items()})


def differences(saved, requested):
    """The flags that define a run and differ between two Configs: [(flag, value there, value here)], as texts.

    A flag left at auto never counts as a difference, and folders differ by what they hold, not by their paths.
    """
    found = []
    for field in FLAGS:
        there, here = (getattr(config, field.name) for config in (saved, requested))
        # The steps of a schedule are spread over all epochs.
        defines_run = field.metadata["defines_run"] or (field.name == "epochs" and requested.schedule != "constant")
        is_moved = field.name == "dataset" and not {there, here} & set(DATASETS)
        if defines_run and there != here and here != "auto" and not is_moved:
            found.append((f"--{field.name}", as_text(there), as_text(here)))
    return found


def _checked(field, value):
    """A plain value by the check that the command line uses."""
    check = field.metadata["check"]
    if check is None:
        return bool(value)
    if not isinstance(field.default, tuple):
        return getattr(check, "saved", check)(str(value))
    if not value:
        raise ValueError(f"--{field.name} needs a value")
    return tuple(check(str(item)) for item in value)


def as_text(value):
    """A value as it is written on the command line."""
    if isinstance(value, bool):
        return "on" if value else "off"
    return " ".join(map(str, value)) if isinstance(value, tuple) else str(value)


def _spellings(name):
    """A flag with underscores, and with hyphens."""
    return sorted({f"--{name}", f"--{name.replace('_', '-')}"}, reverse=True)


def _add_flag(parser, field):
    """Add a field of Config to the parser."""
    check = field.metadata["check"]
    default = getattr(Config(), field.name)
    if check is None:
        parser.add_argument(*_spellings(field.name), action="store_true", help=field.metadata["help"])
        return
    names = getattr(check, "names", None)
    parser.add_argument(
        *_spellings(field.name),
        type=check,
        nargs="+" if isinstance(field.default, tuple) else None,
        metavar=f"{{{','.join(names)}}}" if names else field.name.upper(),
        help=f"{field.metadata['help']} (default: {as_text(default)})".replace("%", "%%"),
    )
