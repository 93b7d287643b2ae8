"""The studies of estimates: annealing, mixtures with a Laplace approximation, the choice of an epoch, grey pixels."""

import argparse
import dataclasses
import math

import pytest
import torch
from linear_gaussian import VARIANCE, LinearGaussian, negative_log_density

import train
from inference import annealing
from model import VAE
from studies import common, epoch, estimators
from studies import pixels as grey_pixels
from support.data import datasets
from support.latent import likelihood
from support.seeds import generator

pytestmark = pytest.mark.exact_log_p


@pytest.fixture
def gaussian(monkeypatch):
    """A linear model of ten latents with Gaussian pixels, and 20 images of it."""
    for module in (annealing, estimators):
        monkeypatch.setattr(module, "bce", negative_log_density)
    model = LinearGaussian(0.3 * torch.randn(12, 10, generator=generator(0)))
    noise = torch.randn(20, 12, generator=generator(1))
    return model, model.decode(torch.randn(20, 10, generator=generator(2))) + VARIANCE**0.5 * noise


def test_annealing_from_the_prior_is_exact_with_ten_latents(gaussian):
    model, x = gaussian
    prior = (torch.zeros(20, 10), torch.zeros(20, 10))
    log_p = annealing.log_p(model, x, prior, 32, 600, generator(3))
    assert log_p.mean().item() == pytest.approx(model.log_prob(x).mean().item(), abs=0.05)


def test_annealing_with_one_temperature_is_importance_sampling(gaussian):
    model, x = gaussian
    mu, logvar = model.encode(x)
    log_p = annealing.log_p(model, x, (mu, logvar), 1000, 1, generator(3))
    z = mu + torch.exp(0.5 * logvar) * torch.randn(1000, 20, 10, generator=generator(3))
    log_weights = model.prior.log_prob(z) - negative_log_density(model.decode(z), x)
    log_weights -= annealing.log_normal(z, mu, logvar)
    torch.testing.assert_close(log_p, log_weights.logsumexp(0) - math.log(1000), atol=1e-3, rtol=0)


def test_density_of_a_gaussian_with_a_factor_is_that_of_pytorch():
    factor = torch.randn(3, 4, 4, generator=generator(0)).tril()
    factor.diagonal(dim1=1, dim2=2).abs_()
    mean = torch.randn(3, 4, generator=generator(1))
    z = torch.randn(5, 3, 4, generator=generator(2))
    expected = torch.distributions.MultivariateNormal(mean, scale_tril=factor).log_prob(z)
    torch.testing.assert_close(estimators.log_density(z, mean, factor), expected, atol=1e-3, rtol=1e-4)


@torch.no_grad()
@pytest.mark.parametrize("gaussians", [estimators.five_shares, estimators.laplace, estimators.laplace_and_encoder])
def test_every_mixture_is_near_quadrature(gaussians):
    torch.manual_seed(0)
    model = VAE(2, (8,), 6)
    model.decoder[-1].weight *= 5
    images = torch.randint(256, (7, 6), generator=generator(5)).to(torch.uint8)
    estimate = estimators.mixture(gaussians, model, images, 10_000)
    torch.testing.assert_close(estimate.log_p, likelihood.quadrature(model, images), atol=0.05, rtol=0)
    assert (estimate.ess > 200).all()


def test_epoch_is_chosen_on_images_that_do_not_train(small_mnist, tmp_path, monkeypatch):
    dataset = datasets.load("mnist", small_mnist)
    monkeypatch.setattr(epoch.common, "load_dataset", lambda flags: dataset)
    monkeypatch.setattr(common, "DOCUMENTED", dataclasses.replace(common.DOCUMENTED, hidden_dims=(4,)))
    monkeypatch.setattr(epoch, "QUICK_HELD_OUT", 50)
    flags = argparse.Namespace(results_dir=tmp_path, quick=True, overwrite=False)
    totals = {
        60: iter([3.0, 9.0]),
        50: iter([9.0, 3.0]),
    }  # by the images that are evaluated: the test set is best first
    begin, trained = train.begin, []

    def evaluate(model, images):
        return train.Evaluation(next(totals[len(images)]), 0.0, None, None)

    def begin_and_tell(config, data):
        trained.append(data.train_images)
        return begin(config, data)

    monkeypatch.setattr(train, "evaluate", evaluate)
    monkeypatch.setattr(train, "begin", begin_and_tell)
    row = epoch.measure(1, flags)
    assert torch.equal(*trained, dataset.train_images[:250])
    assert (row.best_epoch, row.best, row.chosen_epoch, row.chosen) == (1, 3, 2, 9)
    assert row.optimism == 6
    monkeypatch.delattr(train, "begin")
    assert epoch.measure(1, flags) == row, "a trained seed is found in its file"


@torch.no_grad()
def test_normaliser_of_a_continuous_bernoulli_makes_its_density_integrate_to_one():
    logits = torch.tensor([-30.0, -2.0, 0.0, 1e-5, 0.3, 12.0])
    x = torch.linspace(0, 1, 20_001, dtype=torch.double).unsqueeze(1)
    log_density = x * logits - torch.nn.functional.softplus(logits.double()) + grey_pixels.log_normalisers(logits)
    integral = torch.trapezoid(log_density.exp(), x, dim=0)
    assert integral.tolist() == pytest.approx([1] * 6, abs=1e-3)
