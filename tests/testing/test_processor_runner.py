"""ProcessorTest, used as in the tests of people who write processors."""

from __future__ import annotations

import asyncio
import contextvars
import logging
from collections.abc import Callable, Coroutine
from typing import Any

import pytest

from chronopype_mp.core.backoff import BackoffPolicy
from chronopype_mp.exceptions import (
    CallValueError,
    ConfigError,
    HookError,
    PermanentFailure,
    RemoteError,
    RetryAfter,
)
from chronopype_mp.processors import NetworkProcessor, NetworkStatus, TickProcessor, remote
from chronopype_mp.testing import ProcessorTest
from tests.waiting import run

STOPPED = NetworkStatus.STOPPED
NOT_CONNECTED = NetworkStatus.NOT_CONNECTED
CONNECTING = NetworkStatus.CONNECTING
CONNECTED = NetworkStatus.CONNECTED
DISCONNECTING = NetworkStatus.DISCONNECTING
ERROR = NetworkStatus.ERROR

UP = [NOT_CONNECTED, CONNECTING, CONNECTED]
DOWN = [DISCONNECTING, NOT_CONNECTED]


class Feed(NetworkProcessor):
    """Connects when its server is up; fails in a hook if the test says so."""

    network_backoff = BackoffPolicy(minimum=2.0, jitter=0.0)

    def __init__(self, **fails: BaseException) -> None:
        super().__init__()
        self.fails = fails
        self.server_is_up = True
        self.is_open = False
        self.checks = 0
        self.ticks: list[float] = []
        self.calls: list[str] = []

    @classmethod
    def logger(cls) -> logging.Logger:
        return logging.getLogger("tests.feed")

    def note(self, hook: str) -> None:
        self.calls.append(hook)
        if hook in self.fails:
            raise self.fails[hook]

    async def check_network(self) -> NetworkStatus:
        self.checks += 1
        self.note("check_network")
        return CONNECTED if self.is_open and self.server_is_up else NOT_CONNECTED

    async def start_network(self) -> None:
        self.note("start_network")
        if not self.server_is_up:
            raise ConnectionRefusedError("nobody there")
        self.is_open = True

    async def stop_network(self) -> None:
        self.is_open = False
        self.note("stop_network")

    def tick(self, timestamp: float) -> None:
        self.ticks.append(timestamp)
        self.note("tick")


async def hang() -> None:
    await asyncio.get_running_loop().create_future()


def test_a_reconnect_gives_up_a_connection_or_the_wait_for_the_next_attempt() -> None:
    async def scenario() -> None:
        async with ProcessorTest(Feed()) as feed:
            await feed.reaches(CONNECTED)
            feed.processor.fails["start_network"] = PermanentFailure("locked")
            await feed.reconnect()
            assert feed.transitions[-1] == ERROR
            await feed.advance(10_000.0)
            assert feed.transitions[-1] == ERROR
            feed.processor.fails.clear()
            await feed.reconnect()
            assert feed.transitions == [
                *UP,
                DISCONNECTING,
                NOT_CONNECTED,
                CONNECTING,
                ERROR,
                *UP[1:],
            ]
        async with ProcessorTest(TickProcessor()) as other:
            with pytest.raises(TypeError, match=r"^reconnect\(\) needs a NetworkProcessor, which"):
                await other.reconnect()

    run(scenario())


def test_a_feed_connects_ticks_and_is_stopped_at_the_end() -> None:
    async def scenario() -> None:
        async with ProcessorTest(Feed(), tick_size=0.5, start_time=10.2) as feed:
            reached = await feed.reaches(CONNECTED)
            assert reached.reason == "check_network() returned CONNECTED"
            await feed.tick()
            await feed.tick(2)
            assert feed.processor.ticks == [10.5, 11.0, 11.5]
            assert feed.processor.current_timestamp == 11.5
            assert feed.processor.state.success_count == 3
            assert feed.transitions == UP
        assert feed.transitions == [*UP, DISCONNECTING, STOPPED]
        assert not feed.processor.is_open

    run(scenario())


