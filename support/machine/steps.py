"""Which step a run takes. Each one does what `train.step` does, to rounding: images and eps in, sums of losses out."""

import dataclasses

import torch

from support.data.datasets import pixels
from support.machine import compiled, processes
from support.machine.arithmetic import find_precision


def resolve_auto(config, device, steps):
    """The Config of a run of so many steps on the device, with --precision auto and --compile auto resolved."""
    precision = find_precision(config.precision, device)
    compile = compiled.find_compile(config.compile, device, steps)
    return dataclasses.replace(config, precision=precision, compile=compile)


def choose_step(config, eager):
    """The step of a run with this Config: `eager`, unless another precision, a compiler or other processes are used."""
    step = eager
    if config.precision != "float32" or processes.size() > 1:
        step = step_along(eager_gradient)
    if config.compile == "on":
        step = by_size(config.batch_size, step_along(compiled.compile_gradient(share_of_loss)), step)
    return step


def step_along(gradient):
    """A step of Adam in which each process takes the gradient on its share of the batch, and the shares are added up.

    Args:
        gradient: a function of a run, images, eps and the images in the whole batch; it sets the gradients of the
            parameters and returns the sums of the losses.
    """

    def step(run, images, eps):
        mine, my_eps = (part.tensor_split(processes.size())[processes.rank()] for part in (images, eps))
        losses = gradient(run, mine, my_eps, len(images))
        if processes.size() > 1:
            processes.all_reduce([losses, *(parameter.grad for parameter in run.model.parameters())])
        run.optimizer.step()
        run.scheduler.step()
        return losses

    return step


def by_size(n, whole, smaller):
    """The step `whole` for batches of n images, and `smaller` for an epoch's last: a compiled graph has one shape."""

    def step(run, images, eps):
        return (whole if len(images) == n else smaller)(run, images, eps)

    return step


def eager_gradient(run, images, eps, n):
    """The gradient on a share of a batch of n images: see `step_along`."""
    run.optimizer.zero_grad()
    loss, losses = share_of_loss(run.model, images, eps, run.config, n)
    loss.backward()
    torch.clear_autocast_cache()  # it would keep these weights for as long as an autocast of the caller's lasts
    return losses


def share_of_loss(model, images, eps, config, n):
    """The part of a batch's mean loss that falls to these images, and their sums of BCE and divergence, (2,), in nats.

    Args:
        images: (M, 784) uint8.
        n: images in the whole batch.
    """
    x = pixels(images)
    with torch.autocast(x.device.type, torch.bfloat16, enabled=config.precision == "bfloat16"):
        bce, divergence, *_ = model(x, eps)
    losses = torch.stack([bce.sum(), divergence.sum()])
    return (losses[0] + config.divergence_weight * losses[1]) / n, losses.detach()


def check_parts(run):
    """Raise ValueError if a part of a run was replaced, but not the others that work on it: it would not be trained."""
    trained = {id(parameter) for group in run.optimizer.param_groups for parameter in group["params"]}
    if not trained >= {id(parameter) for parameter in run.model.parameters() if parameter.requires_grad}:
        raise ValueError(
            "the optimizer lacks parameters of the model: give the run an optimizer of run.model.parameters()"
        )
    if run.scheduler.optimizer is not run.optimizer:
        raise ValueError("the scheduler is that of another optimizer: give the run a scheduler of run.optimizer")
