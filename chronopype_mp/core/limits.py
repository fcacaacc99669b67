"""Limits on what a worker may use. A worker that exceeds one is restarted gracefully."""

from __future__ import annotations

import random
from collections import deque

from chronopype_mp.core.checks import at_least, finite, positive, whole
from chronopype_mp.core.settings import Seconds, Settings
from chronopype_mp.exceptions import ConfigError

__all__ = ["Excess", "LimitWatch", "Limits"]


class Limits(Settings, frozen=True):
    """Limits of one worker; None means no limit.

    Args:
        max_rss: resident memory, bytes (as circus and celery have it against leaks).
        max_cpu: average use of cores over ``cpu_window``: 0.5 is half a core, and only threads get
            above 1.
        cpu_window: seconds.
        max_lifetime: seconds in READY; these restarts are not charged to the budget.
        lifetime_jitter: fraction of ``max_lifetime``, 0 to 1, by which it varies up or down.
            Workers started together are then not restarted together.

    Raises:
        ConfigError: a value is out of range.
    """

    max_rss: int | None = None
    max_cpu: float | None = None
    cpu_window: Seconds = 10.0
    max_lifetime: Seconds | None = None
    lifetime_jitter: float = 0.1

    def __post_init__(self) -> None:
        owner = type(self).__name__
        if self.max_rss is not None:
            whole(owner, "max_rss", self.max_rss, 1)
        if self.max_cpu is not None:
            positive(owner, "max_cpu", self.max_cpu)
        positive(owner, "cpu_window", self.cpu_window)
        if self.max_lifetime is not None:
            at_least(owner, "max_lifetime", self.max_lifetime, 1.0)
        if not 0.0 <= finite(owner, "lifetime_jitter", self.lifetime_jitter) <= 1.0:
            raise ConfigError(
                owner, "lifetime_jitter", self.lifetime_jitter, "must be between 0 and 1"
            )


class Excess(Settings, frozen=True):
    """An exceeded limit: what to report, and whether the restart is charged to the budget."""

    detail: str
    charged: bool


class LimitWatch:
    """Watches the limits of one incarnation, starting when it is READY.

    Args:
        limits: its limits.
        now: when it became READY, seconds; on the same clock as all later calls.
        rng: the source of jitter.
    """

    def __init__(self, limits: Limits, now: float, rng: random.Random) -> None:
        self._limits = limits
        self._samples: deque[tuple[float, float]] = deque()
        self._expires: float | None = None
        if limits.max_lifetime is not None:
            spread = rng.uniform(-limits.lifetime_jitter, limits.lifetime_jitter)
            self._expires = now + limits.max_lifetime * (1.0 + spread)

    def expired(self, now: float) -> Excess | None:
        """Return an excess if the lifetime is over."""
        if self._expires is None or now < self._expires:
            return None
        return Excess(
            detail=f"max_lifetime of {self._limits.max_lifetime:g} s is over", charged=False
        )

    def sample(self, now: float, rss: int, cpu: float) -> Excess | None:
        """Take a sample; return the excess if there is one.

        Args:
            now: when it was taken, seconds.
            rss: resident memory, bytes.
            cpu: CPU time used since the start of the process, seconds.
        """
        limits = self._limits
        if limits.max_rss is not None and rss > limits.max_rss:
            return Excess(
                detail=f"RSS of {rss:,} bytes is above max_rss = {limits.max_rss:,}", charged=True
            )
        if limits.max_cpu is None:
            return None
        self._samples.append((now, cpu))
        while len(self._samples) > 1 and self._samples[1][0] <= now - limits.cpu_window:
            self._samples.popleft()
        began, used = self._samples[0]
        if now - began < limits.cpu_window:
            return None
        share = (cpu - used) / (now - began)
        if share <= limits.max_cpu:
            return None
        return Excess(
            detail=f"CPU share of {share:.2f} over {now - began:.1f} s is above "
            f"max_cpu = {limits.max_cpu:g}",
            charged=True,
        )
