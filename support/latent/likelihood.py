"""log p(x): by quadrature with one or two latents, a closer bound than the ELBO with more."""

import math
from typing import NamedTuple

import torch
import torch.nn.functional as F

from model import bce, log_normal
from support.data.datasets import pixels
from support.seeds import EVALUATION_SEED, generator
from variants.priors import moments
from variants.wae import proposals_around_code

MOST_DIMS = 2  # of quadrature: with more latents, a lattice has too many points
EXTENTS = (6.5, 10, 15)  # from the mean of each of the prior's Gaussians to the end of the lattice, in deviations
TILE_POINTS = 25  # in a tile at first
MOST_TILE_POINTS = 6400
NEGLIGIBLE = 20  # nats: tiles with less than exp(-20) of p(x) are not worth a finer lattice
TOLERANCE = 0.03  # nats per image; what halving changes once more is far less
IMAGES = 10_000  # at a time
TERMS = 2**20  # pairs of an image and a z, or logits, at a time: they stay in the cache, and memory is bounded

CHUNK = 1000  # samples decoded at a time, for the same reasons
WIDTH_IMAGES = 1000
BUDGET = 6e10  # multiplications that the estimate at the end of a run may cost: about 3 s on two cores
PIXEL_COST = 200  # multiplications that take as long as the BCE of a pixel
LEAST_SAMPLES = 10  # with fewer, the estimate is hardly better than the ELBO
MOST_SAMPLES = 500


class Estimate(NamedTuple):
    """log p(x) of some images, in nats per image."""

    log_p: torch.Tensor  # (N,)
    k: int | None = None  # samples per image; None if log_p is by quadrature
    log_p_tenth: torch.Tensor | None = None  # (N,), with k // 10 samples: how much the estimate still depends on k


