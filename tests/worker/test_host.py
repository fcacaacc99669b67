"""The host over the in-memory transport; the coordinator's side is played by hand."""

from __future__ import annotations

import asyncio
import contextlib
import contextvars
import logging
import math
from collections.abc import AsyncIterator, Callable
from typing import TypeVar

import msgspec
import pytest

from chronopype_mp.core.attributes import decoded
from chronopype_mp.core.backoff import BackoffPolicy
from chronopype_mp.core.codec import (
    MAX_FRAME,
    TICK_TOPIC,
    command_topic,
    decode_report,
    encode_command,
    encode_report,
    encode_tick,
)
from chronopype_mp.core.connection import CLOSEST_CHECKS
from chronopype_mp.core.messages import (
    PROTOCOL,
    Attributes,
    Beat,
    Bye,
    Command,
    CommandDone,
    Configure,
    Failure,
    Hello,
    Ready,
    Reconnect,
    Report,
    Restoring,
    SendAttributes,
    StatePart,
    Status,
    Stop,
    Tick,
    Welcome,
    WorkerSettings,
)
from chronopype_mp.core.rate import TokenBucket
from chronopype_mp.core.saved_state import SavedState
from chronopype_mp.core.state import TickAccount
from chronopype_mp.exceptions import ConfigError, PermanentFailure, RetryAfter
from chronopype_mp.processors import NetworkProcessor, NetworkStatus, TickProcessor, hooks
from chronopype_mp.transport.memory import MemoryHub
from chronopype_mp.worker import host as host_module
from chronopype_mp.worker.host import EXIT_FAILED, EXIT_OK, EXIT_STUCK, WorkerHost
from tests.boots import boot_of_a
from tests.noted import Noted
from tests.waiting import Noticeboard, run, turns

R = TypeVar("R", bound=Report)

PID = 4711
STOP_ID = 50
SETTINGS = WorkerSettings()


class Coordinator:
    """The other side of the link, and the host at work."""

    def __init__(
        self,
        make: Callable[[], TickProcessor],
        timeout: float = 5.0,
        stop_grace: float = 5.0,
        beat_interval: float = 0.02,
        state: SavedState | None = None,
    ) -> None:
        self.boot = boot_of_a(
            processor_timeout=timeout,
            beat_interval=beat_interval,
            stop_grace=stop_grace,
            state=state,
        )
        self.hub = MemoryHub()
        self.link = self.hub.connect("a")
        self.exceptions: dict[int, BaseException] = {}
        self.host = WorkerHost(self.boot, self.link, PID, make, self.exceptions.__setitem__)
        self.reports: list[Report] = []
        self.board = Noticeboard()
        self.running: asyncio.Task[int] | None = None

    def begin(self) -> None:
        loop = asyncio.get_running_loop()
        self.hub.attach(loop, self._read)
        self.running = loop.create_task(self.host.run())

    def _read(self) -> None:
        for frame in self.hub.receive(1000):
            report = decode_report(frame)
            assert report.worker == "a"
            assert report.incarnation == 2
            assert len(frame) < MAX_FRAME
            self.reports.append(report)
        self.board.notify()

    def got(self, kind: type[R], where: Callable[[R], bool] = lambda _: True) -> list[R]:
        return [report for report in self.reports if isinstance(report, kind) and where(report)]

    async def wait_for(
        self, kind: type[R], where: Callable[[R], bool] = lambda _: True, count: int = 1
    ) -> R:
        """Return the ``count``-th report of a kind, as soon as it is there."""
        await self.board.until(lambda: len(self.got(kind, where)) >= count)
        return self.got(kind, where)[count - 1]

    def command(self, command: Command) -> None:
        self.hub.publish(encode_command("a", command))

    def tick(self, *seqs: int) -> None:
        """Publish ticks; tick n has the timestamp 10·n."""
        for seq in seqs:
            self.hub.publish(encode_tick(Tick(seq, 10.0 * seq)))

    async def welcome(self, seq: int = 0, settings: WorkerSettings = SETTINGS) -> Ready:
        await self.wait_for(Hello)
        self.command(Welcome(incarnation=2, seq=seq, timestamp=10.0 * seq, settings=settings))
        return await self.wait_for(Ready)

    async def run_to(self, account: TickAccount) -> Beat:
        return await self.wait_for(Beat, lambda beat: beat.account == account)

    async def stop(self, seq: int) -> Bye:
        self.command(Stop(incarnation=2, id=STOP_ID, seq=seq))
        assert await self.ended() == EXIT_OK
        return await self.wait_for(Bye)

    async def ended(self) -> int:
        assert self.running is not None
        code = await self.running
        await turns()
        left = {task.get_name() for task in asyncio.all_tasks()}
        assert not [name for name in left if name.endswith(" of a")], "tasks left behind"
        return code


@contextlib.asynccontextmanager
async def hosting(
    processor: TickProcessor,
    timeout: float = 5.0,
    stop_grace: float = 5.0,
    beat_interval: float = 0.02,
) -> AsyncIterator[Coordinator]:
    """Host a processor; whatever the test does not end is cancelled."""
    coordinator = Coordinator(lambda: processor, timeout, stop_grace, beat_interval)
    coordinator.begin()
    yield coordinator
    assert coordinator.running is not None
    coordinator.running.cancel()
    await asyncio.wait({coordinator.running})
    coordinator.link.close(0)
    coordinator.hub.close()


def test_a_worker_says_hello_until_it_is_welcomed_and_then_that_it_is_ready() -> None:
    async def scenario() -> None:
        processor = Noted()
        async with hosting(processor) as coordinator:
            hello = await coordinator.wait_for(Hello, count=3)
            assert (hello.pid, hello.protocol) == (PID, PROTOCOL)
            assert processor.calls == [], "nothing starts before the welcome"
            ready = await coordinator.welcome(seq=7)
            assert ready.base == 7
            assert processor.calls == ["start 70"]
            hellos = len(coordinator.got(Hello))
            await coordinator.wait_for(Beat, count=len(coordinator.got(Beat)) + 5)
            assert len(coordinator.got(Hello)) == hellos
            coordinator.command(Welcome(incarnation=2, seq=9, timestamp=90.0, settings=SETTINGS))
            await turns()
            assert len(coordinator.got(Ready)) == 1
            assert processor.calls == ["start 70"]

    run(scenario())


def test_what_was_published_before_ready_is_before_the_base_of_the_account() -> None:
    async def scenario() -> None:
        processor = Noted()
        async with hosting(processor) as coordinator:
            await coordinator.wait_for(Hello)
            coordinator.tick(1, 2, 3)
            ready = await coordinator.welcome(seq=1)
            assert ready.base == 3
            coordinator.tick(4)
            await coordinator.run_to(TickAccount(base=3, run=1))
            assert processor.calls == ["start 10", "tick 40"]

    run(scenario())


