"""The variational auto-encoder of Kingma & Welling, Auto-Encoding Variational Bayes (2013), arXiv:1312.6114.

The names are the paper's: x is an image, z its latent, q(z|x) = N(mu, diag(sigma^2)) the encoder, whose weights are
the paper's phi, p(x|z) the decoder, whose weights are theta, p(z) = N(0, I) the prior. Training maximises the
variational lower bound on log p(x) (eq. 3), estimated with one sample of z an image (eq. 7 and 10):

    ELBO = E_q[log p(x|z)] - KL(q(z|x) || p(z)) = -(BCE + KLD)

Every loss is in nats per image and is returned as one number an image, shape (N,). Two choices of the paper can be made
differently: the prior (PRIORS), and how far from it q may lie (DIVERGENCES).
"""

import math
from collections.abc import Callable
from itertools import pairwise
from typing import NamedTuple

import torch
from torch import nn

from errors import UserError

MMD_SCALES = (0.1, 0.2, 0.5, 1, 2, 5, 10)


def mlp(*widths):
    """Linear layers from width to width, a ReLU between each two: mlp(784, 400, 4)."""
    layers = []
    for n_in, n_out in pairwise(widths):
        layers += [nn.Linear(n_in, n_out), nn.ReLU()]
    return nn.Sequential(*layers[:-1])


class VAE(nn.Module):
    """An MLP encoder q(z|x), its mirror image, the decoder p(x|z), and the prior p(z).

    The networks are those of appendix C, but for their hidden units: ReLUs, where the paper has tanh.

    Args:
        latent_dim: size of z.
        hidden_dims: widths of the encoder's hidden layers; the decoder has them in reverse.
        image_dim: pixels an image.
        prior: a name in PRIORS. prior_components: how many Gaussians a learned one has.
        divergence: a name in DIVERGENCES. With mmd this is a Wasserstein auto-encoder: sigma = 0, z = mu.
    """

    def __init__(
        self, latent_dim=2, hidden_dims=(400,), image_dim=784, prior="normal", prior_components=10, divergence="kl"
    ):
        super().__init__()
        self.latent_dim, self.image_dim, self.divergence = latent_dim, image_dim, DIVERGENCES[divergence]
        self.network = {
            "latent_dim": latent_dim,
            "hidden_dims": list(hidden_dims),
            "image_dim": image_dim,
            "prior": prior,
            "prior_components": prior_components,
            "divergence": divergence,
        }
        self.encoder = mlp(image_dim, *hidden_dims, (2 if self.divergence.stochastic else 1) * latent_dim)
        self.decoder = mlp(latent_dim, *reversed(hidden_dims), image_dim)
        self.prior = PRIORS[prior](self, prior_components)

    def encode(self, x):
        """The parameters of q(z|x) (eq. 9): (N, image_dim) -> mu, logvar = log sigma^2, each (N, latent_dim)."""
        # float() keeps z and its divergence in float32 when autocast runs the layers in bfloat16.
        heads = self.encoder(x).float()
        if self.divergence.stochastic:
            return heads.chunk(2, dim=-1)
        return heads, torch.full_like(heads, -math.inf)

    def reparameterize(self, mu, logvar, eps=None):
        """z = mu + sigma * eps with eps ~ N(0, I) (section 2.4): a sample of q(z|x), differentiable in mu, sigma.

        Args:
            mu, logvar: (N, latent_dim).
            eps: (N, latent_dim); drawn from torch's default generator if None.
        """
        return mu + torch.exp(0.5 * logvar) * (torch.randn_like(mu) if eps is None else eps)

    def decode(self, z):
        """The logits of p(x|z): (N, latent_dim) -> (N, image_dim); their sigmoid is each pixel's probability."""
        return self.decoder(z)

    def forward(self, x, eps=None):
        """The two terms of the bound at a sample of q(z|x), and where it is.

        Args:
            x: (N, image_dim), pixels in [0, 1].
            eps: (N, latent_dim), draws of N(0, I); drawn from torch's default generator if None.

        Returns: BCE (N,), the divergence from the prior (N,), z and mu, each (N, latent_dim).
        """
        mu, logvar = self.encode(x)
        eps = torch.randn_like(mu) if eps is None else eps
        z = self.reparameterize(mu, logvar, eps)
        return bce(self.decode(z), x), self.divergence.of(self.prior, mu, logvar, z, eps), z, mu

    @torch.no_grad()
    def sample(self, n, generator=None):
        """n new images (n, image_dim), pixels in [0, 1]: the decoder's mean at z ~ p(z)."""
        z = self.prior.sample(n, generator)
        return self.decode(z.to(next(self.decoder.parameters()).device)).sigmoid()

    @classmethod
    def load(cls, path):
        """The model in a best.pt, on the CPU, ready for use.

        Raises:
            UserError: the file is damaged or not a best.pt. OSError: it cannot be read.
        """
        import checkpoint  # here, because it imports this module

        saved = checkpoint.read(path)
        try:
            with torch.device("meta"):  # no memory is taken before the shapes are known to agree
                model = cls(**saved["network"])
            model.load_state_dict(saved["model"], assign=True)
            if any(p.dtype != torch.float32 for p in model.parameters()):
                raise TypeError("weights of another precision")
        except (KeyError, TypeError, ValueError, AttributeError, RuntimeError) as error:
            raise UserError(f"{path} is not a best.pt of this program") from error
        return model.eval()


