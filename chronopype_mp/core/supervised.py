"""The supervisor's records: of one worker, and of those that start again together."""

from __future__ import annotations

import random
from collections.abc import Iterable

from chronopype_mp.core.limits import LimitWatch
from chronopype_mp.core.policy import GroupStrategy
from chronopype_mp.core.stimuli import Added, RestartAsked, StopAsked
from chronopype_mp.core.worker_events import DeathReason, WorkerStatus

__all__ = ["PROCESS", "Restart", "Supervised", "affected"]

PROCESS = frozenset({WorkerStatus.STARTING, WorkerStatus.READY, WorkerStatus.STOPPING})
"""The states in which there is a process, or one is being started."""


class Supervised:
    """The supervisor's record of one worker.

    Attributes:
        deadline: when something is to be done about its process, by status; None if nothing is.
        ending: why the supervisor is ending the present process.
        uncharged: the restart after that is not charged.
        unloadable: no process can load its payload.
        wanted: what is to follow the end of the process when the owner asked for that.
    """

    def __init__(self, stimulus: Added) -> None:
        self.name = stimulus.worker
        self.policy = stimulus.policy
        self.group = stimulus.group
        self.strategy = stimulus.strategy
        self.rng = random.Random(stimulus.seed)
        self.status = WorkerStatus.STARTING
        self.incarnation = 0
        self.restarts = 0
        self.history: tuple[float, ...] = ()
        self.failures = 0
        self.on_probation = False
        self.reset(0.0)

    def reset(self, now: float) -> None:
        """Forget the last process."""
        self.pid: int | None = None
        self.launched_at = now
        self.ready_at: float | None = None
        self.deadline: float | None = None
        self.ending: DeathReason | None = None
        self.detail: str | None = None
        self.uncharged = False
        self.unloadable = False
        self.kill_sent = False
        self.killed_on_request = False
        self.wanted: type[StopAsked] | type[RestartAsked] | None = None
        self.limits: LimitWatch | None = None
        self.rss = 0
        self.cpu = 0.0
        self.probing = False
        self.guard_at = now
        self.stalled = 0.0


class Restart:
    """A restart under way: of one worker, or of those of a group that start again together.

    Every worker in BACKOFF or QUARANTINED is in one, and so are those that are being stopped for
    it. They start once the last of them has ended.

    Attributes:
        cause: the one that died. The others share its backoff or its quarantine.
        members: all of them, in the order of adding.
        due: they do not start before that; None is not unless the owner asks for it.
        quarantined: the budget of the one that died is spent, or a restart cannot help.
        detail: why they are quarantined if it is not the budget.
    """

    def __init__(self, cause: Supervised, members: list[Supervised], now: float) -> None:
        self.cause = cause
        self.members = members
        self.due: float | None = now
        self.quarantined = False
        self.detail: str | None = None

    @property
    def deadline(self) -> float | None:
        """When they start; None as long as one of them has not ended."""
        if any(member.status in PROCESS for member in self.members):
            return None
        return self.due


def affected(
    w: Supervised, workers: Iterable[Supervised], restarts: Iterable[Restart]
) -> list[Supervised]:
    """Return the members of a group that are restarted when ``w`` dies, in the order of adding.

    Itself is among them. Left alone are those that are quarantined, and those that the owner has
    stopped or is stopping.

    Args:
        w: the one that died.
        workers: all, in the order of adding.
        restarts: those under way; members that wait in one start with ``w`` instead.
    """
    if w.group is None or w.strategy is GroupStrategy.ONE_FOR_ONE:
        return [w]
    group = [m for m in workers if m.group == w.group and m.status is not WorkerStatus.STOPPED]
    if w.strategy is GroupStrategy.REST_FOR_ONE:
        group = group[group.index(w) :]
    quarantined = {m: restart.quarantined for restart in restarts for m in restart.members}
    return [m for m in group if m is w or not quarantined.get(m, m.wanted is StopAsked)]
