"""results/explorer.html: the latent space of a run as one page that opens from disk, without a network."""

import base64
import io
import json
from pathlib import Path

import numpy as np
import torch
from PIL import Image

import checkpoint
import data
from errors import UserError
from model import DIVERGENCES, VAE

PARTS = Path(__file__).parent
DIGITS_A_CLASS = 200
MOST_FRAMES = 100  # of the film: a megabyte
SPRITE_COLUMNS = 50
HALF = 65504.0  # float16's largest
QUADRATURE = 9  # nodes a dimension: exact for the KL from one Gaussian, and close for a mixture


def shown(labels):
    """The rows of the test digits that the page shows: equally many of each class, always the same ones.

    Args:
        labels: (N,), 0 to 9.
    """
    rng = np.random.default_rng(0)
    classes, counts = np.unique(labels, return_counts=True)
    n = min(DIGITS_A_CLASS, counts.min())
    chosen = [rng.choice(np.flatnonzero(labels == digit), n, replace=False) for digit in classes]
    return np.sort(np.concatenate(chosen))


def frame(folder, epoch):
    """The path of an epoch's means of the digits shown."""
    return checkpoint.frame(folder, "latent", epoch).with_suffix(".npy")


def remember(folder, epoch, mu, labels):
    """Write an epoch's means, of mu (N, 2), for the page's film: float16, (digits shown, 2)."""
    buffer = io.BytesIO()
    np.save(buffer, halved(mu[shown(labels)]))
    checkpoint.write(frame(folder, epoch), buffer.getvalue())


def write(folder, config, dataset, history):
    """Write the page of a run with two latent dimensions.

    Args:
        folder: the run's, with best.pt and the means that `remember` wrote. config: its flags.
        dataset: what it was trained on. history: its epochs' figures.

    Raises:
        UserError: best.pt is not of the run's network. OSError: a file cannot be read or written.
    """
    model, best = VAE.load(folder / "best.pt"), checkpoint.best_of(history)
    differing = [flag for flag, value in model.network.items() if config.get(flag, value) != value]
    if differing:
        raise UserError(f"{folder / 'best.pt'} is of another network than config.json: its {' and '.join(differing)}")
    if not checkpoint.is_of(folder / "best.pt", best):
        raise UserError(
            f"{folder / 'best.pt'} is not of epoch {best['epoch']}, the best: let the run end, or --resume it"
        )
    if model.latent_dim != 2:
        raise UserError(f"the page needs a run of --latent_dim 2, and {folder} has {model.latent_dim} dimensions")
    rows = shown(dataset.test_labels.cpu().numpy())
    images, labels = dataset.test_images.cpu()[rows], dataset.test_labels.cpu()[rows]
    epochs = film_epochs([epoch["epoch"] for epoch in history if frame(folder, epoch["epoch"]).exists()], history)
    with torch.no_grad():
        means = model.encode(data.pixels(images))[0].numpy()
        prior = torch.cat([model.prior.components()[0], torch.exp(0.5 * model.prior.components()[1])], 1).tolist()
    divergence = DIVERGENCES[config["divergence"]]
    content = {
        "dataset": data.TITLES[dataset.name],
        "encoder": [784, *config["hidden_dims"], (2 if divergence.stochastic else 1) * 2],
        "decoder": [2, *reversed(config["hidden_dims"]), 784],
        "weights": packed(np.concatenate([p.detach().numpy().ravel() for p in network(model)])),
        "prior": prior,
        "stochastic": divergence.stochastic,
        "divergence": divergence.label,
        "divergenceWeight": config["divergence_weight"],
        "quadrature": np.transpose(np.polynomial.hermite.hermgauss(QUADRATURE)).tolist(),
        "labels": labels.tolist(),
        "sprite": sprite(images.numpy()),
        "means": packed(means),
        "film": {"epochs": epochs, "means": packed(film(folder, epochs, len(rows)))},
        "losses": [[epoch[f"test_{name}"] for name in ("bce", "divergence", "total")] for epoch in history],
        "best": best["epoch"],
    }
    checkpoint.write(folder / "explorer.html", page(content).encode())


def network(model):
    """The parameters of encoder and decoder, each layer's weight (out, in) before its bias."""
    return [*model.encoder.parameters(), *model.decoder.parameters()]


def film(folder, epochs, n):
    """The means of n digits in some epochs, (epochs, n, 2). Raises UserError if a file holds anything else."""
    means = np.empty((len(epochs), n, 2), np.float16)
    for i, epoch in enumerate(epochs):
        path = frame(folder, epoch)
        try:
            loaded = np.load(path)
            if loaded.shape != (n, 2):
                raise ValueError(f"of shape {loaded.shape}")
            means[i] = loaded
        except OSError:
            raise
        except Exception as error:  # what a damaged header makes numpy raise is no closed list
            raise UserError(f"{path} is damaged: delete it, and the film goes without this epoch") from error
    return means


def film_epochs(epochs, history):
    """At most 100 of the epochs, evenly spaced, the first, the best and the last of them included."""
    if len(epochs) > MOST_FRAMES:
        evenly = {epochs[i] for i in np.linspace(0, len(epochs) - 1, MOST_FRAMES - 1).round().astype(int)}
        epochs = sorted(evenly | {checkpoint.best_of(history)["epoch"]} & set(epochs))
    return epochs


def halved(values):
    """Values as little-endian float16; those that it cannot hold, as the largest that it can."""
    return np.clip(values, -HALF, HALF).astype("<f2")


def packed(values):
    """Values in base64 as little-endian float16."""
    return base64.b64encode(halved(values).tobytes()).decode()


def sprite(images):
    """uint8 images (N, 784) in rows of 50, as the data URI of a PNG."""
    rows = -(-len(images) // SPRITE_COLUMNS)
    sheet = np.zeros((rows * SPRITE_COLUMNS, 28, 28), np.uint8)
    sheet[: len(images)] = images.reshape(-1, 28, 28)
    sheet = sheet.reshape(rows, SPRITE_COLUMNS, 28, 28).transpose(0, 2, 1, 3).reshape(28 * rows, 28 * SPRITE_COLUMNS)
    buffer = io.BytesIO()
    Image.fromarray(sheet).save(buffer, "PNG", compress_level=6)
    return "data:image/png;base64," + base64.b64encode(buffer.getvalue()).decode()


def page(content):
    """The page's HTML: the template with its style, its scripts and a run's content in place."""
    html = (PARTS / "page.html").read_text()
    for mark, text in (
        ("{{style}}", (PARTS / "page.css").read_text()),
        ("{{network}}", (PARTS / "network.js").read_text()),
        ("{{script}}", (PARTS / "page.js").read_text()),
        ("{{content}}", json.dumps(content, separators=(",", ":"))),
    ):
        html = html.replace(mark, text)
    return html
