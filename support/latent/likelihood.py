"""log p(x): by quadrature with one or two latents, by importance sampling with more."""

import math
from typing import NamedTuple

import torch

from model import bce, log_normal
from support.data.datasets import pixels
from support.seeds import EVALUATION_SEED, generator
from variants.priors import moments

MOST_DIMS = 2  # of quadrature: with more latents, a lattice has too many cells
EXTENTS = (6.5, 10, 15)  # from the mean of each of the prior's Gaussians to the end of the lattice, in deviations
TILE_CELLS = 25
HALVINGS = 4  # of a tile, at most: with two latents, its cells are then an eightieth of the prior's deviation wide
NEGLIGIBLE = 10  # nats below the largest tile, times the halvings left: coarse integrals are less certain
TOLERANCE = 0.1  # of p(x): the midpoint rule converges so fast that the next halving changes far less
LEAKAGE = 0.03  # of p(x), on the border of a lattice that is wide enough
TILES = 10  # at a time
TERMS = 2**20  # pairs of an image and a cell at a time: they stay in the cache, and memory is bounded

WIDENINGS = (1.0, 1.2, 1.5, 2.0, 3.0, 5.0)
CODE_SCALES = tuple(10 ** (power / 4) for power in range(-10, 3))  # of the Gaussian around a deterministic code
PRIOR_NUMBERS = 9000  # in the draws of the prior, which are decoded once for all images
CHUNK = 500  # images at a time, for the same reasons
DRAWS = 2  # of their own at a time
FITTED_IMAGES = 200
BUDGET = 1.2e11  # multiplications that the images' own draws may cost at the end of a run: 1 to 2 s on two cores
PIXEL_COST = 200  # multiplications that take as long as the BCE of a pixel
FEW_SAMPLES = 5  # effective ones: with fewer, an estimate is often more than a nat too low
LEAST_SAMPLES = 10
MOST_SAMPLES = 500


class Estimate(NamedTuple):
    """log p(x) of some images, in nats per image."""

    log_p: torch.Tensor  # (N,)
    k: int | None = None  # draws around each image's mean; None if log_p is by quadrature
    ess: torch.Tensor | None = None  # (N,), how many of all draws the estimate rests on


def estimate(model, images, k=None):
    """log p(x) by quadrature if the model has one or two latents, else by importance sampling: an Estimate.

    It is of images (N, 784) uint8 on the model's device, with k draws around each mean; if None, as many as take a few
    seconds. The result is on the CPU: callers need float64, which mps lacks.
    """
    if model.latent_dim <= MOST_DIMS:
        return Estimate(quadrature(model, images).cpu())
    k = k or affordable_samples(model, len(images))
    proposal = fit_proposal(model, images, k)
    found = importance_sampling(model, proposal, images, k, generator(EVALUATION_SEED))
    return found._replace(log_p=found.log_p.cpu(), ess=found.ess.cpu())


class Lattice(NamedTuple):
    """Equal cells that fill a part of the latent space."""

    z: torch.Tensor  # (G, latent_dim), the cells' midpoints
    log_mass: torch.Tensor  # (G,), log of p(z) times the cell's volume
    width: torch.Tensor  # (latent_dim,), of a cell


@torch.no_grad()
def quadrature(model, images):
    """log p(x) as a sum over z: log of the integral of p(x|z) p(z), by the midpoint rule on a lattice.

    The lattice covers the prior in tiles of one standard deviation, which are halved where they count for an image.
    Posteriors below a hundredth of the prior's deviation need more than HALVINGS. It is widened, to the last of EXTENTS
    at most, until little of p(x) is on its border, on average over the images: an encoder whose divergence has a low
    weight puts images far from the prior.

    Args:
        model: a VAE or WAE with one or two latents and any prior; three work, slowly.
        images: (N, 784) uint8, on the model's device.

    Returns: (N,), nats per image.
    """
    x = pixels(images)
    for extent in EXTENTS:
        tiles = tiling(model, extent)
        log_shares = tile_integrals(model, tiles, x)
        on_border = ((tiles.z == tiles.z.amin(0)) | (tiles.z == tiles.z.amax(0))).any(1)
        if log_shares.softmax(1)[:, on_border].sum(1).mean() < LEAKAGE:
            break
    return halve(model, tiles, log_shares, x, log_shares.logsumexp(1), HALVINGS).logsumexp(1)


