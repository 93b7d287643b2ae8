"""Every figure that a run prints, computed again by code that shares nothing with the project's: NumPy in float64.

Only the random numbers and PyTorch's first weights are the same. The gradient is written by hand.
"""

import re

import numpy as np
import pytest
import torch
from helpers import call_main, metrics
from torch import nn

from support.latent import likelihood

HIDDEN = 16
BATCH = 64  # the last of 300 images' batches has 44
EPOCHS = 3
FLAGS = ("--hidden_dims", HIDDEN, "--batch_size", BATCH, "--log_interval", 1, "--epochs", EPOCHS, "--lr", 0.01)
NUMBERS = r"BCE_Loss: (\S+), (?:KLD|MMD)_Loss: (\S+), Total_Loss: (\S+)"
TOLERANCE = {"rtol": 1e-4, "atol": 1e-3}

pytestmark = pytest.mark.exact_log_p


def read_images(small_mnist, part):
    """The pixels of a part of the stand-in for MNIST, (N, 784) in [0, 1], read from the bytes of its file."""
    content = (small_mnist / "MNIST" / "raw" / f"{part}-images-idx3-ubyte").read_bytes()
    return np.frombuffer(content[16:], np.uint8).reshape(-1, 784) / 255


def source(*seeds):
    return torch.Generator().manual_seed(int(np.random.SeedSequence(seeds).generate_state(1, np.uint64)[0]))


def draws(n, latents, *seeds):
    return torch.randn(n, latents, generator=source(*seeds)).double().numpy()


def first_weights(latents, is_deterministic=False):
    """The weights and biases of the four layers as PyTorch draws them from seed 1; a WAE draws its encoder anew."""
    torch.manual_seed(1)
    encoder = nn.Linear(784, HIDDEN), nn.Linear(HIDDEN, 2 * latents)
    decoder = nn.Linear(latents, HIDDEN), nn.Linear(HIDDEN, 784)
    if is_deterministic:
        encoder = nn.Linear(784, HIDDEN), nn.Linear(HIDDEN, latents)
    layers = (*encoder, *decoder)
    return [values.detach().double().numpy() for layer in layers for values in (layer.weight, layer.bias)]


def saved_weights(folder):
    """The same of a run's best epoch."""
    saved = torch.load(folder / "best.pt", weights_only=True)
    (state,) = [value for value in saved.values() if isinstance(value, dict) and "encoder.0.weight" in value]
    names = [f"{part}.{i}.{kind}" for part in ("encoder", "decoder") for i in (0, 2) for kind in ("weight", "bias")]
    return [state[name].double().numpy() for name in names]


def encode(weights, x):
    """The hidden layer, and mu and log sigma^2 side by side."""
    hidden = np.maximum(x @ weights[0].T + weights[1], 0)
    return hidden, hidden @ weights[2].T + weights[3]


def decode(weights, z):
    """The hidden layer and the logits."""
    hidden = np.maximum(z @ weights[4].T + weights[5], 0)
    return hidden, hidden @ weights[6].T + weights[7]


def cross_entropy(logits, x):
    return (np.logaddexp(0, logits) - x * logits).sum(1)


def losses_of(weights, x, eps):
    """BCE and KLD of each image, (N,)."""
    mu, logvar = np.split(encode(weights, x)[1], 2, axis=1)
    logits = decode(weights, mu + np.exp(logvar / 2) * eps)[1]
    return cross_entropy(logits, x), 0.5 * (mu**2 + np.exp(logvar) - 1 - logvar).sum(1)


def gradient(weights, x, eps, beta):
    """The gradient of the mean of BCE + beta * KLD, by hand, from the output back to the input."""
    hidden, head = encode(weights, x)
    mu, logvar = np.split(head, 2, axis=1)
    noise = np.exp(logvar / 2) * eps
    decoded, logits = decode(weights, mu + noise)
    at_logits = (1 / (1 + np.exp(-logits)) - x) / len(x)
    at_decoded = at_logits @ weights[6] * (decoded > 0)
    at_z = at_decoded @ weights[4]
    at_mu = at_z + beta * mu / len(x)
    at_logvar = at_z * noise / 2 + beta * (np.exp(logvar) - 1) / 2 / len(x)
    at_head = np.concatenate([at_mu, at_logvar], axis=1)
    at_hidden = at_head @ weights[2] * (hidden > 0)
    pairs = (at_hidden, x), (at_head, hidden), (at_decoded, mu + noise), (at_logits, decoded)
    return [values for at, values_in in pairs for values in (at.T @ values_in, at.sum(0))]


