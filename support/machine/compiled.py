"""The compiled step: the gradient of the objective, as one program that torch.compile makes of it.

The objective is the one that an eager step differentiates with .backward(). Compiled, its element-wise operations are
fused, and PyTorch dispatches one call in place of a hundred. Adam stays outside: the fused kernel of torch.optim is
faster than the one that inductor makes.
"""

import contextlib
import logging
import sys

import torch
from torch.func import functional_call, grad

from support.errors import UserError, first_line

# Compiling takes 12 to 22 s with a cold cache on two cores, and saves 0.5 (AMD, Zen 5, bfloat16) to 1 ms (Intel,
# float32) of each step of 784-400-2 in batches of 128: it pays after some 20,000 steps.
STEPS_THAT_PAY = 20_000

# torch.compile warns where there is a CUDA toolkit but no GPU, as on a login node. A run on the CPU needs neither.
logging.getLogger("torch.utils.cpp_extension").setLevel(logging.ERROR)


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


def compile_gradient(objective):
    """A function of a run, images, eps and n that sets the gradients of the model's parameters and returns the losses.

    It is compiled by its first call, which raises UserError if that fails.

    Args:
        objective: from a model, images, eps, a Config and n to a loss and the losses to report.
    """
    compiled = None

    def gradient(run, images, eps, n):
        nonlocal compiled
        compiled = compiled or compile_for(objective, run)
        if images.is_cuda:
            torch.compiler.cudagraph_mark_step_begin()  # the gradients of the last step are no longer needed
        parameters = {name: parameter.detach() for name, parameter in run.model.named_parameters()}  # the same memory
        with explain_compiler_errors():
            gradients, losses = compiled(parameters, images, eps, run.config, n)
        for name, parameter in run.model.named_parameters():
            parameter.grad = gradients[name]
        return losses

    return gradient


def compile_for(objective, run):
    """The compiled gradient of the objective for the model of a run."""
    model = run.model

    def loss(parameters, *batch):
        return objective(lambda *inputs: functional_call(model, parameters, inputs), *batch)

    # One shape, and no graph break: that would lose the gain without a word.
    mode = "reduce-overhead" if next(model.parameters()).is_cuda else "default"
    return torch.compile(grad(loss, has_aux=True), dynamic=False, fullgraph=True, mode=mode)
