"""MNIST in one file, as Keras and the tutorials of Theano have it. Nothing in a file is run as code."""

import gzip
import pickle

import numpy as np

from support.errors import first_line


def read(path):
    """The arrays in a file of one of READERS' names: training images and labels, and those of the test set.

    Raises ValueError if the file is damaged, or holds something else; OSError if it cannot be read.
    """
    load, convert = READERS[path.name]
    try:
        content = load(path)
    except Exception as error:  # what zipfile, zlib and pickle raise for a damaged file is no closed list
        if getattr(error, "errno", None):  # the system's: permission denied, an error of reading
            raise
        raise ValueError(first_line(error)) from error
    arrays = convert(content)
    if [array.shape[1:] for array in arrays] not in ([(28, 28), ()] * 2, [(784,), ()] * 2):
        raise ValueError("arrays of other shapes than MNIST's")
    if any(images.dtype != np.uint8 for images in arrays[::2]) or any(
        labels.dtype.kind not in "iu" for labels in arrays[1::2]
    ):
        raise ValueError("numbers of another kind than MNIST's bytes")
    if not all(map(len, arrays)):
        raise ValueError("no images")
    return arrays


def load_keras(path):
    """All arrays of a .npz file, by name."""
    with np.load(path, allow_pickle=False) as arrays:
        return dict(arrays)


def convert_keras(arrays):
    """The arrays of MNIST in Keras' form."""
    names = ("x_train", "y_train", "x_test", "y_test")
    if not arrays.keys() >= set(names):
        raise ValueError(f"it holds no {', '.join(sorted(set(names) - arrays.keys()))}")
    return [arrays[name] for name in names]


def load_theano(path):
    """What is pickled in a .pkl.gz file."""
    with gzip.open(path) as file:
        return Unpickler(file, encoding="latin1").load()


def convert_theano(content):
    """Training and validation images joined, as MNIST's own training set; the brightest pixel, 255/256, becomes 255."""
    if not is_three_sets(content):
        raise ValueError("it holds something else than the arrays of three sets")
    train, valid, test = content
    images, labels = (np.concatenate(parts) for parts in zip(train, valid, strict=True))
    scale = 255 / images.max()
    return [np.rint(images * scale).astype(np.uint8), labels, np.rint(test[0] * scale).astype(np.uint8), test[1]]


def is_three_sets(content):
    """Whether this is three pairs of images (N, 784), none negative and not all of them black, and labels (N,)."""
    if not isinstance(content, (tuple, list)) or len(content) != 3:
        return False
    if not all(isinstance(pair, (tuple, list)) and len(pair) == 2 for pair in content):
        return False
    if not all(isinstance(array, np.ndarray) and array.dtype.kind in "fiu" for pair in content for array in pair):
        return False
    shapes = all(images.shape[1:] == (784,) and labels.ndim == 1 for images, labels in content)
    return shapes and all(images.any() and images.min() >= 0 and np.isfinite(images).all() for images, _ in content)


UNPICKLED = {  # what pickled arrays call, in whatever version of Python and NumPy
    ("numpy", "_reconstruct"): np.empty(0).__reduce__()[0],
    ("numpy", "_frombuffer"): lambda buffer, dtype, shape, order: np.frombuffer(buffer, dtype).reshape(
        shape, order=order
    ),
    ("numpy", "ndarray"): np.ndarray,
    ("numpy", "dtype"): np.dtype,
    ("_codecs", "encode"): lambda text, encoding: text.encode("latin1"),
}


class Unpickler(pickle.Unpickler):
    """Unpickles NumPy's arrays, in tuples and lists, and nothing else: no code that a file names is called."""

    def find_class(self, module, name):
        if (module.partition(".")[0], name) in UNPICKLED:
            return UNPICKLED[module.partition(".")[0], name]
        raise pickle.UnpicklingError(f"it would call {module}.{name}")


READERS = {"mnist.npz": (load_keras, convert_keras), "mnist.pkl.gz": (load_theano, convert_theano)}
