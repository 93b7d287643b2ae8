"""The names of the files that a run writes, and finding and removing them."""

import re
import sys

from support.run import storage

LAST = ("latent.gif", "manifold.png", "samples.png", "explorer.html")  # written at the end of a run
FILES = ("checkpoint.pt", "best.pt", "metrics.csv", "config.json", "loss.png", *LAST)
FRAMES = re.compile(r"\.?epoch_\d{3,}\.(png|npy|npz)(\.part)?")


def names(config):
    """The names of the files that a run writes beside its frames."""
    return [name for name in FILES if name != "explorer.html" or config.latent_dim == 2]


def frame(folder, kind, epoch, suffix=".png"):
    """The path of an epoch's picture; `kind` is reconstruction or latent.

    Beside a latent frame lie its points, .npz, and .npy: means for the explorer, or the axes of the frame's plane.
    """
    return folder / kind / f"epoch_{epoch:03d}{suffix}"


def present(folder, half_written=False):
    """The files in the directory that have the names of a run's files; half-written ones too, if asked."""
    paths = [folder / name for name in FILES]
    paths += [storage.partial(path) for path in paths]
    for kind in ("reconstruction", "latent"):
        paths += [path for path in (folder / kind).glob("*") if FRAMES.fullmatch(path.name)]
    return [path for path in paths if path.exists() and (half_written or path.suffix != ".part")]


def clear(folder):
    """Remove what a replaced run left behind: its files, except checkpoint.pt."""
    remove(path for path in present(folder, half_written=True) if path.name != "checkpoint.pt")


def remove(paths):
    """Remove files that are out of date, if they are there. One that cannot be removed costs a warning."""
    for path in paths:
        try:
            path.unlink(missing_ok=True)
        except OSError as error:
            print(f"WARNING: {path} is out of date, and cannot be removed: {error.strerror}", file=sys.stderr)
