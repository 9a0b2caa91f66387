"""Settings of a process whose models run in threads beside others."""

from __future__ import annotations

import ctypes
import sys

_SWITCH_SECONDS = 0.0002
# Parameters of glibc's mallopt(3).
_TRIM_THRESHOLD, _MMAP_THRESHOLD = -1, -3
_TRIM_BYTES, _MMAP_BYTES = 2**31 - 1, 2**30


def suit_threads() -> None:
    """Set up this process for models in threads; for programs of their own, since it concerns everything in them.

    glibc gives memory that a thread other than the first one frees back to the system soon, so that every run of a
    model would fault its tensors in again; here it keeps what it has (up to the most that was ever used at once). And
    the interpreter changes threads sooner than after 5 ms: a model needs it after each of its operations.
    """
    sys.setswitchinterval(_SWITCH_SECONDS)
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None) if sys.platform == "linux" else None
    if mallopt is not None:  # glibc's
        mallopt(_MMAP_THRESHOLD, _MMAP_BYTES)
        mallopt(_TRIM_THRESHOLD, _TRIM_BYTES)
