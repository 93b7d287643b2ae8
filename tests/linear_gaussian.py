"""A model whose log p(x) is known in closed form, for tests of its estimates."""

import math

import torch
from torch import nn
from torch.distributions import MultivariateNormal

from model import StandardNormal

VARIANCE = 0.04  # of a pixel's noise


def negative_log_density(decoded, x):
    """-log p(x|z) of Gaussian pixels, in place of model.bce."""
    return 0.5 * ((x - decoded).square() / VARIANCE + math.log(2 * math.pi * VARIANCE)).sum(-1)


class LinearGaussian(nn.Module):
    """x = W z + noise, z ~ N(0, I): its posterior and its log p(x) are known.

    Args:
        weight: W (pixels, latent_dim).
        widening: the encoder's standard deviations, in those of the posterior.
    """

    def __init__(self, weight, widening=1.0):
        super().__init__()
        self.weight = nn.Parameter(weight, requires_grad=False)
        self.latent_dim = weight.shape[1]
        self.prior = StandardNormal(self.latent_dim)
        self.covariance = torch.linalg.inv(torch.eye(self.latent_dim) + weight.T @ weight / VARIANCE)
        self.logvar = (widening**2 * self.covariance.diagonal()).log()

    def encode(self, x):
        mu = x @ self.weight @ self.covariance / VARIANCE
        return mu, self.logvar.expand_as(mu)

    def decode(self, z):
        return z @ self.weight.T

    def log_prob(self, x):
        covariance = self.weight @ self.weight.T + VARIANCE * torch.eye(len(self.weight))
        return MultivariateNormal(torch.zeros(len(self.weight)), covariance).log_prob(x)
