"""Looking at a process that is in question, and killing it."""

from __future__ import annotations

from chronopype_mp.coordinator.record import Life, WorkerRecord
from chronopype_mp.core.stimuli import Probed
from chronopype_mp.launchers import Look

__all__ = ["kill", "kill_for_cause", "probe"]

STACKS_WITHIN = 0.5
"""Seconds that a process has to write its stacks when it is asked to before it is killed."""

LOOKS_MISSED = 2
"""Looks that the guard may be late before Python no longer counts as running."""


async def probe(record: WorkerRecord, life: Life) -> Probed:
    """Find out what can be seen of a process from outside."""
    look = Look() if life.process is None else await life.process.look()
    return Probed(
        record.name,
        life.incarnation,
        process_stopped=look.stopped,
        stacks_written=look.stacks_written,
        python_runs=_python_runs(record, look),
    )


def kill(life: Life) -> None:
    """Kill a process; one that is still being started, as soon as it is there."""
    life.kill_asked = True
    if life.process is not None:
        life.process.kill()
    elif not life.place.granted.done():
        life.place.leave()


async def kill_for_cause(record: WorkerRecord, life: Life) -> None:
    """Kill, but let a process that cannot run Python any more show its stacks before."""
    if life.process is None:
        kill(life)
        return
    look = await life.process.look()
    if look.stopped or _python_runs(record, look):
        kill(life)
    elif not life.kill_asked:
        life.kill_asked = True
        life.process.kill(stacks_within=STACKS_WITHIN)


def _python_runs(record: WorkerRecord, look: Look) -> bool:
    silent_for = look.silent_for
    return silent_for is None or silent_for < LOOKS_MISSED * record.policy.guard_interval
