"""The user's own images as a dataset: a folder with one sub-folder per class, in the layouts that people have."""

import hashlib
import io
import os
import re
import warnings
from collections import Counter
from pathlib import Path

import numpy as np
import PIL
from PIL import Image, ImageOps, UnidentifiedImageError
from tqdm import tqdm

from support.errors import UserError, first_line
from support.run import storage

# What Pillow opens by itself. Others, such as .eps, .mpg and .h5, need programs that few people have.
SUFFIXES = (
    *(".avif", ".bmp", ".dib", ".gif", ".ico", ".jfif", ".jp2", ".jpe", ".jpeg", ".jpg", ".pbm", ".pcx", ".pgm"),
    *(".png", ".pnm", ".ppm", ".psd", ".tga", ".tif", ".tiff", ".webp"),
)
TRAIN = ("train", "training", "train_set", "training_set")
TEST = ("test", "testing", "test_set", "testing_set", "val", "valid", "validation", "val_set", "validation_set")
SYSTEM = ("lost+found", "@eadir", "$recycle.bin", "system volume information", "thumbs.db", "desktop.ini")
DIGITS = re.compile(r"(\d+)")
SIDE = 28
LONGEST_NAME = 20  # of a class or a dataset, in letters
MOST_CLASSES = 20  # pictures have that many colours
TEST_SHARE = 1 / 7  # as in MNIST
SPLIT_SEED = 0  # not a flag: runs with different seeds must have the same test set


def load_folder(folder, cache=None):
    """The images in a folder as a dataset, the names of its classes, and notes on what was read and left out.

    Either a permutation that is always the same sets a seventh of each class apart for testing, or the folder has two
    parts, such as `train` and `test`. See `find_classes`.

    Args:
        cache: where what was read is kept for the next start. None: nowhere.

    Returns: training images (N, 784) uint8, their labels (N,) int64, those of the test set, names, and notes.

    Raises UserError if the folder has another form, or some of its images cannot be read.
    """
    if not folder.is_dir():
        raise UserError(f"{folder} is not a directory; name another --dataset")
    files, left_out = scan(folder)
    if not files and left_out["unreadable folders"]:
        raise UserError(f"{folder} is or holds a folder that cannot be read: make it readable (chmod -R +rX)")
    parts, notes = find_parts(files, folder)
    classes, *tests = (find_classes(part, depth, folder.name, left_out) for part, depth in parts)
    tests = tests[0] if tests else {}
    check_classes(folder, classes, tests)
    ordered = [part.get(name, []) for part in (classes, tests) for name in classes]
    images, found = read_all([file for files in ordered for file in files], folder, cache)
    labels = np.repeat([*range(len(classes))] * 2, [len(files) for files in ordered])
    below = sorted({"/".join(file[depth:-1]) for part, depth in parts for file in part if len(file) > depth + 2})
    notes += [f"merged into the class above them: {', '.join(below[:10])}"] if below else []
    notes += found
    if left_out:
        notes.append(f"left out: {', '.join(f'{n:,} {what}' for what, n in left_out.most_common(10))}")
    n_train = sum(map(len, classes.values()))
    rows = (slice(n_train), slice(n_train, None)) if tests else split(labels)
    return *(part[chosen] for chosen in rows for part in (images, labels)), short_names(classes), notes


def scan(folder):
    """The images below a folder, as tuples (its folders, its name), sorted; and a Counter of what is left out.

    Links to folders are followed where classes lie: in the folder itself, and in its parts such as `train`.
    """
    found = []
    left_out = Counter()
    walk = os.walk(folder, onerror=lambda error: left_out.update(["unreadable folders"]), followlinks=True)
    for place, folders, files in walk:
        below = Path(place).relative_to(folder).parts
        links = {name for name in folders if os.path.islink(f"{place}/{name}")}
        if not below or (below[1:] == () and below[0].lower() in TRAIN + TEST):
            links = set()  # those of classes are followed
        left_out.update(["links to folders"] * len(links))
        folders[:] = [name for name in folders if not is_hidden(name) and name not in links]
        for name in files:
            suffix = os.path.splitext(name)[1].lower()
            if suffix in SUFFIXES and not is_hidden(name):
                found.append((*below, name))
            elif not is_hidden(name):
                left_out.update([f"{suffix} files" if suffix else "files without a suffix"])
    return sorted(found), left_out


