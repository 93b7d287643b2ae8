"""log p(x) by quadrature and by importance sampling, against models whose log p(x) is known."""

import dataclasses
import math

import numpy as np
import pytest
import torch
from scipy import integrate
from scipy.special import logsumexp
from torch import nn
from torch.distributions import Bernoulli, MultivariateNormal

from model import VAE, StandardNormal, bce
from support import likelihood
from support.config import Config
from support.data import pixels
from support.seeds import generator
from variants import build_model
from variants.wae import WAE

VARIANCE = 0.04  # of a pixel's noise
MODELS = {
    "normal": Config(),
    "mixture": Config(prior="mixture", prior_components=3),
    "vamp": Config(prior="vamp", prior_components=3),
    "wae": Config(divergence="mmd"),
}


class LinearGaussian(nn.Module):
    """x = W z + noise in 5 pixels, z ~ N(0, I): its posterior and its log p(x) are known.

    Args:
        weight: W (5, latent_dim).
        widening: the encoder's standard deviations, in those of the posterior.
    """

    def __init__(self, weight, widening=1.0):
        super().__init__()
        self.weight = nn.Parameter(weight, requires_grad=False)
        self.latent_dim = weight.shape[1]
        self.prior = StandardNormal(self.latent_dim)
        self.covariance = torch.linalg.inv(torch.eye(self.latent_dim) + weight.T @ weight / VARIANCE)
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
    monkeypatch.setattr(
        likelihood, "log_likelihoods", lambda decoded, x: -negative_log_density(decoded, x.unsqueeze(1))
    )


@pytest.fixture(scope="module")
def trained():
    """A model with narrow posteriors, and images: bars of every place and length, in 784 pixels."""
    images = torch.zeros(28, 28, 784, dtype=torch.uint8)
    for place in range(28):
        for length in range(28):
            images[place, length, 28 * place : 28 * place + length + 1] = 255
    images = images.flatten(0, 1)
    torch.manual_seed(0)
    model = VAE(2, (32,))
    optimizer = torch.optim.Adam(model.parameters(), 0.01)
    for _ in range(150):
        bce_, kld, *_ = model(pixels(images), torch.randn(len(images), 2))
        optimizer.zero_grad()
        (bce_ + kld).mean().backward()
        optimizer.step()
    return model, images[::8]


def model_of(name, latent_dim, hidden_dims=(8,)):
    """A model by its name in MODELS, with random weights; a learned prior lies anywhere."""
    torch.manual_seed(0)
    model = build_model(dataclasses.replace(MODELS[name], latent_dim=latent_dim, hidden_dims=hidden_dims))
    if name == "mixture":
        model.prior.mu.data = 3 + 2 * torch.randn(3, latent_dim)
        model.prior.logvar.data = torch.randn(3, latent_dim)
    return model.requires_grad_(False)


def random_images(n, n_pixels):
    return torch.randint(0, 256, (n, n_pixels), generator=generator(0), dtype=torch.uint8)


def random_vae(latent_dim=1):
    torch.manual_seed(0)
    return VAE(latent_dim, (20,))


@pytest.mark.parametrize("latent_dim", [1, 2])
@pytest.mark.parametrize("name", MODELS)
def test_quadrature_is_minus_bce_if_decoder_ignores_z(name, latent_dim):
    model = model_of(name, latent_dim)
    model.decoder[-1].weight.zero_()
    images = random_images(3, 784)
    expected = -bce(model.decode(torch.zeros(1, latent_dim)), pixels(images))
    torch.testing.assert_close(likelihood.quadrature(model, images), expected, atol=1e-3, rtol=0)


@pytest.mark.parametrize("latent_dim", [1, 2])
@pytest.mark.parametrize("name", MODELS)
def test_quadrature_is_integral_over_z_for_every_prior(name, latent_dim):
    """scipy integrates in float64, from the mixture's formula, over a box that holds all of the prior."""
    model = model_of(name, latent_dim, hidden_dims=())
    model.decoder[-1].weight *= 0.3
    image = random_images(1, 784)
    estimate = likelihood.quadrature(model, image).item()
    weight, bias, x = (t.double().numpy() for t in (*model.decoder[-1].parameters(), pixels(image)[0]))
    means, logvars = (t.double().numpy() for t in model.prior.components())

    def scaled_joint(*z):
        logits = weight @ np.array(z) + bias
        log_normals = -0.5 * (np.log(2 * np.pi) + logvars + (z - means) ** 2 / np.exp(logvars)).sum(1)
        log_prior = logsumexp(log_normals) - np.log(len(means))
        return np.exp(x @ logits - np.logaddexp(0, logits).sum() + log_prior - estimate)

    reach = 7 * np.exp(0.5 * logvars)
    box = zip((means - reach).min(0), (means + reach).max(0), strict=True)
    ratio, _ = integrate.nquad(scaled_joint, list(box), opts={"epsabs": 1e-3, "epsrel": 1e-3})
    assert ratio == pytest.approx(1, abs=0.01)


