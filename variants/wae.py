"""The Wasserstein auto-encoder: --divergence mmd (Tolstikhin et al., 2018, arXiv:1711.01558)."""

import torch
import torch.nn.functional as F

from model import VAE, bce, mlp

SCALES = (0.1, 0.2, 0.5, 1, 2, 5, 10)


class WAE(VAE):
    """A deterministic encoder; the codes of a batch, not each q(z|x), are kept near p(z) = N(0, I)."""

    def __init__(self, latent_dim=2, hidden_dims=(400,), image_dim=784, input_dropout=0.0):
        super().__init__(latent_dim, hidden_dims, image_dim, input_dropout=input_dropout)
        self.encoder = mlp(image_dim, *hidden_dims, latent_dim)

    def encode(self, x):
        """The code of each image, x (N, 784) -> (N, latent_dim), in place of mu; None in place of logvar."""
        return self.encoder(F.dropout(x, self.input_dropout, self.training)).float(), None

    def forward(self, x, prior_draws):
        """BCE (N,), the batch's squared MMD to draws of the prior (N, latent_dim), repeated to (N,), and z, twice."""
        z, _ = self.encode(x)
        return bce(self.decode(z), x), mmd(z, prior_draws).expand(len(z)), z, z


def mmd(z, other):
    """Squared maximum mean discrepancy between the distributions that z and other, (N, latent_dim) each, are from.

    The estimate is unbiased, so it can be below zero. The kernel is the inverse multiquadratic C / (C + |a - b|^2),
    summed over seven scales C around 2 latent_dim, the mean squared distance of two draws from N(0, I).
    """
    scales = [2 * z.shape[1] * scale for scale in SCALES]

    def kernel(a, b):
        squared = (a.square().sum(1, keepdim=True) + b.square().sum(1) - 2 * a @ b.T).clamp_min(0)
        return sum(c / (c + squared) for c in scales)

    def mean_of_distinct_pairs(a):
        diagonal = len(scales) * len(a)  # k(a, a) = 1 for every scale
        return (kernel(a, a).sum() - diagonal) / max(len(a) * (len(a) - 1), 1)

    with torch.autocast(z.device.type, enabled=False):  # bfloat16 would blur small distances
        return mean_of_distinct_pairs(z) + mean_of_distinct_pairs(other) - 2 * kernel(z, other).mean()
