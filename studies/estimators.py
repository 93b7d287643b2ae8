"""Which estimate of log p(x) is near the truth? Compares proposals: python -m studies.estimators [--quick]

Networks with 2, 3, 10 and 40 latents. The truth is quadrature for two and three latents, and annealed importance
sampling for more. The answer is in docs/studies.md; a first reader can skip this file.
"""

import dataclasses
import functools
import math

import torch

from inference import annealing
from model import bce, log_normal
from studies import common
from support.data.datasets import pixels
from support.latent import likelihood
from support.run.config import Config
from support.seeds import generator

RECIPE = Config(epochs=10, batch_size=256, lr=2e-3, schedule="onecycle")
SETTINGS = ("latent_dim", "epochs", "batch_size", "lr", "schedule")
IMAGES = {2: 500, 3: 200, 10: 50, 40: 50}  # test images, by latents
QUICK_IMAGES = 10
SAMPLES = (10, 50, 500)  # per image
CHAINS = 8
TEMPERATURES = 500
CHUNK = 50  # images at a time
DRAWS = 20  # of each image at a time
STEPS = 10  # of Fisher scoring to the peak of p(z|x)
STEP_SIZES = (1.0, 0.5, 0.25, 0.1, 0.0)
REFERENCE_SEED, SAMPLING_SEED = 1, 2
WRONG = 1.0  # nats


def main():
    flags = common.parse(__doc__)
    common.load_dataset(flags)  # missing data are noticed here, once
    configs = {d: common.DOCUMENTED if d == 2 else dataclasses.replace(RECIPE, latent_dim=d) for d in IMAGES}
    runs = {f"{d} latents": common.complete(config, flags, SETTINGS) for d, config in configs.items()}
    tables = common.in_parallel(functools.partial(measure, flags=flags), runs)
    rows = [row for table in tables for row in table]
    common.report(flags.results_dir / "estimators.csv", rows)


