"""The budget of file descriptors of the owner's process."""

from __future__ import annotations

import resource

from chronopype_mp.exceptions import ConfigError, TransportError
from chronopype_mp.guarded_log import GuardedLogger
from chronopype_mp.transport.descriptors import check_spare, open_descriptors, soft_limit
from chronopype_mp.transport.doorkeeper import RESERVE

__all__ = ["DescriptorBudget", "limit_of_workers", "raise_soft_limit"]

logger = GuardedLogger("chronopype_mp.coordinator")

HIGHEST = 65_536
"""The soft limit is raised to the hard one, but not above this: programs that close all possible
descriptors get slow with millions of them. It is enough for 5,000 workers."""

TO_ENTER = 64
"""Descriptors that must be free when a clock is entered. It takes about half of them, and libzmq
aborts the process if there are none for its threads."""

WAY_OUT = "raise the limit (ulimit -n, LimitNOFILE= in systemd, --ulimit in Docker)"

_raised: dict[int, int] = {}
"""Soft limits before they were raised, by what they were raised to: workers get those."""


def raise_soft_limit() -> None:
    """Raise the soft limit of open files to the hard one."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = HIGHEST if hard == resource.RLIM_INFINITY else min(hard, HIGHEST)
    if soft == resource.RLIM_INFINITY or soft >= wanted:
        return
    try:
        resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, hard))
    except (OSError, ValueError) as error:
        logger.info("the soft limit of open files stays %d: %s", soft, error)
        return
    _raised[wanted] = _raised.get(soft, soft)
    logger.info("raised the soft limit of open files from %d to %d", soft, wanted)


def limit_of_workers() -> int | None:
    """Return the soft limit for workers: the one before it was raised; None if it was not.

    A program that uses ``select()`` fails with descriptors above 1023.
    """
    return _raised.get(resource.getrlimit(resource.RLIMIT_NOFILE)[0])


class DescriptorBudget:
    """What a clock may use, from entering to leaving.

    Raises:
        TransportError: there are hardly any descriptors left.
    """

    def __init__(self) -> None:
        try:
            check_spare(TO_ENTER)
            self._in_use = open_descriptors()
        except OSError as error:
            raise TransportError(
                "the coordinator's sockets",
                f"entering a clock takes {TO_ENTER} free file descriptors, but with a limit of "
                f"{soft_limit()} there are fewer ({error.strerror}); close some, or {WAY_OUT}",
            ) from error

    def fits(self, workers: int, per_worker: int) -> bool:
        """Whether so many workers fit, with what the clock itself needs."""
        return self._needed(workers, per_worker) <= soft_limit()

    def check(self, workers: int, per_worker: int) -> None:
        """Check that so many workers fit.

        Raises:
            ConfigError: they do not; it names limit, need and way out.
        """
        if not self.fits(workers, per_worker):
            raise ConfigError(
                "the clock",
                "workers",
                workers,
                f"needs {self._needed(workers, per_worker)} file descriptors ({per_worker} for "
                f"each worker), but the soft limit is {soft_limit()}; {WAY_OUT}, leave "
                "raise_descriptor_limit=True, or use fewer workers",
            )

    def _needed(self, workers: int, per_worker: int) -> int:
        return self._in_use + TO_ENTER + RESERVE + per_worker * workers if per_worker else 0
