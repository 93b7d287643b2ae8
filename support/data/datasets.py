"""Datasets as tensors: on disk or downloaded (idx.py, download.py), the user's images (images.py), or scikit-learn's.

Images stay uint8 rows (N, 784), a quarter of float32's memory; `pixels` turns a batch into float32 in [0, 1].
"""

import socket
import sys
import zlib
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch

from support.data import idx
from support.data.download import Unavailable, fetch, files_with_other_contents, unavailable
from variants.binary import BINARY_SEED, binary
from variants.digits import load_digits
from variants.images import load_folder, shorten

TITLES = {
    "mnist": "MNIST",
    "binary_mnist": "binary MNIST",
    "fashion_mnist": "Fashion-MNIST",
    "kmnist": "KMNIST",
    "digits": "scikit-learn digits",
}
DIGITS = tuple("0123456789")
CLASSES = {
    "mnist": DIGITS,
    "fashion_mnist": (
        *("T-shirt", "Trouser", "Pullover", "Dress", "Coat"),
        *("Sandal", "Shirt", "Sneaker", "Bag", "Ankle boot"),
    ),
    "kmnist": ("o", "ki", "su", "tsu", "na", "ha", "ma", "ya", "re", "wo"),
}
CACHE = ".images.npz"  # in --results_dir: what was read from a folder of images


class Dataset(NamedTuple):
    """Images (N, 784) uint8 and labels (N,) int64 of the training and of the test set.

    name: what --dataset names: a published dataset, or the path of a folder. classes: each class's name, by label.
    notes: what else was read, and what was left out. checksums: one per image; see `checksums`.
    """

    name: str
    train_images: torch.Tensor
    train_labels: torch.Tensor
    test_images: torch.Tensor
    test_labels: torch.Tensor
    classes: tuple[str, ...]
    notes: tuple[str, ...] = ()
    checksums: torch.Tensor | None = None

    @property
    def title(self):
        """The dataset's name in pictures: "MNIST", or the folder's name."""
        return TITLES.get(self.name) or shorten(Path(self.name).name)

    @property
    def is_ink(self):
        """Whether 255 is ink, so that pictures show an image dark on white paper; the user's own look as they are."""
        return self.name in TITLES

    @property
    def description(self):
        """What was read, in a line."""
        counts = f"{len(self.train_images):,} images, and {len(self.test_images):,} to test"
        classes = f"{len(self.classes)} class{'es' if len(self.classes) > 1 else ''}"
        names = "" if self.is_ink else f": {', '.join(self.classes[:10])}{', ...' if len(self.classes) > 10 else ''}"
        return "; ".join([f"{self.title}: {counts}, in {classes}{names}", *self.notes])

    def to(self, device):
        """The same dataset on a device."""
        return Dataset(self.name, *(tensor.to(device) for tensor in self[1:5]), *self[5:])


def pixels(images):
    """uint8 (N, 784) -> float32 (N, 784) in [0, 1]."""
    return images.float().div_(255)


def load(name, data_dir, download=True, cache=None):
    """The dataset `name`: a folder of images, scikit-learn's digits, or published files, downloaded if missing.

    binary_mnist is a fixed draw from MNIST.

    Args:
        cache: where what was read from a folder is kept for the next start. None: nowhere.

    Raises Unavailable, UserError if a file or folder is not what its name says, OSError if one cannot be read.
    """
    if name == "binary_mnist":
        dataset = binary(load("mnist", data_dir, download), BINARY_SEED)
    elif name == "digits":
        dataset = Dataset(name, *load_digits(), DIGITS)
    elif name in idx.FOLDERS:
        dataset = _load_published(name, Path(data_dir), download)
    else:
        *arrays, classes, notes = load_folder(Path(name), cache)
        dataset = Dataset(name, *map(torch.from_numpy, arrays), classes, tuple(notes))
    return dataset._replace(checksums=checksums(dataset))


def checksums(dataset):
    """What tells data from others: the CRC-32 of each image with its label, training images first, (N,) int32."""
    parts = (dataset[1:3], dataset[3:5])
    crcs = [
        zlib.crc32(image, 2 * label + is_test)
        for is_test, (images, labels) in enumerate(parts)
        for image, label in zip(images.numpy(), labels.tolist(), strict=True)
    ]
    return torch.from_numpy(np.array(crcs, dtype=np.uint32).view(np.int32))


def _load_published(name, data_dir, download):
    """A dataset in the form of MNIST, and notes if its files lie or are other than torchvision's."""
    paths = idx.find(name, data_dir)
    if None in paths and not download:
        raise unavailable(name, data_dir, f"is not downloaded on {socket.gethostname()}")
    if None in paths:
        fetch(name, data_dir)
        paths = idx.find(name, data_dir)
    arrays = idx.read(paths)
    place = paths[0].parent if len(paths) > 1 else paths[0]
    notes = [] if place == data_dir / idx.FOLDERS[name] / "raw" else [f"read from {place}"]
    others = files_with_other_contents(name, arrays)
    notes += [f"WARNING: not the published contents of {', '.join(others)}"] if others else []
    return Dataset(name, *map(torch.from_numpy, arrays), CLASSES[name], tuple(notes))


def choose(config, may_be_digits):
    """The dataset of a Config, downloaded if missing.

    If MNIST cannot be had, and the user named neither it nor a place for it, and nothing like it lies in data_dir, this
    is scikit-learn's digits, after a warning. `may_be_digits`: whether a run on them may be in the results directory.
    """
    name = config.dataset
    try:
        dataset = load(name, config.data_dir, cache=config.results_dir / CACHE)
    except Unavailable as error:
        if {"dataset", "data_dir"} & config.named or not may_be_digits:
            raise
        if any(idx.find(name, config.data_dir)) or idx.not_understood(name, config.data_dir):
            raise  # a wrong path or another form is for the user to mend
        rule = "*" * 100
        print(f"{rule}\nWARNING: {error}.\nGOING ON WITH --dataset digits, NOT MNIST.\n{rule}", file=sys.stderr)
        dataset = load("digits", config.data_dir)
        return dataset._replace(notes=("WARNING: not MNIST, which is not there and could not be downloaded",))
    if "dataset" in config.named and name in TITLES and Path(name).is_dir():
        note = f"the folder ./{name} is not used; --dataset ./{name} names it"
        dataset = dataset._replace(notes=(*dataset.notes, note))
    return dataset
