"""How a run computes: its precision, its threads, and the fast modes of the CPU."""

import contextlib
import ctypes
import os
from pathlib import Path

import torch

from support.machine.environment import usable_cpus


@contextlib.contextmanager
def fast_arithmetic():
    """Compute in the fast modes of the CPU and in float32, whatever the caller has set. At the end all is as before."""
    n_threads, dtype, device = torch.get_num_threads(), torch.get_default_dtype(), torch.get_default_device()
    flushes = (torch.full((), 1e-40, dtype=torch.float32, device="cpu") * 1).item() == 0
    with float32_products(), torch.autocast("cpu", enabled=False), torch.enable_grad():
        if not {"OMP_NUM_THREADS", "MKL_NUM_THREADS"} & os.environ.keys():
            torch.set_num_threads(min(n_threads, usable_cpus()))
        torch.set_default_dtype(torch.float32)
        if device.type != "cpu":
            torch.set_default_device("cpu")
        # Adam's first moments of pixels that are nearly always blank decay to numbers below 1e-38 and stay there. On an
        # Intel Xeon they make Adam's step of 784-400-2 take 1.4 ms, not 0.4.
        set_flush_denormal(True)
        # glibc gives a freed block back to the system, and a step pays for its pages again, unless a block of this size
        # has been freed before: then it keeps them.
        torch.empty(2**25 - 2**16, dtype=torch.uint8)
        try:
            yield
        finally:
            torch.set_num_threads(n_threads)
            torch.set_default_dtype(dtype)
            if device.type != "cpu":
                torch.set_default_device(device)
            set_flush_denormal(flushes)


def set_flush_denormal(mode):
    """torch.set_flush_denormal for all threads: those of OpenMP have the mode that this one had when they started."""
    torch.set_flush_denormal(mode)
    with contextlib.suppress(AttributeError, OSError, TypeError):  # another OpenMP, or Windows
        ctypes.CDLL(None).omp_pause_resource_all(1)  # ends its threads; the next operation starts new ones


@contextlib.contextmanager
def float32_products():
    """Multiply float32 matrices by the faster library, with the accuracy of float32."""
    before = torch.get_float32_matmul_precision()
    # Since PyTorch 2.9 there is a precision per backend as well, in which "none" means that of the level above.
    levels = [(torch.backends.mkldnn, torch.backends.mkldnn), (torch.backends.cuda, torch.backends)]
    settings = [(backend.matmul, above) for backend, above in levels if hasattr(above, "fp32_precision")]
    precisions = [matmul.fp32_precision for matmul, _ in settings]
    torch.set_float32_matmul_precision("medium" if float32_is_faster_by_onednn() else "highest")
    try:
        yield
    finally:
        torch.set_float32_matmul_precision(before)
        for (matmul, above), precision in zip(settings, precisions, strict=True):
            matmul.fp32_precision = "none" if precision == above.fp32_precision else precision


def find_precision(name, device):
    """--precision with auto resolved: bfloat16 where the hardware is known to be faster in it, else float32."""
    if name != "auto":
        return name
    if device.type == "cuda":
        return "bfloat16" if torch.cuda.is_bf16_supported(including_emulation=False) else "float32"
    return "bfloat16" if device.type == "cpu" and cpu_is_faster_in_bfloat16() else "float32"


def cpu_is_faster_in_bfloat16():
    """Whether the products of a training step are faster in bfloat16 here.

    They take about a quarter of the time on AMD (Zen 4 and 5). An Intel Xeon that has bfloat16 only in AVX-512,
    without AMX, takes twice as long as in float32 (2.7 against 1.4 ms).
    """
    cpu = cpu_capabilities()
    return bool(cpu.get("amx_bf16") or (cpu.get("avx512_bf16") and not cpu["is_intel"]))


def float32_is_faster_by_onednn():
    """Whether oneDNN's float32 products, which "medium" precision permits, are faster here and still float32.

    On AMD, MKL multiplies without AVX-512 (128 x 784 x 400 in 400 us, relative error 4e-7) and oneDNN with it (190 us,
    8e-7). On an Intel Xeon, MKL is the faster one. With AMX, "medium" would mean bfloat16.
    """
    cpu = cpu_capabilities()
    return bool(cpu.get("avx512_f")) and not (cpu.get("amx_tile") or cpu["is_intel"])


def cpu_capabilities():
    """What the CPU can do, by PyTorch's names, and whether it is Intel's. PyTorch before 2.14 does not tell."""
    if hasattr(torch.cpu, "get_capabilities"):
        found = torch.cpu.get_capabilities()
        return {**found, "is_intel": "intel" in str(found.get("cpu_name", "")).lower()}
    words = set()
    with contextlib.suppress(OSError):  # only Linux has it
        words = set(Path("/proc/cpuinfo").read_text(encoding="utf-8").split())
    flags = {"avx512_f": "avx512f", "avx512_bf16": "avx512_bf16", "amx_tile": "amx_tile", "amx_bf16": "amx_bf16"}
    return {name: flag in words for name, flag in flags.items()} | {"is_intel": "GenuineIntel" in words}