def test_checks_come_as_time_is_advanced_each_at_its_time() -> None:
    class Timed(Feed):
        async def check_network(self) -> NetworkStatus:
            self.calls.append(f"{feed.clock.monotonic() - began:g}")
            return await super().check_network()

    async def scenario() -> None:
        nonlocal feed, began
        feed = ProcessorTest(Timed())
        began = feed.clock.monotonic()
        async with feed:
            await feed.reaches(CONNECTED)
            await feed.advance(35.0)
            assert [call for call in feed.processor.calls if call[0].isdigit()] == [
                *("0", "0", "10", "20", "30")
            ]
            await feed.tick(5)
            assert feed.processor.checks == 6

    feed: ProcessorTest[Timed]
    began = 0.0
    run(scenario())


def test_a_server_that_comes_late_is_reached_after_the_backoff_without_waiting_for_it() -> None:
    async def scenario() -> None:
        async with ProcessorTest(Feed()) as feed:
            feed.processor.server_is_up = False
            refused = await feed.reaches(NOT_CONNECTED)
            assert refused.reason == "start_network: ConnectionRefusedError: nobody there"
            await feed.advance(2.0)
            feed.processor.server_is_up = True
            await feed.advance(3.9)
            assert feed.transitions[-1] == NOT_CONNECTED
            reached = await feed.reaches(CONNECTED, within=1.0)
            assert reached.at == 6.0

    run(scenario())


def test_a_loss_and_a_reconnect_show_with_their_reasons() -> None:
    async def scenario() -> None:
        async with ProcessorTest(Feed()) as feed:
            await feed.reaches(CONNECTED)
            feed.processor.connection_lost("the server has said bye")
            assert (await feed.reaches(DISCONNECTING)).reason == "the server has said bye"
            await feed.reaches(NOT_CONNECTED)
            await feed.reaches(CONNECTED, within=60.0)
            assert feed.transitions == [*UP, *DOWN, CONNECTING, CONNECTED]

    run(scenario())


def test_what_the_body_and_spawned_tasks_await_is_real() -> None:
    class Reader(Feed):
        async def run_network(self) -> None:
            reader, writer = await asyncio.open_connection("127.0.0.1", port)
            try:
                while line := await reader.readline():
                    self.calls.append(line.decode().strip())
            finally:
                writer.close()

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(b"100\n101\n")
        writer.close()

    async def scenario() -> None:
        nonlocal port
        async with await asyncio.start_server(serve, "127.0.0.1", 0) as server:
            port = server.sockets[0].getsockname()[1]
            async with ProcessorTest(Reader()) as feed:
                await feed.reaches(CONNECTED)
                lost = await feed.reaches(NOT_CONNECTED)
                assert lost.reason == "run_network returned"
                await feed.until(lambda: "101" in feed.processor.calls)
                assert [call for call in feed.processor.calls if call.isdigit()] == ["100", "101"]

    port = 0
    run(scenario())


# What fails


async def connects(feed: ProcessorTest[Feed]) -> None:
    await feed.reaches(CONNECTED)


async def ticks(feed: ProcessorTest[Feed]) -> None:
    await feed.reaches(CONNECTED)
    await feed.tick()


async def ends(feed: ProcessorTest[Feed]) -> None:
    await feed.reaches(CONNECTED)


@pytest.mark.parametrize(
    ("hook", "use", "time"),
    [
        ("check_network", connects, 0),
        ("start_network", connects, 0),
        ("tick", ticks, 1),
        ("stop_network", ends, 0),
    ],
)
def test_the_failure_of_a_hook_is_raised_in_the_test(
    hook: str, use: Callable[[ProcessorTest[Feed]], Coroutine[Any, Any, None]], time: int
) -> None:
    error = KeyError("price")

    async def scenario() -> None:
        async with ProcessorTest(Feed(**{hook: error})) as feed:
            await use(feed)

    with pytest.raises(KeyError) as caught:
        run(scenario())
    assert caught.value is error
    shown = "async_tick" if hook == "tick" else hook
    assert caught.value.__notes__ == [f"raised by {shown} of Feed, at {time} s"]


