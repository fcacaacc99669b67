"""What every ready-made processor has to survive, with one clock and one server."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any

import pytest

from chronopype_mp import BackoffPolicy, NetworkStatus, ProcessorSpec, TickProcessor
from chronopype_mp.events import NetworkChanged, ProcessorFailed, WorkerDied
from tests.system.backends import PASSWORD, Backend, Data, Kind, listening
from tests.system.clocks import eventually, run
from tests.system.connected import BOUND, Connected
from tests.waiting import running
from workers._base import Options

__all__ = ["QUICK", "WRONG", "Ordeal"]

QUICK: Any = {
    "check_interval": 0.25,
    "timeout": 1.0,
    "backoff": BackoffPolicy(minimum=0.05, factor=2.0, maximum=0.4, jitter=0.0),
}
"""Common options that make a test short."""

WRONG = "hunter2-wrong"
"""A password that no server takes."""

SECRET = PASSWORD.partition("-")[0]
assert SECRET in WRONG


class Ordeal:
    """Runs a processor through what may happen to its server.

    Args:
        data: the data of servers.
        caplog: has the log, which must show no password.
    """

    def __init__(self, data: Data, caplog: pytest.LogCaptureFixture) -> None:
        self._data = data
        self._caplog = caplog

    def __call__(
        self, kind: Kind, options: Callable[[int, str], Options], topic: str | None = None
    ) -> None:
        """Fail if it does not survive.

        It connects, and what it receives is emitted. Its server is killed, is back, is stopped with
        SIGSTOP, and goes on. A second worker has a wrong password, and tries once. A neighbour of
        both does not wait for them, and no password is in the log or in an event.

        Args:
            kind: the server. ``feed`` is the path of the processor, and ``lost``, ``silent`` and
                ``refused`` are parts of the reasons; without ``refused``, there is no password.
            options: returns the processor's options, given a port and a password.
            topic: with what the processor keeps emitting, if anything.
        """
        with listening(kind, self._data) as server:
            run(self._scenario(server, options, topic))

    async def _scenario(
        self, server: Backend, options: Callable[[int, str], Options], topic: str | None
    ) -> None:
        kind = server.kind
        watched = Connected(tick_size=0.1)

        def spec(password: str) -> ProcessorSpec:
            return ProcessorSpec(
                target=kind.feed, options={"options": options(server.port, password)}
            )

        async with watched.clock as clock, running(clock):
            neighbour = clock.add_processor(TickProcessor(), name="neighbour")
            await neighbour.wait_ready()
            watched.feed = clock.add_processor(spec(PASSWORD), name="feed")
            await watched.until(NetworkStatus.CONNECTED)
            if kind.refused:
                await self._is_refused(watched, spec(WRONG), kind.refused)
            await self._emits(watched, topic)
            await self._killed_and_back(watched, server)
            await self._stopped_and_on(watched, server)
            await self._emits(watched, topic)
            assert not watched.changes_to(NetworkStatus.ERROR)
            await eventually(lambda: topic is None or watched.feed.mirrored["payloads"] > 0)
        self._nothing_else(watched, neighbour)

    async def _emits(self, watched: Connected, topic: str | None) -> None:
        if topic is not None:
            async with watched.clock.outputs(topic) as outputs, asyncio.timeout(BOUND):
                assert (await anext(outputs)).worker == "feed"

    async def _is_refused(self, watched: Connected, spec: ProcessorSpec, reason: str) -> None:
        handle = watched.clock.add_processor(spec, name="refused")
        error = await watched.events.wait_for(
            NetworkChanged, worker="refused", after=NetworkStatus.ERROR, timeout=BOUND
        )
        assert reason in (error.reason or ""), error
        assert "PermanentFailure" in (error.reason or ""), error
        assert error.next_attempt is None
        await watched.ticks(3)  # far more than a backoff
        assert len(watched.events.of(NetworkChanged, worker="refused", after=error.after)) == 1
        handle.stop()
        await handle.wait_stopped()

    async def _killed_and_back(self, watched: Connected, server: Backend) -> None:
        server.kill()
        lost = await watched.until(NetworkStatus.NOT_CONNECTED, server.kind.lost)
        in_vain = await watched.until(NetworkStatus.NOT_CONNECTED)
        assert lost.next_attempt is not None
        assert in_vain.next_attempt is not None
        assert in_vain.next_attempt > lost.next_attempt
        server.start()
        await watched.until(NetworkStatus.CONNECTED)

    async def _stopped_and_on(self, watched: Connected, server: Backend) -> None:
        server.stop()
        await watched.until(NetworkStatus.NOT_CONNECTED, server.kind.silent)
        await watched.until(NetworkStatus.NOT_CONNECTED)
        server.resume()
        await watched.until(NetworkStatus.CONNECTED)

    def _nothing_else(self, watched: Connected, neighbour: Any) -> None:
        """No worker has died, waited for the others, or shown a password."""
        assert not watched.events.of(WorkerDied)
        for failure in watched.events.of(ProcessorFailed):
            # Networks are expected to have this error; the traceback of a timeout is short.
            assert not failure.traceback or failure.type_name == "HookTimeout", failure
        ticks = neighbour.statistics()
        assert ticks.run > ticks.published / 2, ticks
        shown = [record.getMessage() for record in self._caplog.records]
        shown += [repr(event) for event in watched.events.events]
        assert not [text for text in shown if SECRET in text]
