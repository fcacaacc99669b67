"""How workers are supervised: restart type, backoff, budget, deadlines, limits."""

from __future__ import annotations

import enum

import msgspec

from chronopype_mp.core.backoff import BackoffPolicy
from chronopype_mp.core.checks import at_least, positive, whole
from chronopype_mp.core.limits import Limits
from chronopype_mp.core.resources import Resources
from chronopype_mp.core.restart import RestartBudget
from chronopype_mp.core.settings import Seconds, Settings
from chronopype_mp.exceptions import ConfigError

__all__ = ["GroupStrategy", "RestartType", "Supervision"]

BEATS_PER_STALL = 4
"""Beats of a worker per ``loop_stall_timeout``, so that one lost beat is not a stall."""

LOOKS_PER_DEADLINE = 5
"""Looks of a worker's guard per shortest deadline."""

SHORTEST_LOOK = 0.02
"""The least interval between two looks, seconds."""

STACKS_AT = 0.6
"""Fraction of a deadline after which stacks are written, before the coordinator looks."""


KNOWN_TO_PROCESS = (
    "beat_interval",
    "guard_interval",
    "stacks_after",
    "stop_grace",
    "start_network_timeout",
    "stop_network_timeout",
    "resources",
)
"""What a process of a worker is told when it starts."""


class RestartType(enum.Enum):
    """When a worker that ended is restarted (from OTP).

    PERMANENT: always. TRANSIENT: after an abnormal end, which is any exit status except 0, or an
    end before READY. TEMPORARY: never.
    """

    PERMANENT = "permanent"
    TRANSIENT = "transient"
    TEMPORARY = "temporary"


class GroupStrategy(enum.Enum):
    """Which workers are restarted when one of a group dies (from OTP).

    ONE_FOR_ONE: that one. ONE_FOR_ALL: the whole group. REST_FOR_ONE: that one and those added to
    the group after it.
    """

    ONE_FOR_ONE = "one_for_one"
    ONE_FOR_ALL = "one_for_all"
    REST_FOR_ONE = "rest_for_one"


class Supervision(Settings, frozen=True):
    """How one worker is supervised. All times in seconds.

    Args:
        restart: when a worker that ended is restarted.
        no_restart_exit_codes: exit statuses after which it is not restarted, whatever ``restart``
            says (systemd's ``RestartPreventExitStatus``).
        backoff: the wait before a restart (like Kubernetes: the first restart is immediate, further
            waits are exponential and bounded, with jitter).
        healthy_after: READY for this long resets the failure count.
        budget: the restarts allowed within a window (OTP's intensity). A worker that needs more is
            QUARANTINED. A restart that an operator requests does not count.
        probation_interval: how often a quarantined worker is tried again; None: never.
        start_timeout: from the start of the process to READY; then it is killed.
        loop_stall_timeout: after this long without a beat from its event loop, a worker is
            examined, and killed with its children if the loop stalls (systemd's ``WatchdogSec``).
        stop_grace: from the request to stop to the end of the process; then it is killed.
        start_network_timeout, stop_network_timeout: timeouts of these hooks of a
            `NetworkProcessor`; None keeps those of its class.
        max_downtime: a `NetworkProcessor` that tries to connect in vain for longer gets a new
            process; None: never. Waits that a server asked for (`RetryAfter`), permanent failures
            and pauses do not count. The restart is not charged to the budget.
        max_check_timeouts: the same after so many timeouts of ``check_network`` in a row. Blocking
            calls in ``asyncio.to_thread`` that hang use up the threads of the process.
        limits: what the worker may use.
        resources: priority, cores and resource limits of its process.

    Raises:
        ConfigError: a name is unknown or a value out of range.
    """

    restart: RestartType = RestartType.PERMANENT
    no_restart_exit_codes: tuple[int, ...] = ()
    backoff: BackoffPolicy = BackoffPolicy(minimum=0.5, maximum=30.0)
    healthy_after: Seconds = 60.0
    budget: RestartBudget = RestartBudget()
    probation_interval: Seconds | None = None
    start_timeout: Seconds = 30.0
    loop_stall_timeout: Seconds = 10.0
    stop_grace: Seconds = 10.0
    start_network_timeout: Seconds | None = None
    stop_network_timeout: Seconds | None = None
    max_downtime: Seconds | None = None
    max_check_timeouts: int | None = None
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
        for name in (
            "probation_interval",
            "start_network_timeout",
            "stop_network_timeout",
            "max_downtime",
        ):
            if getattr(self, name) is not None:
                positive(owner, name, getattr(self, name))
        if self.max_check_timeouts is not None:
            whole(owner, "max_check_timeouts", self.max_check_timeouts, 1)
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
        """The deadline that a stalled loop misses first, seconds."""
        deadlines = (self.loop_stall_timeout, self.start_timeout, self.stop_grace)
        return min(deadline for deadline in deadlines if deadline)

    @property
    def guard_interval(self) -> float:
        """How often a worker's guard checks that the event loop turns, seconds."""
        shortest = self._shortest_deadline / LOOKS_PER_DEADLINE
        return min(self.beat_interval, max(SHORTEST_LOOK, shortest))

    @property
    def stacks_after(self) -> float:
        """How long the event loop may stall before stacks are written, seconds."""
        return STACKS_AT * self._shortest_deadline

    def fits_process_of(self, other: Supervision) -> bool:
        """Whether a process that was started with ``other`` can go on with these settings."""
        return all(getattr(self, name) == getattr(other, name) for name in KNOWN_TO_PROCESS)
