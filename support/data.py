"""Datasets as tensors: found on disk, downloaded, or taken from scikit-learn; verified before use.

Images stay uint8 rows (N, 784), a quarter of float32's memory; `pixels` turns a batch into float32 in [0, 1].
"""

import http.client
import socket
import sys
import threading
import urllib.error
import urllib.request
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
import torch.nn.functional as F

from support.devices import broadcast
from support.errors import UserError

FOLDERS = {"mnist": "MNIST", "fashion_mnist": "FashionMNIST"}  # torchvision's names
TITLES = {"mnist": "MNIST", "fashion_mnist": "Fashion-MNIST", "digits": "scikit-learn digits"}
DIGITS = tuple("0123456789")
CLOTHES = ("T-shirt", "Trouser", "Pullover", "Dress", "Coat", "Sandal", "Shirt", "Sneaker", "Bag", "Ankle boot")
CLASSES = {"mnist": DIGITS, "fashion_mnist": CLOTHES, "digits": DIGITS}
# http://yann.lecun.com/exdb/mnist: unsigned bytes in three dimensions, and in one.
IMAGE_MAGIC = 2051
LABEL_MAGIC = 2049
PROBE_SECONDS = 5
STALL_SECONDS = 10


class Unavailable(UserError):
    """A dataset that is neither on disk nor downloadable."""


class Dataset(NamedTuple):
    """Images (N, 784) uint8 and labels (N,) int64 of the training and of the test set; labels count from 0."""

    name: str
    train_images: torch.Tensor
    train_labels: torch.Tensor
    test_images: torch.Tensor
    test_labels: torch.Tensor

    @property
    def title(self):
        """The dataset's name in pictures: "MNIST"."""
        return TITLES[self.name]

    @property
    def classes(self):
        """The name of each class, by label: ("0", "1", ...)."""
        return CLASSES[self.name]

    def to(self, device):
        """The same dataset on a device."""
        return Dataset(self.name, *(tensor.to(device) for tensor in self[1:]))


def pixels(images):
    """uint8 (N, 784) -> float32 (N, 784) in [0, 1]."""
    return images.float().div_(255)


def load(name, data_dir, download=True):
    """The dataset `name`, downloaded into data_dir through torchvision if it is not there.

    Raises:
        Unavailable: neither in data_dir nor downloadable.
        UserError: a file is not what its name says.
        OSError: a file cannot be read, or a download cannot be written.
    """
    if name == "digits":
        return _load_digits()
    raw = Path(data_dir) / FOLDERS[name] / "raw"
    sets = [(raw / f"{prefix}-images-idx3-ubyte", raw / f"{prefix}-labels-idx1-ubyte") for prefix in ("train", "t10k")]
    missing = [path for pair in sets for path in pair if not path.exists()]
    if missing and not download:
        raise Unavailable(
            f"{missing[0]} is missing on {socket.gethostname()}: put it there, or name another --data_dir"
        )
    if missing:
        _download(name, data_dir, missing[0])
    return Dataset(name, *(tensor for pair in sets for tensor in _read_images_and_labels(*pair)))


def find(config, saved_dataset, world):
    """The dataset of a Config, the same on every process.

    If MNIST cannot be had, and neither the user nor the run to continue (its dataset's name, or None) asks for it, this
    is scikit-learn's digits, after a warning.
    """
    dataset = None
    if world.rank == 0:  # the other processes come after it, and find what it has downloaded
        try:
            dataset = load(config.dataset, config.data_dir)
        except Unavailable as error:
            if "dataset" in config.named or saved_dataset == config.dataset:
                raise
            rule = "*" * 100
            print(f"{rule}\nWARNING: {error}.\nGOING ON WITH --dataset digits, NOT MNIST.\n{rule}", file=sys.stderr)
            dataset = load("digits", config.data_dir)
    name = broadcast(dataset and dataset.name, world)
    return dataset or load(name, config.data_dir, download=False)


