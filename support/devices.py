"""Where a run computes: its device, its precision, and the processes that train together."""

import contextlib
import datetime
import os
import socket
import sys
import warnings

import torch
import torch.distributed as dist

from support.environment import ALONE, find_world, usable_cpus
from support.environment import World as World
from support.errors import UserError

MEMORY_WORDS = ("not enough memory", "out of memory", "can't allocate memory")
NETWORK_WORDS = ("gloo", "nccl", "tcpstore")


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
        raise UserError(
            f"this machine has {torch.cuda.device_count()} GPUs, fewer than processes: lower nproc_per_node"
        )
    return torch.device(kind, index)


def compute_on(device):
    """A small computation, which fails on a GPU that is full, too old or too new for this build of PyTorch."""
    x = torch.ones(8, 8, device=device)
    (x @ x).sum().item()


@contextlib.contextmanager
def hide_unused_gpu(device):
    """Let PyTorch see no GPU during a run on the CPU: its Adam asks for one at every step, and one may be full."""
    is_available = torch.cuda.is_available
    if device.type == "cpu":
        torch.cuda.is_available = lambda: False
    try:
        yield
    finally:
        torch.cuda.is_available = is_available


def first_line(error):
    """The first line of an error or warning; PyTorch adds advice and stack traces below."""
    return next(iter(str(error).splitlines()), type(error).__name__)


def find_precision(name, device):
    """--precision with auto resolved: bfloat16 where the hardware is known to be faster in it, else float32."""
    if name != "auto":
        return name
    if device.type == "cuda":
        return "bfloat16" if torch.cuda.is_bf16_supported(including_emulation=False) else "float32"
    is_faster = device.type == "cpu" and cpu_is_faster_in_bfloat16()
    return "bfloat16" if is_faster else "float32"


def cpu_is_faster_in_bfloat16():
    """Whether the products of a training step are faster in bfloat16 here.

    They take about a quarter of the time on AMD (Zen 4 and 5). An Intel Xeon that has bfloat16 only in AVX-512,
    without AMX, takes twice as long as in float32 (2.7 against 1.4 ms).
    """
    capabilities = cpu_capabilities()
    return bool(capabilities.get("amx_bf16") or (capabilities.get("avx512_bf16") and not is_intel(capabilities)))


def cpu_capabilities():
    """What the CPU can do, by name; nothing is known to PyTorch before 2.15."""
    return torch.cpu.get_capabilities() if hasattr(torch.cpu, "get_capabilities") else {}


def is_intel(capabilities):
    """Whether a CPU of these capabilities is Intel's."""
    return "intel" in str(capabilities.get("cpu_name", "")).lower()


def limit_threads():
    """Compute on no more threads than this process may keep busy; a number that the user has set stays."""
    if not {"OMP_NUM_THREADS", "MKL_NUM_THREADS"} & os.environ.keys():
        torch.set_num_threads(min(torch.get_num_threads(), usable_cpus()))


@contextlib.contextmanager
def fast_arithmetic():
    """Let the CPU compute in its fast modes, without a loss of accuracy; afterwards in PyTorch's default ones."""
    # Adam's first moments of pixels that are nearly always blank decay to denormal numbers and stay there. On an Intel
    # Xeon they make Adam's step of 784-400-2 take 1.4 ms, not 0.4.
    torch.set_flush_denormal(True)
    if float32_is_faster_by_onednn():
        torch.set_float32_matmul_precision("medium")
    try:
        yield
    finally:
        torch.set_flush_denormal(False)
        torch.set_float32_matmul_precision("highest")


def float32_is_faster_by_onednn():
    """Whether oneDNN's float32 products, which "medium" precision permits, are faster here and still float32.

    On AMD, MKL multiplies without AVX-512 (128 x 784 x 400 in 400 us, relative error 4e-7) and oneDNN with it (190 us,
    8e-7). On an Intel Xeon, MKL is the faster one. With AMX, "medium" would mean bfloat16.
    """
    capabilities = cpu_capabilities()
    return bool(capabilities.get("avx512_f")) and not (capabilities.get("amx_tile") or is_intel(capabilities))


@contextlib.contextmanager
def join_processes(device):
    """The World of this process, joined with the others that torchrun started; ALONE without torchrun.

    Raises:
        UserError: the others cannot be reached.
    """
    world = find_world()
    if world == ALONE:
        yield world
        return
    if device.type == "cuda":
        torch.cuda.set_device(device)
    address = os.environ["MASTER_ADDR"]
    port = os.environ["MASTER_PORT"]
    try:
        socket.getaddrinfo(address, port)  # an unknown name is noticed at once, not after minutes
        # torchrun keeps its store over a restart: without a prefix, a process may read the address of one that ended.
        store = next(dist.rendezvous("env://"))[0]
        store = dist.PrefixStore(os.environ.get("TORCHELASTIC_RESTART_COUNT", "0"), store)
        backend = "nccl" if device.type == "cuda" else "gloo"
        timeout = datetime.timedelta(minutes=10)
        dist.init_process_group(backend, store=store, rank=world.rank, world_size=world.size, timeout=timeout)
    except (OSError, RuntimeError, ValueError) as error:
        cause = getattr(error, "strerror", None) or first_line(error)
        raise UserError(
            f"process {world.rank} cannot join the others at MASTER_ADDR {address}, MASTER_PORT {port}: {cause}; "
            "check these, and the interface in GLOO_SOCKET_IFNAME or NCCL_SOCKET_IFNAME"
        ) from error
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
        if isinstance(error, getattr(dist, "DistError", ())) or any(word in text for word in NETWORK_WORDS):
            rank = find_world().rank
            raise UserError(f"process {rank} stops: another process has ended or cannot be reached") from error
        raise
