"""log p(x) by a sum over a lattice, for any distribution of the pixels and up to three latents.

likelihood.quadrature refines its lattice where it counts; that is for Bernoulli pixels and one or two latents.
"""

import math

import torch

from support.data.datasets import pixels
from support.latent import likelihood

REACH = 10  # standard deviations of the prior N(0, I): without an encoder, posteriors may lie far out
CELLS_AT_A_TIME = 5000


def box(dims, cells):
    """The midpoints (G, dims) of a lattice with a number of cells per unit, from -REACH to REACH on each axis."""
    return likelihood.grid([torch.arange(-REACH + 0.5 / cells, REACH, 1 / cells)] * dims)


@torch.no_grad()
def log_p(log_joint, images, dims, cells):
    """log p(x), (N,) float64, of images (N, image_dim) uint8, whatever their pixels' distribution: a sum over `box`.

    Args:
        log_joint: from x (N, image_dim) and z (G, dims) to log p(x, z), (N, G).
    """
    x = pixels(images)
    sums = [log_joint(x, z).logsumexp(1) for z in box(dims, cells).split(CELLS_AT_A_TIME)]
    return torch.stack(sums).double().logsumexp(0) - dims * math.log(cells)
