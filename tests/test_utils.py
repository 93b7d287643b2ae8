"""Pictures and the GIF: what their pixels show."""

from unittest import mock

import imageio.v3 as imageio
import matplotlib
import numpy as np
import pytest
from matplotlib.colors import to_rgb
from matplotlib.figure import Figure
from matplotlib.font_manager import get_font_names
from PIL import Image

import utils

NAMES = ("z 1", "z 2")
DIGITS = tuple("0123456789")
TRAIN, TEST, BEST = "#8c9aa8", "#1f4e79", "#d62728"


@pytest.fixture
def rng():
    """A random generator, new for each test."""
    return np.random.default_rng(0)


def read(picture):
    """The pixels (height, width, 3) of a picture, as integers."""
    return imageio.imread(picture, mode="RGB").astype(int)


def positions(pixels, color, tolerance=40):
    """The rows and columns of the pixels of a color."""
    target = np.round(255 * np.array(to_rgb(color)))
    return np.nonzero((np.abs(pixels - target) < tolerance).all(axis=2))


def panels(pixels, n):
    """A picture cut into n parts of equal width."""
    return np.array_split(pixels, n, axis=1)


def make_losses(total):
    """An array (E, 3, 2) of losses with a given total on the test set, which is 20 higher on the training set."""
    total = np.array(total, dtype=float)
    test = np.stack([total - 6, np.full(len(total), 6.0), total], axis=1)
    return np.stack([test + 20, test], axis=2)


def draw_losses(total, epochs=None):
    losses = make_losses(total)
    return read(utils.loss_curves(losses, epochs or len(losses), ("BCE", "KLD", "total"), "title"))


def draw_latents(z, mu, labels, classes=DIGITS):
    return read(utils.latent_frame((z, mu), labels, classes, "title", NAMES[: z.shape[1]]))


def drawn_points(z, mu, labels, classes=DIGITS):
    """Which pixels (height, width) of a latent frame have points: they differ from those of a frame without."""
    shown = draw_latents(z, mu, labels, classes)
    with mock.patch.object(utils, "CLASS_COLORS", ()):  # the axes and the legend are kept from the frame before
        difference = shown - draw_latents(z, mu, labels, classes)
    return (np.abs(difference) > 30).any(axis=2)


def center(mask):
    return np.argwhere(mask).mean(axis=0)


# Grids of images


def test_image_grid_shows_every_pixel_in_its_place(rng):
    images = rng.random((6, 784))
    pixels = read(utils.image_grid(images, 3, "title", scale=2))[..., 0]
    width = 3 * 2 * 30
    left = (pixels.shape[1] - width) // 2
    fifth = pixels[100:156, left + 60 : left + 116]  # second row, second column; a cell has 60 pixels, gap included
    np.testing.assert_allclose(255 - fifth[::2, ::2], 255 * images[4].reshape(28, 28), atol=0.51)
    np.testing.assert_array_equal(fifth[::2, ::2], fifth[1::2, 1::2])


def test_image_grid_leaves_last_places_empty_when_images_run_out():
    pixels = read(utils.image_grid(np.ones((5, 784)), 4, "title"))
    assert (pixels[42:96] < 128).any(axis=(0, 2)).sum() == 4 * 56
    assert (pixels[102:156] < 128).any(axis=(0, 2)).sum() == 56


def test_image_grid_shows_title_above_images():
    with_title, without = (read(utils.image_grid(np.ones((4, 784)), 4, title)) for title in ("title", ""))
    assert (with_title[:40] < 128).sum() > 50
    assert not (without[:40] < 128).any()
    np.testing.assert_array_equal(with_title[40:], without[40:])


def test_reconstruction_shows_images_above_reconstructions():
    pixels = read(utils.reconstruction(np.ones((4, 784)), np.full((4, 784), 0.5), "title"))[40:, :, 0]
    assert pixels[:84].min() == 0
    assert pixels[90:174].min() == 128


