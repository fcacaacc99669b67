"""A token bucket: limits how often something is done, with room for a burst."""

from __future__ import annotations

__all__ = ["TokenBucket"]


class TokenBucket:
    """Holds tokens for up to one second.

    Args:
        rate: tokens per second; also the size of a burst.
        now: the present time, seconds on any clock that does not go back.
    """

    def __init__(self, rate: float, now: float) -> None:
        self._rate = rate
        self._tokens = rate
        self._refilled_at = now

    def take(self, wanted: int, now: float) -> int:
        """Take up to ``wanted`` tokens; return how many there were."""
        refill = (now - self._refilled_at) * self._rate
        self._refilled_at = now
        self._tokens = min(self._rate, self._tokens + refill)
        granted = min(wanted, int(self._tokens))
        self._tokens -= granted
        return granted
