"""The latent frames of a run: the plane they show, and axes that do not jump."""

import itertools

import numpy as np
import pytest
import torch
from helpers import SMALL

import utils
from pictures import latents
from support.seeds import generator


def test_principal_plane_finds_widest_directions():
    points = torch.randn(5000, 4, generator=generator(0)) * torch.tensor([1, 5, 0.1, 3]) + torch.tensor([7, 0, 0, 0])
    mean, components = latents.principal_plane(points)
    torch.testing.assert_close(mean, points.mean(0))
    torch.testing.assert_close(components, torch.eye(4)[[1, 3]], atol=0.05, rtol=0)


def test_axes_of_five_latents_turn_little_between_epochs_also_in_a_continued_run(run_main, tmp_path, no_drawing):
    flags = ("--latent_dim", 5, *SMALL, "--lr", 0.01)
    assert run_main(tmp_path / "whole", *flags, "--epochs", 12).code == 0
    for epochs in (7, 12):
        assert run_main(tmp_path / "parts", *flags, "--epochs", epochs).code == 0
    frames = [sorted((tmp_path / name / "latent").glob("*.npy")) for name in ("whole", "parts")]
    axes, again = ([np.load(path) for path in paths] for paths in frames)
    np.testing.assert_array_equal(axes, again)
    cosines = [np.abs((one * two).sum(1)).min() for one, two in itertools.pairwise(axes)]
    assert len(axes) == 12
    assert min(cosines[4:]) > 0.9


def test_damaged_axes_of_the_epoch_before_cost_only_their_direction(run_main, tmp_path, no_drawing):
    flags = ("--latent_dim", 3, *SMALL, "--epochs")
    assert run_main(tmp_path, *flags, 1).code == 0
    path = tmp_path / "latent" / "epoch_001.npy"
    path.write_bytes(path.read_bytes().replace(b"}", b"("))  # NumPy raises an error of its tokenizer
    done = run_main(tmp_path, *flags, 2)
    assert (done.code, done.err) == (0, "")


def test_aligned_axes_lie_closest_to_those_before():
    before = torch.linalg.qr(torch.randn(5, 2, generator=generator(0)))[0].T
    turned = torch.tensor([[0.6, 0.8], [0.8, -0.6]]) @ before
    torch.testing.assert_close(latents.align(turned, before), before)


@pytest.mark.parametrize("latent_dim", [1, 2])
@pytest.mark.parametrize(("share", "limit"), [(0.09, 4), (0.11, 8)])
def test_axes_hold_nine_tenths_of_the_means(latent_dim, share, limit):
    mu = np.zeros((1000, latent_dim))
    mu[: int(share * 1000), -1] = -7
    assert latents.limit_of(np.stack([100 + mu, mu])) == limit


@pytest.fixture
def drawn_limits(monkeypatch):
    """The limits with which the latent frame of each epoch was drawn, by the number in its title."""
    limits = {}

    def record(points, labels, classes, title, names, limit):
        limits.setdefault(int(title.split("epoch ")[1].split(":")[0]), []).append(limit)
        assert f"axes to ±{limit}" in title or limit == 4
        return draw(points, labels, classes, title, names, limit)

    draw = utils.latent_frame
    monkeypatch.setattr(utils, "latent_frame", record)
    return limits


SPREADING = (*SMALL, "--dataset", "digits", "--divergence_weight", 0.001, "--lr", 0.02)


def test_all_frames_of_a_run_whose_means_spread_end_with_the_same_axes(run_main, tmp_path, drawn_limits):
    assert run_main(tmp_path, *SPREADING, "--epochs", 1).code == 0
    assert run_main(tmp_path, *SPREADING, "--epochs", 4).code == 0
    first = [limits[0] for limits in drawn_limits.values()]
    assert first[0] < max(first), "the means of this run do not spread"
    assert {limits[-1] for limits in drawn_limits.values()} == {max(first)}


def test_frame_without_its_points_stays_as_it_is(run_main, tmp_path, drawn_limits):
    assert run_main(tmp_path, *SPREADING, "--epochs", 2).code == 0
    folder = tmp_path / "latent"
    (folder / "epoch_001.npz").write_bytes(b"damaged")
    before = (folder / "epoch_001.png").read_bytes()
    done = run_main(tmp_path, *SPREADING, "--epochs", 4)
    assert done.code == 0, done.err
    assert (folder / "epoch_001.png").read_bytes() == before
    assert drawn_limits[2][0] < drawn_limits[2][-1]


def test_points_of_other_images_are_removed(copied_run, run_main, no_drawing):
    """Labels of the new dataset would colour them."""
    done = run_main(copied_run.folder, "--resume", "--epochs", 4, "--dataset", "digits")
    assert done.code == 0, done.err
    kept = {path.name for path in (copied_run.folder / "latent").glob("*.np?")}
    assert kept == {f"epoch_00{epoch}.{suffix}" for epoch in (3, 4) for suffix in ("npy", "npz")}
