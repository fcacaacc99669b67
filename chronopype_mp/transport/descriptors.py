"""File descriptors of this process: how many are open, and how many more there may be."""

from __future__ import annotations

import os
import resource

__all__ = ["check_spare", "open_descriptors", "soft_limit", "spare_descriptors"]


def soft_limit() -> int:
    """Return how many descriptors this process may have (RLIMIT_NOFILE)."""
    return resource.getrlimit(resource.RLIMIT_NOFILE)[0]


def open_descriptors() -> int:
    """Return how many descriptors are open.

    Raises:
        OSError: there is none left to look with.
    """
    return len(os.listdir("/dev/fd")) - 1


def check_spare(count: int) -> None:
    """Check that so many descriptors can be opened.

    Raises:
        OSError: they cannot.
    """
    spare: list[int] = []
    try:
        for _ in range(count):
            spare.append(os.open(os.devnull, os.O_RDONLY))
    finally:
        for fd in spare:
            os.close(fd)


def spare_descriptors() -> int:
    """Return at most how many more can be opened, by the lowest free number; this is cheap."""
    try:
        lowest = os.open(os.devnull, os.O_RDONLY)
    except OSError:
        return 0
    os.close(lowest)
    return soft_limit() - lowest
