"""Hamiltonian Monte Carlo (Neal, 2011) for many chains at once. Used by annealing and studies.marginal."""

from typing import NamedTuple

import torch

FIRST_STEP = 0.1
TUNING = 0.1  # after a trajectory, the logarithm of the step size moves by this times (acceptance - target)


class Point(NamedTuple):
    """Where chains are, the log density there, and its gradient."""

    z: torch.Tensor  # (..., latent_dim)
    log_density: torch.Tensor  # (...)
    gradient: torch.Tensor  # (..., latent_dim)


@torch.enable_grad()
def evaluate(log_density, z):
    """The Point at z, for a function from z (..., latent_dim) to its log density (...)."""
    z = z.detach().requires_grad_()
    values = log_density(z)
    (gradient,) = torch.autograd.grad(values.sum(), z)
    return Point(z.detach(), values.detach(), gradient)


def move(at, point, size, leaps, source):
    """One trajectory of each chain, which a Metropolis test accepts or not.

    Args:
        at: from z to the Point there, or to a NamedTuple that has its fields first.
        point: where the chains are, of the same type.
        size: of the leapfrog steps; it broadcasts to z.
        source: a torch.Generator on the CPU.

    Returns: where the chains are then, and which trajectories were accepted.
    """
    momentum = torch.randn(point.z.shape, generator=source)
    end, end_momentum = point, momentum
    for _ in range(leaps):
        half = end_momentum + 0.5 * size * end.gradient
        end = at(end.z + size * half)
        end_momentum = half + 0.5 * size * end.gradient
    gain = end.log_density - point.log_density
    gain += 0.5 * (momentum.square() - end_momentum.square()).sum(-1)
    accepted = torch.rand(gain.shape, generator=source).log() < gain
    fields = zip(end, point, strict=True)
    return type(point)(*(torch.where(with_last_axis(accepted, new), new, old) for new, old in fields)), accepted


def with_last_axis(accepted, values):
    """accepted (...) with a last axis if the values have one."""
    return accepted.unsqueeze(-1) if values.dim() > accepted.dim() else accepted


def tune(size, accepted, target):
    """The step size (N, 1) of N chains, or (1, 1) of all of them, moved towards the target share of acceptance."""
    share = accepted.float().unsqueeze(1)
    return size * torch.exp(TUNING * (share if len(size) > 1 else share.mean(0, keepdim=True)) - TUNING * target)


class Plan(NamedTuple):
    """How chains run: leapfrog steps per trajectory, trajectories in which the step is tuned, and acceptance."""

    leaps: int = 4
    burn_in: int = 100
    target: float = 0.9
    has_own_steps: bool = False  # a step size for each chain, not one for all


def sample(log_density, z, n, plan, source):
    """n draws of each of N chains that start at z (N, latent_dim), after the burn-in.

    Returns: a Point of tensors (n, N, ...), and each chain's share of accepted trajectories, (N,).
    """
    point = evaluate(log_density, z)
    size = torch.full((len(z) if plan.has_own_steps else 1, 1), FIRST_STEP)
    points, shares = [], torch.zeros(len(z))
    for trajectory in range(-plan.burn_in, n):
        point, accepted = move(lambda z: evaluate(log_density, z), point, size, plan.leaps, source)
        if trajectory < 0:
            size = tune(size, accepted, plan.target)
        else:
            points.append(point)
            shares += accepted / n
    return Point(*map(torch.stack, zip(*points, strict=True))), shares
