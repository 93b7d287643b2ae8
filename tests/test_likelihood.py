"""log p(x) by quadrature and by importance sampling, against models whose log p(x) is known."""

import math

import pytest
import torch
from scipy.integrate import simpson
from torch import nn
from torch.distributions import (
    Bernoulli,
    Categorical,
    Independent,
    MixtureSameFamily,
    MultivariateNormal,
    Normal,
)

from model import VAE, StandardNormal, bce
from support.data.datasets import pixels
from support.latent import likelihood
from support.seeds import generator
from variants.priors import Mixture, VampPrior
from variants.wae import WAE

VARIANCE = 0.04  # of a pixel's noise
MODELS = ("normal", "mixture", "vamp", "wae")


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
    """A model with narrow posteriors, and images: bars of every place and length, in 100 pixels."""
    images = torch.zeros(10, 10, 10, 10, dtype=torch.uint8)
    for place in range(10):
        for length in range(10):
            images[place, length, place, : length + 1] = 255
    images = images.view(100, 100)
    torch.manual_seed(0)
    model = VAE(2, (32,), 100)
    optimizer = torch.optim.Adam(model.parameters(), 0.02)
    for _ in range(200):
        reconstruction, divergence, *_ = model(pixels(images), torch.randn(100, 2))
        optimizer.zero_grad()
        (reconstruction + divergence).mean().backward()
        optimizer.step()
    return model.requires_grad_(False), images


def small_model(name, latent_dim, hidden_dims=()):
    """A model of 6 pixels with random weights; a learned prior lies anywhere."""
    torch.manual_seed(0)
    model = (WAE if name == "wae" else VAE)(latent_dim, hidden_dims, 6)
    if name == "mixture":
        model.prior = Mixture(latent_dim, 3)
        model.prior.mu.data = 3 + 2 * torch.randn(3, latent_dim)
        model.prior.logvar.data = torch.randn(3, latent_dim)
    if name == "vamp":
        model.prior = VampPrior(model.encode, 6, 3)
    return model.requires_grad_(False)


def random_images(n, n_pixels):
    return torch.randint(0, 256, (n, n_pixels), generator=generator(0), dtype=torch.uint8)


def random_vae(latent_dim=1):
    torch.manual_seed(0)
    return VAE(latent_dim, (20,))


@pytest.mark.parametrize("latent_dim", [1, 2])
@pytest.mark.parametrize("name", MODELS)
def test_quadrature_is_minus_bce_if_decoder_ignores_z(name, latent_dim):
    model = small_model(name, latent_dim, (4,))
    model.decoder[-1].weight.zero_()
    images = random_images(3, 6)
    expected = -bce(model.decode(torch.zeros(3, latent_dim)), pixels(images))
    torch.testing.assert_close(likelihood.quadrature(model, images), expected, atol=1e-3, rtol=0)


@pytest.mark.parametrize("latent_dim", [1, 2])
@pytest.mark.parametrize("name", MODELS)
def test_quadrature_is_integral_over_z_for_every_prior(name, latent_dim):
    """SciPy integrates in float64, with a prior of PyTorch's own, over a box that holds all of it."""
    model = small_model(name, latent_dim)
    model.decoder[-1].weight *= 5
    images = random_images(3, 6)
    means, logvars = (parameter.double() for parameter in model.prior.components())
    components = Independent(Normal(means, torch.exp(0.5 * logvars)), 1)
    prior = MixtureSameFamily(Categorical(torch.ones(len(means))), components)
    reach = 8 * torch.exp(0.5 * logvars)
    box = zip((means - reach).amin(0), (means + reach).amax(0), strict=True)
    axes = [torch.linspace(*ends, 201, dtype=torch.double) for ends in box]
    z = torch.cartesian_prod(*axes).view(-1, latent_dim)
    pixel = Bernoulli(logits=model.decode(z.float()).double(), validate_args=False)
    for image, estimate in zip(images, likelihood.quadrature(model, images), strict=True):
        integral = (pixel.log_prob(pixels(image).double()).sum(1) + prior.log_prob(z)).exp().view([201] * latent_dim)
        for axis in reversed(axes):
            integral = simpson(integral, x=axis)
        assert estimate.item() == pytest.approx(math.log(integral), abs=0.01)


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
    axis = torch.arange(-4, 4, 0.05)
    z = torch.cartesian_prod(axis, axis)
    logits = model.decode(z)
    log_prior = MultivariateNormal(torch.zeros(2), torch.eye(2)).log_prob(z)
    expected = [
        (Bernoulli(logits=logits).log_prob(x).sum(1) + log_prior).double().logsumexp(0) + 2 * math.log(0.05)
        for x in pixels(images[::30])
    ]
    torch.testing.assert_close(
        likelihood.quadrature(model, images[::30]).double(), torch.stack(expected), atol=0.05, rtol=0
    )