def train(images, latents, beta):
    """Adam by hand: the weights after each epoch, and the losses of each batch before its step, [(bce, kld), ...]."""
    weights = first_weights(latents)
    first = [np.zeros_like(values) for values in weights]
    second = [np.zeros_like(values) for values in weights]
    steps = 0
    for epoch in range(1, EPOCHS + 1):
        generator = source(1, epoch)
        order = torch.randperm(len(images), generator=generator).numpy()
        noise = torch.randn(len(images), latents, generator=generator).double().numpy()
        batches = []
        for start in range(0, len(images), BATCH):
            x, eps = images[order[start : start + BATCH]], noise[start : start + BATCH]
            batches.append(losses_of(weights, x, eps))
            steps += 1
            for i, slope in enumerate(gradient(weights, x, eps, beta)):
                first[i] = 0.9 * first[i] + 0.1 * slope
                second[i] = 0.999 * second[i] + 0.001 * slope**2
                size = first[i] / (1 - 0.9**steps) / (np.sqrt(second[i] / (1 - 0.999**steps)) + 1e-8)
                weights[i] = weights[i] - 0.01 * size
        yield weights, batches


def with_total(bce, divergence, beta):
    return [bce, divergence, bce + beta * divergence]


@pytest.mark.parametrize("beta", [1, 0.5])
def test_lines_of_batches_epochs_and_test_set_are_those_of_a_run_in_numpy(small_mnist, tmp_path, no_drawing, beta):
    flags = (*FLAGS, "--divergence_weight", beta, "--precision", "float32")
    done = call_main("--data_dir", small_mnist, "--results_dir", tmp_path, *flags)
    assert done.code == 0, done.err
    images, test = read_images(small_mnist, "train"), read_images(small_mnist, "t10k")
    lines, averages, tests = [], [], []
    for weights, batches in train(images, 2, beta):
        lines += [with_total(bce.mean(), kld.mean(), beta) for bce, kld in batches]
        averages.append(with_total(*(np.concatenate(terms).mean() for terms in zip(*batches, strict=True)), beta))
        tests.append(with_total(*(term.mean() for term in losses_of(weights, test, draws(60, 2, 0))), beta))
    assert [len(bce) for bce, _ in batches] == [64, 64, 64, 64, 44]
    printed = [
        re.findall(rf"^Train Epoch.*{NUMBERS}", done.out, re.MULTILINE),
        re.findall(r"Average BCE loss: (\S+), KLD loss: (\S+), Total loss: (\S+)", done.out),
        re.findall(r"Test set BCE_loss: (\S+), KLD_loss: (\S+), Total_loss: (\S+)", done.out),
    ]
    for found, expected in zip(printed, (lines, averages, tests), strict=True):
        np.testing.assert_allclose(np.array(found, float), expected, **TOLERANCE)


def mean_kernel(a, b, is_distinct):
    """The mean of the kernel of --divergence mmd over all pairs, or over those of two images, pair by pair."""
    values = []
    for i, p in enumerate(a):
        for j, q in enumerate(b):
            if not (is_distinct and i == j):
                scales = 2 * len(p) * np.array([0.1, 0.2, 0.5, 1, 2, 5, 10])
                values.append((scales / (scales + ((p - q) ** 2).sum())).sum())
    return np.mean(values)


