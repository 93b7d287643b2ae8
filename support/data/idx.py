"""The four IDX files of MNIST, and of the datasets in its form: where they are, and what is in them.

The form is that of http://yann.lecun.com/exdb/mnist, the folders are torchvision's. A file may be unpacked, or be the
published .gz, which is read as it is: its folder may be read-only.
"""

import gzip
import os
import zlib
from pathlib import Path

import numpy as np

from support.errors import UserError

FOLDERS = {"mnist": "MNIST", "fashion_mnist": "FashionMNIST", "kmnist": "KMNIST"}  # torchvision's names
FILES = (
    *("train-images-idx3-ubyte", "train-labels-idx1-ubyte"),
    *("t10k-images-idx3-ubyte", "t10k-labels-idx1-ubyte"),
)
# Unsigned bytes in three dimensions, and in one.
IMAGE_MAGIC = 2051
LABEL_MAGIC = 2049


def raw_folder(name, data_dir):
    """Where a dataset's files belong: DIR/MNIST/raw, also if --data_dir names DIR/MNIST or DIR/MNIST/raw itself."""
    folder = FOLDERS[name]
    below = data_dir / folder / "raw"
    parts = Path(os.path.abspath(data_dir)).parts
    if below.exists():
        return below
    if parts[-2:] == (folder, "raw"):
        return data_dir
    if parts[-1] == folder:
        return data_dir / "raw"
    return below


def missing(raw):
    """The paths of the files that are not in a folder, neither unpacked nor as .gz."""
    return [raw / file for file in FILES if not (raw / file).exists() and not archive(raw / file).exists()]


def archive(path):
    """The path of a file's .gz."""
    return path.with_name(f"{path.name}.gz")


def read(raw):
    """The arrays in a folder: training images (N, 784) uint8 and labels (N,) int64, and those of the test set.

    Raises:
        UserError: a file is not what its name says.
        OSError: a file cannot be read.
    """
    paths = [raw / file for file in FILES]
    return [*_read_images_and_labels(*paths[:2]), *_read_images_and_labels(*paths[2:])]


def checksums(arrays):
    """The CRC-32 of each of the four unpacked files that hold these arrays."""
    found = []
    for array in arrays:
        is_images = array.ndim == 2
        header = [IMAGE_MAGIC, len(array), 28, 28] if is_images else [LABEL_MAGIC, len(array)]
        crc = zlib.crc32(np.array(header, dtype=">u4").tobytes())
        found.append(zlib.crc32(np.ascontiguousarray(array, dtype=np.uint8), crc))
    return found


def _read_images_and_labels(image_path, label_path):
    images = _read_items(image_path, IMAGE_MAGIC, (28, 28))
    labels = _read_items(label_path, LABEL_MAGIC, ())
    if len(images) != len(labels):
        raise UserError(
            f"{image_path} holds {len(images)} images but {label_path} {len(labels)} labels; download both again"
        )
    if labels.max() > 9:
        raise UserError(f"{label_path} holds a label {labels.max()}, outside 0-9; delete the file to download it again")
    return images.reshape(-1, 784), labels.astype(np.int64)


def _read_items(path, magic, item_shape):
    """The uint8 array (count, *item_shape) in an IDX file: a big-endian header of magic and sizes, then the values."""
    path, values = _read_bytes(path)
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


def _read_bytes(path):
    """The path of a file or, if it is not there, of its .gz, and the unpacked bytes, (size,) uint8."""
    if path.exists():
        return path, np.fromfile(path, dtype=np.uint8)
    path = archive(path)
    try:
        with gzip.open(path) as file:
            return path, np.frombuffer(bytearray(file.read()), dtype=np.uint8)
    except (gzip.BadGzipFile, EOFError, zlib.error) as error:
        raise UserError(
            f"{path} is damaged ({error}); delete the file to download it again, or name another --data_dir"
        ) from error
