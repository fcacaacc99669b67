"""The control socket of a fleet, with its client, and with clients that are none."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import socket
import tempfile
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any

import msgspec
import pytest

from chronopype_mp import (
    ClockConfig,
    ClockMode,
    NetworkProcessor,
    NetworkStatus,
    RealtimeClock,
    TickProcessor,
    remote,
)
from chronopype_mp.console.client import FleetClient
from chronopype_mp.control import server as server_module
from chronopype_mp.control.messages import PROTOCOL, Answer, Named, Request
from chronopype_mp.control.server import ControlServer, serving
from chronopype_mp.exceptions import ControlError
from chronopype_mp.fleet.directory import FleetDirectory
from chronopype_mp.transport.control_sockets import ControlConnection
from tests.waiting import run


class Feed(NetworkProcessor):
    is_up = True

    @classmethod
    def logger(cls) -> logging.Logger:
        return logging.getLogger("feed")

    async def check_network(self) -> NetworkStatus:
        return NetworkStatus.CONNECTED if self.is_up else NetworkStatus.NOT_CONNECTED

    @remote
    def add(self, a: int, b: int = 1) -> int:
        return a + b

    @remote
    async def hang(self) -> None:
        await asyncio.Event().wait()

    @remote
    def fail(self) -> None:
        raise KeyError("no such thing")


class Lost(Feed):
    is_up = False


@pytest.fixture(autouse=True)
def runtime(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    with tempfile.TemporaryDirectory(prefix="cp-") as directory:
        monkeypatch.setenv("XDG_RUNTIME_DIR", directory)
        yield


class Served:
    """A fleet of this process."""

    def __init__(self, directory: FleetDirectory, server: ControlServer) -> None:
        self.path = str(directory.socket)
        self.server = server
        self.stop = asyncio.Event()
        self.clock: RealtimeClock

    @contextlib.asynccontextmanager
    async def raw(self) -> AsyncIterator[tuple[ControlConnection, asyncio.Queue[Answer]]]:
        """Connect without `FleetClient`; yield what arrives, too."""
        connection = ControlConnection(self.path)
        answers = asyncio.Queue[Answer]()

        def read() -> None:
            for message in connection.receive(100):
                answers.put_nowait(msgspec.msgpack.decode(message, type=Answer))

        connection.attach(asyncio.get_running_loop(), read)
        try:
            yield connection, answers
        finally:
            connection.close()


@contextlib.asynccontextmanager
async def fleet(*processors: TickProcessor) -> AsyncIterator[Served]:
    """Run a fleet of processors named a, b, c …; all are READY."""
    directory, stop = FleetDirectory("main"), asyncio.Event()
    config = ClockConfig(clock_mode=ClockMode.REALTIME, tick_size=0.05)
    clock = RealtimeClock(config, launcher="inline")
    for name, processor in zip("abcdef", processors, strict=False):
        clock.add_processor(processor, name=name)
    try:
        async with serving(str(directory.socket), "main", clock, stop) as server, clock:
            for handle in clock.workers:
                await handle.wait_ready()
            served = Served(directory, server)
            served.clock, served.stop = clock, stop
            yield served
    finally:
        directory.close()


def packed(command: str, arguments: Any, number: str = "1", protocol: int = PROTOCOL) -> bytes:
    raw = msgspec.Raw(msgspec.msgpack.encode(arguments))
    return msgspec.msgpack.encode(
        Request(protocol=protocol, id=number, command=command, arguments=raw)
    )


def test_every_command_does_what_it_says_and_may_be_repeated() -> None:
    """What is done already is a success that says so."""

    async def scenario() -> None:
        async with fleet(Feed(), Feed(), TickProcessor()) as served, FleetClient("main") as client:
            handles = {handle.name: handle for handle in served.clock.workers}
            (done,) = await client.stop("a", wait=True)
            assert done.did == "stopping"
            assert handles["a"].status.name == "STOPPED"
            assert [each.did for each in await client.stop("a")] == ["was stopped already"]
            assert not await client.is_ready()
            assert await client.is_ready("[bc]")
            with pytest.raises(ControlError, match="start it instead") as caught:
                await client.restart("*")
            assert caught.value.kind == "wrong-state"
            did = {e.worker: e.did for e in await client.start("[ab]", wait="connected")}
            assert did == {"a": "starting", "b": "was ready already"}
            assert await client.is_ready("a", "b", connected=True)
            assert not await client.is_ready("c", connected=True)
            before = handles["b"].incarnation
            await client.restart("b", wait="ready")
            assert handles["b"].incarnation == before + 1
            await client.restart_all(rolling=True)
            assert handles["b"].incarnation == before + 2
            await client.reconnect("a", wait="connected")
            for _ in range(2):
                assert [e.did for e in await client.pause("c")] == ["paused"]
            assert [row.is_paused for row in (await client.status("c")).workers] == [True]
            await client.resume("c")
            assert await client.call("a", "add", 2, kwargs={"b": 5}) == 7
            status = await client.status()
            assert [row.worker for row in status.workers] == ["a", "b", "c"]
            assert status.workers[0].network_status == "CONNECTED"
            assert not status.is_stopping
            for _ in range(2):
                await client.shutdown()
            assert served.stop.is_set()
            assert (await client.status()).is_stopping

    run(scenario())


@pytest.mark.parametrize(
    ("ask", "kind", "message"),
    [
        (lambda c: c.status("aa"), "unknown-worker", 'no such worker; did you mean "a"?'),
        (lambda c: c.stop("x-*"), "unknown-worker", "no such worker; known are: a, b"),
        (lambda c: c.stop(), "bad-arguments", "name at least one worker"),
        (lambda c: c.call("*", "add", 1), "bad-arguments", "means 2 workers; name one"),
        (lambda c: c.call("a", "add", "x"), "bad-arguments", "argument a is not int"),
        (lambda c: c.call("a", "add", object()), "bad-arguments", "cannot be sent"),
        (lambda c: c.call("a", "ad"), "not-supported", "did you mean add?"),
        (lambda c: c.call("a", "hang", timeout=0.05), "timeout", "hang"),
        (lambda c: c.call("a", "fail"), "failed", "no such thing"),
        (lambda c: c.start("*", wait="connected", timeout=0.1), "timeout", r"0\.1 s: b \(ready, n"),
        (lambda c: c.start("a", timeout=-1), "bad-arguments", r"\$\.timeout"),
        (lambda c: c.request("stauts", Named(), object), "not-supported", 'mean "status"'),
        (lambda c: c.request("stop", Named(workers=(1,)), object), "bad-arguments", "Expected"),
    ],
)
def test_every_mistake_has_an_error_of_its_kind(ask: Any, kind: str, message: str) -> None:
    """The fleet goes on."""

    async def scenario() -> None:
        async with fleet(Feed(), Lost()), FleetClient() as client:
            with pytest.raises(ControlError, match=message) as caught:
                await ask(client)
            assert caught.value.kind == kind
            assert await client.is_ready()

    run(scenario())


def test_a_command_that_takes_long_holds_up_no_other() -> None:
    """Nor does a client that has gone meanwhile."""

    async def scenario() -> None:
        async with fleet(Feed(), Lost()), FleetClient() as client:
            waiting = asyncio.ensure_future(client.start("b", wait="connected"))
            hanging = asyncio.ensure_future(client.call("a", "hang"))
            for _ in range(50):
                await client.status()
            assert not waiting.done()
            assert not hanging.done()
            for each in (waiting, hanging):
                each.cancel()
            await asyncio.gather(waiting, hanging, return_exceptions=True)

    run(scenario())


def test_a_repeated_request_is_carried_out_once_and_gets_the_same_answer() -> None:
    """From another connection, too."""

    async def scenario() -> None:
        async with fleet(Feed()) as served:
            restart = packed("restart", {"workers": ["a"], "wait": "ready"}, "r1")
            answers = []
            async with served.raw() as (first, got), served.raw() as (second, got_too):
                first.send(restart)
                second.send(restart)
                answers += [await got.get(), await got_too.get()]
                first.send(restart)
                answers.append(await got.get())
            assert answers[0] == answers[1] == answers[2]
            assert served.clock.workers[0].incarnation == 2

    run(scenario())


def test_a_client_of_another_version_is_told_so() -> None:
    """Whatever it asks for."""

    async def scenario() -> None:
        async with fleet(Feed()) as served, served.raw() as (client, got):
            client.send(packed("teleport", {"x": 1}, protocol=99))
            answer = await got.get()
            assert answer.error is not None
            assert answer.error.kind == "version"
            assert "the client speaks version 99" in answer.error.message

    run(scenario())


def test_garbage_and_half_messages_are_counted_and_dropped() -> None:
    """On the level of messages, and below it."""

    async def scenario() -> None:
        async with fleet(Feed()) as served, served.raw() as (client, got):
            good = packed("status", {})
            for message in (b"", b"\xc1", b"\x00" * 1000, good[:-3], b"[" * 5000, b"\x91" * 5000):
                client.send(message)
            client._send([b"two", b"parts"])
            client.send(good)
            assert (await got.get()).error is None
            assert served.server.garbage == 7
            for junk in (b"", b"GET / HTTP/1.1\r\n\r\n", b"\xff" * 100_000):
                with socket.socket(socket.AF_UNIX) as stranger, contextlib.suppress(OSError):
                    stranger.connect(served.path)
                    stranger.sendall(junk)
            client.send(packed("status", {}, "2"))
            assert (await got.get()).error is None

    run(scenario())


def test_a_client_that_does_not_read_costs_only_its_own_answers() -> None:
    """They are dropped; others are served."""

    async def scenario() -> None:
        async with fleet(*(Feed() for _ in range(6))) as served, FleetClient() as client:
            deaf = ControlConnection(served.path)
            loop = asyncio.get_running_loop()
            for number in range(3000):
                deaf.send(packed("status", {}, f"d{number}"))
                if number % 100 == 0:
                    await asyncio.sleep(0)  # lets the server read
            began = loop.time()
            await client.status()
            assert loop.time() - began < 5.0
            async with asyncio.timeout(10):
                while not served.server.dropped:
                    await client.status()
            deaf.close()

    run(scenario())


def test_requests_in_progress_are_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    """Those of one client; it is told to repeat them later."""
    monkeypatch.setattr(server_module, "MOST_OF_CLIENT", 3)

    async def scenario() -> None:
        async with fleet(Feed()) as served, served.raw() as (client, got):
            for number in range(4):
                client.send(packed("events", {"wait": 30}, str(number)))
            answer = await got.get()
            assert answer.error is not None
            assert (answer.id, answer.error.kind) == ("3", "busy")
            async with FleetClient() as other:
                assert await other.is_ready()

    run(scenario())


def test_events_are_followed_from_now_on_or_from_the_start() -> None:
    """Without following, the generator ends."""

    async def scenario() -> None:
        async with fleet(Feed()), FleetClient() as client:
            past = [event async for event in client.events(since_start=True, follow=False)]
            assert "WorkerReady" in [event["event"] for event in past]
            async with contextlib.aclosing(client.events()) as events:
                following = asyncio.ensure_future(anext(events))
                await client.status()  # it has asked for the number of the last event
                await client.stop("a")
                first = await following
                assert (first["event"], first["worker"]) == ("WorkerStopping", "a")

    run(scenario())


def test_without_a_fleet_the_client_says_which_there_are(runtime: None) -> None:
    """Or that it has to be told which."""

    async def enter(name: str | None) -> None:
        async with FleetClient(name):
            pass

    with pytest.raises(ControlError, match="no fleet runs; start one with"):
        run(enter(None))
    directories = [FleetDirectory(name) for name in ("main", "other")]
    with pytest.raises(ControlError, match='did you mean "main"'):
        run(enter("mian"))
    with pytest.raises(ControlError, match="2 fleets run; name one of them"):
        run(enter(None))
    for directory in directories:
        directory.close()


def test_a_fleet_that_does_not_answer_is_an_error_with_its_pid() -> None:
    """It holds its directory, but nobody reads the socket."""
    directory = FleetDirectory("main")

    async def enter() -> None:
        async with FleetClient("main", answer_timeout=0.1):
            pass

    with pytest.raises(ControlError, match=r"\(process \d+\) has not answered within 0.1 s") as no:
        run(enter())
    assert no.value.kind == "no-answer"
    directory.close()


def test_the_socket_is_gone_once_the_fleet_has_ended(tmp_path: Path) -> None:
    """And a client that waits for an answer is told."""

    async def scenario() -> None:
        async with contextlib.AsyncExitStack() as ended:
            served = await ended.enter_async_context(fleet(Feed()))
            client = await ended.enter_async_context(FleetClient())
            asked = asyncio.ensure_future(client.call("a", "hang"))
            await client.status()
            await client.shutdown()
            path = Path(served.path)
            assert path.is_socket()  # noqa: ASYNC240
        assert not path.exists()  # noqa: ASYNC240
        with pytest.raises(ControlError, match="the client was closed"):
            await asked

    run(scenario())
