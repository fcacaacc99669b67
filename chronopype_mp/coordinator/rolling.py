"""A rolling restart: each worker is back before the next goes."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence

from chronopype_mp.coordinator.coordinator import Coordinator
from chronopype_mp.coordinator.record import WorkerRecord
from chronopype_mp.core.connection import NetworkStatus
from chronopype_mp.core.events import WorkerStatus
from chronopype_mp.exceptions import WorkerError

__all__ = ["roll"]


async def roll(
    coordinator: Coordinator,
    records: Sequence[WorkerRecord],
    max_unavailable: int,
    timeout: float,
) -> None:
    """Restart workers in order, at most ``max_unavailable`` at a time.

    Raises:
        WorkerError: one did not come back; no further one is restarted.
    """
    waiting = list(records)
    failures: list[WorkerError] = []

    async def restart_in_turn() -> None:
        while waiting and not failures:
            record = waiting.pop(0)
            if not coordinator.has(record):
                continue  # removed meanwhile
            if coordinator.view(record.name).status is WorkerStatus.STOPPED:
                continue  # for good, such as a temporary one that has ended
            try:
                await _restart(coordinator, record, timeout)
            except WorkerError as error:
                failures.append(error)

    async with asyncio.TaskGroup() as lanes:
        for _ in range(max_unavailable):
            lanes.create_task(restart_in_turn())
    if failures:
        raise failures[0]


async def _restart(coordinator: Coordinator, record: WorkerRecord, timeout: float) -> None:
    has_network = record.network_status is not NetworkStatus.STOPPED
    try:
        async with asyncio.timeout(timeout):
            await coordinator.restart(record.name)
            while has_network and record.network_status is not NetworkStatus.CONNECTED:
                await coordinator.next_event()
    except TimeoutError:
        raise WorkerError(
            record.name, f"did not come back within {timeout:g} s; the rest was not restarted"
        ) from None
