"""A VAE for real-valued pixels, whose p(x|z) is Gaussian (appendix C.2). Studies train it; no flag does.

p(x|z) is a density over pixel values in [0, 1], so its logarithm, and the bound, may be positive.
"""

import math

import torch
from torch import nn

from model import VAE


class GaussianVAE(VAE):
    """A VAE whose p(x|z) is a Gaussian per pixel, with means in (0, 1) by a sigmoid (appendix C.2).

    Args:
        variance: "image": another output of the decoder for each pixel; "pixel": one per pixel, the same for all
            images; "shared": one for all pixels.
        floor: the least standard deviation.
    """

    def __init__(self, latent_dim, hidden_dim, image_dim, variance="image", floor=0.0):
        super().__init__(latent_dim, (hidden_dim,), image_dim)
        self.floor = floor
        self.variance = nn.Linear(hidden_dim, image_dim) if variance == "image" else None
        self.free_variance = nn.Parameter(torch.zeros({"image": 0, "pixel": image_dim, "shared": 1}[variance]))

    def decode_both(self, z):
        """The mean and log variance of each pixel: z (..., latent_dim) -> both broadcast to (..., image_dim)."""
        hidden = self.decoder[:-1](z)
        logvar = self.free_variance if self.variance is None else self.variance(hidden)
        if self.floor:
            logvar = torch.logaddexp(logvar, torch.tensor(2 * math.log(self.floor)))
        return self.decoder[-1](hidden).sigmoid(), logvar

    def energy(self, z, x):
        """-log p(x|z): z (..., latent_dim), x (..., image_dim) -> (...)."""
        mean, logvar = self.decode_both(z)
        return 0.5 * ((x - mean).square() * torch.exp(-logvar) + logvar + math.log(2 * math.pi)).sum(-1)

    def draw(self, z):
        """A draw of p(x|z)."""
        mean, logvar = self.decode_both(z)
        return mean + torch.exp(0.5 * logvar) * torch.randn_like(mean)

    def forward(self, x, eps):
        """What `VAE.forward` returns, for Gaussian pixels."""
        mu, logvar = self.encode(x)
        z = self.reparameterize(mu, logvar, eps)
        return self.energy(z, x), self.prior.kl(mu, logvar, z), z, mu

    def log_joint(self, x, z):
        """log p(x, z) of every image with every z: x (N, image_dim) and z (G, latent_dim) -> (N, G)."""
        mean, logvar = self.decode_both(z)
        centre = x.mean(0)  # the squares below cancel, and float32 keeps more of small ones
        x, mean, precision = x - centre, mean - centre, torch.exp(-logvar).expand_as(mean)
        constant = (mean.square() * precision + logvar + math.log(2 * math.pi)).sum(1)
        return x @ (mean * precision).T - 0.5 * (x.square() @ precision.T + constant) + self.prior.log_prob(z)
