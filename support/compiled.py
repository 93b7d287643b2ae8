"""The compiled step: the gradient of the objective, as one program that torch.compile makes of it.

The objective is the one that an eager step differentiates with .backward(). Compiled, its element-wise operations are
fused, and PyTorch dispatches one call in place of a hundred. Adam stays outside: the fused kernel of torch.optim is
faster than the one that inductor makes.
"""

import contextlib
import dataclasses
import logging
import sys

import torch
from torch.func import functional_call, grad

from support.devices import find_precision, first_line
from support.errors import UserError

# Compiling takes 12 to 22 s with a cold cache on two cores, and saves 0.5 (AMD, Zen 5, bfloat16) to 1 ms (Intel,
# float32) of each step of 784-400-2 in batches of 128: it pays after some 20,000 steps.
STEPS_THAT_PAY = 20_000

# torch.compile warns where there is a CUDA toolkit but no GPU, as on a login node. A run on the CPU needs neither.
logging.getLogger("torch.utils.cpp_extension").setLevel(logging.ERROR)


def resolve_auto(config, device, steps):
    """The Config of a run of so many steps on the device, with --precision auto and --compile auto resolved."""
    precision = find_precision(config.precision, device)
    return dataclasses.replace(config, precision=precision, compile=find_compile(config.compile, device, steps))


def find_compile(name, device, steps):
    """--compile with auto resolved: "on" for a run of so many steps that it pays, if torch.compile works here."""
    if name != "auto":
        return name
    if steps < STEPS_THAT_PAY or device.type == "mps":
        return "off"
    try:
        torch.compile(torch.neg)(torch.ones(8, device=device))
    except Exception as error:  # what a missing or broken compiler raises is no closed list
        print(f"Going on without torch.compile, which does not work here: {first_line(error)}", file=sys.stderr)
        return "off"
    return "on"


@contextlib.contextmanager
def explain_compiler_errors():
    """Turn what torch.compile raises where it does not work into a UserError."""
    try:
        yield
    except torch._dynamo.exc.BackendCompilerFailed as error:
        reason = first_line(error.inner_exception)
        raise UserError(f"torch.compile does not work here: {reason}; use --compile off") from error


def compile_gradient(objective, model):
    """The compiled gradient of objective(model, *batch), which returns a loss and the losses to report.

    Returns: a function of *batch that sets the gradients of the model's parameters and returns the losses. It is
    compiled by its first call, which raises UserError if that fails.
    """
    parameters = {name: parameter.detach() for name, parameter in model.named_parameters()}  # the same memory
    is_cuda = next(model.parameters()).is_cuda

    def loss(parameters, *batch):
        return objective(lambda *inputs: functional_call(model, parameters, inputs), *batch)

    # One shape, and no graph break: that would lose the gain without a word.
    mode = "reduce-overhead" if is_cuda else "default"
    compiled = torch.compile(grad(loss, has_aux=True), dynamic=False, fullgraph=True, mode=mode)

    def differentiate(*batch):
        if is_cuda:
            torch.compiler.cudagraph_mark_step_begin()  # the gradients of the last step are no longer needed
        with explain_compiler_errors():
            gradients, losses = compiled(parameters, *batch)
        for name, parameter in model.named_parameters():
            parameter.grad = gradients[name]
        return losses

    return differentiate
