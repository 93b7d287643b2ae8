"""explorer.html: the latent space of a run as one page that opens from disk, without a network.

Skip it on a first reading: training does not need it. `save_means` keeps the latent means after each epoch, for the
page's film; `write` puts them, test images and the best weights into one HTML file.
"""

from support.machine.environment import require_packages

require_packages()

import base64
import io
import json
import sys
import zlib
from pathlib import Path

import numpy as np
import torch

from support.data.datasets import pixels
from support.errors import UserError, naming
from support.latent import likelihood
from support.run import checkpoint, files, storage
from support.seeds import EVALUATION_SEED, generator

PAGE = Path(__file__).parent / "page"
SCRIPTS = (  # in the order they are joined: each one uses only those before it
    *("state", "network", "content", "schedule", "dom", "figures", "theme", "canvas", "images", "view", "map"),
    *("lattice", "quadrature", "heatmap", "backdrop", "points", "film", "losses", "decoded", "selection", "posterior"),
    *("gap", "equation", "centring", "pad", "interpolation", "input", "epsilon", "layers", "tour", "link", "welcome"),
    "start",
)
DIGITS_PER_CLASS = 200
MOST_FRAMES = 100  # of the film: about a megabyte
CANDIDATES = 200  # for the image that a visitor sees first
DRAWS = 16
HALF = 65504.0  # float16's largest number


def save_means(run, result):
    """Write an epoch's means of the digits on the page, (digits, 2). Only two latent dimensions have a page."""
    if run.config.latent_dim != 2:
        return
    rows = shown(run.dataset.test_labels.cpu().numpy())
    buffer = io.BytesIO()
    np.save(buffer, halved(result.test.mu.numpy()[rows]))
    storage.try_write(files.frame(run.config.results_dir, "latent", result.row["epoch"], ".npy"), buffer.getvalue())


def write(config, dataset, history):
    """Write the page of a run at its end. Only two latent dimensions have one. See `page_of`, which may fail."""
    if config.latent_dim == 2:
        storage.try_write(config.results_dir / "explorer.html", page_of(config, dataset, history))


def page_of(config, dataset, history):
    """The page of a run of two latent dimensions, as bytes, from its best.pt and what `save_means` wrote.

    Args:
        config: the run's settings; its results_dir is where the files are.
        dataset: what it was trained on.
        history: the rows of its epochs.

    Raises:
        UserError: best.pt is damaged or of another run.
        OSError: a file cannot be read.
    """
    folder = config.results_dir
    model = load_best(config, history)
    rows = shown(dataset.test_labels.cpu().numpy())
    images = dataset.test_images.cpu()[rows]
    epochs = film_epochs(
        [row["epoch"] for row in history if files.frame(folder, "latent", row["epoch"], ".npy").exists()], history
    )
    frames = film(folder, epochs, len(rows))
    with torch.no_grad():
        means = model.encode(pixels(images))[0].numpy()
        mu, logvar = model.prior.components()
        prior = torch.cat([mu, torch.exp(0.5 * logvar)], 1).tolist()
    content = {
        "dataset": dataset.title,
        "classes": dataset.classes,
        "ink": dataset.is_ink,
        "lightPaper": bool(dataset.train_images.cpu().numpy().mean() > 127.5),  # a drawing is dark on it
        "encoder": widths(model.encoder),
        "decoder": widths(model.decoder),
        "weights": packed(np.concatenate([p.detach().numpy().ravel() for p in network(model)])),
        "prior": prior,
        "stochastic": config.divergence == "kl",
        "divergence": "KLD" if config.divergence == "kl" else "MMD",
        "divergenceWeight": config.divergence_weight,
        "labels": dataset.test_labels.cpu()[rows].tolist(),
        "pixels": deflated(images.numpy()),
        "means": packed(means),
        "film": {"epochs": [*frames], "means": packed(np.reshape([*frames.values()], (-1, len(rows), 2)))},
        "losses": [losses(row) for row in history],
        "best": checkpoint.best_of(history)["epoch"],
        "first": first(model, images),
    }
    return page(content).encode()


