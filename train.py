"""Training: a step, an epoch, an evaluation, and the run that repeats them, checkpoints them and draws them.

Nothing random is ever saved: the order and the noise of an epoch follow from the seed and the epoch's number, so that
a resumed run is the run that was interrupted, and many processes are the run of one.
"""

import contextlib
import itertools
import json
import math
import platform
import shlex
import sys
import time
import warnings
from importlib import metadata
from pathlib import Path

import numpy as np
import torch
from tqdm import tqdm

import checkpoint
import data
import machine
import utils
from errors import UserError
from model import VAE, bce, kld

TITLES = {"mnist": "MNIST", "fashion_mnist": "Fashion-MNIST", "digits": "scikit-learn digits"}
EVALUATION_SEED = 0  # no flag: every figure ever reported is measured with the same noise
EVALUATION_CHUNK = 500  # images at a time, so that their activations stay in the cache
MANIFOLD_SIDE = 20
MANIFOLDS = {
    1: "the decoder along z, in reading order",
    2: "the decoder over the latent space",
    3: "the decoder over the plane of two principal components through 0",
}


class Interrupted(Exception):
    """SIGINT or SIGTERM, signum, came; the message says how to continue."""

    def __init__(self, signum, message):
        super().__init__(message)
        self.signum = signum


def generator(*seeds):
    """A CPU generator whose numbers follow from the integers `seeds`."""
    return torch.Generator().manual_seed(int(np.random.SeedSequence(seeds).generate_state(1, np.uint64)[0]))


def epoch_noise(seed, epoch, n, latent_dim):
    """The order (n,) and the noise eps (n, latent_dim) of an epoch's n images."""
    g = generator(seed, epoch)
    return torch.randperm(n, generator=g), torch.randn(n, latent_dim, generator=g)


def make_step(net, optimizer, images, bfloat16=False, world_size=1):
    """A step of Algorithm 1: a function step(index, eps, n) -> this process's sums of BCE and KLD, (2,) float32.

    Args:
        net: a VAE, or one wrapped for data-parallel training, which averages gradients over its processes.
        images: (N, 784) uint8, the whole training set on the network's device.
        bfloat16: run the layers in bfloat16 (weights, latents, losses and updates stay float32).

    The step takes the rows `index` of images, their noise eps (len(index), latent_dim), and the batch's size over all
    processes, n; it minimises the batch's mean of BCE + KLD.
    """

    def step(index, eps, n):
        x = data.pixels(images.index_select(0, index))
        with torch.autocast(images.device.type, torch.bfloat16, enabled=bfloat16):
            logits, mu, logvar = net(x, eps)
        batch_bce, batch_kld = bce(logits, x).sum(), kld(mu, logvar).sum()
        optimizer.zero_grad()
        ((batch_bce + batch_kld) * (world_size / n)).backward()
        optimizer.step()
        return torch.stack([batch_bce.detach(), batch_kld.detach()])

    return step


def train_epoch(step, order, eps, batch_size, world=machine.ALONE, after_batch=lambda batch, losses: None):
    """One pass over the training set; returns each batch's sums of BCE and KLD, (batches, 2), over all processes.

    Args:
        step: from make_step. order, eps: from epoch_noise, on the images' device.
        after_batch: called with each batch's number and the sums so far, (batches, 2), of this process. They stay on
            the device: nobody waits for them but who looks at them.
    """
    indices, noises = order.split(batch_size), eps.split(batch_size)
    losses = torch.zeros(len(indices), 2, device=eps.device)
    for batch, (index, noise) in enumerate(zip(indices, noises, strict=True)):
        mine = (part.tensor_split(world.size)[world.rank] for part in (index, noise))
        losses[batch] = step(*mine, len(index))
        after_batch(batch, losses)
    return machine.summed(losses, world)