def test_a_failure_that_no_call_waited_for_is_raised_at_the_end() -> None:
    class Spawning(Feed):
        async def start_network(self) -> None:
            await super().start_network()
            self.go = asyncio.Event()
            self.spawn(self.fail(), name="reader")

        async def fail(self) -> None:
            await self.go.wait()
            raise KeyError("price")

    async def scenario() -> None:
        async with ProcessorTest(Spawning()) as feed:
            await feed.reaches(CONNECTED)
            feed.processor.go.set()

    with pytest.raises(KeyError) as caught:
        run(scenario())
    assert caught.value.__notes__ == ["raised by task reader of Spawning, at 0 s"]


def test_a_failure_is_noted_on_what_the_test_raises() -> None:
    async def scenario() -> None:
        async with ProcessorTest(Feed(stop_network=KeyError("price"))) as feed:
            await feed.reaches(CONNECTED)
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError) as caught:
        run(scenario())
    assert caught.value.__notes__ == [
        "also raised by stop_network of Feed, at 0 s: KeyError: 'price'"
    ]


@pytest.mark.parametrize(
    ("error", "status", "reason"),
    [
        (ConnectionResetError("bye"), NOT_CONNECTED, "check_network: ConnectionResetError: bye"),
        (RetryAfter(6.0), NOT_CONNECTED, "check_network: RetryAfter: retry after 6 s"),
        (PermanentFailure("no key"), ERROR, "check_network: PermanentFailure: no key"),
    ],
    ids=lambda value: type(value).__name__,
)
def test_what_the_network_loop_deals_with_is_a_transition_only(
    error: Exception, status: NetworkStatus, reason: str
) -> None:
    async def scenario() -> None:
        async with ProcessorTest(Feed(check_network=error)) as feed:
            await feed.advance(0.0)
            reached = feed.transitions[-1]
            assert (reached.status, reached.reason) == (status, reason)

    run(scenario())


def test_the_timeout_of_a_check_is_a_transition_only() -> None:
    class Hanging(Feed):
        check_network_timeout = 0.1

        async def check_network(self) -> NetworkStatus:
            await hang()
            raise AssertionError

    async def scenario() -> None:
        async with ProcessorTest(Hanging(start_network=RetryAfter(1.0))) as feed:
            await feed.advance(0.0)
            assert feed.transitions == [NOT_CONNECTED, CONNECTING, NOT_CONNECTED]

    run(scenario())


@pytest.mark.parametrize("is_async", [False, True])
@pytest.mark.parametrize(
    ("signal", "status"), [(RetryAfter(6.0), NOT_CONNECTED), (PermanentFailure("no key"), ERROR)]
)
def test_a_tick_that_says_when_to_try_again_is_a_transition_and_not_tried_again(
    signal: Exception, status: NetworkStatus, is_async: bool
) -> None:
    ticks: list[float] = []

    class Limited(Feed):
        def tick(self, timestamp: float) -> None:
            ticks.append(timestamp)
            if len(ticks) == 1:
                raise signal

    class LimitedLater(Limited):
        async def async_tick(self, timestamp: float) -> None:
            await asyncio.sleep(0)
            self.tick(timestamp)

    async def scenario() -> None:
        async with ProcessorTest((LimitedLater if is_async else Limited)()) as feed:
            await feed.reaches(CONNECTED)
            await feed.tick()
            reached = await feed.reaches(status)
            assert reached.reason == f"async_tick: {type(signal).__name__}: {signal}"
            assert len(ticks) == 1

    run(scenario())


def test_the_timeout_of_a_stop_is_raised() -> None:
    class Hanging(Feed):
        stop_network_timeout = 0.1

        async def stop_network(self) -> None:
            await hang()

    async def scenario() -> None:
        async with ProcessorTest(Hanging()) as feed:
            await feed.reaches(CONNECTED)

    with pytest.raises(Exception, match=r"^timed out after 0\.1s") as caught:
        run(scenario())
    assert caught.value.__notes__ == ["raised by stop_network of Hanging, at 0 s"]