@pytest.mark.parametrize("latent_dim", [1, 2])
@pytest.mark.parametrize("scale", [0.1, 1, 10])
def test_quadrature_of_linear_gaussian_model_is_exact(gaussian_pixels, latent_dim, scale):
    """The posterior is up to fifty times narrower than the prior, and lies up to five standard deviations away."""
    model = LinearGaussian(scale * torch.randn(5, latent_dim, generator=generator(0)))
    z = torch.linspace(-5, 5, 21).unsqueeze(1).expand(-1, latent_dim) / latent_dim**0.5
    images = model.decode(z)
    estimate = likelihood.integrate(model, images)
    torch.testing.assert_close(estimate, model.log_prob(images), atol=0.02, rtol=1e-4)


def test_quadrature_of_trained_model_is_sum_over_fine_grid(trained):
    model, images = trained
    axis = torch.arange(-5, 5, 0.05)
    z = torch.cartesian_prod(axis, axis)
    with torch.no_grad():
        logits = model.decode(z)
    log_prior = MultivariateNormal(torch.zeros(2), torch.eye(2)).log_prob(z)
    expected = [
        (Bernoulli(logits=logits).log_prob(x).sum(1) + log_prior).double().logsumexp(0) + 2 * math.log(0.05)
        for x in pixels(images[:5])
    ]
    torch.testing.assert_close(
        likelihood.quadrature(model, images[:5]).double(), torch.stack(expected), atol=0.05, rtol=0
    )


@pytest.mark.parametrize("finer_or_wider", [{"TOLERANCE": 0.001}, {"TILE_POINTS": 100}, {"EXTENT": 9}])
def test_finer_and_wider_lattice_gives_same_log_p(trained, monkeypatch, finer_or_wider):
    model, images = trained
    log_p = likelihood.quadrature(model, images).mean()
    for name, value in finer_or_wider.items():
        monkeypatch.setattr(likelihood, name, value)
    assert likelihood.quadrature(model, images).mean() == pytest.approx(log_p, abs=0.05)


def test_quadrature_lies_above_bound_and_importance_sampling(trained):
    model, images = trained
    with torch.no_grad():
        bce_, kld, *_ = model(pixels(images), torch.randn(len(images), 2, generator=generator(0)))
    sampled = likelihood.importance_sampling(model, model.encode, images, 20, generator(0))
    exact = likelihood.quadrature(model, images)
    assert -(bce_ + kld).mean() < sampled.mean() < exact.mean()


def test_quadrature_holds_few_terms_at_a_time_whatever_the_number_of_images(trained, monkeypatch):
    model, images = trained
    expected = likelihood.quadrature(model, images)
    sizes = []

    def log_likelihoods(logits, x):
        sizes.append(max(logits.numel(), len(logits) * len(x)))
        return original(logits, x)

    original = likelihood.log_likelihoods
    monkeypatch.setattr(likelihood, "log_likelihoods", log_likelihoods)
    monkeypatch.setattr(likelihood, "TERMS", 20_000)
    monkeypatch.setattr(likelihood, "IMAGES", 60)
    torch.testing.assert_close(likelihood.quadrature(model, images), expected, atol=0.03, rtol=0)
    assert max(sizes) <= 20_000


@pytest.mark.parametrize("name", MODELS)
def test_lattice_holds_all_of_prior(name):
    model = model_of(name, 2)
    lattice = likelihood.lattice(model, 5)
    assert lattice.log_mass.exp().sum().item() == pytest.approx(1, abs=1e-3)
    mean = (lattice.log_mass.exp().unsqueeze(1) * lattice.z).sum(0)
    torch.testing.assert_close(mean, model.prior.components()[0].mean(0), atol=0.01, rtol=0)


def test_log_joint_over_lattice_sums_to_log_p(trained):
    model, images = trained
    log_joint = likelihood.log_joint(model, likelihood.lattice(model, 20), images[:5])
    expected = likelihood.quadrature(model, images[:5])
    torch.testing.assert_close(log_joint.logsumexp(1), expected, atol=0.05, rtol=0)