def estimate(model, images, train_images, k=None):
    """log p(x) by quadrature if the model has one or two latents, else by importance sampling.

    Args:
        images: (N, 784) uint8, on the model's device, as are the training images.
        k: samples per image for importance sampling, at least 10; as many as take a few seconds if None.

    Returns: an Estimate, on the CPU: mps has no float64 for what is computed of it.
    """
    if model.latent_dim <= MOST_DIMS:
        return Estimate(quadrature(model, images).cpu())
    k = k or affordable_samples(model, len(images))
    proposal = proposal_of(model, train_images)
    log_p, log_p_tenth = (
        importance_sampling(model, proposal, images, samples, generator(EVALUATION_SEED)).cpu()
        for samples in (k, k // 10)
    )
    return Estimate(log_p, k, log_p_tenth)


class Lattice(NamedTuple):
    """Equal cells that fill a part of the latent space."""

    z: torch.Tensor  # (G, latent_dim), the cells' midpoints
    log_mass: torch.Tensor  # (G,), log of p(z) times the cell's volume
    width: torch.Tensor  # (latent_dim,), of a cell


@torch.no_grad()
def quadrature(model, images):
    """log p(x) as a sum over z: log of the integral of p(x|z) p(z), by the midpoint rule on a lattice.

    The lattice covers the prior in tiles of one standard deviation. In the tiles that count for an image, the spacing
    is halved until log p(x) changes by less than TOLERANCE on average, or a tile has MOST_TILE_POINTS. Posteriors that
    are narrower still, below a hundredth of the prior's deviation, need a finer lattice.

    Args:
        model: a VAE or WAE with one or two latents and any prior.
        images: (N, 784) uint8, on the model's device.

    Returns: (N,), nats per image.
    """
    return torch.cat([integrate(model, pixels(chunk)) for chunk in images.split(IMAGES)])


def integrate(model, x):
    """`quadrature` of x (N, 784), pixels in [0, 1]."""
    n = round(TILE_POINTS ** (1 / model.latent_dim))
    tiles, log_shares = coarse_shares(model, n, x)
    change = math.inf
    while change > TOLERANCE and (2 * n) ** model.latent_dim <= MOST_TILE_POINTS:
        n *= 2
        before = log_shares.logsumexp(1)
        counts = log_shares > before.unsqueeze(1) - NEGLIGIBLE
        for t, cell in enumerate(cells(tiles)):
            rows = counts[:, t].nonzero().squeeze(1)
            if len(rows):
                log_shares[rows, t] = log_integral(model, refine(model, cell, n), x[rows])
        change = (log_shares.logsumexp(1) - before).abs().mean()
    return log_shares.logsumexp(1)


def coarse_shares(model, n, x):
    """The T tiles, and log of the integral over each with n cells per axis, (N, T).

    They are widened until those on the border have less than TOLERANCE of p(x) on average: an encoder whose divergence
    has a low weight puts images far from the prior.
    """
    for extent in EXTENTS:
        tiles = tile(model, extent)
        log_shares = torch.stack([log_integral(model, refine(model, cell, n), x) for cell in cells(tiles)], 1)
        on_border = ((tiles.z == tiles.z.amin(0)) | (tiles.z == tiles.z.amax(0))).any(1)
        if log_shares.softmax(1)[:, on_border].sum(1).mean() < TOLERANCE:
            break
    return tiles, log_shares


def log_integral(model, lattice, x):
    """log of the integral of p(x|z) p(z) over a lattice's cells, (N,), for x (N, 784)."""
    size = max(1, TERMS // max(x.shape))
    total = x.new_full((len(x),), -math.inf)
    for z, log_mass in zip(lattice.z.split(size), lattice.log_mass.split(size), strict=True):
        terms = log_likelihoods(model.decode(z), x) + log_mass
        total = torch.logaddexp(total, terms.logsumexp(1))
    return total


def log_likelihoods(logits, x):
    """log p(x|z) of every image with every z: logits (G, 784) and x (N, 784) -> (N, G).

    It is -bce, multiplied out: sum_i x_i logits_i - log(1 + exp(logits_i)).
    """
    # Pixels that are never inked have logits below -88, whose exp is too small for fast float32 arithmetic.
    return torch.addmm(-F.softplus(logits.clamp_min(-50)).sum(1), x, logits.T)


@torch.no_grad()
def log_joint(model, lattice, images):
    """log p(x|z) + log_mass, (N, G), for a few images (N, 784) uint8 and all G cells of a lattice.

    exp of it sums to p(x) over the cells; normalised, it is the posterior p(z|x).
    """
    x = pixels(images)
    parts = [log_likelihoods(model.decode(z), x) for z in lattice.z.split(max(1, TERMS // max(x.shape)))]
    return torch.cat(parts, 1) + lattice.log_mass


@torch.no_grad()
def lattice(model, n=10):
    """A Lattice over the whole prior, with n cells per standard deviation of the prior and axis."""
    return refine(model, tile(model, EXTENTS[0]), n)


def tile(model, extent):
    """The tiles of `quadrature`: a Lattice whose cells are one standard deviation of the prior wide.

    It ends `extent` standard deviations from the mean of each of the prior's Gaussians.
    """
    means, logvars = (parameter.cpu() for parameter in model.prior.components())
    reach = extent * torch.exp(0.5 * logvars)
    low = (means - reach).amin(0)
    size = (means + reach).amax(0) - low
    counts = (size / moments(model.prior)[1]).round()
    width = size / counts
    axes = [a + w * (torch.arange(n) + 0.5) for a, w, n in zip(low, width, counts.int().tolist(), strict=True)]
    return with_mass(model, grid(axes), width)


def refine(model, lattice, n):
    """The Lattice with n cells per axis in place of each cell, (n^latent_dim G)."""
    offsets = grid([(torch.arange(n) + 0.5) / n - 0.5] * len(lattice.width)) * lattice.width
    return with_mass(model, (lattice.z.cpu().unsqueeze(1) + offsets).flatten(0, 1), lattice.width / n)


def with_mass(model, z, width):
    """The Lattice of cells of a width (latent_dim,) around z (G, latent_dim), on the model's device."""
    z = z.to(next(model.parameters()).device)
    return Lattice(z, model.prior.log_prob(z) + width.log().sum(), width)


def grid(axes):
    """Every combination of the coordinates on the axes, (G, len(axes))."""
    return torch.cartesian_prod(*axes).view(-1, len(axes))


def cells(lattice):
    """A Lattice for each cell of a lattice."""
    return [Lattice(*cell, lattice.width) for cell in zip(lattice.z.split(1), lattice.log_mass.split(1), strict=True)]


@torch.no_grad()
def importance_sampling(model, proposal, images, k, source):
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


def proposal_of(model, train_images):
    """The q of importance sampling: the encoder's, or, if the encoder is deterministic, a Gaussian around its code.

    Args:
        train_images: (N, 784) uint8, on which the Gaussian's width is fitted.
    """
    images = train_images[:WIDTH_IMAGES]
    if model.encode(pixels(images[:1]))[1] is not None:
        return model.encode

    def bound(proposal):
        source = generator(EVALUATION_SEED)  # the same noise for every width
        return importance_sampling(model, proposal, images, 1, source).mean().item()

    return max(proposals_around_code(model), key=bound)


def affordable_samples(model, n_images):
    """The samples per image, k, with which log p(x) of so many images takes about 3 s on two cores."""
    image_dim = model.decoder[-1].out_features
    cost = sum(parameter.numel() for parameter in model.decoder.parameters()) + PIXEL_COST * image_dim
    return min(MOST_SAMPLES, max(LEAST_SAMPLES, int(BUDGET // (n_images * cost))))
