"""Why a worker sends no beats: classified from its guard and the state of its process.

A worker's beats come from its event loop, the guard's from a thread of their own. The guard also
notes in a file that Python runs, and writes all stacks to it when the loop stalls. ::

    process stopped                           → STOPPED
    guard does not run                        → GIL_STUCK
    guard reports a stall or wrote the stacks → LOOP_BLOCKED
    otherwise                                 → UNREACHABLE: it is alive, its reports get lost
"""

from __future__ import annotations

import msgspec

from chronopype_mp.core.worker_events import DeathReason

__all__ = ["Signs", "classify"]


class Signs(msgspec.Struct, frozen=True, kw_only=True):
    """What is known about a worker whose beats are missing.

    Attributes:
        process_stopped: by SIGSTOP or a debugger.
        stacks_written: the guard has written stacks because the loop stalls.
        python_runs: the guard has recently noted so.
        guard_silent: seconds since the last beat of the guard.
        guard_interval: how often the guard beats, seconds.
        stalled: how long the loop had stalled at the guard's last beat, seconds.
    """

    process_stopped: bool
    stacks_written: bool
    python_runs: bool
    guard_silent: float
    guard_interval: float
    stalled: float


GUARD_MISSES = 3
"""Beats of the guard that may be missing before it counts as silent."""


def classify(signs: Signs) -> DeathReason:
    """Return why the worker sends no beats."""
    if signs.process_stopped:
        return DeathReason.STOPPED
    if not signs.python_runs:
        return DeathReason.GIL_STUCK
    guard_heard = signs.guard_silent <= GUARD_MISSES * signs.guard_interval
    if signs.stacks_written or (guard_heard and signs.stalled > 0):
        return DeathReason.LOOP_BLOCKED
    return DeathReason.UNREACHABLE
