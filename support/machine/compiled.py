"""The compiled step: gradient and Adam, compiled into one program by inductor, torch.compile's code generator.

It is traced without torch.compile's front end, whose checks before each call take 7% of a step. The program
changes the weights and Adam's moments in place, and stores no gradient.
"""

import contextlib
import dataclasses
import logging
import math
import os
import sys

import torch
from torch.func import functional_call, grad
from torch.fx.experimental.proxy_tensor import make_fx

from support.errors import UserError, first_line

STEPS_THAT_PAY = 10_000  # docs/speed.md tells how this was measured


class CannotCompile(Exception):
    """Why a step cannot be compiled, in a line."""


def find_compile(name, device, steps):
    """--compile with auto resolved: "on" if the run has enough steps to repay it, unless the environment forbids it."""
    if name != "auto":
        return name
    forbidden = {os.environ.get("TORCH_COMPILE_DISABLE"), os.environ.get("TORCHDYNAMO_DISABLE")} - {None, "", "0"}
    return "on" if steps >= STEPS_THAT_PAY and device.type != "mps" and not forbidden else "off"


def compiled_step(eager):
    """A step like `eager`, compiled for whole batches: a program has one shape, and an epoch's last batch is smaller.

    The first step of a run is eager as well, because it makes Adam's state. If compiling fails, or the optimizer is not
    plain Adam, a line says so, and all further steps are eager; if the user has named --compile on, it is a UserError.
    """
    program = betas = None

    def step(run, images, eps):
        nonlocal program, betas
        if len(images) != run.config.batch_size or not run.optimizer.state or run.config.compile == "off":
            return eager(run, images, eps)
        if program is None:
            try:
                program, betas = build(run, images, eps), run.optimizer.param_groups[0]["betas"]
            except CannotCompile as error:
                give_up(run, error)
                return eager(run, images, eps)
        if run.optimizer.param_groups[0]["betas"] != betas:  # a scheduler has changed them; the program has its own
            return eager(run, images, eps)
        return program(run, images, eps)

    return step


def give_up(run, error):
    """Make a run eager whose step cannot be compiled, after a line. Raises UserError if --compile on was named."""
    if "compile" in run.config.named:
        way_out = "use --compile off" + " --resume" * bool(run.history)
        raise UserError(f"torch.compile does not work here: {error}; {way_out}") from error
    print(f"Going on without torch.compile, which does not work here: {error}", file=sys.stderr)
    run.config = dataclasses.replace(run.config, compile="off")


def build(run, images, eps):
    """The compiled step of a run, like `train.step`, for batches of the shape of these images and eps."""
    adam = run.optimizer
    group, *others = adam.param_groups
    if (
        type(adam) is not torch.optim.Adam
        or others
        or any(group[name] for name in ("weight_decay", "amsgrad", "maximize"))
    ):
        raise CannotCompile("the compiled step is that of torch.optim.Adam, without weight decay")
    weights = {name: p.detach() for name, p in run.model.named_parameters() if p.requires_grad}  # the same memory
    fixed = {name: p.detach() for name, p in run.model.named_parameters() if not p.requires_grad}
    fixed |= dict(run.model.named_buffers())
    states = [adam.state[run.model.get_parameter(name)] for name in weights]
    steps, first, second = ([state[name] for state in states] for name in ("step", "exp_avg", "exp_avg_sq"))
    tensors = [*weights.values(), *first, *second, *fixed.values()]
    n = len(weights)

    def loss(weights, fixed, images, eps):
        weight = run.config.divergence_weight
        return run.objective(lambda *x: functional_call(run.model, weights | fixed, x), images, eps, weight)

    def train_step(rate, scale, images, eps, *tensors):
        theta, m, v = tensors[:n], tensors[n : 2 * n], tensors[2 * n : 3 * n]
        rest = dict(zip(fixed, tensors[3 * n :], strict=True))
        gradients, losses = grad(loss, has_aux=True)(dict(zip(weights, theta, strict=True)), rest, images, eps)
        for parameters in zip(theta, m, v, gradients.values(), strict=True):
            update(*parameters, (rate, scale), group)
        return (losses,)

    def program(run, images, eps):
        torch._foreach_add_(steps, 1)
        beta1, beta2 = group["betas"]
        t = int(steps[0])
        rate = torch.tensor(group["lr"] / (1 - beta1**t), device=images.device)
        scale = torch.tensor(1 / math.sqrt(1 - beta2**t), device=images.device)
        with torch.no_grad():
            (losses,) = compiled(rate, scale, images, eps, *tensors)
        run.scheduler.step()
        return losses

    example = [torch.ones((), device=images.device), torch.ones((), device=images.device), images, eps, *tensors]
    compiled = compile_program(train_step, example)
    adam.zero_grad()  # the first step's gradients are not needed any more
    return program


def update(theta, m, v, g, corrections, group):
    """A step of Adam on a parameter, its moments m and v, and its gradient g, all of one shape, in place.

    Algorithm 1 of Kingma & Ba (2015): m_t = beta1 m + (1 - beta1) g and v_t = beta2 v + (1 - beta2) g^2. theta moves by
    -alpha m_hat / (sqrt(v_hat) + epsilon), where m_hat = m_t / (1 - beta1^t) and v_hat = v_t / (1 - beta2^t).

    Args:
        corrections: alpha / (1 - beta1^t) and 1 / sqrt(1 - beta2^t).
        group: the optimizer's param_groups[0], with betas and eps.
    """
    beta1, beta2 = group["betas"]
    rate, scale = corrections
    m.lerp_(g, 1 - beta1)
    v.mul_(beta2).addcmul_(g, g, value=1 - beta2)
    theta.sub_(rate * m / (v.sqrt() * scale + group["eps"]))


def compile_program(function, example):
    """The function compiled for tensors like those of the list `example`, which it may change in place."""
    settings = {
        "compile_threads": torch.get_num_threads(),
        "cpp.vec_isa_ok": True,  # the test programs for the CPU's instructions take as long as half of the kernels
    }
    options = {"dynamic_shapes": "from_example_inputs", "options": {"config_patches": settings}}
    with torch.no_grad(), quiet_inductor():
        try:
            traced = make_fx(function, tracing_mode="fake")(*example)
            return torch._inductor.standalone_compile(traced, example, **options)
        except Exception as error:  # what a missing or broken compiler raises is no closed list
            reason = str(getattr(error, "inner_exception", error)).rpartition("Output:\n")[2]  # of the C++ compiler
            raise CannotCompile(first_line(reason or type(error).__name__)) from error


@contextlib.contextmanager
def quiet_inductor():
    """Let inductor start no processes, which would import PyTorch while training goes on, and say nothing of CUDA."""
    log = logging.getLogger("torch.utils.cpp_extension")  # it warns of a CUDA toolkit without a GPU, as on a login node
    level = log.level
    pool = os.environ.get("TORCH_WARM_POOL")
    log.setLevel(logging.ERROR)
    os.environ["TORCH_WARM_POOL"] = "0"
    try:
        yield
    finally:
        log.setLevel(level)
        del os.environ["TORCH_WARM_POOL"]
        if pool is not None:
            os.environ["TORCH_WARM_POOL"] = pool
