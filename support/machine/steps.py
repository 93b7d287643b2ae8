"""Which step a run takes. Each one does what `train.step` does, to rounding: images and eps in, sums of losses out."""

import dataclasses

import torch

from support.errors import UserError
from support.machine import compiled, processes
from support.machine.arithmetic import find_precision


def resolve_auto(config, device, steps):
    """The Config of a run of so many steps on the device, with auto resolved; several processes compile on demand."""
    precision = find_precision(config.precision, device)
    compile = compiled.find_compile(config.compile, device, steps if processes.size() == 1 else 0)
    return dataclasses.replace(config, precision=precision, compile=compile)


def choose_objective(config, plain):
    """The objective of a run with this Config: `plain`, or the same with the layers in bfloat16."""
    if config.precision == "float32":
        return plain

    def in_bfloat16(model, images, *others):
        # A cache of the weights in bfloat16 would last as long as an autocast of the caller's: they would never change.
        with torch.autocast(images.device.type, torch.bfloat16, cache_enabled=False):
            return plain(model, images, *others)

    return in_bfloat16


def choose_step(config, plain):
    """The step of a run with this Config: `plain`, unless it is compiled or shared by several processes."""
    if processes.size() > 1:
        return processes.shared_step()
    return compiled.compiled_step(plain) if config.compile == "on" else plain


def check_parts(run):
    """Raise ValueError if the optimizer or the scheduler does not match the run, as after replacing another part."""
    trained = {id(parameter) for group in run.optimizer.param_groups for parameter in group["params"]}
    if not trained >= {id(parameter) for parameter in run.model.parameters() if parameter.requires_grad}:
        raise ValueError("the optimizer lacks parameters of the model: give the run one of run.model.parameters()")
    if run.scheduler.optimizer is not run.optimizer:
        raise ValueError("the scheduler is that of another optimizer: give the run a scheduler of run.optimizer")


def check_finite(run, losses, epoch, where="batch {}"):
    """Raise UserError, naming the epoch and the first bad batch or `where`, if losses (batches, 2) are not finite."""
    if len(bad := (~losses.isfinite()).any(1).nonzero()):
        place = where.format(bad[0].item() + 1)
        precision = " or --precision float32" if run.config.precision == "bfloat16" else ""
        resume = f"; add --resume to go on from epoch {epoch - 1}" if epoch > 1 else ""
        raise UserError(f"the loss is not finite in epoch {epoch}, {place}: name a lower --lr{precision}{resume}")
