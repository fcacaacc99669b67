"""Warns of ticks that keep the event loop of their worker from turning, again and again."""

from __future__ import annotations

from chronopype_mp.guarded_log import GuardedLogger

__all__ = ["BlockingWatch"]

WARN_EVERY = 60.0
"""Seconds between two warnings."""

IN_A_ROW = 2
"""Ticks in a row that must block; a single one may be due to a busy machine."""

logger = GuardedLogger("chronopype_mp.worker")


class BlockingWatch:
    """Sees how long the ticks of a worker block, and warns at most once a minute.

    Args:
        worker: the worker's name.
        tick_size: seconds; a tick that blocks longer delays the next one.
    """

    def __init__(self, worker: str, tick_size: float) -> None:
        self._worker = worker
        self._tick_size = tick_size
        self._in_a_row = 0
        self._count = 0
        self._latest = 0
        self._warned_at: float | None = None

    def saw(self, hook: str, seconds: float, ended: int, now: float) -> None:
        """Take note of a tick that blocked for longer than ``tick_size``.

        Args:
            hook: the hook's name.
            seconds: the longest time for which it blocked.
            ended: how many ticks ended before it.
            now: on the monotonic clock, seconds.
        """
        self._in_a_row = self._in_a_row + 1 if ended - self._latest <= 1 else 1
        self._latest = ended
        self._count += 1
        if self._in_a_row < IN_A_ROW:
            return
        if self._warned_at is not None and now - self._warned_at < WARN_EVERY:
            return
        logger.warning(
            "worker %r: %s blocked the event loop for %.3g s, longer than tick_size (%g s), as it "
            "did %d times so far: ticks are missed, and the network loop stands still. Await in "
            "async_tick, call what blocks with asyncio.to_thread and a timeout, or choose a larger "
            "tick_size",
            self._worker,
            hook,
            seconds,
            self._tick_size,
            self._count,
        )
        self._warned_at = now