@torch.no_grad()
def evaluate(model, images):
    """BCE and KLD of images (N, 784) uint8 in float32, with one z an image from noise that is always the same.

    Returns: the mean BCE and KLD (nats per image), z and mu (each (N, latent_dim), on the CPU).
    """
    eps = torch.randn(len(images), model.latent_dim, generator=generator(EVALUATION_SEED)).to(images.device)
    parts = []
    for chunk, noise in zip(images.split(EVALUATION_CHUNK), eps.split(EVALUATION_CHUNK), strict=True):
        x = data.pixels(chunk)
        mu, logvar = model.encode(x)
        z = model.reparameterize(mu, logvar, noise)
        parts.append((bce(model.decode(z), x), kld(mu, logvar), z, mu))
    batch_bce, batch_kld, z, mu = (torch.cat(part) for part in zip(*parts, strict=True))
    return batch_bce.cpu().double().mean().item(), batch_kld.cpu().double().mean().item(), z.cpu(), mu.cpu()


def diverged(where):
    """The error to raise where a loss is not finite."""
    return UserError(
        f"the loss is not finite in {where}: lower --lr, or use --precision float32. Finished epochs are safe"
    )


def check_finite(losses, epoch):
    """Raise UserError if a batch's row of losses, (batches, 2), is not finite; the first is named."""
    bad = (~losses.isfinite()).any(1).nonzero()
    if len(bad):
        raise diverged(f"epoch {epoch}, batch {bad[0].item() + 1}")


def stop_if_asked(received, message):
    """Raise Interrupted if a signal has come."""
    if received:
        raise Interrupted(received[0], message)


def find_dataset(config, may_fall_back):
    """The dataset of the flags; if none was named and MNIST cannot be had, scikit-learn's digits, after a warning."""
    try:
        return data.load(config["dataset"], config["data_dir"])
    except data.Unavailable as error:
        if not may_fall_back:
            raise
        rule = "*" * 100
        print(f"{rule}\nWARNING: {error}.\nGOING ON WITH --dataset digits, NOT MNIST.\n{rule}", file=sys.stderr)
        return data.load("digits", config["data_dir"])


def describe(config, dataset, model, device, world):
    """What config.json says of a run: every flag's value, and what else its figures depend on."""
    return {
        **config,
        "train_images": len(dataset.train_images),
        "test_images": len(dataset.test_images),
        "parameters": sum(p.numel() for p in model.parameters()),
        "hardware": torch.cuda.get_device_name(device) if device.type == "cuda" else device.type,
        "processes": world.size,
        "threads": torch.get_num_threads(),
        "python": platform.python_version(),
        "torch": torch.__version__,
        **{name: metadata.version(name) for name in ("torchvision", "numpy", "matplotlib", "scikit-learn")},
    }


def run(given, defaults, received=()):
    """One run, from flags to pictures; under torchrun this process's part of it.

    Args:
        given: the flags that the user named, by name. defaults: every flag's default.
        received: a list of signals that have come; the run stops at the next batch once there is one.

    Raises:
        UserError, OSError: the run cannot start or go on; every epoch that was finished is safe.
        Interrupted: a signal came.
    """
    if given.get("precision") == "auto":  # says nothing that a resumed run could contradict
        given = {flag: value for flag, value in given.items() if flag != "precision"}
    config = {**defaults, **given}
    folder = Path(config["results_dir"])
    device = machine.find_device(config["device"])
    with contextlib.ExitStack() as stack:
        stack.enter_context(machine.explained())
        world = stack.enter_context(machine.joined(device))
        writes = world.rank == 0
        if writes:
            stack.enter_context(checkpoint.locked(folder, must_exist=config["resume"]))
        saved = machine.shared(predecessor(folder, given, config) if writes else None, world)
        if saved:
            config |= {flag: saved["config"][flag] for flag in checkpoint.REMEMBERED} | given
        config["precision"] = machine.find_precision(config["precision"], device)
        if writes:  # the others come after it, and find what it has downloaded
            dataset = find_dataset(config, may_fall_back="dataset" not in given and not saved)
            config["dataset"] = dataset.name
        config["dataset"] = machine.shared(config["dataset"], world)
        if not writes:
            dataset = data.load(config["dataset"], config["data_dir"], download=False)
        dataset = dataset.to(device)

        model, optimizer, scheduler, history = build(config, len(dataset.train_images), device, saved)
        description = json.dumps(describe(config, dataset, model, device, world), indent=2) + "\n"
        if writes and saved:
            checkpoint.write(folder / "config.json", description.encode())
            checkpoint.mend(folder, config, model, history)
        again = how_to_continue(given, world) if writes else ""
        fit(model, optimizer, scheduler, history, dataset, config, folder, description, again, world, received)
        stop_if_asked(received, again and f"Interrupted before the last pictures; {again}")
        if writes:
            finish(folder, config, dataset, history)