# Loss curves


def test_loss_curves_show_train_above_test_when_it_is_higher():
    for panel in panels(draw_losses(np.linspace(190, 150, 20)), 3):
        curves = panel[80:, 60:]  # without the legend's lines, which are in the first panel's upper right corner
        train, test = (positions(curves[:, :120], color, tolerance=20)[0] for color in (TRAIN, TEST))
        assert len(train) > 30
        assert len(test) > 30
        assert test.mean() - train.mean() > 20  # row 0 is at the top


def test_loss_curves_fall_when_losses_fall():
    rows, columns = positions(panels(draw_losses(np.linspace(190, 150, 20)), 3)[2], TEST)
    assert np.corrcoef(rows, columns)[0, 1] > 0.99  # row 0 is at the top


def test_loss_curves_mark_epoch_of_lowest_test_total():
    total = 150 + np.abs(np.arange(40) - 27) / 2
    panel = panels(draw_losses(total), 3)[2]
    rows, columns = positions(panel, TEST)
    lowest = columns[rows >= rows.max() - 1].mean()
    ring_rows, ring_columns = positions(panel, BEST)
    assert abs(ring_columns.mean() - lowest) < 3
    assert abs(ring_rows.mean() - rows.max()) < 5


def test_loss_curves_leave_room_for_epochs_to_come():
    columns = positions(panels(draw_losses([190, 170, 160, 155, 152], epochs=50), 3)[2], TEST)[1]
    assert columns.max() < 110  # of 350 pixels


@pytest.mark.parametrize("total", [[150], [150, 150, 150]])
def test_loss_curves_show_points_of_constant_losses(total):
    for panel in panels(draw_losses(total), 3)[1:]:
        assert len(positions(panel, TEST)[0]) > 5
        assert len(positions(panel, BEST)[0]) > 10


# Latent frames


@pytest.mark.parametrize("latent_dim", [1, 2])
def test_latent_frame_shows_points_of_both_panels(rng, latent_dim):
    z = rng.normal(size=(1000, latent_dim))
    left, right = panels(drawn_points(z, z, np.arange(1000) % 10), 2)
    assert left.sum() > 2000
    assert right.sum() > 2000


def test_latent_frame_shows_z_on_the_left_and_mu_on_the_right():
    labels = np.zeros(1, dtype=int)
    origin, up_right, down_left = ([[0.0, 0.0]], [[2.0, 1.0]], [[-2.0, -1.0]])
    at_origin = panels(drawn_points(np.array(origin), np.array(origin), labels), 2)
    moved = panels(drawn_points(np.array(up_right), np.array(down_left), labels), 2)
    z_move, mu_move = (center(after) - center(before) for after, before in zip(moved, at_origin, strict=True))
    np.testing.assert_allclose(z_move, -mu_move, atol=1)
    assert z_move[1] == pytest.approx(-2 * z_move[0], abs=2)  # a row more is downwards
    assert z_move[1] > 60


def test_latent_frame_of_one_dimension_shows_classes_from_bottom_to_top():
    z = np.zeros((100, 1))
    heights = [-center(drawn_points(z, z, np.full(100, label)))[0] for label in range(10)]
    np.testing.assert_allclose(np.diff(heights), np.diff(heights).mean(), atol=1)
    assert np.diff(heights).mean() > 20


def test_latent_frame_colors_points_by_class():
    points = np.zeros((1, 2))
    for label in (0, 1, 9):
        pixels = draw_latents(points, points, np.array([label]))
        expected = 0.5 * 255 + 0.5 * 255 * np.array(to_rgb(utils.CLASS_COLORS[label]))
        row, column = center(drawn_points(points, points, np.array([label]))[:, :450]).round().astype(int)
        np.testing.assert_allclose(pixels[row, column], expected, atol=24)  # the PNG has 256 colours