def bce(logits, x):
    """BCE = -log p(x|z), the reconstruction term (Bernoulli decoder, appendix C.1, eq. 11).

    -sum_i x_i log y_i + (1 - x_i) log(1 - y_i) over the pixels i, with y = sigmoid(logits).

    Args:
        logits: (..., 784), the decoder's output before the sigmoid; bfloat16 is brought to x's type first.
        x: (..., 784), pixels in [0, 1]. They are targets, not samples: grey ones keep BCE above zero even when perfect.

    Returns: (...), nats per image.
    """
    return _BernoulliNLL.apply(logits, x)


def kld(mu, logvar):
    """KLD = KL(N(mu, diag(exp(logvar))) || N(0, I)) in closed form (appendix B). Never negative.

    The paper writes -KL, to be maximised; this is +KL, to be minimised beside BCE.

    Args:
        mu, logvar: (N, latent_dim).

    Returns: (N,), nats per image.
    """
    return 0.5 * (mu.square() + logvar.exp() - 1 - logvar).sum(-1)


class _BernoulliNLL(torch.autograd.Function):
    """`bce` from logits, never the log of 0, and its gradient in them, sigmoid(logits) - x.

    A training step takes as long as with F.binary_cross_entropy_with_logits (within 3%, AVX-512 CPU) where that is at
    its best; where a build of PyTorch computes the log1p inside it ten times slower than log, this does not suffer.
    """

    @staticmethod
    def forward(ctx, logits, x):
        ctx.save_for_backward(logits, x)
        a = logits.to(x.dtype)
        # softplus(a) - a x, where softplus(a) = max(a, 0) - log sigmoid(|a|), the log of a number in [0.5, 1].
        return a.relu().sub_(a.abs().sigmoid_().log_()).addcmul_(a, x, value=-1).sum(-1)

    @staticmethod
    def backward(ctx, grad):
        logits, x = ctx.saved_tensors
        return logits.to(x.dtype).sigmoid().sub_(x).mul_(grad.unsqueeze(-1)).to(logits.dtype), None


def log_normal(z, mu, logvar):
    """log N(z; mu, diag(exp(logvar))): three of shape (..., latent_dim) -> (...,)."""
    return -0.5 * (math.log(2 * math.pi) + logvar + (z - mu).square() * torch.exp(-logvar)).sum(-1)


class StandardNormal(nn.Module):
    """p(z) = N(0, I), the paper's prior."""

    def __init__(self, latent_dim):
        super().__init__()
        self.latent_dim = latent_dim

    def components(self):
        """The means and log variances (K, latent_dim) of the K equally likely Gaussians that this is made of."""
        return 2 * [torch.zeros(1, self.latent_dim)]

    def log_prob(self, z):
        """log p(z): (N, latent_dim) -> (N,)."""
        return log_normal(z, torch.zeros_like(z), torch.zeros_like(z))

    def sample(self, n, generator=None):
        """n draws of z, (n, latent_dim), on the CPU."""
        return torch.randn(n, self.latent_dim, generator=generator)

    def kl(self, mu, logvar, z):
        """KL(q(z|x) || p(z)) in closed form, (N,)."""
        return kld(mu, logvar)


