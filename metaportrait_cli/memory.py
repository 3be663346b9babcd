"""Keeps freed memory in the process, for networks that allocate large features again and again."""

from __future__ import annotations

import ctypes
import platform

# Options of glibc's mallopt.
_TRIM_THRESHOLD, _TOP_PAD, _MMAP_MAX = -1, -2, -4
_TOP_PAD_BYTES = 256 << 20


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
