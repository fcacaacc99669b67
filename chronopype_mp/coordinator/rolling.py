"""A rolling restart: each worker is back before the next one is restarted."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable

from chronopype_mp.coordinator.coordinator import Coordinator
from chronopype_mp.coordinator.record import WorkerRecord
from chronopype_mp.core.connection import NetworkStatus
from chronopype_mp.core.worker_events import WorkerStatus
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
    await _Roll(coordinator, workers, max_unavailable, timeout).run()


class _Roll:
    """One rolling restart; the arguments are those of `roll`."""

    def __init__(
        self,
        coordinator: Coordinator,
        workers: Callable[[], Iterable[WorkerRecord]],
        max_unavailable: int,
        timeout: float,
    ) -> None:
        self._coordinator = coordinator
        self._workers = workers
        self._max_unavailable = max_unavailable
        self._timeout = timeout
        present = [record for record in workers() if self._takes_part(record)]
        self._networks = {record for record in present if self._has_network(record)}
        self._pending = sorted(present, key=self._is_up)
        self._rolling: list[WorkerRecord] = []
        self._failures: list[WorkerError] = []

    async def run(self) -> None:
        async with asyncio.TaskGroup() as lanes:
            for _ in range(self._max_unavailable):
                lanes.create_task(self._restart_in_turn())
        if self._failures:
            raise self._failures[0]

    def _status(self, record: WorkerRecord) -> WorkerStatus:
        if not self._coordinator.has(record):
            return WorkerStatus.STOPPED
        return self._coordinator.view(record.name).status

    def _takes_part(self, record: WorkerRecord) -> bool:
        return self._status(record) is not WorkerStatus.STOPPED

    def _has_network(self, record: WorkerRecord) -> bool:
        if self._status(record) is WorkerStatus.READY:
            return record.network_status is not NetworkStatus.STOPPED
        return isinstance(record.source, NetworkProcessor)

    def _is_up(self, record: WorkerRecord) -> bool:
        if self._status(record) is not WorkerStatus.READY:
            return False
        connected = record.network_status is NetworkStatus.CONNECTED
        return connected or record not in self._networks

    def _may_go(self, record: WorkerRecord) -> bool:
        others = (each for each in self._workers() if each is not record and self._takes_part(each))
        down = sum(1 for each in others if each in self._rolling or not self._is_up(each))
        return down < self._max_unavailable or not self._is_up(record)

    async def _restart_in_turn(self) -> None:
        while self._pending and not self._failures:
            record = self._pending.pop(0)
            self._rolling.append(record)
            try:
                await self._restart(record)
            except WorkerError as error:
                self._failures.append(error)
            finally:
                self._rolling.remove(record)

    async def _restart(self, record: WorkerRecord) -> None:
        problem = "too many others are down; it was not restarted, nor were the remaining workers"
        try:
            async with asyncio.timeout(self._timeout):
                while self._takes_part(record) and not self._may_go(record):
                    await self._coordinator.next_event()
                if not self._takes_part(record):
                    return
                problem = (
                    f"did not come back within {self._timeout:g} s; the rest was not restarted"
                )
                await self._coordinator.restart(record.name)
                while not self._is_up(record):
                    if not self._takes_part(record):
                        gone = "stopped before it was back; the rest was not restarted"
                        raise WorkerError(record.name, gone)
                    await self._coordinator.next_event()
        except TimeoutError:
            raise WorkerError(record.name, problem) from None
