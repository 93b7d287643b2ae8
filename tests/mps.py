"""A device for tests that refuses what Apple's mps refuses: float64, and operations without a kernel for it."""

import functools
import re
from pathlib import Path

import torch
import torchgen
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import TorchDispatchMode

MIXING = ("copy_", "__getitem__", "__setitem__")  # operations that take tensors on two devices


@functools.cache
def operations_without_kernel():
    """The operations of this PyTorch that have a kernel of their own on the CPU, and none on mps."""
    path = Path(torchgen.__file__).parent / "packaged" / "ATen" / "native" / "native_functions.yaml"
    entries = re.split(r"^- func: ", path.read_text(encoding="utf-8"), flags=re.MULTILINE)[1:]
    bodies = {entry.partition("(")[0]: entry for entry in entries}
    missing = set()
    for name, body in bodies.items():
        delegate = re.search(r"structured_delegate: (\S+)", body)
        lines = re.findall(r"^    ([\w, ]+):", bodies[delegate[1]] if delegate else body, re.MULTILINE)
        keys = {key for line in lines for key in line.split(", ")}
        if "CPU" in keys and not keys & {"MPS", "CompositeExplicitAutograd", "CompositeImplicitAutograd"}:
            missing.add(name)
    return missing


class Kernels(TorchDispatchMode):
    """While `armed`, refuse operations without a kernel, and results in float64."""

    armed = False

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        name = func.name().removeprefix("aten::")
        if self.armed and name in operations_without_kernel():
            raise NotImplementedError(f"aten::{name} has no kernel for mps")
        result = func(*args, **(kwargs or {}))
        if self.armed and any(tensor.dtype == torch.float64 for tensor in tensors_in(result)):
            raise TypeError(f"aten::{name}: mps does not support float64")
        return result


class Mps(TorchFunctionMode):
    """Tensors that are sent to mps stay on the CPU, and behave as if they were on mps."""

    def __enter__(self):
        self.kernels = Kernels()
        self.kernels.__enter__()
        return super().__enter__()

    def __exit__(self, *error):
        super().__exit__(*error)
        self.kernels.__exit__(*error)

    def __torch_function__(self, func, types, args=(), kwargs=None):
        kwargs = kwargs or {}
        tensors = list(tensors_in([args, kwargs]))
        is_there = any(map(is_on_mps, tensors))
        name = getattr(func, "__name__", "")
        if func is torch.device or name == "_parse_to":
            return func(*args, **kwargs)
        if func == torch.Tensor.device.__get__:
            return torch.device("mps") if is_there else func(*args)
        if func == torch.Tensor.data.__set__:
            args[0].is_on_mps = is_on_mps(args[1])
            return func(*args)
        if name == "numpy" and is_there:
            raise TypeError("can't convert mps:0 device type tensor to numpy")
        targets = ["cpu"] if name == "cpu" else [v for v in (*args, *kwargs.values()) if is_device(v)]
        if targets:
            return self.place(func, args, kwargs, torch.device(targets[0]).type == "mps")
        mixes = is_there and any(tensor.dim() and not is_on_mps(tensor) for tensor in tensors)
        if mixes and name not in MIXING:
            raise RuntimeError(f"{name}: expected all tensors to be on the same device")
        return self.call(func, args, kwargs, is_there)

    def place(self, func, args, kwargs, there):
        """Call an operation whose arguments name a device: a factory, or a move."""
        on_cpu = [torch.device("cpu") if there and is_device(value) else value for value in args]
        options = {name: torch.device("cpu") if there and is_device(value) else value for name, value in kwargs.items()}
        result = self.call(func, on_cpu, options, there)
        if args and result is args[0] and is_on_mps(result) != there:
            result = result.clone()
        for tensor in tensors_in(result):
            tensor.is_on_mps = there
        return result

    def call(self, func, args, kwargs, there):
        """Call an operation whose results are on mps, or not."""
        self.kernels.armed = there
        try:
            result = func(*args, **kwargs)
        finally:
            self.kernels.armed = False
        for tensor in tensors_in(result):
            tensor.is_on_mps = there or is_on_mps(tensor)
        return result


def is_device(value):
    """Whether an argument names a device."""
    return isinstance(value, torch.device) or (isinstance(value, str) and value in ("cpu", "mps"))


def is_on_mps(tensor):
    """Whether a tensor pretends to be on mps."""
    return getattr(tensor, "is_on_mps", False)


def tensors_in(value):
    """The tensors in a nested value."""
    if isinstance(value, torch.Tensor):
        yield value
    elif isinstance(value, dict):
        yield from tensors_in(list(value.values()))
    elif isinstance(value, list | tuple):
        for item in value:
            yield from tensors_in(item)