def test_mmd_of_the_first_batch_and_of_the_test_set_is_that_of_its_pairs(small_mnist, tmp_path, no_drawing):
    done = call_main("--data_dir", small_mnist, "--results_dir", tmp_path, *FLAGS, "--divergence", "mmd")
    assert done.code == 0, done.err
    generator = source(1, 1)
    order = torch.randperm(300, generator=generator).numpy()
    noise = torch.randn(300, 2, generator=generator).double().numpy()
    best = min(metrics(tmp_path), key=lambda row: float(row["test_total"]))
    (first, *_) = re.findall(NUMBERS, done.out)
    last = [best["test_bce"], best["test_divergence"], best["test_total"]]
    batch, test = read_images(small_mnist, "train")[order[:BATCH]], read_images(small_mnist, "t10k")
    cases = (
        (first, first_weights(2, is_deterministic=True), batch, noise[:BATCH]),
        (last, saved_weights(tmp_path), test, draws(60, 2, 0)),
    )
    for found, weights, x, prior in cases:
        z = encode(weights, x)[1]
        mmd = mean_kernel(z, z, True) + mean_kernel(prior, prior, True) - 2 * mean_kernel(z, prior, False)
        expected = with_total(cross_entropy(decode(weights, z)[1], x).mean(), mmd, 1)
        np.testing.assert_allclose(np.array(found, float), expected, **TOLERANCE)


def log_likelihoods(weights, z, x):
    """log p(x|z) of each image at each z, (N, G)."""
    logits = decode(weights, z)[1]
    return x @ logits.T - np.logaddexp(0, logits).sum(1)


def log_sum(values):
    """log of the sum of exp over the last axis."""
    largest = values.max(-1, keepdims=True)
    return largest[..., 0] + np.log(np.exp(values - largest).sum(-1))


def log_p_on_grid(weights, x, latents):
    """log p(x) as a sum over equal cells from -7 to 7, for one or two latents."""
    axis = np.linspace(-7, 7, 2001 if latents == 1 else 151)
    z = np.stack([values.ravel() for values in np.meshgrid(*[axis] * latents)], axis=1)
    log_prior = -0.5 * (z**2).sum(1) - latents / 2 * np.log(2 * np.pi) + latents * np.log(axis[1] - axis[0])
    chunks = np.array_split(np.arange(len(z)), 1 + len(z) // 5000)
    return log_sum(np.concatenate([log_likelihoods(weights, z[rows], x) + log_prior[rows] for rows in chunks], axis=1))


def log_p_by_sampling(weights, x, k=800):
    """log p(x) by importance sampling from q(z|x) with its deviations widened by a fifth."""
    rng = np.random.default_rng(0)
    found = []
    for image, mu, logvar in zip(x, *np.split(encode(weights, x)[1], 2, axis=1), strict=True):
        eps = rng.standard_normal((k, len(mu)))
        z = mu + 1.2 * np.exp(logvar / 2) * eps
        log_ratio = 0.5 * (eps**2 - z**2 + logvar).sum(1) + len(mu) * np.log(1.2)
        found.append(log_sum(log_likelihoods(weights, z, image[None])[0] + log_ratio) - np.log(k))
    return np.array(found)


@pytest.mark.parametrize(
    ("dataset", "latents", "tolerance"),
    [("mnist", 1, 0.01), ("mnist", 2, 0.01), ("binary_mnist", 2, 0.01), ("mnist", 3, 0.1), ("mnist", 10, 0.2)],
)
def test_log_p_of_the_last_lines_is_that_of_a_grid_or_of_many_draws(
    small_mnist, tmp_path, no_drawing, monkeypatch, dataset, latents, tolerance
):
    monkeypatch.setattr(likelihood, "MOST_SAMPLES", 100)  # of 500: most of the test's time
    flags = (*FLAGS, "--latent_dim", latents, "--dataset", dataset)
    done = call_main("--data_dir", small_mnist, "--results_dir", tmp_path, *flags)
    assert done.code == 0, done.err
    test = read_images(small_mnist, "t10k")
    if dataset == "binary_mnist":
        words = np.random.PCG64((0, 1)).random_raw(int((test > 0).sum()))
        test[test > 0] = words % 255 < np.round(255 * test[test > 0])
    weights = saved_weights(tmp_path)
    expected = log_p_by_sampling(weights, test) if latents > 2 else log_p_on_grid(weights, test, latents)
    (printed,) = re.findall(r"log p\(x\) at the best epoch: (\S+) nats", done.out)
    assert float(printed) == pytest.approx(expected.mean(), abs=tolerance)
    assert ("binarisations" in done.out) == (dataset == "mnist")