def test_a_status_that_never_comes_is_reported_with_what_was_seen_instead() -> None:
    async def scenario() -> None:
        feed = ProcessorTest(Feed(), timeout=0.2)
        feed.processor.server_is_up = False
        async with feed:
            await feed.reaches(CONNECTED)

    with pytest.raises(AssertionError) as caught:
        run(scenario())
    assert str(caught.value) == (
        "Feed did not come to CONNECTED within 0.2 s: it is NOT_CONNECTED, and the next check is "
        "due in 2 s of its clock. Transitions:\n"
        "  NOT_CONNECTED at 0 s (started)\n"
        "  CONNECTING at 0 s (attempt 1)\n"
        "  NOT_CONNECTED at 0 s (start_network: ConnectionRefusedError: nobody there)"
    )


class Hanging(Feed):
    async def start_network(self) -> None:
        await hang()


class Stuck(Feed):
    async def stop_network(self) -> None:
        await hang()


class Slow(Feed):
    tick = NetworkProcessor.tick

    async def async_tick(self, timestamp: float) -> None:
        await hang()


@pytest.mark.parametrize(
    ("kind", "use", "message"),
    [
        (
            Hanging,
            lambda feed: feed.advance(1.0),
            "Hanging did not come to the end of its hooks within 0.2 s: it is CONNECTING, and "
            "start_network is under way. ",
        ),
        (
            Stuck,
            connects,
            "Stuck did not come to the end of stop() within 0.2 s: it is DISCONNECTING, and "
            "stop_network is under way. ",
        ),
        (
            Slow,
            ticks,
            "Slow did not come to the end of the tick within 0.2 s: it is CONNECTED, and the next "
            "check is due in 9 s of its clock. ",
        ),
    ],
)
def test_a_hook_that_does_not_end_is_named(
    kind: type[Feed],
    use: Callable[[ProcessorTest[Feed]], Coroutine[Any, Any, None]],
    message: str,
) -> None:
    async def scenario() -> None:
        async with ProcessorTest(kind(), timeout=0.2) as feed:
            await use(feed)

    with pytest.raises(AssertionError) as caught:
        run(scenario())
    assert str(caught.value).startswith(message + "Transitions:\n  NOT_CONNECTED at 0 s (started)")


def test_a_condition_that_never_holds_fails_the_test() -> None:
    async def scenario() -> None:
        async with ProcessorTest(Feed(), timeout=0.2) as feed:
            await feed.until(lambda: feed.processor.ticks == [1.0])

    with pytest.raises(AssertionError, match="did not come to what the test waits for within"):
        run(scenario())


def test_a_tick_that_is_held_back_fails_the_test() -> None:
    async def scenario() -> None:
        feed = ProcessorTest(Feed(start_network=PermanentFailure("no key")))
        async with feed:
            await feed.tick()

    with pytest.raises(AssertionError, match="Feed gets no tick: it is ERROR, and no check is due"):
        run(scenario())


def test_transitions_that_differ_show_their_reasons() -> None:
    async def scenario() -> None:
        async with ProcessorTest(Feed()) as feed:
            await feed.reaches(CONNECTED)
            assert feed.transitions != [NOT_CONNECTED, CONNECTING, ERROR]
            assert feed.transitions != UP[:2]
            assert feed.transitions[0] != "NOT_CONNECTED"
            assert feed.transitions[:2] == feed.transitions[:2]
            assert len({*feed.transitions, *UP}) == 3
            assert repr(feed.transitions[1]) == "CONNECTING at 0 s (attempt 1)"

    run(scenario())


# How it is used


def test_a_processor_without_a_network_ticks() -> None:
    class Counter(TickProcessor):
        count = 0

        def tick(self, timestamp: float) -> None:
            self.count += 1

    async def scenario() -> None:
        async with ProcessorTest(Counter()) as counter:
            await counter.tick(3)
            assert counter.processor.count == 3
            assert counter.transitions == []
            with pytest.raises(TypeError, match="needs a NetworkProcessor, which Counter is not"):
                await counter.reaches(CONNECTED)

    run(scenario())


