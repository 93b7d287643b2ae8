"""The variational auto-encoder of Kingma & Welling, Auto-Encoding Variational Bayes (2013), arXiv:1312.6114.

Names follow the paper: x is an image and z its latent variable; the encoder is q(z|x) = N(mu, diag(sigma^2)), its
weights the paper's phi; the decoder is p(x|z), its weights theta; the prior is p(z). Training maximises the variational
lower bound on log p(x) (eq. 3), estimated with one sample of z per image (eq. 10 with L = 1):

    ELBO = E_q[log p(x|z)] - KL(q(z|x) || p(z)) = -(BCE + KLD)

Each loss has shape (N,): one number per image, in nats.
"""

import math
from itertools import pairwise

import torch
import torch.nn.functional as F
from torch import nn


class VAE(nn.Module):
    """An MLP encoder q(z|x), its mirror image as decoder p(x|z) (appendix C, with ReLU for tanh), and a prior p(z).

    Args:
        latent_dim: size of z.
        hidden_dims: widths of the encoder's hidden layers; the decoder has them in reverse.
        image_dim: pixels per image.
        prior: a module with the methods of `StandardNormal`, which is the default.
        input_dropout: the share of the pixels that the encoder does not see in training.
    """

    def __init__(self, latent_dim=2, hidden_dims=(400,), image_dim=784, prior=None, input_dropout=0.0):
        super().__init__()
        self.latent_dim = latent_dim
        self.image_dim = image_dim
        self.input_dropout = input_dropout
        self.encoder = mlp(image_dim, *hidden_dims, 2 * latent_dim)
        self.decoder = mlp(latent_dim, *reversed(hidden_dims), image_dim)
        self.prior = StandardNormal(latent_dim) if prior is None else prior

    def encode(self, x):
        """The parameters of q(z|x) (eq. 9): x (N, image_dim) -> mu and logvar = log sigma^2, each (N, latent_dim)."""
        # float() keeps z and the KLD in float32 when the layers run in bfloat16.
        return self.encoder(F.dropout(x, self.input_dropout, self.training)).float().chunk(2, dim=-1)

    def reparameterize(self, mu, logvar, eps):
        """z = mu + sigma * eps (section 2.4): with eps ~ N(0, I), a sample of q(z|x) differentiable in mu and sigma.

        mu, logvar and eps have shape (..., latent_dim), and so has z.
        """
        return mu + torch.exp(0.5 * logvar) * eps

    def decode(self, z):
        """The logits of p(x|z): z (N, latent_dim) -> (N, image_dim); their sigmoid is each pixel's probability."""
        return self.decoder(z)

    def forward(self, x, eps):
        """The two terms of -ELBO at one sample of q(z|x) per image (eq. 10).

        Args:
            x: (N, image_dim), pixels in [0, 1].
            eps: (N, latent_dim), draws of N(0, I).

        Returns:
            bce (N,), kld (N,), the sample z (N, latent_dim) that was decoded, and its mean mu (N, latent_dim).
        """
        mu, logvar = self.encode(x)
        z = self.reparameterize(mu, logvar, eps)
        return bce(self.decode(z), x), self.prior.kl(mu, logvar, z), z, mu

    @torch.no_grad()
    def sample(self, n, generator=None):
        """n new images (n, image_dim), pixels in [0, 1]: the mean of p(x|z) at draws z ~ p(z)."""
        z = self.prior.sample(n, generator)
        return self.decode(z.to(next(self.decoder.parameters()).device)).sigmoid()


def mlp(*widths):
    """Linear layers with a ReLU after each but the last: mlp(784, 400, 4) has two layers and one ReLU."""
    layers = []
    for n_in, n_out in pairwise(widths):
        layers += [nn.Linear(n_in, n_out), nn.ReLU()]
    return nn.Sequential(*layers[:-1])


def bce(logits, x):
    """BCE = -log p(x|z), the reconstruction term for Bernoulli pixels (appendix C.1, eq. 11), in nats.

    -sum_i [x_i log y_i + (1 - x_i) log(1 - y_i)] over the pixels i, with y = sigmoid(a), the logits being a. That is
    sum_i [log(1 + exp(a_i)) - x_i a_i].

    Args:
        logits: (..., 784), the decoder's output.
        x: (..., 784), pixels in [0, 1]. Grey pixels are soft targets: the least BCE is their entropy, not 0.

    Returns: (...,), one number per image.
    """
    return (softplus(logits.to(x.dtype)) - x * logits).sum(-1)


def softplus(a):
    """log(1 + exp(a)), elementwise. The log1p in F.softplus takes twelve times as long as this log on AMD."""
    # leaky_relu is |a| here, with the slope -1 at 0, where abs has 0: so the gradient is 1/2 there, as it should be.
    return F.relu(a) + torch.log(1 + torch.exp(-F.leaky_relu(a, -1.0)))


def kld(mu, logvar):
    """KLD = KL(N(mu, diag(sigma^2)) || N(0, I)) in closed form, in nats: (..., latent_dim) each -> (...,), at least 0.

    1/2 sum_j (mu_j^2 + sigma_j^2 - 1 - log sigma_j^2). Appendix B gives -KLD, the term as it stands in the bound.
    """
    return 0.5 * (mu.square() + logvar.exp() - 1 - logvar).sum(-1)


def log_normal(z, mu, logvar):
    """log N(z; mu, diag(exp(logvar))), in nats: arguments of shape (..., latent_dim) -> (...,)."""
    return -0.5 * (math.log(2 * math.pi) + logvar + (z - mu).square() * torch.exp(-logvar)).sum(-1)


class StandardNormal(nn.Module):
    """p(z) = N(0, I), the prior of the paper."""

    def __init__(self, latent_dim):
        super().__init__()
        self.latent_dim = latent_dim

    def components(self):
        """Means and log variances, (K, latent_dim) each, of the K equally weighted Gaussians of the prior: one."""
        return torch.zeros(1, self.latent_dim), torch.zeros(1, self.latent_dim)

    def log_prob(self, z):
        """log p(z): z (N, latent_dim) -> (N,)."""
        return log_normal(z, torch.zeros_like(z), torch.zeros_like(z))

    def sample(self, n, generator=None):
        """n draws z ~ p(z), (n, latent_dim), on the CPU."""
        return torch.randn(n, self.latent_dim, generator=generator)

    def kl(self, mu, logvar, z):
        """KL(q(z|x) || p(z)), (N,); the sample z is for priors without a closed form."""
        return kld(mu, logvar)
