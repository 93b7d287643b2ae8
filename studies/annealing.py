"""log p(x) by annealed importance sampling (Neal, 2001): a slow reference for many latents. Used by estimators.py.

Wu et al. (2017, arXiv:1611.04273) evaluate decoders in this way.
"""

import math
from itertools import pairwise
from typing import NamedTuple

import torch

from model import bce, log_normal

LEAPS = 4  # leapfrog steps per trajectory of Hamiltonian Monte Carlo
ENDS = 4  # the temperatures are a sigmoid from -ENDS to ENDS, dense at both ends
FIRST_STEP = 0.3  # of a trajectory, in standard deviations of q
ACCEPTED = 0.7  # the share of trajectories at which the size of the steps aims


class Point(NamedTuple):
    """Where C chains of N images are, and both log densities there with their gradients."""

    z: torch.Tensor  # (C, N, latent_dim)
    log_q: torch.Tensor  # (C, N)
    log_joint: torch.Tensor  # (C, N), log p(x, z)
    gradient_q: torch.Tensor  # (C, N, latent_dim)
    gradient_joint: torch.Tensor

    def log_density(self, b):
        """log of q(z)^(1 - b) p(x, z)^b, (C, N)."""
        return torch.lerp(self.log_q, self.log_joint, b)

    def gradient(self, b):
        """The gradient of `log_density` in z."""
        return torch.lerp(self.gradient_q, self.gradient_joint, b)


def log_p(model, x, proposal, chains, temperatures, source):
    """log p(x) by chains that move from a Gaussian q(z) to p(z|x), one trajectory per temperature b.

    The expectation of the weights is p(x) with any number of temperatures, so that of the result is at most log p(x).

    Args:
        x: (N, 784), pixels in [0, 1].
        proposal: mean and log variance of q, (N, latent_dim) each. Its deviations are the unit of the steps.
        source: a torch.Generator on the CPU.

    Returns: (N,), nats per image.
    """
    mu, logvar = proposal
    sigma = torch.exp(0.5 * logvar)
    point = evaluate(model, x, proposal, mu + sigma * torch.randn(chains, *mu.shape, generator=source))
    size = torch.full((len(x), 1), FIRST_STEP)
    log_weights = torch.zeros(chains, len(x))
    schedule = torch.linspace(-ENDS, ENDS, temperatures + 1).sigmoid()
    schedule = (schedule - schedule[0]) / (schedule[-1] - schedule[0])
    for before, b in pairwise(schedule.tolist()):
        log_weights += (b - before) * (point.log_joint - point.log_q)
        momentum = torch.randn(point.z.shape, generator=source)
        end, end_momentum = point, momentum
        for _ in range(LEAPS):
            half = end_momentum + 0.5 * size * sigma * end.gradient(b)
            end = evaluate(model, x, proposal, end.z + size * sigma * half)
            end_momentum = half + 0.5 * size * sigma * end.gradient(b)
        gain = end.log_density(b) - point.log_density(b)
        gain += 0.5 * (momentum.square() - end_momentum.square()).sum(-1)
        accepted = torch.rand(gain.shape, generator=source).log() < gain
        point = Point(*(torch.where(match(accepted, new), new, old) for new, old in zip(end, point, strict=True)))
        size *= torch.where(accepted.float().mean(0) > ACCEPTED, 1.05, 0.95).unsqueeze(1)
    return log_weights.logsumexp(0) - math.log(chains)


def match(accepted, values):
    """accepted (C, N) with a last axis if the values have one."""
    return accepted.unsqueeze(-1) if values.dim() == 3 else accepted


@torch.enable_grad()
def evaluate(model, x, proposal, z):
    """The Point at z (C, N, latent_dim)."""
    z = z.detach().requires_grad_()
    log_q = log_normal(z, *proposal)
    log_joint = model.prior.log_prob(z) - bce(model.decode(z), x.expand(len(z), *x.shape))
    gradients = [torch.autograd.grad(values.sum(), z)[0] for values in (log_q, log_joint)]
    return Point(z.detach(), log_q.detach(), log_joint.detach(), *gradients)
