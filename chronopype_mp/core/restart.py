"""The restart budget: arithmetic on the history of restarts, as in OTP's supervisor."""

from __future__ import annotations

from chronopype_mp.core.checks import positive, whole
from chronopype_mp.core.settings import Seconds, Settings

__all__ = ["RestartBudget"]


class RestartBudget(Settings, frozen=True):
    """At most ``max_restarts`` restarts within any ``window`` seconds.

    Args:
        max_restarts: restarts allowed in a window, at least 0.
        window: its length, seconds.

    Raises:
        ConfigError: a value is out of range.
    """

    max_restarts: int = 5
    window: Seconds = 60.0

    def __post_init__(self) -> None:
        owner = type(self).__name__
        whole(owner, "max_restarts", self.max_restarts, 0)
        positive(owner, "window", self.window)

    def spend(
        self, history: tuple[float, ...], now: float, count: int = 1
    ) -> tuple[float, ...] | None:
        """Return the history with restarts at ``now`` added, or None if the budget is spent.

        Args:
            history: the times of earlier restarts, ascending, seconds on the clock of ``now``.
            now: the time of these restarts.
            count: how many there are. Either all of them are within the budget or none is.
        """
        recent = self._recent(history, now)
        if len(recent) + count > self.max_restarts:
            return None
        return recent + (now,) * count

    def room_at(self, history: tuple[float, ...], now: float, count: int = 1) -> float:
        """Return when `spend` will accept what it refused ``now``; a window later if never."""
        recent = self._recent(history, now)
        excess = len(recent) + count - self.max_restarts
        return (recent[excess - 1] if excess <= len(recent) else now) + self.window

    def _recent(self, history: tuple[float, ...], now: float) -> tuple[float, ...]:
        return tuple(at for at in history if at > now - self.window)
