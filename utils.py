"""Pictures: reconstructions, loss curves, the latent space, image grids, the GIF.

Each function returns the bytes of a file, so that nothing here knows of models or of where a picture goes.
"""

import functools
import io

import numpy as np
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.colors import to_rgba_array
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import MaxNLocator
from PIL import Image

# Paul Tol's muted scheme, safe for the colour-blind, and black; explorer/page.css has the same.
CLASS_COLORS = ("#332288", "#cc6677", "#117733", "#ddcc77", "#44aa99")
CLASS_COLORS += ("#882255", "#999933", "#88ccee", "#aa4499", "#000000")
CLASS_RGBA = to_rgba_array(CLASS_COLORS)
TRAIN_COLOR, TEST_COLOR, BEST_COLOR = "#8c9aa8", "#1f4e79", "#d62728"
CLASS_ROWS = np.linspace(-3.6, 3.6, 10)  # where a single latent dimension's classes lie
PARTS = ("train", "test")
TERMS = ("bce", "divergence", "total")
DPI = 100
# Of a whole GIF, unless a frame would then last under 20 ms, the least that browsers show, or over 500.
GIF_SECONDS = 10
GIF_HOLD = 2000  # milliseconds more for the last frame


def _figure(width, height):
    """An empty figure of width x height pixels; not pyplot's, which would keep it alive."""
    figure = Figure(figsize=(width / DPI, height / DPI), dpi=DPI)
    FigureCanvasAgg(figure)
    return figure


def _image(canvas):
    """What is drawn on the canvas, in RGB."""
    return Image.fromarray(np.asarray(canvas.buffer_rgba())[..., :3])


def _few_colors(image, colors):
    """The image with a palette of so many colours: a third of the file, and what a GIF needs."""
    return image.quantize(colors, method=Image.Quantize.FASTOCTREE, dither=Image.Dither.NONE)


def _png(image):
    buffer = io.BytesIO()
    image.save(buffer, "PNG", compress_level=4)
    return buffer.getvalue()


