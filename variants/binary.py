"""MNIST with binary pixels: --dataset binary_mnist."""

import numpy as np
import torch

BINARY_SEED = 0  # not a flag: binary_mnist has the same pixels in every run


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