def test_a_start_that_raises_does_so_in_the_test() -> None:
    class Broken(Feed):
        def start(self, timestamp: float) -> None:
            super().start(timestamp)
            raise KeyError("price")

    async def scenario() -> None:
        async with ProcessorTest(Broken()):
            raise AssertionError

    with pytest.raises(KeyError):
        run(scenario())


def test_an_object_can_be_tested_again() -> None:
    async def scenario() -> None:
        one = Feed()
        for _ in range(2):
            async with ProcessorTest(one) as feed:
                await feed.reaches(CONNECTED)
                await feed.tick()
        assert len(one.ticks) == 2

    run(scenario())


def test_a_setting_that_the_test_changes_holds_at_once() -> None:
    async def scenario() -> None:
        async with ProcessorTest(Feed()) as feed:
            await feed.reaches(CONNECTED)
            feed.processor.check_network_interval = 2.0
            await feed.advance(4.0)
            assert feed.processor.checks == 4

    run(scenario())


def test_mistakes_are_refused() -> None:
    class Misspelt(Feed):
        async def check_netwrok(self) -> NetworkStatus:
            return CONNECTED

    class Both(Feed):
        async def async_tick(self, timestamp: float) -> None: ...

    with pytest.raises(HookError, match="check_netwrok"):
        ProcessorTest(Misspelt())
    with pytest.raises(ConfigError, match=r"ProcessorTest\.processor = .*must be a TickProcessor"):
        ProcessorTest(Feed)  # type: ignore[type-var]
    with pytest.raises(ConfigError, match=r"ProcessorTest\.tick_size = 0"):
        ProcessorTest(Feed(), tick_size=0.0)

    async def scenario() -> None:
        unused = ProcessorTest(Feed())
        for use in (
            unused.reaches(CONNECTED),
            unused.tick(),
            unused.advance(1.0),
            unused.until(lambda: True),
        ):
            with pytest.raises(RuntimeError, match="use it inside of `async with ProcessorTest"):
                await use
        async with ProcessorTest(Feed()) as feed:
            await feed.reaches(CONNECTED)
            with pytest.raises(ValueError, match="must not be negative"):
                await feed.advance(-1.0)
        with pytest.raises(RuntimeError, match="can be entered once"):
            await feed.__aenter__()

    run(scenario())


class Sums(TickProcessor):
    total = 0.0

    @remote
    async def add(self, *amounts: float) -> tuple[float, int]:
        self.total += sum(amounts)
        return self.total, len(amounts)

    @remote
    async def ask(self) -> None:
        await self.call("other", "add", 1.0)


def test_a_remote_method_is_called_as_by_a_handle() -> None:
    async def scenario() -> None:
        async with ProcessorTest(Sums()) as sums:
            assert await sums.call("add", 1, 2) == (3.0, 2)
            await sums.tick()
            assert await sums.call("add", 4.0) == (7.0, 1)
            assert sums.processor.total == 7.0
            with pytest.raises(CallValueError, match="argument amounts is not float"):
                await sums.call("add", "one")
            with pytest.raises(RemoteError, match="a ProcessorTest runs no other workers"):
                await sums.call("ask")

    run(scenario())


SESSION: contextvars.ContextVar[str] = contextvars.ContextVar("SESSION", default="none")


class SeesItsSession(NetworkProcessor):
    @classmethod
    def logger(cls) -> logging.Logger:
        return logging.getLogger("tests.session")

    async def check_network(self) -> NetworkStatus:
        return CONNECTED

    async def start_network(self) -> None:
        SESSION.set("one")

    @remote
    def session(self) -> str:
        return SESSION.get()

    @remote
    async def session_later(self) -> str:
        await asyncio.sleep(0)  # yields; it waits for nothing
        return SESSION.get()


def test_remote_methods_see_the_context_variables_of_the_connection() -> None:
    async def scenario() -> None:
        async with ProcessorTest(SeesItsSession()) as feed:
            await feed.reaches(CONNECTED)
            await feed.advance(0.0)
            assert await feed.call("session") == "one"
            assert await feed.call("session_later") == "one"

    run(scenario())