def test_what_is_published_while_the_processor_starts_is_before_the_base_too() -> None:
    class Slow(Noted):
        def start(self, timestamp: float) -> None:
            super().start(timestamp)
            coordinator.tick(5)

    coordinator = Coordinator(Slow)

    async def scenario() -> None:
        coordinator.begin()
        ready = await coordinator.welcome(seq=4)
        assert ready.base == 5
        assert coordinator.running is not None
        coordinator.running.cancel()

    run(scenario())


def test_beats_carry_the_account_and_the_state() -> None:
    async def scenario() -> None:
        async with hosting(Noted()) as coordinator:
            await coordinator.welcome()
            coordinator.tick(1)
            await coordinator.run_to(TickAccount(base=0, run=1))
            coordinator.tick(4)
            beat = await coordinator.run_to(TickAccount(base=0, run=2, missed=2))
            assert beat.counters.is_active
            assert beat.counters.last_timestamp == 40.0
            assert beat.counters.success_count == 2
            assert len(beat.counters.recent) == 16
            assert beat.largest_gap == 30.0
            assert beat.lag >= 0
            assert (beat.reports_lost, beat.frames_dropped) == (0, 0)

    run(scenario())


def test_the_hosted_processor_sees_the_hosts_counters_as_its_state() -> None:
    async def scenario() -> None:
        processor = Noted()
        async with hosting(processor) as coordinator:
            await coordinator.welcome(seq=3)
            assert processor.current_timestamp == 30.0
            coordinator.tick(4)
            await coordinator.run_to(TickAccount(base=3, run=1))
            assert processor.current_timestamp == 40.0
            assert processor.state.success_count == 1
            assert processor._stats_window_size == 50
            await coordinator.stop(4)
            assert processor.state.success_count == 0, "its own again"

    run(scenario())


def test_a_tick_that_fails_is_reported_with_its_traceback_and_the_next_one_runs() -> None:
    async def scenario() -> None:
        processor = Noted()

        async def behave(timestamp: float) -> None:
            if timestamp == 10.0:
                raise ValueError("no")

        processor.behave = behave
        async with hosting(processor) as coordinator:
            await coordinator.welcome()
            coordinator.tick(1)
            failure = await coordinator.wait_for(Failure)
            assert (failure.hook, failure.serial) == ("async_tick", 1)
            assert (failure.type_name, failure.message) == ("ValueError", "no")
            assert "in behave" in failure.traceback
            assert failure.timestamp == 10.0
            assert not failure.fatal
            assert not failure.timeout
            assert isinstance(coordinator.exceptions[1], ValueError)
            coordinator.tick(2)
            beat = await coordinator.run_to(TickAccount(base=0, run=2))
            assert (beat.counters.error_count, beat.counters.success_count) == (1, 1)

    run(scenario())


def test_a_tick_that_times_out_is_reported_as_the_clocks_timeout() -> None:
    async def scenario() -> None:
        processor = Noted()
        processor.behave = lambda _: asyncio.get_running_loop().create_future()
        async with hosting(processor, timeout=0.02) as coordinator:
            await coordinator.welcome()
            coordinator.tick(1)
            failure = await coordinator.wait_for(Failure)
            assert failure.timeout
            assert failure.message == "timed out after 0.02s"
            assert not failure.fatal

    run(scenario())


