"""All that a new worker process is told before it can read its first command."""

from __future__ import annotations

import struct
from typing import TypeVar

import msgspec

from chronopype_mp.core.messages import Report
from chronopype_mp.core.outputs import OutputPolicy
from chronopype_mp.core.saved_state import SavedState

__all__ = ["STACKS_HEADER", "WORKER_MARK", "TickRules", "WorkerBoot"]

WORKER_MARK = b"CHRONOPYPE_MP_WORKER_PID"
"""The environment variable by which the children of a worker are known after its death: its process
id, after those of the workers in which its clock runs."""

STACKS_HEADER = struct.Struct("d")
"""Before the stacks in their file: when Python ran last in the worker, monotonic seconds."""


R = TypeVar("R", bound=Report)


class TickRules(msgspec.Struct, frozen=True, kw_only=True):
    """How ticks are executed; the values are `ClockConfig`'s. Times in seconds.

    Attributes:
        every_tick: none is replaced by a newer one, and progress is reported, so that the
            coordinator can wait for it.
        tick_size: 0.0 where ticks have no time at which they are due.
        offset: timestamp minus monotonic clock, seconds; None where ticks have no time at which
            they are due, or workers cannot read it from their own clock.
    """

    processor_timeout: float
    max_retries: int
    stats_window_size: int
    every_tick: bool = False
    tick_size: float = 0.0
    offset: float | None = None


class WorkerBoot(msgspec.Struct, frozen=True, kw_only=True):
    """What one incarnation starts with.

    Attributes:
        worker: its name.
        incarnation: counts its processes from 1.
        token: known to this incarnation and the coordinator alone; every report carries it.
        payload: the processor or its spec, by dill.
        down: the address of the coordinator's PUB socket.
        up: the address of its PULL socket.
        data_up: the address of its PULL socket for outputs.
        messages_in: where workers publish messages.
        messages_out: where they receive them.
        rules: how ticks are executed.
        beat_interval: how often to report, seconds.
        guard_interval: how often the guard looks whether the event loop turns, seconds.
        stacks_after: for how long it may stand still before its stacks are written, seconds.
        stop_grace: how long an orderly stop may take, seconds.
        start_network_timeout: bound of that hook, seconds; None leaves the class's.
        stop_network_timeout: likewise.
        event_loop: ``"asyncio"`` or ``"uvloop"``.
        stacks: the file for the stacks of all threads when the loop stands still or a fatal
            signal comes; "" for none.
        nice: niceness to add.
        cores: those that it may run on; none given is no restriction.
        rlimits: soft limits by name.
        path: the coordinator's ``sys.path``; bytes, as all that comes from the system, which need
            not be UTF-8.
        directory: its working directory.
        environment: its environment variables.
        log_levels: the levels of its loggers by name; "" is the root logger.
        state: the last snapshot of the worker; None if there is none.
        outputs: what becomes of outputs that the owner does not read.
    """

    worker: str
    incarnation: int
    token: int
    payload: bytes
    down: str
    up: str
    data_up: str
    messages_in: str
    messages_out: str
    rules: TickRules
    beat_interval: float
    stop_grace: float
    guard_interval: float = 1.0
    stacks_after: float = 6.0
    start_network_timeout: float | None = None
    stop_network_timeout: float | None = None
    event_loop: str = "asyncio"
    stacks: str = ""
    nice: int = 0
    cores: list[int] = []
    rlimits: dict[str, int] = {}
    path: list[bytes] = []
    directory: bytes = b""
    environment: dict[bytes, bytes] = {}
    log_levels: dict[str, int] = {}
    state: SavedState | None = None
    outputs: OutputPolicy = OutputPolicy()

    def report(self, kind: type[R], **values: object) -> R:
        """Return a report of this incarnation."""
        return kind(worker=self.worker, incarnation=self.incarnation, token=self.token, **values)
