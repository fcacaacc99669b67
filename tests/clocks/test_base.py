"""A clock's context: entering, leaving, shutting down, and the events on the way."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from chronopype_mp.clocks import (
    CLOCK_REGISTRY,
    ClockMode,
    ClockStartEvent,
    ClockStopEvent,
    ClockTickEvent,
    RealtimeClock,
    get_clock_class,
)
from chronopype_mp.clocks.config import ClockConfig
from chronopype_mp.coordinator.dossiers import DossierFiles
from chronopype_mp.core.policy import Supervision
from chronopype_mp.core.restart import RestartBudget
from chronopype_mp.core.worker_events import (
    DeathReason,
    Event,
    ProcessorFailed,
    WorkerBackingOff,
    WorkerDied,
    WorkerReady,
    WorkerStarting,
    WorkerStatus,
    WorkerStopped,
    WorkerStopping,
)
from chronopype_mp.exceptions import (
    ClockContextError,
    ClockError,
    ConfigError,
    ProcessorError,
    ProcessorTimeoutError,
)
from chronopype_mp.launchers import InlineLauncher, SpawnLauncher
from chronopype_mp.processors import ProcessorSpec, TickProcessor
from chronopype_mp.timing import SYSTEM_TIME
from tests.clocks.bench import WALL, Bench, Scribe, alive
from tests.waiting import run, turns


class Stubborn(Scribe):
    """Never stops by itself."""

    async def await_cleanup(self) -> None:
        await super().await_cleanup()
        await asyncio.Event().wait()


class Careful(Scribe):
    """Stops when the test lets it."""

    def __init__(self) -> None:
        super().__init__()
        self.may_end: asyncio.Event | None = None

    def start(self, timestamp: float) -> None:
        super().start(timestamp)
        self.may_end = asyncio.Event()

    async def await_cleanup(self) -> None:
        assert self.may_end is not None
        await self.may_end.wait()
        await super().await_cleanup()


class Hanging(TickProcessor):
    """Never ends a tick."""

    async def async_tick(self, timestamp: float) -> None:
        await asyncio.Event().wait()


class OwnTimeout(TickProcessor):
    """Runs into a timeout of its own."""

    async def async_tick(self, timestamp: float) -> None:
        raise TimeoutError("the exchange did not answer")


class Exhausted(TickProcessor):
    """Fails with an exception that no future can hold."""

    def tick(self, timestamp: float) -> None:
        raise StopIteration("no more prices")


def broken() -> TickProcessor:
    """Stand for a target that fails."""
    raise LookupError("no such exchange")


async def until_dead(bench: Bench) -> WorkerDied:
    return await bench.events.wait_for(WorkerDied)


# What a clock is made of


def test_the_registry_has_the_class_of_each_mode() -> None:
    assert get_clock_class(ClockMode.REALTIME) is CLOCK_REGISTRY[ClockMode.REALTIME]
    assert get_clock_class(ClockMode.REALTIME) is RealtimeClock
    with pytest.raises(ValueError, match="No clock implementation"):
        get_clock_class("realtime")  # type: ignore[arg-type]


def test_the_settings_can_be_read_off_the_clock() -> None:
    config = ClockConfig(clock_mode=ClockMode.REALTIME, tick_size=0.5, start_time=7.0, end_time=9.0)
    clock = RealtimeClock(config, launcher="inline")
    assert clock.config is config
    assert (clock.clock_mode, clock.tick_size) == (ClockMode.REALTIME, 0.5)
    assert (clock.start_time, clock.end_time) == (7.0, 9.0)
    assert clock.name == "RealtimeClock"
    assert RealtimeClock(config, launcher="inline", name="market").name == "market"
    with pytest.raises(AttributeError):
        clock.tick_size = 1.0  # type: ignore[misc]


def test_the_launcher_may_be_an_object_a_name_or_in_the_environment(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    config = ClockConfig(clock_mode=ClockMode.REALTIME)
    launcher = InlineLauncher()
    assert RealtimeClock(config, launcher=launcher)._launcher is launcher
    monkeypatch.setenv("CHRONOPYPE_MP_LAUNCHER", "spawn")
    assert isinstance(RealtimeClock(config)._launcher, SpawnLauncher)
    assert isinstance(RealtimeClock(config, launcher="inline")._launcher, InlineLauncher)
    monkeypatch.setenv("CHRONOPYPE_MP_LAUNCHER", "inlin")
    with pytest.raises(ConfigError, match=r"CHRONOPYPE_MP_LAUNCHER = 'inlin'.*forkserver"):
        RealtimeClock(config)


# Entering and leaving


def test_a_clock_can_be_entered_once_at_a_time_and_left_only_then() -> None:
    async def scenario() -> None:
        clock = Bench().clock
        with pytest.raises(ClockContextError, match="Clock is not in a context"):
            await clock.__aexit__(None, None, None)
        async with clock as entered:
            assert entered is clock
            assert clock.is_in_context
            with pytest.raises(ClockContextError, match="already in a context"):
                await clock.__aenter__()
            assert clock.is_in_context
        assert not clock.is_in_context
        with pytest.raises(ClockContextError, match="Clock is not in a context"):
            await clock.__aexit__(None, None, None)

    run(scenario())


def test_a_clock_that_was_left_can_be_entered_again_and_counts_from_zero() -> None:
    async def scenario() -> None:
        bench = Bench()
        scribe = Scribe()
        handle = bench.clock.add_processor(scribe)
        async with bench.clock, bench.running():
            await bench.ready()
            await bench.tick(3)
        assert (bench.clock.tick_counter, bench.clock.current_timestamp) == (3, WALL + 3)
        assert (handle.status, handle.pid) == (WorkerStatus.STOPPED, None)
        bench.time.advance(10.5)
        async with bench.clock:
            assert (bench.clock.tick_counter, bench.clock.current_timestamp) == (0, WALL + 13)
            await bench.ready()
            assert handle.incarnation == 1
            async with bench.running():
                bench.time.advance(0.5)
                await bench.until(lambda: len(bench.ticks) == 4)
        assert scribe.ticks == [WALL + 1, WALL + 2, WALL + 3, WALL + 14]
        assert handle.statistics().run == 1

    run(scenario())


def test_entering_does_not_wait_for_the_workers() -> None:
    async def scenario() -> None:
        bench = Bench()
        handle = bench.clock.add_processor(Scribe())
        async with bench.clock:
            assert handle.status is WorkerStatus.STARTING
            assert bench.clock.get_active_processors() == []
            await handle.wait_ready()
            assert len(bench.clock.get_active_processors()) == 1

    run(scenario())


def test_a_short_run_tells_its_story_in_order() -> None:
    async def scenario() -> None:
        bench = Bench()
        scribe = Scribe()
        bench.clock.add_processor(scribe, name="a")
        async with bench.clock, bench.running():
            await bench.ready()
            await bench.tick(2)
        story = [
            ClockStartEvent,
            WorkerStarting,
            WorkerReady,
            WorkerStopping,
            WorkerStopped,
            ClockStopEvent,
        ]
        assert [type(event) for event in bench.events.events] == story
        assert scribe.notes == ["start", "tick", "tick", "stop", "await_cleanup"]
        start, stop = bench.events.events[0], bench.events.events[-1]
        assert start == ClockStartEvent(
            at=WALL, timestamp=WALL, mode=ClockMode.REALTIME, tick_size=1.0
        )
        assert isinstance(stop, ClockStopEvent)
        assert (stop.at, stop.timestamp, stop.total_ticks) == (WALL + 2, WALL + 2, 2)
        assert stop.final_states == {scribe: scribe.state}
        assert stop.final_states[scribe].total_ticks == 2

    run(scenario())


def test_events_carry_the_wall_clocks_time() -> None:
    async def scenario() -> None:
        bench = Bench()
        async with bench.clock:
            bench.time.advance(2.5)
            handle = bench.clock.add_processor(Scribe())
            await handle.wait_ready()
        assert [event.at for event in bench.events.of(WorkerReady)] == [WALL + 2.5]

    run(scenario())


def test_after_an_exception_the_workers_are_stopped_and_no_stop_event_comes() -> None:
    async def scenario() -> None:
        bench = Bench()
        scribe = Scribe()
        bench.clock.add_processor(scribe)

        async def visit() -> None:
            async with bench.clock, bench.running():
                await bench.ready()
                await bench.tick(1)
                raise KeyError("mine")

        with pytest.raises(KeyError, match="mine"):
            await visit()
        assert scribe.notes == ["start", "tick", "stop", "await_cleanup"]
        assert bench.events.of(ClockStopEvent) == []
        assert not bench.clock.is_in_context
        async with bench.clock:
            await bench.ready()

    run(scenario())


def test_iterating_the_events_ends_with_the_clocks() -> None:
    async def scenario() -> None:
        bench = Bench()
        followed: list[Event] = []

        async def follow() -> None:
            followed.extend([event async for event in bench.clock.events])

        follower = asyncio.create_task(follow())
        await turns()
        async with bench.clock:
            pass
        await follower
        assert [type(event) for event in followed] == [ClockStartEvent, ClockStopEvent]

    run(scenario())


def test_an_exit_that_is_cancelled_kills_who_has_not_stopped() -> None:
    async def scenario() -> None:
        bench = Bench()
        stubborn = Stubborn()
        handle = bench.clock.add_processor(stubborn)

        async def visit() -> None:
            async with bench.clock:
                await handle.wait_ready()

        visitor = asyncio.create_task(visit())
        await bench.until(lambda: "await_cleanup" in stubborn.notes)
        visitor.cancel()
        await asyncio.wait({visitor})
        assert visitor.cancelled()
        assert not bench.clock.is_in_context
        assert bench.events.of(ClockStopEvent) == []

    run(scenario())


# Shutting down


def test_a_shutdown_of_a_clock_that_is_not_entered_does_nothing() -> None:
    async def scenario() -> None:
        bench = Bench()
        await bench.clock.shutdown()
        async with bench.clock:
            pass
        await bench.clock.shutdown()
        assert bench.kinds == ["ClockStartEvent", "ClockStopEvent"]

    run(scenario())


def test_a_shutdown_ends_the_run_and_the_exit_that_follows_tells_nothing_more() -> None:
    async def scenario() -> None:
        bench = Bench()
        scribe = Scribe()
        bench.clock.add_processor(scribe)
        async with bench.clock:
            running = asyncio.create_task(bench.clock.run())
            await bench.ready()
            await bench.tick(1)
            await bench.clock.shutdown()
            await running
            assert scribe.notes[-2:] == ["stop", "await_cleanup"]
            assert bench.clock.is_in_context
            with pytest.raises(ClockContextError, match="must be started in a context"):
                await bench.clock.run()
            await bench.clock.shutdown()
        assert len(bench.events.of(ClockStopEvent)) == 1

    run(scenario())


def test_a_shutdown_kills_who_has_not_stopped_in_time() -> None:
    async def scenario() -> None:
        bench = Bench()
        scribe, stubborn = Scribe(), Stubborn()
        bench.clock.add_processor(scribe)
        handle = bench.clock.add_processor(stubborn, name="stubborn")
        async with bench.clock:
            await bench.ready()
            await bench.clock.shutdown(timeout=0.05)
            assert handle.status is WorkerStatus.STOPPED
        assert [event.worker for event in bench.events.of(WorkerDied)] == ["stubborn"]
        assert scribe.notes[-1] == "await_cleanup"
        assert len(bench.events.of(ClockStopEvent)) == 1

    run(scenario())


def test_leaving_waits_for_a_shutdown_that_another_task_has_begun() -> None:
    async def scenario() -> None:
        bench = Bench()
        careful = Careful()
        bench.clock.add_processor(careful)
        followed: list[Event] = []

        async def follow() -> None:
            followed.extend([event async for event in bench.clock.events])

        async def visit() -> None:
            async with bench.clock:
                await bench.clock.run()

        follower, visitor = asyncio.create_task(follow()), asyncio.create_task(visit())
        await bench.events.wait_for(WorkerReady)
        # As a signal handler would do it: the run ends, and with it the context.
        shutdown = asyncio.create_task(bench.clock.shutdown())
        await bench.until(lambda: "stop" in careful.notes)
        await turns()
        assert not visitor.done()
        assert careful.may_end is not None
        careful.may_end.set()
        await visitor
        await shutdown
        await follower
        assert careful.notes[-1] == "await_cleanup"
        assert bench.events.of(WorkerDied) == []
        assert isinstance(followed[-1], ClockStopEvent)

    run(scenario())


def test_a_shutdown_with_a_deadline_hurries_one_without() -> None:
    async def scenario() -> None:
        bench = Bench()
        stubborn = Stubborn()
        bench.clock.add_processor(stubborn)
        async with bench.clock:
            await bench.ready()
            patient = asyncio.create_task(bench.clock.shutdown())
            await bench.until(lambda: "await_cleanup" in stubborn.notes)
            await bench.clock.shutdown(timeout=0.0)
            await patient
        assert len(bench.events.of(WorkerDied)) == 1
        assert len(bench.events.of(ClockStopEvent)) == 1

    run(scenario())


# Failures


def test_the_error_callback_gets_the_object_and_an_exception_of_the_same_type() -> None:
    async def scenario() -> None:
        bench = Bench()
        good, bad = Scribe("good"), Scribe("bad", fails=("tick",))
        for processor in (bad, good):
            bench.clock.add_processor(processor)
        async with bench.clock, bench.running():
            await bench.ready()
            await bench.tick(1)
            await bench.until(lambda: len(bench.failed) == 1)
            ((processor, error),) = bench.failed
            assert processor is bad
            assert isinstance(error, ValueError)
            assert isinstance(error, ProcessorError)
            assert error.__cause__ is bad.failure
            await bench.tick(2)
        assert [processor for processor, _ in bench.failed] == [bad, bad, bad]
        assert good.ticks == bad.ticks == [WALL + 1, WALL + 2, WALL + 3]
        (first, *_) = bench.events.of(ProcessorFailed)
        assert (first.worker, first.hook, first.timestamp) == ("Scribe", "async_tick", WALL + 1)

    run(scenario())


def test_what_the_error_callback_raises_is_logged_and_goes_no_further(
    caplog: pytest.LogCaptureFixture,
) -> None:
    async def scenario() -> None:
        bench = Bench()

        def fail(processor: object, error: BaseException) -> None:
            raise RuntimeError("the callback is broken too")

        bench.clock._error_callback = fail
        bad = Scribe(fails=("tick",))
        bench.clock.add_processor(bad)
        async with bench.clock, bench.running():
            await bench.ready()
            await bench.tick(2)
        assert len(bad.ticks) == 2

    with caplog.at_level(logging.ERROR):
        run(scenario())
    assert "the callback is broken too" in caplog.text


def test_a_tick_is_tried_again_before_it_has_failed() -> None:
    async def scenario() -> None:
        bench = Bench(max_retries=1)
        bad = Scribe(fails=("tick",))
        bench.clock.add_processor(bad)
        async with bench.clock, bench.running():
            await bench.ready()
            await bench.tick(1)
            await bench.until(lambda: len(bench.failed) == 1)
        assert bad.ticks == [WALL + 1, WALL + 1]
        assert (bad.state.error_count, bad.state.max_consecutive_retries) == (1, 2)

    run(scenario())


def test_a_tick_that_takes_too_long_is_a_timeout_that_says_how_long() -> None:
    async def scenario() -> None:
        bench = Bench(processor_timeout=0.05)
        hanging = Hanging()
        bench.clock.add_processor(hanging, name="a")
        async with bench.clock, bench.running():
            await bench.ready()
            await bench.tick(1)
            await bench.until(lambda: len(bench.failed) == 1)
        ((processor, error),) = bench.failed
        assert processor is hanging
        assert isinstance(error, ProcessorTimeoutError)
        assert error.worker == "a"
        assert "timed out after 0.05s" in str(error)
        assert hanging.state.last_error == "timed out after 0.05s"

    run(scenario())


def test_a_processors_own_timeout_is_not_the_clocks() -> None:
    async def scenario() -> None:
        bench = Bench()
        bench.clock.add_processor(OwnTimeout())
        async with bench.clock, bench.running():
            await bench.ready()
            await bench.tick(1)
        ((_, error),) = bench.failed
        assert isinstance(error, TimeoutError)
        assert isinstance(error, ProcessorError)
        assert not isinstance(error, ProcessorTimeoutError)
        assert error.message == "the exchange did not answer"

    run(scenario())


def test_with_on_error_raise_a_run_ends_with_the_failure_and_can_be_repeated() -> None:
    async def scenario() -> None:
        bench = Bench(on_error="raise")
        bad = Scribe("bad", fails=("tick",))
        bench.clock.add_processor(bad)
        async with bench.clock:
            running = asyncio.create_task(bench.clock.run())
            await turns()
            await bench.tick(1)
            with pytest.raises(ValueError, match="tick of bad") as caught:
                await running
            assert caught.value.__cause__ is bad.failure
            assert bench.failed == [(bad, caught.value)]
            assert bench.clock.is_in_context
            assert not bench.clock.is_running
            bad.fails = ()
            async with bench.running():
                await bench.tick(2)
            assert bad.ticks == [WALL + 1, WALL + 2, WALL + 3]
        assert len(bench.events.of(ClockStopEvent)) == 1

    run(scenario())


def test_what_fails_between_two_runs_is_raised_by_the_next_one_once() -> None:
    async def scenario() -> None:
        bench = Bench(on_error="raise")
        bad = Scribe("bad", fails=("pause",))
        bench.clock.add_processor(bad)
        async with bench.clock:
            bench.clock.pause_processor(bad)
            await bench.events.wait_for(ProcessorFailed)
            with pytest.raises(ValueError, match="pause of bad"):
                await bench.clock.run_til(WALL)
            await bench.clock.run_til(WALL)

    run(scenario())


@pytest.mark.parametrize("budget", [RestartBudget(), RestartBudget(max_restarts=0)])
def test_with_on_error_raise_a_failing_start_undoes_the_entry(budget: RestartBudget) -> None:
    async def scenario() -> None:
        bench = Bench(on_error="raise", supervision=Supervision(budget=budget))
        good, bad = Scribe("good"), Scribe("bad", fails=("start",))
        bench.clock.add_processor(good)
        bench.clock.add_processor(bad, name="b")
        with pytest.raises(ClockError, match="Failed to start processor 'b'") as caught:
            await bench.clock.__aenter__()
        cause = caught.value.__cause__
        assert isinstance(cause, ValueError)
        assert isinstance(cause, ProcessorError)
        assert cause.message == "start of bad"
        assert good.notes == ["start", "stop", "await_cleanup"]
        assert bad.notes == ["start", "stop"]
        assert not bench.clock.is_in_context
        assert all(handle.status is WorkerStatus.STOPPED for handle in bench.clock.workers)
        assert bench.events.of(ClockStopEvent) == []
        bad.fails = ()
        async with bench.clock, bench.running():
            await bench.tick(1)
        assert bad.ticks == good.ticks == [WALL + 1]

    run(scenario())


def test_with_on_error_raise_entering_waits_until_all_are_ready() -> None:
    async def scenario() -> None:
        bench = Bench(on_error="raise")
        handles = [bench.clock.add_processor(Scribe()) for _ in range(3)]
        async with bench.clock:
            assert [handle.status for handle in handles] == [WorkerStatus.READY] * 3

    run(scenario())


def test_a_target_that_fails_is_a_failing_start() -> None:
    async def scenario() -> None:
        bench = Bench(on_error="raise")
        bench.clock.add_processor(ProcessorSpec(target=broken))
        with pytest.raises(ClockError, match="Failed to start processor 'broken'") as caught:
            await bench.clock.__aenter__()
        cause = caught.value.__cause__
        assert isinstance(cause, LookupError)
        assert isinstance(cause, ProcessorError)
        assert cause.message == "no such exchange"

    run(scenario())


def test_with_on_error_continue_a_failing_start_is_retried_while_the_others_go_on() -> None:
    async def scenario() -> None:
        bench = Bench()
        good, bad = Scribe("good"), Scribe("bad", fails=("start",))
        bench.clock.add_processor(good)
        handle = bench.clock.add_processor(bad, name="b")
        async with bench.clock, bench.running():
            died = await until_dead(bench)
            assert (died.worker, died.reason) == ("b", DeathReason.START_FAILED)
            assert died.error is not None
            assert "start of bad" in died.error
            # The first restart is immediate, the second waits.
            await bench.events.wait_for(WorkerDied, count=2)
            await bench.events.wait_for(WorkerBackingOff, worker="b", count=2)
            assert handle.status is WorkerStatus.BACKOFF
            assert [processor for processor, _ in bench.failed] == [bad, bad]
            await bench.tick(2)
            await bench.events.wait_for(WorkerDied, count=3)
        assert good.ticks == [WALL + 1, WALL + 2]
        assert [one.name for one in alive()].count("bad") >= 2
        assert len(bench.events.of(ClockStopEvent)) == 1

    run(scenario())


# Sinks that raise


class Odd(BaseException):
    """Is no `Exception`."""


class BrokenHandler(logging.Handler):
    """A handler that raises, as a user's may."""

    def handle(self, record: logging.LogRecord) -> bool:
        raise Odd("the log")


