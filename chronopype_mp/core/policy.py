"""How workers are supervised: deadlines, backoff and restart budget."""

from __future__ import annotations

from chronopype_mp.core.backoff import BackoffPolicy
from chronopype_mp.core.checks import at_least, positive
from chronopype_mp.core.restart import RestartBudget
from chronopype_mp.core.settings import Settings
from chronopype_mp.exceptions import ConfigError

__all__ = ["Supervision"]

BEATS_PER_STALL = 4
"""A worker beats this often within a stall deadline, so that one lost beat is no stall."""


class Supervision(Settings, frozen=True):
    """How one worker is supervised. All times in seconds.

    Args:
        start_timeout: from the start of the process to READY; a worker that takes longer is
            killed and started anew.
        loop_stall_timeout: a worker whose event loop has not turned for so long is killed with
            its children and started anew.
        stop_grace: from the request to stop to the end of the process; after that it is killed.
        backoff: the wait before a restart (Kubernetes' shape: exponential, bounded).
        healthy_after: so long READY sets the backoff back to its minimum.
        budget: the restarts allowed within a window (OTP's); a worker that needs more is
            QUARANTINED.

    Raises:
        ConfigError: a name is unknown or a value out of range.
    """

    start_timeout: float = 30.0
    loop_stall_timeout: float = 10.0
    stop_grace: float = 10.0
    backoff: BackoffPolicy = BackoffPolicy(minimum=0.1, maximum=30.0)
    healthy_after: float = 60.0
    budget: RestartBudget = RestartBudget()

    def __post_init__(self) -> None:
        owner = type(self).__name__
        positive(owner, "start_timeout", self.start_timeout)
        at_least(owner, "loop_stall_timeout", self.loop_stall_timeout, 0.2)
        at_least(owner, "stop_grace", self.stop_grace, 0.0)
        at_least(owner, "healthy_after", self.healthy_after, 0.0)
        if not isinstance(self.backoff, BackoffPolicy):
            raise ConfigError(owner, "backoff", self.backoff, "must be a BackoffPolicy")
        if not isinstance(self.budget, RestartBudget):
            raise ConfigError(owner, "budget", self.budget, "must be a RestartBudget")

    @property
    def beat_interval(self) -> float:
        """How often a worker reports, seconds."""
        return min(0.5, self.loop_stall_timeout / BEATS_PER_STALL)
