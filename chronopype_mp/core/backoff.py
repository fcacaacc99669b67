"""How long to wait before the next try: exponential, bounded, spread by jitter."""

from __future__ import annotations

import random

from chronopype_mp.core.checks import at_least, finite, positive
from chronopype_mp.core.settings import Settings
from chronopype_mp.exceptions import ConfigError

__all__ = ["BackoffPolicy"]


class BackoffPolicy(Settings, frozen=True):
    """An exponential backoff. The defaults are chronopype's for reconnecting.

    Args:
        minimum: the first wait, seconds.
        factor: each further wait is this many times the one before, at least 1.
        maximum: no wait is longer than this before jitter, seconds.
        jitter: share of the wait, 0 to 1, by which it varies to both sides, so that processors
            that failed together do not come back together.

    Raises:
        ConfigError: a value is out of range.
    """

    minimum: float = 1.0
    factor: float = 2.0
    maximum: float = 300.0
    jitter: float = 0.1

    def __post_init__(self) -> None:
        owner = type(self).__name__
        positive(owner, "minimum", self.minimum)
        at_least(owner, "factor", self.factor, 1.0)
        at_least(owner, "maximum", self.maximum, self.minimum)
        if not 0.0 <= finite(owner, "jitter", self.jitter) <= 1.0:
            raise ConfigError(owner, "jitter", self.jitter, "must be between 0 and 1")

    def base_delay(self, failures: int) -> float:
        """Return the wait in seconds after the ``failures``-th failure in a row, without jitter.

        Raises:
            ValueError: ``failures`` is below 1.
        """
        if failures < 1:
            raise ValueError(f"failures = {failures}: counts from 1")
        try:
            delay = self.minimum * self.factor ** (failures - 1)
        except OverflowError:
            return self.maximum
        return min(delay, self.maximum)

    def delay(self, failures: int, rng: random.Random) -> float:
        """Return the wait in seconds after the ``failures``-th failure in a row, jitter included.

        Args:
            failures: how many tries have failed in a row, from 1.
            rng: the source of jitter; one per worker, seeded differently.

        Raises:
            ValueError: ``failures`` is below 1.
        """
        return self.base_delay(failures) * (1.0 + rng.uniform(-self.jitter, self.jitter))
