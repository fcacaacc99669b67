"""The owner's object shows the worker's attributes; every launcher alike."""

from __future__ import annotations

import contextlib
import dataclasses
import decimal
import multiprocessing.resource_tracker
import multiprocessing.shared_memory
import os
import signal
import threading
from typing import Any

import multiprocess.shared_memory
import pytest

from chronopype_mp import AttributeNotSetError, TickProcessor, WorkerError
from chronopype_mp.events import ProcessorFailed, WorkerDied
from tests.system.clocks import Watched, eventually, run


@pytest.fixture(scope="module", autouse=True)
def for_the_whole_module() -> None:
    """Make what outlives the single tests."""
    multiprocessing.resource_tracker.ensure_running()


@dataclasses.dataclass
class Trade:
    price: decimal.Decimal
    size: int


class Feed(TickProcessor):
    mirrored = ("count", "last", "missing")
    last: Trade | None = None
    trades: list[Trade]

    def __init__(self) -> None:
        super().__init__()
        self.count = 0
        self.trades = []
        self._hidden = 0

    def start(self, timestamp: float) -> None:
        super().start(timestamp)
        self.lock = threading.Lock()

    def tick(self, timestamp: float) -> None:
        self.count += 1
        self._hidden += 1
        self.last = Trade(decimal.Decimal("1.5"), self.count)
        self.trades.append(self.last)

    def stop(self) -> None:
        super().stop()
        self.count += 1000


def cannot_be_set(feed: Feed) -> None:
    with pytest.raises(AttributeNotSetError, match=r"handle\.call\(") as caught:
        feed.count = 7
    assert isinstance(caught.value, WorkerError)
    assert isinstance(caught.value, AttributeError)
    assert (caught.value.worker, caught.value.attribute) == ("feed", "count")
    assert feed.count == 0


@pytest.mark.parametrize("launcher", ["inline", "forkserver", "spawn"])
def test_the_owners_object_shows_the_workers_attributes(
    launcher: str, caplog: pytest.LogCaptureFixture
) -> None:
    async def scenario() -> None:
        watched = Watched(launcher=launcher)
        feed = Feed()
        async with watched.clock as clock:
            handle = clock.add_processor(feed, name="feed")
            await handle.wait_ready()
            if launcher != "inline":
                cannot_be_set(feed)
            await watched.run_for(0.5)
            await eventually(lambda: feed.count > 0)  # at once, unless the machine is busy
            run_so_far = feed.count
            assert run_so_far >= 3
            assert feed.last == Trade(decimal.Decimal("1.5"), run_so_far)
            assert feed.trades[-1] == feed.last
            await eventually(lambda: handle.mirrored.get("count") == run_so_far)
            assert handle.mirrored["last"] == feed.last
            with pytest.raises(TypeError):
                handle.mirrored["count"] = 1  # type: ignore[index]
        assert feed.count == run_so_far + 1000
        assert handle.mirrored["count"] == feed.count
        assert watched.events.of(ProcessorFailed) == []
        assert len([text for text in caplog.messages if "'missing' in Feed.mirrored" in text]) == 1
        feed.count = 7
        assert feed.count == 7
        assert hasattr(feed, "lock") == (launcher == "inline")

    run(scenario())


class Writes(TickProcessor):
    def __init__(self, memory: Any) -> None:
        super().__init__()
        self.memory = memory

    def start(self, timestamp: float) -> None:
        super().start(timestamp)
        self.memory.buf[0] += 1

    def stop(self) -> None:
        super().stop()
        self.memory.close()


@pytest.mark.parametrize(
    ("launcher", "module"),
    [
        ("inline", multiprocess.shared_memory),
        ("forkserver", multiprocess.shared_memory),
        ("forkserver", multiprocessing.shared_memory),
        ("spawn", multiprocessing.shared_memory),
    ],
)
def test_shared_memory_of_the_owner_is_carried_and_outlives_its_workers(
    launcher: str, module: Any
) -> None:
    async def scenario() -> None:
        memory = module.SharedMemory(create=True, size=9)
        try:
            watched = Watched(launcher=launcher)
            async with watched.clock as clock:
                handle = clock.add_processor(Writes(memory))
                await handle.wait_ready()
                if launcher == "inline":
                    await handle.restart()
                else:
                    assert handle.pid is not None
                    os.kill(handle.pid, signal.SIGKILL)
                    await watched.events.wait_for(WorkerDied)
                    await handle.wait_ready()
            with contextlib.closing(module.SharedMemory(memory.name)) as again:
                assert again.buf[0] == 2
            assert memory.name in os.listdir("/dev/shm")
        finally:
            memory.close()
            memory.unlink()

    run(scenario())
