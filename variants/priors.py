"""Learned priors p(z), --prior mixture and --prior vamp, and what is known of any prior by its components."""

import math

import torch
from torch import nn

from model import log_normal

BOUND = 1e3  # no latent lies further out
BISECTIONS = 60  # 2 BOUND / 2^60 is below the precision of a float64 there


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

    With input dropout, pseudo-inputs lose pixels in training as images do.

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


@torch.no_grad()
def moments(prior):
    """Mean and standard deviation of each latent under the prior, (latent_dim,) each: 0 and 1 for N(0, I).

    A learned prior may lie anywhere, at any scale; standardised by its moments, it fits the axes of the others.
    """
    mu, logvar = (parameter.cpu() for parameter in prior.components())
    return mu.mean(0), (logvar.exp().mean(0) + mu.var(0, correction=0)).sqrt()


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
