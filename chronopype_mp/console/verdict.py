"""Whether the demo went as it should: a pure judgement over what became of each worker."""

from __future__ import annotations

import enum
from collections.abc import Iterable

import msgspec

from chronopype_mp.core.connection import NetworkStatus
from chronopype_mp.core.events import DeathReason

__all__ = ["TROUBLE_DUE", "Death", "Judgement", "Role", "Verdict", "WorkerRecord", "judge"]

TROUBLE_DUE = 15.0
"""Seconds; in a shorter run there is no time for all the trouble and its end."""

SEGFAULT = -11
"""The exit code of a process that SIGSEGV ended."""


class Role(enum.Enum):
    """What a worker of the demo is there for; the value says what is expected of it."""

    HEALTHY = "healthy"
    BLOCKS = "blocks its loop, is killed, comes back"
    CRASHES = "segfaults, comes back"
    LOSES_SERVER = "loses its server, reconnects"


class Death(msgspec.Struct, frozen=True):
    """How a process of a worker ended without having been asked to."""

    reason: DeathReason
    exitcode: int | None = None


class WorkerRecord(msgspec.Struct, frozen=True, kw_only=True):
    """What became of one worker.

    Attributes:
        worker: its name.
        role: what it is there for.
        due: ticks published while it was READY.
        run: executed.
        missed: replaced by a newer one.
        skipped: held back while it was not connected.
        lost: gone with a process that died.
        largest_gap: between two ticks that it executed one after the other, seconds.
        restarts: processes after the first.
        readies: how often it became READY.
        deaths: of its processes, in order.
        statuses: of its network, passed through before the clock stopped, in order.
        at_end: its network's when the clock stopped.
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

    @property
    def unaccounted(self) -> int:
        """Ticks that were due and are in no other column; below 0 if one is in two."""
        return self.due - (self.run + self.missed + self.skipped + self.lost)


class Judgement(msgspec.Struct, frozen=True):
    """A worker's record, and what is wrong with it, in words."""

    record: WorkerRecord
    problems: tuple[str, ...]


class Verdict(msgspec.Struct, frozen=True):
    """What is to be said of a run.

    Attributes:
        judgements: one for each worker, in the order of the records.
        trouble_due: whether the run was long enough for the trouble to be judged.
        unpublished: ticks that the clock itself was too late for; no worker's account has them.
    """

    judgements: tuple[Judgement, ...]
    trouble_due: bool
    unpublished: int = 0

    @property
    def ok(self) -> bool:
        """Whether nothing is wrong."""
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
        records: what became of each worker.
        seconds: how long the run was planned to be.
        complete: whether it took so long; False after Ctrl-C, when nothing is asked for that may
            not have had its time.
        unpublished: ticks that the clock itself was too late for; said, but held against nobody.
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
    problems = []
    if record.unaccounted > 0:
        problems.append(f"{_ticks(record.unaccounted)} not accounted for")
    elif record.unaccounted < 0:
        problems.append(f"{_ticks(-record.unaccounted)} accounted for twice")
    if record.role is Role.HEALTHY:
        problems += _harm(record, complete)
    elif trouble_due and record.role is Role.LOSES_SERVER:
        problems += _unreconnected(record)
    elif trouble_due:
        problems += _unrestarted(record)
    return problems


def _harm(record: WorkerRecord, complete: bool) -> list[str]:
    """Say what a healthy worker should not have suffered."""
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


def _unreconnected(record: WorkerRecord) -> list[str]:
    problems = []
    if record.restarts or record.deaths:
        problems.append("was restarted, though a lost server is no reason to")
    if not _left_connected(record.statuses):
        problems.append("never lost its server")
    elif record.at_end is not NetworkStatus.CONNECTED:
        problems.append(f"did not reconnect: {record.at_end.name} at the end")
    return problems


def _unrestarted(record: WorkerRecord) -> list[str]:
    problems = []
    if record.role is Role.BLOCKS:
        happened = any(death.reason is DeathReason.LOOP_BLOCKED for death in record.deaths)
        if not happened:
            problems.append("was never killed for its blocked loop")
    else:
        happened = any(death.exitcode == SEGFAULT for death in record.deaths)
        if not happened:
            problems.append("never segfaulted")
    if happened and not (record.restarts and record.readies > 1):
        problems.append("did not come back")
    return problems


def _left_connected(statuses: tuple[NetworkStatus, ...]) -> bool:
    if NetworkStatus.CONNECTED not in statuses:
        return False
    first = statuses.index(NetworkStatus.CONNECTED)
    return any(status is not NetworkStatus.CONNECTED for status in statuses[first:])


def _ticks(count: int) -> str:
    return "1 tick" if count == 1 else f"{count} ticks"
