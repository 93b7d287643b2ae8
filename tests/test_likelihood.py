"""log p(x) by quadrature and by importance sampling, against models whose log p(x) is known."""

import copy
import math

import pytest
import torch
from linear_gaussian import VARIANCE, LinearGaussian, negative_log_density
from scipy.integrate import simpson
from torch.distributions import (
    Bernoulli,
    Categorical,
    Independent,
    MixtureSameFamily,
    MultivariateNormal,
    Normal,
)

from model import VAE, bce
from support.data.datasets import pixels
from support.latent import likelihood
from support.seeds import generator
from variants.priors import Mixture, VampPrior
from variants.wae import WAE

pytestmark = pytest.mark.exact_log_p
MODELS = ("normal", "mixture", "vamp", "wae")


@pytest.fixture
def gaussian_pixels(monkeypatch):
    """Replace the Bernoulli pixels of log p(x|z) by Gaussian ones."""
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
def test_quadrature_of_linear_gaussian_model_is_exact(gaussian_pixels, monkeypatch, latent_dim, scale):
    """The posterior lies up to five deviations of the prior away; at scale 10 it is as narrow as the finest cells."""
    model = LinearGaussian(scale * torch.randn(5, latent_dim, generator=generator(0)))
    z = torch.linspace(-5, 5, 21).unsqueeze(1).expand(-1, latent_dim) / latent_dim**0.5
    images = model.decode(z)
    monkeypatch.setattr(likelihood, "pixels", lambda images: images)
    tolerance = 0.2 if scale == 10 else 0.02
    torch.testing.assert_close(likelihood.quadrature(model, images), model.log_prob(images), atol=tolerance, rtol=1e-4)


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


@pytest.mark.parametrize("finer_or_wider", [{"TOLERANCE": 0.001}, {"TILE_CELLS": 100}, {"EXTENTS": (9,)}])
def test_finer_and_wider_lattice_gives_same_log_p(trained, monkeypatch, finer_or_wider):
    model, images = trained
    log_p = likelihood.quadrature(model, images).mean().item()
    for name, value in finer_or_wider.items():
        monkeypatch.setattr(likelihood, name, value)
    assert likelihood.quadrature(model, images).mean().item() == pytest.approx(log_p, abs=0.01)


def test_quadrature_lies_above_bound_and_importance_sampling(trained):
    model, images = trained
    reconstruction, divergence, *_ = model(pixels(images), torch.randn(100, 2, generator=generator(0)))
    sampled = likelihood.importance_sampling(model, likelihood.Proposal(), images, 20, generator(0)).log_p
    exact = likelihood.quadrature(model, images)
    assert -(reconstruction + divergence).mean() < sampled.mean() < exact.mean()


def test_quadrature_holds_few_terms_at_a_time_whatever_the_number_of_images(trained, monkeypatch):
    model, images = trained
    expected = likelihood.quadrature(model, images)
    sizes = []

    def log_likelihoods(logits, x):
        sizes.append(len(logits) * len(x))
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


@torch.no_grad()
def test_grey_figure_is_below_the_mean_over_binarisations_by_their_mean_divergence():
    """All 64 binary images of six pixels; the lattice makes every sum over z exact."""
    model = small_model("normal", 2, (4,))
    model.decoder[-1].weight *= 5
    lattice = likelihood.lattice(model, 10)
    binary = torch.cartesian_prod(*[torch.tensor([0, 255], dtype=torch.uint8)] * 6)
    grey = random_images(1, 6)
    log_joint = likelihood.log_joint(model, lattice, binary)
    log_p = log_joint.logsumexp(1)
    assert log_p.exp().sum().item() == pytest.approx(1, abs=1e-3)
    torch.testing.assert_close(likelihood.quadrature(model, binary), log_p, atol=0.01, rtol=0)

    ink = pixels(grey)
    shares = torch.where(binary > 0, ink, 1 - ink).prod(1)  # of each binarisation, if pixels are drawn
    log_posterior = likelihood.log_joint(model, lattice, grey).log_softmax(1)
    divergence = (log_posterior.exp() * (log_posterior - log_joint.log_softmax(1))).sum(1)
    gap = shares @ log_p - likelihood.quadrature(model, grey)
    assert gap.item() > 0.01
    torch.testing.assert_close(gap, (shares @ divergence).view(1), atol=2e-3, rtol=0)


