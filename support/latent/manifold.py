"""Where to look in a latent space: latents in use, principal components, the grid of Figure 4."""

import torch

from variants.priors import quantiles

SIDE = 20  # images per row and column of the grid
ACTIVE = 0.01  # the variance above which Burda et al. (2016) call a latent active


def active_units(mu):
    """How many latents are in use: those whose mean, mu (N, latent_dim), varies over the images by more than 0.01."""
    return int((mu.var(0, correction=0) > ACTIVE).sum())


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
    return torch.special.ndtri(square) @ principal_plane(mu)[1]


def principal_plane(mu):
    """mu (N, D): its mean (D,) and first two principal components (2, D), their largest entries positive."""
    components = torch.linalg.eigh(torch.cov(mu.T, correction=0))[1][:, [-1, -2]].T
    largest = components.abs().argmax(1)
    return mu.mean(0), components * components[[0, 1], largest].sign().unsqueeze(1)
