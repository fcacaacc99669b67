"""Connections to Redis, Mosquitto, PostgreSQL, WebSocket and HTTP servers × what becomes of these.

A neighbour of the connection goes on meanwhile, and no worker dies.
"""

from __future__ import annotations

import asyncio
import contextlib
import itertools
from collections.abc import AsyncIterator, Iterator

import pytest

from chronopype_mp import NetworkStatus, ProcessorSpec, TickProcessor
from chronopype_mp.events import ProcessorFailed, WorkerDied
from tests.system.backends import KINDS, PASSWORD, Backend, Data, listening
from tests.system.clocks import run
from tests.system.connected import Connected
from tests.system.feeds.base import Feed
from tests.waiting import running

BACKOFF = Feed.network_backoff


@pytest.fixture(params=list(KINDS))
def server(request: pytest.FixtureRequest, data: Data) -> Iterator[Backend]:
    """A server that listens."""
    with listening(KINDS[request.param], data) as backend:
        yield backend


@contextlib.asynccontextmanager
async def connected(
    server: Backend, *, port: int | None = None, password: str = PASSWORD
) -> AsyncIterator[Connected]:
    """Connect a worker; ask at the exit what happened to it and to its neighbour."""
    watched = Connected(tick_size=0.1)
    async with watched.clock as clock, running(clock):
        neighbour = clock.add_processor(TickProcessor(), name="neighbour")
        await neighbour.wait_ready()
        target = server.kind.feed
        options = {"port": port or server.port, "password": password}
        spec = ProcessorSpec(target=target, options=options)
        watched.feed = clock.add_processor(spec, name="feed")
        yield watched
    assert not watched.events.of(WorkerDied)
    for failure in watched.events.of(ProcessorFailed):
        # Networks are expected to have this error; the traceback of a timeout is short.
        assert not failure.traceback or failure.type_name == "HookTimeout", failure
    ticks = neighbour.statistics()
    assert ticks.run > ticks.published / 2, ticks  # the others have waited for a second and more


def test_a_killed_server_is_found_again_when_it_is_back(server: Backend) -> None:
    async def scenario() -> None:
        async with connected(server) as n:
            await n.until(NetworkStatus.CONNECTED)
            server.kill()
            lost = await n.until(NetworkStatus.NOT_CONNECTED, server.kind.lost)
            in_vain = await n.until(NetworkStatus.NOT_CONNECTED, "start_network: ")
            assert lost.next_attempt is not None
            assert in_vain.next_attempt is not None
            assert in_vain.next_attempt > lost.next_attempt
            server.start()
            await n.until(NetworkStatus.CONNECTED)
            assert not n.changes_to(NetworkStatus.ERROR)

    run(scenario())


def test_a_stopped_server_is_a_loss_until_it_goes_on(server: Backend) -> None:
    """Its kernel still accepts connections, and nothing comes over them."""

    async def scenario() -> None:
        async with connected(server) as n:
            await n.until(NetworkStatus.CONNECTED)
            server.stop()
            await n.until(NetworkStatus.NOT_CONNECTED, server.kind.silent)
            await n.until(NetworkStatus.NOT_CONNECTED, "start_network: ")
            server.resume()
            await n.until(NetworkStatus.CONNECTED)
            assert not n.changes_to(NetworkStatus.ERROR)

    run(scenario())


def test_a_wrong_password_is_tried_once(server: Backend) -> None:
    async def scenario() -> None:
        async with connected(server, password="wrong") as n:
            for _ in range(2):
                error = await n.until(NetworkStatus.ERROR, server.kind.refused)
                assert error.next_attempt is None
                assert n.feed.next_attempt is None
                assert n.feed.network_reason == error.reason
                await n.ticks(3)  # far more than a backoff
                n.feed.reconnect()
            await n.until(NetworkStatus.ERROR)
            assert len(n.changes_to(NetworkStatus.CONNECTING)) == 3

    run(scenario())


def test_a_server_that_accepts_and_drops_is_not_hammered(server: Backend) -> None:
    """Neither without an answer, nor as soon as the connection is there."""

    async def scenario() -> None:
        async with Gate(server.port) as gate, connected(server, port=gate.port) as n:
            for _ in range(3):
                await n.until(NetworkStatus.NOT_CONNECTED)
            gate.is_open = True
            for _ in range(3):
                await n.until(NetworkStatus.CONNECTED)
                gate.drop()
                await n.until(NetworkStatus.NOT_CONNECTED)
            await n.until(NetworkStatus.CONNECTED)
            losses = n.changes_to(NetworkStatus.NOT_CONNECTED)
            planned = [loss.next_attempt for loss in losses if loss.next_attempt is not None]
            waits = [after - before for before, after in itertools.pairwise(planned)]
            # The first change is the start of the network loop.
            assert all(
                wait >= BACKOFF.base_delay(failures) - 0.01
                for failures, wait in enumerate(waits, 1)
            ), waits
            attempts = len(n.changes_to(NetworkStatus.CONNECTING))
            assert gate.accepted <= attempts * server.kind.connections

    run(scenario())


class Gate:
    """A proxy before a server: closed, it accepts connections and drops them.

    Attributes:
        port: where it listens.
        is_open: whether it lets connections through.
        accepted: the number of connections so far.
    """

    def __init__(self, server_port: int) -> None:
        self.is_open = False
        self.accepted = 0
        self._server_port = server_port
        self._connections: set[asyncio.Task[None]] = set()

    async def __aenter__(self) -> Gate:
        self._server = await asyncio.start_server(self._accept, "127.0.0.1", 0)
        self.port: int = self._server.sockets[0].getsockname()[1]
        return self

    async def __aexit__(self, *_: object) -> None:
        self._server.close()
        self.drop()
        if self._connections:
            await asyncio.wait(self._connections)
        await self._server.wait_closed()

    def drop(self) -> None:
        """Drop all connections."""
        for connection in self._connections:
            connection.cancel()

    async def _accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.accepted += 1
        task = asyncio.current_task()
        assert task is not None
        self._connections.add(task)
        task.add_done_callback(self._connections.discard)
        with contextlib.closing(writer):
            if self.is_open:
                await self._pass_on(reader, writer)

    async def _pass_on(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Copy both ways until one end closes."""
        there, back = await asyncio.open_connection("127.0.0.1", self._server_port)
        with contextlib.closing(back), contextlib.suppress(asyncio.CancelledError):
            copies = [_copy(reader, back), _copy(there, writer)]
            tasks = [asyncio.create_task(copy) for copy in copies]
            try:
                await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
            finally:
                for task in tasks:
                    task.cancel()


async def _copy(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    with contextlib.suppress(OSError):
        while some := await reader.read(65536):
            writer.write(some)
