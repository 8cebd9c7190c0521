"""Memory of the process: keep what is freed, because asking the system for it again costs more than computing."""

import ctypes
import platform

_TRIM_THRESHOLD, _TOP_PAD, _MMAP_THRESHOLD = -1, -2, -3
"""Parameters of glibc's mallopt(3)."""


def keep_freed_memory() -> bool:
    """Let this process keep the memory that it frees, for its next arrays (glibc on Linux; elsewhere nothing happens).

    By default glibc gives large arrays back to the system at once, and every new one is filled with zeros page by
    page: a third of the time of an evaluation of a thousand atoms. The peak of the memory stays the same, but other
    programs do not get it back before the process ends. The command line calls this; scripts may.

    Returns:
        Whether the allocator accepted it.
    """
    if platform.libc_ver()[0] != "glibc":
        return False
    mallopt = ctypes.CDLL(None).mallopt
    settings = ((_MMAP_THRESHOLD, 2**30), (_TRIM_THRESHOLD, 2**31 - 1), (_TOP_PAD, 2**26))
    return all(mallopt(*setting) == 1 for setting in settings)
