"""Where to look in a latent space: latents in use, the moments and quantiles of a prior, the grid of Figure 4."""

import torch

from model import log_normal
from utils import principal_plane

SIDE = 20  # images per row and column of the grid
BOUND = 1e3  # no latent lies further out
ACTIVE = 0.01  # the variance above which Burda et al. (2016) call a latent active
BISECTIONS = 60  # 2 BOUND / 2^60 is below the precision of a float64 there


def active_units(mu):
    """How many latents are in use: those whose mean, mu (N, latent_dim), varies over the images by more than 0.01."""
    return int((mu.var(0, correction=0) > ACTIVE).sum())


@torch.no_grad()
def moments(prior):
    """Mean and standard deviation of each latent under the prior, (latent_dim,) each: 0 and 1 for N(0, I).

    A learned prior may lie anywhere, at any scale; standardised by its moments, it fits the axes of the others.
    """
    mu, logvar = (parameter.cpu() for parameter in prior.components())
    return mu.mean(0), (logvar.exp().mean(0) + mu.var(0, correction=0)).sqrt()


@torch.no_grad()
def manifold(prior, mu):
    """The latents (SIDE^2, latent_dim) of Figure 4: a grid over the unit square through the prior's inverse CDF.

    A single latent dimension is walked through in reading order. Of more than two, the plane through the origin along
    the first two principal components of mu (N, latent_dim) is shown, as N(0, I) would fill it.
    """
    if mu.shape[1] == 1:
        return quantiles(prior, (torch.arange(SIDE**2) + 0.5).unsqueeze(1) / SIDE**2)
    u = (torch.arange(SIDE) + 0.5) / SIDE
    square = torch.cartesian_prod(1 - u, u).flip(1)  # the first coordinate grows to the right, the second upwards
    if mu.shape[1] == 2:
        return quantiles(prior, square)
    return torch.special.ndtri(square) @ torch.from_numpy(principal_plane(mu.numpy())[1]).float()


def quantiles(prior, u):
    """The z (N, latent_dim) with P(z_1 < z) = u_1, P(z_2 < z | z_1) = u_2 and so on, for u (N, latent_dim) in (0, 1).

    If u is uniform, z has the prior's distribution. Found by bisection, as a mixture has no inverse CDF.
    """
    means, logvars = (parameter.cpu().double() for parameter in prior.components())
    log_weights = torch.zeros(len(u), len(means), dtype=torch.double)
    z = torch.empty(u.shape, dtype=torch.double)
    for d in range(u.shape[1]):
        mu = means[:, d]
        sigma = torch.exp(0.5 * logvars[:, d])
        low = torch.full((len(u),), -BOUND, dtype=torch.double)
        high = -low
        for _ in range(BISECTIONS):
            middle = (low + high) / 2
            cdf = torch.special.ndtr((middle.unsqueeze(1) - mu) / sigma)
            below = (log_weights.softmax(1) * cdf).sum(1) < u[:, d]
            low = torch.where(below, middle, low)
            high = torch.where(below, high, middle)
        z[:, d] = middle
        log_weights += log_normal(middle.view(-1, 1, 1), mu.unsqueeze(1), logvars[:, d].unsqueeze(1))
    return z.float()
