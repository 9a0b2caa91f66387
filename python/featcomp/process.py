"""Settings of a process whose models run in threads beside others."""

from __future__ import annotations

import ctypes
import os
import sys
from contextlib import suppress

_SWITCH_SECONDS = 0.0002
# Parameters of glibc's mallopt(3).
_TRIM_THRESHOLD, _MMAP_THRESHOLD, _ARENA_MAX = -1, -3, -8
_KEPT_BYTES = 2**30
_OLD_MOST = 2**25  # as mmap threshold; older versions of glibc refuse more


def suit_threads() -> None:
    """Set up this process for models in threads; for programs of their own, since it concerns everything in them.

    Where glibc is the C library, threads share one heap, and it keeps up to 1 GB of what they have freed: glibc's own
    settings give memory that a thread frees back to the system at once, so that every run of a model would fault its
    tensors in again. And the interpreter changes threads sooner than after 5 ms: a model needs it after each of its
    operations. To be called before there are threads.
    """
    sys.setswitchinterval(_SWITCH_SECONDS)
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None) if sys.platform == "linux" else None
    if mallopt is None:
        return
    # The other two alone would do harm: each large tensor would be a mapping of its own.
    if mallopt(_MMAP_THRESHOLD, _KEPT_BYTES) or mallopt(_MMAP_THRESHOLD, _OLD_MOST):
        mallopt(_TRIM_THRESHOLD, _KEPT_BYTES)
        mallopt(_ARENA_MAX, 1)


def go_behind() -> None:
    """Have the calling thread not interrupt others when it wakes up, where the system has that (SCHED_BATCH).

    For threads that wake up often beside one that runs a model: where cores are free, they lose nothing.
    """
    if sys.platform == "linux":
        with suppress(OSError):  # a sandbox may forbid it
            os.sched_setscheduler(0, os.SCHED_BATCH, os.sched_param(0))
