"""How long a training epoch takes, and against what: python benchmarks/speed.py

784-400-2 on MNIST, batches of 128, each contender in a process of its own, an epoch of each in turn, round after round,
so that a machine whose speed drifts treats them alike. Nothing that is written stays.
"""

import argparse
import contextlib
import multiprocessing
import resource
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent.parent))

import main
from errors import UserError

BATCH_SIZE = 128


def conventional(data_dir):
    """The loop of most tutorials: a DataLoader that makes a PIL image and a tensor of each digit; float32, Adam."""
    import torch
    import torch.nn.functional as F
    from torch.utils.data import DataLoader
    from torchvision import datasets, transforms

    from model import VAE

    loader = DataLoader(datasets.MNIST(data_dir, transform=transforms.ToTensor()), batch_size=BATCH_SIZE, shuffle=True)
    model = VAE()
    optimizer = torch.optim.Adam(model.parameters(), lr=1e-3)

    def epoch():
        for images, _ in loader:
            x = images.view(-1, 784)
            mu, logvar = model.encode(x)
            logits = model.decode(model.reparameterize(mu, logvar))
            bce = F.binary_cross_entropy(torch.sigmoid(logits), x, reduction="sum")
            kld = -0.5 * torch.sum(1 + logvar - mu.pow(2) - logvar.exp())
            optimizer.zero_grad()
            ((bce + kld) / len(x)).backward()
            optimizer.step()
            bce.item(), kld.item()

    return epoch


def project(data_dir, precision="auto", batch_size=BATCH_SIZE, fraction=1.0, compiled=False):
    """This project's epoch, from the functions that main.py uses; or the same with its network compiled."""
    import torch

    import data
    import machine
    import optim
    import train
    from model import VAE

    images = data.load("mnist", data_dir).train_images
    images = images[: int(len(images) * fraction)]
    model = VAE()
    bfloat16 = machine.find_precision(precision, images.device) == "bfloat16"
    net = torch.compile(model, dynamic=False) if compiled else model
    step = train.make_step(net, optim.Adam(model.parameters(), 1e-3), images, bfloat16)

    def epoch():
        train.train_epoch(step, *train.epoch_noise(1, 1, len(images), 2), batch_size)

    return epoch


def jax_scan(data_dir):
    """The same epoch as one compiled lax.scan over its full batches, float32. Raises ImportError without JAX."""
    import jax
    import jax.numpy as jnp

    import data

    images = jnp.asarray(data.pixels(data.load("mnist", data_dir).train_images).numpy())
    batches = len(images) // BATCH_SIZE

    def linear(key, n_in, n_out):
        bound = n_in**-0.5
        return [jax.random.uniform(key, shape, minval=-bound, maxval=bound) for shape in ((n_in, n_out), (n_out,))]

    keys = jax.random.split(jax.random.key(0), 4)
    widths = ((784, 400), (400, 4), (2, 400), (400, 784))
    parameters = [linear(key, *width) for key, width in zip(keys, widths, strict=True)]

    def apply(layer, x):
        return x @ layer[0] + layer[1]

    def loss(parameters, x, eps):
        hidden, heads, back, out = parameters
        mu, logvar = jnp.split(apply(heads, jax.nn.relu(apply(hidden, x))), 2, axis=1)
        logits = apply(out, jax.nn.relu(apply(back, mu + jnp.exp(0.5 * logvar) * eps)))
        bce = jnp.sum(jax.nn.softplus(logits) - logits * x)
        kld = 0.5 * jnp.sum(mu**2 + jnp.exp(logvar) - 1 - logvar)
        return (bce + kld) / len(x), jnp.stack([bce, kld])

    def adam(state, batch):
        parameters, first, second, t = state
        index, eps = batch
        gradients, losses = jax.grad(loss, has_aux=True)(parameters, images[index], eps)
        t = t + 1
        first = jax.tree.map(lambda m, g: 0.9 * m + 0.1 * g, first, gradients)
        second = jax.tree.map(lambda v, g: 0.999 * v + 0.001 * g * g, second, gradients)
        rate = 1e-3 * jnp.sqrt(1 - 0.999**t) / (1 - 0.9**t)
        parameters = jax.tree.map(lambda p, m, v: p - rate * m / (jnp.sqrt(v) + 1e-8), parameters, first, second)
        return (parameters, first, second, t), losses

    scan = jax.jit(lambda state, order, eps: jax.lax.scan(adam, state, (order, eps)), donate_argnums=0)
    zeros = [jax.tree.map(jnp.zeros_like, parameters) for _ in range(2)]
    state = (parameters, *zeros, jnp.zeros(()))

    def epoch():
        nonlocal state
        order = jax.random.permutation(jax.random.key(1), len(images))[: batches * BATCH_SIZE]
        eps = jax.random.normal(jax.random.key(2), (batches, BATCH_SIZE, 2))
        state, losses = scan(state, order.reshape(batches, BATCH_SIZE), eps)
        losses.block_until_ready()

    return epoch


