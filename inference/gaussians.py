"""Inference for one image: the ELBO of a Gaussian, the peak of p(z|x), and the best Gaussian. Used by studies.gap.

log p(x) is the sum of the best Gaussian's ELBO and what no Gaussian can reach (Cremer, Li & Duvenaud, 2018).
"""

import functools
import math

import torch
from numpy.polynomial.hermite_e import hermegauss

from model import bce, kld
from support.data.datasets import pixels
from support.latent import likelihood

CHUNK = 50  # images at a time: their activations stay in the cache
ORDER = 8  # nodes per latent of an expectation under q: with 30, the ELBO of an image changes by 0.01 nats
SEARCH_ORDER = 3
SEARCH_STEPS = 200  # with 600 and order 6, the best ELBO changes by 0.01 nats
SEARCH_RATE = 0.03
WIDTHS = (0.02, 0.05, 0.1, 0.2, 0.5)  # of the Gaussians around the posterior's peak, from which a search may start
CELLS = 20  # per standard deviation of the prior and axis, of the lattice on which the peak is found


def bounds(model, x, mu, logvar, order=ORDER):
    """The ELBO for the prior N(0, I) and q = N(mu, diag(exp(logvar))), in nats, by Gauss-Hermite quadrature.

    Args:
        x: (N, 784), pixels in [0, 1].
        mu, logvar: (N, latent_dim).
        order: nodes per latent.

    Returns: (N,), differentiable in mu and logvar.
    """
    nodes, weights = hermite(order, model.latent_dim)
    z = model.reparameterize(mu, logvar, nodes.unsqueeze(1))
    return -weights @ bce(model.decode(z), x.expand(len(nodes), *x.shape)) - kld(mu, logvar)


def encoder_bounds(model, images):
    """The ELBO of the encoder's q(z|x), (N,), of images (N, 784) uint8."""
    return torch.cat([bounds(model, x, *model.encode(x)) for x in map(pixels, images.split(CHUNK))])


@functools.cache
def hermite(order, dims):
    """Nodes (order^dims, dims) and weights (order^dims,) of expectations under N(0, I)."""
    nodes, weights = map(torch.from_numpy, hermegauss(order))
    points = likelihood.grid([nodes] * dims)
    masses = likelihood.grid([weights / weights.sum()] * dims).prod(1)
    return points.float(), masses.float()


def posterior_peaks(model, images):
    """Where p(z|x) is highest, (N, latent_dim), to a cell of a lattice, for a few images (N, 784) uint8."""
    lattice = likelihood.lattice(model, CELLS)
    return lattice.z[likelihood.log_joint(model, lattice, images).argmax(1)]


def best_gaussians(model, images, peaks):
    """The Gaussian N(mu, diag(exp(logvar))) of highest ELBO for each of images (N, 784) uint8, as far as Adam finds it.

    Args:
        peaks: (N, latent_dim), from `posterior_peaks`.

    Returns: mu and logvar, (N, latent_dim) each, and the ELBO (N,), nowhere lower than the encoder's.
    """
    chunks = zip(images.split(CHUNK), peaks.split(CHUNK), strict=True)
    found = [search(model, pixels(chunk), peak) for chunk, peak in chunks]
    return tuple(map(torch.cat, zip(*found, strict=True)))


def search(model, x, peaks):
    """`best_gaussians` of x (N, 784): Adam from the best of the encoder's Gaussian and some around the peak."""
    narrow = [(peaks, torch.full_like(peaks, 2 * math.log(width))) for width in WIDTHS]
    *start, _ = best_of(model, x, [model.encode(x), *narrow])
    return best_of(model, x, [start, climb(model, x, *start)])


def best_of(model, x, gaussians):
    """Of pairs (mu, logvar), (N, latent_dim) each, the one of highest ELBO for each x (N, 784), and that ELBO (N,)."""
    elbo, chosen = torch.stack([bounds(model, x, *gaussian) for gaussian in gaussians]).max(0)
    mu, logvar = (torch.stack(parameters)[chosen, torch.arange(len(x))] for parameters in zip(*gaussians, strict=True))
    return mu, logvar, elbo


@torch.enable_grad()
def climb(model, x, mu, logvar):
    """mu and logvar, (N, latent_dim) each, after steps of Adam up the ELBO of each x (N, 784)."""
    mu, logvar = (parameter.clone().requires_grad_() for parameter in (mu, logvar))
    optimizer = torch.optim.Adam([mu, logvar], SEARCH_RATE)
    scheduler = torch.optim.lr_scheduler.LinearLR(optimizer, 1, 0, SEARCH_STEPS)
    for _ in range(SEARCH_STEPS):
        loss = -bounds(model, x, mu, logvar, SEARCH_ORDER).sum()  # each image has parameters of its own
        mu.grad, logvar.grad = torch.autograd.grad(loss, (mu, logvar))
        optimizer.step()
        scheduler.step()
    return mu.detach(), logvar.detach()
