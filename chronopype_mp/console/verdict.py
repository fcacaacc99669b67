"""Judges whether the demo went as expected, from the records of its workers. Pure."""

from __future__ import annotations

import enum
from collections.abc import Iterable

import msgspec

from chronopype_mp.core.connection import NetworkStatus
from chronopype_mp.core.worker_events import DeathReason

__all__ = ["TROUBLE_DUE", "Death", "Judgement", "Role", "Verdict", "WorkerRecord", "judge"]

TROUBLE_DUE = 15.0
"""Seconds. A shorter run has no time for all faults and the recovery."""

SEGFAULT = -11
"""The exit code of a process that was ended by SIGSEGV."""

KILL = -9
"""The exit code of a process that was ended by SIGKILL."""


class Role(enum.Enum):
    """The purpose of a worker in the demo. The value says what is expected of it."""

    HEALTHY = "healthy"
    BLOCKS = "blocks its loop, is killed, recovers"
    CRASHES = "segfaults, recovers"
    KILLED = "is killed (kill -9), keeps its positions"
    EXCHANGE = "its exchange makes trouble, as scripted; comes back"


class Death(msgspec.Struct, frozen=True):
    """How a worker's process died."""

    reason: DeathReason
    exitcode: int | None = None


class WorkerRecord(msgspec.Struct, frozen=True, kw_only=True):
    """The result of one worker.

    Attributes:
        worker: the worker's name.
        role: the worker's purpose.
        due: ticks published while it was READY.
        run: ticks that it ran.
        missed: ticks that were replaced by newer ones.
        skipped: ticks that were held back while it was not connected.
        lost: ticks that were lost with a process that died.
        largest_gap: the longest time between two consecutive ticks, seconds.
        restarts: the number of restarts.
        readies: how often it became READY.
        deaths: the deaths of its processes, in order.
        statuses: the states of its network until the clock stopped, in order.
        at_end: the state of its network when the clock stopped.
        trouble: what was scripted to go wrong with its server.
        summary: what it did, for a worker that has no network to tell of.
        problems: what is wrong with what it did.
    """

    worker: str
    role: Role
    due: int = 0
    run: int = 0
    missed: int = 0
    skipped: int = 0
    lost: int = 0
    largest_gap: float = 0.0
    restarts: int = 0
    readies: int = 0
    deaths: tuple[Death, ...] = ()
    statuses: tuple[NetworkStatus, ...] = ()
    at_end: NetworkStatus = NetworkStatus.STOPPED
    trouble: str | None = None
    summary: str | None = None
    problems: tuple[str, ...] = ()

    @property
    def unaccounted(self) -> int:
        """Ticks that were due but are in no category. Negative if a tick is in two."""
        return self.due - (self.run + self.missed + self.skipped + self.lost)


class Judgement(msgspec.Struct, frozen=True):
    """A worker's record and a description of each problem."""

    record: WorkerRecord
    problems: tuple[str, ...]


class Verdict(msgspec.Struct, frozen=True):
    """The verdict on a run.

    Attributes:
        judgements: one per worker, in the order of the records.
        trouble_due: whether the run was long enough to judge the faults.
        unpublished: ticks that the clock itself was too late to publish. They are in no worker's
            account.
    """

    judgements: tuple[Judgement, ...]
    trouble_due: bool
    unpublished: int = 0

    @property
    def ok(self) -> bool:
        """Whether there are no problems."""
        return not any(judgement.problems for judgement in self.judgements)


def judge(
    records: Iterable[WorkerRecord],
    seconds: float,
    *,
    complete: bool = True,
    unpublished: int = 0,
) -> Verdict:
    """Judge a run.

    Args:
        records: the results of the workers.
        seconds: the planned duration of the run.
        complete: whether the run was complete. After Ctrl-C it is False, and nothing is expected
            that may not have had time to happen.
        unpublished: ticks that the clock itself was too late to publish. They are reported, but are
            not a problem of any worker.
    """
    trouble_due = complete and seconds >= TROUBLE_DUE
    return Verdict(
        tuple(
            Judgement(record, tuple(_problems(record, trouble_due, complete))) for record in records
        ),
        trouble_due,
        unpublished,
    )


def _problems(record: WorkerRecord, trouble_due: bool, complete: bool) -> list[str]:
    problems = list(record.problems)
    if record.unaccounted > 0:
        problems.append(f"{_ticks(record.unaccounted)} not accounted for")
    elif record.unaccounted < 0:
        problems.append(f"{_ticks(-record.unaccounted)} accounted for twice")
    if record.role is Role.HEALTHY:
        problems += _harm(record, complete)
    elif trouble_due and record.role is Role.EXCHANGE:
        problems += _did_not_come_back(record)
    elif trouble_due:
        problems += _unrestarted(record)
    return problems


def _harm(record: WorkerRecord, complete: bool) -> list[str]:
    """Describe how a healthy worker was affected."""
    problems = []
    if record.missed:
        problems.append(f"missed {_ticks(record.missed)}")
    if record.lost:
        problems.append(f"lost {_ticks(record.lost)}")
    if record.restarts or record.deaths:
        reasons = ", ".join(death.reason.value for death in record.deaths) or "no death seen"
        problems.append(f"was restarted ({reasons})")
    if _left_connected(record.statuses):
        problems.append("lost its connection")
    elif complete and record.at_end is not NetworkStatus.CONNECTED:
        problems.append(f"was {record.at_end.name} at the end")
    if complete and not record.run:
        problems.append("ran no tick")
    return problems


def _did_not_come_back(record: WorkerRecord) -> list[str]:
    problems = []
    if record.restarts or record.deaths:
        problems.append("was restarted, although only its exchange made trouble")
    if record.statuses.count(NetworkStatus.CONNECTING) < 2:
        problems.append("its exchange made no trouble")
    elif record.at_end is not NetworkStatus.CONNECTED:
        problems.append(f"did not come back: {record.at_end.name} at the end")
    if not record.run:
        problems.append("ran no tick")
    return problems


def _unrestarted(record: WorkerRecord) -> list[str]:
    problems = []
    if record.role is Role.BLOCKS:
        happened = any(death.reason is DeathReason.LOOP_BLOCKED for death in record.deaths)
        if not happened:
            problems.append("was never killed for blocking its loop")
    elif record.role is Role.KILLED:
        happened = Death(DeathReason.SIGNALLED, KILL) in record.deaths
        if not happened:
            problems.append("was never killed")
    else:
        happened = any(death.exitcode == SEGFAULT for death in record.deaths)
        if not happened:
            problems.append("never segfaulted")
    if happened and not (record.restarts and record.readies > 1):
        problems.append("did not recover")
    return problems


def _left_connected(statuses: tuple[NetworkStatus, ...]) -> bool:
    if NetworkStatus.CONNECTED not in statuses:
        return False
    first = statuses.index(NetworkStatus.CONNECTED)
    return any(status is not NetworkStatus.CONNECTED for status in statuses[first:])


def _ticks(count: int) -> str:
    return "1 tick" if count == 1 else f"{count} ticks"
