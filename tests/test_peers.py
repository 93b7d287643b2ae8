"""The peers of benchmarks/peers.py: their table, and how their losses are read. None of them is installed here."""

import ast
import contextlib
import functools
import os
import re
from pathlib import Path

import numpy as np
import pytest
import torch

from benchmarks.losses import closed_terms, read, read_average
from benchmarks.peers import PEERS, WORKER
from benchmarks.speed import race
from model import VAE, bce, kld

ROOT = Path(__file__).parent.parent
N = 12


def test_every_peer_is_pinned_and_stands_in_the_docs():
    page = (ROOT / "docs" / "peers.md").read_text(encoding="utf-8")
    assert len(PEERS) >= 9
    for name, peer in PEERS.items():
        assert all(re.fullmatch(r"[a-z-]+==\d+\.\d+\.\d+", package) for package in peer.packages), name
        assert f"| {name} | {', '.join(peer.packages)} | {peer.obstacle} |" in page


@pytest.mark.parametrize("name", sorted({peer.adapter for peer in PEERS.values()}))
def test_adapter_has_at_most_forty_lines_and_the_methods_of_a_peer(name):
    text = WORKER.with_name(f"{name}.py").read_text(encoding="utf-8")
    tree = ast.parse(text)
    code = text.removeprefix(f'"""{ast.get_docstring(tree, clean=False)}"""')
    assert len([line for line in code.splitlines() if line.strip()]) <= 40
    (peer,) = [node for node in tree.body if isinstance(node, ast.ClassDef) and node.name == "Peer"]
    methods = {node.name for node in peer.body if isinstance(node, ast.FunctionDef)}
    assert {"epoch", "loss", "decoder"} <= methods
    assert "posterior" in methods or "self.posterior" in text


@contextlib.contextmanager
def contender(epochs):
    """A contender of a race whose process ends after some epochs."""
    left = iter(range(epochs))
    yield lambda: next(left, None) is not None or os._exit(1)


@contextlib.contextmanager
def contender_without_its_package():
    raise ImportError("no such package")
    yield


@pytest.mark.slow
def test_race_goes_on_without_contenders_that_are_missing_or_end(capsys):
    contenders = {name: functools.partial(contender, epochs) for name, epochs in (("a", 9), ("b", 2), ("c", 9))}
    seconds, memory, _ = race(contenders | {"d": contender_without_its_package}, rounds=3)
    assert {name: len(times) for name, times in seconds.items()} == {"a": 4, "c": 4}
    assert memory.keys() >= seconds.keys()
    assert capsys.readouterr().out == "left out: d (no such package)\nleft out: b (it has ended)\n"


@pytest.fixture(scope="module")
def example():
    """A network, images of which the last is unlike the others, and the Terms of these."""
    torch.manual_seed(0)
    model = VAE()
    images = (torch.rand(N, 784) < 0.1).float()
    images[-1] = 1 - images[-1]
    with torch.no_grad():
        model.encoder[-1].weight.mul_(5)
        model.encoder[-1].bias.copy_(torch.tensor([2.0, -2.0, -1.0, -1.0]))  # a KLD of some nats
        model.decoder[-1].bias.fill_(-2)
        mu, logvar = model.encode(images)
    layers = [model.decoder[i] for i in (0, 2)]
    decoder = [(layer.weight.detach().double().numpy(), layer.bias.detach().double().numpy()) for layer in layers]
    return model, images, closed_terms(mu.double().numpy(), logvar.double().numpy(), decoder, images.double().numpy())


def draw(example, n):
    """The losses of n draws of the noise: BCE without and with noise, squared error, KLD, (n, N) each."""
    model, images, _ = example
    with torch.no_grad():
        mu, logvar = model.encode(images)
        z = model.reparameterize(mu, logvar, torch.randn(n, N, 2, generator=torch.Generator().manual_seed(1)))
        logits = model.decode(z)
        terms = bce(model.decode(mu), images), bce(logits, images), (logits.sigmoid() - images).square().sum(-1)
        return [term.expand(n, N).double().numpy() for term in (*terms, kld(mu, logvar))]


def test_closed_terms_are_means_over_the_noise(example):
    for found, term in zip(draw(example, 2000), ("bce_at_mean", "bce", "squares", "kl"), strict=True):
        np.testing.assert_allclose(getattr(example[2], term), found.mean(0), rtol=2e-3)


@pytest.mark.parametrize(
    ("words", "is_bound", "term", "share", "kl_factor"),
    [
        ("BCE + KL; mean over the batch", True, "bce", 1, 1),
        ("BCE + KL; sum over the batch", True, "bce", N, N),
        ("BCE + twice the KL; mean over the batch", True, "bce", 1, 2),
        ("BCE + half the KL; mean over the batch", False, "bce", 1, 0.5),
        ("BCE without noise + KL; mean over the batch", False, "bce_at_mean", 1, 1),
        ("BCE, mean over pixels, + KL; mean over the batch", False, "bce", 1 / 784, 1),
        ("squared error + no KL; mean over the batch", False, "squares", 1, 0),
    ],
)
def test_loss_is_read_as_what_it_is(example, words, is_bound, term, share, kl_factor):
    drawn = dict(zip(("bce_at_mean", "bce", "squares", "kl"), draw(example, 100), strict=True))
    reading = read((share * drawn[term] + kl_factor * drawn["kl"]).mean(1), example[2])
    assert (reading.words, reading.is_bound) == (words, is_bound)


def test_loss_that_is_none_of_the_closed_forms_is_not_named(example):
    _, likelihood, _, divergence = draw(example, 100)
    assert read((1.3 * likelihood + divergence).mean(1), example[2]) is None
    assert read(np.full(100, np.inf), example[2]) is None


def test_average_of_batches_of_other_sizes_is_recognised(example):
    _, likelihood, _, divergence = draw(example, 100)
    losses = example[2].bce + example[2].kl
    reading = read((likelihood + divergence).mean(1), example[2])
    cases = {
        "by images": losses.mean(),
        "by batches": (losses[:-1].mean() + losses[-1]) / 2,
        "the last batch": losses[-1],
        "a sum": losses[:-1].mean() + losses[-1],
    }
    assert {words: read_average([value], reading, example[2]) for words, value in cases.items()} == {
        w: w for w in cases
    }
