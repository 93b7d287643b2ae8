"""Processes that train together, as torchrun starts them: how they join, and the step that they share."""

import contextlib
import ctypes
import datetime
import os
import signal
import socket
import sys

import torch
import torch.distributed as dist
from torch.nn.parallel import DistributedDataParallel

from support.errors import UserError, first_line
from support.machine.environment import find_world

NETWORK_WORDS = ("gloo", "nccl", "tcpstore")
SET_PARENT_DEATH_SIGNAL = 1  # of Linux: prctl(2)


def rank():
    """This process's number among those that train together, from 0."""
    return dist.get_rank() if size() > 1 else 0


def size():
    """How many processes train together."""
    return dist.get_world_size() if dist.is_available() and dist.is_initialized() else 1


def is_first():
    """Whether this is the process that prints and writes."""
    return rank() == 0


@contextlib.contextmanager
def joined(device):
    """Join this process with the others that torchrun started, if any. Raises UserError if they cannot be reached."""
    world = find_world()
    if world.size == 1:
        yield
        return
    if sys.platform == "linux" and "TORCHELASTIC_RUN_ID" in os.environ:  # torchrun may be killed; end with it
        ctypes.CDLL(None).prctl(SET_PARENT_DEATH_SIGNAL, signal.SIGTERM)
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
    yield
    dist.destroy_process_group()  # not after an error: it could wait for the others forever


def broadcast(value):
    """The first process's value, on every process."""
    box = [value]
    if size() > 1:
        dist.broadcast_object_list(box)
    return box[0]


def shared_step():
    """The step of processes that train together: each one takes the gradient on its share of every batch.

    DistributedDataParallel adds the gradients up during the backward pass, in buffers that last.
    """
    model = None

    def step(run, images, eps):
        nonlocal model
        if model is None:
            model = DistributedDataParallel(run.model, gradient_as_bucket_view=True)
            model = torch.compile(model) if run.config.compile == "on" else model
        n = len(images)
        images, eps = (part.tensor_split(size())[rank()] for part in (images, eps))
        loss, losses = run.objective(model, images, eps, run.config.divergence_weight)
        run.optimizer.zero_grad()
        # The gradients are averaged over the processes, so the mean loss of a share is weighted by the share's size.
        (loss * (len(images) * size() / n)).backward()
        dist.all_reduce(losses)
        run.optimizer.step()
        run.scheduler.step()
        return losses

    return step


@contextlib.contextmanager
def explain_lost_process():
    """Turn what PyTorch raises when another process is missing, or there is no compiler, into a UserError."""
    try:
        yield
    except RuntimeError as error:
        compiler = sys.modules.get("torch._dynamo.exc")
        if compiler and isinstance(error, compiler.TorchDynamoException):
            raise UserError(f"torch.compile does not work here: {first_line(error)}; use --compile off") from error
        is_network = isinstance(error, getattr(dist, "DistError", ()))
        if size() > 1 and (is_network or any(word in str(error).lower() for word in NETWORK_WORDS)):
            raise UserError(f"process {rank()} stops: another process has ended or cannot be reached") from error
        raise
