"""Pictures: arrays in, the bytes of an image file out.

Drawing axes and text takes matplotlib 50 to 150 ms. So the empty axes of the pictures of every epoch are drawn once and
kept, and an epoch only draws its title, curves and points (matplotlib's blitting of `animated` artists).
"""

import contextlib
import functools
import io
import warnings

import imageio.v3 as imageio
import matplotlib.style
import numpy as np
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.font_manager import get_font_names
from matplotlib.lines import Line2D
from matplotlib.ticker import MaxNLocator
from PIL import Image

# Every picture has this style, whatever the user's matplotlibrc says. A $ in a class's name is a $, not mathematics.
STYLE = {"font.size": 11, "axes.titlesize": 11, "figure.titlesize": 12, "text.parse_math": False}
FONTS = (  # for letters that matplotlib's own font, DejaVu Sans, lacks: Korean first, then other scripts
    *("NanumGothic", "Noto Sans CJK KR", "Malgun Gothic", "Apple SD Gothic Neo", "Noto Sans CJK JP", "Yu Gothic"),
    *("Hiragino Sans", "Noto Sans CJK SC", "Microsoft YaHei", "PingFang SC", "Noto Sans Arabic", "Noto Sans Hebrew"),
    *("Noto Sans Devanagari", "Noto Sans Thai", "Segoe UI", "Nirmala UI", "Leelawadee UI", "Arial Unicode MS"),
)
# Paul Tol's muted scheme, which is safe for colour-blind readers, and black; then ten that are far from these.
CLASS_COLORS = (
    *("#332288", "#cc6677", "#117733", "#ddcc77", "#44aa99", "#000000", "#999933", "#88ccee", "#aa4499", "#882255"),
    *("#2266ff", "#ee7700", "#cc0000", "#11bb00", "#7700dd", "#dd77ff", "#ffaabb", "#446677", "#aadd00", "#8888cc"),
)
OPACITY = 0.5  # of a point
LAYERS = 3  # in which a latent frame's points are drawn
GIF_SIZE = (540, 294)  # Three fifths of a latent frame; with the colours below, 100 frames take about 2.4 MB.
GIF_COLORS = 32


@contextlib.contextmanager
def _styled():
    """Draw in STYLE and the FONTS that are installed, without warnings of letters that all of them lack."""
    fonts = ["DejaVu Sans", *sorted({*FONTS} & {*get_font_names()}, key=FONTS.index)]
    with matplotlib.style.context(["default", STYLE, {"font.family": fonts}]), warnings.catch_warnings():
        warnings.filterwarnings("ignore", "Glyph .* missing from font")
        yield


def _new_figure(width, height, layout=None):
    """An empty figure of width x height pixels. pyplot would keep it in memory."""
    return FigureCanvasAgg(Figure(figsize=(width / 100, height / 100), dpi=100, layout=layout)).figure


def _png(figure):
    """The PNG of what is drawn on the figure's canvas. A palette of 256 colours makes it a third as large."""
    image = Image.fromarray(np.asarray(figure.canvas.buffer_rgba())).convert("RGB")
    buffer = io.BytesIO()
    image.quantize(256, Image.Quantize.FASTOCTREE).save(buffer, "PNG", compress_level=3)
    return buffer.getvalue()


