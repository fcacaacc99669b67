"""A rolling restart: each worker is back before the next goes."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence

from chronopype_mp.coordinator.coordinator import Coordinator
from chronopype_mp.coordinator.record import WorkerRecord
from chronopype_mp.core.connection import NetworkStatus
from chronopype_mp.core.events import WorkerStatus
from chronopype_mp.exceptions import WorkerError
from chronopype_mp.processors import NetworkProcessor

__all__ = ["roll"]


async def roll(
    coordinator: Coordinator,
    records: Sequence[WorkerRecord],
    max_unavailable: int,
    timeout: float,
) -> None:
    """Restart workers, those that are down first, the others while few enough are down.

    Raises:
        WorkerError: one did not come back; no further one is restarted.
    """

    def is_ready(record: WorkerRecord) -> bool:
        return coordinator.view(record.name).status is WorkerStatus.READY

    def has_network(record: WorkerRecord) -> bool:
        if is_ready(record):
            return record.network_status is not NetworkStatus.STOPPED
        return isinstance(record.source, NetworkProcessor)

    def is_up(record: WorkerRecord) -> bool:
        connected = record.network_status is NetworkStatus.CONNECTED
        return is_ready(record) and (connected or record not in networks)

    def takes_part(record: WorkerRecord) -> bool:
        # A worker is STOPPED for good, such as a temporary one that has ended.
        stopped = WorkerStatus.STOPPED
        return coordinator.has(record) and coordinator.view(record.name).status is not stopped

    networks = set(filter(has_network, filter(takes_part, records)))
    waiting = sorted(filter(takes_part, records), key=is_up)
    rolling: list[WorkerRecord] = []
    failures: list[WorkerError] = []

    def may_go(record: WorkerRecord) -> bool:
        others = (each for each in records if each is not record and takes_part(each))
        down = sum(1 for each in others if each in rolling or not is_up(each))
        return down < max_unavailable or not is_up(record)

    async def restart_in_turn() -> None:
        while waiting and not failures:
            record = waiting.pop(0)
            if takes_part(record):
                rolling.append(record)
                try:
                    await restart(record)
                except WorkerError as error:
                    failures.append(error)
                finally:
                    rolling.remove(record)

    async def restart(record: WorkerRecord) -> None:
        problem = "too many others are down; it was not restarted, nor was the rest"
        try:
            async with asyncio.timeout(timeout):
                while not may_go(record):
                    await coordinator.next_event()
                problem = f"did not come back within {timeout:g} s; the rest was not restarted"
                await coordinator.restart(record.name)
                while not is_up(record):
                    await coordinator.next_event()
        except TimeoutError:
            raise WorkerError(record.name, problem) from None

    async with asyncio.TaskGroup() as lanes:
        for _ in range(max_unavailable):
            lanes.create_task(restart_in_turn())
    if failures:
        raise failures[0]