@pytest.mark.parametrize("finer_or_wider", [{"TOLERANCE": 0.001}, {"TILE_POINTS": 100}, {"EXTENTS": (9,)}])
def test_finer_and_wider_lattice_gives_same_log_p(trained, monkeypatch, finer_or_wider):
    model, images = trained
    log_p = likelihood.quadrature(model, images).mean().item()
    for name, value in finer_or_wider.items():
        monkeypatch.setattr(likelihood, name, value)
    assert likelihood.quadrature(model, images).mean().item() == pytest.approx(log_p, abs=0.05)


def test_quadrature_lies_above_bound_and_importance_sampling(trained):
    model, images = trained
    reconstruction, divergence, *_ = model(pixels(images), torch.randn(100, 2, generator=generator(0)))
    sampled = likelihood.importance_sampling(model, model.encode, images, 20, generator(0))
    exact = likelihood.quadrature(model, images)
    assert -(reconstruction + divergence).mean() < sampled.mean() < exact.mean()


def test_quadrature_holds_few_terms_at_a_time_whatever_the_number_of_images(trained, monkeypatch):
    model, images = trained
    expected = likelihood.quadrature(model, images)
    sizes = []

    def log_likelihoods(logits, x):
        sizes.append(max(logits.numel(), len(logits) * len(x)))
        return original(logits, x)

    original = likelihood.log_likelihoods
    monkeypatch.setattr(likelihood, "log_likelihoods", log_likelihoods)
    monkeypatch.setattr(likelihood, "TERMS", 50_000)
    torch.testing.assert_close(likelihood.quadrature(model, images), expected, atol=0.03, rtol=0)
    assert max(sizes) <= 50_000


@pytest.mark.parametrize("name", MODELS)
def test_lattice_holds_all_of_prior(name):
    model = small_model(name, 2)
    lattice = likelihood.lattice(model, 5)
    assert lattice.log_mass.exp().sum().item() == pytest.approx(1, abs=1e-3)
    mean = (lattice.log_mass.exp().unsqueeze(1) * lattice.z).sum(0)
    torch.testing.assert_close(mean, model.prior.components()[0].mean(0), atol=0.01, rtol=0)


def test_log_joint_over_lattice_sums_to_log_p(trained):
    model, images = trained
    log_joint = likelihood.log_joint(model, likelihood.lattice(model, 20), images[::30])
    expected = likelihood.quadrature(model, images[::30])
    torch.testing.assert_close(log_joint.logsumexp(1), expected, atol=0.05, rtol=0)


@pytest.mark.parametrize("latent_dim", [1, 2])
def test_estimate_with_few_latents_is_quadrature(latent_dim):
    model = random_vae(latent_dim)
    images = random_images(8, 784)
    log_p, k, log_p_tenth = likelihood.estimate(model, images, images)
    assert torch.equal(log_p, likelihood.quadrature(model, images))
    assert k is log_p_tenth is None


def test_estimate_with_more_latents_has_a_tenth_of_the_samples_beside_it():
    model = random_vae(3)
    images = random_images(8, 784)
    log_p, k, log_p_tenth = likelihood.estimate(model, images, images, k=200)
    assert k == 200
    source = generator(likelihood.EVALUATION_SEED)
    assert torch.equal(log_p_tenth, likelihood.importance_sampling(model, model.encode, images, 20, source))
    assert log_p_tenth.mean() < log_p.mean()
    assert likelihood.estimate(model, images, images).k == likelihood.MOST_SAMPLES


def test_wae_of_three_latents_is_sampled_around_its_codes():
    torch.manual_seed(0)
    images = random_images(8, 784)
    estimate = likelihood.estimate(WAE(3, (8,)), images, images, k=20)
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
    assert likelihood.proposal_of(model, random_images(2, 784)) == model.encode


def test_proposal_around_code_has_width_of_posterior(gaussian_pixels):
    weight = torch.zeros(5, 2)
    weight[:2] = math.sqrt(VARIANCE * (100 - 1)) * torch.eye(2)  # a posterior of width 0.1 in every direction
    model = LinearGaussian(weight)
    images = random_images(500, 5)
    proposal = likelihood.proposal_of(model, images)
    mu, logvar = proposal(pixels(images))
    torch.testing.assert_close(mu, model.encode(pixels(images))[0])
    assert torch.exp(0.5 * logvar).unique().item() == pytest.approx(0.1, rel=0.3)


def test_affordable_samples_shrink_with_images_and_network():
    model = random_vae(2)
    assert likelihood.affordable_samples(model, 60) == likelihood.MOST_SAMPLES
    few = likelihood.affordable_samples(model, 10_000)
    assert likelihood.affordable_samples(VAE(2, (400, 20)), 10_000) < few
    assert likelihood.affordable_samples(model, 10**9) == likelihood.LEAST_SAMPLES
