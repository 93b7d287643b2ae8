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
from importlib import metadata
from pathlib import Path

import numpy as np
import torch
from tqdm import tqdm

import checkpoint
import data
import explorer
import machine
import optim
import utils
import yardsticks
from errors import UserError
from model import DIVERGENCES, VAE, log_normal

EVALUATION_SEED = 0  # no flag: every figure ever reported is measured with the same noise
EVALUATION_CHUNK = 500  # images at a time, so that their activations stay in the cache
# What the estimate of log p(x) at a run's end may cost, in multiplications, 3 s on two cores; how many of them the BCE
# of a pixel is worth; and the samples an image beyond which the estimate would hardly change.
LIKELIHOOD_BUDGET, PIXEL_COST, MOST_SAMPLES = 6e10, 200, 500
PROPOSAL_IMAGES = 1000
MANIFOLD_SIDE = 20
MANIFOLDS = {
    1: "the decoder along z, in reading order",
    2: "the decoder over the latent space",
    3: "the decoder over the plane of two principal components through 0",
}
DRAWS = {"normal": "N(0, I)", "mixture": "the learned mixture", "vamp": "the VampPrior"}
BEYOND, BISECTIONS = 1e3, 60  # no latent lies further out; 2000 / 2^60 is below the precision of a float64 there
MODEL_FLAGS = ("latent_dim", "hidden_dims", "prior", "prior_components", "divergence")


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


def make_step(net, optimizer, images, bfloat16=False, world_size=1, weight=1.0):
    """A step of Algorithm 1: a function step(index, eps, n) -> this process's sums of BCE and divergence, (2,) float32.

    Args:
        net: a VAE, or one wrapped for data-parallel training, which averages gradients over its processes.
        images: (N, 784) uint8, the whole training set on the network's device.
        bfloat16: run the layers in bfloat16 (weights, latents, losses and updates stay float32).
        weight: of the divergence, which is the KLD unless the model has another.

    The step takes the rows `index` of images, their noise eps (len(index), latent_dim), and the batch's size over all
    processes, n; it minimises the batch's mean of BCE + weight * divergence.
    """

    autocast = torch.autocast(images.device.type, torch.bfloat16, enabled=bfloat16)

    def step(index, eps, n):
        x = data.pixels(images.index_select(0, index))
        with autocast:
            bce, divergence, *_ = net(x, eps)
        bce, divergence = bce.sum(), divergence.sum()
        optimizer.zero_grad()
        (torch.add(bce, divergence, alpha=weight) * (world_size / n)).backward()
        optimizer.step()
        return torch.stack([bce.detach(), divergence.detach()])

    return step


def train_epoch(step, order, eps, batch_size, world=machine.ALONE, after_batch=lambda batch, losses: None):
    """One pass over the training set; returns each batch's sums of BCE and divergence over all processes, (batches, 2).

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
    """BCE and divergence of images (N, 784) uint8 in float32, one z an image from noise that is always the same.

    Returns: the mean BCE (nats per image) and divergence (the KLD, unless the model has another), z and mu (each
    (N, latent_dim), on the CPU).
    """
    eps = torch.randn(len(images), model.latent_dim, generator=generator(EVALUATION_SEED)).to(images.device)
    chunks = zip(images.split(EVALUATION_CHUNK), eps.split(EVALUATION_CHUNK), strict=True)
    terms = zip(*(model(data.pixels(chunk), noise) for chunk, noise in chunks), strict=True)
    bce, divergence, z, mu = (torch.cat(term).cpu() for term in terms)
    return bce.double().mean().item(), divergence.double().mean().item(), z, mu


def diverged(where):
    """The error to raise where a loss is not finite."""
    return UserError(
        f"the loss is not finite in {where}: lower --lr, or leave bfloat16 with --precision float32. "
        "What was saved before is safe"
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


def run(given, defaults, listen=tuple):
    """One run, from flags to pictures; under torchrun this process's part of it.

    Args:
        given: the flags that the user named, by name. defaults: every flag's default.
        listen: called when training begins, returns the list of signals that have come since; the run stops at the
            next batch once there is one.

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
        if config["divergence"] == "mmd":
            check_batches(len(dataset.train_images), config["batch_size"], world)
        model, optimizer, history = build(config, device, saved)
        description = json.dumps(describe(config, dataset, model, device, world), indent=2) + "\n"
        if writes and saved:
            checkpoint.write(folder / "config.json", description.encode())
            checkpoint.mend(folder, config, model, history)
            checkpoint.clear_foreign(folder, len(history), config["latent_dim"])
            *_, z, mu = evaluate(model, dataset.test_images)
            draw(folder, config, dataset, model, history, z, mu)  # which a kill may have kept from being drawn
            if len(history) >= config["epochs"]:
                print(f"All {len(history)} epochs are done: the last pictures are made again; --epochs extends the run")
        again = how_to_continue(given, world) if writes else ""
        received = listen()
        fit(model, optimizer, history, dataset, config, folder, description, again, world, received)
        stop_if_asked(received, again and f"Interrupted before the last pictures; {again}")
        if writes:
            finish(folder, config, dataset, history)
        stop_if_asked(received, again and "Interrupted, but the run is complete")


