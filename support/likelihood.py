"""log p(x) by importance sampling, a closer bound than the ELBO."""

import math

import torch

from model import bce, log_normal
from support.data import pixels
from support.seeds import EVALUATION_SEED, generator

CHUNK = 1000  # samples decoded at a time: they stay in the cache, and memory is bounded for every k
WIDTHS = torch.logspace(-2.5, 0.5, 31)
WIDTH_IMAGES = 1000
BUDGET = 6e10  # multiplications that the estimate at the end of a run may cost: about 3 s on two cores
PIXEL_COST = 200  # multiplications that take as long as the BCE of a pixel
MOST_SAMPLES = 500  # with more, the estimate hardly changes


@torch.no_grad()
def log_likelihood(model, proposal, images, k, source):
    """log p(x) by importance sampling with k samples per image; its expectation lies between the ELBO and the truth.

    logsumexp_k[log p(x|z) + log p(z) - log q(z|x)] - log k (Burda et al., 2016, eq. 8).

    Args:
        proposal: the q of the formula: a function from x (N, 784) to mu and logvar, from `proposal_of`.
        images: (N, 784) uint8, on the model's device.
        source: a torch.Generator on the CPU.

    Returns: (N,), nats per image.
    """
    results = []
    for chunk in images.split(max(1, CHUNK // k)):
        x = pixels(chunk)
        mu, logvar = proposal(x)
        log_weights = []
        for n in [CHUNK] * (k // CHUNK) + [k % CHUNK] * (k % CHUNK > 0):
            eps = torch.randn(n, *mu.shape, generator=source).to(mu.device)
            z = mu + torch.exp(0.5 * logvar) * eps
            log_likelihoods = -bce(model.decode(z), x.expand(n, *x.shape))
            log_prior = model.prior.log_prob(z.flatten(0, 1)).view(n, -1)
            log_weights.append(log_likelihoods + log_prior - log_normal(z, mu, logvar))
        results.append(torch.cat(log_weights).logsumexp(0) - math.log(k))
    return torch.cat(results)


def proposal_of(model, config, train_images):
    """The distribution to draw from: the encoder's q(z|x), or, if it is deterministic, N(z, width^2 I) around its code.

    The width is fitted on training images (N, 784) uint8: the one of WIDTHS that gives the highest bound.
    """
    if config.divergence != "mmd":
        return model.encode

    def around_the_code(width):
        def proposal(x):
            z, _ = model.encode(x)
            return z, torch.full_like(z, 2 * math.log(width))

        return proposal

    def bound(width):
        images = train_images[:WIDTH_IMAGES]
        source = generator(EVALUATION_SEED)  # the same noise for every width
        return log_likelihood(model, around_the_code(width), images, 1, source).mean().item()

    return around_the_code(max(WIDTHS.tolist(), key=bound))


def affordable_samples(model, n_images):
    """The samples per image, k, with which log p(x) of so many images takes about 3 s on two cores."""
    image_dim = model.decoder[-1].out_features
    cost = sum(parameter.numel() for parameter in model.decoder.parameters()) + PIXEL_COST * image_dim
    return min(MOST_SAMPLES, max(1, int(BUDGET // (n_images * cost))))
