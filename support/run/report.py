"""What a run tells: the lines that it prints, config.json, and which pictures it writes with which titles."""

import contextlib
import functools
import json
import platform
from importlib import metadata

import numpy as np
import torch
from tqdm import tqdm

import utils
from support.data.datasets import pixels
from support.latent import likelihood, manifold
from support.machine import processes
from support.machine.processes import is_first
from support.run import checkpoint, files, storage
from support.run.config import to_plain
from support.seeds import generator
from variants.priors import moments

DIVERGENCES = {"kl": "KLD", "mmd": "MMD"}
PRIORS = {"normal": "N(0, I)", "mixture": "the learned mixture", "vamp": "the VampPrior"}
MANIFOLDS = {
    1: "the decoder along z, in reading order",
    2: "the decoder over the latent space",
    3: "the decoder over the plane of two principal components through 0",
}
UNSURE = 0.1  # the share of images with few effective samples above which log p(x) is in doubt
RECORDED = ("torchvision", "numpy", "matplotlib", "scikit-learn")


@contextlib.contextmanager
def progress(run):
    """The function that `train.epochs` calls after each batch: status lines, and a progress bar on terminals."""
    batches = -(-len(run.dataset.train_images) // run.config.batch_size)
    bar = tqdm(
        total=run.config.epochs * batches,
        initial=len(run.history) * batches,
        unit="batch",
        disable=None if is_first() else True,  # None: on terminals only
    )
    if run.history and is_first():
        print(f"Continuing after epoch {len(run.history)} of {run.config.epochs}")
    with bar:
        yield functools.partial(batch_line, run, bar)


def batch_line(run, bar, epoch, batch, losses):
    """Print the status line of a batch, if it is time for one."""
    bar.update()
    if batch % run.config.log_interval or not is_first():
        return
    n = len(run.dataset.train_images)
    seen = batch * run.config.batch_size
    bce, divergence = (losses[batch] / min(run.config.batch_size, n - seen)).tolist()
    total = bce + run.config.divergence_weight * divergence
    bar.write(
        f"Train Epoch: {epoch} [{seen}/{n} ({100 * seen / n:.0f}%)]\tBCE_Loss: {bce:.4f}, "
        f"{DIVERGENCES[run.config.divergence]}_Loss: {divergence:.4f}, Total_Loss: {total:.4f}"
    )


def show_epoch(run, result):
    """Print an epoch's losses, and write its pictures and config.json."""
    folder = run.config.results_dir
    row = result.row
    label = DIVERGENCES[run.config.divergence]
    tqdm.write(
        f"====> Epoch: {row['epoch']} Average BCE loss: {row['train_bce']:.4f}, "
        f"{label} loss: {row['train_divergence']:.4f}, Total loss: {row['train_total']:.4f}\n"
        f"====> Test set {losses_text(row, label)}"
    )
    title = headline(run, row)
    pictures = {
        files.frame(folder, "reconstruction", row["epoch"]): draw_reconstruction(run, result.test.z, title),
        files.frame(folder, "latent", row["epoch"]): draw_latents(run, result.test, title),
        folder / "loss.png": draw_losses(run),
        folder / "config.json": description(run),
    }
    for path, content in pictures.items():
        storage.write(path, content)


def losses_text(row, label):
    """A row's losses on the test set, as they are printed."""
    note = (
        " (an unbiased estimate of the MMD can be below zero)" if label == "MMD" and row["test_divergence"] < 0 else ""
    )
    return (
        f"BCE_loss: {row['test_bce']:.4f}, {label}_loss: {row['test_divergence']:.4f}, "
        f"Total_loss: {row['test_total']:.4f}{note}"
    )


@torch.no_grad()
def draw_reconstruction(run, z, title):
    """One test image of each class over its reconstruction from the sample z (N, latent_dim)."""
    rows = np.unique(run.dataset.test_labels.cpu().numpy(), return_index=True)[1]
    images = pixels(run.dataset.test_images[rows])
    reconstructions = run.model.decode(z[rows].to(images.device)).sigmoid()
    pair = [ink(run.dataset, values.cpu().numpy()) for values in (images, reconstructions)]
    return utils.reconstruction(*pair, title)


def ink(dataset, images):
    """Images in [0, 1] as the ink with which pictures draw them on white paper."""
    return images if dataset.is_ink else 1 - images


def draw_latents(run, test, title):
    """The latent frame, standardised if the prior is learned; of three latents or more, two principal components."""
    mean, deviation = moments(run.model.prior)
    z, mu = ((points - mean) / deviation for points in (test.z, test.mu))
    axis = "z" if run.config.prior == "normal" else "standardised z"
    names = {1: (axis,), 2: (f"{axis} 1", f"{axis} 2")}.get(mu.shape[1])
    if names is None:
        names = ("principal component 1", "principal component 2")
        centre, components = manifold.principal_plane(mu)
        z, mu = ((points - centre) @ components.T for points in (z, mu))
    labels = run.dataset.test_labels.cpu().numpy()
    return utils.latent_frame(z.numpy(), mu.numpy(), labels, run.dataset.classes, title, names)


def draw_losses(run):
    """The loss curves so far, the best epoch marked and in the title."""
    parts = ("train", "test")
    terms = ("bce", "divergence", "total")
    losses = np.array([[[row[f"{part}_{term}"] for part in parts] for term in terms] for row in run.history])
    divergence = weighted_divergence(run.config)
    is_bound = divergence == "KLD"
    total = f"total = BCE + {divergence}{' = -ELBO' if is_bound else ''}"
    title = headline(run, checkpoint.best_of(run.history), "best epoch")
    return utils.loss_curves(losses, run.config.epochs, ("BCE", DIVERGENCES[run.config.divergence], total), title)


def weighted_divergence(config):
    """What is added to BCE, as pictures call it: KLD, or 10 x MMD."""
    label = DIVERGENCES[config.divergence]
    return label if config.divergence_weight == 1 else f"{config.divergence_weight:g} x {label}"


def headline(run, row, kind="epoch"):
    """A picture's title: dataset, epoch, and the losses on the test set."""
    is_kl = run.config.divergence == "kl"
    return (
        f"{run.dataset.title}, {kind} {row['epoch']}: BCE {row['test_bce']:.2f} + {weighted_divergence(run.config)} "
        f"{row['test_divergence']:.{2 if is_kl else 4}f} = {row['test_total']:.2f} "
        f"{'nats ' if is_kl else ''}per test image"
    )


def is_complete(run):
    """Whether there is nothing left to train or to draw."""
    folder = run.config.results_dir
    return len(run.history) >= run.config.epochs and all((folder / name).exists() for name in files.names(run.config))


def finish(run):
    """Write the pictures of the whole run and of its best epoch, and print the summary."""
    folder = run.config.results_dir
    best = checkpoint.best_of(run.history)
    model = checkpoint.load_model(folder / "best.pt")
    frames = [files.frame(folder, "latent", row["epoch"]) for row in run.history]
    frames = [path for path in frames if path.exists()]  # the user may have deleted some
    if frames:
        storage.write(folder / "latent.gif", utils.gif(frames))
    which = f"{run.dataset.title}, best epoch {best['epoch']}"
    storage.write(folder / "manifold.png", draw_manifold(model, run.dataset, which))
    images = model.sample(64, generator(run.config.seed)).numpy()
    title = f"{which}: decoded draws of z ~ {PRIORS[run.config.prior]}"
    storage.write(folder / "samples.png", utils.image_grid(ink(run.dataset, images), 8, title))
    print_summary(run, best, model)


@torch.no_grad()
def draw_manifold(model, dataset, which):
    """The decoder over the latent space (the paper's Figure 4)."""
    mu = model.encode(pixels(dataset.test_images.cpu()))[0]
    z = manifold.manifold(model.prior, mu)
    images = model.decode(z).sigmoid().numpy()
    title = f"{which}: {MANIFOLDS[min(model.latent_dim, 3)]}"
    return utils.image_grid(ink(dataset, images), manifold.SIDE, title)


def print_summary(run, best, model):
    """Print log p(x), unused latents, the best epoch and where everything is."""
    images = run.dataset.test_images
    model.to(images.device)
    with torch.no_grad():
        mu = model.encode(pixels(images))[0]
    if manifold.active_units(mu) < model.latent_dim:
        print(f"====> {inactive_latents(manifold.active_units(mu), run.config)}")
    estimate = likelihood.estimate(model, images)
    print(
        f"====> log p(x) at the best epoch: {log_p_text(estimate, images)}\n"
        f"====> Best epoch: {best['epoch']} of {len(run.history)} on {run.dataset.title}, test set "
        f"{losses_text(best, DIVERGENCES[run.config.divergence])}\n"
        f"Results are in {run.config.results_dir}: {', '.join(files.names(run.config))}, reconstruction/, latent/"
    )


def log_p_text(estimate, images):
    """The mean of a `likelihood.Estimate`, its method, and what it says of images (N, 784) uint8."""
    text = f"{estimate.log_p.cpu().double().mean():.4f} nats per test image, by "
    if estimate.k is None:
        text += "quadrature"
    else:
        share = (estimate.ess < likelihood.FEW_SAMPLES).float().mean().item()
        text += (
            f"importance sampling, k = {estimate.k}; effective sample size {estimate.ess.median():.1f} (median), "
            f"below {likelihood.FEW_SAMPLES} for {share:.0%} of the images"
        )
        if share > UNSURE:
            text += ", so log p(x) is probably higher"
    is_binary = ((images == 0) | (images == 255)).all()
    return text if is_binary else f"{text}. Grey pixels: a lower bound on the mean log p of their binarisations"


def inactive_latents(active, config):
    """What to say of a run that uses only `active` of its latents, and what to try."""
    if active == 0:
        return (
            "The posterior has collapsed to the prior, or training is too short: z tells nothing about x. "
            f"Try more --epochs, or a --divergence_weight below {config.divergence_weight:g}"
        )
    return (
        f"{active} of {config.latent_dim} latents are active; the means of the others vary by less than "
        f"{manifold.ACTIVE} over the test images. --latent_dim {active} may do as well"
    )


def description(run):
    """config.json: every flag's value, and what else the figures of the run depend on."""
    device = run.dataset.train_images.device
    facts = {
        **to_plain(run.config),
        "train_images": len(run.dataset.train_images),
        "test_images": len(run.dataset.test_images),
        "parameters": sum(parameter.numel() for parameter in run.model.parameters()),
        "hardware": torch.cuda.get_device_name(device) if device.type == "cuda" else device.type,
        "processes": processes.size(),
        "threads": torch.get_num_threads(),
        "python": platform.python_version(),
        "torch": torch.__version__,
        **installed_versions(),
    }
    return json.dumps(facts, indent=2).encode() + b"\n"


@functools.cache
def installed_versions():
    """The version of each package in RECORDED that is installed."""
    found = {}
    for name in RECORDED:
        with contextlib.suppress(metadata.PackageNotFoundError):
            found[name] = metadata.version(name)
    return found