def test_sinks_that_raise_affect_neither_each_other_nor_the_supervision(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    called: list[str] = []

    def odd(what: str) -> Callable[..., None]:
        def sink(*args: object) -> None:
            called.append(what)
            raise Odd(what)

        return sink

    async def scenario() -> None:
        bench = Bench(supervision=Supervision(budget=RestartBudget(max_restarts=0)))
        clock = bench.clock
        clock._dossiers = DossierFiles(str(tmp_path))
        monkeypatch.setattr(clock._dossiers, "write", odd("dossier"))
        clock._error_callback = odd("error callback")
        clock.add_subscriber_with_callback(clock.start_publication, odd("subscriber"))
        clock.events.subscribe(odd("event callback"), WorkerDied)
        followed: list[Event] = []
        clock.events.subscribe(followed.append, WorkerDied)
        good, bad = Scribe("good"), Scribe("bad", fails=("start",))
        clock.add_processor(good)
        handle = clock.add_processor(bad, name="b")
        async with clock, bench.running():
            await until_dead(bench)
            await bench.until(lambda: handle.status is WorkerStatus.QUARANTINED)
            await clock.workers[0].wait_ready()
            await bench.tick(1)
        assert good.ticks == [WALL + 1]
        assert len(followed) == 1

    logger = logging.getLogger("chronopype_mp.events")
    handler = BrokenHandler()
    logger.addHandler(handler)
    try:
        run(scenario())
    finally:
        logger.removeHandler(handler)
    assert sorted(set(called)) == ["dossier", "error callback", "event callback", "subscriber"]


def test_an_exit_from_a_callback_ends_the_program_after_an_orderly_stop(
    caplog: pytest.LogCaptureFixture,
) -> None:
    bench = Bench()
    scribe = Scribe()
    bench.clock.add_processor(scribe)

    def leave(event: Event) -> None:
        raise SystemExit(type(event).__name__)

    # At the second event the workers are being stopped already.
    bench.clock.events.subscribe(leave, WorkerReady, WorkerStopping)

    async def scenario() -> None:
        async with bench.clock:
            await bench.clock.run()

    with pytest.raises(SystemExit, match="WorkerReady"):
        asyncio.run(scenario())
    assert scribe.notes == ["start", "stop", "await_cleanup"]
    assert not bench.clock.is_in_context
    (record,) = [record for record in caplog.records if record.levelno >= logging.ERROR]
    assert "event callback failed" in record.getMessage()


def test_an_exit_from_a_callback_ends_the_program_without_a_run_too() -> None:
    bench = Bench()

    def leave(event: ClockStartEvent) -> None:
        raise SystemExit(3)

    bench.clock.add_subscriber_with_callback(bench.clock.start_publication, leave, False)

    async def scenario() -> None:
        async with bench.clock:
            await asyncio.Event().wait()

    for _ in range(2):  # an exit that was survived does not hide the next
        with pytest.raises(SystemExit):
            asyncio.run(scenario())
        assert not bench.clock.is_in_context


# Failures of the machinery


@pytest.mark.parametrize("on_error", ["continue", "raise"])
def test_a_failure_of_the_machinery_ends_the_run_whatever_on_error_is(on_error: str) -> None:
    async def scenario() -> None:
        bench = Bench(on_error=on_error)
        failure = RuntimeError("the watch over deadlines has ended")
        async with bench.clock as clock:
            running = asyncio.create_task(clock.run())
            await bench.tick(1)
            clock._machinery_failed(failure)
            clock._machinery_failed(RuntimeError("a consequence"))
            for attempt in (running, clock.run(), clock.run_til(WALL + 5)):
                with pytest.raises(RuntimeError, match="deadlines") as caught:
                    await attempt
                assert caught.value is failure
                assert not clock.is_running
            assert any("leave its context and enter it again" in n for n in failure.__notes__)
        async with bench.clock, bench.running():
            await bench.tick(1)

    run(scenario())


def test_a_failure_of_the_machinery_without_a_run_is_raised_by_the_next() -> None:
    async def scenario() -> None:
        bench = Bench()
        async with bench.clock as clock:
            clock._machinery_failed(KeyError("inbox"))
            with pytest.raises(KeyError, match="inbox"):
                await clock.run_til(WALL + 5)
            assert clock.tick_counter == 0

    run(scenario())


def test_a_failure_of_the_machinery_undoes_an_entry_that_waits() -> None:
    async def scenario() -> None:
        bench = Bench(on_error="raise")
        handle = bench.clock.add_processor(ProcessorSpec(target=Scribe))
        failure = RuntimeError("the watch over deadlines has ended")

        def fail(event: Event) -> None:
            bench.clock._machinery_failed(failure)

        bench.clock.events.subscribe(fail, WorkerStarting)
        with pytest.raises(RuntimeError) as caught:
            await bench.clock.__aenter__()
        assert caught.value is failure
        assert not bench.clock.is_in_context
        assert handle.status is WorkerStatus.STOPPED

    run(scenario())


def test_a_failure_that_no_future_can_hold_ends_the_run() -> None:
    async def scenario() -> None:
        bench = Bench(on_error="raise")
        bad = Exhausted()
        bench.clock.add_processor(bad)
        async with bench.clock as clock:
            running = asyncio.create_task(clock.run())
            await turns()
            await bench.tick(1)
            with pytest.raises(ProcessorError, match="no more prices") as caught:
                await running
            assert isinstance(caught.value.__cause__, StopIteration)

    run(scenario())


# Entering


def test_a_processor_that_is_removed_during_an_entry_is_not_waited_for() -> None:
    async def scenario() -> None:
        bench = Bench(on_error="raise")
        first, second, third = Scribe("first"), Scribe("second"), Scribe("third")
        for processor in (first, second):
            bench.clock.add_processor(processor, name=processor.name)

        def swap(event: Event) -> None:
            if second in bench.clock.processors:
                bench.clock.remove_processor(second)
                bench.clock.add_processor(third, name="third")

        bench.clock.events.subscribe(swap, WorkerStarting)
        async with bench.clock:
            assert bench.clock.processors == [first, third]
            statuses = [handle.status for handle in bench.clock.workers]
            assert statuses == [WorkerStatus.READY] * 2
        assert second.notes == []

    run(scenario())


def test_one_that_is_removed_as_it_starts_does_not_keep_the_next_from_starting() -> None:
    async def scenario() -> None:
        bench = Bench()
        first, second = Scribe("first"), Scribe("second")
        for processor in (first, second):
            bench.clock.add_processor(processor, name=processor.name)

        def remove(event: Event) -> None:
            if first in bench.clock.processors:
                bench.clock.remove_processor(first)

        bench.clock.events.subscribe(remove, WorkerStarting)
        async with bench.clock:
            await bench.ready()
            assert [handle.status for handle in bench.clock.workers] == [WorkerStatus.READY]

    run(scenario())


# Callbacks


def test_subscribers_get_the_clocks_events_with_tag_and_clock() -> None:
    async def scenario() -> None:
        bench = Bench()
        clock = bench.clock
        told: list[tuple[Any, str, object]] = []
        for publication in (
            clock.start_publication,
            clock.tick_publication,
            clock.stop_publication,
        ):
            clock.add_subscriber_with_callback(
                publication, lambda event, tag, caller: told.append((event, tag, caller))
            )
        scribe = Scribe()
        clock.add_processor(scribe)
        async with clock, bench.running():
            await bench.ready()
            await bench.tick(2)
        assert [tag for _, tag, _ in told] == ["clock_start", *["clock_tick"] * 2, "clock_stop"]
        assert all(caller is clock for _, _, caller in told)
        start, tick, _, stop = (event for event, _, _ in told)
        assert (start, stop) == (bench.events.events[0], bench.events.events[-1])
        assert tick == ClockTickEvent(
            at=WALL + 1, timestamp=WALL + 1, tick_counter=1, processors=[scribe]
        )
        assert bench.events.of(ClockTickEvent) == []

    run(scenario())


def test_one_may_subscribe_to_ticks_and_end_that_during_a_run() -> None:
    async def scenario() -> None:
        bench = Bench()
        clock = bench.clock
        told: list[float] = []

        def note(event: ClockTickEvent) -> None:
            told.append(event.timestamp)

        async with clock, bench.running():
            await bench.tick(1)
            clock.add_subscriber_with_callback(clock.tick_publication, note, False)
            await bench.tick(2)
            clock.remove_subscriber_with_callback(clock.tick_publication, note)
            await bench.tick(1)
        assert told == [WALL + 2, WALL + 3]

    run(scenario())


def test_the_processors_of_a_start_callback_are_started_with_the_others() -> None:
    async def scenario() -> None:
        bench = Bench()
        first, second = Scribe("first"), Scribe("second")
        bench.clock.add_processor(first)
        bench.clock.add_subscriber_with_callback(
            bench.clock.start_publication, lambda event: bench.clock.add_processor(second), False
        )
        async with bench.clock, bench.running():
            await bench.ready()
            await bench.tick(1)
        assert first.ticks == second.ticks == [WALL + 1]
        assert len(bench.events.of(WorkerStarting)) == 2

    run(scenario())


def test_the_stop_event_comes_after_the_last_tick_event() -> None:
    async def scenario() -> None:
        bench = Bench()
        told: list[str] = []
        for publication in (bench.clock.tick_publication, bench.clock.stop_publication):
            bench.clock.add_subscriber_with_callback(
                publication, lambda event, tag, caller: told.append(tag)
            )
        async with bench.clock:
            running = asyncio.create_task(bench.clock.run())
            await bench.tick(1)
            bench.time.advance(1.0)
            bench.block_until_ticked(2)
            await bench.clock.shutdown()
            await running
        assert told == ["clock_tick", "clock_tick", "clock_stop"]

    run(scenario())


def test_the_machines_time_is_the_default() -> None:
    clock = RealtimeClock(ClockConfig(clock_mode=ClockMode.REALTIME), launcher="inline")
    assert clock._timing is SYSTEM_TIME
