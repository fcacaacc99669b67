"""A processor that breaks a part of its worker: the worker ends with a report and is restarted."""

from __future__ import annotations

import asyncio
import logging
from typing import NoReturn

import pytest

from chronopype_mp import (
    BackoffPolicy,
    NetworkProcessor,
    NetworkStatus,
    Supervision,
    TickProcessor,
)
from chronopype_mp.events import DeathReason, WorkerDied, WorkerReady
from chronopype_mp.worker.guard import Guard
from tests.system.clocks import Watched, run
from tests.waiting import running

QUICK = Supervision(backoff=BackoffPolicy(minimum=0.01, maximum=0.05))


class Bizarre(BaseException):
    """No `Exception`."""


def fail(*_: object) -> NoReturn:
    raise Bizarre


class FailsPlainly(TickProcessor):
    def tick(self, timestamp: float) -> None:
        raise Bizarre


class FailsLater(TickProcessor):
    async def async_tick(self, timestamp: float) -> None:
        await asyncio.sleep(0)  # suspends once
        raise Bizarre


class BreaksGuard(TickProcessor):
    def start(self, timestamp: float) -> None:
        super().start(timestamp)
        Guard._look = fail  # type: ignore[method-assign]


class CancelsEverything(TickProcessor):
    def tick(self, timestamp: float) -> None:
        for task in asyncio.all_tasks():
            task.cancel()


class CancelsNetworkLoop(NetworkProcessor):
    @classmethod
    def logger(cls) -> logging.Logger:
        return logging.getLogger("tests.machinery")

    async def check_network(self) -> NetworkStatus:
        return NetworkStatus.CONNECTED

    def on_connected(self) -> None:
        for task in asyncio.all_tasks():
            if task.get_name().startswith("network loop"):
                task.cancel()


@pytest.mark.parametrize(
    ("kind", "error_type"),
    [
        (FailsPlainly, "Bizarre"),
        (FailsLater, "Bizarre"),
        (BreaksGuard, "Bizarre"),
        (CancelsEverything, "RuntimeError"),
        (CancelsNetworkLoop, "RuntimeError"),
    ],
)
def test_what_ends_a_part_of_a_worker_ends_the_worker_with_a_report(
    kind: type[TickProcessor], error_type: str
) -> None:
    async def scenario() -> None:
        watched = Watched(supervision=QUICK)
        async with watched.clock as clock:
            clock.add_processor(kind(), name="a")
            async with running(clock):
                death = await watched.events.wait_for(WorkerDied, worker="a")
                assert (death.reason, death.error_type) == (DeathReason.EXITED, error_type)
                await watched.events.wait_for(WorkerReady, worker="a", incarnation=2)

    run(scenario())


class BreaksLogging(TickProcessor):
    """Puts a filter that raises on whatever handles the root logger's records, then logs."""

    def start(self, timestamp: float) -> None:
        super().start(timestamp)
        for handler in logging.getLogger().handlers:
            handler.addFilter(self.refuse)

    def refuse(self, record: logging.LogRecord) -> bool:
        raise LookupError("in the filter")

    def tick(self, timestamp: float) -> None:
        logging.getLogger("tests.machinery").error("a tick at %s", timestamp)
        asyncio.get_running_loop().call_soon(fail)  # asyncio logs it


def test_a_logging_filter_that_raises_breaks_nothing_but_logging() -> None:
    async def scenario() -> None:
        watched = Watched(supervision=QUICK)
        async with watched.clock as clock:
            handle = clock.add_processor(BreaksLogging(), name="a")
            await handle.wait_ready()
            await watched.run_for(0.5)
            assert handle.incarnation == 1
        assert handle.statistics().run >= 3
        assert handle.state.error_count == 0
        assert not watched.events.of(WorkerDied)

    run(scenario())
