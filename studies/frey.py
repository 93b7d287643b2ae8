"""Frey Face, a film of 1,965 frames: its splits, and the paper's Figures 4 and 5 of it. Used by paper.py."""

import math
import zlib
from pathlib import Path

import torch

from pictures import SIDE, manifold_grid
from studies import common
from support.data.datasets import Dataset
from support.errors import UserError, load_package
from support.seeds import generator

FILE = "frey_rawface.mat"
SHAPE = (28, 20)
FRAMES = 1965
FOLDS = 5
SPLIT_SEED = 1
CELLS = 20  # of log p(x), per standard deviation of the prior and axis
DRAWS = 50  # of each model


def load(flags, split, fold=FOLDS - 1):
    """The frames as a Dataset with one fold held out."""
    images = load_frames(flags)
    mask = held_out(len(images), split, fold)
    labels = torch.zeros(len(images), dtype=torch.int64)
    return Dataset("frey_face", images[~mask], labels[~mask], images[mask], labels[mask], ("face",))


def load_frames(flags):
    """The frames in the film's order, (N, 560) uint8. --quick: the upper 20 rows of scikit-learn's digits."""
    return common.load_dataset(flags).train_images[:, : math.prod(SHAPE)] if flags.quick else read(flags.data_dir)


def held_out(n, split, fold=FOLDS - 1):
    """Which of n frames are in a fold, (n,) bool: a stretch of the film ("film"), or drawn ones ("random")."""
    order = torch.arange(n) if split == "film" else torch.randperm(n, generator=generator(SPLIT_SEED))
    mask = torch.zeros(n, dtype=torch.bool)
    mask[order[fold * n // FOLDS : (fold + 1) * n // FOLDS]] = True
    return mask


def read(data_dir):
    """The frames in the film's order, (1965, 560) uint8.

    Raises:
        UserError: the file is missing, or is not what its name says.
    """
    path = Path(data_dir) / FILE
    if not path.exists():
        path = Path(data_dir) / "FreyFace" / FILE
    source = f"{FILE} is on Sam Roweis' page, cs.nyu.edu/~roweis/data.html: put it into --data_dir or its FreyFace/"
    scipy = load_package("scipy.io")
    damage = (OSError, KeyError, ValueError, TypeError, NotImplementedError, zlib.error, scipy.matlab.MatReadError)
    try:
        frames = scipy.loadmat(path)["ff"]
    except damage as error:
        problem = f"cannot be read ({type(error).__name__})" if path.exists() else "is not there"
        raise UserError(f"{path} {problem}: {source}") from error
    if frames.shape != (math.prod(SHAPE), FRAMES) or frames.dtype != "uint8":
        raise UserError(f"ff in {path} is {frames.dtype} {frames.shape}, not uint8 (560, {FRAMES}): {source}")
    return torch.from_numpy(frames.T.copy())


@torch.no_grad()
def draw_faces(models):
    """The paper's Figures 4 and 5: the manifold of the first model, which has two latents, and draws of all of them."""
    figure = common.new_figure(1230, 570)
    panels = figure.subplots(1, 1 + len(models), width_ratios=(2, *[1] * len(models)))
    z = manifold_grid(models[0].prior, torch.zeros(1, 2)).view(SIDE, SIDE, 2)[::2, ::2]
    sheets = {"the manifold of two latents": models[0].decode(z).sigmoid()}
    for model in models:
        draws = model.sample(DRAWS, generator(common.DRAWS_SEED))
        sheets[f"draws, {model.latent_dim} latents"] = draws.unflatten(0, (-1, 5))
    for axes, (title, faces) in zip(panels, sheets.items(), strict=True):
        common.show_images(axes, faces.unflatten(2, SHAPE))
        axes.set_title(title, fontsize=11)
    return figure