@pytest.mark.parametrize("latent_dim", [1, 2])
def test_estimate_with_few_latents_is_quadrature(latent_dim):
    model = random_vae(latent_dim)
    images = random_images(8, 784)
    log_p, k, log_p_tenth = likelihood.estimate(model, Config(), images, images)
    assert torch.equal(log_p, likelihood.quadrature(model, images))
    assert k is log_p_tenth is None


def test_estimate_with_more_latents_has_a_tenth_of_the_samples_beside_it():
    model = random_vae(3)
    images = random_images(8, 784)
    log_p, k, log_p_tenth = likelihood.estimate(model, Config(latent_dim=3), images, images, k=200)
    assert k == 200
    source = generator(likelihood.EVALUATION_SEED)
    assert torch.equal(log_p_tenth, likelihood.importance_sampling(model, model.encode, images, 20, source))
    assert log_p_tenth.mean() < log_p.mean()
    assert likelihood.estimate(model, Config(latent_dim=3), images, images).k == likelihood.MOST_SAMPLES


def test_wae_of_three_latents_is_sampled_around_its_codes():
    torch.manual_seed(0)
    images = random_images(8, 784)
    estimate = likelihood.estimate(WAE(3, (8,)), Config(latent_dim=3, divergence="mmd"), images, images, k=20)
    assert estimate.log_p.isfinite().all()


def test_sampling_for_linear_gaussian_model_is_exact(gaussian_pixels):
    images = random_images(20, 5)
    model = LinearGaussian(torch.randn(5, 2, generator=generator(0)), widening=1.5)
    expected = model.log_prob(pixels(images))
    estimate = likelihood.importance_sampling(model, model.encode, images, 5000, generator(0))
    torch.testing.assert_close(estimate, expected, atol=0.1, rtol=0)


def test_sampling_with_one_sample_is_lower_on_average(gaussian_pixels):
    images = random_images(20, 5)
    model = LinearGaussian(torch.randn(5, 2, generator=generator(0)), widening=1.5)
    one = likelihood.importance_sampling(model, model.encode, images.repeat(500, 1), 1, generator(0)).view(500, 20)
    assert (one.mean(0) < model.log_prob(pixels(images))).all()


def test_sampling_with_true_posterior_needs_one_sample(gaussian_pixels):
    weight = torch.zeros(5, 2)
    weight[:2] = 0.5 * torch.eye(2)  # the posterior is then diagonal, as the encoder is
    model = LinearGaussian(weight)
    images = random_images(20, 5)
    estimate = likelihood.importance_sampling(model, model.encode, images, 1, generator(0))
    torch.testing.assert_close(estimate, model.log_prob(pixels(images)), atol=1e-3, rtol=0)


@torch.no_grad()
def test_sampling_for_vae_is_integral_over_z():
    model = random_vae()
    images = random_images(5, 784)
    z = torch.linspace(-8, 8, 4001).unsqueeze(1)
    logits = model.decode(z)
    log_likelihoods = torch.stack([-bce(logits, x.expand_as(logits)) for x in pixels(images)])
    integral = (log_likelihoods + model.prior.log_prob(z)).logsumexp(1) + math.log(16 / 4000)
    estimate = likelihood.importance_sampling(model, model.encode, images, 3000, generator(0))
    torch.testing.assert_close(estimate, integral, atol=0.05, rtol=0)


def test_sampling_does_not_depend_on_chunks(monkeypatch):
    """Neither that of the images nor that of the samples changes the formula, only the order of the draws."""
    model = random_vae()
    images = random_images(8, 784)
    whole = likelihood.importance_sampling(model, model.encode, images, 2500, generator(0))
    monkeypatch.setattr(likelihood, "CHUNK", 400)
    parts = likelihood.importance_sampling(model, model.encode, images, 2500, generator(1))
    assert parts.shape == (8,)
    torch.testing.assert_close(parts, whole, atol=0.1, rtol=0)


def test_sampling_follows_from_generator():
    model = random_vae(3)
    images = random_images(8, 784)
    estimates = [likelihood.importance_sampling(model, model.encode, images, 5, generator(seed)) for seed in (0, 0, 1)]
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
    assert likelihood.affordable_samples(VAE(2, (400, 20)), 10_000) < few
    assert likelihood.affordable_samples(model, 10**9) == likelihood.LEAST_SAMPLES