def _read_images_and_labels(image_path, label_path):
    images = _read_idx(image_path, IMAGE_MAGIC, (28, 28))
    labels = _read_idx(label_path, LABEL_MAGIC, ())
    if len(images) != len(labels):
        raise UserError(
            f"{image_path} holds {len(images)} images but {label_path} {len(labels)} labels; download both again"
        )
    if labels.max() > 9:
        raise UserError(f"{label_path} holds a label {labels.max()}, outside 0-9; delete the file to download it again")
    return torch.from_numpy(images.reshape(-1, 784)), torch.from_numpy(labels.astype(np.int64))


def _read_idx(path, magic, item_shape):
    """The uint8 array (count, *item_shape) in an IDX file: a big-endian header of magic and sizes, then the values."""
    values = np.fromfile(path, dtype=np.uint8)
    n_header = 2 + len(item_shape)
    header = values[: 4 * n_header].view(">u4") if len(values) >= 4 * n_header else ()
    body = values[4 * n_header :]
    if len(header) == 0 or header[0] != magic:
        problem = f"does not begin with the magic number {magic}"
    elif tuple(header[2:]) != item_shape:
        problem = f"holds items of {'x'.join(map(str, header[2:]))}, not {'x'.join(map(str, item_shape))}"
    elif header[1] == 0 or len(body) != int(header[1]) * int(np.prod(item_shape, dtype=int)):
        problem = f"announces {header[1]} items but holds {len(body)} bytes of them"
    else:
        return body.reshape(-1, *item_shape)
    raise UserError(f"{path} {problem}; delete the file to download it again, or name another --data_dir")


def _download(name, data_dir, missing):
    """Download a dataset through torchvision, which checks its MD5; a dead network is noticed within seconds."""
    from torchvision import datasets  # here: it takes seconds to import, and most runs find their data on disk

    ways_out = (
        f"put the four IDX files into {missing.parent}, name their place with --data_dir or $VAE_DATA_DIR, "
        "connect to the network, or use --dataset digits, which needs no download"
    )
    dataset = getattr(datasets, FOLDERS[name])
    if not any(map(_answers, dataset.mirrors)):
        raise Unavailable(f"{missing} is missing and no server of {name} answers; {ways_out}")
    before = socket.getdefaulttimeout()
    socket.setdefaulttimeout(STALL_SECONDS)
    try:
        dataset(data_dir, download=True)
    except (RuntimeError, urllib.error.URLError, TimeoutError, ConnectionError, http.client.HTTPException) as error:
        cause = (str(error) or type(error).__name__).splitlines()[-1].strip()
        raise Unavailable(f"{name} could not be downloaded ({cause}); {ways_out}") from error
    except OSError as error:  # torchvision writes to files without naming them
        raise OSError(error.errno, error.strerror, error.filename or str(missing.parent)) from error
    finally:
        socket.setdefaulttimeout(before)


def _answers(url):
    """Whether a server answers within PROBE_SECONDS; in a thread, as no timeout of Python's bounds a name look-up."""
    answered = threading.Event()

    def probe():
        try:
            urllib.request.urlopen(url, timeout=PROBE_SECONDS).close()
        except urllib.error.HTTPError:  # a refusal is an answer: a mirror need not list its folder
            pass
        except (OSError, http.client.HTTPException):
            return
        answered.set()

    thread = threading.Thread(target=probe, daemon=True)
    thread.start()
    thread.join(PROBE_SECONDS)
    return answered.is_set()


def _load_digits():
    """The 1,797 handwritten digits of scikit-learn (UCI, 8 x 8, 0 to 16), scaled up; the first 1,500 train."""
    from sklearn.datasets import load_digits  # here: it takes a second to import, and only this dataset needs it

    digits = load_digits()
    images = torch.from_numpy(digits.images).float().div_(16).unsqueeze(1)
    images = F.interpolate(images, size=(28, 28), mode="bilinear").mul_(255).round_().byte().reshape(-1, 784)
    labels = torch.from_numpy(digits.target)
    return Dataset("digits", images[:1500], labels[:1500], images[1500:], labels[1500:])
