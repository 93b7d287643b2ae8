"""Where to look in a latent space: latents in use, principal components."""

import torch

ACTIVE = 0.01  # the variance above which Burda et al. (2016) call a latent active


def active_units(mu):
    """How many latents are in use: those whose mean, mu (N, latent_dim), varies over the images by more than 0.01."""
    return int((mu.var(0, correction=0) > ACTIVE).sum())


def principal_plane(mu):
    """mu (N, D): its mean (D,) and first two principal components (2, D), their largest entries positive."""
    components = torch.linalg.eigh(torch.cov(mu.T, correction=0))[1][:, [-1, -2]].T
    largest = components.abs().argmax(1)
    return mu.mean(0), components * components[[0, 1], largest].sign().unsqueeze(1)
