"""What the bound does not tell of a model: log p(x), active units, clusters, and how far q(z) lies from p(z)."""

import math

import numpy as np
import torch

import data
from model import bce, log_normal, mmd

CHUNK = 1000  # samples decoded at a time: they stay in the cache, and memory is bounded whatever k
ACTIVE = 0.01  # the variance above which Burda et al. call a unit active
NEIGHBOURS = 10
WIDTHS = torch.logspace(-2.5, 0.5, 31)
MMD_DRAWS = 1000  # at a time: the kernel is a matrix of so many rows and columns


@torch.no_grad()
def log_likelihood(model, images, k, generator, width=None):
    """log p(x) by importance sampling with k samples of q(z|x); in expectation between the ELBO and the truth.

    logsumexp_k[log p(x|z) + log p(z) - log q(z|x)] - log k (Burda et al., 2016, eq. 8).

    Args:
        model: a VAE. images: (N, 784) uint8, on its device.
        width: of the proposal N(mu, width^2 I) that stands for q(z|x) where an encoder is deterministic, from
            `proposal_width`; None for one that is not.

    Returns: (N,), nats per image.
    """
    results = []
    for chunk in images.split(max(1, CHUNK // k)):
        x = data.pixels(chunk)
        mu, logvar = model.encode(x)
        if width is not None:
            logvar = torch.full_like(mu, 2 * math.log(width))
        log_w = []
        for n in [CHUNK] * (k // CHUNK) + [k % CHUNK] * (k % CHUNK > 0):
            eps = torch.randn(n, *mu.shape, generator=generator).to(mu.device)
            z = model.reparameterize(mu, logvar, eps)
            log_p_x = -bce(model.decode(z), x.expand(n, *x.shape))
            log_w.append(log_p_x + model.prior.log_prob(z.flatten(0, 1)).view(n, -1) - log_normal(z, mu, logvar))
        results.append(torch.cat(log_w).logsumexp(0) - math.log(k))
    return torch.cat(results)


def proposal_width(model, images, seed):
    """The width of WIDTHS whose N(mu, width^2 I) gives the highest bound on log p(x) of training images (N, 784).

    Each is tried with the same noise, of a generator with that seed.
    """

    def bound(width):
        return log_likelihood(model, images, 1, torch.Generator().manual_seed(seed), width).mean().item()

    return max(WIDTHS.tolist(), key=bound)


def active_units(mu):
    """How many latents' means mu (N, latent_dim) vary over the images by more than 0.01 (Burda et al., 2016)."""
    return int((mu.var(0) > ACTIVE).sum())


def knn_accuracy(mu, labels, test_mu, test_labels):
    """The share of test images that the 10 nearest training means classify rightly: how well the classes cluster.

    Args:
        mu, test_mu: (N, latent_dim). labels, test_labels: (N,).
    """
    from sklearn.neighbors import KNeighborsClassifier  # here, because it takes seconds to import

    return KNeighborsClassifier(NEIGHBOURS).fit(mu.numpy(), labels.numpy()).score(test_mu.numpy(), test_labels.numpy())


def sliced_wasserstein(z, other, generator, n_slices=200):
    """The sliced 2-Wasserstein distance of two sets of points (N, latent_dim), N the same.

    The root of the mean, over directions, of the squared distance of the points projected and sorted. Gaussians whose
    means lie m apart and whose covariances agree are |m| / sqrt(latent_dim) apart.
    """
    directions = torch.randn(z.shape[1], n_slices, generator=generator)
    directions /= directions.norm(dim=0)
    squared = ((z @ directions).sort(0).values - (other @ directions).sort(0).values).square()
    return squared.mean().sqrt().item()


def chunked_mmd(z, other):
    """model.mmd of two sets of points (N, latent_dim), as the mean over pieces of 1,000."""
    return float(np.mean([mmd(*pair).item() for pair in zip(z.split(MMD_DRAWS), other.split(MMD_DRAWS), strict=True)]))