class Mixture(nn.Module):
    """p(z) = 1/K sum_k N(mu_k, diag(sigma_k^2)), its K means and variances learned with the rest of the bound."""

    def __init__(self, latent_dim, n_components):
        super().__init__()
        self.mu = nn.Parameter(torch.randn(n_components, latent_dim))
        self.logvar = nn.Parameter(torch.zeros(n_components, latent_dim))

    def components(self):
        """The means and log variances (K, latent_dim) of the K equally likely Gaussians that this is made of."""
        return self.mu, self.logvar

    def log_prob(self, z):
        """log p(z): (N, latent_dim) -> (N,)."""
        mu, logvar = self.components()
        return log_normal(z.unsqueeze(-2), mu, logvar).logsumexp(-1) - math.log(len(mu))

    def sample(self, n, generator=None):
        """n draws of z, (n, latent_dim), on the CPU."""
        mu, logvar = (parameter.cpu() for parameter in self.components())
        k = torch.randint(len(mu), (n,), generator=generator)
        return mu[k] + torch.exp(0.5 * logvar[k]) * torch.randn(n, mu.shape[1], generator=generator)

    def kl(self, mu, logvar, z):
        """KL(q(z|x) || p(z)) has no closed form: its estimate log q(z|x) - log p(z) by the sample z of q(z|x), (N,)."""
        return log_normal(z, mu, logvar) - self.log_prob(z)


class VampPrior(Mixture):
    """p(z) = 1/K sum_k q(z|u_k), q by the encoder, its K pseudo-inputs u_k learned (Tomczak & Welling, 2018)."""

    def __init__(self, encode, image_dim, n_components):
        nn.Module.__init__(self)
        self.encode = encode
        self.pseudo_inputs = nn.Parameter(torch.randn(n_components, image_dim))  # before a sigmoid

    def components(self):
        """The means and log variances (K, latent_dim) of the K equally likely Gaussians that this is made of."""
        return self.encode(self.pseudo_inputs.sigmoid())


PRIORS = {
    "normal": lambda vae, n_components: StandardNormal(vae.latent_dim),
    "mixture": lambda vae, n_components: Mixture(vae.latent_dim, n_components),
    "vamp": lambda vae, n_components: VampPrior(vae.encode, vae.image_dim, n_components),
}


def mmd(z, other):
    """The squared maximum mean discrepancy of the distributions that z and other, (N, latent_dim) each, are drawn from.

    Unbiased, so below zero at times; a number. The kernel is the inverse multiquadratic C / (C + |a - b|^2), summed
    over seven scales C around 2 latent_dim, the mean squared distance of two draws from N(0, I) (Tolstikhin et al.,
    2018).
    """

    def kernel(a, b):
        squared = (a.square().sum(1, keepdim=True) + b.square().sum(1) - 2 * a @ b.T).clamp_min(0)
        return sum(c / (c + squared) for c in (2 * z.shape[1] * scale for scale in MMD_SCALES))

    def within(a):
        return (kernel(a, a).sum() - len(MMD_SCALES) * len(a)) / max(len(a) * (len(a) - 1), 1)

    with torch.autocast(z.device.type, enabled=False):  # bfloat16 would blur small distances
        return within(z) + within(other) - 2 * kernel(z, other).mean()


class Divergence(NamedTuple):
    """What stands beside BCE: its name in figures, how it is computed, and whether q(z|x) has a variance under it.

    `of(prior, mu, logvar, z, eps)` returns (N,), with the mean over a batch as the value.
    """

    label: str
    of: Callable
    stochastic: bool


DIVERGENCES = {
    "kl": Divergence("KLD", lambda prior, mu, logvar, z, eps: prior.kl(mu, logvar, z), True),
    # The Wasserstein auto-encoder's. Only N(0, I) goes with it: eps, which a deterministic encoder has no use for, are
    # draws of that prior.
    "mmd": Divergence("MMD", lambda prior, mu, logvar, z, eps: mmd(z, eps).expand(len(z)), False),
}