def test_ticks_that_keep_failing_are_reported_at_a_limited_rate_and_the_rest_is_counted(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    class Three(TokenBucket):
        """A bucket of three tokens that is never refilled."""

        def __init__(self, rate: float, now: float) -> None:
            super().__init__(3.0, 0.0)

        def take(self, wanted: int, now: float) -> int:
            return super().take(wanted, 0.0)

    async def scenario() -> None:
        async def behave(timestamp: float) -> None:
            raise ValueError("always")

        processor = Noted()
        processor.behave = behave
        async with hosting(processor) as coordinator:
            await coordinator.welcome()
            for seq in range(1, 9):
                coordinator.tick(seq)
                await coordinator.run_to(TickAccount(base=0, run=seq))
            beat = await coordinator.wait_for(Beat, lambda beat: beat.reports_lost == 5)
            assert beat.counters.error_count == 8
            assert [failure.serial for failure in coordinator.got(Failure)] == [1, 2, 3]

    monkeypatch.setattr("chronopype_mp.worker.host.TokenBucket", Three)
    run(scenario())


class Unprintable(Exception):
    def __str__(self) -> str:
        raise ValueError("no text for you")


@pytest.mark.parametrize(
    "error",
    [
        ValueError("\udce9"),
        Unprintable(),
        ValueError("x" * 2 * MAX_FRAME),
        ValueError("\udce9" * 2 * MAX_FRAME),
    ],
    ids=["no UTF-8", "unprintable", "endless", "endless and no UTF-8"],
)
def test_an_error_that_cannot_travel_as_it_is_is_reported_and_the_next_tick_runs(
    error: Exception,
) -> None:
    async def scenario() -> None:
        processor = Noted()

        async def behave(timestamp: float) -> None:
            if timestamp == 10.0:
                raise error

        processor.behave = behave
        async with hosting(processor) as coordinator:
            await coordinator.welcome()
            coordinator.tick(1)
            failure = await coordinator.wait_for(Failure)
            assert failure.type_name == type(error).__name__
            assert failure.traceback
            coordinator.tick(2)
            await coordinator.run_to(TickAccount(base=0, run=2))

    run(scenario())


def test_a_tick_that_ends_the_execution_of_ticks_ends_the_process_and_says_so() -> None:
    async def scenario() -> None:
        processor = Noted()

        async def behave(_: float) -> None:
            task = asyncio.current_task()
            assert task is not None
            task.cancel()
            await asyncio.sleep(0)  # where the cancellation arrives

        processor.behave = behave
        async with hosting(processor) as coordinator:
            await coordinator.welcome()
            coordinator.tick(1)
            assert await coordinator.ended() == EXIT_FAILED
            failure = await coordinator.wait_for(Failure)
            assert failure.fatal
            assert failure.hook == "async_tick"

    run(scenario())


def test_a_tick_that_outlives_its_timeout_and_swallows_its_cancellation_ends_the_process(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(host_module, "CANCEL_GRACE", 0.05)

    async def scenario() -> None:
        processor = Noted()
        let_go = asyncio.Event()

        async def behave(_: float) -> None:
            while not let_go.is_set():
                try:
                    await let_go.wait()
                except asyncio.CancelledError:
                    continue

        processor.behave = behave
        async with hosting(processor, timeout=0.02) as coordinator:
            await coordinator.welcome()
            coordinator.tick(1)
            assert coordinator.running is not None
            assert await coordinator.running == EXIT_STUCK
            failure = await coordinator.wait_for(Failure, lambda failure: failure.fatal)
            assert failure.hook == "async_tick"
            assert "swallowed its cancellation" in failure.message
            let_go.set()

    run(scenario())


def test_settings_are_applied_and_acknowledged() -> None:
    async def scenario() -> None:
        processor = Feed()
        async with hosting(processor) as coordinator:
            await coordinator.welcome()
            coordinator.command(
                Configure(incarnation=2, id=1, settings=WorkerSettings(check_network_interval=0.5))
            )
            await coordinator.wait_for(CommandDone, lambda done: done.id == 1)
            assert processor.check_network_interval == 0.5
            assert processor.check_network_timeout == 5.0, "None leaves the processor's own"

    run(scenario())


def test_every_network_setting_may_come_from_the_owner() -> None:
    class Patient(Feed):
        stale_after = 5.0

    settings = WorkerSettings(
        check_network_interval=0.5,
        start_network_timeout=4.0,
        network_backoff=BackoffPolicy(minimum=3.0),
        stable_after=0.0,
        stale_after=math.inf,
        retry_permanent_after=60.0,
    )

    async def scenario() -> None:
        processor = Patient()
        async with hosting(processor) as coordinator:
            await coordinator.welcome()
            coordinator.command(Configure(incarnation=2, id=1, settings=settings))
            await coordinator.wait_for(CommandDone, lambda done: done.id == 1)
            assert processor.stale_after is None, "infinity stands for None"
            for name in ("start_network_timeout", "network_backoff", "stable_after"):
                assert getattr(processor, name) == getattr(settings, name)
            assert processor.retry_permanent_after == 60.0
            await coordinator.stop(0)
        assert processor.stale_after == 5.0

    run(scenario())


def test_repeated_and_overtaken_settings_are_acknowledged_but_not_applied_again() -> None:
    async def scenario() -> None:
        processor = Noted()
        async with hosting(processor) as coordinator:
            await coordinator.welcome()
            paused = Configure(incarnation=2, id=2, settings=WorkerSettings(paused=True))
            coordinator.command(paused)
            coordinator.command(paused)
            coordinator.command(Configure(incarnation=2, id=1, settings=SETTINGS))
            await coordinator.wait_for(CommandDone, lambda done: done.id == 1)
            assert [done.id for done in coordinator.got(CommandDone)] == [2, 2, 1]
            assert processor.calls == ["start 0", "pause"]

    run(scenario())


def test_a_paused_worker_skips_ticks_until_it_is_resumed() -> None:
    async def scenario() -> None:
        processor = Noted()
        async with hosting(processor) as coordinator:
            await coordinator.welcome()
            coordinator.command(
                Configure(incarnation=2, id=1, settings=WorkerSettings(paused=True))
            )
            coordinator.tick(1, 2)
            beat = await coordinator.run_to(TickAccount(base=0, skipped=2))
            assert not beat.counters.is_active
            coordinator.command(Configure(incarnation=2, id=2, settings=SETTINGS))
            coordinator.tick(3)
            beat = await coordinator.run_to(TickAccount(base=0, run=1, skipped=2))
            assert beat.counters.is_active
            assert processor.calls == ["start 0", "pause", "resume", "tick 30"]

    run(scenario())


def test_ticks_that_came_before_a_pause_are_dealt_with_before_it() -> None:
    async def scenario() -> None:
        processor = Noted()
        async with hosting(processor) as coordinator:
            await coordinator.welcome()
            coordinator.tick(1)
            coordinator.command(
                Configure(incarnation=2, id=1, settings=WorkerSettings(paused=True))
            )
            coordinator.command(Configure(incarnation=2, id=2, settings=SETTINGS))
            await coordinator.wait_for(CommandDone, lambda done: done.id == 2)
            await coordinator.run_to(TickAccount(base=0, skipped=1))

    run(scenario())


def test_a_worker_welcomed_as_paused_is_paused_once_it_has_started() -> None:
    async def scenario() -> None:
        processor = Noted()
        async with hosting(processor) as coordinator:
            await coordinator.welcome(settings=WorkerSettings(paused=True))
            coordinator.tick(1)
            await coordinator.run_to(TickAccount(base=0, skipped=1))
            assert processor.calls == ["start 0", "pause"]

    run(scenario())


def test_a_pause_hook_that_raises_is_reported_and_the_pause_holds() -> None:
    class Rude(Noted):
        def pause(self) -> None:
            raise ValueError("no")

    async def scenario() -> None:
        async with hosting(Rude()) as coordinator:
            await coordinator.welcome()
            coordinator.command(
                Configure(incarnation=2, id=1, settings=WorkerSettings(paused=True))
            )
            failure = await coordinator.wait_for(Failure)
            assert failure.hook == "pause"
            await coordinator.wait_for(CommandDone)
            coordinator.tick(1)
            await coordinator.run_to(TickAccount(base=0, skipped=1))

    run(scenario())


def test_a_stop_runs_the_last_tick_stops_cleans_up_and_closes_the_account() -> None:
    async def scenario() -> None:
        processor = Noted()
        processor.behave = lambda _: turns(5)
        async with hosting(processor) as coordinator:
            await coordinator.welcome(seq=10)
            coordinator.tick(11, 12)
            bye = await coordinator.stop(12)
            assert processor.calls == ["start 100", "tick 120", "stop", "await_cleanup"]
            assert bye.account == TickAccount(base=10, run=1, missed=1)
            assert not bye.counters.is_active
            assert bye.counters.success_count == 1
            assert coordinator.reports[-1] is bye, "nothing comes after it"
            assert [done.id for done in coordinator.got(CommandDone)] == [STOP_ID]

    run(scenario())


def test_ticks_that_never_arrived_are_missed_in_the_account_of_a_stop() -> None:
    async def scenario() -> None:
        async with hosting(Noted()) as coordinator:
            await coordinator.welcome(seq=10)
            bye = await coordinator.stop(15)
            assert bye.account == TickAccount(base=10, missed=5)

    run(scenario())


def test_a_stop_that_is_repeated_is_acknowledged_and_stops_once() -> None:
    async def scenario() -> None:
        processor = Noted()
        gate = asyncio.Event()
        processor.behave = lambda _: gate.wait()
        async with hosting(processor) as coordinator:
            await coordinator.welcome()
            coordinator.tick(1)
            for _ in range(3):
                coordinator.command(Stop(incarnation=2, id=STOP_ID, seq=1))
            await coordinator.wait_for(CommandDone, count=3)
            coordinator.tick(2)
            await turns()
            gate.set()
            assert await coordinator.ended() == EXIT_OK
            assert processor.calls == ["start 0", "tick 10", "stop", "await_cleanup"]
            bye = await coordinator.wait_for(Bye)
            assert bye.account == TickAccount(base=0, run=1)

    run(scenario())


def test_a_tick_that_does_not_end_gets_half_of_the_grace_and_no_more() -> None:
    async def scenario() -> None:
        processor = Noted()
        processor.behave = lambda _: asyncio.get_running_loop().create_future()
        async with hosting(processor, timeout=60.0, stop_grace=0.1) as coordinator:
            await coordinator.welcome()
            coordinator.tick(1)
            await turns()
            coordinator.tick(2)
            bye = await coordinator.stop(2)
            assert processor.calls[-2:] == ["stop", "await_cleanup"]
            assert bye.account == TickAccount(base=0, run=0, missed=1), "the first one is lost"

    run(scenario())


@pytest.mark.parametrize("hook", ["stop", "await_cleanup"])
def test_a_hook_that_raises_at_the_end_is_reported_before_the_bye(hook: str) -> None:
    class Rude(Noted):
        def stop(self) -> None:
            super().stop()
            if hook == "stop":
                raise ValueError("no")

        async def await_cleanup(self) -> None:
            if hook == "await_cleanup":
                raise ValueError("no")

    async def scenario() -> None:
        async with hosting(Rude()) as coordinator:
            await coordinator.welcome()
            bye = await coordinator.stop(0)
            (failure,) = coordinator.got(Failure)
            assert failure.hook == hook
            assert not failure.fatal
            assert bye.account == TickAccount()

    run(scenario())


def test_a_clean_up_that_awaits_something_cancelled_does_not_keep_the_worker_alive() -> None:
    class Cancelling(Noted):
        async def await_cleanup(self) -> None:
            other = asyncio.get_running_loop().create_future()
            other.cancel()
            await other

    async def scenario() -> None:
        async with hosting(Cancelling()) as coordinator:
            await coordinator.welcome()
            await coordinator.stop(0)
            (failure,) = coordinator.got(Failure)
            assert failure.hook == "await_cleanup"

    run(scenario())


def test_a_host_told_to_stop_from_its_own_process_stops_after_the_newest_tick() -> None:
    async def scenario() -> None:
        processor = Noted()
        async with hosting(processor) as coordinator:
            await coordinator.welcome()
            coordinator.tick(1, 3)
            await coordinator.run_to(TickAccount(base=0, run=1, missed=2))
            coordinator.host.stop()
            coordinator.host.stop()
            assert await coordinator.ended() == EXIT_OK
            bye = await coordinator.wait_for(Bye)
            assert bye.account == TickAccount(base=0, run=1, missed=2)
            assert processor.calls.count("stop") == 1

    run(scenario())


def test_a_host_told_to_stop_before_its_welcome_ends_without_having_started_anything() -> None:
    async def scenario() -> None:
        processor = Noted()
        async with hosting(processor) as coordinator:
            await coordinator.wait_for(Hello)
            coordinator.host.stop()
            assert await coordinator.ended() == EXIT_OK
            assert processor.calls == []
            bye = await coordinator.wait_for(Bye)
            assert bye.account is None

    run(scenario())


def test_a_processor_that_cannot_be_made_is_a_fatal_failure() -> None:
    error = ValueError("no such thing")

    def make() -> TickProcessor:
        raise error

    async def scenario() -> None:
        coordinator = Coordinator(make)
        coordinator.begin()
        assert await coordinator.ended() == EXIT_FAILED
        failure = await coordinator.wait_for(Failure)
        assert failure.fatal
        assert (failure.type_name, failure.message) == ("ValueError", "no such thing")
        assert "in make" in failure.traceback
        assert coordinator.exceptions == {1: error}
        assert coordinator.got(Hello) == []

    run(scenario())


def test_a_start_that_raises_is_a_fatal_failure_and_what_it_made_is_stopped() -> None:
    class Rude(Noted):
        def start(self, timestamp: float) -> None:
            super().start(timestamp)
            raise ValueError("no")

    async def scenario() -> None:
        processor = Rude()
        async with hosting(processor) as coordinator:
            await coordinator.wait_for(Hello)
            coordinator.command(Welcome(incarnation=2, seq=1, timestamp=10.0, settings=SETTINGS))
            assert await coordinator.ended() == EXIT_FAILED
            failure = await coordinator.wait_for(Failure)
            assert (failure.hook, failure.fatal) == ("start", True)
            assert coordinator.got(Ready) == []
            assert processor.calls == ["start 10", "stop"]

    run(scenario())


@pytest.mark.parametrize(
    "frame",
    [
        TICK_TOPIC,
        TICK_TOPIC + b"\xff",
        encode_tick(Tick(99, 1.0)) + b"x",
        command_topic("a"),
        command_topic("a") + b"\x91" * 10_000,
        command_topic("a") + encode_report(Hello(worker="a", incarnation=2, token=99, pid=1)),
    ],
)
def test_garbage_on_the_link_is_counted_and_dropped(frame: bytes) -> None:
    async def scenario() -> None:
        processor = Noted()
        async with hosting(processor) as coordinator:
            await coordinator.welcome()
            coordinator.hub.publish(frame)
            await coordinator.wait_for(Beat, lambda beat: beat.frames_dropped == 1)
            coordinator.tick(1)
            await coordinator.run_to(TickAccount(base=0, run=1))
            assert coordinator.got(Failure) == []

    run(scenario())


def test_what_is_meant_for_another_incarnation_changes_nothing() -> None:
    async def scenario() -> None:
        processor = Noted()
        async with hosting(processor) as coordinator:
            await coordinator.wait_for(Hello)
            coordinator.command(Welcome(incarnation=1, seq=5, timestamp=50.0, settings=SETTINGS))
            coordinator.command(Welcome(incarnation=3, seq=6, timestamp=60.0, settings=SETTINGS))
            ready = await coordinator.welcome(seq=2)
            assert ready.base == 2
            coordinator.command(
                Configure(incarnation=1, id=9, settings=WorkerSettings(paused=True))
            )
            coordinator.command(Stop(incarnation=1, id=STOP_ID, seq=2))
            coordinator.command(Configure(incarnation=2, id=1, settings=SETTINGS))
            await coordinator.wait_for(CommandDone)
            assert [done.id for done in coordinator.got(CommandDone)] == [1]
            assert processor.calls == ["start 20"]

    run(scenario())


def test_a_command_that_arrives_before_the_start_is_obeyed_when_it_is_repeated() -> None:
    async def scenario() -> None:
        processor = Noted()
        async with hosting(processor) as coordinator:
            await coordinator.wait_for(Hello)
            early = Configure(incarnation=2, id=1, settings=WorkerSettings(paused=True))
            coordinator.command(early)
            await turns()
            assert processor.calls == []
            await coordinator.welcome()
            assert coordinator.got(CommandDone) == []
            coordinator.command(early)
            await coordinator.wait_for(CommandDone, lambda done: done.id == 1)
            assert processor.calls == ["start 0", "pause"]

    run(scenario())


def test_a_coordinator_that_does_not_read_costs_beats_and_their_number_is_told_later() -> None:
    async def scenario() -> None:
        processor = Noted()
        async with hosting(processor) as coordinator:
            await coordinator.welcome()
            refused = Refusing(coordinator.link.send)
            coordinator.host.outbox._sender = refused
            coordinator.tick(1)
            await refused.board.until(lambda: refused.count >= 3)
            coordinator.command(Configure(incarnation=2, id=1, settings=SETTINGS))
            await turns()
            assert coordinator.got(CommandDone) == []
            refused.refusing = False
            await coordinator.wait_for(CommandDone)
            beat = await coordinator.wait_for(Beat, lambda beat: beat.reports_lost >= 3)
            assert beat.account == TickAccount(base=0, run=1)

    run(scenario())


class Refusing:
    """A sender that takes nothing for a while."""

    def __init__(self, take: Callable[[bytes], bool]) -> None:
        self.refusing = True
        self.count = 0
        self.board = Noticeboard()
        self._take = take

    def send(self, frame: bytes) -> bool:
        if not self.refusing:
            return self._take(frame)
        self.count += 1
        self.board.notify()
        return False

    def close(self, linger: float) -> None:
        """Nothing to close."""


class Feed(NetworkProcessor):
    """A connection that works once it is started, as long as ``up``."""

    network_backoff = BackoffPolicy(minimum=0.01, maximum=0.02)

    def __init__(self) -> None:
        super().__init__()
        self.calls: list[str] = []
        self.made = False
        self.up = True
        self.check_network_interval = 0.1

    @classmethod
    def logger(cls) -> logging.Logger:
        return logging.getLogger("tests.feed")

    async def check_network(self) -> NetworkStatus:
        connected = self.made and self.up
        return NetworkStatus.CONNECTED if connected else NetworkStatus.NOT_CONNECTED

    async def start_network(self) -> None:
        self.calls.append("start_network")
        self.made = True

    async def stop_network(self) -> None:
        self.calls.append("stop_network")
        self.made = False

    def tick(self, timestamp: float) -> None:
        self.calls.append(f"tick {timestamp:g}")


def connected(status: Status) -> bool:
    return status.network is NetworkStatus.CONNECTED


def test_every_change_of_the_network_status_is_reported_once_and_in_order() -> None:
    async def scenario() -> None:
        feed = Feed()
        async with hosting(feed) as coordinator:
            await coordinator.welcome()
            status = await coordinator.wait_for(Status, connected)
            assert status.last_connected is not None
            await coordinator.stop(0)
            shown = [status.network for status in coordinator.got(Status)]
            assert shown == [
                NetworkStatus.NOT_CONNECTED,
                NetworkStatus.CONNECTING,
                NetworkStatus.CONNECTED,
                NetworkStatus.DISCONNECTING,
                NetworkStatus.STOPPED,
            ]
            revisions = [status.revision for status in coordinator.got(Status)]
            assert revisions == [1, 2, 3, 4, 5]
            assert coordinator.got(Status)[0].last_connected is None

    run(scenario())


def test_a_network_processor_gets_ticks_only_while_connected_and_the_others_are_skipped() -> None:
    async def scenario() -> None:
        feed = Feed()
        feed.up = False
        async with hosting(feed) as coordinator:
            await coordinator.welcome()
            coordinator.tick(1, 2)
            await coordinator.run_to(TickAccount(base=0, skipped=2))
            feed.up = True
            await coordinator.wait_for(Status, connected)
            await turns()  # on_connected comes after the status and before any tick
            coordinator.tick(3)
            await coordinator.run_to(TickAccount(base=0, run=1, skipped=2))
            assert feed.calls[-1] == "tick 30"
            bye = await coordinator.stop(3)
            assert feed.calls[-1] == "stop_network", "the worker waits for it"
            assert bye.account is not None
            assert bye.account.through == 3

    run(scenario())


def test_a_network_hook_that_raises_is_reported_and_shown_as_the_reason_of_the_error() -> None:
    class Refused(Feed):
        async def start_network(self) -> None:
            raise LookupError("nobody there")

    async def scenario() -> None:
        async with hosting(Refused()) as coordinator:
            await coordinator.welcome()
            failure = await coordinator.wait_for(Failure)
            assert (failure.hook, failure.message) == ("start_network", "nobody there")
            assert "in start_network" in failure.traceback
            assert failure.next_attempt is not None
            assert not failure.fatal
            status = await coordinator.wait_for(
                Status, lambda status: status.network is NetworkStatus.ERROR
            )
            assert status.error == status.reason == "start_network: LookupError: nobody there"
            assert status.next_attempt is not None

    run(scenario())


def test_an_error_that_networks_have_is_reported_without_a_traceback() -> None:
    class Refused(Feed):
        async def start_network(self) -> None:
            raise ConnectionRefusedError("nobody there")

    async def scenario() -> None:
        async with hosting(Refused()) as coordinator:
            await coordinator.welcome()
            failure = await coordinator.wait_for(Failure)
            assert (failure.hook, failure.traceback) == ("start_network", "")
            reason = "start_network: ConnectionRefusedError: nobody there"
            status = await coordinator.wait_for(Status, lambda status: status.reason == reason)
            assert (status.network, status.error) == (NetworkStatus.NOT_CONNECTED, None)
            assert status.next_attempt is not None

    run(scenario())


def test_beats_say_for_how_long_the_network_is_down_and_how_many_checks_timed_out() -> None:
    class Hanging(Feed):
        check_network_timeout = 0.1

        async def check_network(self) -> NetworkStatus:
            if self.up:
                return NetworkStatus.CONNECTED
            return await asyncio.get_running_loop().create_future()

    async def scenario() -> None:
        feed = Hanging()
        feed.up = False
        async with hosting(feed) as coordinator:
            await coordinator.welcome()
            await coordinator.wait_for(
                Beat, lambda beat: beat.downtime > 0.1 and beat.check_timeouts >= 2
            )
            feed.up = True
            await coordinator.wait_for(Status, connected)
            seen = len(coordinator.got(Beat))
            beat = await coordinator.wait_for(Beat, count=seen + 1)
            assert (beat.downtime, beat.check_timeouts) == (0.0, 0)
            assert beat.reason == "check_network() returned CONNECTED"

    run(scenario())


def test_every_check_that_times_out_is_in_a_beat_before_the_next_one() -> None:
    class Hanging(Feed):
        check_network_timeout = 0.1

        async def check_network(self) -> NetworkStatus:
            return await asyncio.get_running_loop().create_future()

    async def scenario() -> None:
        async with hosting(Hanging(), beat_interval=1e6) as coordinator:
            await coordinator.welcome()
            await coordinator.wait_for(Beat, lambda beat: beat.check_timeouts == 4)
            seen = [beat.check_timeouts for beat in coordinator.got(Beat)]
            assert seen == [0, 1, 2, 3, 4]

    run(scenario())


def test_a_status_that_stays_is_reported_if_the_next_attempt_changes() -> None:
    class Refused(Feed):
        network_backoff = BackoffPolicy(minimum=100.0)

        async def start_network(self) -> None:
            raise ConnectionRefusedError

    async def scenario() -> None:
        feed = Refused()

        def of(reason: str) -> Callable[[Status], bool]:
            return lambda status: reason in (status.reason or "")

        async with hosting(feed) as coordinator:
            await coordinator.welcome()
            first = await coordinator.wait_for(Status, of("Refused"))
            feed.connection_lost(RetryAfter(1000.0))
            second = await coordinator.wait_for(Status, of("RetryAfter"))
            assert first.network is second.network is NetworkStatus.NOT_CONNECTED
            assert first.next_attempt is not None
            assert second.next_attempt is not None
            assert second.next_attempt > first.next_attempt + 800.0
            feed.connection_lost(PermanentFailure())
            third = await coordinator.wait_for(Status, of("PermanentFailure"))
            assert (third.network, third.next_attempt) == (NetworkStatus.ERROR, None)
            feed.retry_permanent_after = 5000.0
            await coordinator.wait_for(Status, lambda status: status.revision == third.revision + 1)
            last = coordinator.got(Status)[-1]
            assert last.network is NetworkStatus.ERROR
            assert last.next_attempt is not None
            assert last.next_attempt > second.next_attempt + 3000.0

    run(scenario())


class WithoutSuper(Feed):
    """Overrides hooks, and calls none of its base class's."""

    def pause(self) -> None:
        self.calls.append("pause")

    def resume(self) -> None:
        self.calls.append("resume")

    def stop(self) -> None:
        self.calls.append("stop")

    async def await_cleanup(self) -> None:
        self.calls.append("await_cleanup")

    async def stop_network(self) -> None:
        await turns()
        await super().stop_network()


class Raising(WithoutSuper):
    """Raises in the same hooks."""

    def pause(self) -> None:
        super().pause()
        raise LookupError

    def resume(self) -> None:
        super().resume()
        raise LookupError

    def stop(self) -> None:
        super().stop()
        raise LookupError

    async def await_cleanup(self) -> None:
        await super().await_cleanup()
        raise LookupError


@pytest.mark.parametrize("kind", [WithoutSuper, Raising])
def test_the_network_is_paused_resumed_and_stopped_whatever_the_hooks_do(
    kind: type[WithoutSuper],
) -> None:
    async def scenario() -> None:
        feed = kind()
        async with hosting(feed) as coordinator:
            await coordinator.welcome()
            await coordinator.wait_for(Status, connected)
            network = feed._network
            assert network is not None
            for id, paused in enumerate((True, False), start=1):
                settings = WorkerSettings(paused=paused)
                coordinator.command(Configure(incarnation=2, id=id, settings=settings))
                await coordinator.wait_for(CommandDone, lambda done, id=id: done.id == id)
                assert network.connection.paused is paused
            await coordinator.stop(0)
            assert coordinator.got(Status)[-1].network is NetworkStatus.STOPPED
            left = ["pause", "resume", "stop", "await_cleanup", "stop_network"]
            assert feed.calls == ["start_network", *left]
            failed = [failure.hook for failure in coordinator.got(Failure)]
            assert failed == (left[:4] if kind is Raising else [])

    run(scenario())


@pytest.mark.parametrize("hook", ["stop", "on_disconnected", "stop_network"])
def test_no_hook_begins_a_connection_again_while_the_worker_stops(hook: str) -> None:
    class Persistent(Feed):
        def again(self, here: str) -> None:
            if here == hook:
                self.start(0.0)

        def stop(self) -> None:
            super().stop()
            self.again("stop")

        def on_disconnected(self) -> None:
            self.again("on_disconnected")

        async def stop_network(self) -> None:
            await super().stop_network()
            self.again("stop_network")

    async def scenario() -> None:
        feed = Persistent()
        async with hosting(feed) as coordinator:
            await coordinator.welcome()
            await coordinator.wait_for(Status, connected)
            await coordinator.stop(0)
            assert coordinator.got(Status)[-1].network is NetworkStatus.STOPPED
            assert feed.calls == ["start_network", "stop_network"]

    run(scenario())


def test_a_wants_ticks_that_raises_holds_ticks_back_and_is_reported_for_each() -> None:
    class Undecided(Noted):
        broken: BaseException | None = None

        @property
        def wants_ticks(self) -> bool:
            if self.broken is not None:
                raise self.broken
            return True

    async def scenario() -> None:
        processor = Undecided()
        async with hosting(processor) as coordinator:
            await coordinator.welcome()
            for seq, error in enumerate((LookupError("a"), Bang("b")), start=1):
                processor.broken = error
                coordinator.tick(seq)
                failure = await coordinator.wait_for(Failure, count=seq)
                assert (failure.hook, failure.type_name) == ("async_tick", type(error).__name__)
                assert "in wants_ticks" in failure.traceback
            processor.broken = None
            coordinator.tick(3)
            await coordinator.run_to(TickAccount(base=0, run=1, skipped=2))
            assert processor.ticks == [30.0]

    run(scenario())


def test_a_processor_that_makes_up_attributes_has_no_network_and_no_cleanup() -> None:
    class Delegating(Noted):
        def __getattr__(self, name: str) -> object:
            if name.startswith("__"):
                raise AttributeError(name)
            return object()

    async def scenario() -> None:
        async with hosting(Delegating()) as coordinator:
            await coordinator.welcome()
            await coordinator.wait_for(Beat, count=2)
            await coordinator.stop(0)
            assert coordinator.got(Failure) == []

    run(scenario())


def test_each_status_and_the_last_report_carry_the_figures_of_the_connection() -> None:
    async def scenario() -> None:
        feed = Feed()
        async with hosting(feed) as coordinator:
            await coordinator.welcome()
            status = await coordinator.wait_for(Status, connected)
            assert status.connection.connects == 1
            assert status.connection.check_latency.count == 2
            coordinator.command(Reconnect(incarnation=2, id=1))
            status = await coordinator.wait_for(Status, connected, count=2)
            assert status.connection.connects == 2
            beat = await coordinator.wait_for(Beat, lambda beat: beat.connection.connects == 2)
            assert beat.connection.check_latency.count >= 3
            await coordinator.stop(0)
            bye = await coordinator.wait_for(Bye)
            assert bye.connection.connects == 2
            assert bye.connection.connected_seconds >= beat.connection.connected_seconds

    run(scenario())


def test_a_reconnect_makes_the_connection_anew() -> None:
    async def scenario() -> None:
        feed = Feed()
        async with hosting(feed) as coordinator:
            await coordinator.welcome()
            await coordinator.wait_for(Status, connected)
            coordinator.command(Reconnect(incarnation=2, id=1))
            await coordinator.wait_for(Status, connected, count=2)
            assert feed.calls == ["start_network", "stop_network", "start_network"]

    run(scenario())


TRACE: contextvars.ContextVar[str] = contextvars.ContextVar("TRACE", default="none")


@pytest.mark.parametrize("plain", [True, False], ids=["plain", "async"])
def test_ticks_see_what_start_network_has_set_in_its_context(plain: bool) -> None:
    class Traced(Feed):
        async def start_network(self) -> None:
            await super().start_network()
            TRACE.set(f"connection {self.calls.count('start_network')}")

        def tick(self, timestamp: float) -> None:
            self.calls.append(TRACE.get())

        async def ticked(self, timestamp: float) -> None:
            before = TRACE.get()
            await asyncio.sleep(0)  # suspends the tick
            assert TRACE.get() == before
            self.tick(timestamp)

    async def scenario() -> None:
        feed = Traced()
        if not plain:
            feed.async_tick = feed.ticked  # type: ignore[method-assign]
        async with hosting(feed) as coordinator:
            await coordinator.welcome()
            await coordinator.wait_for(Status, connected)
            await turns()
            coordinator.tick(1)
            await coordinator.run_to(TickAccount(base=0, run=1))
            coordinator.command(Reconnect(incarnation=2, id=1))
            await coordinator.wait_for(Status, connected, count=2)
            await turns()
            coordinator.tick(2)
            await coordinator.run_to(TickAccount(base=0, run=2))
            traces = [call for call in feed.calls if call.startswith("connection")]
            assert traces == ["connection 1", "connection 2"]
            assert TRACE.get() == "none"

    run(scenario())


def test_a_network_hook_that_swallows_its_cancellation_ends_the_process(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(hooks, "CANCEL_GRACE", 0.02)

    class Stubborn(Feed):
        start_network_timeout = 0.02

        async def start_network(self) -> None:
            while not let_go.is_set():
                try:
                    await let_go.wait()
                except asyncio.CancelledError:
                    continue

    let_go = asyncio.Event()

    async def scenario() -> None:
        async with hosting(Stubborn()) as coordinator:
            await coordinator.welcome()
            assert coordinator.running is not None
            assert await coordinator.running == EXIT_STUCK
            failure = await coordinator.wait_for(Failure, lambda failure: failure.fatal)
            assert failure.hook == "start_network"
            let_go.set()

    run(scenario())


def test_the_owners_network_settings_hold_from_the_start() -> None:
    class Asking(Feed):
        def start(self, timestamp: float) -> None:
            self.calls.append(f"interval {self.check_network_interval:g}")
            super().start(timestamp)

    async def scenario() -> None:
        feed = Asking()
        async with hosting(feed) as coordinator:
            await coordinator.welcome(settings=WorkerSettings(check_network_interval=7.0))
            assert feed.calls[0] == "interval 7"

    run(scenario())


def test_a_setting_that_is_no_number_is_refused_before_it_travels() -> None:
    with pytest.raises(ConfigError):
        Feed().check_network_interval = math.nan


def test_a_killed_inline_worker_leaves_no_task_and_no_trace_on_the_processor() -> None:
    async def scenario() -> None:
        feed = Feed()
        async with hosting(feed) as coordinator:
            await coordinator.welcome()
            await coordinator.wait_for(Status, connected)
            assert coordinator.running is not None
            coordinator.running.cancel()
            await asyncio.wait({coordinator.running})
            await turns()
            assert feed._host is None
            assert feed.network_status is NetworkStatus.STOPPED
            names = {task.get_name() for task in asyncio.all_tasks()}
            assert not [name for name in names if name.endswith((" of a", " of Feed"))]

    run(scenario())


class Bang(BaseException):
    """An exception that is no `Exception`."""


@pytest.mark.parametrize("hook", ["pause", "resume", "stop", "await_cleanup"])
def test_a_base_exception_in_a_hook_is_reported_and_the_worker_ends_gracefully(hook: str) -> None:
    class Faulty(Noted):
        def fail(self) -> None:
            raise Bang(hook)

    async def scenario() -> None:
        processor = Faulty()
        if hook == "await_cleanup":

            async def cleanup() -> None:
                processor.fail()

            processor.await_cleanup = cleanup  # type: ignore[method-assign]
        else:
            setattr(processor, hook, processor.fail)
        async with hosting(processor) as coordinator:
            await coordinator.welcome()
            for id, paused in enumerate((True, False), start=1):
                settings = WorkerSettings(paused=paused)
                coordinator.command(Configure(incarnation=2, id=id, settings=settings))
            await coordinator.wait_for(CommandDone, lambda done: done.id == 2)
            await coordinator.stop(0)
            failure = await coordinator.wait_for(Failure)
            assert (failure.hook, failure.type_name, failure.message) == (hook, "Bang", hook)

    run(scenario())


def test_a_base_exception_in_start_is_fatal_and_reported() -> None:
    class Faulty(Noted):
        def start(self, timestamp: float) -> None:
            raise Bang("start")

    async def scenario() -> None:
        async with hosting(Faulty()) as coordinator:
            await coordinator.wait_for(Hello)
            coordinator.command(Welcome(incarnation=2, seq=0, timestamp=0.0, settings=SETTINGS))
            failure = await coordinator.wait_for(Failure)
            assert (failure.hook, failure.fatal) == ("start", True)
            assert await coordinator.ended() == EXIT_FAILED

    run(scenario())


@pytest.mark.parametrize("task", ["beats of a", "stop of a"])
def test_a_permanent_task_that_the_processor_cancels_ends_the_worker_with_a_report(
    task: str,
) -> None:
    class Cancels(Noted):
        async def await_cleanup(self) -> None:
            await asyncio.Event().wait()

    async def scenario() -> None:
        async with hosting(Cancels()) as coordinator:
            await coordinator.welcome()
            if task == "stop of a":
                coordinator.command(Stop(incarnation=2, id=STOP_ID, seq=0))
                await coordinator.wait_for(CommandDone)
            for each in asyncio.all_tasks():
                if each.get_name() == task:
                    each.cancel()
            failure = await coordinator.wait_for(Failure, lambda failure: failure.fatal)
            assert failure.hook in ("beat", "stop")
            assert await coordinator.ended() == EXIT_FAILED

    run(scenario())


def test_no_hook_runs_after_a_stop_that_nobody_asked_for_but_its_own() -> None:
    async def scenario() -> None:
        processor = Noted()
        async with hosting(processor) as coordinator:
            await coordinator.welcome()
            coordinator.tick(1)
            await coordinator.run_to(TickAccount(base=0, run=1))
            coordinator.host.stop()
            settings = WorkerSettings(paused=True)
            coordinator.command(Configure(incarnation=2, id=1, settings=settings))
            coordinator.command(Stop(incarnation=2, id=2, oldest=1, seq=6))
            assert await coordinator.ended() == EXIT_OK
            bye = await coordinator.wait_for(Bye)
            assert bye.account == TickAccount(base=0, run=1)
            assert bye.stopped_at in (None, 1), "it took no tick after the first"
            assert "pause" not in processor.calls

    run(scenario())


def test_a_failed_tick_has_the_connection_checked_once_for_failures_in_a_row() -> None:
    class Sender(Feed):
        checks = 0
        check_now = None  # type: ignore[assignment]  # whatever a class makes of it

        def __init__(self) -> None:
            super().__init__()
            self.check_network_interval = 100.0

        async def check_network(self) -> NetworkStatus:
            self.checks += 1
            return await super().check_network()

        def tick(self, timestamp: float) -> None:
            if timestamp != 40.0:
                raise ConnectionResetError("closed")

    async def scenario() -> None:
        processor = Sender()
        async with hosting(processor) as coordinator:
            await coordinator.welcome()
            await coordinator.wait_for(
                Status, lambda status: status.network is NetworkStatus.CONNECTED
            )
            await turns()
            assert processor.checks == 2, "one before the start, one after it"
            for seq, checks in ((1, 3), (2, 3), (3, 3), (4, 3)):
                coordinator.tick(seq)
                await coordinator.run_to(TickAccount(base=0, run=seq))
                await asyncio.sleep(CLOSEST_CHECKS)  # a check that was asked for comes by then
                await turns()
                assert processor.checks == checks
            processor.up = False
            coordinator.tick(5)
            await coordinator.wait_for(
                Status, lambda status: status.network is NetworkStatus.DISCONNECTING
            )

    run(scenario())


class Holds(Noted):
    """Its state is the number of its ticks."""

    snapshot_interval = 0.01
    mirrored = ("size", "missing")

    def __init__(self) -> None:
        super().__init__()
        self.size = 0

    def snapshot(self) -> list[int]:
        self.note("snapshot")
        return [self.size]

    def restore(self, state: list[int]) -> None:
        self.note("restore")
        (self.size,) = state
        if self.size < 0:
            raise ValueError("never negative")

    async def async_tick(self, timestamp: float) -> None:
        self.size += 1
        await super().async_tick(timestamp)


def states(coordinator: Coordinator) -> list[list[int]]:
    return [msgspec.msgpack.decode(part.data) for part in coordinator.got(StatePart)]


def test_a_snapshot_is_taken_regularly_between_ticks_and_before_the_stop() -> None:
    async def scenario() -> None:
        processor = Holds()
        gate = asyncio.Event()
        processor.behave = lambda timestamp: gate.wait()
        async with hosting(processor) as coordinator:
            await coordinator.welcome()
            await coordinator.wait_for(StatePart, count=3)
            coordinator.tick(1)
            await coordinator.board.until(lambda: processor.size == 1)
            await coordinator.wait_for(Beat, count=len(coordinator.got(Beat)) + 3)
            assert states(coordinator)[-1] == [0], "a tick runs"
            gate.set()
            await coordinator.wait_for(StatePart, lambda part: part.data == b"\x91\x01")
            coordinator.tick(2)
            await coordinator.stop(2)
            assert states(coordinator)[-1] == [2]
            assert processor.notes[-3:] == ["snapshot", "stop", "await_cleanup"]
            assert [part.serial for part in coordinator.got(StatePart)] == list(
                range(1, len(states(coordinator)) + 1)
            )

    run(scenario())


def test_no_snapshot_is_taken_at_a_stop_that_does_not_wait_for_a_tick() -> None:
    async def scenario() -> None:
        processor = Holds()
        processor.snapshot_interval = 100.0
        processor.behave = lambda timestamp: asyncio.sleep(100.0)
        async with hosting(processor, timeout=200.0, stop_grace=0.1) as coordinator:
            await coordinator.welcome()
            coordinator.tick(1)
            await coordinator.board.until(lambda: processor.size == 1)
            await coordinator.stop(1)
            assert states(coordinator) == []

    run(scenario())


@pytest.mark.parametrize("size", [7, -7])
def test_a_snapshot_is_restored_before_the_start_or_another_object_starts(size: int) -> None:
    made: list[Holds] = []

    def make() -> Holds:
        made.append(Holds())
        return made[-1]

    async def scenario() -> None:
        coordinator = Coordinator(make, state=SavedState(0, 0.0, msgspec.msgpack.encode([size])))
        coordinator.begin()
        await coordinator.welcome()
        await coordinator.stop(0)
        assert [report.is_over for report in coordinator.got(Restoring)] == [False, True]
        if size > 0:
            assert made[0].notes[:2] == ["restore", "start"]
            assert coordinator.got(Failure, lambda failure: failure.hook == "restore") == []
        else:
            (failure,) = coordinator.got(Failure, lambda failure: failure.hook == "restore")
            assert (failure.message, failure.fatal) == ("never negative", False)
            assert made[0].notes == ["restore"]
            assert made[0]._host is None
            assert made[1].notes[0] == "start"
        assert states(coordinator)[-1] == [max(0, size)]

    run(scenario())


@pytest.mark.parametrize("error", [ValueError("no"), Bang("no")])
def test_a_snapshot_that_fails_is_reported_and_tried_again(error: BaseException) -> None:
    class Fails(Holds):
        def snapshot(self) -> list[int]:
            if self.size == 0:
                raise error
            return [self.size]

    async def scenario() -> None:
        async with hosting(Fails()) as coordinator:
            await coordinator.welcome()
            await coordinator.wait_for(Failure, lambda failure: failure.hook == "snapshot", count=2)
            coordinator.tick(1)
            assert (await coordinator.wait_for(StatePart)).serial == 1

    run(scenario())


def test_mirrored_attributes_come_with_the_beats() -> None:
    async def scenario() -> None:
        async with hosting(Holds()) as coordinator:
            await coordinator.welcome()
            coordinator.tick(1)
            await coordinator.run_to(TickAccount(base=0, run=1))
            await coordinator.wait_for(Beat, count=len(coordinator.got(Beat)) + 2)
            mirrored = coordinator.got(Beat)[-1].mirrored
            assert {name: decoded(value) for name, value in mirrored.items()} == {"size": 1}
            assert coordinator.got(Failure) == []

    run(scenario())


def test_attributes_are_reported_when_asked_for_and_at_the_stop() -> None:
    async def scenario() -> None:
        async with hosting(Holds()) as coordinator:
            await coordinator.welcome()
            coordinator.tick(1)
            coordinator.command(SendAttributes(incarnation=2, id=1, request=5))
            answer = await coordinator.wait_for(Attributes)
            assert (answer.request, answer.is_last) == (5, True)
            assert decoded(answer.values["size"]) == 1
            await coordinator.stop(2)
            last = coordinator.got(Attributes)[-1]
            assert (last.request, last.is_last) == (0, True)

    run(scenario())
