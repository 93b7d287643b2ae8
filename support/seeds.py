"""Seeded random numbers: every draw follows from integers, so nothing random needs to be saved."""

import numpy as np
import torch

from support.machine.processes import rank

EVALUATION_SEED = 0  # not a flag: every reported figure uses the same noise


def seed_of(*seeds):
    """One seed that follows from the integers `seeds`."""
    return int(np.random.SeedSequence(seeds).generate_state(1, np.uint64)[0])


def generator(*seeds):
    """A CPU generator whose numbers follow from the integers `seeds`."""
    return torch.Generator().manual_seed(seed_of(*seeds))


def seed_dropout(*seeds):
    """Seed F.dropout, which takes no generator. Processes that train together drop different pixels."""
    torch.manual_seed(seed_of(*seeds, 1 + rank()))  # a seed followed by 0 is the seed of `generator` without it
