"""The latent frames: which two coordinates they show, and axes that stay. Skip it on a first reading.

The axes of a frame fit its epoch. If training has moved the means farther out, the frames of earlier epochs are drawn
anew at the end, from points kept in a file beside each, and all frames of a run share their axes.
"""

import contextlib
import io

import numpy as np
import torch

import utils
from pictures.titles import headline
from support.run import files, storage
from variants.priors import moments

NARROWEST = 4
HALF = 65504.0  # float16's largest number


def shown(run, test):
    """What a latent frame shows of an `Evaluation`: z and mu, (2, N, 1) or (2, N, 2).

    They are standardised if the prior is learned. Three latents or more are shown by their principal plane.
    """
    mean, deviation = moments(run.model.prior)
    z, mu = ((points - mean) / deviation for points in (test.z, test.mu))
    if run.config.latent_dim > 2:
        centre, axes = steady_plane(run, mu)
        z, mu = ((points - centre) @ axes.T for points in (z, mu))
    return torch.stack([z, mu]).numpy()


def draw(run, points, row, limit):
    """The latent frame of an epoch as a PNG: its points, from `shown`, on axes from -limit to limit."""
    axis = "z" if run.config.prior == "normal" else "standardised z"
    plane = ("principal plane, axis 1", "principal plane, axis 2")
    names = {1: (axis,), 2: (f"{axis} 1", f"{axis} 2")}.get(run.config.latent_dim, plane)
    title = headline(run, row) + (f", axes to ±{limit}" if limit > NARROWEST else "")
    return utils.latent_frame(points, run.dataset.test_labels.cpu().numpy(), run.dataset.classes, title, names, limit)


def limit_of(points):
    """Where the axes of a frame end: at 4, or at the next doubling that holds nine tenths of the means."""
    limit = NARROWEST
    while np.mean(np.abs(points[1]).max(axis=1) > limit) > 0.1:
        limit *= 2
    return limit


def share_axes(run):
    """Draw the frames anew whose axes end before the widest do: the axes of the GIF then never jump."""
    points = {row["epoch"]: load(run, row["epoch"]) for row in run.history}
    limits = {epoch: limit_of(kept) for epoch, kept in points.items() if kept is not None}
    for row in run.history:
        path = files.frame(run.config.results_dir, "latent", row["epoch"])
        if path.exists() and row["epoch"] in limits and limits[row["epoch"]] < max(limits.values()):
            storage.try_write(path, draw(run, points[row["epoch"]], row, max(limits.values())))


def packed(points):
    """The bytes of the file in which a frame's points are kept, as float16."""
    buffer = io.BytesIO()
    np.savez(buffer, points=np.clip(points, -HALF, HALF).astype(np.float16))
    return buffer.getvalue()


def load(run, epoch):
    """The points of an epoch's frame, (2, N, 1) or (2, N, 2), or None if there is no file of this dataset's."""
    try:
        with np.load(files.frame(run.config.results_dir, "latent", epoch, ".npz")) as arrays:
            points = arrays["points"]
    except Exception:  # what a missing or damaged file makes NumPy raise is no closed list
        return None
    fits = points.shape == (2, len(run.dataset.test_labels), min(run.config.latent_dim, 2))
    return points if fits and np.isfinite(points).all() else None


def steady_plane(run, mu):
    """`principal_plane` of the last epoch's means, mu (N, D), its axes turned towards those of the epoch before.

    They are kept in a file, so that those of the next epoch agree with them, also in a continued run.
    """
    centre, axes = principal_plane(mu)
    paths = [files.frame(run.config.results_dir, "latent", len(run.history) - ago, ".npy") for ago in (1, 0)]
    with contextlib.suppress(Exception):  # what a missing, damaged or foreign file makes NumPy raise is no closed list
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
