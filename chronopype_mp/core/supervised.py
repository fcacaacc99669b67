"""The supervisor's record of one worker, and who goes with it when it dies."""

from __future__ import annotations

import random
from collections.abc import Iterable

from chronopype_mp.core.events import DeathReason, WorkerStatus
from chronopype_mp.core.limits import LimitWatch
from chronopype_mp.core.policy import GroupStrategy
from chronopype_mp.core.stimuli import Added, RestartAsked, StopAsked

__all__ = ["PROCESS", "Supervised", "affected"]

PROCESS = frozenset({WorkerStatus.STARTING, WorkerStatus.READY, WorkerStatus.STOPPING})
"""The states in which there is a process, or one is being started."""


class Supervised:
    """The supervisor's record of one worker.

    Attributes:
        deadline: when something is to be done next, by status; None if nothing is.
        ending: why the supervisor is ending the present process.
        uncharged: the restart after that is not charged.
        wanted: what is to follow the end of the process when the owner asked for that.
        leader: the member of its group whose death it is being restarted for.
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
        self.leader: str | None = None
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
        self.kill_sent = False
        self.killed_on_request = False
        self.wanted: type[StopAsked] | type[RestartAsked] | None = None
        self.limits: LimitWatch | None = None
        self.rss = 0
        self.cpu = 0.0
        self.probing = False
        self.guard_at = now
        self.stalled = 0.0


def affected(w: Supervised, workers: Iterable[Supervised]) -> list[Supervised]:
    """Return the members of a group that are restarted when ``w`` dies, itself not among them.

    Args:
        w: the one that died.
        workers: all, in the order of adding.
    """
    if w.group is None or w.strategy is GroupStrategy.ONE_FOR_ONE:
        return []
    running = (WorkerStatus.STARTING, WorkerStatus.READY)
    group = [m for m in workers if m.group == w.group]
    if w.strategy is GroupStrategy.REST_FOR_ONE:
        group = group[group.index(w) + 1 :]
    return [m for m in group if m is not w and m.status in running]
