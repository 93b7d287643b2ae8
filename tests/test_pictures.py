import io

import imageio.v3 as imageio
import numpy as np
import pytest

import utils

RNG = np.random.default_rng(0)


def opened(picture):
    """A picture's pixels (height, width, 3), read back by another library than wrote it."""
    pixels = imageio.imread(io.BytesIO(picture), mode="RGB")
    assert pixels.std() > 5, "the picture is blank"
    return pixels


def history(n):
    """n epochs of falling losses."""
    row = {f"{part}_{term}": value for part in ("train", "test") for term, value in (("bce", 160), ("divergence", 6))}
    return [
        {"epoch": e, **row, "train_total": 166 + 9 / e, "test_total": 166 + 9 / e + (e == n), "seconds": 1}
        for e in range(1, n + 1)
    ]


def test_grid_shows_every_pixel_unblurred_in_its_place():
    images = RNG.random((6, 784)).round()
    pixels = opened(utils.image_grid(images, 3, "title", scale=2))
    sheet = pixels[40:156]  # two rows of 28 pixels and a gap of 2, twice as large, below the title
    left = (pixels.shape[1] - 3 * 60 + 4) // 2
    fifth = sheet[60:116, left + 60 : left + 116, 0]
    np.testing.assert_array_equal(fifth[::2, ::2] < 128, images[4].reshape(28, 28) > 0.5)
    np.testing.assert_array_equal(fifth[::2, ::2], fifth[1::2, 1::2])


@pytest.mark.parametrize("latent_dim", [1, 2, 5])
def test_latent_frame_shows_the_points_of_both_panels(latent_dim):
    labels = np.arange(1000) % 10
    z = RNG.normal(size=(1000, latent_dim))
    pixels, empty = (opened(utils.latent_frame(points, points, labels, "title")) for points in (z, 1e5 * z))
    assert pixels.shape == (490, 900, 3)
    changed = (pixels != empty).any(2)
    assert changed[:, :418].sum() > 500 and changed[:, 470:840].sum() > 500


def test_latent_frames_of_equal_input_are_equal_bytes():
    labels, z = np.arange(50) % 10, RNG.normal(size=(50, 2))
    first = utils.latent_frame(z, z, labels, "title")
    utils.latent_frame(-z, z, labels, "another")
    assert utils.latent_frame(z, z, labels, "title") == first


def test_principal_plane_finds_the_widest_directions():
    points = RNG.normal(size=(5000, 4)) * [1, 5, 0.1, 3]
    _, components = utils.principal_plane(points)
    np.testing.assert_allclose(np.abs(components), [[0, 1, 0, 0], [0, 0, 0, 1]], atol=0.05)


@pytest.mark.parametrize("epochs", [1, 2, 40])
def test_loss_curves_of_any_length(epochs):
    pixels = opened(utils.loss_curves(history(epochs), epochs, ("BCE", "KLD", "total"), "title"))
    assert pixels.shape == (370, 1050, 3)
    red = (pixels[..., 0].astype(int) - pixels[..., 1] > 100).sum()
    assert red > 20, "no best epoch is marked"


def test_gif_holds_every_frame_for_ten_seconds_and_loops(tmp_path):
    labels, paths = np.arange(100) % 10, []
    for i in range(25):
        paths.append(tmp_path / f"{i}.png")
        paths[-1].write_bytes(utils.latent_frame(*RNG.normal(size=(2, 100, 2)), labels, f"frame {i}"))
    gif = utils.gif(paths)
    frames = imageio.imread(io.BytesIO(gif), index=None, mode="RGB")
    assert len(frames) == 25
    for frame, path in zip(frames, paths, strict=True):
        assert np.abs(frame.astype(int) - opened(path.read_bytes())).mean() < 1, "a frame is not its picture"
    properties = imageio.immeta(io.BytesIO(gif))
    assert properties["duration"] == 400 and properties["loop"] == 0
