"""Looking at a process that is in question, and killing it."""

from __future__ import annotations

import asyncio

from chronopype_mp.coordinator.evidence import is_stopped, python_runs, size_of_stacks
from chronopype_mp.coordinator.record import Life, WorkerRecord
from chronopype_mp.core.stimuli import Probed
from chronopype_mp.timing import loop_time

__all__ = ["kill", "kill_for_cause", "probe"]

STACKS_WITHIN = 0.5
"""Seconds that a process has to write its stacks when it is asked to before it is killed."""

LOOKS_MISSED = 2
"""Looks that the guard may be late until no Python counts as running."""

STACKS_POLL = 0.05
"""Seconds without more of them after which they count as written."""


def probe(record: WorkerRecord, life: Life) -> Probed:
    """Find out what can be seen of a process from outside."""
    return Probed(
        record.name,
        life.incarnation,
        process_stopped=life.process is not None and is_stopped(life.process.pid),
        stacks_written=size_of_stacks(life) > 0,
        python_runs=_python_runs(record, life),
    )


def kill(life: Life) -> None:
    """Kill a process; one that is still being started, as soon as it is there."""
    life.kill_asked = True
    if life.process is not None:
        life.process.kill()
    elif not life.place.granted.done():
        life.place.leave()


def kill_for_cause(record: WorkerRecord, life: Life) -> None:
    """Kill, but let a process that cannot run Python any more show its stacks before."""
    if life.process is None or _python_runs(record, life) or is_stopped(life.process.pid):
        kill(life)
    else:
        life.stacks_asked_at = size_of_stacks(life)
        life.process.ask_for_stacks()
        _kill_with_stacks(life, life.stacks_asked_at, loop_time())


def _kill_with_stacks(life: Life, before: int, began: float) -> None:
    """Kill once the stacks have been written; look again and again, but not for long."""
    loop, size = asyncio.get_running_loop(), size_of_stacks(life)
    written = life.stacks_asked_at < size == before
    if life.kill_asked or written or loop_time() >= began + STACKS_WITHIN:
        kill(life)
    else:
        loop.call_later(STACKS_POLL, _kill_with_stacks, life, size, began)


def _python_runs(record: WorkerRecord, life: Life) -> bool:
    return python_runs(life, LOOKS_MISSED * record.policy.guard_interval)