def test_latent_frame_mixes_classes_that_lie_in_one_place(rng):
    points = np.tile(rng.normal(size=(2000, 2)) / 2, (2, 1))
    labels = np.repeat([0, 9], 2000)
    drawn = drawn_points(points, points, labels)
    first, both, last = (
        draw_latents(points, points, some)[drawn].mean(axis=0)
        for some in (np.zeros_like(labels), labels, labels * 0 + 9)
    )
    share = (both - first) @ (last - first) / ((last - first) @ (last - first))
    assert 0.3 < share < 0.7


def test_latent_frame_shows_what_lies_within_its_limit(rng):
    z = rng.uniform(-15, 15, size=(1000, 2))
    labels = np.arange(1000) % 10
    narrow, wide = (read(utils.latent_frame((z, z), labels, DIGITS, "title", NAMES, limit)) < 250 for limit in (4, 16))
    assert wide.sum() > narrow.sum() + 5000


def test_latent_frames_of_equal_input_are_equal_bytes(rng):
    z = rng.normal(size=(50, 2))
    labels = np.arange(50) % 10
    first = utils.latent_frame((z, z), labels, DIGITS, "title", NAMES)
    utils.latent_frame((-z, z), labels, ("cat", "dog", *DIGITS), "another title", ("one", "two"))
    assert utils.latent_frame((z, z), labels, DIGITS, "title", NAMES) == first


@pytest.mark.parametrize("n_classes", [2, 20])
@pytest.mark.parametrize("latent_dim", [1, 2])
@pytest.mark.filterwarnings("error")
def test_latent_frame_has_room_for_long_class_names(rng, n_classes, latent_dim):
    classes = tuple(f"Ankle boot {i}" for i in range(n_classes))
    z = rng.normal(size=(400, latent_dim))
    pixels = draw_latents(z, z, np.arange(400) % n_classes, classes)
    assert pixels.shape == (490, 900, 3)
    for edge in (pixels[:3], pixels[-3:], pixels[:, :3], pixels[:, -3:]):
        assert edge.min() > 250
    left, right = panels(drawn_points(z, z, np.arange(400) % n_classes, classes), 2)
    assert left.sum() > 500
    assert right.sum() > 500


def test_latent_frame_shows_class_names_that_look_like_formulas():
    points = np.zeros((2, 2))
    labels = np.arange(2)
    formula, underscore, plain = (
        utils.latent_frame((points, points), labels, classes, "title", NAMES)
        for classes in (("$\\frac$", "b"), ("_a", "b"), ("a", "b"))
    )
    assert len({formula, underscore, plain}) == 3


@pytest.mark.parametrize("installed", [[], ["NanumGothic", "Comic Neue", "Noto Sans Arabic"]])
def test_pictures_use_the_fonts_of_other_scripts_that_are_installed(monkeypatch, caplog, installed):
    monkeypatch.setattr(utils, "get_font_names", lambda: ["DejaVu Sans", *reversed(installed)])
    with utils._styled():
        assert matplotlib.rcParams["font.family"] == [
            "DejaVu Sans",
            *(name for name in installed if "Comic" not in name),
        ]
    utils.image_grid(np.ones((1, 784)), 1, "abc")
    assert "findfont" not in caplog.text


@pytest.mark.skipif("NanumGothic" not in get_font_names(), reason="needs the font NanumGothic")
def test_korean_letters_are_drawn():
    one, other = (utils.image_grid(np.ones((1, 784)), 1, title) for title in ("한", "글"))
    assert one != other  # without a font, each letter is the same box


def test_pictures_show_title_above_axes():
    points = np.zeros((1, 2))
    labels = np.zeros(1, dtype=int)
    for draw, inputs in (
        (lambda title: utils.latent_frame((points, points), labels, DIGITS, title, NAMES), ()),
        (utils.loss_curves, (make_losses([160, 150]), 2, ("BCE", "KLD", "total"))),
    ):
        changed = np.abs(read(draw(*inputs, "a title")) - read(draw(*inputs, ""))).max(axis=2) > 100
        assert changed[:40].sum() > 50
        assert not changed[40:].any()


