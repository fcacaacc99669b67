"""The wait before the next attempt: exponential, bounded, with jitter."""

from __future__ import annotations

import random

from chronopype_mp.core.checks import at_least, finite, positive
from chronopype_mp.core.settings import Seconds, Settings
from chronopype_mp.exceptions import ConfigError

__all__ = ["BackoffPolicy"]


class BackoffPolicy(Settings, frozen=True):
    """An exponential backoff. The defaults are chronopype's for reconnecting.

    Args:
        minimum: the first wait, seconds.
        factor: multiplies the wait after each failure; at least 1.
        maximum: the longest wait, without jitter, seconds.
        jitter: fraction of the wait, 0 to 1, by which it varies up or down. Processors that failed
            together then do not retry together.

    Raises:
        ConfigError: a value is out of range.
    """

    minimum: Seconds = 1.0
    factor: float = 2.0
    maximum: Seconds = 300.0
    jitter: float = 0.1

    def __post_init__(self) -> None:
        owner = type(self).__name__
        positive(owner, "minimum", self.minimum)
        at_least(owner, "factor", self.factor, 1.0)
        at_least(owner, "maximum", self.maximum, self.minimum)
        if not 0.0 <= finite(owner, "jitter", self.jitter) <= 1.0:
            raise ConfigError(owner, "jitter", self.jitter, "must be between 0 and 1")

    def base_delay(self, failures: int) -> float:
        """Return the wait after ``failures`` consecutive failures, without jitter, in seconds.

        Raises:
            ValueError: ``failures`` is below 1.
        """
        if failures < 1:
            raise ValueError(f"failures = {failures}: must be at least 1")
        try:
            delay = self.minimum * self.factor ** (failures - 1)
        except OverflowError:
            return self.maximum
        return min(delay, self.maximum)

    def delay(self, failures: int, rng: random.Random) -> float:
        """Return the wait after ``failures`` consecutive failures, with jitter, in seconds.

        Args:
            failures: consecutive failed attempts, at least 1.
            rng: the source of jitter; one per worker, each with its own seed.

        Raises:
            ValueError: ``failures`` is below 1.
        """
        return self.base_delay(failures) * (1.0 + rng.uniform(-self.jitter, self.jitter))
