"""The user's own images as a dataset: a folder with one sub-folder per class, as torchvision's ImageFolder reads it."""

import os
import warnings
from pathlib import Path

import numpy as np
from PIL import Image, ImageOps, UnidentifiedImageError
from tqdm import tqdm

from support.errors import UserError

SUFFIXES = (".bmp", ".jpeg", ".jpg", ".pgm", ".png", ".ppm", ".tif", ".tiff", ".webp")  # ImageFolder's
SIDE = 28
LONGEST_NAME = 20  # of a class, in letters
MOST_CLASSES = 20  # pictures have that many colours
TEST_SHARE = 1 / 7  # as in MNIST
SPLIT_SEED = 0  # not a flag: runs with different seeds must have the same test set


def load_folder(folder):
    """The images in a folder as a dataset, and the names of its classes.

    Either the folder has one sub-folder per class, and a permutation that is always the same sets a seventh of the
    images apart for testing; or it has `train` and `test`, with one sub-folder per class in each. Names that begin
    with . or __ are ignored, and so are files that have no image's suffix.

    Returns: training images (N, 784) uint8, their labels (N,) int64, those of the test set, and a tuple of names.

    Raises:
        UserError: the folder has another form, or one of its images cannot be read.
        OSError: a file or folder cannot be read.
    """
    if not folder.is_dir():
        raise UserError(f"{folder} is not a directory; name another --dataset")
    parts = [folder / "train", folder / "test"]
    divided = [part for part in parts if part.is_dir() and subfolders(part)]
    if len(divided) == 1:
        raise UserError(
            f"{folder} has classes in {divided[0].name} but not in its counterpart: to have {divided[0]} divided into "
            "both, name it as --dataset"
        )
    if not divided:
        classes, paths = class_files(folder)
        if sum(map(len, paths)) < 2:
            raise UserError(f"{folder} holds a single image: at least one to train on and one to test on are needed")
        images, labels = read_all(paths)
        train, test = split(len(images))
        return images[train], labels[train], images[test], labels[test], tuple(map(shorten, classes))
    classes, train_paths = class_files(parts[0])
    test_classes, test_paths = class_files(parts[1])
    unknown = sorted(set(test_classes) - set(classes))
    if unknown:
        raise UserError(f"{parts[1] / unknown[0]} is a class that {parts[0]} does not have; give both the same classes")
    test_paths = [test_paths[test_classes.index(name)] if name in test_classes else [] for name in classes]
    return *read_all(train_paths), *read_all(test_paths), tuple(map(shorten, classes))


def shorten(name):
    """A class's name in pictures, where a long one would leave no room for anything else."""
    return name if len(name) <= LONGEST_NAME else f"{name[: LONGEST_NAME - 1]}…"


def split(n):
    """The rows of the training and of the test images among n, both in ascending order."""
    order = np.random.default_rng(SPLIT_SEED).permutation(n)
    n_test = max(1, round(n * TEST_SHARE))
    return np.sort(order[n_test:]), np.sort(order[:n_test])


def subfolders(folder):
    """The names of the folders in a folder, sorted; hidden ones apart."""
    return sorted(path.name for path in folder.iterdir() if path.is_dir() and not is_hidden(path.name))


def is_hidden(name):
    """Whether a name is of a file or folder that a program made for itself: .DS_Store, __MACOSX."""
    return name.startswith((".", "__"))


def class_files(folder):
    """The names of the classes in a folder, and a list of each class's images, sorted.

    Raises:
        UserError: too few or too many classes or images.
    """
    classes = subfolders(folder)
    if not classes:
        raise UserError(f"{folder} has no sub-folders: make one for each class, and move its images there")
    if len(classes) > MOST_CLASSES:
        raise UserError(f"{folder} has {len(classes)} sub-folders: at most {MOST_CLASSES} classes can be told apart")
    paths = [image_files(folder / name) for name in classes]
    for name, found in zip(classes, paths, strict=True):
        if not found:
            raise UserError(f"{folder / name} holds no image ({', '.join(SUFFIXES)}): add some, or remove the folder")
    return tuple(classes), paths


def image_files(folder):
    """The images in a folder and in the folders below it, in an order that is the same on every machine."""
    found = []
    for place, folders, files in os.walk(folder):
        folders[:] = [name for name in folders if not is_hidden(name)]
        names = [name for name in files if name.lower().endswith(SUFFIXES) and not is_hidden(name)]
        found += [Path(place, name) for name in names]
    return sorted(found, key=lambda path: path.parts)


def read_all(paths):
    """The images (N, 784) uint8 at lists of paths, one list per class, and their labels (N,) int64."""
    labels = np.repeat(np.arange(len(paths)), [len(found) for found in paths])
    files = [path for found in paths for path in found]
    images = np.empty((len(files), SIDE * SIDE), dtype=np.uint8)
    for i, path in enumerate(tqdm(files, "Reading images", unit="image", delay=2, leave=False, disable=None)):
        images[i] = read_image(path)
    return images, labels


def read_image(path):
    """An image file as 784 grey values, uint8: the whole image, upright, scaled to 28 x 28.

    Raises:
        UserError: it is damaged, or no image.
        OSError: it cannot be read.
    """
    try:
        with Image.open(path) as image, warnings.catch_warnings(action="ignore"):
            image.draft("L", (4 * SIDE, 4 * SIDE))  # lets a JPEG be decoded at a fraction of its size
            upright = ImageOps.exif_transpose(image)
            return np.asarray(to_grey(upright).resize((SIDE, SIDE), Image.Resampling.BILINEAR)).ravel()
    except (OSError, SyntaxError, ValueError, Image.DecompressionBombError) as error:  # Pillow's for damaged files
        if getattr(error, "filename", None) is not None:  # the system's: no such file, permission denied
            raise
        cause = "unknown format" if isinstance(error, UnidentifiedImageError) else error
        raise UserError(f"{path} cannot be read as an image ({cause}): repair or remove it") from error


def to_grey(image):
    """An image in 8 bits of grey. What is transparent becomes white, like paper."""
    if image.mode.startswith("I"):  # 16 bits, which Pillow would cut off at 255
        return Image.fromarray((np.asarray(image).clip(0, 65535) / 257).round().astype(np.uint8))
    if image.has_transparency_data:
        image = image.convert("RGBA")
        image = Image.alpha_composite(Image.new("RGBA", image.size, "white"), image)
    return image.convert("L")
