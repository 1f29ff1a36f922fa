"""How glibc hands out memory: fresh pages cost more than any code here.

Without this, each buffer of a few hundred KiB is mapped, touched and given back: 17 times the cost of
one that is used again. It must be called before large buffers are made, and may fail without harm.
"""

from __future__ import annotations

import ctypes
from typing import Final

M_TRIM_THRESHOLD: Final = -1
M_TOP_PAD: Final = -2
M_MMAP_THRESHOLD: Final = -3

TRIM_BYTES: Final = 512 * 1024 * 1024
TOP_PAD_BYTES: Final = 1024 * 1024
"""Small, since an idle server shall stay small; a busy one grows once and keeps what it has."""
MMAP_BYTES: Final = 32 * 1024 * 1024
"""glibc's own maximum: larger buffers are mapped and given back."""


def keep_pages() -> None:
    """Let the process keep the memory that it freed."""
    try:
        mallopt = ctypes.CDLL(None).mallopt
    except (OSError, AttributeError):  # musl has none, and needs none
        return
    mallopt(M_MMAP_THRESHOLD, MMAP_BYTES)
    mallopt(M_TRIM_THRESHOLD, TRIM_BYTES)
    mallopt(M_TOP_PAD, TOP_PAD_BYTES)
