"""Frey Face, and a VAE with Gaussian pixels: what the paper's figures need besides MNIST. Used by paper and film.

The pixels are densities on [0, 1], so that the nats of a bound are positive.
"""

import math
import zlib
from pathlib import Path

import torch
from torch import nn

from model import VAE
from pictures import SIDE, manifold_grid
from studies import common
from support.data.datasets import Dataset, pixels
from support.errors import UserError, load_package
from support.latent import likelihood
from support.seeds import generator

FILE = "frey_rawface.mat"
SHAPE = (28, 20)
FRAMES = 1965
FOLDS = 5
SPLIT_SEED = 1
CELLS = 20  # per standard deviation of the prior and axis, of the quadrature
CELLS_AT_A_TIME = 4096
DRAWS = 50  # of each model


def load(flags, split, fold=FOLDS - 1):
    """The frames as a Dataset with one fold of FOLDS held out. --quick: the upper 20 rows of scikit-learn's digits.

    Args:
        split: "film": a fold is a stretch of the film; "random": its frames are drawn.
    """
    images = common.load_dataset(flags).train_images[:, : math.prod(SHAPE)] if flags.quick else read(flags.data_dir)
    n = len(images)
    order = torch.arange(n) if split == "film" else torch.randperm(n, generator=generator(SPLIT_SEED))
    held_out = torch.zeros(n, dtype=torch.bool)
    held_out[order[fold * n // FOLDS : (fold + 1) * n // FOLDS]] = True
    train_images, test_images = images[~held_out], images[held_out]
    labels = [torch.zeros(len(part), dtype=torch.int64) for part in (train_images, test_images)]
    return Dataset("frey_face", train_images, labels[0], test_images, labels[1], ("face",))


def read(data_dir):
    """The frames in the film's order, (1965, 560) uint8.

    Raises:
        UserError: the file is missing, or is not what its name says.
    """
    paths = [Path(data_dir) / FILE, Path(data_dir) / "FreyFace" / FILE]
    found = [path for path in paths if path.exists()]
    source = f"{FILE} is on Sam Roweis' page, cs.nyu.edu/~roweis/data.html: put it into --data_dir or its FreyFace/"
    if not found:
        raise UserError(f"{paths[1]} is not there: {source}")
    scipy = load_package("scipy.io")
    try:
        frames = scipy.loadmat(found[0])["ff"]
    except (
        OSError,
        KeyError,
        ValueError,
        TypeError,
        NotImplementedError,
        zlib.error,
        scipy.matlab.MatReadError,
    ) as error:
        raise UserError(f"{found[0]} holds no array ff that can be read ({type(error).__name__}): {source}") from error
    size = math.prod(SHAPE)
    if frames.shape != (size, FRAMES) or frames.dtype != "uint8":
        raise UserError(f"{found[0]}: ff is {frames.dtype} {frames.shape}, not uint8 ({size}, {FRAMES}): {source}")
    return torch.from_numpy(frames.T.copy())


class GaussianVAE(VAE):
    """A VAE whose p(x|z) is a Gaussian per pixel, with means in (0, 1) by a sigmoid (appendix C.2).

    Args:
        variance: "image": another output of the decoder for each pixel; "pixel": one per pixel, the same for all
            images; "shared": one for all pixels.
        floor: the least standard deviation.
    """

    def __init__(self, latent_dim, hidden_dim, image_dim, variance="image", floor=0.0):
        super().__init__(latent_dim, (hidden_dim,), image_dim)
        self.floor = floor
        self.variance = nn.Linear(hidden_dim, image_dim) if variance == "image" else None
        self.free_variance = nn.Parameter(torch.zeros({"image": 0, "pixel": image_dim, "shared": 1}[variance]))

    def decode_both(self, z):
        """The mean and log variance of each pixel: z (..., latent_dim) -> both broadcast to (..., image_dim)."""
        hidden = self.decoder[:-1](z)
        logvar = self.free_variance if self.variance is None else self.variance(hidden)
        if self.floor:
            logvar = torch.logaddexp(logvar, torch.tensor(2 * math.log(self.floor)))
        return self.decoder[-1](hidden).sigmoid(), logvar

    def energy(self, z, x):
        """-log p(x|z): z (..., latent_dim), x (..., image_dim) -> (...)."""
        mean, logvar = self.decode_both(z)
        return 0.5 * ((x - mean).square() * torch.exp(-logvar) + logvar + math.log(2 * math.pi)).sum(-1)

    def draw(self, z):
        """A draw of p(x|z)."""
        mean, logvar = self.decode_both(z)
        return mean + torch.exp(0.5 * logvar) * torch.randn_like(mean)

    def forward(self, x, eps):
        """What `VAE.forward` returns, for Gaussian pixels."""
        mu, logvar = self.encode(x)
        z = self.reparameterize(mu, logvar, eps)
        return self.energy(z, x), self.prior.kl(mu, logvar, z), z, mu

    def log_likelihoods(self, z, x):
        """log p(x|z) of every image with every z: z (G, latent_dim) and x (N, image_dim) -> (N, G)."""
        mean, logvar = self.decode_both(z)
        centre = x.mean(0)  # the squares below cancel, and float32 keeps more of small ones
        x, mean, precision = x - centre, mean - centre, torch.exp(-logvar).expand_as(mean)
        constant = (mean.square() * precision + logvar + math.log(2 * math.pi)).sum(1)
        return (x @ (mean * precision).T) - 0.5 * (x.square() @ precision.T + constant)


@torch.no_grad()
def log_p(model, images, cells=CELLS):
    """log p(x), (N,), of images (N, 560) uint8 by a GaussianVAE with two latents: a sum over the cells of a lattice."""
    lattice = likelihood.lattice(model, cells)
    parts = zip(lattice.z.split(CELLS_AT_A_TIME), lattice.log_mass.split(CELLS_AT_A_TIME), strict=True)
    x = pixels(images)
    return torch.stack([(model.log_likelihoods(z, x) + mass).logsumexp(1) for z, mass in parts]).logsumexp(0)


@torch.no_grad()
def draw_faces(models):
    """The paper's Figures 4 and 5: the manifold of the first model, which has two latents, and draws of all of them."""
    figure = common.new_figure(1230, 420)
    panels = figure.subplots(1, 1 + len(models), width_ratios=(2, *[1] * len(models)))
    manifold = models[0].decode(manifold_grid(models[0].prior, torch.zeros(1, 2))).sigmoid()
    for axes, model in zip(panels, [None, *models], strict=True):
        faces = model.sample(DRAWS, generator(common.DRAWS_SEED)) if model else manifold
        common.show_images(axes, faces.view(-1, 5 if model else SIDE, *SHAPE))
        axes.set_title(f"draws, {model.latent_dim}-D" if model else "the manifold, 2-D", fontsize=11)
    return figure