@pytest.mark.parametrize("latent_dim", [1, 2])
def test_estimate_with_few_latents_is_quadrature(latent_dim):
    model = random_vae(latent_dim)
    images = random_images(8, 784)
    log_p, k, ess = likelihood.estimate(model, images)
    assert torch.equal(log_p, likelihood.quadrature(model, images))
    assert k is ess is None


@torch.no_grad()
def test_estimate_with_more_latents_is_near_importance_sampling_with_many_draws():
    model = random_vae(3)
    images = random_images(8, 784)
    log_p, k, ess = likelihood.estimate(model, images, k=200)
    many = likelihood.importance_sampling(model, likelihood.Proposal(prior_draws=1000), images, 1000, generator(1))
    torch.testing.assert_close(log_p, many.log_p, atol=0.1, rtol=0)
    assert k == 200
    assert (ess > 20).all()


def test_displaced_encoder_is_corrected_by_the_draws_of_the_prior(trained):
    """Every mean lies four of its deviations off. The encoder's q alone is nats too low, and quadrature knows."""
    model, images = trained
    displaced = copy.deepcopy(model)
    displaced.encode = lambda x: (model.encode(x)[0] + 4 * torch.exp(0.5 * model.encode(x)[1]), model.encode(x)[1])
    exact = likelihood.quadrature(displaced, images).mean()
    alone = likelihood.importance_sampling(displaced, likelihood.Proposal(), images, 100, generator(0)).log_p.mean()
    proposal = likelihood.fit_proposal(displaced, images, 100)
    mixed = likelihood.importance_sampling(displaced, proposal, images, 100, generator(0)).log_p.mean()
    assert alone < exact - 0.5
    assert mixed.item() == pytest.approx(exact.item(), abs=0.1)
    assert proposal.widening > 1


def test_wae_of_three_latents_is_sampled_around_its_codes():
    torch.manual_seed(0)
    images = random_images(8, 784)
    estimate = likelihood.estimate(WAE(3, (8,)), images, k=20)
    assert estimate.log_p.isfinite().all()


@torch.no_grad()
@pytest.mark.parametrize("name", ["normal", "mixture"])
def test_proposal_is_the_mixture_of_what_is_drawn(name):
    """Against PyTorch's own mixture, with weights 3, 2 and 5 of 10."""
    model = small_model(name, 3)
    x = pixels(random_images(1, 6))
    mu, logvar = model.encode(x)
    z = torch.randn(7, 1, 3, generator=generator(0))
    own = [Normal(mu, factor * torch.exp(0.5 * logvar)).log_prob(z).sum(2) for factor in (1, 2)]
    log_prior = model.prior.log_prob(z.squeeze(1)).unsqueeze(1)
    expected = (0.3 * own[0].exp() + 0.2 * own[1].exp() + 0.5 * log_prior.exp()).log()
    log_ratio = likelihood.log_prior_over_proposal(model, likelihood.Proposal(1.0, 2.0, 5), z, (mu, logvar), 5)
    torch.testing.assert_close(log_prior - log_ratio, expected)


