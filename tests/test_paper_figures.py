"""What the paper's figures need besides its Figure 2 on MNIST: Gaussian pixels, Hamiltonian Monte Carlo, appendix D."""

import argparse
import math
from pathlib import Path

import pytest
import scipy.io
import torch
from linear_gaussian import VARIANCE, LinearGaussian, negative_log_density
from torch.distributions import MultivariateNormal, Normal

from inference import hmc, lattice
from inference.gaussian_vae import GaussianVAE
from model import VAE
from studies import frey, marginal, paper
from support.data import datasets
from support.errors import UserError
from support.latent import likelihood
from support.run.config import default_data_dir
from support.seeds import generator


def gaussian_vae(variance, floor=0.0, scale=1.0):
    """A small GaussianVAE with random weights."""
    model = GaussianVAE(2, 5, 7, variance, floor)
    for parameter in model.parameters():
        parameter.data = scale * torch.randn(parameter.shape, generator=generator(0))
    return model


@torch.no_grad()
@pytest.mark.parametrize(("variance", "floor"), [("image", 0.0), ("pixel", 0.0), ("shared", 0.0), ("image", 0.7)])
def test_gaussian_decoder_has_the_log_likelihood_of_pytorch(variance, floor):
    model = gaussian_vae(variance, floor)
    z, x = torch.randn(4, 2, generator=generator(1)), torch.rand(6, 7, generator=generator(2))
    hidden = torch.relu(model.decoder[0](z))
    logvar = model.variance(hidden) if variance == "image" else model.free_variance.expand(4, 7)
    deviation = (logvar.exp() + floor**2).sqrt()
    expected = Normal(model.decode(z).sigmoid(), deviation).log_prob(x[:4]).sum(1)
    torch.testing.assert_close(-model.energy(z, x[:4]), expected, atol=1e-3, rtol=1e-4)
    pairs = torch.stack([model.prior.log_prob(z) - model.energy(z, image.expand(4, 7)) for image in x])
    torch.testing.assert_close(model.log_joint(x, z), pairs, atol=1e-3, rtol=1e-4)


@torch.no_grad()
def test_draws_of_the_gaussian_decoder_have_its_mean_and_deviation():
    model = gaussian_vae("image", scale=0.3)
    torch.manual_seed(0)
    z = torch.tensor([[0.5, -1.0]])
    mean, logvar = model.decode_both(z)
    draws = model.draw(z.expand(20_000, 2))
    torch.testing.assert_close(draws.mean(0), mean[0], atol=0.05, rtol=0)
    torch.testing.assert_close(draws.std(0), (0.5 * logvar[0]).exp(), atol=0.05, rtol=0)


@torch.no_grad()
def test_quadrature_of_gaussian_pixels_is_exact_if_z_does_not_matter():
    model = gaussian_vae("pixel")
    model.decoder[0].weight.zero_()
    images = torch.randint(256, (3, 7), generator=generator(1)).to(torch.uint8)
    mean, logvar = model.decode_both(torch.zeros(1, 2))
    expected = Normal(mean, (0.5 * logvar).exp()).log_prob(datasets.pixels(images)).sum(1)
    torch.testing.assert_close(lattice.log_p(model.log_joint, images, 2, 5).float(), expected, atol=1e-3, rtol=1e-4)


@torch.no_grad()
def test_sum_over_a_lattice_is_quadrature():
    torch.manual_seed(0)
    model = VAE(2, (8,), 6)
    model.decoder[-1].weight *= 5
    images = torch.randint(256, (7, 6), generator=generator(5)).to(torch.uint8)
    expected = likelihood.quadrature(model, images)
    torch.testing.assert_close(marginal.exact(model, images, marginal.CELLS).float(), expected, atol=0.05, rtol=0)


def test_hmc_on_a_gaussian_has_its_mean_covariance_and_acceptance():
    target = MultivariateNormal(torch.tensor([1.0, -2.0]), torch.tensor([[1.0, 0.6], [0.6, 0.5]]))
    for has_own_steps in (False, True):
        plan = hmc.Plan(burn_in=150, has_own_steps=has_own_steps)
        points, accepted = hmc.sample(target.log_prob, torch.zeros(600, 2), 60, plan, generator(0))
        assert points.z.shape == (60, 600, 2)
        draws = points.z.flatten(0, 1)
        torch.testing.assert_close(draws.mean(0), target.mean, atol=0.05, rtol=0)
        torch.testing.assert_close(draws.T.cov(), target.covariance_matrix, atol=0.05, rtol=0)
        torch.testing.assert_close(points.log_density, target.log_prob(points.z))
        assert accepted.mean().item() == pytest.approx(0.9, abs=0.04)


def test_trajectory_into_a_place_without_density_is_refused():
    def log_density(z):
        return torch.where(z[:, 0] > 0, -0.5 * z.square().sum(1), -math.inf)

    points, _ = hmc.sample(log_density, torch.ones(50, 1), 50, hmc.Plan(), generator(0))
    assert (points.z > 0).all()
    assert points.z.mean().item() == pytest.approx((2 / math.pi) ** 0.5, abs=0.1)  # of a half normal