def find_parts(files, folder):
    """The training and, where the folder is divided, the test set, as [(files, depth of the classes), ...]; and notes.

    Raises UserError if only one of them has classes.
    """
    depth = enter(files, 0)
    notes = [f"everything lies in {'/'.join(files[0][:depth])}, which is read"] if depth else []
    tops = subfolders(files, depth)
    trains = [name for name in tops if name.lower() in TRAIN]
    tests = sorted((name for name in tops if name.lower() in TEST), key=lambda name: TEST.index(name.lower()))
    parts = {name: [file for file in files if file[depth] == name] for name in trains + tests}
    parts = {name: (part, enter(part, depth + 1)) for name, part in parts.items()}
    has_classes = {name: bool(subfolders(*part)) for name, part in parts.items()}
    is_divided = len(trains) == 1 and tests and (has_classes[trains[0]] or len(tops) == len(parts))
    if not is_divided:
        notes.append("a seventh of each class is for testing")
        return [(files, depth)], notes
    alike = [name for name in tests if has_classes[name] == has_classes[trains[0]]]
    if not alike:
        path = folder.joinpath(*files[0][:depth], trains[0])
        raise UserError(f"of {folder}, only one of {trains[0]} and {tests[0]} has classes: name {path} as --dataset")
    notes.append(f"trained on {trains[0]}, tested on {alike[0]}")
    unused = [name for name in tops if name not in (trains[0], alike[0])]
    notes += [f"not used: {', '.join(unused[:10])}"] if unused else []
    return [parts[trains[0]], parts[alike[0]]], notes


def subfolders(files, depth):
    """The names of the folders at a depth that hold images, in natural order: 2 before 10."""
    names = {file[depth] for file in files if len(file) > depth + 1}
    return sorted(names, key=lambda name: ([int(p) if p.isdecimal() else p for p in DIGITS.split(name)], name))


def enter(files, depth):
    """The first depth with several folders, or with one that holds no other; Kaggle has training_set/training_set."""
    is_only = len({file[depth] for file in files}) == 1 and subfolders(files, depth + 1)
    return enter(files, depth + 1) if is_only else depth


def find_classes(files, depth, name, left_out):
    """Each class among the files and its images; files that are in no sub-folder are one class of the given name."""
    names = subfolders(files, depth)
    if not names:
        return {name: files} if files else {}
    loose = [file for file in files if len(file) == depth + 1]
    left_out.update({"images beside the classes": len(loose)} if loose else {})
    return {name: [file for file in files if file[depth] == name and len(file) > depth + 1] for name in names}


def check_classes(folder, classes, tests):
    """Raise UserError if there are too few images, too few or too many classes, or classes that cannot be used."""
    unknown = [name for name in tests if name not in classes]
    undecoded = [name for name in (*classes, folder.name) if not is_text(name)]
    if not classes:
        problem = f"holds no image ({', '.join(SUFFIXES)}): put some there, in one sub-folder per class"
    elif len(classes) > MOST_CLASSES:
        problem = f"has {len(classes)} sub-folders with images: keep at most {MOST_CLASSES} classes"
    elif undecoded:
        problem = f"is or holds a folder whose name is not UTF-8, {undecoded[0]!a}: rename it"
    elif unknown:
        problem = f"has test images of {unknown[0]}, which is no class to train on: give both parts the same classes"
    elif not tests and max(map(len, classes.values())) < 2:
        problem = "holds a single image of each class: add one, as one is to train on and one to test on"
    else:
        return
    raise UserError(f"{folder} {problem}")


def is_text(name):
    """Whether the bytes of a file's name are UTF-8. Others reach Python as surrogates, which no picture can show."""
    return not any("\ud800" <= letter <= "\udfff" for letter in name)


def is_hidden(name):
    """Whether a name is of a file or folder that a program made for itself: .DS_Store, __MACOSX, @eaDir."""
    return name.startswith((".", "__")) or name.lower() in SYSTEM


def short_names(names):
    """Names of at most 20 letters for pictures, where long ones would leave no room; different ones stay different."""
    short = [shorten(name) for name in names]
    return tuple(
        name if short.count(name) == 1 else f"{i} {name[: LONGEST_NAME - 3]}" for i, name in enumerate(short, 1)
    )


def shorten(name):
    """A name of at most 20 letters: its beginning and its end."""
    return name if len(name) <= LONGEST_NAME else f"{name[:11]}…{name[-8:]}"


def split(labels):
    """The rows of the training and of the test images, both in ascending order: a seventh of each class is for testing.

    Of a class with two images or more it is at least one; of a class of one image it is none.
    """
    test = []
    for label in np.unique(labels):
        rows = np.flatnonzero(labels == label)
        n_test = max(1, round(len(rows) * TEST_SHARE)) if len(rows) > 1 else 0
        test += rows[np.random.default_rng(SPLIT_SEED).permutation(len(rows))[:n_test]].tolist()
    is_test = np.isin(np.arange(len(labels)), test)
    return np.flatnonzero(~is_test), np.flatnonzero(is_test)


