"""Which pictures a run draws, with which titles; `utils` draws them. Skip it on a first reading.

`write_epoch` writes an epoch's frames and the loss curves; `write_last` the pictures of the best epoch, and the GIF.
"""

import contextlib
import io
import sys

import numpy as np
import torch

import utils
from support.data.datasets import pixels
from support.run import checkpoint, files, storage
from support.run.report import DIVERGENCES
from support.seeds import generator
from variants.priors import moments, quantiles

PRIORS = {"normal": "N(0, I)", "mixture": "the learned mixture", "vamp": "the VampPrior"}
MANIFOLDS = {
    1: "the decoder along z, in reading order",
    2: "the decoder over the latent space",
    3: "the decoder over the plane of two principal components through 0",
}
SIDE = 20  # images per row and column of the manifold
WIDEST_TITLE = 76  # letters


def write_epoch(run, result):
    """Write the pictures of an epoch."""
    folder = run.config.results_dir
    epoch = result.row["epoch"]
    title = headline(run, result.row)
    pictures = {
        files.frame(folder, "reconstruction", epoch): draw_reconstruction(run, result.test.z, title),
        files.frame(folder, "latent", epoch): draw_latents(run, result.test, title),
        folder / "loss.png": draw_losses(run),
    }
    for path, content in pictures.items():
        storage.try_write(path, content)


def write_last(run):
    """Write the pictures of the whole run and of its best epoch."""
    folder = run.config.results_dir
    model = checkpoint.load_model(folder / "best.pt")
    frames = [files.frame(folder, "latent", row["epoch"]) for row in run.history]
    frames = [path for path in frames if path.exists()]  # the user may have deleted some
    if frames:
        try:
            storage.try_write(folder / "latent.gif", utils.gif(frames))
        except OSError as error:
            (folder / "latent.gif").unlink(missing_ok=True)  # the same command makes one again
            print(f"WARNING: {error.filename}: {error.strerror}; delete it, and repeat the command", file=sys.stderr)
    which = f"{run.dataset.title}, best epoch {checkpoint.best_of(run.history)['epoch']}"
    storage.try_write(folder / "manifold.png", draw_manifold(model, run.dataset, which))
    images = model.sample(64, generator(run.config.seed)).numpy()
    title = titled(which, f"decoded draws of z ~ {PRIORS[run.config.prior]}")
    storage.try_write(folder / "samples.png", utils.image_grid(ink(run.dataset, images), 8, title))


@torch.no_grad()
def draw_reconstruction(run, z, title):
    """One test image of each class over its reconstruction from the sample z (N, latent_dim)."""
    rows = np.unique(run.dataset.test_labels.cpu().numpy(), return_index=True)[1]
    images = pixels(run.dataset.test_images[rows])
    reconstructions = run.model.decode(z[rows].to(images.device)).sigmoid()
    pair = [ink(run.dataset, values.cpu().numpy()) for values in (images, reconstructions)]
    return utils.reconstruction(*pair, title)


def draw_latents(run, test, title):
    """The latent frame, standardised if the prior is learned; of three latents or more, their principal plane."""
    mean, deviation = moments(run.model.prior)
    z, mu = ((points - mean) / deviation for points in (test.z, test.mu))
    axis = "z" if run.config.prior == "normal" else "standardised z"
    names = {1: (axis,), 2: (f"{axis} 1", f"{axis} 2")}.get(mu.shape[1])
    if names is None:
        names = ("principal plane, axis 1", "principal plane, axis 2")
        centre, axes = steady_plane(run, mu)
        z, mu = ((points - centre) @ axes.T for points in (z, mu))
    labels = run.dataset.test_labels.cpu().numpy()
    return utils.latent_frame(z.numpy(), mu.numpy(), labels, run.dataset.classes, title, names)


def draw_losses(run):
    """The loss curves so far, the best epoch marked and in the title."""
    parts = ("train", "test")
    terms = ("bce", "divergence", "total")
    losses = np.array([[[row[f"{part}_{term}"] for part in parts] for term in terms] for row in run.history])
    divergence = weighted_divergence(run.config)
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


def steady_plane(run, mu):
    """`principal_plane` of the last epoch's means, mu (N, D), its axes turned towards those of the epoch before.

    They are kept in a file, so that those of the next epoch agree with them, also in a continued run.
    """
    centre, axes = principal_plane(mu)
    paths = [files.latent_array(run.config.results_dir, len(run.history) - ago) for ago in (1, 0)]
    with contextlib.suppress(OSError, ValueError, EOFError, RuntimeError):  # none, or another run's
        axes = align(axes, torch.from_numpy(np.load(paths[0])))
    buffer = io.BytesIO()
    np.save(buffer, axes.numpy())
    storage.try_write(paths[1], buffer.getvalue())
    return centre, axes


def align(axes, before):
    """Two axes (2, D), turned or reflected within their plane to lie as close as they can to those `before`, (2, D)."""
    u, _, vh = torch.linalg.svd(before @ axes.T)  # orthogonal Procrustes
    return u @ vh @ axes


def principal_plane(mu):
    """mu (N, D): its mean (D,) and first two principal components (2, D), their largest entries positive."""
    components = torch.linalg.eigh(torch.cov(mu.T, correction=0))[1][:, [-1, -2]].T
    largest = components.abs().argmax(1)
    return mu.mean(0), components * components[[0, 1], largest].sign().unsqueeze(1)


def ink(dataset, images):
    """Images (N, 784) in [0, 1] as ink on white paper: 1 is black."""
    return images if dataset.is_ink else 1 - images


def headline(run, row, kind="epoch"):
    """A picture's title: dataset, epoch, and the losses on the test set."""
    is_kl = run.config.divergence == "kl"
    return titled(
        f"{run.dataset.title}, {kind} {row['epoch']}",
        f"BCE {row['test_bce']:.2f} + {weighted_divergence(run.config)} "
        f"{row['test_divergence']:.{2 if is_kl else 4}f} = {row['test_total']:.2f} "
        f"{'nats ' if is_kl else ''}per test image",
    )


def weighted_divergence(config):
    """What is added to BCE, as pictures call it: KLD, or 10 x MMD."""
    label = DIVERGENCES[config.divergence]
    return label if config.divergence_weight == 1 else f"{config.divergence_weight:g} x {label}"


def titled(what, text):
    """A picture's title, in two lines if one would be wider than the picture."""
    return f"{what}: {text}" if len(what) + len(text) < WIDEST_TITLE else f"{what}:\n{text}"