@pytest.mark.parametrize("is_diagonal", [False, pytest.param(True, marks=pytest.mark.slow)])
def test_estimate_of_appendix_d_is_exact_for_a_linear_gaussian_model(is_diagonal, monkeypatch):
    monkeypatch.setattr(marginal, "bce", negative_log_density)
    model = LinearGaussian(0.3 * torch.randn(12, 3, generator=generator(0)))
    x = model.decode(torch.randn(20, 3, generator=generator(2)))
    x = x + VARIANCE**0.5 * torch.randn(20, 12, generator=generator(1))
    trial = marginal.Trial(draws=400, is_diagonal=is_diagonal)
    found, accepted = marginal.estimate(marginal.log_joint(model, x), model.encode(x)[0], trial, generator(3))
    assert found.mean().item() == pytest.approx(model.log_prob(x).mean().item(), abs=0.05)
    assert accepted.mean().item() == pytest.approx(0.9, abs=0.06)


@torch.no_grad()
def test_lattice_knows_peaks_and_modes():
    """Logits that are linear in z give a posterior of one mode; logits of its square one of two."""
    torch.manual_seed(0)
    model = VAE(2, (8,), 6)
    images = torch.tensor([[255, 255, 255, 0, 0, 0]], dtype=torch.uint8)
    weight = torch.tensor([[3.0, 3, 3, -3, -3, -3], [0.5, 0, 0, 0, 0, 0]])
    model.decode = lambda z: z @ weight
    starts, has_several = marginal.find_starts_and_modes(model, images, 20)
    assert has_several.tolist() == [False]
    peak = starts["the posterior's peak"]
    assert peak[0, 0] > 0.5
    model.decode = lambda z: (z.square() - 0.5) @ weight
    _, has_several = marginal.find_starts_and_modes(model, images, 20)
    assert has_several.tolist() == [True]


@pytest.mark.slow
def test_monte_carlo_em_raises_log_p_without_an_encoder(small_mnist):
    dataset = datasets.load("mnist", small_mnist)

    def log_p(model, images, test_images):
        return {"train": marginal.exact(model, images[:20], marginal.QUICK_CELLS).mean().item()}

    (first, last), model = marginal.train_curve(dataset, "MCEM", 0.02, [500, 4000], log_p)
    assert (first["images"], last["images"]) == (500, 4000)
    assert last["train"] > first["train"] + 5
    assert model.encoder[0].weight.abs().max() < 0.06, "the encoder is not trained"


def test_folds_of_frey_face_are_disjoint_and_the_last_one_ends_the_film(monkeypatch):
    frames = torch.arange(100).unsqueeze(1).to(torch.uint8)
    monkeypatch.setattr(frey, "read", lambda data_dir: frames)
    flags = argparse.Namespace(quick=False, data_dir=None)
    for split in ("film", "random"):
        folds = [frey.load(flags, split, fold) for fold in range(frey.FOLDS)]
        assert torch.cat([fold.test_images for fold in folds]).unique().numel() == 100
        for fold in folds:
            assert not set(fold.test_images.flatten().tolist()) & set(fold.train_images.flatten().tolist())
    assert frey.load(flags, "film").test_images.flatten().tolist() == list(range(80, 100))


def write_mat(folder, frames):
    """Write a frey_rawface.mat with these frames."""
    scipy.io.savemat(folder / frey.FILE, {"ff": frames})


def test_frey_face_is_read_frame_by_frame(tmp_path):
    frames = torch.randint(256, (560, frey.FRAMES)).to(torch.uint8)
    (tmp_path / "FreyFace").mkdir()
    write_mat(tmp_path / "FreyFace", frames.numpy())
    assert torch.equal(frey.read(tmp_path), frames.T)


@pytest.mark.parametrize("damage", ["missing", "empty", "noise", "cut", "transposed", "other name", "folder"])
def test_missing_or_other_file_ends_in_a_line_that_says_where_it_comes_from(tmp_path, damage):
    path = tmp_path / frey.FILE
    frames = torch.zeros(560, frey.FRAMES, dtype=torch.uint8)
    if damage == "folder":
        path.mkdir()
    elif damage != "missing":
        write_mat(tmp_path, (frames.T if damage == "transposed" else frames).numpy())
        content = {"empty": b"", "noise": bytes(range(256)) * 9, "cut": path.read_bytes()[:5000]}
        if damage in content:
            path.write_bytes(content[damage])
    if damage == "other name":
        scipy.io.savemat(path, {"faces": frames.numpy()})
    with pytest.raises(UserError) as caught:
        frey.read(tmp_path)
    assert "\n" not in str(caught.value)
    for word in (frey.FILE, "Sam Roweis", "--data_dir", "FreyFace"):
        assert word in str(caught.value)


def test_real_frames_are_a_film():
    path = Path(default_data_dir()) / "FreyFace" / frey.FILE
    if not path.exists():
        pytest.skip("Frey Face is not here")
    frames = frey.read(default_data_dir()).float()
    assert frames.shape == (1965, 560)
    assert (frames[1:] - frames[:-1]).abs().mean() < 15
    assert (frames[1:] - frames[torch.randperm(1964)]).abs().mean() > 20


def test_paper_s_networks_have_its_decoders():
    assert isinstance(paper.build(paper.Run("AEVB", 2, split="random"), 560), GaussianVAE)
    assert isinstance(paper.build(paper.Run("AEVB", 2), 784), paper.BernoulliVAE)
