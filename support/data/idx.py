"""MNIST, and the datasets in its form, as people have them on their disks: where the files are, and what is in them.

Four IDX files (http://yann.lecun.com/exdb/mnist), packed or not; or one file with all of MNIST, from Keras or from the
tutorials of Theano. Nothing is written, so their folder may be read-only.
"""

import gzip
import os
import re
import zlib
from pathlib import Path

import numpy as np

from support.errors import UserError
from variants import whole_files

FOLDERS = {"mnist": "MNIST", "fashion_mnist": "FashionMNIST", "kmnist": "KMNIST"}  # torchvision's names
FILES = ("train-images-idx3-ubyte", "train-labels-idx1-ubyte", "t10k-images-idx3-ubyte", "t10k-labels-idx1-ubyte")
# Unsigned bytes in three dimensions, and in one.
IMAGE_MAGIC = 2051
LABEL_MAGIC = 2049
FORMS = {True: (IMAGE_MAGIC, (28, 28)), False: (LABEL_MAGIC, ())}  # whether it is a file of images: magic, shape
LIKE_DATA = re.compile(r"mnist|train|test|t10k|\.csv|\.parquet", re.IGNORECASE)
WAYS_OUT = "delete the file to download it again, or name another --data_dir"


def places(name, data_dir):
    """The folders in which a dataset's files may lie, the likeliest first."""
    folder = FOLDERS[name]
    below = [data_dir / name / raw for name in (folder, folder.lower()) for raw in ("raw", "")]
    others = set(FOLDERS.values()) - {folder}
    is_another = others & set(Path(os.path.abspath(data_dir)).parts[-2:])  # its files have the same names
    return below if is_another else [*below, data_dir / "raw", data_dir]


def find(name, data_dir):
    """The paths of a dataset's four files in the order of FILES, None for a missing one; or of one file with all."""
    folders = places(name, data_dir)
    paths = [next(filter(None, (find_file(folder, file) for folder in folders)), None) for file in FILES]
    whole = [folder / file for folder in folders for file in whole_files.READERS] if name == "mnist" else []
    whole = [path for path in whole if path.is_file()]
    return whole[:1] if whole and None in paths else paths


def find_file(folder, file):
    """The path of an IDX file, with a dash or a dot before idx, packed or not, perhaps in a folder of its name."""
    names = (file, file.replace("-idx", ".idx"))
    paths = [folder / parent / f"{name}{packed}" for parent in ("", *names) for name in names for packed in ("", ".gz")]
    return next((path for path in paths if path.is_file()), None)


def not_understood(name, data_dir):
    """The paths of files that look like data, and are in none of the forms that are read."""
    found = [path for path in find(name, data_dir) if path]
    folders = [folder for folder in places(name, data_dir) if folder.is_dir()]
    paths = sorted({path for folder in folders for path in folder.iterdir()})
    return [path for path in paths if LIKE_DATA.search(path.name) and path.is_file() and path not in found]


def read(paths):
    """The arrays in what `find` found: training images (N, 784) uint8 and labels (N,) int64, and those of the test set.

    Raises UserError if a file is not what its name says, OSError if it cannot be read.
    """
    if len(paths) == 1:
        arrays = _read_whole(paths[0])
        paths = paths * 4
    else:
        arrays = [_read_items(path, *FORMS["images" in file]) for path, file in zip(paths, FILES, strict=True)]
    return [*_images_and_labels(paths[:2], arrays[:2]), *_images_and_labels(paths[2:], arrays[2:])]


def checksums(arrays):
    """The CRC-32 of each of the four unpacked files that hold these arrays."""
    found = []
    for array in arrays:
        header = [IMAGE_MAGIC, len(array), 28, 28] if array.ndim == 2 else [LABEL_MAGIC, len(array)]
        crc = zlib.crc32(np.array(header, dtype=">u4").tobytes())
        found.append(zlib.crc32(np.ascontiguousarray(array, dtype=np.uint8), crc))
    return found


def _images_and_labels(paths, arrays):
    images, labels = arrays
    if len(images) != len(labels):
        raise UserError(
            f"{paths[0]} holds {len(images)} images but {paths[1]} {len(labels)} labels; download both again"
        )
    if outside := {*labels.tolist()} - {*range(10)}:
        raise UserError(f"{paths[1]} holds a label {max(outside)}, outside 0-9, as EMNIST has; {WAYS_OUT}")
    return images.reshape(-1, 784), labels.astype(np.int64)


def _read_whole(path):
    """The four arrays in a file that holds all of MNIST."""
    try:
        return whole_files.read(path)
    except ValueError as error:
        raise UserError(f"{path} is damaged, or not what its name says ({error}); {WAYS_OUT}") from error


def _read_items(path, magic, item_shape):
    """The uint8 array (count, *item_shape) in an IDX file: a big-endian header of magic and sizes, then the values."""
    values = _read_bytes(path)
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
    raise UserError(f"{path} {problem}; {WAYS_OUT}")


def _read_bytes(path):
    """The unpacked bytes of a file, (size,) uint8."""
    if path.suffix != ".gz":
        return np.fromfile(path, dtype=np.uint8)
    try:
        with gzip.open(path) as file:
            return np.frombuffer(bytearray(file.read()), dtype=np.uint8)
    except (gzip.BadGzipFile, EOFError, zlib.error) as error:
        raise UserError(f"{path} is damaged ({error}); {WAYS_OUT}") from error
