"""File descriptors of this process: how many are open, and how many more there may be."""

from __future__ import annotations

import errno
import os
import resource
import select

__all__ = ["ENOUGH", "check_spare", "open_descriptors", "soft_limit", "spare_descriptors"]

ENOUGH = 64
"""Spare descriptors that need not be counted exactly."""

LOOKED_AT = 256
"""The highest numbers, which are free unless there were few descriptors at some time."""


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
    """Return how many more can be opened: exactly below `ENOUGH`, otherwise at least that.

    The lowest free number does not tell: numbers above it are in use by what was opened while
    there were few.
    """
    while True:
        limit = soft_limit()
        try:
            free = _free_numbers(max(0, limit - LOOKED_AT), limit)
        except OSError as error:
            if error.errno != errno.EINVAL:
                raise
            continue  # the limit was lowered meanwhile: these are too many numbers to ask about
        break
    if free >= ENOUGH or limit <= LOOKED_AT:
        return free
    try:
        return max(0, limit - open_descriptors())
    except OSError:
        return 0


def _free_numbers(first: int, end: int) -> int:
    """Return how many of these numbers are no descriptors, in one call of the system."""
    poller = select.poll()
    for number in range(first, end):
        poller.register(number, 0)
    return sum(event & select.POLLNVAL != 0 for _, event in poller.poll(0))
