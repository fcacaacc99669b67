"""Defines the demo: its options and its workers. Pure."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import msgspec

from chronopype_mp.console.verdict import Role
from chronopype_mp.core.backoff import BackoffPolicy
from chronopype_mp.core.policy import Supervision
from chronopype_mp.core.restart import RestartBudget

__all__ = ["STRATEGY", "Cast", "DemoError", "DemoOptions", "Feed", "cast", "kill_after"]

STRATEGY = "strategy"
"""The name of the worker that trades."""

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


class Feed(msgspec.Struct, frozen=True, kw_only=True):
    """A feed of the exchange.

    Attributes:
        name: its name.
        trouble: what is scripted to go wrong with it; None if nothing is.
        options: the arguments of its processor.
    """

    name: str
    trouble: str | None
    options: dict[str, Any]


class Cast(msgspec.Struct, frozen=True, kw_only=True):
    """One worker of the demo.

    Attributes:
        name: the worker's name.
        role: the worker's purpose in the demo.
        target: the processor's target for a `ProcessorSpec`.
        options: the processor's arguments.
        supervision: the worker's supervision; None for the clock's default.
        trouble: what is scripted to go wrong with its server.
    """

    name: str
    role: Role
    target: str
    options: dict[str, Any]
    supervision: Supervision | None = None
    trouble: str | None = None


def kill_after(seconds: float) -> float:
    """Return when the strategy is killed, seconds after the start of a run of that duration."""
    return min(10.0, seconds / 2)


def cast(seconds: float, http: str, feeds: Iterable[Feed]) -> tuple[Cast, ...]:
    """Return the workers of a run.

    Args:
        seconds: the duration of the run.
        http: the address of the API.
        feeds: of the exchange.
    """
    return (
        *(
            Cast(
                name=feed.name,
                role=Role.HEALTHY if feed.trouble is None else Role.EXCHANGE,
                target="exchange_feeds:ExchangeFeed",
                options=feed.options,
                trouble=feed.trouble,
            )
            for feed in feeds
        ),
        Cast(name=STRATEGY, role=Role.KILLED, target="exchange_feeds:Strategy", options={}),
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
    )
