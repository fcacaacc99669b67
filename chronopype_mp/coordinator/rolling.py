"""A rolling restart: each worker is back before the next one is restarted."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable

from chronopype_mp.coordinator.coordinator import Coordinator
from chronopype_mp.coordinator.record import WorkerRecord
from chronopype_mp.core.connection import NetworkStatus
from chronopype_mp.core.events import WorkerStatus
from chronopype_mp.exceptions import WorkerError
from chronopype_mp.processors import NetworkProcessor

__all__ = ["roll"]


async def roll(
    coordinator: Coordinator,
    workers: Callable[[], Iterable[WorkerRecord]],
    max_unavailable: int,
    timeout: float,
) -> None:
    """Restart workers: those that are down first, then the others, a few at a time.

    Workers that are STOPPED or removed when their turn comes are passed over. Workers that were
    added meanwhile are not restarted, but count as unavailable while they are down. Cancelling
    this restarts no further worker; a restart in progress continues.

    Args:
        coordinator: runs the workers.
        workers: returns the records of the clock's workers.
        max_unavailable: how many workers may be down at a time, for whatever reason.
        timeout: seconds for each worker to come back, and to wait until it may be restarted.

    Raises:
        WorkerError: a worker did not come back; no further one is restarted.
    """

    def takes_part(record: WorkerRecord) -> bool:
        return (
            coordinator.has(record)
            and coordinator.view(record.name).status is not WorkerStatus.STOPPED
        )

    def is_ready(record: WorkerRecord) -> bool:
        return (
            coordinator.has(record) and coordinator.view(record.name).status is WorkerStatus.READY
        )

    def has_network(record: WorkerRecord) -> bool:
        if is_ready(record):
            return record.network_status is not NetworkStatus.STOPPED
        return isinstance(record.source, NetworkProcessor)

    def is_up(record: WorkerRecord) -> bool:
        connected = record.network_status is NetworkStatus.CONNECTED
        return is_ready(record) and (connected or record not in networks)

    present = [record for record in workers() if takes_part(record)]
    networks = {record for record in present if has_network(record)}
    pending = sorted(present, key=is_up)
    rolling: list[WorkerRecord] = []
    failures: list[WorkerError] = []

    def may_go(record: WorkerRecord) -> bool:
        others = (each for each in workers() if each is not record and takes_part(each))
        down = sum(1 for each in others if each in rolling or not is_up(each))
        return down < max_unavailable or not is_up(record)

    async def restart_in_turn() -> None:
        while pending and not failures:
            record = pending.pop(0)
            rolling.append(record)
            try:
                await restart(record)
            except WorkerError as error:
                failures.append(error)
            finally:
                rolling.remove(record)

    async def restart(record: WorkerRecord) -> None:
        problem = "too many others are down; it was not restarted, nor were the remaining workers"
        try:
            async with asyncio.timeout(timeout):
                while takes_part(record) and not may_go(record):
                    await coordinator.next_event()
                if not takes_part(record):
                    return
                problem = f"did not come back within {timeout:g} s; the rest was not restarted"
                await coordinator.restart(record.name)
                while not is_up(record):
                    if not takes_part(record):
                        gone = "stopped before it was back; the rest was not restarted"
                        raise WorkerError(record.name, gone)
                    await coordinator.next_event()
        except TimeoutError:
            raise WorkerError(record.name, problem) from None

    async with asyncio.TaskGroup() as lanes:
        for _ in range(max_unavailable):
            lanes.create_task(restart_in_turn())
    if failures:
        raise failures[0]