def predecessor(folder, given, config):
    """The checkpoint to continue, or None. Raises UserError where the directory is not the run's to use."""
    if config["resume"]:
        saved = checkpoint.resumable(folder, given)
        if (folder / "best.pt").exists():
            VAE.load(folder / "best.pt")
        return saved
    if not config["overwrite"]:
        checkpoint.check_replaceable(folder)
    return None


def how_to_continue(given, world):
    """What an interrupted run's last line tells the user to do."""
    needed = ("results_dir", "data_dir", "device", "epochs", "log_interval")
    named = [(f"--{flag}", str(given[flag])) for flag in needed if flag in given]
    runner = "torchrun ..." if world.size > 1 else "python"
    command = shlex.join(["main.py", "--resume", *itertools.chain(*named)])
    return f"continue with: {runner} {command}"


def build(config, n, device, saved=None):
    """The model, Adam, the schedule (None if constant) and the history of a run over n images: new, or as saved.

    Raises UserError if what is saved does not fit its own flags.
    """
    torch.manual_seed(config["seed"])
    model = VAE(config["latent_dim"], config["hidden_dims"]).to(device)
    optimizer = make_optimizer(model, config["lr"])
    batches = -(-n // config["batch_size"])
    onecycle = config["schedule"] == "onecycle"
    scheduler = one_cycle(optimizer, config["lr"], config["epochs"] * batches) if onecycle else None
    if not saved:
        return model, optimizer, scheduler, []
    try:
        model.load_state_dict(saved["model"])
        fresh = optimizer.state_dict()["param_groups"]
        optimizer.load_state_dict({"state": saved["optimizer"], "param_groups": fresh})
        states = [(p.shape, optimizer.state[p]) for p in model.parameters()]
        fits = all(state["exp_avg"].shape == state["exp_avg_sq"].shape == shape for shape, state in states)
        fits &= all(state["step"].numel() == 1 for _, state in states)
    except (AttributeError, IndexError, KeyError, RuntimeError, TypeError, ValueError):
        fits = False
    if not fits:
        raise UserError("the checkpoint.pt to resume does not hold the network that its own flags announce")
    if scheduler:  # the position is all its state: the rate follows from it
        done = len(saved["history"]) * batches
        scheduler.load_state_dict({"last_epoch": done - 1, "_step_count": done})
        scheduler.step()
    return model, optimizer, scheduler, saved["history"]


def make_optimizer(model, lr):
    """Adam over the model's parameters, in one fused kernel."""
    device = next(model.parameters()).device
    on_gpu = device.type == "cuda"
    # A replayed CUDA graph reads the learning rate from memory: it must be a tensor to follow a schedule. Until one is
    # captured, PyTorch would warn that "capturable" is slow.
    warnings.filterwarnings("ignore", message=".*capturable=True", category=UserWarning)
    lr = torch.tensor(lr, device=device) if on_gpu else lr
    return torch.optim.Adam(model.parameters(), lr=lr, fused=True, capturable=on_gpu)


def one_cycle(optimizer, lr, steps):
    """PyTorch's one-cycle schedule: up to lr over a tenth of the steps, then down to almost nothing at the last."""
    steps = max(steps, 3)  # fewer than two up and one down, and OneCycleLR divides by zero
    return torch.optim.lr_scheduler.OneCycleLR(
        optimizer, lr, steps, pct_start=max(0.1, 2 / steps), anneal_strategy="linear", cycle_momentum=False
    )


def fit(model, optimizer, scheduler, history, dataset, config, folder, description, again, world, received):
    """Train from the epoch after the history's last to config["epochs"]; process 0 prints, draws and saves each.

    Args:
        model, optimizer, scheduler, history: from build; the history grows.
        description: config.json's text; a fresh run's first epoch replaces what was in the folder.
        again: how to continue, for the line that an interrupted run ends with.
    """
    device, n, writes = dataset.train_images.device, len(dataset.train_images), world.rank == 0
    net = model if world == machine.ALONE else torch.nn.parallel.DistributedDataParallel(model)
    step = make_step(net, optimizer, dataset.train_images, config["precision"] == "bfloat16", world.size)
    if device.type == "cuda" and world == machine.ALONE:
        step = machine.replayed(step, config["batch_size"])
    batches = -(-n // config["batch_size"])
    bar = tqdm(
        total=config["epochs"] * batches,
        initial=len(history) * batches,
        unit="batch",
        file=sys.stdout,
        disable=not (writes and sys.stdout.isatty()),
    )

    def interrupted():
        if writes and not history:
            return "Interrupted before the first epoch was finished: nothing is saved yet, so start the run again"
        return f"Interrupted in epoch {epoch}; {again}" if writes else ""

    def after_batch(batch, losses):
        bar.update()
        if scheduler:
            scheduler.step()
        stop_if_asked(received, interrupted())
        if batch % config["log_interval"] == 0:
            so_far = machine.summed(losses[: batch + 1].clone(), world)
            check_finite(so_far, epoch)
            if writes:
                seen = batch * config["batch_size"]
                batch_bce, batch_kld = (so_far[batch] / min(config["batch_size"], n - seen)).tolist()
                bar.write(
                    f"Train Epoch: {epoch} [{seen}/{n} ({100 * seen / n:.0f}%)]\tBCE_Loss: {batch_bce:.4f}, "
                    f"KLD_Loss: {batch_kld:.4f}, Total_Loss: {batch_bce + batch_kld:.4f}"
                )

    with bar:
        for epoch in range(len(history) + 1, config["epochs"] + 1):
            bar.set_description(f"epoch {epoch}/{config['epochs']}")
            order, eps = (t.to(device) for t in epoch_noise(config["seed"], epoch, n, config["latent_dim"]))
            start = time.perf_counter()
            try:
                losses = train_epoch(step, order, eps, config["batch_size"], world, after_batch)
            except RuntimeError:
                stop_if_asked(received, interrupted())  # another process may have heard the signal first, and left
                raise
            check_finite(losses, epoch)
            train_bce, train_kld = (losses.cpu().double().sum(0) / n).tolist()
            seconds = time.perf_counter() - start
            if not writes:
                continue
            test_bce, test_kld, z, mu = evaluate(model, dataset.test_images)
            if not math.isfinite(test_bce + test_kld):
                raise diverged(f"the test set after epoch {epoch}")
            figures = (train_bce, train_kld, train_bce + train_kld, test_bce, test_kld, test_bce + test_kld)
            history.append({"epoch": epoch, **dict(zip(checkpoint.LOSSES, figures, strict=True)), "seconds": seconds})
            bar.write(
                f"====> Epoch: {epoch} Average BCE loss: {train_bce:.4f}, KLD loss: {train_kld:.4f}, "
                f"Total loss: {train_bce + train_kld:.4f}\n"
                f"====> Test set BCE_loss: {test_bce:.4f}, KLD_loss: {test_kld:.4f}, "
                f"Total_loss: {test_bce + test_kld:.4f}"
            )
            if epoch == 1:  # only now, so that a run that fails at once costs nobody a finished one
                if checkpoint.clear(folder):
                    bar.write(f"Replaced the run that was in {folder}")
                checkpoint.write(folder / "config.json", description.encode())
            draw(folder, config, dataset, model, history, z, mu)
            checkpoint.save(folder, config, model, optimizer, history)


def headline(config, epoch, kind="epoch"):
    """A picture's title: dataset, epoch, and the test set's losses."""
    return (
        f"{TITLES[config['dataset']]}, {kind} {epoch['epoch']}: BCE {epoch['test_bce']:.2f} + "
        f"KLD {epoch['test_kld']:.2f} = {epoch['test_total']:.2f} nats per test image"
    )


def draw(folder, config, dataset, model, history, z, mu):
    """Write an epoch's pictures: reconstructions, latent frame, loss curves."""
    epoch, title = history[-1]["epoch"], headline(config, history[-1])
    labels = dataset.test_labels.cpu().numpy()
    one_per_class = np.unique(labels, return_index=True)[1]
    images = data.pixels(dataset.test_images[one_per_class]).cpu().numpy()
    with torch.no_grad():
        reconstructions = model.decode(z[one_per_class].to(dataset.test_images.device)).sigmoid().cpu().numpy()
    picture = utils.reconstruction(images, reconstructions, title)
    checkpoint.write(checkpoint.frame(folder, "reconstruction", epoch), picture)
    picture = utils.latent_frame(z.numpy(), mu.numpy(), labels, title)
    checkpoint.write(checkpoint.frame(folder, "latent", epoch), picture)
    picture = utils.loss_curves(history, config["epochs"], headline(config, checkpoint.best_of(history), "best epoch"))
    checkpoint.write(folder / "loss.png", picture)


def finish(folder, config, dataset, history):
    """Write the pictures of the whole run and of its best epoch, and print the summary."""
    best, model = checkpoint.best_of(history), VAE.load(folder / "best.pt")
    frames = [checkpoint.frame(folder, "latent", epoch["epoch"]) for epoch in history]
    checkpoint.write(folder / "latent.gif", utils.gif([path for path in frames if path.exists()]))
    with torch.no_grad():
        images = model.decode(manifold(model, dataset.test_images.cpu())).sigmoid().numpy()
    title = f"{TITLES[config['dataset']]}, best epoch {best['epoch']}: {MANIFOLDS.get(model.latent_dim, MANIFOLDS[3])}"
    checkpoint.write(folder / "manifold.png", utils.image_grid(images, MANIFOLD_SIDE, title))
    images = model.sample(64, generator(config["seed"])).numpy()
    title = f"{TITLES[config['dataset']]}, best epoch {best['epoch']}: decoded draws of z ~ N(0, I)"
    checkpoint.write(folder / "samples.png", utils.image_grid(images, 8, title))
    print(
        f"====> Best epoch: {best['epoch']} of {len(history)} on {TITLES[config['dataset']]}, test set "
        f"BCE_loss: {best['test_bce']:.4f}, KLD_loss: {best['test_kld']:.4f}, Total_loss: {best['test_total']:.4f}\n"
        f"Pictures are in {folder}: loss.png, latent.gif, manifold.png, samples.png, reconstruction/, latent/; "
        f"the best weights in {folder / 'best.pt'}"
    )


@torch.no_grad()
def manifold(model, images):
    """The z, (400, latent_dim), of the paper's Figure 4: the unit square's grid through the inverse Gaussian CDF.

    A single latent dimension is walked through in reading order. Of more than two, the plane through the origin along
    the first two principal components of mu over images (N, 784) uint8 is shown.
    """
    if model.latent_dim == 1:
        return torch.special.ndtri((torch.arange(MANIFOLD_SIDE**2) + 0.5) / MANIFOLD_SIDE**2).unsqueeze(1)
    u = torch.special.ndtri((torch.arange(MANIFOLD_SIDE) + 0.5) / MANIFOLD_SIDE)
    plane = torch.cartesian_prod(-u, u).flip(1)  # the first coordinate to the right, the second upwards
    if model.latent_dim == 2:
        return plane
    mu = model.encode(data.pixels(images))[0].numpy()
    return plane @ torch.from_numpy(utils.principal_plane(mu)[1]).float()
