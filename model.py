"""The variational auto-encoder of Kingma & Welling, Auto-Encoding Variational Bayes (2013), arXiv:1312.6114.

The names are the paper's: x is an image, z its latent, q(z|x) = N(mu, sigma^2 I) the encoder, p(x|z) the decoder,
p(z) = N(0, I) the prior. Training maximises the variational lower bound on log p(x) (eq. 3), one sample of z an image:

    ELBO = E_q[log p(x|z)] - KL(q(z|x) || p(z)) = -(BCE + KLD)

Every loss is in nats per image and is returned as one number an image, shape (N,).
"""

from itertools import pairwise

import torch
from torch import nn

import checkpoint
from errors import UserError


class _BernoulliNLL(torch.autograd.Function):
    """The sum over pixels of -log Bernoulli(x; sigmoid(logits)), with its gradient in logits, sigmoid(logits) - x.

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


def bce(logits, x):
    """BCE = -log p(x|z), summed over the pixels: the reconstruction term (Bernoulli decoder, appendix C.1, eq. 11).

    Args:
        logits: (N, 784), the decoder's output before the sigmoid; bfloat16 is brought to x's type first.
        x: (N, 784), pixels in [0, 1]. They are targets, not samples: grey ones keep BCE above zero even when perfect.

    Returns: (N,), nats per image.
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


def mlp(*widths):
    """Linear layers from width to width, a ReLU between each two: mlp(784, 400, 4)."""
    layers = []
    for n_in, n_out in pairwise(widths):
        layers += [nn.Linear(n_in, n_out), nn.ReLU()]
    return nn.Sequential(*layers[:-1])


class VAE(nn.Module):
    """An MLP encoder q(z|x) and its mirror image, the decoder p(x|z) (appendix C).

    Args:
        latent_dim: size of z.
        hidden_dims: widths of the encoder's hidden layers; the decoder has them in reverse.
        image_dim: pixels an image.
    """

    def __init__(self, latent_dim=2, hidden_dims=(400,), image_dim=784):
        super().__init__()
        self.latent_dim, self.hidden_dims, self.image_dim = latent_dim, tuple(hidden_dims), image_dim
        self.encoder = mlp(image_dim, *hidden_dims, 2 * latent_dim)
        self.decoder = mlp(latent_dim, *reversed(hidden_dims), image_dim)

    @property
    def network(self):
        """The arguments that make a model of this shape."""
        return {"latent_dim": self.latent_dim, "hidden_dims": list(self.hidden_dims), "image_dim": self.image_dim}

    def encode(self, x):
        """The parameters of q(z|x) (eq. 9): (N, image_dim) -> mu, logvar = log sigma^2, each (N, latent_dim)."""
        # float() keeps z and KLD in float32 when autocast runs the layers in bfloat16.
        return self.encoder(x).float().chunk(2, dim=-1)

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
        """Encode x, sample z, decode it: (N, image_dim) -> logits (N, image_dim), mu, logvar (N, latent_dim)."""
        mu, logvar = self.encode(x)
        return self.decode(self.reparameterize(mu, logvar, eps)), mu, logvar

    @torch.no_grad()
    def sample(self, n, generator=None):
        """n new images (n, image_dim), pixels in [0, 1]: the decoder's mean at z ~ p(z) = N(0, I)."""
        z = torch.randn(n, self.latent_dim, generator=generator)
        return self.decode(z.to(next(self.parameters()).device)).sigmoid()

    @classmethod
    def load(cls, path):
        """The model in a best.pt, on the CPU, ready for use.

        Raises:
            UserError: the file is damaged or not a best.pt. OSError: it cannot be read.
        """
        saved = checkpoint.read(path)
        try:
            with torch.device("meta"):  # no memory is taken before the shapes are known to agree
                model = cls(**saved["network"])
            model.load_state_dict(saved["model"], assign=True)
        except (KeyError, TypeError, ValueError, AttributeError, RuntimeError) as error:
            raise UserError(f"{path} is not a best.pt of this program") from error
        return model.eval()
