"""Moments and quantiles of priors, and the grid of the paper's Figure 4."""

import pytest
import torch

import pictures
from model import StandardNormal
from support.latent import units
from support.seeds import generator
from variants import priors
from variants.priors import Mixture


def mixture(means, deviations):
    """A mixture of Gaussians whose components have the same standard deviation in each dimension."""
    prior = Mixture(len(means[0]), len(means))
    prior.mu.data = torch.tensor(means)
    prior.logvar.data = 2 * torch.tensor(deviations).log().unsqueeze(1).expand_as(prior.mu)
    return prior


THREE = mixture([[-3.0, 0.0], [1.0, 2.0], [2.0, -1.0]], [0.5, 1.0, 2.0])


def test_moments_of_standard_normal_are_zero_and_one():
    mean, deviation = priors.moments(StandardNormal(3))
    assert mean.tolist() == [0, 0, 0]
    assert deviation.tolist() == [1, 1, 1]


@torch.no_grad()
def test_moments_of_mixture_are_those_of_its_draws():
    draws = THREE.sample(100_000, generator(0))
    mean, deviation = priors.moments(THREE)
    torch.testing.assert_close(mean, draws.mean(0), atol=0.03, rtol=0)
    torch.testing.assert_close(deviation, draws.std(0), atol=0.03, rtol=0)


def test_quantiles_of_standard_normal_are_its_inverse_cdf():
    u = torch.rand(500, 2, generator=generator(0)).clamp(1e-4, 1 - 1e-4)
    torch.testing.assert_close(priors.quantiles(StandardNormal(2), u), torch.special.ndtri(u), atol=1e-4, rtol=1e-4)


def test_quantiles_of_distant_components_keep_to_their_shares():
    prior = mixture([[-20.0], [20.0]], [1.0, 1.0])
    z = priors.quantiles(prior, torch.tensor([[0.25], [0.75]]))  # the medians of the two components
    torch.testing.assert_close(z, torch.tensor([[-20.0], [20.0]]), atol=1e-4, rtol=0)


@torch.no_grad()
def test_quantiles_of_uniform_numbers_are_draws_of_the_prior():
    z = priors.quantiles(THREE, torch.rand(20_000, 2, generator=generator(0)))
    draws = THREE.sample(20_000, generator(1))
    torch.testing.assert_close(z.mean(0), draws.mean(0), atol=0.08, rtol=0)
    torch.testing.assert_close(z.T.cov(), draws.T.cov(), atol=0.25, rtol=0)


def test_grid_has_first_coordinate_to_the_right_and_second_upwards():
    z = pictures.manifold_grid(StandardNormal(2), torch.zeros(5, 2)).view(pictures.SIDE, pictures.SIDE, 2)
    edge = torch.special.ndtri(torch.tensor(0.5 / pictures.SIDE)).item()
    upper_left, upper_right, lower_left = z[0, 0], z[0, -1], z[-1, 0]
    assert upper_left.tolist() == pytest.approx([edge, -edge], abs=1e-4)
    assert upper_right.tolist() == pytest.approx([-edge, -edge], abs=1e-4)
    assert lower_left.tolist() == pytest.approx([edge, edge], abs=1e-4)


@pytest.mark.parametrize("latent_dim", [1, 2, 5])
def test_grid_covers_the_prior_evenly(latent_dim):
    mu = torch.randn(100, latent_dim, generator=generator(0))
    z = pictures.manifold_grid(StandardNormal(latent_dim), mu)
    assert z.shape == (pictures.SIDE**2, latent_dim)
    assert z.mean().abs() < 1e-3
    assert 2.5 < z.norm(dim=1).max() < 3.5


def test_grid_of_one_dimension_is_in_reading_order():
    z = pictures.manifold_grid(StandardNormal(1), torch.zeros(5, 1)).flatten()
    assert (z.diff() > 0).all()


def test_grid_of_many_dimensions_lies_in_principal_plane():
    mu = torch.randn(2000, 4, generator=generator(0)) * torch.tensor([1.0, 5.0, 0.1, 3.0])
    z = pictures.manifold_grid(StandardNormal(4), mu)
    assert z[:, [0, 2]].abs().max() < 0.5
    assert z[:, [1, 3]].std(0).min() > 0.9


def test_active_units_are_latents_whose_mean_varies():
    mu = torch.randn(1000, 4, generator=generator(0)) * torch.tensor([1.0, 0.2, 0.05, 0.0])
    assert units.active_units(mu) == 2
