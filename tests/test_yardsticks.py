import math

import numpy as np
import pytest
import torch
from torch.distributions import MultivariateNormal

import data
import yardsticks
from model import VAE, StandardNormal, bce


def seeded(seed=0):
    return torch.Generator().manual_seed(seed)


class LinearGaussian:
    """x = W z + noise of variance 0.04 in 5 pixels, z ~ N(0, I) in 2: its posterior and its log p(x) are known."""

    def __init__(self, widen=1.0):
        self.weight, self.prior = torch.randn(5, 2, generator=seeded()).double(), StandardNormal(2)
        precision = torch.eye(2).double() + self.weight.T @ self.weight / 0.04
        self.covariance = torch.linalg.inv(precision)
        self.logvar = (widen**2 * self.covariance.diagonal()).log()

    def encode(self, x):
        mu = x.double() @ self.weight @ self.covariance / 0.04
        return mu, self.logvar.expand_as(mu)

    def reparameterize(self, mu, logvar, eps):
        return mu + torch.exp(0.5 * logvar) * eps

    def decode(self, z):
        return z @ self.weight.T

    def log_prob(self, x):
        covariance = self.weight @ self.weight.T + 0.04 * torch.eye(5)
        return MultivariateNormal(torch.zeros(5).double(), covariance).log_prob(x.double())


@pytest.fixture
def gaussian_pixels(monkeypatch):
    """Makes of the Bernoulli pixels of the yardsticks Gaussian ones."""

    def nll(decoded, x):
        return 0.5 * ((x - decoded).square() / 0.04 + math.log(2 * math.pi * 0.04)).sum(-1)

    monkeypatch.setattr(yardsticks, "bce", nll)


def test_log_likelihood_of_a_linear_gaussian_model_is_exact(gaussian_pixels):
    images = torch.randint(0, 256, (20, 5), generator=seeded(), dtype=torch.uint8)
    model = LinearGaussian(widen=1.5)
    expected = model.log_prob(data.pixels(images))
    estimate = yardsticks.log_likelihood(model, images, 5000, seeded())
    torch.testing.assert_close(estimate, expected, atol=0.1, rtol=0)
    one = yardsticks.log_likelihood(model, images.repeat(500, 1), 1, seeded()).view(500, 20).mean(0)
    assert (one < expected).all(), "the bound of one sample is a lower bound"


def test_log_likelihood_of_a_vae_is_its_integral_over_z():
    torch.manual_seed(0)
    model = VAE(1, (20,))
    images = torch.randint(0, 256, (5, 784), dtype=torch.uint8)
    z = torch.linspace(-8, 8, 4001).unsqueeze(1)
    with torch.no_grad():
        logits = model.decode(z)
        log_p_x = torch.stack([-bce(logits, x.expand_as(logits)) for x in data.pixels(images)])
        expected = (log_p_x + model.prior.log_prob(z)).logsumexp(1) + math.log(16 / 4000)
    for width in (None, 0.8):
        estimate = yardsticks.log_likelihood(model, images, 3000, seeded(), width)
        torch.testing.assert_close(estimate, expected, atol=0.05, rtol=0)


def test_proposal_width_is_found_where_it_is_known(gaussian_pixels):
    model = LinearGaussian()
    model.covariance = 0.01 * torch.eye(2).double()  # a posterior of one width in all directions: 0.1
    model.weight = torch.zeros(5, 2).double()
    model.weight[:2] = math.sqrt(0.04 * (100 - 1)) * torch.eye(2).double()
    images = torch.randint(0, 256, (500, 5), generator=seeded(), dtype=torch.uint8)
    assert yardsticks.proposal_width(model, images, 0) == pytest.approx(0.1, rel=0.3)


def test_active_units_are_those_whose_mean_varies():
    mu = torch.randn(1000, 4, generator=seeded()) * torch.tensor([1.0, 0.2, 0.05, 0.0])
    assert yardsticks.active_units(mu) == 2


def test_knn_accuracy_of_clusters_and_of_noise():
    labels = torch.arange(500) % 5
    centres = 10 * labels.unsqueeze(1) + torch.randn(500, 2, generator=seeded())
    assert yardsticks.knn_accuracy(centres[:400], labels[:400], centres[400:], labels[400:]) == 1
    noise = torch.randn(500, 2, generator=seeded())
    assert yardsticks.knn_accuracy(noise[:400], labels[:400], noise[400:], labels[400:]) < 0.4


def test_sliced_wasserstein_of_gaussians_a_step_apart():
    z, other = torch.randn(2, 50_000, 3, generator=seeded())
    shift = torch.tensor([1.0, 2.0, 2.0])
    expected = 3 / math.sqrt(3)
    assert yardsticks.sliced_wasserstein(z, other + shift, seeded(), 2000) == pytest.approx(expected, rel=0.03)
    assert yardsticks.sliced_wasserstein(z, other, seeded()) < 0.03
    assert yardsticks.sliced_wasserstein(z, 2 * other, seeded()) == pytest.approx(1, rel=0.03)


def test_mmd_in_pieces_is_the_mean_of_theirs():
    z, other = torch.randn(2, 2000, 2, generator=seeded())
    whole = yardsticks.chunked_mmd(z, other + 1)
    pieces = [yardsticks.mmd(z[i : i + 1000], other[i : i + 1000] + 1) for i in (0, 1000)]
    assert whole == pytest.approx(np.mean([float(piece) for piece in pieces]))
