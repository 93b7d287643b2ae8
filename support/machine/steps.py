"""Which step a run takes. Each one does what `train.step` does, to rounding: images and eps in, sums of losses out."""

import dataclasses

import torch

from support.data.datasets import pixels
from support.machine import compiled, processes
from support.machine.arithmetic import find_precision


def resolve_auto(config, device, steps):
    """The Config of a run of so many steps on the device, with auto resolved; several processes compile on demand."""
    precision = find_precision(config.precision, device)
    compile = compiled.find_compile(config.compile, device, steps if processes.size() == 1 else 0)
    return dataclasses.replace(config, precision=precision, compile=compile)


def choose_step(config, plain):
    """The step of a run with this Config: `plain`, unless it uses several processes, bfloat16 or compilation."""
    if processes.size() > 1:
        return processes.shared_step(objective)
    step = plain if config.precision == "float32" else eager_step
    return compiled.compiled_step(objective, step) if config.compile == "on" else step


def eager_step(run, images, eps):
    """`train.step`, also in bfloat16."""
    loss, losses = objective(run.model, images, eps, run.config)
    run.optimizer.zero_grad()
    loss.backward()
    torch.clear_autocast_cache()  # it would keep these weights for as long as an autocast of the caller's lasts
    run.optimizer.step()
    run.scheduler.step()
    return losses


def objective(model, images, eps, config):
    """The mean of BCE + weight * divergence over images (N, 784) uint8, and the sums of both, (2,), in nats."""
    x = pixels(images)
    with torch.autocast(x.device.type, torch.bfloat16, enabled=config.precision == "bfloat16"):
        bce, divergence, *_ = model(x, eps)
    losses = torch.stack([bce.sum(), divergence.sum()])
    return (losses[0] + config.divergence_weight * losses[1]) / len(images), losses.detach()


def check_parts(run):
    """Raise ValueError if the optimizer or the scheduler does not match the run, as after replacing another part."""
    trained = {id(parameter) for group in run.optimizer.param_groups for parameter in group["params"]}
    if not trained >= {id(parameter) for parameter in run.model.parameters() if parameter.requires_grad}:
        raise ValueError(
            "the optimizer lacks parameters of the model: give the run an optimizer of run.model.parameters()"
        )
    if run.scheduler.optimizer is not run.optimizer:
        raise ValueError("the scheduler is that of another optimizer: give the run a scheduler of run.optimizer")
