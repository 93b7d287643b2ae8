"""The study of the paper's Figure 2: the gradients of the wake-sleep algorithm, and how the study continues."""

import argparse
import itertools
import math

import pytest
import torch

from model import bce, log_normal
from studies import paper
from support.data import datasets
from support.seeds import generator

LATTICE = torch.linspace(-20, 20, 1001).unsqueeze(1)  # of a z of one dimension
CELL = 40 / 1000
DREAMS = 400_000


@pytest.fixture
def tiny():
    """Networks small enough to enumerate: three pixels, two hidden units, one latent; weights of a trained size."""
    model = paper.tanh_vae(latent_dim=1, hidden_dim=2, image_dim=3)
    source = generator(3)
    for parameter in model.parameters():
        parameter.data = torch.randn(parameter.shape, generator=source)
    return model


def standard_normal(z):
    """The density of N(0, I) at z (G, 1): (G,)."""
    return log_normal(z, torch.zeros_like(z), torch.zeros_like(z)).exp()


def gradients(loss, network):
    """The gradient of a loss in a network's weights, as one vector."""
    return torch.cat([gradient.flatten() for gradient in torch.autograd.grad(loss, network.parameters())])


def test_wake_gradient_is_that_of_expected_log_joint(tiny):
    """The mean over eps of the wake loss has the gradient of E_q[-log p(x, z)], both by sums over a lattice."""
    image = torch.tensor([0.9, 0.2, 0.0]).expand(len(LATTICE), 3)
    wake, _ = paper.WakeSleep(tiny)(image, LATTICE)
    mine = gradients((wake * standard_normal(LATTICE) * CELL).sum(), tiny.decoder)

    with torch.no_grad():
        posterior = log_normal(LATTICE, *tiny.encode(image)).exp()
    assert posterior.sum().item() * CELL == pytest.approx(1)
    energy = bce(tiny.decode(LATTICE), image) - standard_normal(LATTICE).log()
    exact = gradients((posterior * energy * CELL).sum(), tiny.decoder)
    assert exact.abs().max() > 0.1
    assert torch.allclose(mine, exact, atol=1e-5)


def test_sleep_gradient_is_that_of_expected_log_posterior_of_dreams(tiny):
    """The sleep loss has the gradient of E_p(x,z)[-log q(z|x)], by a sum over all binary x and a lattice of z."""
    torch.manual_seed(0)
    _, sleep = paper.WakeSleep(tiny)(torch.zeros(DREAMS, 3), torch.zeros(DREAMS, 1))
    mine = gradients(sleep.mean(), tiny.encoder)

    binary = torch.tensor(list(itertools.product([0.0, 1.0], repeat=3))).unsqueeze(1).expand(8, len(LATTICE), 3)
    with torch.no_grad():
        likelihood = torch.exp(-bce(tiny.decode(LATTICE).expand(8, -1, -1), binary))
        joint = standard_normal(LATTICE) * likelihood * CELL  # (8, G)
    assert joint.sum().item() == pytest.approx(1)
    cross_entropy = -(joint * log_normal(LATTICE, *tiny.encode(binary))).sum()
    exact = gradients(cross_entropy, tiny.encoder)
    assert sleep.mean().item() == pytest.approx(cross_entropy.item(), abs=0.02)
    assert exact.abs().max() > 0.1
    assert torch.allclose(mine, exact, atol=0.02)


def test_wake_phase_trains_only_theta_and_sleep_phase_only_phi(tiny):
    wake, sleep = paper.WakeSleep(tiny)(torch.rand(5, 3), torch.randn(5, 1))
    for loss, own, other in ((wake, tiny.decoder, tiny.encoder), (sleep, tiny.encoder, tiny.decoder)):
        found = torch.autograd.grad(loss.sum(), [*own.parameters(), *other.parameters()], allow_unused=True)
        n = len(list(own.parameters()))
        assert all(gradient.abs().sum() > 0 for gradient in found[:n])
        assert found[n:] == (None,) * (len(found) - n)


