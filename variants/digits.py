"""The handwritten digits of scikit-learn, in the form of MNIST: --dataset digits."""

import torch
import torch.nn.functional as F

from support.errors import load_package

N_TRAIN = 1500


def load_digits():
    """The 1,797 digits (UCI, 8 x 8, 0 to 16): training images (1500, 784) uint8 and labels, then those of the test set.

    They fill their images, so they are scaled to 20 x 20 with a margin of 4: MNIST's digits lie in such a box.
    """
    digits = load_package("sklearn.datasets").load_digits()  # here: it takes a second to import
    boxes = torch.from_numpy(digits.images).float().div_(16).unsqueeze(1)
    images = F.pad(F.interpolate(boxes, size=(20, 20), mode="bilinear"), (4, 4, 4, 4))
    images = images.mul_(255).round_().byte().reshape(-1, 784)
    labels = torch.from_numpy(digits.target)
    return images[:N_TRAIN], labels[:N_TRAIN], images[N_TRAIN:], labels[N_TRAIN:]
