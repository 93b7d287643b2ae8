"""log p(x) by importance sampling, against models whose log p(x) is known."""

import math

import pytest
import torch
from torch.distributions import MultivariateNormal

from model import VAE, StandardNormal, bce
from support import likelihood
from support.config import Config
from support.data import pixels
from support.seeds import generator

VARIANCE = 0.04  # of a pixel's noise


class LinearGaussian:
    """x = W z + noise in 5 pixels, z ~ N(0, I) in 2 dimensions: its posterior and its log p(x) are known.

    Args:
        weight: W (5, 2).
        widening: the encoder's standard deviations, in those of the posterior.
    """

    def __init__(self, weight, widening=1.0):
        self.weight = weight
        self.prior = StandardNormal(2)
        self.covariance = torch.linalg.inv(torch.eye(2) + weight.T @ weight / VARIANCE)
        self.logvar = (widening**2 * self.covariance.diagonal()).log()

    def encode(self, x):
        mu = x @ self.weight @ self.covariance / VARIANCE
        return mu, self.logvar.expand_as(mu)

    def decode(self, z):
        return z @ self.weight.T

    def log_prob(self, x):
        covariance = self.weight @ self.weight.T + VARIANCE * torch.eye(5)
        return MultivariateNormal(torch.zeros(5), covariance).log_prob(x)


@pytest.fixture
def gaussian_pixels(monkeypatch):
    """Replace the Bernoulli pixels of log p(x|z) by Gaussian ones."""

    def negative_log_density(decoded, x):
        return 0.5 * ((x - decoded).square() / VARIANCE + math.log(2 * math.pi * VARIANCE)).sum(-1)

    monkeypatch.setattr(likelihood, "bce", negative_log_density)


def random_images(n, n_pixels):
    return torch.randint(0, 256, (n, n_pixels), generator=generator(0), dtype=torch.uint8)


def random_vae(latent_dim=1):
    torch.manual_seed(0)
    return VAE(latent_dim, (20,))


def test_estimate_for_linear_gaussian_model_is_exact(gaussian_pixels):
    images = random_images(20, 5)
    model = LinearGaussian(torch.randn(5, 2, generator=generator(0)), widening=1.5)
    expected = model.log_prob(pixels(images))
    estimate = likelihood.log_likelihood(model, model.encode, images, 5000, generator(0))
    torch.testing.assert_close(estimate, expected, atol=0.1, rtol=0)


def test_estimate_with_one_sample_is_lower_on_average(gaussian_pixels):
    images = random_images(20, 5)
    model = LinearGaussian(torch.randn(5, 2, generator=generator(0)), widening=1.5)
    one = likelihood.log_likelihood(model, model.encode, images.repeat(500, 1), 1, generator(0)).view(500, 20)
    assert (one.mean(0) < model.log_prob(pixels(images))).all()


def test_estimate_with_true_posterior_needs_one_sample(gaussian_pixels):
    weight = torch.zeros(5, 2)
    weight[:2] = 0.5 * torch.eye(2)  # the posterior is then diagonal, as the encoder is
    model = LinearGaussian(weight)
    images = random_images(20, 5)
    estimate = likelihood.log_likelihood(model, model.encode, images, 1, generator(0))
    torch.testing.assert_close(estimate, model.log_prob(pixels(images)), atol=1e-3, rtol=0)


@torch.no_grad()
def test_estimate_for_vae_is_integral_over_z():
    model = random_vae()
    images = random_images(5, 784)
    z = torch.linspace(-8, 8, 4001).unsqueeze(1)
    logits = model.decode(z)
    log_likelihoods = torch.stack([-bce(logits, x.expand_as(logits)) for x in pixels(images)])
    integral = (log_likelihoods + model.prior.log_prob(z)).logsumexp(1) + math.log(16 / 4000)
    estimate = likelihood.log_likelihood(model, model.encode, images, 3000, generator(0))
    torch.testing.assert_close(estimate, integral, atol=0.05, rtol=0)


def test_estimate_does_not_depend_on_chunks(monkeypatch):
    """Neither that of the images nor that of the samples changes the formula, only the order of the draws."""
    model = random_vae()
    images = random_images(8, 784)
    whole = likelihood.log_likelihood(model, model.encode, images, 2500, generator(0))
    monkeypatch.setattr(likelihood, "CHUNK", 400)
    parts = likelihood.log_likelihood(model, model.encode, images, 2500, generator(1))
    assert parts.shape == (8,)
    torch.testing.assert_close(parts, whole, atol=0.1, rtol=0)


def test_estimate_follows_from_generator():
    model = random_vae(3)
    images = random_images(8, 784)
    estimates = [likelihood.log_likelihood(model, model.encode, images, 5, generator(seed)) for seed in (0, 0, 1)]
    assert torch.equal(estimates[0], estimates[1])
    assert not torch.equal(estimates[0], estimates[2])


def test_proposal_is_encoder_unless_that_is_deterministic():
    model = random_vae()
    assert likelihood.proposal_of(model, Config(), None) == model.encode


def test_proposal_around_code_has_width_of_posterior(gaussian_pixels):
    weight = torch.zeros(5, 2)
    weight[:2] = math.sqrt(VARIANCE * (100 - 1)) * torch.eye(2)  # a posterior of width 0.1 in every direction
    model = LinearGaussian(weight)
    images = random_images(500, 5)
    proposal = likelihood.proposal_of(model, Config(divergence="mmd"), images)
    mu, logvar = proposal(pixels(images))
    torch.testing.assert_close(mu, model.encode(pixels(images))[0])
    assert torch.exp(0.5 * logvar).unique().item() == pytest.approx(0.1, rel=0.3)


def test_affordable_samples_shrink_with_images_and_network():
    model = random_vae(2)
    assert likelihood.affordable_samples(model, 60) == likelihood.MOST_SAMPLES
    few = likelihood.affordable_samples(model, 10_000)
    assert 1 <= likelihood.affordable_samples(VAE(2, (400, 400)), 10_000) < few
    assert likelihood.affordable_samples(model, 10**9) == 1