@pytest.mark.parametrize("method", ["AEVB", "wake-sleep"])
def test_both_methods_raise_the_bound_of_the_networks_they_train(small_mnist, method):
    run, model = paper.begin(datasets.load("mnist", small_mnist), paper.Run(method, 3), 0.01)
    before = paper.bound(model, run.dataset.test_images)
    points = paper.train_curve(run, model, [1000, 6000])
    assert [point["images"] for point in points] == [1000, 6000]
    assert points[-1]["test"] > before + 20


def test_weight_decay_is_gradient_of_standard_normal_prior_per_image(small_mnist):
    run, model = paper.begin(datasets.load("mnist", small_mnist), paper.Run("AEVB", 3), 0.02)
    weight = model.encoder[0].weight
    log_prior = -0.5 * weight.square().sum()
    (gradient,) = torch.autograd.grad(-log_prior / len(run.dataset.train_images), weight)
    (group,) = run.optimizer.param_groups
    assert torch.allclose(group["weight_decay"] * weight, gradient)


def test_measurements_are_evenly_spaced_and_after_whole_batches():
    numbers = paper.spaced(10**4, 10**7)
    assert (numbers[0], numbers[-1], len(numbers)) == (10**4, 10**7, 25)
    assert all(number % 100 == 0 for number in numbers)
    ratios = [b / a for a, b in itertools.pairwise(numbers)]
    assert ratios == pytest.approx([10 ** (1 / 8)] * 24, rel=0.01)


def test_bound_of_broken_weights_is_the_worst(small_mnist):
    model = paper.tanh_vae(2)
    torch.nn.init.constant_(model.decoder[0].weight, math.nan)
    assert paper.bound(model, datasets.load("mnist", small_mnist).test_images) == -math.inf


def test_run_trains_at_best_first_rate_and_is_not_trained_again(small_mnist, tmp_path, monkeypatch):
    firsts = {0.01: -180.0, 0.02: -170.0, 0.1: -math.inf}

    def train_curve(run, model, numbers):
        return [{"images": n, "train": firsts[run.config.lr], "test": -181.5} for n in numbers]

    monkeypatch.setattr(paper, "train_curve", train_curve)
    monkeypatch.setattr(paper.common, "load_dataset", lambda flags: datasets.load("mnist", small_mnist))
    flags = argparse.Namespace(results_dir=tmp_path, data_dir=small_mnist, quick=True, overwrite=False)
    rows = paper.measure_curve(flags, paper.Run("wake-sleep", 3))
    assert {row["rate"] for row in rows} == {0.02}
    assert rows[-1]["images"] == paper.QUICK_SPANS[-1]

    monkeypatch.delattr(paper, "train_curve")
    assert paper.measure_curve(flags, paper.Run("wake-sleep", 3)) == rows


@pytest.mark.parametrize("dataset", ["mnist", "frey_face"])
def test_figure_has_both_methods_for_each_size_of_z(tmp_path, monkeypatch, dataset):
    flags = argparse.Namespace(dataset=dataset, results_dir=tmp_path, quick=False, overwrite=False)
    row = {"images": 10_000, "train": -150.0, "test": -151.0}
    shown = []
    monkeypatch.setattr(paper.common, "parse", lambda *arguments: flags)
    monkeypatch.setattr(paper.common, "in_parallel", lambda work, items: [[row] for item in items])
    monkeypatch.setattr(paper.common, "report", lambda *arguments: None)
    monkeypatch.setattr(paper.frey, "draw_faces", lambda models: paper.common.new_figure(100, 100))
    for name in ("load", "load_model", "compare_splits"):
        monkeypatch.setattr(paper, name, lambda *arguments: None)
    draw = paper.draw_curves
    monkeypatch.setattr(paper, "draw_curves", lambda curves, limits: shown.extend(curves) or draw(curves, limits))
    paper.main()
    curves = [(run.latent_dim, run.method) for run in shown if run.split != "film"]
    sizes = [run.latent_dim for run in paper.RUNS[dataset] if run.method == "wake-sleep"]
    assert curves == list(itertools.product(sizes, paper.METHODS))
    assert (tmp_path / ("paper.png" if dataset == "mnist" else "paper_frey_face.png")).exists()
