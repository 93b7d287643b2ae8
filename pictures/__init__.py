"""Which pictures a run draws, with which titles; `utils` draws them. Skip it on a first reading.

`write_epoch` writes an epoch's frames and the loss curves; `write_last` the pictures of the best epoch, and the GIF.
"""

import sys

import numpy as np
import torch

import utils
from pictures import latents
from pictures.latents import principal_plane
from pictures.titles import headline, titled, weighted_divergence
from support.data.datasets import pixels
from support.run import checkpoint, files, storage
from support.seeds import generator
from variants import DIVERGENCES
from variants.priors import quantiles

PRIORS = {"normal": "N(0, I)", "mixture": "the learned mixture", "vamp": "the VampPrior"}
MANIFOLDS = {
    1: "the decoder along z, in reading order",
    2: "the decoder over the latent space",
    3: "the decoder over the plane of two principal components through 0",
}
SIDE = 20  # images per row and column of the manifold


def write_epoch(run, result):
    """Write the pictures of an epoch."""
    folder = run.config.results_dir
    epoch = result.row["epoch"]
    points = latents.shown(run, result.test)
    pictures = {
        files.frame(folder, "reconstruction", epoch): draw_reconstruction(run, result),
        files.frame(folder, "latent", epoch): latents.draw(run, points, result.row, latents.limit_of(points)),
        files.frame(folder, "latent", epoch, ".npz"): latents.packed(points),
        folder / "loss.png": draw_losses(run),
    }
    for path, content in pictures.items():
        storage.try_write(path, content)


def write_last(run):
    """Write the pictures of the whole run and of its best epoch."""
    folder = run.config.results_dir
    model = checkpoint.load_model(folder / "best.pt")
    latents.share_axes(run)
    frames = [files.frame(folder, "latent", row["epoch"]) for row in run.history]
    frames = [path for path in frames if path.exists()]  # the user may have deleted some
    if frames:
        try:
            storage.try_write(folder / "latent.gif", utils.gif(frames))
        except OSError as error:
            files.remove([folder / "latent.gif"])  # the same command makes one again
            print(f"WARNING: {error.filename}: {error.strerror}; delete it, and repeat the command", file=sys.stderr)
    which = f"{run.dataset.title}, best epoch {checkpoint.best_of(run.history)['epoch']}"
    storage.try_write(folder / "manifold.png", draw_manifold(model, run.dataset, which))
    images = model.sample(64, generator(run.config.seed)).numpy()
    title = titled(which, f"decoded draws of z ~ {PRIORS[run.config.prior]}")
    storage.try_write(folder / "samples.png", utils.image_grid(ink(run.dataset, images), 8, title))


@torch.no_grad()
def draw_reconstruction(run, result):
    """One test image of each class over its reconstruction from its sample z."""
    rows = np.unique(run.dataset.test_labels.cpu().numpy(), return_index=True)[1]
    images = pixels(run.dataset.test_images[rows])
    reconstructions = run.model.decode(result.test.z[rows].to(images.device)).sigmoid()
    pair = [ink(run.dataset, values.cpu().numpy()) for values in (images, reconstructions)]
    return utils.reconstruction(*pair, headline(run, result.row))


def draw_losses(run):
    """The loss curves so far, the best epoch marked and in the title."""
    parts = ("train", "test")
    terms = ("bce", "divergence", "total")
    losses = np.array([[[row[f"{part}_{term}"] for part in parts] for term in terms] for row in run.history])
    divergence = weighted_divergence(run.config, run.config.divergence_weight)
    is_bound = divergence == "KLD"
    total = f"total = BCE + {divergence}{' = -ELBO' if is_bound else ''}"
    title = headline(run, checkpoint.best_of(run.history), "best epoch")
    return utils.loss_curves(losses, run.config.epochs, ("BCE", DIVERGENCES[run.config.divergence], total), title)


@torch.no_grad()
def draw_manifold(model, dataset, which):
    """The decoder over the latent space (the paper's Figure 4)."""
    mu = model.encode(pixels(dataset.test_images.cpu()))[0]
    z = manifold_grid(model.prior, mu)
    images = model.decode(z).sigmoid().numpy()
    title = f"{which}: {MANIFOLDS[min(model.latent_dim, 3)]}"
    return utils.image_grid(ink(dataset, images), SIDE, title)


@torch.no_grad()
def manifold_grid(prior, mu):
    """The latents (SIDE^2, latent_dim) of Figure 4: a grid over the unit square through the prior's inverse CDF.

    A single latent dimension is walked through in reading order. Of more than two, the plane through the origin along
    the first two principal components of mu (N, latent_dim) is shown, as N(0, I) would fill it.
    """
    if mu.shape[1] == 1:
        return quantiles(prior, (torch.arange(SIDE**2) + 0.5).unsqueeze(1) / SIDE**2)
    u = (torch.arange(SIDE) + 0.5) / SIDE
    square = torch.cartesian_prod(1 - u, u).flip(1)  # the first coordinate grows to the right, the second upwards
    if mu.shape[1] == 2:
        return quantiles(prior, square)
    return torch.special.ndtri(square) @ principal_plane(mu)[1]


def ink(dataset, images):
    """Images (N, 784) in [0, 1] as ink on white paper: 1 is black."""
    return images if dataset.is_ink else 1 - images
