"""A token bucket: limits how often something is done, with room for a burst."""

from __future__ import annotations

__all__ = ["TokenBucket"]


class TokenBucket:
    """Holds tokens, and is refilled as time passes.

    Args:
        rate: tokens per second.
        now: the present time, seconds on any clock that does not go back.
        burst: how many tokens it holds; None means those of one second.
    """

    def __init__(self, rate: float, now: float, burst: float | None = None) -> None:
        self._rate = rate
        self._tokens = self._burst = rate if burst is None else burst
        self._refilled_at = now

    def take(self, wanted: int, now: float) -> int:
        """Take up to ``wanted`` tokens; return how many there were."""
        refill = (now - self._refilled_at) * self._rate
        self._refilled_at = now
        self._tokens = min(self._burst, self._tokens + refill)
        granted = min(wanted, int(self._tokens))
        self._tokens -= granted
        return granted
