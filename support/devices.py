"""Where a run computes: its device, its precision, and the processes that train together."""

import contextlib
import datetime
import os
from typing import NamedTuple

import torch
import torch.distributed as dist

from support.errors import UserError

MEMORY_WORDS = ("not enough memory", "out of memory", "can't allocate memory")
NETWORK_WORDS = ("gloo", "nccl", "tcpstore")


class World(NamedTuple):
    """This process among those that train together."""

    rank: int
    size: int


ALONE = World(0, 1)


def find_device(name):
    """The torch.device that --device names; under torchrun, this process's GPU.

    Raises:
        UserError: this machine has no such device.
    """
    local_rank = int(os.environ.get("LOCAL_RANK", 0))
    present = {
        "cuda": torch.cuda.is_available(),
        "mps": torch.backends.mps.is_available() and "WORLD_SIZE" not in os.environ,  # no backend joins its processes
        "cpu": True,
    }
    if name == "auto":
        name = next(kind for kind in present if present[kind])
    if not present[name]:
        raise UserError(f"--device {name}: this machine, or this build of PyTorch, has none; use --device auto or cpu")
    if name != "cuda":
        return torch.device(name)
    if local_rank >= torch.cuda.device_count():
        raise UserError(
            f"this machine has {torch.cuda.device_count()} GPUs, fewer than processes: lower nproc_per_node"
        )
    return torch.device(name, local_rank)


def find_precision(name, device):
    """--precision with auto resolved: bfloat16 where the hardware computes in it, else float32."""
    if name != "auto":
        return name
    if device.type == "cuda":
        native = torch.cuda.is_bf16_supported(including_emulation=False)
    else:
        capabilities = torch.cpu.get_capabilities() if device.type == "cpu" else {}
        native = any(capabilities.get(unit) for unit in ("avx512_bf16", "amx_bf16"))
    return "bfloat16" if native else "float32"


@contextlib.contextmanager
def join_processes(device):
    """The World of this process, joined with the others that torchrun started; ALONE without torchrun."""
    world = World(int(os.environ.get("RANK", 0)), int(os.environ.get("WORLD_SIZE", 1)))
    if world == ALONE:
        yield world
        return
    if device.type == "cuda":
        torch.cuda.set_device(device)
    dist.init_process_group("nccl" if device.type == "cuda" else "gloo", timeout=datetime.timedelta(minutes=10))
    yield world
    dist.destroy_process_group()  # not after an error: it could wait for the others forever


def broadcast(value, world):
    """Process 0's value, on every process."""
    box = [value]
    if world.size > 1:
        dist.broadcast_object_list(box)
    return box[0]


def all_reduce(tensors, world):
    """Sum each tensor over all processes, in place, with one message for all of them."""
    if world.size == 1:
        return
    flat = torch.cat([tensor.flatten() for tensor in tensors])
    dist.all_reduce(flat)
    for tensor, total in zip(tensors, flat.split([tensor.numel() for tensor in tensors]), strict=True):
        tensor.copy_(total.view_as(tensor))


@contextlib.contextmanager
def explain_torch_errors():
    """Turn what PyTorch raises when memory or another process is missing into a UserError."""
    try:
        yield
    except (RuntimeError, MemoryError) as error:
        text = str(error).lower()
        if isinstance(error, MemoryError) or any(words in text for words in MEMORY_WORDS):
            sizes = "--hidden_dims, --latent_dim, --batch_size or --prior_components"
            raise UserError(f"not enough memory for this network and batch: lower {sizes}") from error
        if isinstance(error, dist.DistError) or any(word in text for word in NETWORK_WORDS):
            rank = os.environ.get("RANK", 0)
            raise UserError(f"process {rank} stops: another process has ended or cannot be reached") from error
        raise
