"""The restart budget: arithmetic on a history of restarts, as in OTP's supervisor."""

from __future__ import annotations

from chronopype_mp.core.checks import positive, whole
from chronopype_mp.core.settings import Settings

__all__ = ["RestartBudget"]


class RestartBudget(Settings, frozen=True):
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
        whole(owner, "max_restarts", self.max_restarts, 0)
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