@torch.no_grad()
def measure(config, flags):
    """The rows of estimators.csv of a run, trained or found done."""
    _, model = common.train_run(config)
    images = common.load_dataset(flags).test_images
    n = QUICK_IMAGES if flags.quick else IMAGES[config.latent_dim]
    images = images[:: len(images) // n][:n]
    truth = reference(model, images)
    rows = []
    for k in SAMPLES[:1] if flags.quick else SAMPLES:
        for name, estimator in ESTIMATORS.items():
            estimate = estimator(model, images, k)
            error = (estimate.log_p - truth).double()
            rows.append(
                {
                    "latents": config.latent_dim,
                    "k": k,
                    "proposal": name,
                    "error": error.mean().item(),
                    "standard error": error.std().item() / n**0.5,
                    "over a nat too low": (error < -WRONG).double().mean().item(),
                    "ess": estimate.ess.median().item(),
                    "unsure": (estimate.ess < likelihood.FEW_SAMPLES).double().mean().item(),
                    "log_p": truth.double().mean().item(),
                }
            )
    return rows


def reference(model, images):
    """log p(x), (N,): by quadrature, or by annealing from the encoder's Gaussian and from a wider one."""
    if model.latent_dim <= 3:
        return likelihood.quadrature(model, images)
    x = pixels(images)
    mu, logvar = model.encode(x)
    starts = [(mu, logvar + 2 * math.log(factor)) for factor in (1, 1.5)]
    source = generator(REFERENCE_SEED)
    runs = [annealing.log_p(model, x, start, CHAINS, TEMPERATURES, source) for start in starts]
    return torch.stack(runs).logsumexp(0) - math.log(len(runs))


def encoder(factor, model, images, k):
    """The Estimate with the encoder's Gaussian, its deviations times a factor."""
    return likelihood.importance_sampling(model, likelihood.Proposal(factor), images, k, generator(SAMPLING_SEED))


def default(model, images, k):
    """The Estimate that a run prints; with two latents it would be quadrature, so the dimension is not asked."""
    proposal = likelihood.fit_proposal(model, images, k)
    return likelihood.importance_sampling(model, proposal, images, k, generator(SAMPLING_SEED))


def mixture(gaussians, model, images, k):
    """The Estimate with equal shares of some Gaussians.

    Args:
        gaussians: a function from the model and x (N, 784) to pairs of mean (N, latent_dim) and a factor C of the
            covariance C C^T, (N, latent_dim, latent_dim).
    """
    source = generator(SAMPLING_SEED)
    parts = [
        weigh_draws(model, pixels(chunk), gaussians(model, pixels(chunk)), k, source) for chunk in images.split(CHUNK)
    ]
    log_weights = torch.cat(parts, 1)
    log_p = log_weights.logsumexp(0) - math.log(len(log_weights))
    return likelihood.Estimate(log_p, k, likelihood.effective_sample_size(log_weights))


def weigh_draws(model, x, gaussians, k, source):
    """log p(x, z) - log q(z) of k draws from each image's mixture, (K, N), K = k rounded to equal shares."""
    n = max(1, k // len(gaussians))
    eps = torch.randn(len(gaussians), n, *gaussians[0][0].shape, generator=source)
    z = torch.cat([mean + apply(factor, e) for (mean, factor), e in zip(gaussians, eps, strict=True)])
    log_q = torch.stack([log_density(z, *gaussian) for gaussian in gaussians]).logsumexp(0) - math.log(len(gaussians))
    log_p = [-bce(model.decode(part), x.expand(len(part), *x.shape)) for part in z.split(DRAWS)]
    return torch.cat(log_p) + model.prior.log_prob(z) - log_q


def apply(factor, vectors):
    """The product of matrices (N, D, D) and vectors (K, N, D)."""
    return (factor @ vectors.unsqueeze(-1)).squeeze(-1)


def log_density(z, mean, factor):
    """log N(z; mean, C C^T), (K, N), for z (K, N, D) and lower triangular C (N, D, D)."""
    white = torch.linalg.solve_triangular(factor, (z - mean).unsqueeze(-1), upper=False).squeeze(-1)
    zeros = torch.zeros_like(white)
    return log_normal(white, zeros, zeros) - factor.diagonal(dim1=1, dim2=2).log().sum(1)


def five_shares(model, x):
    """The encoder's Gaussian with 1, 2, 4 and 8 times its deviations, and the prior."""
    mu, logvar = model.encode(x)
    wide = [(mu, torch.diag_embed(factor * torch.exp(0.5 * logvar))) for factor in (1, 2, 4, 8)]
    return [*wide, (torch.zeros_like(mu), torch.diag_embed(torch.ones_like(mu)))]


def laplace(model, x):
    """The Gaussian at the peak of p(z|x) that Fisher scoring finds from the encoder's mean.

    Its precision is I + J^T diag(s (1 - s)) J, with J the Jacobian of the logits and s their sigmoid: for N(0, I) only.
    """
    z, _ = model.encode(x)
    jacobian = torch.func.vmap(torch.func.jacfwd(model.decode))
    for step in range(STEPS + 1):
        slopes, ink = jacobian(z), model.decode(z).sigmoid()
        precision = torch.eye(z.shape[1]) + slopes.mT @ (slopes * (ink * (1 - ink)).unsqueeze(2))
        if step == STEPS:
            return [(z, torch.linalg.cholesky(torch.linalg.inv(precision)))]
        gradient = ((x - ink).unsqueeze(1) @ slopes).squeeze(1) - z
        move = torch.linalg.solve(precision, gradient)
        tried = z + torch.tensor(STEP_SIZES).view(-1, 1, 1) * move
        log_joint = model.prior.log_prob(tried) - bce(model.decode(tried), x.expand(len(tried), *x.shape))
        z = tried[log_joint.argmax(0), torch.arange(len(z))]


def laplace_and_encoder(model, x):
    """Both, in equal shares."""
    mu, logvar = model.encode(x)
    return [*laplace(model, x), (mu, torch.diag_embed(torch.exp(0.5 * logvar)))]


ESTIMATORS = {
    "q": functools.partial(encoder, 1.0),
    "q, sigma x 1.5": functools.partial(encoder, 1.5),
    "q, sigma x 3": functools.partial(encoder, 3.0),
    "q with sigma x 1, 2, 4, 8, and the prior": functools.partial(mixture, five_shares),
    "Laplace": functools.partial(mixture, laplace),
    "Laplace and q": functools.partial(mixture, laplace_and_encoder),
    "the default": default,
}

if __name__ == "__main__":
    common.run_study(main)
