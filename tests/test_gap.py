"""The study of the gap between log p(x) and the bound: its ELBO, its best Gaussians, and its held-out images."""

import argparse
import dataclasses

import pytest
import torch

from model import VAE, bce, kld, log_normal
from studies import common, gap
from support.data import datasets
from support.errors import UserError
from support.latent import likelihood
from support.seeds import generator

pytestmark = pytest.mark.exact_log_p


@pytest.fixture
def model():
    """A VAE of images of six pixels whose encoder and decoder vary with their input as much as trained ones."""
    model = VAE(latent_dim=2, hidden_dims=(8,), image_dim=6).requires_grad_(False)
    source = generator(4)
    for parameter in model.parameters():
        parameter.copy_(torch.randn(parameter.shape, generator=source))
    model.encoder[-1].weight.mul_(0.2)  # the prior reaches as far as each q(z|x)
    return model


@pytest.fixture
def images():
    """Seven images of six pixels."""
    return torch.randint(256, (7, 6), generator=generator(5)).to(torch.uint8)


def test_gap_is_the_divergence_of_q_from_the_posterior(model, images):
    measured = gap.measure(model, images, detailed=False)
    lattice = likelihood.lattice(model, 40)
    log_posterior = likelihood.log_joint(model, lattice, images).log_softmax(1)
    mu, logvar = model.encode(datasets.pixels(images))
    log_volume = lattice.log_mass - model.prior.log_prob(lattice.z)
    log_q = log_normal(lattice.z, mu.unsqueeze(1), logvar.unsqueeze(1)) + log_volume
    divergence = (log_q.exp() * (log_q - log_posterior)).sum(1)
    assert log_q.exp().sum(1) == pytest.approx(1, abs=1e-3), "the lattice is fine and wide enough"
    assert measured.gap == pytest.approx(divergence, abs=0.03)


def test_best_gaussian_is_the_prior_if_the_decoder_ignores_z(model, images):
    model.decoder[0].weight.zero_()
    mu, logvar, elbo = gap.gaussians.best_gaussians(model, images, gap.gaussians.posterior_peaks(model, images))
    assert kld(mu, logvar) == pytest.approx(0, abs=1e-3)
    assert elbo == pytest.approx(likelihood.quadrature(model, images), abs=0.01)


def test_best_gaussian_lies_between_the_encoder_and_log_p(model, images):
    measured = gap.measure(model, images, detailed=True)
    assert (measured.best >= measured.elbo).all()
    assert (measured.best <= measured.log_p + 0.03).all()
    figures = measured.summary()
    assert figures["approximation"] == pytest.approx((measured.log_p - measured.best).mean().item())
    assert figures["approximation"] > -0.03
    assert figures["amortisation"] >= 0


def test_posterior_peaks_where_no_other_z_is_more_probable(model, images):
    z = gap.gaussians.posterior_peaks(model, images)
    mesh = torch.cartesian_prod(*[torch.arange(-4, 4, 0.03)] * 2)

    def log_posterior(x, z):
        return model.prior.log_prob(z) - bce(model.decode(z), x.expand(len(z), -1))

    for x, peak in zip(datasets.pixels(images), z, strict=True):
        assert log_posterior(x, mesh).max() <= log_posterior(x, peak.unsqueeze(0)) + 0.01


def test_finished_run_is_not_trained_again(small_mnist, tmp_path, monkeypatch):
    dataset = datasets.load("mnist", small_mnist)
    monkeypatch.setattr(gap.common, "load_dataset", lambda flags: dataset)
    flags = argparse.Namespace(results_dir=tmp_path, quick=True, overwrite=False)
    config = dataclasses.replace(gap.SHORT, epochs=1, hidden_dims=(4,), input_dropout=0.2)
    run = gap.Run(config, held_out=True)
    gap.measure_run(flags, run)
    row = gap.read_row(run, flags)
    assert row.total == pytest.approx(row.bce + row.kld)
    assert row.gap > 0 and row.train_gap > 0

    monkeypatch.delattr(gap.train, "begin")
    gap.measure_run(flags, run)
    assert gap.read_row(run, flags) == row

    monkeypatch.setattr(gap, "TRAIN_IMAGES", 30)  # the file holds what was measured on more
    with pytest.raises(UserError, match="other settings or other code; --overwrite"):
        gap.measure_run(flags, run)


def test_held_out_images_are_the_last_ones_and_do_not_train(small_mnist):
    whole = datasets.load("mnist", small_mnist)
    part = common.hold_out(whole, 50)
    assert len(part.train_images) == len(part.train_labels) == 250
    assert torch.equal(torch.cat([part.train_images, part.test_images]), whole.train_images)
    assert torch.equal(torch.cat([part.train_labels, part.test_labels]), whole.train_labels)
