"""Why a worker is not heard of: from its two channels and the state of its process.

The loop's beats come from the worker's event loop, the guard's from a thread beside it. That one
also notes in a file that Python runs, and writes all stacks there when the loop stands still. ::

    process stopped                                      → STOPPED
    guard does not run                                   → GIL_STUCK
    guard says or has written that the loop stands still → LOOP_BLOCKED
    otherwise                                            → UNREACHABLE: it lives, reports are lost
"""

from __future__ import annotations

import msgspec

from chronopype_mp.core.events import DeathReason

__all__ = ["Signs", "classify"]


class Signs(msgspec.Struct, frozen=True, kw_only=True):
    """What is known of a worker whose beats stay away.

    Attributes:
        process_stopped: by SIGSTOP or a debugger.
        stacks_written: the guard has seen the loop stand still.
        python_runs: it has noted so not long ago.
        guard_silent: since the guard was heard last, seconds.
        guard_interval: how often it beats, seconds.
        stalled: for how long the loop stood still when the guard was heard last, seconds.
    """

    process_stopped: bool
    stacks_written: bool
    python_runs: bool
    guard_silent: float
    guard_interval: float
    stalled: float


GUARD_MISSES = 3
"""Beats of the guard that may be missing before it counts as not heard."""


def classify(signs: Signs) -> DeathReason:
    """Return why the worker is not heard of."""
    if signs.process_stopped:
        return DeathReason.STOPPED
    if not signs.python_runs:
        return DeathReason.GIL_STUCK
    guard_heard = signs.guard_silent <= GUARD_MISSES * signs.guard_interval
    if signs.stacks_written or (guard_heard and signs.stalled > 0):
        return DeathReason.LOOP_BLOCKED
    return DeathReason.UNREACHABLE
