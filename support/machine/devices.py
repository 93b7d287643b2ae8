"""The device that a run computes on, and what is said where it cannot."""

import contextlib
import os
import sys
import warnings

import torch

from support.errors import UserError, first_line
from support.machine.environment import ALONE, find_world

# What Adam asks at each step: the first until PyTorch 2.13, the second since.
HEALTH_CHECKS = ("_cuda_graph_capture_health_check", "_accelerator_graph_capture_health_check")
# "unexpected pos": what torch.save says where its buffer cannot grow.
MEMORY_WORDS = ("not enough memory", "out of memory", "can't allocate memory", "unexpected pos")


def find_device(name):
    """The torch.device that --device names; under torchrun, this process's GPU.

    With auto, a GPU that is present but cannot compute costs a warning, and the run goes to the CPU.

    Raises:
        UserError: there is no such device, or it cannot be used.
    """
    for kind in ("cuda", "mps", "cpu") if name == "auto" else (name,):
        device, problem = try_device(kind)
        if device and not problem:
            return device
        if name != "auto":
            reason = problem or "this machine, or this build of PyTorch, has none"
            raise UserError(f"--device {name}: {reason}; use --device auto or cpu")
        if problem and find_world() != ALONE:  # the others may be able to use theirs, and would wait for this process
            raise UserError(f"process {find_world().rank} cannot use its GPU ({problem}); use --device cpu")
        if problem:
            print(f"WARNING: training on the CPU, as the GPU cannot be used: {problem}", file=sys.stderr)


def try_device(kind):
    """This process's device of a kind and what is wrong with it, in one line: (None, None) if there is none."""
    if kind == "cpu":
        return torch.device(kind), None
    with warnings.catch_warnings(record=True) as said:  # PyTorch warns of a driver that is too old, and finds no GPU
        warnings.simplefilter("always")
        device = present_device(kind)
        if device is None:
            return None, first_line(said[0].message) if said else None
        try:
            compute_on(device)
        except (RuntimeError, AssertionError) as error:
            return device, first_line(error)
    return device, None


def present_device(kind):
    """This process's device of a kind, cuda or mps, or None. Raises UserError if the machine has too few."""
    if kind == "mps":
        is_alone = find_world() == ALONE  # no backend joins processes on it
        return torch.device(kind) if is_alone and torch.backends.mps.is_available() else None
    if not torch.cuda.is_available():
        return None
    index = 0 if find_world() == ALONE else int(os.environ["LOCAL_RANK"])
    if index >= torch.cuda.device_count():
        raise UserError(f"this machine has {torch.cuda.device_count()} GPUs, too few: lower nproc_per_node")
    return torch.device(kind, index)


def compute_on(device):
    """A small computation, which fails on a GPU that is full, too old or too new for this build of PyTorch."""
    torch.eye(8, device=device).matrix_power(2).sum().item()


def leave_gpu_alone(optimizer):
    """Let an optimizer of a run on the CPU ask no GPU, as Adam does at every step: one may be there, and be full."""
    for name in HEALTH_CHECKS:
        setattr(optimizer, name, lambda: None)


@contextlib.contextmanager
def explain_missing_memory():
    """Turn what PyTorch raises when memory is missing into a UserError."""
    try:
        yield
    except (RuntimeError, MemoryError) as error:
        if is_missing_memory(error):
            raise UserError(
                "not enough memory: lower --batch_size (with --resume, if epochs are finished), begin with a smaller "
                "network (--hidden_dims, --latent_dim, --prior_components), or raise the limit (ulimit -v)"
            ) from error
        raise


def is_missing_memory(error):
    """Whether an error is one of those that Python and PyTorch raise when memory is missing."""
    return isinstance(error, MemoryError) or any(words in str(error).lower() for words in MEMORY_WORDS)
