"""What a run tells: the lines that it prints, and config.json."""

import contextlib
import functools
import json
import platform
from importlib import metadata

import torch
from tqdm import tqdm

from support.data.datasets import pixels
from support.latent import likelihood, units
from support.machine import processes
from support.run import checkpoint, files, storage
from support.run.config import to_plain
from variants import BELOW_ZERO, DIVERGENCES

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
        disable=None if processes.is_first() else True,  # None: on terminals only
    )
    if run.history and processes.is_first():
        print(f"Continuing after epoch {len(run.history)} of {run.config.epochs}")
    with bar:
        yield functools.partial(batch_line, run, bar)


def batch_line(run, bar, epoch, batch, losses):
    """Print the status line of a batch, if it is time for one."""
    bar.update()
    if batch % run.config.log_interval or not processes.is_first():
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
    """Print an epoch's losses, and write config.json."""
    row = result.row
    label = DIVERGENCES[run.config.divergence]
    tqdm.write(
        f"====> Epoch: {row['epoch']} Average BCE loss: {row['train_bce']:.4f}, "
        f"{label} loss: {row['train_divergence']:.4f}, Total loss: {row['train_total']:.4f}\n"
        f"====> Test set {losses_text(row, label)}"
    )
    storage.try_write(run.config.results_dir / "config.json", description(run))


def losses_text(row, label):
    """A row's losses on the test set, as they are printed."""
    note = f" ({BELOW_ZERO[label]})" if row["test_divergence"] < 0 else ""
    return (
        f"BCE_loss: {row['test_bce']:.4f}, {label}_loss: {row['test_divergence']:.4f}, "
        f"Total_loss: {row['test_total']:.4f}{note}"
    )


def is_complete(run):
    """Whether there is nothing left to train or to write; see `storage.write` for what waits to be renamed."""
    paths = [run.config.results_dir / name for name in files.names(run.config)]
    is_written = all(path.exists() and not storage.partial(path).exists() for path in paths)
    return len(run.history) >= run.config.epochs and is_written


def show_end(run):
    """Print log p(x), unused latents, the best epoch and where everything is."""
    best = checkpoint.best_of(run.history)
    images = run.dataset.test_images
    model = checkpoint.load_model(run.config.results_dir / "best.pt").to(images.device)
    with torch.no_grad():
        mu = model.encode(pixels(images))[0]
    if len(images) > 1 and units.active_units(mu) < model.latent_dim:
        print(f"====> {inactive_latents(units.active_units(mu), run.config)}")
    if run.dataset.notes:
        print(f"====> Trained on {run.dataset.description}")
    estimate = likelihood.estimate(model, images)
    written = [name for name in files.names(run.config) if (run.config.results_dir / name).exists()]
    print(
        f"====> log p(x) at the best epoch: {log_p_text(estimate, images)}\n"
        f"====> Best epoch: {best['epoch']} of {len(run.history)} on {run.dataset.title}, test set "
        f"{losses_text(best, DIVERGENCES[run.config.divergence])}\n"
        f"Results are in {run.config.results_dir}: {', '.join(written)}, reconstruction/, latent/"
    )


def log_p_text(estimate, images):
    """The mean of a `likelihood.Estimate`, its method, and what it says of images (N, 784) uint8."""
    text = f"{estimate.log_p.double().mean():.4f} nats per test image, by "
    if estimate.k is None:
        text += "quadrature"
    else:
        share = (estimate.ess < likelihood.FEW_SAMPLES).double().mean().item()
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
        cause = "The posterior has collapsed to the prior" if config.divergence == "kl" else "All images have one code"
        return (
            f"{cause}, or training is too short: z tells nothing about x. "
            f"Try more --epochs, or a --divergence_weight below {config.divergence_weight:g}"
        )
    return (
        f"{active} of {config.latent_dim} latents are active; the variance of the others' means over the test images "
        f"is below {units.ACTIVE}. --latent_dim {active} may do as well"
    )


def description(run):
    """config.json: every flag's value, and what else the figures of the run depend on."""
    device = run.dataset.train_images.device
    facts = {
        **to_plain(run.config),
        "data": run.dataset.description,
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