# What studies use


def test_class_legend_shows_name_and_color_of_each_class():
    figure = Figure()
    utils.class_legend(figure, ("cat", "dog"), "center right")
    (legend,) = figure.legends
    assert [text.get_text() for text in legend.get_texts()] == ["cat", "dog"]
    assert [line.get_color() for line in legend.get_lines()] == list(utils.CLASS_COLORS[:2])


def test_class_colors_differ_from_each_other_and_from_paper():
    colors = np.array([to_rgb(color) for color in (*utils.CLASS_COLORS, "white")])
    distances = np.linalg.norm(colors[:, None] - colors, axis=2) + 9 * np.eye(len(colors))
    assert len(colors) == 21
    assert distances.min() > 0.2


# The GIF


@pytest.fixture
def frame_paths(tmp_path):
    """A function that writes n pictures of a black bar that moves from left to right."""

    def write(n):
        paths = [tmp_path / f"{i:03d}.png" for i in range(n)]
        for i, path in enumerate(paths):
            pixels = np.full((20, 540, 3), 255, dtype=np.uint8)
            left = round(i * 500 / max(1, n - 1))
            pixels[:, left : left + 40] = 0
            imageio.imwrite(path, pixels)
        return paths

    return write


def bar_positions(gif):
    """Where the bar is in each frame, from 0 to 1."""
    frames = imageio.imread(gif, index=None, mode="RGB")
    return np.array([np.nonzero(frame[5, :, 0] < 128)[0].min() / (500 * frame.shape[1] / 540) for frame in frames])


def test_gif_shows_every_frame_in_order(frame_paths):
    np.testing.assert_allclose(bar_positions(utils.gif(frame_paths(25))), np.linspace(0, 1, 25), atol=0.01)


def test_gif_of_many_frames_shows_100_from_first_to_last(frame_paths):
    np.testing.assert_allclose(bar_positions(utils.gif(frame_paths(243))), np.linspace(0, 1, 100), atol=0.01)


@pytest.mark.parametrize(("n", "milliseconds"), [(1, 500), (4, 500), (25, 400)])
def test_gif_loops_and_holds_last_frame(frame_paths, n, milliseconds):
    gif = utils.gif(frame_paths(n))
    assert imageio.improps(gif, index=...).shape[0] == n
    durations = [imageio.immeta(gif, index=i)["duration"] for i in range(n)]
    assert durations == [milliseconds] * (n - 1) + [milliseconds + 2000]
    assert imageio.immeta(gif, index=0)["loop"] == 0


def test_gif_of_latent_frames_looks_like_them(rng, tmp_path):
    paths = [tmp_path / f"{i}.png" for i in range(3)]
    for path in paths:
        z = rng.normal(size=(1000, 2))
        path.write_bytes(utils.latent_frame((z, z), np.arange(1000) % 10, DIGITS, "title", NAMES))
    for frame, path in zip(imageio.imread(utils.gif(paths), index=None, mode="RGB"), paths, strict=True):
        height, width, _ = frame.shape
        shrunk = np.asarray(Image.open(path).convert("RGB").resize((width, height), Image.Resampling.BOX))
        assert np.corrcoef(frame.ravel(), shrunk.ravel())[0, 1] > 0.97


@pytest.mark.parametrize("damage", ["missing", "empty", "text", "cut off"])
def test_gif_names_frame_that_cannot_be_read(frame_paths, damage):
    paths = frame_paths(3)
    content = paths[1].read_bytes()
    paths[1].unlink()
    if damage != "missing":
        paths[1].write_bytes({"empty": b"", "text": b"no picture", "cut off": content[:-60]}[damage])
    with pytest.raises(OSError, match=r"001\.png") as raised:
        utils.gif(paths)
    assert raised.value.filename == str(paths[1])
