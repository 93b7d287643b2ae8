"""log p(x) by annealed importance sampling (Neal, 2001): a slow reference for many latents. Used by studies.estimators.

Wu et al. (2017, arXiv:1611.04273) evaluate decoders in this way.
"""

import functools
import math
from itertools import pairwise
from typing import NamedTuple

import torch

from inference import hmc
from model import bce, log_normal

LEAPS = 4  # leapfrog steps per trajectory of Hamiltonian Monte Carlo
ENDS = 4  # the temperatures are a sigmoid from -ENDS to ENDS, dense at both ends
FIRST_STEP = 0.3  # of a trajectory, in standard deviations of q
ACCEPTED = 0.7  # the share of trajectories at which the size of the steps aims


class Point(NamedTuple):
    """Where C chains of N images are: the fields of hmc.Point for q(z)^(1 - b) p(x, z)^b, and how they grow with b."""

    z: torch.Tensor  # (C, N, latent_dim)
    log_density: torch.Tensor  # (C, N)
    gradient: torch.Tensor  # (C, N, latent_dim)
    log_ratio: torch.Tensor  # (C, N), log p(x, z) - log q(z)
    ratio_gradient: torch.Tensor  # (C, N, latent_dim)

    def warmed(self, step):
        """The same place with b larger by a step."""
        log_density = self.log_density + step * self.log_ratio
        return self._replace(log_density=log_density, gradient=self.gradient + step * self.ratio_gradient)


def log_p(model, x, proposal, chains, temperatures, source):
    """log p(x) by chains that move from a Gaussian q(z) to p(z|x), one trajectory per temperature b.

    With steps of a fixed size, the expectation of the weights is p(x) for any number of temperatures, and that of the
    result is at most log p(x). Here both are only nearly so, because each image's size adapts to its own chains.

    Args:
        x: (N, 784), pixels in [0, 1].
        proposal: mean and log variance of q, (N, latent_dim) each. Its deviations are the unit of the steps.
        source: a torch.Generator on the CPU.

    Returns: (N,), nats per image.
    """
    mu, logvar = proposal
    sigma = torch.exp(0.5 * logvar)
    point = evaluate(model, x, proposal, 0, mu + sigma * torch.randn(chains, *mu.shape, generator=source))
    size = torch.full((len(x), 1), FIRST_STEP)
    log_weights = torch.zeros(chains, len(x))
    schedule = torch.linspace(-ENDS, ENDS, temperatures + 1).sigmoid()
    schedule = (schedule - schedule[0]) / (schedule[-1] - schedule[0])
    for before, b in pairwise(schedule.tolist()):
        log_weights += (b - before) * point.log_ratio
        at = functools.partial(evaluate, model, x, proposal, b)
        point, accepted = hmc.move(at, point.warmed(b - before), size * sigma, LEAPS, source)
        size *= torch.where(accepted.float().mean(0) > ACCEPTED, 1.05, 0.95).unsqueeze(1)
    return log_weights.logsumexp(0) - math.log(chains)


def evaluate(model, x, proposal, b, z):
    """The Point at z (C, N, latent_dim) for a temperature b."""
    log_q = hmc.evaluate(lambda z: log_normal(z, *proposal), z)
    log_joint = hmc.evaluate(lambda z: model.prior.log_prob(z) - bce(model.decode(z), x.expand(len(z), *x.shape)), z)
    ratio, ratio_gradient = (new - old for new, old in zip(log_joint[1:], log_q[1:], strict=True))
    return Point(z, log_q.log_density + b * ratio, log_q.gradient + b * ratio_gradient, ratio, ratio_gradient)