def halve(model, tiles, log_shares, x, log_p, halvings):
    """log of the integral over each of T tiles, (N, T), from first estimates log_shares (N, T) of it.

    Tiles that count are halved until their share of p(x) settles. log_p (N,) is that of x as far as it is known. The
    result replaces log_shares.
    """
    counts = log_shares > log_shares.amax(1, keepdim=True) - NEGLIGIBLE * halvings
    for t in counts.any(0).nonzero().flatten().tolist():
        rows = counts[:, t].nonzero().squeeze(1)
        before = log_shares[rows, t]
        log_rest = log_p[rows] + torch.log1p(-(before - log_p[rows]).exp().clamp(max=1))
        halves = refine(model, Lattice(tiles.z[t : t + 1], None, tiles.width), 2)
        fine = tile_integrals(model, halves, x[rows])
        after = fine.logsumexp(1)
        total = torch.logaddexp(log_rest, after)
        changes = ((after - total).exp() - (before - total).exp()).abs() > TOLERANCE
        if halvings > 1 and changes.any():
            fine[changes] = halve(model, halves, fine[changes], x[rows[changes]], total[changes], halvings - 1)
        log_shares[rows, t] = fine.logsumexp(1)
    return log_shares


def tile_integrals(model, tiles, x):
    """log of the integral of p(x|z) p(z) over each of T tiles, (N, T), as a sum over about TILE_CELLS cells."""
    n = round(TILE_CELLS ** (1 / model.latent_dim))
    cells = n**model.latent_dim
    lattice = refine(model, tiles, n)
    parts = []
    for z, log_mass in zip(lattice.z.split(TILES * cells), lattice.log_mass.split(TILES * cells), strict=True):
        logits = model.decode(z)
        terms = [log_likelihoods(logits, chunk) + log_mass for chunk in x.split(max(1, TERMS // len(z)))]
        parts.append(torch.cat([term.view(len(term), -1, cells).logsumexp(2) for term in terms]))
    return torch.cat(parts, 1)


def log_likelihoods(logits, x):
    """log p(x|z) = -bce of every image with every z: logits (G, 784) and x (N, 784) -> (N, G)."""
    # Written out and in place: F.softplus is slow (see model.softplus). exp overflows above 88, and is slow below -87.
    log_partition = logits.clamp(-50, 80).exp_().add_(1).log_().sum(1) + (logits - 80).relu_().sum(1)
    return torch.addmm(-log_partition, x, logits.T)


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
    return refine(model, tiling(model, EXTENTS[0]), n)


def tiling(model, extent):
    """A Lattice of cells of the prior's deviation, up to `extent` deviations around each of the prior's Gaussians."""
    means, logvars = (parameter.cpu() for parameter in model.prior.components())
    reach = extent * torch.exp(0.5 * logvars)
    low = (means - reach).amin(0)
    size = (means + reach).amax(0) - low
    counts = (size / moments(model.prior)[1]).round()
    width = size / counts
    axes = [a + w * (torch.arange(n) + 0.5) for a, w, n in zip(low, width, counts.int().tolist(), strict=True)]
    return weigh(model, grid(axes), width)


def refine(model, lattice, n):
    """The Lattice with n cells per axis in place of each cell, (n^latent_dim G)."""
    offsets = grid([(torch.arange(n) + 0.5) / n - 0.5] * len(lattice.width)) * lattice.width
    return weigh(model, (lattice.z.cpu().unsqueeze(1) + offsets).flatten(0, 1), lattice.width / n)


def weigh(model, z, width):
    """The Lattice of cells of a width (latent_dim,) around z (G, latent_dim), on the model's device."""
    z = z.to(next(model.parameters()).device)
    return Lattice(z, model.prior.log_prob(z) + width.log().sum(), width)


def grid(axes):
    """Every combination of the coordinates on the axes, (G, len(axes))."""
    return torch.cartesian_prod(*axes).view(-1, len(axes))


class Proposal(NamedTuple):
    """The q(z) of importance sampling: a mixture of two Gaussians around the encoder's mean, and of the prior."""

    scale: float = 1.0  # of the first Gaussian's deviations, in the encoder's; if that has none, in the prior's
    widening: float = 1.0  # of the second one's, in the first one's
    prior_draws: int = 0  # in addition to k, and the same ones for all images


@torch.no_grad()
def importance_sampling(model, proposal, images, k, source):
    """The Estimate log p(x) = log E_q[p(x, z) / q(z)], from k draws around each image's mean and some of the prior.

    q is the mixture of all that is drawn (defensive importance sampling, Owen & Zhou, 2000). Proposal() is the
    encoder's q(z|x), as in eq. 8 of Burda et al. (2016). The expectation is below log p(x), and rises with k.

    Args:
        images: (N, 784) uint8, on the model's device.
        source: a torch.Generator on the CPU.
    """
    prior_z = model.prior.sample(proposal.prior_draws, source).to(images.device)
    prior_logits = model.decode(prior_z)
    factors = torch.tensor([1.0, proposal.widening], device=images.device).repeat(k)[:k].view(k, 1, 1)
    results = []
    for chunk in images.split(CHUNK):
        x = pixels(chunk)
        mu, logvar = model.encode(x)
        logvar = (torch.zeros_like(mu) if logvar is None else logvar) + 2 * math.log(proposal.scale)
        log_weights = []
        for factor in factors.split(DRAWS):
            eps = torch.randn(len(factor), *mu.shape, generator=source).to(images.device)
            z = mu + factor * torch.exp(0.5 * logvar) * eps
            log_ratio = log_prior_over_proposal(model, proposal, z, (mu, logvar), k)
            log_weights.append(log_ratio - bce(model.decode(z), x.expand(len(z), *x.shape)))
        log_ratio = log_prior_over_proposal(model, proposal, prior_z.unsqueeze(1), (mu, logvar), k)
        log_weights = torch.cat([*log_weights, log_ratio + log_likelihoods(prior_logits, x).T])
        results.append((log_weights.logsumexp(0) - math.log(len(log_weights)), effective_sample_size(log_weights)))
    log_p, ess = map(torch.cat, zip(*results, strict=True))
    return Estimate(log_p, k, ess)


def log_prior_over_proposal(model, proposal, z, gaussian, k):
    """log p(z) - log q(z), (K, N): z (K, N, latent_dim), or (K, 1, latent_dim) for all images; gaussian: mu, logvar."""
    mu, logvar = gaussian
    log_prior = model.prior.log_prob(z.flatten(0, 1)).view(z.shape[:2])
    log_narrow = log_normal(z, mu, logvar)
    log_wide = log_normal(z, mu, logvar + 2 * math.log(proposal.widening))
    counts = torch.tensor([(k + 1) // 2, k // 2, proposal.prior_draws], device=z.device)
    log_shares = (counts / counts.sum()).log().view(3, 1, 1)
    return log_prior - (torch.stack([log_narrow, log_wide, log_prior.expand_as(log_wide)]) + log_shares).logsumexp(0)


def effective_sample_size(log_weights):
    """(sum w)^2 / sum w^2, (N,), of log weights (K, N): 1 if a single draw counts, K if all do equally (Kong, 1992)."""
    return torch.exp(2 * log_weights.logsumexp(0) - (2 * log_weights).logsumexp(0))


def fit_proposal(model, images, k):
    """The Proposal of highest log p(x) for the first of the images (N, 784) uint8.

    Its noise is other than that of the estimate, whose expectation therefore stays below log p(x).
    """
    images = images[:FITTED_IMAGES]
    is_deterministic = model.encode(pixels(images[:1]))[1] is None
    shapes = [(scale, 3.0) for scale in CODE_SCALES] if is_deterministic else [(1.0, factor) for factor in WIDENINGS]

    def bound(proposal):
        source = generator(EVALUATION_SEED, 1)  # the same noise for every proposal
        return importance_sampling(model, proposal, images, k, source).log_p.mean().item()

    return max((Proposal(*shape, PRIOR_NUMBERS // model.latent_dim) for shape in shapes), key=bound)


def affordable_samples(model, n_images):
    """The k with which the draws around the means of so many images cost BUDGET."""
    image_dim = model.decoder[-1].out_features
    cost = sum(parameter.numel() for parameter in model.decoder.parameters()) + PIXEL_COST * image_dim
    return min(MOST_SAMPLES, max(LEAST_SAMPLES, int(BUDGET // (n_images * cost))))