def products(data_dir, dtype="bfloat16"):
    """Nothing but an epoch's large matrix products: two forward, three backward a batch."""
    import torch

    kind = getattr(torch, dtype)
    x, hidden = torch.randn(BATCH_SIZE, 784).to(kind), torch.randn(BATCH_SIZE, 400).to(kind)
    weight = torch.randn(400, 784).to(kind)

    def epoch():
        for _ in range(-(-60000 // BATCH_SIZE)):
            x @ weight.t()  # encoder, forward
            hidden @ weight  # decoder, forward
            hidden.t() @ x  # encoder's weights, backward
            x @ weight.t()  # decoder's input, backward
            x.t() @ hidden  # decoder's weights, backward

    return epoch


def serve(pipe, make, arguments):
    """In a process of its own: make an epoch, and time one for each message."""
    try:
        epoch = make(*arguments)
    except ImportError as error:
        pipe.send(str(error))
        return
    pipe.send(None)
    while pipe.recv():
        start = time.perf_counter()
        epoch()
        elapsed = time.perf_counter() - start
        pipe.send((elapsed, resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e6))


def race(contenders, rounds):
    """Each contender's seconds, of a first epoch and then of `rounds`, and its process's peak memory in GB, by name.

    Args:
        contenders: by name, what makes an epoch and its arguments. One that lacks a package is left out, in a line.
    """
    context = multiprocessing.get_context("spawn")
    pipes, seconds, memory = {}, {}, {}
    for name, (make, *arguments) in contenders.items():
        pipe, end = context.Pipe()
        context.Process(target=serve, args=(end, make, arguments), daemon=True).start()
        end.close()  # so that a process that fails is an EOFError here, not a wait for ever
        if problem := pipe.recv():
            print(f"left out: {name} ({problem})")
        else:
            pipes[name], seconds[name] = pipe, []
    for _ in range(1 + rounds):
        for name, pipe in pipes.items():
            pipe.send(True)
            elapsed, memory[name] = pipe.recv()
            seconds[name].append(elapsed)
    for pipe in pipes.values():
        pipe.send(False)
    return seconds, memory


def summary(values):
    """Median and range of a contender's seconds, but for the first epoch's."""
    return f"{statistics.median(values[1:]):.2f} | {min(values[1:]):.2f} to {max(values[1:]):.2f}"


def report(seconds, memory, against):
    """Print a table of times, of how many times as long `against` takes round by round, and of peak memory."""
    print(f"\n| an epoch of 60,000 images | median s | range | speed-up over the {against} | first epoch s | peak GB |")
    print("|---|---|---|---|---|---|")
    for name, values in seconds.items():
        ratio = statistics.median(a / b for a, b in zip(seconds[against][1:], values[1:], strict=True))
        print(f"| {name} | {summary(values)} | {ratio:.2f} | {values[0]:.2f} | {memory[name]:.2f} |")


def around(data_dir, rounds):
    """Print what an epoch and a run of the documented command cost beside training: medians of their parts."""
    import torch

    import checkpoint
    import data
    import explorer
    import train

    folder = Path(tempfile.mkdtemp())
    config = {**main.DEFAULTS, "precision": "auto", "epochs": 100}
    dataset = data.load("mnist", data_dir)
    model, optimizer, history = train.build(config, torch.device("cpu"))
    step = train.make_step(model, optimizer, dataset.train_images)
    train.train_epoch(step, *train.epoch_noise(1, 1, 1000, 2), BATCH_SIZE)
    seconds = {}

    def timed(name, function, *arguments):
        start = time.perf_counter()
        result = function(*arguments)
        seconds.setdefault(name, []).append(time.perf_counter() - start)
        return result

    for epoch in range(1, 101):
        *terms, z, mu = timed("evaluation", train.evaluate, model, dataset.test_images)
        losses = train.figures("train", *terms, config) | train.figures("test", *terms, config)
        losses["test_total"] -= epoch  # each epoch the best so far, so that best.pt is written too
        history.append({"epoch": epoch, **losses, "seconds": 0.0})
        timed("the three pictures", train.draw, folder, config, dataset, model, history, z, mu)
        timed("checkpoint.pt, best.pt, metrics.csv", checkpoint.save, folder, config, model, optimizer, history)
    for _ in range(rounds):
        timed("start: imports", subprocess.run, [sys.executable, "-c", "import train"])
        timed("start: data", data.load, "mnist", data_dir)
        with contextlib.redirect_stdout(None):
            timed("end: all of it", train.finish, folder, config, dataset, history)
        timed("end: explorer.html", explorer.write, folder, config, dataset, history)
        k = train.affordable_samples(model, len(dataset.test_images))
        timed(f"end: log p(x), k = {k}", train.likelihood, model, dataset, dataset.test_images, k)
    shutil.rmtree(folder)
    print("\n| beside training | median ms |\n|---|---|")
    for name, values in seconds.items():
        print(f"| {name} | {1000 * statistics.median(values):.0f} |")


def run():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data_dir", "--data-dir", default=main.DEFAULTS["data_dir"])
    parser.add_argument("--rounds", type=main.count, default=7)
    flags = parser.parse_args()

    import torch

    import data
    import machine

    try:
        data.load("mnist", flags.data_dir)  # so that data that are missing are noticed once, and now
    except (UserError, OSError) as error:
        sys.exit(f"speed.py: error: {error}")
    contenders = {
        "conventional loop": (conventional, flags.data_dir),
        "JAX scan, float32": (jax_scan, flags.data_dir),
    }
    best = machine.find_precision("auto", torch.device("cpu"))
    for precision in dict.fromkeys((best, "float32")):
        contenders |= {
            f"this project, {precision}": (project, flags.data_dir, precision),
            f"this project, {precision}, compiled": (project, flags.data_dir, precision, BATCH_SIZE, 1.0, True),
            f"products alone, {precision}": (products, flags.data_dir, precision),
        }
    report(*race(contenders, flags.rounds), "conventional loop")
    around(flags.data_dir, flags.rounds)

    shares = {"1/4": 0.25, "1/2": 0.5, "all": 1.0}
    sizes = {
        f"{name} of the data": (project, flags.data_dir, "auto", BATCH_SIZE, share) for name, share in shares.items()
    }
    sizes |= {f"batches of {n}": (project, flags.data_dir, "auto", n) for n in (32, 64, 128, 256, 512, 1024)}
    print("\n| this project's epoch | median s | least to most |\n|---|---|---|")
    for name, values in race(sizes, flags.rounds)[0].items():
        print(f"| {name} | {summary(values)} |")


if __name__ == "__main__":
    run()
