"""What a new worker process is told: its name, its rules, and the coordinator's environment."""

from __future__ import annotations

import logging
import os
import sys
from typing import TYPE_CHECKING

from chronopype_mp.coordinator.descriptor_budget import limit_of_workers
from chronopype_mp.coordinator.record import WorkerRecord
from chronopype_mp.core.boot import TickRules, WorkerBoot
from chronopype_mp.core.outputs import OutputPolicy
from chronopype_mp.transport.base import Hub

if TYPE_CHECKING:
    from chronopype_mp.coordinator.incarnation import Incarnation

__all__ = ["boot_of"]


def boot_of(
    incarnation: Incarnation,
    token: int,
    hub: Hub,
    rules: TickRules,
    event_loop: str,
    outputs: OutputPolicy,
) -> WorkerBoot:
    """Return what an incarnation starts with, from the present state of this process."""
    record = incarnation.record
    return WorkerBoot(
        worker=record.name,
        incarnation=incarnation.number,
        token=token,
        payload=record.payload,
        down=hub.down,
        up=hub.up,
        data_up=hub.data_up,
        messages_in=hub.messages_in,
        messages_out=hub.messages_out,
        rules=rules,
        beat_interval=record.policy.beat_interval,
        stop_grace=record.policy.stop_grace,
        guard_interval=record.policy.guard_interval,
        stacks_after=record.policy.stacks_after,
        start_network_timeout=record.policy.start_network_timeout,
        stop_network_timeout=record.policy.stop_network_timeout,
        event_loop=event_loop,
        nice=record.policy.resources.nice,
        cores=_cores_of(record),
        rlimits=_limits_of(record),
        path=[os.fsencode(entry) for entry in sys.path if isinstance(entry, str)],
        directory=_directory(),
        environment={**os.environb, **_encoded(record.env)},
        log_levels=_log_levels(),
        state=record.saved_state,
        outputs=outputs,
    )


def _encoded(env: dict[str, str]) -> dict[bytes, bytes]:
    return {os.fsencode(name): os.fsencode(value) for name, value in env.items()}


def _cores_of(record: WorkerRecord) -> list[int]:
    """Return the cores that a worker may run on; an empty list is no restriction."""
    cores = record.policy.resources.cpu_affinity
    if cores is None:
        return []
    if cores == "spread":
        available = sorted(os.sched_getaffinity(0))
        return [available[record.number % len(available)]]
    return [int(core) for core in cores]


def _limits_of(record: WorkerRecord) -> dict[str, int]:
    """Return a worker's soft limits."""
    files = limit_of_workers()
    return {**({} if files is None else {"NOFILE": files}), **record.policy.resources.rlimits}


def _log_levels() -> dict[str, int]:
    """Return the log levels that were set, by logger name; "" is the root logger."""
    levels = {"": logging.getLogger().level}
    for name, known in logging.getLogger().manager.loggerDict.items():
        if isinstance(known, logging.Logger) and known.level != logging.NOTSET:
            levels[name] = known.level
    return levels


def _directory() -> bytes:
    """Return the working directory; empty if it was removed."""
    try:
        return os.getcwdb()
    except FileNotFoundError:
        return b""