def check_batches(n, batch_size, world):
    """Raise UserError where the batches of n images are not such that each has an MMD on one process."""
    if world.size > 1:
        raise UserError("--divergence mmd compares the images of a whole batch: train it in one process")
    if 1 in (batch_size, n % batch_size):
        raise UserError("--divergence mmd compares a batch's images, and one has a single image: change --batch_size")


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
    command = shlex.join([sys.argv[0], "--resume", *itertools.chain(*named)])
    return f"continue with: {runner} {command}"


def build(config, device, saved=None):
    """The model, Adam and history of a run: new, or as saved. Raises UserError if that does not fit its own flags."""
    torch.manual_seed(config["seed"])
    model = VAE(**{flag: config[flag] for flag in MODEL_FLAGS}).to(device)
    optimizer = optim.Adam(model.parameters(), config["lr"])
    if not saved:
        return model, optimizer, []
    try:
        model.load_state_dict(saved["model"])
        optimizer.load(saved["optimizer"])
    except (AttributeError, KeyError, RuntimeError, TypeError, ValueError) as error:
        message = "the checkpoint.pt to resume does not hold the network that its own flags announce"
        raise UserError(message) from error
    return model, optimizer, saved["history"]


def fit(model, optimizer, history, dataset, config, folder, description, again, world, received):
    """Train from the epoch after the history's last to config["epochs"]; process 0 prints, draws and saves each.

    Args:
        model, optimizer, history: from build; the history grows.
        description: config.json's text; a fresh run's first epoch replaces what was in the folder.
        again: how to continue, for the line that an interrupted run ends with.
    """
    device, n, writes = dataset.train_images.device, len(dataset.train_images), world.rank == 0
    net = model if world == machine.ALONE else torch.nn.parallel.DistributedDataParallel(model)
    weight, label = config["divergence_weight"], DIVERGENCES[config["divergence"]].label
    step = make_step(net, optimizer, dataset.train_images, config["precision"] == "bfloat16", world.size, weight)
    if device.type == "cuda" and world == machine.ALONE:
        step = machine.replayed(step, config["batch_size"])
    batches = -(-n // config["batch_size"])
    steps, rate = config["epochs"] * batches, optim.SCHEDULES[config["schedule"]]
    optimizer.lr = rate(config["lr"], len(history) * batches, steps)
    bar = tqdm(
        total=steps,
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
        optimizer.lr = rate(config["lr"], (epoch - 1) * batches + batch + 1, steps)
        stop_if_asked(received, interrupted())
        if batch % config["log_interval"] == 0:
            so_far = machine.summed(losses[: batch + 1].clone(), world)
            check_finite(so_far, epoch)
            if writes:
                seen = batch * config["batch_size"]
                bce, divergence = (so_far[batch] / min(config["batch_size"], n - seen)).tolist()
                bar.write(
                    f"Train Epoch: {epoch} [{seen}/{n} ({100 * seen / n:.0f}%)]\tBCE_Loss: {bce:.4f}, "
                    f"{label}_Loss: {divergence:.4f}, Total_Loss: {bce + weight * divergence:.4f}"
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
            train_terms = (losses.cpu().double().sum(0) / n).tolist()
            seconds = time.perf_counter() - start
            if not writes:
                continue
            *test_terms, z, mu = evaluate(model, dataset.test_images)
            if not all(map(math.isfinite, test_terms)):
                raise diverged(f"the test set after epoch {epoch}")
            row = {"epoch": epoch, **figures("train", *train_terms, config), **figures("test", *test_terms, config)}
            history.append({**row, "seconds": seconds})
            bar.write(
                f"====> Epoch: {epoch} Average BCE loss: {row['train_bce']:.4f}, "
                f"{label} loss: {row['train_divergence']:.4f}, Total loss: {row['train_total']:.4f}\n"
                f"====> Test set {spoken(row, label)}"
            )
            before = checkpoint.inventory(folder) if epoch == 1 else {}
            checkpoint.save(folder, config, model, optimizer, history)
            if epoch == 1:  # only now: whatever goes wrong until here costs nobody the run that was in the folder
                checkpoint.clear(before)
                checkpoint.write(folder / "config.json", description.encode())
                if before:
                    bar.write(f"Replaced the run that was in {folder}")
            draw(folder, config, dataset, model, history, z, mu)


def figures(part, bce, divergence, config):
    """An epoch's figures of the training or test set, by metrics.csv's names; the KLD is None where there is none."""
    return {
        f"{part}_bce": bce,
        f"{part}_kld": divergence if DIVERGENCES[config["divergence"]].stochastic else None,
        f"{part}_total": bce + config["divergence_weight"] * divergence,
        f"{part}_divergence": divergence,
    }


def spoken(epoch, label):
    """An epoch's losses on the test set, as they are printed."""
    return (
        f"BCE_loss: {epoch['test_bce']:.4f}, {label}_loss: {epoch['test_divergence']:.4f}, "
        f"Total_loss: {epoch['test_total']:.4f}"
    )


def weighted(config):
    """What is added to BCE, as pictures call it: KLD, or 10 x MMD."""
    label, weight = DIVERGENCES[config["divergence"]].label, config["divergence_weight"]
    return label if weight == 1 else f"{weight:g} x {label}"


def headline(config, epoch, kind="epoch"):
    """A picture's title: dataset, epoch, and the test set's losses."""
    stochastic = DIVERGENCES[config["divergence"]].stochastic
    return (
        f"{data.TITLES[config['dataset']]}, {kind} {epoch['epoch']}: BCE {epoch['test_bce']:.2f} + {weighted(config)} "
        f"{epoch['test_divergence']:.{2 if stochastic else 4}f} = {epoch['test_total']:.2f} "
        f"{'nats ' * stochastic}per test image"
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
    if model.latent_dim == 2:
        explorer.remember(folder, epoch, mu.numpy(), labels)
    mean, deviation = moments(model.prior)
    axis = "z" if config["prior"] == "normal" else "standardised z"
    z, mu = (((points - mean) / deviation).numpy() for points in (z, mu))
    picture = utils.latent_frame(z, mu, labels, title, axis)
    checkpoint.write(checkpoint.frame(folder, "latent", epoch), picture)
    is_bound = weighted(config) == "KLD"
    names = ("BCE", DIVERGENCES[config["divergence"]].label)
    names += (f"total = BCE + {weighted(config)}{' = -ELBO' if is_bound else ''}",)
    title = headline(config, checkpoint.best_of(history), "best epoch")
    picture = utils.loss_curves(history, config["epochs"], names, title)
    checkpoint.write(folder / "loss.png", picture)


@torch.no_grad()
def moments(prior):
    """Mean and standard deviation of each latent under the prior, (latent_dim,) each: 0 and 1 under N(0, I).

    A learned prior may lie anywhere, at any scale; by these it fits the axes of the others.
    """
    mu, logvar = (parameter.cpu() for parameter in prior.components())
    return mu.mean(0), (logvar.exp().mean(0) + mu.var(0, correction=0)).sqrt()


def finish(folder, config, dataset, history):
    """Write the pictures of the whole run and of its best epoch, and print the summary."""
    best, model = checkpoint.best_of(history), VAE.load(folder / "best.pt")
    frames = [checkpoint.frame(folder, "latent", epoch["epoch"]) for epoch in history]
    frames = [path for path in frames if path.exists()]  # a user may have thinned them out
    if frames:
        checkpoint.write(folder / "latent.gif", utils.gif(frames))
    with torch.no_grad():
        images = model.decode(manifold(model, dataset.test_images.cpu())).sigmoid().numpy()
    which = f"{data.TITLES[config['dataset']]}, best epoch {best['epoch']}"
    title = f"{which}: {MANIFOLDS.get(model.latent_dim, MANIFOLDS[3])}"
    checkpoint.write(folder / "manifold.png", utils.image_grid(images, MANIFOLD_SIDE, title))
    images = model.sample(64, generator(config["seed"])).numpy()
    title = f"{which}: decoded draws of z ~ {DRAWS[config['prior']]}"
    checkpoint.write(folder / "samples.png", utils.image_grid(images, 8, title))
    page = "no explorer.html, as that needs two latent dimensions"
    if model.latent_dim == 2:
        explorer.write(folder, config, dataset, history)
        page = f"the latent space to walk in: {folder / 'explorer.html'}"
    model.to(dataset.test_images.device)
    k = affordable_samples(model, len(dataset.test_images))
    log_p, width = likelihood(model, dataset, dataset.test_images, k)
    by = f" of N(mu, {width:.2g}^2 I), its width fitted on training images" if width else ""
    print(
        f"====> log p(x) at the best epoch: {log_p:.4f} nats per test image, by importance sampling, k = {k}{by}\n"
        f"====> Best epoch: {best['epoch']} of {len(history)} on {data.TITLES[config['dataset']]}, test set "
        f"{spoken(best, model.divergence.label)}\n"
        f"Pictures are in {folder}: loss.png, latent.gif, manifold.png, samples.png, reconstruction/, latent/; "
        f"the best weights in {folder / 'best.pt'}; {page}"
    )


def affordable_samples(model, n):
    """The samples an image, k, with which log p(x) of n images costs about 3 s on two cores, or less."""
    cost = sum(p.numel() for p in model.decoder.parameters()) + PIXEL_COST * model.image_dim
    return min(MOST_SAMPLES, max(1, int(LIKELIHOOD_BUDGET // (n * cost))))


def likelihood(model, dataset, images, k):
    """The mean log p(x) of images (N, 784) uint8, in nats, and the width of the proposal if that had to be fitted."""
    width = None
    if not model.divergence.stochastic:
        width = yardsticks.proposal_width(model, dataset.train_images[:PROPOSAL_IMAGES], EVALUATION_SEED)
    log_p = yardsticks.log_likelihood(model, images, k, generator(EVALUATION_SEED), width)
    return log_p.cpu().double().mean().item(), width


@torch.no_grad()
def manifold(model, images):
    """The z, (400, latent_dim), of the paper's Figure 4: the unit square's grid through the prior's inverse CDF.

    A single latent dimension is walked through in reading order. Of more than two, the plane through the origin along
    the first two principal components of mu over images (N, 784) uint8 is shown, as N(0, I) would fill it.
    """
    side = MANIFOLD_SIDE
    if model.latent_dim == 1:
        return quantiles(model.prior, (torch.arange(side**2) + 0.5).unsqueeze(1) / side**2)
    u = (torch.arange(side) + 0.5) / side
    square = torch.cartesian_prod(1 - u, u).flip(1)  # the first coordinate to the right, the second upwards
    if model.latent_dim == 2:
        return quantiles(model.prior, square)
    mu = model.encode(data.pixels(images))[0].numpy()
    return torch.special.ndtri(square) @ torch.from_numpy(utils.principal_plane(mu)[1]).float()


def quantiles(prior, u):
    """The z, (N, latent_dim), with P(z_1 < z) = u_1, P(z_2 < z | z_1) = u_2 and so on, for u (N, latent_dim) in (0, 1).

    Where u is uniform, z has the prior's distribution. Found by bisection, as a mixture has no inverse CDF.
    """
    means, logvars = (parameter.double() for parameter in prior.components())
    log_weights = torch.zeros(len(u), len(means), dtype=torch.double)
    z = torch.empty(u.shape, dtype=torch.double)
    for d, (mu, sigma) in enumerate(zip(means.T, torch.exp(0.5 * logvars).T, strict=True)):
        low, high = (torch.full((len(u),), edge, dtype=torch.double) for edge in (-BEYOND, BEYOND))
        for _ in range(BISECTIONS):
            middle = (low + high) / 2
            below = log_weights.softmax(1).mul(torch.special.ndtr((middle.unsqueeze(1) - mu) / sigma)).sum(1) < u[:, d]
            low, high = torch.where(below, middle, low), torch.where(below, high, middle)
        z[:, d] = middle
        log_weights += log_normal(middle.view(-1, 1, 1), mu.unsqueeze(1), sigma.log().mul(2).unsqueeze(1))
    return z.float()
