"""What the bound does not tell about a model: how well classes separate, and how far q(z) is from p(z).

log p(x) is in support/latent/likelihood.py, because every run reports it.
"""

import statistics

import torch

from variants.wae import mmd

NEIGHBOURS = 10
MMD_DRAWS = 1000  # points per piece: the kernel is a matrix with as many rows and columns


def knn_accuracy(mu, labels, test_mu, test_labels):
    """The share of test images that their 10 nearest training means classify correctly.

    Args:
        mu, test_mu: (N, latent_dim), the means of training and of test images.
        labels, test_labels: (N,), their classes.
    """
    from sklearn.neighbors import KNeighborsClassifier  # here: it takes seconds to import

    classifier = KNeighborsClassifier(NEIGHBOURS).fit(mu.numpy(), labels.numpy())
    return classifier.score(test_mu.numpy(), test_labels.numpy())


def sliced_wasserstein(z, other, source, n_slices=200):
    """The sliced 2-Wasserstein distance between two sets of equally many points, (N, latent_dim) each.

    Both sets are projected onto random directions and sorted; the result is the root of the mean squared difference.
    Two Gaussians with equal covariances and means m apart have the distance |m| / sqrt(latent_dim).

    Args:
        source: a torch.Generator on the CPU, which draws the directions.
    """
    directions = torch.randn(z.shape[1], n_slices, generator=source)
    directions /= directions.norm(dim=0)
    projected = (z @ directions).sort(0).values
    other_projected = (other @ directions).sort(0).values
    return (projected - other_projected).square().mean().sqrt().item()


def chunked_mmd(z, other):
    """The squared MMD between two sets of equally many points, (N, latent_dim) each: the mean over pieces of 1,000."""
    pieces = zip(z.split(MMD_DRAWS), other.split(MMD_DRAWS), strict=True)
    return statistics.fmean(mmd(*pair).item() for pair in pieces)
