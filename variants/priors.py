"""Learned priors p(z): --prior mixture and --prior vamp."""

import math

import torch
from torch import nn

from model import log_normal


class Mixture(nn.Module):
    """p(z) = 1/K sum_k N(mu_k, diag(sigma_k^2)): K Gaussians learned together with the network."""

    def __init__(self, latent_dim, n_components):
        super().__init__()
        self.mu = nn.Parameter(torch.randn(n_components, latent_dim))
        self.logvar = nn.Parameter(torch.zeros(n_components, latent_dim))

    def components(self):
        """Means and log variances of the K equally weighted Gaussians, (K, latent_dim) each."""
        return self.mu, self.logvar

    def log_prob(self, z):
        """log p(z): z (N, latent_dim) -> (N,)."""
        mu, logvar = self.components()
        return log_normal(z.unsqueeze(-2), mu, logvar).logsumexp(-1) - math.log(len(mu))

    def sample(self, n, generator=None):
        """n draws z ~ p(z), (n, latent_dim), on the CPU."""
        mu, logvar = (parameter.cpu() for parameter in self.components())
        k = torch.randint(len(mu), (n,), generator=generator)
        eps = torch.randn(n, mu.shape[1], generator=generator)
        return mu[k] + torch.exp(0.5 * logvar[k]) * eps

    def kl(self, mu, logvar, z):
        """KL(q(z|x) || p(z)) estimated as log q(z|x) - log p(z) at the sample z, (N,): it has no closed form."""
        return log_normal(z, mu, logvar) - self.log_prob(z)


class VampPrior(Mixture):
    """p(z) = 1/K sum_k q(z|u_k): the posteriors of K learned pseudo-inputs u_k (Tomczak & Welling, 2018).

    Args:
        encode: the model's encoder, images (K, image_dim) -> mu, logvar.
    """

    def __init__(self, encode, image_dim, n_components):
        nn.Module.__init__(self)  # not Mixture's: it has no means and variances of its own
        self.encode = encode
        self.pseudo_inputs = nn.Parameter(torch.randn(n_components, image_dim))  # logits of the pixels

    def components(self):
        """Means and log variances of the K equally weighted Gaussians, (K, latent_dim) each."""
        return self.encode(self.pseudo_inputs.sigmoid())
