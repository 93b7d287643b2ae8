"""What is the number that a package calls its loss? Closed forms in float64, and which of them it is.

It prints nothing; peers.py does. The mean of BCE over q(z|x), of two latents, is by Gauss-Hermite quadrature; the KL
divergence from N(0, I) has a closed form. Nothing is shared with model.py.
"""

import itertools
from typing import NamedTuple

import numpy as np

NODES = 20  # of the quadrature per latent
ERRORS = 4  # standard errors that a mean of losses may be off
ACCURACY = 3e-4  # of float32 and of the quadrature, relative
NOISE = 5  # nats that an evaluation with one draw per image may be off
KL_FACTORS = {0: "no KL", 0.5: "half the KL", 1: "KL", 2: "twice the KL"}


class Terms(NamedTuple):
    """What a loss may be made of, one number per image, (N,) each."""

    bce: np.ndarray  # the mean over q(z|x) of -log p(x|z), Bernoulli pixels
    bce_at_mean: np.ndarray  # the same at z = mu, without noise
    squares: np.ndarray  # the mean over q(z|x) of the squared error, summed over pixels
    kl: np.ndarray

    def of(self, rows):
        """The Terms of some of the images: a slice."""
        return Terms(*(term[rows] for term in self))


class Reading(NamedTuple):
    """A way to read a loss: factor * (share * term + kl_factor * KL), with factor 1 or the size of the batch."""

    term: str
    share: float  # 1 / 784 if it is a mean over pixels
    kl_factor: float
    is_sum: bool  # over the batch

    def of(self, terms):
        """The loss of a batch, read so."""
        per_image = self.share * reconstructions(terms)[self.term] + self.kl_factor * terms.kl
        return per_image.sum() if self.is_sum else per_image.mean()

    @property
    def is_bound(self):
        """Whether minus the loss is a lower bound on the mean, or on the sum, of log p(x)."""
        return self.term == "BCE" and self.share == 1 and self.kl_factor >= 1

    @property
    def words(self):
        pixels = "" if self.share == 1 else ", mean over pixels,"
        batch = "sum" if self.is_sum else "mean"
        return f"{self.term}{pixels} + {KL_FACTORS[self.kl_factor]}; {batch} over the batch"


def reconstructions(terms):
    """The terms that stand for the reconstruction, by name."""
    return {
        "BCE": terms.bce,
        "BCE without noise": terms.bce_at_mean,
        "squared error": terms.squares,
        "half the squared error": terms.squares / 2,
    }


def closed_terms(mu, logvar, decoder, x):
    """The Terms of images x (N, 784) in [0, 1].

    Args:
        mu, logvar: of q(z|x), (N, 2) each.
        decoder: the weight (n_out, n_in) and bias (n_out,) of each of its two layers, with a ReLU between them.
    """
    deviation = np.exp(0.5 * logvar)
    points, weights = np.polynomial.hermite_e.hermegauss(NODES)
    weights = weights / weights.sum()
    bce, squares = np.zeros(len(x)), np.zeros(len(x))
    for (a, p), (b, q) in itertools.product(zip(points, weights, strict=True), repeat=2):
        logits = decode(decoder, mu + deviation * np.array([a, b]))
        bce += p * q * cross_entropy(logits, x)
        squares += p * q * ((1 / (1 + np.exp(-logits)) - x) ** 2).sum(1)
    kl = 0.5 * (mu**2 + deviation**2 - 1 - logvar).sum(1)
    return Terms(bce, cross_entropy(decode(decoder, mu), x), squares, kl)


def decode(decoder, z):
    """The logits of the pixels, (N, 784), at z (N, 2)."""
    (weight, bias), (weight_out, bias_out) = decoder
    return np.maximum(z @ weight.T + bias, 0) @ weight_out.T + bias_out


def cross_entropy(logits, x):
    """-log p(x|z), (N,), of Bernoulli pixels."""
    return (np.logaddexp(0, logits) - x * logits).sum(1)


def read(losses, terms):
    """The Reading that explains the losses of a batch, one for each draw of the noise, or None."""
    mean = np.mean(losses)
    if not np.isfinite(mean):
        return None
    error = np.std(losses) / len(losses) ** 0.5
    readings = [
        Reading(*choice)
        for choice in itertools.product(reconstructions(terms), (1, 1 / 784), KL_FACTORS, (False, True))
    ]
    best = min(readings, key=lambda reading: abs(reading.of(terms) - mean))
    return best if abs(best.of(terms) - mean) < ERRORS * error + ACCURACY * abs(mean) else None


def read_average(values, reading, terms):
    """How evaluations of N images in a batch of N - 1 and one of a single image have averaged, in words.

    Args:
        values: one number per evaluation; which image was alone may differ.
        terms: of the N images. One is unlike the others, so that it shows which count more.
    """
    per_image = reading._replace(is_sum=False)
    losses = np.array([per_image.of(terms.of(slice(i, i + 1))) for i in range(len(terms.kl))])
    rest = (losses.sum() - losses) / (len(losses) - 1)
    choices = {
        "by images": losses.mean(),
        "by batches": (rest + losses) / 2,
        "the last batch": losses,
        "a sum": losses + rest,
    }
    for words, expected in choices.items():
        if all(np.abs(expected - value).min() < NOISE for value in values):
            return words
    return "otherwise"