def test_effective_sample_size_counts_the_draws_that_matter():
    one_hot = torch.full((50,), -1000.0)
    one_hot[7] = 3
    log_weights = torch.stack([torch.full((50,), -123.0), one_hot, torch.arange(50) // 25 * -1000.0], 1)
    assert likelihood.effective_sample_size(log_weights).tolist() == pytest.approx([50, 1, 25], rel=1e-4)


@pytest.mark.parametrize("proposal", [(), (1.0, 3.0), (1.0, 2.0, 2000)])
def test_sampling_for_linear_gaussian_model_is_exact(gaussian_pixels, proposal):
    images = random_images(20, 5)
    model = LinearGaussian(torch.randn(5, 2, generator=generator(0)), widening=1.5)
    expected = model.log_prob(pixels(images))
    estimate = likelihood.importance_sampling(model, likelihood.Proposal(*proposal), images, 5000, generator(0))
    torch.testing.assert_close(estimate.log_p, expected, atol=0.1, rtol=0)


def test_sampling_with_one_sample_is_lower_on_average(gaussian_pixels):
    images = random_images(20, 5).repeat(500, 1)
    model = LinearGaussian(torch.randn(5, 2, generator=generator(0)), widening=1.5)
    one = likelihood.importance_sampling(model, likelihood.Proposal(), images, 1, generator(0)).log_p.view(500, 20)
    assert (one.mean(0) < model.log_prob(pixels(images[:20]))).all()


def test_sampling_with_true_posterior_needs_one_sample(gaussian_pixels):
    weight = torch.zeros(5, 2)
    weight[:2] = 0.5 * torch.eye(2)  # the posterior is then diagonal, as the encoder is
    model = LinearGaussian(weight)
    images = random_images(20, 5)
    estimate = likelihood.importance_sampling(model, likelihood.Proposal(), images, 1, generator(0))
    torch.testing.assert_close(estimate.log_p, model.log_prob(pixels(images)), atol=1e-3, rtol=0)
    assert estimate.ess.tolist() == pytest.approx([1] * 20)


@torch.no_grad()
def test_sampling_for_vae_is_integral_over_z():
    model = random_vae()
    images = random_images(5, 784)
    z = torch.linspace(-8, 8, 4001).unsqueeze(1)
    logits = model.decode(z)
    log_likelihoods = torch.stack([-bce(logits, x.expand_as(logits)) for x in pixels(images)])
    integral = (log_likelihoods + model.prior.log_prob(z)).logsumexp(1) + math.log(16 / 4000)
    estimate = likelihood.importance_sampling(model, likelihood.Proposal(), images, 3000, generator(0))
    torch.testing.assert_close(estimate.log_p, integral, atol=0.05, rtol=0)


def test_sampling_does_not_depend_on_chunks(monkeypatch):
    """Neither that of the images nor that of the samples changes the formula, only the order of the draws."""
    model = random_vae()
    images = random_images(8, 784)
    whole = likelihood.importance_sampling(model, likelihood.Proposal(), images, 2500, generator(0)).log_p
    monkeypatch.setattr(likelihood, "CHUNK", 3)
    monkeypatch.setattr(likelihood, "DRAWS", 400)
    parts = likelihood.importance_sampling(model, likelihood.Proposal(), images, 2500, generator(1)).log_p
    assert parts.shape == (8,)
    torch.testing.assert_close(parts, whole, atol=0.1, rtol=0)


def test_sampling_follows_from_generator():
    model = random_vae(3)
    images = random_images(8, 784)
    proposal = likelihood.Proposal(1.0, 2.0, 10)
    estimates = [
        likelihood.importance_sampling(model, proposal, images, 5, generator(seed)).log_p for seed in (0, 0, 1)
    ]
    assert torch.equal(estimates[0], estimates[1])
    assert not torch.equal(estimates[0], estimates[2])


def test_proposal_widens_the_encoder_if_that_is_too_narrow(gaussian_pixels):
    images = random_images(60, 5)
    weight = torch.randn(5, 3, generator=generator(0))
    narrow, right = (
        likelihood.fit_proposal(LinearGaussian(weight, widening), images, 20).widening for widening in (0.3, 1.5)
    )
    assert narrow >= 3
    assert right < narrow


def test_proposal_around_code_has_width_of_posterior(gaussian_pixels, monkeypatch):
    weight = torch.zeros(5, 2)
    weight[:2] = math.sqrt(VARIANCE * (100 - 1)) * torch.eye(2)  # a posterior of width 0.1 in every direction
    model = LinearGaussian(weight)
    encode = model.encode
    monkeypatch.setattr(model, "encode", lambda x: (encode(x)[0], None))
    proposal = likelihood.fit_proposal(model, random_images(60, 5), 10)
    assert 0.03 < proposal.scale < 0.2
    assert 0.05 < proposal.widening * proposal.scale < 0.6


def test_affordable_samples_shrink_with_images_and_network():
    model = random_vae(2)
    assert likelihood.affordable_samples(model, 60) == likelihood.MOST_SAMPLES
    few = likelihood.affordable_samples(model, 10_000)
    assert likelihood.affordable_samples(VAE(2, (400, 20)), 10_000) < few
    assert likelihood.affordable_samples(model, 10**9) == likelihood.LEAST_SAMPLES
