"""How this process keeps memory that it needs again at once: the only door to malloc's own settings.

A body of 200 KB is held a few times on its way through gRPC, parser and answer. By default glibc gives such pieces back
to the kernel when they are freed and gets new ones, page by page, for the next request: that is a tenth of its cost.
And what was imported is never garbage, so that no collection needs to walk it.
"""

from __future__ import annotations

import ctypes
import gc

# of malloc.h; they are part of glibc's ABI
_M_TRIM_THRESHOLD = -1
_M_MMAP_THRESHOLD = -3
KEPT_BYTES = 16 << 20  # of free memory at the heap's end
LARGE_BYTES = 4 << 20  # from here on a piece is the kernel's as soon as it is freed


def settle() -> bool:
    """To be called once, before anything is served. False where malloc is not glibc's, which is no harm."""
    gc.collect()
    gc.freeze()
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
    if mallopt is None:
        return False
    return bool(mallopt(_M_TRIM_THRESHOLD, KEPT_BYTES) and mallopt(_M_MMAP_THRESHOLD, LARGE_BYTES))
