"""Train a variational auto-encoder and draw its latent space: python main.py --epochs 100 --log_interval 30"""

import argparse
import errno
import math
import os
import signal
import sys

from errors import UserError

DEFAULTS = {
    "epochs": 10,
    "batch_size": 128,
    "log_interval": 10,
    "seed": 1,
    "device": "auto",
    "lr": 1e-3,
    "schedule": "constant",
    "latent_dim": 2,
    "hidden_dims": [400],
    "dataset": "mnist",
    "data_dir": os.environ.get("VAE_DATA_DIR") or "data",
    "results_dir": "results",
    "precision": "auto",
    "prior": "normal",
    "prior_components": 10,
    "divergence": "kl",
    "divergence_weight": 1.0,
    "resume": False,
    "overwrite": False,
}


def number(kind, text, low, high, meaning):
    """The number in the text, from low to high, of the kind int or float."""
    try:
        value = kind(text)
    except ValueError:
        value = math.nan
    if not low <= value <= high:
        raise argparse.ArgumentTypeError(f"{text!r} is not {meaning}")
    return value


def count(text):
    """A whole number from 1 to a thousand million."""
    return number(int, text, 1, 10**9, "a whole number from 1 to a thousand million")


def seed(text):
    """A whole number from 0 to 2^63 - 1."""
    return number(int, text, 0, 2**63 - 1, "a whole number from 0 to 2^63 - 1")


def rate(text):
    """A positive number, not beyond float32, in which it is used."""
    return number(float, text, sys.float_info.min, 3.4e38, "a positive, finite number")


def folder(text):
    """A path, not an empty one."""
    if not text:
        raise argparse.ArgumentTypeError("an empty path names no directory")
    return text


def parse(argv=None):
    """The flags that the user named, as a dict. A bad one ends the process with exit code 2 and a line on stderr."""
    parser = argparse.ArgumentParser(
        description=__doc__, argument_default=argparse.SUPPRESS, allow_abbrev=False, epilog="See README.md."
    )

    def flag(name, help, **kwargs):
        default = DEFAULTS.get(name)
        if default:
            shown = " ".join(map(str, default)) if isinstance(default, list) else default
            help += f" (default: {shown})".replace("%", "%%")
        spellings = [f"--{name}"] + ([f"--{name.replace('_', '-')}"] if "_" in name else [])
        parser.add_argument(*spellings, help=help, **kwargs)

    flag("epochs", "passes over the training set", type=count)
    flag("batch_size", "images a step, over all processes", type=count)
    flag("log_interval", "batches between status lines", type=count)
    flag("seed", "seeds everything random", type=seed)
    flag("no_cuda", "same as --device cpu", dest="device", action="store_const", const="cpu")
    flag("device", "where to train", choices=["auto", "cpu", "cuda", "mps"])
    flag("lr", "Adam's learning rate", type=rate)
    flag("schedule", "of the learning rate", choices=["constant", "onecycle"])
    flag("latent_dim", "size of z", type=count)
    flag("hidden_dims", "widths of the encoder's hidden layers; the decoder mirrors them", type=count, nargs="+")
    flag("dataset", "what to train on", choices=["mnist", "fashion_mnist", "digits"])
    flag("data_dir", "where the datasets are, or are downloaded to", type=folder)
    flag("results_dir", "where the run writes", type=folder)
    flag("precision", "of the layers while training", choices=["auto", "float32", "bfloat16"])
    flag("prior", "p(z): N(0, I), a learned mixture of Gaussians, the VampPrior", choices=["normal", "mixture", "vamp"])
    flag("prior_components", "Gaussians in a learned prior", type=count)
    flag("divergence", "from the prior: KL, or the MMD of a Wasserstein auto-encoder", choices=["kl", "mmd"])
    flag("divergence_weight", "factor on the divergence beside BCE", type=rate)
    flag(
        "resume",
        "continue the run in --results_dir by its own flags, but for directories, device, epochs and log interval",
        action="store_true",
    )
    flag("overwrite", "replace an unfinished run in --results_dir", action="store_true")
    given = vars(parser.parse_args(argv))
    if given.keys() >= {"resume", "overwrite"}:
        parser.error("--resume continues a run and --overwrite replaces it: give one of the two")
    if given.get("divergence") == "mmd" and given.get("prior", "normal") != "normal":
        parser.error("--divergence mmd compares z with draws from N(0, I): leave --prior at normal")
    return given


def listen():
    """A list to which SIGINT and SIGTERM are appended; a second signal of the same kind ends the process at once."""
    received = []

    def note(signum, frame):
        received.append(signum)
        signal.signal(signum, signal.SIG_DFL)

    signal.signal(signal.SIGINT, note)
    signal.signal(signal.SIGTERM, note)
    return received


def main(argv=None):
    """Run the command and return its exit code: 0 done, 1 it could not go on, 130 or 143 interrupted (2: bad flags)."""
    given = parse(argv)
    sys.stdout = sys.stdout or open(os.devnull, "w")  # noqa: SIM115 (None where the shell has closed it)
    # A line that is piped is there when it is printed, whatever a path in it may hold.
    sys.stdout.reconfigure(line_buffering=True, errors="backslashreplace")
    try:
        import train  # here, because PyTorch takes seconds to import and --help need not wait
    except KeyboardInterrupt:
        return 128 + signal.SIGINT
    try:
        train.run(given, DEFAULTS, listen)
    except KeyboardInterrupt:  # before `listen` was called
        print("Interrupted before training began", file=sys.stderr)
        return 128 + signal.SIGINT
    except train.Interrupted as interrupted:
        if str(interrupted):  # of many processes, one speaks
            print(interrupted, file=sys.stderr)
        return 128 + interrupted.signum
    except UserError as error:
        print(f"main.py: error: {error}", file=sys.stderr)
        return 1
    except OSError as error:
        where = error.filename
        if where is None and error.errno in (errno.EPIPE, errno.ENOSPC, errno.EFBIG, errno.EIO):
            where = "standard output"  # the only file written to without a name; nothing may try to flush it again
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        print(f"main.py: error: {where}: {error.strerror or error}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    code = main()
    if "WORLD_SIZE" in os.environ:
        # Threads of PyTorch's outlive the group of processes. One that lets go of a tensor while the interpreter is
        # taken down would abort the process, so that is left out.
        sys.stdout.flush()
        os._exit(code)
    sys.exit(code)
