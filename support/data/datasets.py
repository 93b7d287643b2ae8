"""Datasets as tensors: on disk or downloaded (idx.py, download.py), the user's images (images.py), or scikit-learn's.

Images stay uint8 rows (N, 784), a quarter of float32's memory; `pixels` turns a batch into float32 in [0, 1].
"""

import socket
import sys
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
import torch.nn.functional as F

from support.data import idx
from support.data.download import Unavailable, fetch, files_with_other_contents
from support.data.images import load_folder
from support.errors import load_package

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
    "digits": DIGITS,
}
BINARY_SEED = 0  # not a flag: binary_mnist has the same pixels in every run


class Dataset(NamedTuple):
    """Images (N, 784) uint8 and labels (N,) int64 of the training and of the test set.

    name: what --dataset names: a published dataset, or the path of a folder. classes: each class's name, by label.
    """

    name: str
    train_images: torch.Tensor
    train_labels: torch.Tensor
    test_images: torch.Tensor
    test_labels: torch.Tensor
    classes: tuple[str, ...]

    @property
    def title(self):
        """The dataset's name in pictures: "MNIST", or the folder's name."""
        return TITLES.get(self.name) or Path(self.name).name

    @property
    def is_ink(self):
        """Whether 255 is ink, so that pictures show an image dark on white paper; the user's own look as they are."""
        return self.name in TITLES

    def to(self, device):
        """The same dataset on a device."""
        tensors = [tensor.to(device) for tensor in self[1:5]]
        return Dataset(self.name, *tensors, self.classes)


def pixels(images):
    """uint8 (N, 784) -> float32 (N, 784) in [0, 1]."""
    return images.float().div_(255)


def load(name, data_dir, download=True):
    """The dataset `name`: a folder of images, scikit-learn's digits, or published files, downloaded if missing.

    binary_mnist is a fixed draw from MNIST.

    Raises:
        Unavailable: neither in data_dir nor downloadable.
        UserError: a file or folder is not what its name says.
        OSError: a file cannot be read, or a download cannot be written.
    """
    if name == "digits":
        return _load_digits()
    if name == "binary_mnist":
        return binary(load("mnist", data_dir, download), BINARY_SEED)
    if name not in idx.FOLDERS:
        *arrays, classes = load_folder(Path(name))
        return Dataset(name, *map(torch.from_numpy, arrays), classes)
    raw = idx.raw_folder(name, Path(data_dir))
    missing = idx.missing(raw)
    if missing and not download:
        raise Unavailable(
            f"{missing[0]} is missing on {socket.gethostname()}: put it there, or name another --data_dir"
        )
    if missing:
        fetch(name, raw)
    return Dataset(name, *map(torch.from_numpy, idx.read(raw)), CLASSES[name])


def binary(dataset, seed):
    """MNIST with binary pixels, named binary_mnist: both sets are drawn by `binarise` from one seed."""
    train_images = binarise(dataset.train_images, seed, 0)
    test_images = binarise(dataset.test_images, seed, 1)
    return dataset._replace(name="binary_mnist", train_images=train_images, test_images=test_images)


def binarise(images, *seeds):
    """Draw each pixel of images (N, 784) uint8 as 255 with probability value / 255, else as 0.

    The draw follows from the integers `seeds`, with the same bits on every machine: NumPy keeps the raw words of PCG64
    fixed over its versions, and the comparison is between integers.
    """
    values = images.numpy()
    is_ink = values > 0  # a pixel of 0 stays 0, so it needs no draw
    words = np.random.PCG64(seeds).random_raw(np.count_nonzero(is_ink))
    drawn = np.zeros_like(values)
    drawn[is_ink] = np.where(words % 255 < values[is_ink], 255, 0)
    return torch.from_numpy(drawn)


def choose(config, present):
    """The dataset of a Config, downloaded if missing.

    If MNIST cannot be had and the user did not name it, this is scikit-learn's digits, after a warning; but not if the
    results directory holds a run on another dataset. `present` is the dataset of the run in it, or None.
    """
    try:
        dataset = load(config.dataset, config.data_dir)
    except Unavailable as error:
        if "dataset" in config.named or present not in (None, "digits"):
            raise
        rule = "*" * 100
        print(f"{rule}\nWARNING: {error}.\nGOING ON WITH --dataset digits, NOT MNIST.\n{rule}", file=sys.stderr)
        return load("digits", config.data_dir)
    warn_of_other_contents(dataset, config.data_dir)
    return dataset


def warn_of_other_contents(dataset, data_dir):
    """Print a line if files with a published dataset's names hold something else."""
    if dataset.name == "binary_mnist":  # its pixels are drawn; the files are MNIST's
        dataset = load("mnist", data_dir, download=False)
    if dataset.name not in idx.FOLDERS:
        return
    arrays = [tensor.numpy() for tensor in dataset[1:5]]
    paths = files_with_other_contents(dataset.name, idx.raw_folder(dataset.name, data_dir), arrays)
    if paths:
        names = ", ".join(path.name for path in paths)
        print(
            f"WARNING: in {paths[0].parent}, these are not the published files of {dataset.title}: {names}; going on "
            "with them",
            file=sys.stderr,
        )


def _load_digits():
    """The 1,797 handwritten digits of scikit-learn (UCI, 8 x 8, 0 to 16); the first 1,500 train.

    They fill their images, so they are scaled to 20 x 20 with a margin of 4: MNIST's digits lie in such a box.
    """
    digits = load_package("sklearn.datasets").load_digits()  # here: it takes a second to import
    boxes = torch.from_numpy(digits.images).float().div_(16).unsqueeze(1)
    images = F.pad(F.interpolate(boxes, size=(20, 20), mode="bilinear"), (4, 4, 4, 4))
    images = images.mul_(255).round_().byte().reshape(-1, 784)
    labels = torch.from_numpy(digits.target)
    return Dataset("digits", images[:1500], labels[:1500], images[1500:], labels[1500:], CLASSES["digits"])
