"""Seeded random numbers: every draw follows from integers, so nothing random needs to be saved."""

import numpy as np
import torch

EVALUATION_SEED = 0  # not a flag: every reported figure uses the same noise


def seed_of(*seeds):
    """One seed that follows from the integers `seeds`."""
    return int(np.random.SeedSequence(seeds).generate_state(1, np.uint64)[0])


def generator(*seeds):
    """A CPU generator whose numbers follow from the integers `seeds`."""
    return torch.Generator().manual_seed(seed_of(*seeds))


def epoch_noise(seed, epoch, n, latent_dim):
    """The order (n,) and the noise eps ~ N(0, I) (n, latent_dim) with which an epoch visits n images."""
    source = generator(seed, epoch)
    order = torch.randperm(n, generator=source)
    eps = torch.randn(n, latent_dim, generator=source)
    return order, eps