def image_grid(images, columns, title, scale=2):
    """A PNG of images (N, 784), values in [0, 1], in rows of `columns`, each pixel drawn as scale x scale."""
    rows, side, gap, margin, head = -(-len(images) // columns), 28, 2, 16, 40
    sheet = np.full((rows, side + gap, columns, side + gap), 255, dtype=np.uint8)
    for i, image in enumerate(images):
        ink = np.rint(255 * image.reshape(side, side))
        sheet[i // columns, :side, i % columns, :side] = 255 - ink  # dark on white paper
    sheet = sheet.reshape(rows * (side + gap), -1)[:-gap, :-gap].repeat(scale, 0).repeat(scale, 1)
    height, width = sheet.shape
    figure = _figure(max(width, 540) + 2 * margin, height + head + margin)
    figure.text(0.5, 1 - 12 / figure.bbox.height, title, ha="center", va="top", fontsize=11)
    figure.canvas.draw()
    picture = _image(figure.canvas).convert("L")
    picture.paste(Image.fromarray(sheet), ((picture.width - width) // 2, head))
    return _png(picture)


def reconstruction(images, reconstructions, title):
    """A PNG of images (N, 784) over their reconstructions (N, 784), all in [0, 1]."""
    return image_grid(np.concatenate([images, reconstructions]), len(images), title, scale=3)


def loss_curves(history, epochs, names, title):
    """A PNG of BCE, divergence and total, train and test, each on a scale of its own, the best epoch marked.

    Args:
        history: a list of dicts with metrics.csv's columns, one an epoch so far.
        epochs: the length of the run, which is that of the axis.
        names: what the three panels are called, such as BCE, KLD, total = BCE + KLD.
    """
    values = {term: np.array([[row[f"{part}_{term}"] for part in PARTS] for row in history]) for term in TERMS}
    ticks = [MaxNLocator(5).tick_values(v.min(), v.max()) for v in values.values()]
    figure, title_text, panels, background = _loss_canvas(epochs, names, tuple((t[0], t[-1]) for t in ticks))
    figure.canvas.restore_region(background)
    title_text.set_text(title)
    figure.draw_artist(title_text)
    best = values["total"][:, 1].argmin()
    for curves, (train, test, mark) in zip(values.values(), panels, strict=True):
        train.set_data(range(1, len(history) + 1), curves[:, 0])
        test.set_data(range(1, len(history) + 1), curves[:, 1])
        mark.set_data([best + 1], [curves[best, 1]])
        for line in (train, test, mark):
            line.axes.draw_artist(line)
    return _png(_few_colors(_image(figure.canvas), 64))


@functools.lru_cache(maxsize=1)
def _loss_canvas(epochs, names, limits):
    """What of the loss curves changes only with the axes: reused, an epoch's picture takes 15 ms instead of 130."""
    figure = _figure(1050, 370)
    title = figure.text(0.5, 0.97, "", ha="center", va="top", fontsize=12, animated=True)
    panels = []
    for axes, name, limit in zip(figure.subplots(1, 3), names, limits, strict=True):
        axes.set(xlim=(0, epochs + 1), ylim=limit, xlabel="epoch")
        axes.set_title(name, fontsize=11)
        axes.grid(color="#e8e8e8", linewidth=0.6)
        axes.xaxis.set_major_locator(MaxNLocator(5, integer=True))
        axes.yaxis.set_major_locator(MaxNLocator(5))
        style = {"marker": ".", "markersize": 4, "linewidth": 1.2, "animated": True, "clip_on": False}
        train, test = (axes.plot([], [], color=color, **style)[0] for color in (TRAIN_COLOR, TEST_COLOR))
        panels.append(
            (train, test, axes.plot([], [], "o", ms=7, mfc="none", color=BEST_COLOR, animated=True, clip_on=False)[0])
        )
    keys = (("train", {"color": TRAIN_COLOR}), ("test", {"color": TEST_COLOR}))
    keys += (("best epoch", {"color": BEST_COLOR, "marker": "o", "mfc": "none", "linestyle": ""}),)
    figure.axes[0].legend(handles=[Line2D([], [], label=label, **style) for label, style in keys], frameon=False)
    figure.axes[0].set_ylabel("nats per image")
    figure.subplots_adjust(left=0.065, right=0.985, top=0.8, bottom=0.135, wspace=0.18)
    figure.canvas.draw()
    return figure, title, panels, figure.canvas.copy_from_bbox(figure.bbox)


def scatter(axes, points, labels, size, **style):
    """Draw points (N, 2) as squares coloured by class, in their order, so that no class hides another.

    Args:
        labels: (N,), 0 to 9. size: of a square's side, in points. style: further arguments of matplotlib's scatter.

    Returns: matplotlib's collection of them.
    """
    return axes.scatter(*points.T, s=size**2, color=CLASS_RGBA[labels], marker="s", linewidths=0, **style)


def class_legend(figure, place):
    """Tell which colour is which class, beside the figure's axes."""
    style = {"linestyle": "", "marker": "o", "markersize": 7}
    dots = [Line2D([], [], color=color, label=str(digit), **style) for digit, color in enumerate(CLASS_COLORS)]
    figure.legend(handles=dots, loc=place, frameon=False, handletextpad=0.1)


def latent_frame(z, mu, labels, title, axis="z"):
    """A PNG of two panels on axes from -4 to 4: a sample z of each image, and its mean mu, coloured by class.

    Args:
        z, mu: (N, latent_dim). Of more than two dimensions the first two principal components of mu are shown; a
            single one is shown against the class.
        labels: (N,), 0 to 9.
        axis: what a latent dimension is called.
    """
    z, mu, names = _two_dimensional(z, mu, labels, axis)
    figure, title_text, panels, background = _latent_canvas(names, 1.5 if len(labels) > 2000 else 3.5)
    figure.canvas.restore_region(background)
    title_text.set_text(title)
    figure.draw_artist(title_text)
    for points, dots in zip((z, mu), panels, strict=True):
        dots.set(offsets=points, facecolor=CLASS_RGBA[labels])
        dots.axes.draw_artist(dots)
    return _png(_few_colors(_image(figure.canvas), 32))


def principal_plane(mu):
    """mu (N, D): its mean (D,) and first two principal components (2, D), their largest entries positive."""
    mean = mu.mean(0)
    components = np.linalg.eigh(np.cov(mu.T))[1][:, :-3:-1].T
    largest = np.abs(components).argmax(1)
    return mean, components * np.sign(components[[0, 1], largest])[:, None]


def _two_dimensional(z, mu, labels, axis):
    if mu.shape[1] == 1:
        scatter = np.arange(len(labels)) * 0.618 % 1 - 0.5  # so that equal points do not hide each other
        rows = (CLASS_ROWS[labels] + 0.5 * scatter)[:, None]
        return np.hstack([z, rows]), np.hstack([mu, rows]), (axis, "class")
    if mu.shape[1] == 2:
        return z, mu, (f"{axis} 1", f"{axis} 2")
    mean, components = principal_plane(mu)
    return (z - mean) @ components.T, (mu - mean) @ components.T, ("principal component 1", "principal component 2")


@functools.lru_cache(maxsize=1)
def _latent_canvas(names, size):
    """What no epoch changes of a latent frame, drawn once: a frame takes 65 ms instead of 220."""
    figure = _figure(900, 490)
    title = figure.text(0.48, 0.97, "", ha="center", va="top", fontsize=12, animated=True)
    panels = []
    for axes, heading in zip(figure.subplots(1, 2), ("a sample z of each test image", "its mean mu"), strict=True):
        axes.set(xlim=(-4, 4), ylim=(-4, 4), aspect="equal", xlabel=names[0], ylabel=names[1])
        axes.set_title(heading, fontsize=10)
        if names[1] == "class":
            axes.set_yticks(CLASS_ROWS, range(10))
        axes.set_axisbelow(True)
        axes.grid(color="#e8e8e8", linewidth=0.6)
        panels.append(scatter(axes, np.empty((0, 2)), np.empty(0, int), size, animated=True))
    class_legend(figure, "center right")
    figure.subplots_adjust(left=0.06, right=0.93, top=0.86, bottom=0.1, wspace=0.18)
    figure.canvas.draw()
    return figure, title, panels, figure.canvas.copy_from_bbox(figure.bbox)


def gif(paths):
    """A looping GIF of the pictures in the files `paths`, in their order. Raises OSError where one cannot be read."""
    # By Pillow itself: for frames that have their palette, imageio takes 20 times as long, or 200 MB more.
    duration = min(500, max(20, round(1000 * GIF_SECONDS / len(paths))))
    durations = [duration] * (len(paths) - 1) + [duration + GIF_HOLD]
    frames = map(_opened, paths)
    buffer = io.BytesIO()
    next(frames).save(buffer, "GIF", save_all=True, append_images=frames, duration=durations, loop=0, optimize=False)
    return buffer.getvalue()


def _opened(path):
    try:
        image = Image.open(path)
        image.load()
    except OSError as error:
        raise OSError(error.errno, error.strerror or "is not a picture", str(path)) from error
    except (SyntaxError, ValueError) as error:  # so Pillow calls some kinds of damage
        raise OSError(None, "is not a picture", str(path)) from error
    return image