def read_all(files, folder, cache):
    """The images (N, 784) uint8 in files, and notes on them; from the cache, if no name, size or time has changed."""
    paths = [os.path.join(folder, *file) for file in files]
    key = hashlib.sha256(Path(__file__).read_bytes())  # another reader may read other values
    key.update(
        repr((PIL.__version__, [(file, *stamp(path)) for file, path in zip(files, paths, strict=True)])).encode()
    )
    try:
        with np.load(cache) as saved:
            if saved["key"] == key.hexdigest():
                return saved["images"], saved["notes"].tolist()
    except Exception:  # what a missing or damaged file makes NumPy raise is no closed list
        pass
    images, notes = decode_all(paths)
    if cache:
        buffer = io.BytesIO()
        np.savez(buffer, key=key.hexdigest(), images=images, notes=np.array(notes, dtype=str))
        storage.try_write(cache, buffer.getvalue())
    return images, notes


def stamp(path):
    """What tells a file from others and from itself before a change; () for a broken link."""
    try:
        status = os.stat(path)
    except OSError:
        return ()
    return status.st_size, status.st_mtime_ns, status.st_ctime_ns  # of files from one archive, only ctime may differ


def decode_all(files):
    """The images (N, 784) uint8 in files, and notes on them. Raises UserError that lists those that cannot be read."""
    images = np.empty((len(files), SIDE * SIDE), dtype=np.float32)
    is_deep = np.zeros(len(files), dtype=bool)
    damaged = []
    with warnings.catch_warnings(action="ignore"):
        for i, file in enumerate(tqdm(files, "Reading images", unit="image", delay=2, leave=False, disable=None)):
            try:
                is_deep[i], images[i] = read_image(file)
            except ValueError as error:
                damaged.append(f"{file} ({error})")
    if damaged:
        n = "1 file" if len(damaged) == 1 else f"{len(damaged):,} files"
        raise UserError(f"{n} cannot be read as images: {', '.join(damaged[:10])}; repair or remove them")
    notes = []
    if is_deep.any():
        images[is_deep], low, high = to_bytes(images[is_deep])
        notes.append(f"{is_deep.sum():,} images of more than 8 bits: {low:g} is black and {high:g} is white")
    images = images.round().astype(np.uint8)
    constant = np.count_nonzero((images == images[:, :1]).all(1))
    notes += [f"{constant:,} images of one grey value only"] if constant else []
    return images, notes


def to_bytes(values):
    """Values of any range, scaled to 0 to 255, and the values that became 0 and 255.

    White is the least 2^n - 1 that is no smaller than any value: 1 for floats in [0, 1], 4,095 for 12 bits. With
    negative values, the lowest is black and the highest white.
    """
    low = min(0.0, float(values.min()))
    high = float(values.max())
    if low == 0:
        high = 2.0 ** np.ceil(np.log2(max(high, 1) + 1)) - 1
    return (values - low) * (255 / ((high - low) or 1)), low, high


def read_image(path):
    """An image file as 784 grey values, float32: the whole image, upright, scaled to 28 x 28.

    Returns: whether it has more than 8 bits, so that its values are not yet from 0 to 255; and the values.

    Raises ValueError if it is damaged, or no image.
    """
    image = load_image(path)
    is_deep = image.mode[0] in "IF"
    grey = Image.fromarray(np.asarray(image, np.float32)) if is_deep else to_grey(image)
    values = np.asarray(grey.resize((SIDE, SIDE), Image.Resampling.BILINEAR), np.float32).ravel()
    if not np.isfinite(values).all():
        raise ValueError("a value that is not finite")
    return is_deep, values


def load_image(path):
    """The pixels of an image file, upright. Raises ValueError if it is damaged, or no image."""
    try:
        with open(path, "rb") as file, Image.open(file) as image:  # by its path, Pillow garbles turned grey TIFFs
            image.draft("L", (4 * SIDE, 4 * SIDE))  # lets a JPEG be decoded at a fraction of its size
            image.load()
    except UnidentifiedImageError as error:
        raise ValueError("unknown format") from error
    except MemoryError:
        raise
    except Exception as error:  # what Pillow raises for a damaged file is no closed list
        raise ValueError(first_line(error)) from error
    try:
        return ImageOps.exif_transpose(image)
    except Exception:  # what odd EXIF makes Pillow raise is no closed list; the pixels may be sound
        return image


def to_grey(image):
    """An image in 8 bits of grey. What is transparent becomes white, like paper."""
    if image.has_transparency_data:
        image = image.convert("RGBA")
        image = Image.alpha_composite(Image.new("RGBA", image.size, "white"), image)
    return image.convert("L")