@_styled()
def image_grid(images, columns, title, scale=2):
    """A PNG of images (N, 784) in rows of `columns`, each pixel drawn as scale x scale. 0 is white paper, 1 is ink."""
    rows = -(-len(images) // columns)
    cells = np.full((rows * columns, 30, 30), 255, dtype=np.uint8)
    cells[: len(images), :28, :28] = np.rint(255 * (1 - images.reshape(-1, 28, 28)))  # dark on white paper
    sheet = cells.reshape(rows, columns, 30, 30).swapaxes(1, 2).reshape(rows * 30, columns * 30)
    sheet = sheet.repeat(scale, axis=0).repeat(scale, axis=1)
    height, width = sheet.shape
    margin = max(16, (720 - width) // 2)
    figure = _new_figure(width + 2 * margin, height + 56)
    figure.suptitle(title, fontsize=11)
    figure.canvas.draw()
    pixels = np.asarray(figure.canvas.buffer_rgba())[..., 0]  # red, which is the grey of a black title
    pixels[40 : 40 + height, margin:-margin] = sheet
    return imageio.imwrite("<bytes>", pixels, extension=".png", compress_level=4)


def reconstruction(images, reconstructions, title):
    """A PNG of images (N, 784) over their reconstructions (N, 784), all in [0, 1]."""
    return image_grid(np.concatenate([images, reconstructions]), len(images), title, scale=3)


@_styled()
def loss_curves(losses, epochs, names, title):
    """A PNG of BCE, divergence and total, train and test, each in a panel, with the best epoch marked.

    losses: (E, 3, 2) of the E epochs so far, BCE, divergence and total x train and test. epochs: how many epochs the
    axes show. names: the panels' titles, such as BCE, KLD, total = BCE + KLD.
    """
    ticks = tuple(tuple(MaxNLocator(5).tick_values(term.min(), term.max())) for term in losses.swapaxes(0, 1))
    figure, background, panels = _loss_axes(epochs, tuple(names), ticks)
    figure.canvas.restore_region(background)
    figure.draw_artist(figure.suptitle(title))
    best = losses[:, 2, 1].argmin()
    for (train, test, mark), curves in zip(panels, losses.swapaxes(0, 1), strict=True):
        train.set_data(range(1, len(losses) + 1), curves[:, 0])
        test.set_data(range(1, len(losses) + 1), curves[:, 1])
        mark.set_data([best + 1], [curves[best, 1]])
        for line in (train, test, mark):
            figure.draw_artist(line)
    return _png(figure)


@functools.lru_cache(maxsize=1)
def _loss_axes(epochs, names, ticks):
    """The figure of the loss curves, its pixels, and each panel's three lines, still empty."""
    figure = _new_figure(1050, 370)
    figure.subplots_adjust(0.062, 0.14, 0.985, 0.83, 0.17)  # to compute a layout takes as long as to draw
    panels = []
    style = {"animated": True, "clip_on": False}
    for axes, name, yticks in zip(figure.subplots(1, 3), names, ticks, strict=True):
        axes.set(xlim=(0, epochs + 1), ylim=(yticks[0], yticks[-1]), yticks=yticks, xlabel="epoch", title=name)
        axes.xaxis.set_major_locator(MaxNLocator(5, integer=True))
        axes.grid(color="#e8e8e8", linewidth=0.6)
        (train,) = axes.plot([], [], ".-", color="#8c9aa8", markersize=4, label="train", **style)
        (test,) = axes.plot([], [], ".-", color="#1f4e79", markersize=4, label="test", **style)
        (mark,) = axes.plot([], [], "o", color="#d62728", fillstyle="none", label="best epoch", **style)
        panels.append((train, test, mark))
    figure.axes[0].set_ylabel("nats per image")
    figure.axes[0].legend(loc="upper right", frameon=False)
    figure.canvas.draw()
    return figure, figure.canvas.copy_from_bbox(figure.bbox), panels


def class_legend(figure, classes, place):
    """Show which colour is which class (a tuple of names). `place` is a loc of matplotlib's figure.legend."""
    dots = [Line2D([], [], color=color, linestyle="", marker="o") for color in CLASS_COLORS[: len(classes)]]
    figure.legend(dots, classes, loc=place, frameon=False, handletextpad=0.1, labelspacing=0.25)


@_styled()
def latent_frame(latents, labels, classes, title, names, limit=4):
    """A PNG of two panels: a sample z of each image, and its mean mu, coloured by class.

    latents: z and mu, (N, 2) each, or (N, 1) to be shown against the class. labels: (N,), indices into `classes`, 1 to
    20 names. names: a tuple of one axis label per dimension. limit: where the axes end.
    """
    if len(names) == 1:
        names = (*names, "class")
        rows = labels + 0.6 * (np.arange(len(labels)) * 0.618 % 1 - 0.5)  # spread, so that equal points stay visible
        latents = [np.column_stack([points, rows]) for points in latents]
    figure, background, panels = _latent_axes(tuple(classes), names, limit)
    figure.canvas.restore_region(background)
    figure.draw_artist(figure.suptitle(title))
    for dots, points in zip(panels, latents, strict=True):
        for layer in range(LAYERS):  # A layer has every LAYERS-th point, so that classes hide each other less.
            for label, color in enumerate(CLASS_COLORS[: len(classes)]):
                chosen = labels[layer::LAYERS] == label
                dots.set(data=points[layer::LAYERS][chosen].T, color=color, markersize=2.5 if len(points) > 2000 else 4)
                figure.draw_artist(dots)
    return _png(figure)


@functools.lru_cache(maxsize=1)
def _latent_axes(classes, names, limit):
    """The figure of the latent frames, its pixels, and each panel's dots, still without positions."""
    figure = _new_figure(900, 490, "constrained")
    figure.suptitle("\n", animated=True)
    panels = []
    for axes, name in zip(figure.subplots(1, 2), ("a sample z of each test image", "its mean mu"), strict=True):
        axes.set(xlim=(-limit, limit), ylim=(-limit, limit), title=name, xlabel=names[0], ylabel=names[1])
        axes.grid(color="#e8e8e8", linewidth=0.6)
        if names[1] == "class":
            axes.set(ylim=(-0.5, len(classes) - 0.5), yticks=range(len(classes)), yticklabels=classes)
        else:
            axes.set_aspect("equal")
        # plot() draws one disc and copies it, which is four times as fast as scatter().
        panels += axes.plot([], [], "o", markeredgewidth=0, alpha=OPACITY, animated=True)
    class_legend(figure, classes, "outside right center")
    figure.canvas.draw()
    return figure, figure.canvas.copy_from_bbox(figure.bbox), panels


def gif(paths):
    """A looping GIF of the pictures at `paths`: at most 100, evenly spaced, the first and the last among them.

    Raises OSError that names the path of a picture that cannot be read.
    """
    count = min(len(paths), 100)
    chosen = np.linspace(0, len(paths) - 1, count).round().astype(int)
    last = _gif_frame(paths[-1]).quantize(GIF_COLORS, Image.Quantize.FASTOCTREE)
    frames = [_gif_frame(paths[i]).quantize(palette=last, dither=Image.Dither.NONE) for i in chosen]
    durations = [min(500, 10_000 // count)] * count  # in milliseconds: 10 s in all
    durations[-1] += 2_000
    options = {"save_all": True, "palette": bytes(last.getpalette()), "duration": durations, "loop": 0}
    return imageio.imwrite("<bytes>", np.stack(frames), plugin="pillow", extension=".gif", mode="P", **options)


def _gif_frame(path):
    try:
        with Image.open(path) as image:
            return image.convert("RGB").resize(GIF_SIZE, Image.Resampling.BOX)
    except (OSError, SyntaxError, ValueError) as error:  # Pillow's errors for damaged files
        raise OSError(getattr(error, "errno", None), "cannot be read as a picture", str(path)) from error
