"""What `device` and `precision` name, and memory that networks use again and again."""

from __future__ import annotations

import ctypes
import platform
import sys
from typing import TYPE_CHECKING

from metaportrait_cli.errors import OutOfMemoryError, UsageError

if TYPE_CHECKING:
    import torch

PRECISIONS = ("auto", "fp32", "bf16", "fp16")
DEVICES = ("auto", "cpu", "cuda", "mps")
# Options of glibc's mallopt.
_TRIM_THRESHOLD, _TOP_PAD, _MMAP_MAX = -1, -2, -4
_TOP_PAD_BYTES = 256 << 20
LEAST_ADDRESSES = 800 << 20
"""Bytes of address space below which libraries can't even be loaded"""


def check_names(device: str, precision: str) -> None:
    """Raises `UsageError` for settings that don't exist; needs no torch."""
    if device not in DEVICES:
        raise UsageError(f"`device` {device}: choose one of {', '.join(DEVICES)}")
    if precision not in PRECISIONS:
        raise UsageError(f"`precision` {precision}: choose one of {', '.join(PRECISIONS)}")


def check_address_space() -> None:
    """Raises `OutOfMemoryError` where the system lets the process have too few addresses, as by
    `ulimit -v`: some libraries then end it without a word."""
    if sys.platform == "win32":
        return
    import resource  # noqa: PLC0415  Unix alone has it

    allowed, _ = resource.getrlimit(resource.RLIMIT_AS)
    if allowed != resource.RLIM_INFINITY and allowed < LEAST_ADDRESSES:
        raise OutOfMemoryError(
            f"the process may use {allowed >> 20} MB of addresses, and needs"
            f" {LEAST_ADDRESSES >> 20} at least; raise the limit (ulimit -v)"
        )


def choose(device: str, precision: str, *, half_on_cpu: bool = False) -> tuple[str, torch.dtype]:
    """The device and the precision to compute in; `auto` takes the best there is.

    `half_on_cpu`: `auto` is bf16 on processors that compute in it, too.
    Raises `UsageError` for unknown settings and for a device that this machine lacks.
    """
    import torch  # noqa: PLC0415  takes seconds, and the analytic warp doesn't need it

    check_names(device, precision)
    has = {
        "cuda": torch.cuda.is_available(),
        "mps": torch.backends.mps.is_available(),
        "cpu": True,
    }
    if device == "auto":
        device = next(name for name, there in has.items() if there)
    if not has[device]:
        raise UsageError(f"`device` {device}: this machine has none that torch can use")
    if precision == "auto":
        half = device == "cuda" or (device == "cpu" and half_on_cpu and _computes_in_bf16())
        return device, torch.bfloat16 if half else torch.float32
    kinds = {"fp32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}
    return device, kinds[precision]


def plainly_cpu(device: str, precision: str) -> bool:
    """Whether `choose` would take the CPU and full precision, told without torch; else it must be
    asked."""
    if precision not in ("auto", "fp32") or device not in ("auto", "cpu"):
        return False
    if device == "cpu":
        return True
    # Without the driver's library there is no CUDA; every Mac may have MPS. `find_library` would
    # ask a compiler for it, for a tenth of a second.
    try:
        ctypes.CDLL("nvcuda.dll" if sys.platform == "win32" else "libcuda.so.1")
    except OSError:
        return sys.platform != "darwin"
    return False


def _computes_in_bf16() -> bool:
    """Whether the processor has instructions for bf16; without them it is slower than fp32."""
    import torch  # noqa: PLC0415

    able = torch.cpu.get_capabilities()
    return bool(able.get("avx512_bf16") or able.get("amx_bf16"))


def keep_freed_memory() -> bool:
    """Ask the allocator not to return freed memory to the system; whether it can.

    glibc by default gives every large block back at once and faults it in again, page by page,
    at the next layer: at 512² pixels that costs as much as the convolutions themselves. The
    process then holds on to its peak memory. Call once, before the work; results don't change.
    """
    if platform.libc_ver()[0] != "glibc":
        return False
    mallopt = ctypes.CDLL(None).mallopt
    wishes = ((_MMAP_MAX, 0), (_TRIM_THRESHOLD, 2**31 - 1), (_TOP_PAD, _TOP_PAD_BYTES))
    return all(mallopt(option, value) == 1 for option, value in wishes)


def give_freed_memory_back() -> None:
    """Has the allocator return what is free in the shares that threads have of it, where it can.

    Work that is over was done on other threads than what comes, and these have shares of their own.
    """
    if sys.platform == "linux":
        trim = getattr(ctypes.CDLL(None), "malloc_trim", None)  # not in every C library
        if trim is not None:
            trim(0)