@torch.no_grad()
def first(model, images):
    """The row of images (N, 784) uint8 that the page shows first, one of the first CANDIDATES.

    Of those whose KL(q(z|x) || p(z|x)) is at most the average, it is the one whose posterior mean is farthest from mu,
    so that the two distributions are seen apart. A deterministic encoder has no q(z|x); any row will do.
    """
    images = images[:CANDIDATES]
    x = pixels(images)
    mu, logvar = model.encode(x)
    if logvar is None:
        return 0
    source = generator(EVALUATION_SEED)
    draws = [model(x, torch.randn(mu.shape, generator=source))[:2] for _ in range(DRAWS)]
    elbo = -torch.stack([bce + divergence for bce, divergence in draws]).mean(0)
    lattice = likelihood.lattice(model)
    log_joint = likelihood.log_joint(model, lattice, images)
    gap = log_joint.logsumexp(1) - elbo
    distance = (log_joint.softmax(1) @ lattice.z - mu).norm(dim=1)
    return torch.where(gap <= gap.mean(), distance, -1).argmax().item()


def losses(row):
    """BCE, divergence and total of an epoch, each on the training set and on the test set: (3, 2)."""
    return [[row[f"{part}_{term}"] for part in ("train", "test")] for term in ("bce", "divergence", "total")]


def load_best(config, history):
    """The model in best.pt. Raises UserError if that is not of this run's best epoch."""
    path = config.results_dir / "best.pt"
    model = checkpoint.load_model(path)
    best = checkpoint.best_of(history)
    if checkpoint.read(path).get("row") != best:
        raise UserError(f"{path} is not of epoch {best['epoch']}, the best: run main.py with the run's flags again")
    return model


def shown(labels):
    """The rows of the test images on the page: up to 200 of each class, always the same ones.

    Args:
        labels: (N,), from 0.
    """
    rng = np.random.default_rng(0)
    classes = [np.flatnonzero(labels == label) for label in np.unique(labels)]
    chosen = [rng.choice(rows, min(DIGITS_PER_CLASS, len(rows)), replace=False) for rows in classes]
    return np.sort(np.concatenate(chosen))


def film(folder, epochs, n):
    """The means (n, 2) of n digits by epoch; a damaged frame, or one of other images, is left out, with a warning."""
    frames = {}
    for epoch in epochs:
        path = files.frame(folder, "latent", epoch, ".npy")
        with naming(path):
            content = io.BytesIO(path.read_bytes())
        try:
            frames[epoch] = np.load(content).astype(np.float32).reshape(n, 2)
        except Exception:  # what a damaged header makes NumPy raise is no closed list
            print(f"WARNING: {path} is damaged or of other images; the film leaves its epoch out", file=sys.stderr)
    return frames


def film_epochs(epochs, history):
    """At most 100 of the epochs, evenly spaced; the first, the best and the last are among them."""
    if len(epochs) > MOST_FRAMES:
        evenly = {epochs[i] for i in np.linspace(0, len(epochs) - 1, MOST_FRAMES - 1).round().astype(int)}
        epochs = sorted(evenly | ({checkpoint.best_of(history)["epoch"]} & set(epochs)))
    return epochs


def network(model):
    """The parameters of encoder and decoder, each layer's weight (out, in) before its bias."""
    return [*model.encoder.parameters(), *model.decoder.parameters()]


def widths(layers):
    """The input width of an MLP and the output width of each of its layers."""
    linear = [layer for layer in layers if hasattr(layer, "out_features")]
    return [linear[0].in_features, *(layer.out_features for layer in linear)]


def halved(values):
    """Values as little-endian float16; those beyond its range at its edge."""
    return np.clip(values, -HALF, HALF).astype("<f2")


def packed(values):
    """Values in base64 as little-endian float16."""
    return base64.b64encode(halved(values).tobytes()).decode()


def deflated(images):
    """uint8 images (N, 784) in base64, compressed by zlib. A PNG would have to be read back from a canvas."""
    return base64.b64encode(zlib.compress(images.tobytes(), 9)).decode()


def page(content):
    """The page's HTML: the template with its style, its scripts and a run's content in place."""
    html = (PAGE / "page.html").read_text(encoding="utf-8")
    style = (PAGE / "page.css").read_text(encoding="utf-8")
    script = "\n".join((PAGE / f"{name}.js").read_text(encoding="utf-8") for name in SCRIPTS)
    data = json.dumps(content, separators=(",", ":")).replace("<", "\\u003c")  # no class name can end the element
    for mark, text in (("{{style}}", style), ("{{script}}", script), ("{{content}}", data)):
        html = html.replace(mark, text)
    return html
