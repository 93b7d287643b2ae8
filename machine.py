"""Where a run computes: device and precision, CUDA graphs, and the processes that train together."""

import contextlib
import datetime
import os
from typing import NamedTuple

import torch
import torch.distributed as dist

from errors import UserError

WARM_UP_STEPS = 3  # before a CUDA graph is captured, as PyTorch's documentation asks


def find_device(name):
    """The torch.device of --device; under torchrun this process's GPU. Raises UserError if the machine has none."""
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
            f"there are more processes here than its {torch.cuda.device_count()} GPUs: lower nproc_per_node"
        )
    return torch.device(name, local_rank)


def find_precision(name, device):
    """--precision with auto settled: bfloat16 where hardware known to compute in it is found, else float32."""
    if name != "auto":
        return name
    if device.type == "cuda":
        native = torch.cuda.is_bf16_supported(including_emulation=False)
    else:
        capabilities = torch.cpu.get_capabilities() if device.type == "cpu" else {}
        native = any(capabilities.get(unit) for unit in ("avx512_bf16", "amx_bf16"))
    return "bfloat16" if native else "float32"


class World(NamedTuple):
    """This process among those that train together."""

    rank: int
    size: int


ALONE = World(0, 1)


@contextlib.contextmanager
def joined(device):
    """The World of this process, joined with the others that torchrun started; alone without it."""
    world = World(int(os.environ.get("RANK", 0)), int(os.environ.get("WORLD_SIZE", 1)))
    if world == ALONE:
        yield world
        return
    if device.type == "cuda":
        torch.cuda.set_device(device)
    dist.init_process_group("nccl" if device.type == "cuda" else "gloo", timeout=datetime.timedelta(minutes=10))
    yield world
    dist.destroy_process_group()  # not after an error: without the others it could wait for ever


@contextlib.contextmanager
def explained():
    """Turns what PyTorch raises for want of memory, or of the other processes, into a UserError."""
    try:
        yield
    except (RuntimeError, MemoryError) as error:
        text = str(error).lower()
        no_memory = ("not enough memory", "out of memory", "can't allocate memory")
        if isinstance(error, MemoryError) or any(words in text for words in no_memory):
            sizes = "--hidden_dims, --latent_dim, --batch_size or --prior_components"
            raise UserError(f"not enough memory for this network and batch: lower {sizes}") from error
        if isinstance(error, dist.DistError) or any(word in text for word in ("gloo", "nccl", "tcpstore")):
            rank = os.environ.get("RANK", 0)
            raise UserError(f"process {rank} stops: another of its run has ended or is out of reach") from error
        raise


def shared(value, world):
    """Process 0's value, on every process."""
    box = [value]
    if world.size > 1:
        dist.broadcast_object_list(box)
    return box[0]


def summed(tensor, world):
    """The tensor's sum over all processes."""
    if world.size > 1:
        dist.all_reduce(tensor)
    return tensor


def cuda_capture(function):
    """A function that replays the kernels function() launches, recorded in a CUDA graph, as a single launch."""
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        result = function()

    def replay():
        graph.replay()
        return result

    return replay


@contextlib.contextmanager
def cuda_side_stream():
    """A stream of its own, as warming up for a capture needs one."""
    stream = torch.cuda.Stream()
    stream.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(stream):
        yield
    torch.cuda.current_stream().wait_stream(stream)


def replayed(step, batch_size, capture=cuda_capture, warm_up=cuda_side_stream):
    """A step that does what `step` does, full batches through a captured graph: same kernels, one launch.

    The first full batches warm up plainly, the next is captured, and from then on full batches are replayed on the same
    memory, that of the result included: it holds until the next call. A smaller batch goes the plain way.
    """
    warm_ups, replay, static_index, static_eps = 0, None, None, None

    def call(index, eps, n):
        nonlocal warm_ups, replay, static_index, static_eps
        if len(index) != batch_size:
            return step(index, eps, n)
        if warm_ups < WARM_UP_STEPS:
            warm_ups += 1
            with warm_up():
                return step(index, eps, n)
        if replay is None:
            static_index, static_eps = index.clone(), eps.clone()
            replay = capture(lambda: step(static_index, static_eps, n))
        static_index.copy_(index)
        static_eps.copy_(eps)
        return replay()

    return call
