"""The restart budget: arithmetic on a history of restarts, as in OTP's supervisor."""

from __future__ import annotations

import msgspec

from chronopype_mp.core.checks import positive
from chronopype_mp.exceptions import ConfigError

__all__ = ["RestartBudget"]


class RestartBudget(msgspec.Struct, frozen=True, kw_only=True):
    """At most ``max_restarts`` restarts within any ``window`` seconds.

    Args:
        max_restarts: how many restarts a window holds, at least 0.
        window: its length, seconds.

    Raises:
        ConfigError: a value is out of range.
    """

    max_restarts: int = 5
    window: float = 60.0

    def __post_init__(self) -> None:
        owner = type(self).__name__
        if isinstance(self.max_restarts, bool) or not isinstance(self.max_restarts, int):
            raise ConfigError(owner, "max_restarts", self.max_restarts, "must be a whole number")
        if self.max_restarts < 0:
            raise ConfigError(owner, "max_restarts", self.max_restarts, "must be at least 0")
        positive(owner, "window", self.window)

    def spend(self, history: tuple[float, ...], now: float) -> tuple[float, ...] | None:
        """Return the history with a restart at ``now`` added, or None when the budget is spent.

        Args:
            history: the times of earlier restarts, rising, seconds on the clock of ``now``.
            now: the time of this restart.
        """
        recent = tuple(at for at in history if at > now - self.window)
        if len(recent) >= self.max_restarts:
            return None
        return (*recent, now)
