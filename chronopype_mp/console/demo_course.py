"""Defines the demo: its options, its workers, and the times of its faults. Pure."""

from __future__ import annotations

from typing import Any

import msgspec

from chronopype_mp.console.verdict import Role
from chronopype_mp.core.backoff import BackoffPolicy
from chronopype_mp.core.policy import Supervision
from chronopype_mp.core.restart import RestartBudget

__all__ = ["Cast", "DemoError", "DemoOptions", "Outage", "cast", "outage"]

STALL_TIMEOUT = 2.0
"""The ``loop_stall_timeout`` of the workers with faults, seconds."""

TROUBLED = Supervision(
    loop_stall_timeout=STALL_TIMEOUT,
    stop_grace=3.0,  # the worker may be blocked when it is asked to stop
    # These workers are meant to die, so they are restarted quickly and without a limit.
    healthy_after=1.0,
    backoff=BackoffPolicy(minimum=0.2, maximum=2.0),
    budget=RestartBudget(max_restarts=1000),
)


class DemoError(Exception):
    """The demo cannot run. The message is one line.

    Attributes:
        status: the exit status of the program.
    """

    def __init__(self, problem: str, status: int = 2) -> None:
        super().__init__(problem)
        self.status = status


class DemoOptions(msgspec.Struct, frozen=True, kw_only=True):
    """The user's options. Times are in seconds."""

    seconds: float = 30.0
    tick_size: float = 0.1
    plain: bool = False


class Cast(msgspec.Struct, frozen=True, kw_only=True):
    """One worker of the demo.

    Attributes:
        name: the worker's name.
        role: the worker's purpose in the demo.
        target: the processor's target for a `ProcessorSpec`.
        options: the processor's arguments.
        supervision: the worker's supervision; None for the clock's default.
    """

    name: str
    role: Role
    target: str
    options: dict[str, Any]
    supervision: Supervision | None = None


class Outage(msgspec.Struct, frozen=True):
    """When the second server is killed and restarted, in seconds from the start of the run."""

    kill_at: float
    restart_at: float


def outage(seconds: float) -> Outage:
    """Return when the server is down in a run of ``seconds``. It leaves time to reconnect."""
    kill_at = 0.3 * seconds
    return Outage(kill_at, kill_at + min(4.0, 0.15 * seconds))


def cast(seconds: float, http: str, ws: str, second_ws: str) -> tuple[Cast, ...]:
    """Return the workers of a run.

    Args:
        seconds: the duration of the run.
        http: the address of the API.
        ws: the address of the feed.
        second_ws: the address of the feed that is killed.
    """
    api = "http_api:ApiProcessor"
    feed = "websocket_feed:WebSocketProcessor"
    healthy = [
        Cast(name=f"api-{number}", role=Role.HEALTHY, target=api, options={"url": http})
        for number in (1, 2, 3)
    ]
    healthy += [
        Cast(name=f"feed-{number}", role=Role.HEALTHY, target=feed, options={"url": ws})
        for number in (1, 2)
    ]
    return (
        *healthy,
        Cast(
            name="api-blocks",
            role=Role.BLOCKS,
            target="troubled:BlockingApi",
            options={"url": http, "stall": 5 * STALL_TIMEOUT},
            supervision=TROUBLED,
        ),
        Cast(
            name="api-crashes",
            role=Role.CRASHES,
            target="troubled:CrashingApi",
            options={"url": http, "every": min(6.0, seconds / 4)},
            supervision=TROUBLED,
        ),
        Cast(name="feed-loses", role=Role.LOSES_SERVER, target=feed, options={"url": second_ws}),
    )
