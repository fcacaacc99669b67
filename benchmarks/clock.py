"""Our clock, configured for the benchmarks."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator

from chronopype_mp import ClockConfig, ClockMode, RealtimeClock, Supervision
from chronopype_mp.launchers import Launcher

__all__ = ["make_clock", "ticking"]


def make_clock(
    tick_size: float,
    launcher: str | Launcher = "forkserver",
    supervision: Supervision | None = None,
    event_loop: str = "asyncio",
) -> RealtimeClock:
    """Return a clock whose timestamps are deadlines on the monotonic clock.

    Call this in a running event loop.
    """
    config = ClockConfig(
        clock_mode=ClockMode.REALTIME,
        tick_size=tick_size,
        start_time=asyncio.get_running_loop().time(),
    )
    return RealtimeClock(config, launcher=launcher, supervision=supervision, event_loop=event_loop)


@contextlib.asynccontextmanager
async def ticking(clock: RealtimeClock) -> AsyncIterator[None]:
    """Tick the clock inside this context. The workers keep running after it."""
    task = asyncio.create_task(clock.run())
    try:
        yield
    finally:
        task.cancel()
        await asyncio.wait({task})
    if not task.cancelled():
        task.result()
