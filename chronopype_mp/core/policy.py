"""How workers are supervised: restart type, backoff, budget, deadlines, limits."""

from __future__ import annotations

import enum

import msgspec

from chronopype_mp.core.backoff import BackoffPolicy
from chronopype_mp.core.checks import at_least, positive, whole
from chronopype_mp.core.limits import Limits
from chronopype_mp.core.resources import Resources
from chronopype_mp.core.restart import RestartBudget
from chronopype_mp.core.settings import Settings
from chronopype_mp.exceptions import ConfigError

__all__ = ["GroupStrategy", "RestartType", "Supervision"]

BEATS_PER_STALL = 4
"""A worker beats this often within a stall deadline, so that one lost beat is no stall."""

LOOKS_PER_DEADLINE = 5
"""Its guard looks this often within the shortest deadline."""

SHORTEST_LOOK = 0.02
"""Seconds between two looks, at the least."""

STACKS_AT = 0.6
"""Share of a deadline after which stacks are written: before the coordinator looks."""


class RestartType(enum.Enum):
    """When a worker that ended is started anew (OTP's).

    PERMANENT: always. TRANSIENT: after an abnormal end, that is, any exit status but 0, and any end
    before it was READY. TEMPORARY: never.
    """

    PERMANENT = "permanent"
    TRANSIENT = "transient"
    TEMPORARY = "temporary"


class GroupStrategy(enum.Enum):
    """Who is restarted when a worker of a group dies (OTP's).

    ONE_FOR_ONE: itself. ONE_FOR_ALL: all of the group. REST_FOR_ONE: itself and those that were
    added to the group after it.
    """

    ONE_FOR_ONE = "one_for_one"
    ONE_FOR_ALL = "one_for_all"
    REST_FOR_ONE = "rest_for_one"


class Supervision(Settings, frozen=True):
    """How one worker is supervised. All times in seconds.

    Args:
        restart: when a worker that ended is started anew.
        no_restart_exit_codes: exit statuses after which it is not, whatever ``restart`` says
            (systemd's ``RestartPreventExitStatus``).
        backoff: the wait before a restart (Kubernetes' shape: the first is immediate, then
            exponential and bounded, with jitter).
        healthy_after: so long READY makes the next failure the first again.
        budget: the restarts allowed within a window (OTP's intensity); a worker that needs more
            is QUARANTINED. A restart that an operator asks for does not count.
        probation_interval: a quarantined worker gets another try this often; None is never.
        start_timeout: from the start of the process to READY; after that it is killed.
        loop_stall_timeout: a worker whose event loop is not heard of for so long is looked into,
            and killed with its children if it stands still (systemd's ``WatchdogSec``).
        stop_grace: from the request to stop to the end of the process; after that it is killed.
        start_network_timeout, stop_network_timeout: bounds of these hooks of a
            `NetworkProcessor`; None leaves what its class says.
        limits: what the worker may use.
        resources: what its process sets for itself.

    Raises:
        ConfigError: a name is unknown or a value out of range.
    """

    restart: RestartType = RestartType.PERMANENT
    no_restart_exit_codes: tuple[int, ...] = ()
    backoff: BackoffPolicy = BackoffPolicy(minimum=0.5, maximum=30.0)
    healthy_after: float = 60.0
    budget: RestartBudget = RestartBudget()
    probation_interval: float | None = None
    start_timeout: float = 30.0
    loop_stall_timeout: float = 10.0
    stop_grace: float = 10.0
    start_network_timeout: float | None = None
    stop_network_timeout: float | None = None
    limits: Limits = Limits()
    resources: Resources = Resources()

    def __post_init__(self) -> None:
        owner = type(self).__name__
        try:
            restart = RestartType(self.restart)
        except ValueError:
            known = ", ".join(repr(kind.value) for kind in RestartType)
            raise ConfigError(owner, "restart", self.restart, f"must be one of {known}") from None
        msgspec.structs.force_setattr(self, "restart", restart)
        if not isinstance(self.no_restart_exit_codes, tuple | list):
            raise ConfigError(
                owner, "no_restart_exit_codes", self.no_restart_exit_codes, "must be numbers"
            )
        for code in self.no_restart_exit_codes:
            whole(owner, "no_restart_exit_codes", code, 0, 255)
        codes = tuple(self.no_restart_exit_codes)
        msgspec.structs.force_setattr(self, "no_restart_exit_codes", codes)
        positive(owner, "start_timeout", self.start_timeout)
        at_least(owner, "loop_stall_timeout", self.loop_stall_timeout, 0.2)
        at_least(owner, "stop_grace", self.stop_grace, 0.0)
        at_least(owner, "healthy_after", self.healthy_after, 0.0)
        for name in ("probation_interval", "start_network_timeout", "stop_network_timeout"):
            if getattr(self, name) is not None:
                positive(owner, name, getattr(self, name))
        for name, kind in (
            ("backoff", BackoffPolicy),
            ("budget", RestartBudget),
            ("limits", Limits),
            ("resources", Resources),
        ):
            if not isinstance(getattr(self, name), kind):
                raise ConfigError(owner, name, getattr(self, name), f"must be a {kind.__name__}")

    @property
    def beat_interval(self) -> float:
        """How often a worker reports, seconds."""
        return min(1.0, self.loop_stall_timeout / BEATS_PER_STALL)

    @property
    def _shortest_deadline(self) -> float:
        """The one that a loop that stands still misses first, seconds."""
        deadlines = (self.loop_stall_timeout, self.start_timeout, self.stop_grace)
        return min(deadline for deadline in deadlines if deadline)

    @property
    def guard_interval(self) -> float:
        """How often a worker's guard looks whether the event loop turns, seconds."""
        shortest = self._shortest_deadline / LOOKS_PER_DEADLINE
        return min(self.beat_interval, max(SHORTEST_LOOK, shortest))

    @property
    def stacks_after(self) -> float:
        """For how long the event loop may stand still before stacks are written, seconds."""
        return STACKS_AT * self._shortest_deadline
