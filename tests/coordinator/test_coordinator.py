"""The wiring of a clock's parts, with a launcher whose processes are played by the test."""

from __future__ import annotations

import asyncio
import gc
import logging
import os
import sys
import threading
import weakref
from collections.abc import Callable
from typing import Any, NoReturn

import pytest

from chronopype_mp.clocks import ClockMode, RealtimeClock
from chronopype_mp.clocks.clock_events import ClockStartEvent
from chronopype_mp.clocks.config import ClockConfig
from chronopype_mp.clocks.registry import Member
from chronopype_mp.coordinator.coordinator import Coordinator
from chronopype_mp.coordinator.handle import WorkerHandle
from chronopype_mp.coordinator.incarnation import PATIENCE
from chronopype_mp.coordinator.record import WorkerRecord
from chronopype_mp.core.policy import Supervision
from chronopype_mp.core.worker_events import (
    DeathReason,
    Event,
    WorkerDied,
    WorkerReady,
    WorkerStarting,
    WorkerStatus,
    WorkerStopped,
    WorkerStopping,
    WorkerUnkillable,
)
from chronopype_mp.exceptions import WorkerError
from chronopype_mp.processors import TickProcessor
from chronopype_mp.testing import EventRecorder, ManualClock
from chronopype_mp.timing import SYSTEM_TIME
from tests.coordinator.unruly import Bizarre, UnrulyLauncher, UnrulyProcess
from tests.waiting import run, turns

STEP = 0.05
"""Seconds by which time is moved on."""


class Rig:
    """A clock whose launcher is an `UnrulyLauncher`; made in an event loop.

    Args:
        real_time: whether time passes by itself.
    """

    def __init__(
        self,
        *,
        real_time: bool = False,
        obeys: bool = True,
        on_error: Any = "continue",
        **policy: Any,
    ) -> None:
        self.launcher = UnrulyLauncher()
        self.launcher.obeys = obeys
        self.time = ManualClock()
        self.failed: list[tuple[Member, BaseException]] = []
        self.clock = RealtimeClock(
            ClockConfig(clock_mode=ClockMode.REALTIME, on_error=on_error),
            lambda processor, error: self.failed.append((processor, error)),
            launcher=self.launcher,
            supervision=Supervision(**policy),
            timing=SYSTEM_TIME if real_time else self.time,
        )
        self.events = EventRecorder(self.clock.events)

    @property
    def coordinator(self) -> Coordinator:
        assert self.clock._coordinator is not None
        return self.clock._coordinator

    @property
    def process(self) -> UnrulyProcess:
        return self.launcher.processes[-1]

    def add(self, name: str = "a") -> WorkerHandle:
        return self.clock.add_processor(TickProcessor(), name=name)

    async def pass_time(self, seconds: float) -> None:
        for _ in range(round(seconds / STEP) + 2):
            self.time.advance(STEP)
            await turns(8)

    def assert_nothing_left(self) -> None:
        assert all(process.end.done() for process in self.launcher.processes)
        assert not self.clock.is_in_context
        assert all(handle.status is WorkerStatus.STOPPED for handle in self.clock.workers)


def messages(caplog: pytest.LogCaptureFixture, level: int = logging.ERROR) -> list[str]:
    return [record.getMessage() for record in caplog.records if record.levelno >= level]


# Waiting for events


def test_an_event_wakes_those_who_wait_for_its_worker_and_those_who_wait_for_any() -> None:
    async def scenario() -> None:
        rig = Rig()
        async with rig.clock:
            mine, other, any_one = (rig.coordinator.next_event(key) for key in ("a", "b", None))
            rig.add("a")
            assert mine.done()
            assert any_one.done()
            assert not other.done()
            rig.add("b")
            assert other.done()

    run(scenario())


def test_who_waits_no_longer_leaves_the_list_at_once() -> None:
    async def scenario() -> None:
        rig = Rig()
        async with rig.clock:
            handle = rig.add()
            await handle.wait_ready()
            before = rig.coordinator.waiters
            waiting = [asyncio.create_task(handle.wait_stopped()) for _ in range(50)]
            await turns()
            assert rig.coordinator.waiters == before + 50
            for task in waiting:
                task.cancel()
            await asyncio.wait(waiting)
            await turns()
            assert rig.coordinator.waiters == before

    run(scenario())


# Removing


def test_workers_that_were_removed_leave_no_record_behind() -> None:
    async def scenario() -> None:
        rig = Rig()
        refs: list[weakref.ref[TickProcessor]] = []
        async with rig.clock:
            for number in range(50):
                processor = TickProcessor()
                refs.append(weakref.ref(processor))
                handle = rig.clock.add_processor(processor, name=f"worker {number}")
                del processor
                await handle.wait_ready()
                rig.clock.remove_processor(handle)
                await handle.wait_stopped()
            assert rig.coordinator._records == {}
            assert rig.coordinator._supervisor._workers == {}
            del handle
            await turns()
            gc.collect()
            assert not [ref for ref in refs if ref() is not None]

    run(scenario())


def test_a_removed_worker_shows_its_figures_and_keeps_no_payload() -> None:
    async def scenario() -> None:
        rig = Rig()
        async with rig.clock:
            handle = rig.add()
            record: WorkerRecord = rig.coordinator._records["a"]
            await handle.wait_ready()
            await handle.restart()
            assert record.payload
            rig.clock.remove_processor(handle)
            await handle.wait_stopped()
            assert record.payload == b""
            assert (handle.status, handle.incarnation, handle.restarts, handle.pid) == (
                WorkerStatus.STOPPED,
                2,
                1,
                None,
            )
            assert handle.statistics().restarts == 1
            # The name is free, and means another worker now.
            again = rig.add()
            await again.wait_ready()
            assert (again.incarnation, handle.incarnation) == (1, 2)
            for ask in (handle.wait_ready, handle.restart):
                with pytest.raises(WorkerError, match="removed"):
                    await ask()
            await handle.wait_stopped()

    run(scenario())


def test_a_worker_that_is_removed_while_it_is_waited_for_will_not_become_ready() -> None:
    async def scenario() -> None:
        rig = Rig(obeys=False)
        async with rig.clock:
            handle = rig.add()
            waiting = asyncio.create_task(handle.wait_ready())
            await turns()
            rig.clock.remove_processor(handle)
            with pytest.raises(WorkerError, match="STOPPED"):
                await waiting

    run(scenario())


# A launcher that fails


def test_a_worker_whose_launcher_cannot_wait_dies_and_is_started_again(
    caplog: pytest.LogCaptureFixture,
) -> None:
    async def scenario() -> None:
        rig = Rig()
        rig.launcher.hangs.add("wait")
        async with rig.clock:
            handle = rig.add()
            await handle.wait_ready()
            rig.process.end.set_exception(ChildProcessError("no child"))
            rig.launcher.release()
            death = await rig.events.wait_for(WorkerDied, worker="a")
            assert "wait() failed: ChildProcessError: no child" in (death.detail or "")
            rig.time.advance(0.2)  # the first restart comes with the next look at the deadlines
            await rig.events.wait_for(WorkerReady, worker="a", incarnation=2)
            await handle.restart()
            assert (handle.status, handle.incarnation) == (WorkerStatus.READY, 3)
            rig.clock.remove_processor(handle)
            await handle.wait_stopped()

    run(scenario())
    assert "wait() of worker 'a' (incarnation 1) failed" in messages(caplog)


@pytest.mark.parametrize("method", ["start", "wait", "clean_up"])
@pytest.mark.parametrize("error", [OSError("no"), asyncio.CancelledError("no"), Bizarre("no")])
def test_the_policy_of_a_worker_goes_on_whatever_its_launcher_raises(
    method: str, error: BaseException
) -> None:
    async def scenario() -> None:
        rig = Rig()
        rig.launcher.faults[method] = error
        async with rig.clock:
            handle = rig.add()
            if method == "clean_up":
                await handle.wait_ready()
                rig.process.exit(1)
            death = await rig.events.wait_for(WorkerDied, worker="a")
            where = death.error if method == "start" else death.detail
            cancelled = isinstance(error, asyncio.CancelledError) and method != "clean_up"
            assert ("was cancelled" if cancelled else "no") in (where or "")
            del rig.launcher.faults[method]
            while handle.status is not WorkerStatus.READY:
                await rig.pass_time(0.5)
            assert handle.incarnation >= 2
        rig.assert_nothing_left()

    run(scenario())


def test_an_unkillable_worker_is_named_with_its_pid_even_if_it_never_got_ready() -> None:
    async def scenario() -> None:
        rig = Rig(obeys=False, start_timeout=1.0)
        rig.launcher.faults["kill"] = PermissionError("not yours")
        async with rig.clock:
            handle = rig.add()
            while not (unkillable := rig.events.of(WorkerUnkillable, worker="a")):
                await rig.pass_time(0.5)
            assert unkillable[0].pid == rig.process.pid == handle.pid
            del rig.launcher.faults["kill"]
            while not rig.events.of(WorkerDied, worker="a"):  # the kill is repeated
                await rig.pass_time(0.5)

    run(scenario())


@pytest.mark.parametrize("on_error", ["continue", "raise"])
def test_a_stop_asked_for_while_a_launch_fails_is_no_death(on_error: str) -> None:
    async def scenario() -> None:
        rig = Rig(on_error=on_error)
        async with rig.clock:
            rig.launcher.hangs.add("start")
            running = asyncio.create_task(rig.clock.run())
            handle = rig.add()
            await rig.launcher.board.until(lambda: "start" in rig.launcher.calls)
            rig.clock.remove_processor(handle)
            assert handle.status is WorkerStatus.STOPPING
            await rig.pass_time(PATIENCE)  # then the launcher is given up
            await handle.wait_stopped()
            assert rig.launcher.processes == []
            assert rig.events.of(WorkerStopped, worker="a")
            assert rig.events.of(WorkerDied) == []
            assert rig.failed == []
            assert not running.done()
            running.cancel()
            await asyncio.wait({running})

    run(scenario())


# Failures of the machinery


def fail_with(error: BaseException) -> Callable[..., NoReturn]:
    def fail(*_: object, **__: object) -> NoReturn:
        raise error

    return fail


def break_watch(rig: Rig, error: BaseException, monkeypatch: pytest.MonkeyPatch) -> None:
    rig.coordinator._supervisor.next_deadline = fail_with(error)  # type: ignore[method-assign]


def break_ticker(rig: Rig, error: BaseException, monkeypatch: pytest.MonkeyPatch) -> None:
    rig.launcher.hub.publish = fail_with(error)  # type: ignore[method-assign]
    rig.coordinator.ticker.publish(b"")


def break_output_reader(rig: Rig, error: BaseException, monkeypatch: pytest.MonkeyPatch) -> None:
    pump = rig.coordinator._output
    pump._turn = fail_with(error)  # type: ignore[method-assign]
    os.write(pump._wake_write, b"\0")


def break_output_writer(rig: Rig, error: BaseException, monkeypatch: pytest.MonkeyPatch) -> None:
    class Stream:
        write = staticmethod(fail_with(error))

    monkeypatch.setattr(sys, "stdout", Stream())
    pump = rig.coordinator._output
    ends = os.pipe(), os.pipe()
    output = pump.watch("a", (ends[0][0], ends[1][0]))
    for _, write in ends:
        os.close(write)
    pump.show(output, "text", False)


def break_inbox(rig: Rig, error: BaseException, monkeypatch: pytest.MonkeyPatch) -> None:
    rig.launcher.hub.receive = fail_with(error)  # type: ignore[method-assign]
    rig.process.beat()


def break_hub(rig: Rig, error: BaseException, monkeypatch: pytest.MonkeyPatch) -> None:
    thread = threading.Thread(target=rig.launcher.hub.thread_failed, args=(error,))
    thread.start()
    thread.join()


@pytest.mark.parametrize(
    "break_it",
    [break_watch, break_ticker, break_output_reader, break_output_writer, break_inbox, break_hub],
    ids=lambda function: function.__name__,
)
def test_a_part_of_the_machinery_that_fails_ends_the_run_and_leaves_the_clock_usable(
    break_it: Callable[[Rig, BaseException, pytest.MonkeyPatch], None],
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    error = Bizarre("the machinery")

    async def scenario() -> None:
        rig = Rig(real_time=True, stop_grace=2.0)
        handle = rig.add()
        async with rig.clock:
            await handle.wait_ready()
            running = asyncio.create_task(rig.clock.run())
            await turns()
            break_it(rig, error, monkeypatch)
            await asyncio.wait({running})
            assert running.exception() is error
        rig.assert_nothing_left()
        monkeypatch.undo()
        async with rig.clock:
            await handle.wait_ready()
            running = asyncio.create_task(rig.clock.run())
            await turns()
            assert not running.done()
            running.cancel()
            await asyncio.wait({running})
        rig.assert_nothing_left()

    run(scenario())
    assert "the machinery of the clock has failed" in messages(caplog, logging.CRITICAL)
    assert not [message for message in messages(caplog) if "left behind" in message]


def test_a_watch_that_is_cancelled_ends_the_run_too() -> None:
    async def scenario() -> None:
        rig = Rig()
        async with rig.clock:
            running = asyncio.create_task(rig.clock.run())
            await turns()
            rig.coordinator._watch.cancel()
            with pytest.raises(RuntimeError, match="was cancelled"):
                await running

    run(scenario())


@pytest.mark.parametrize("obeys", [True, False])
def test_deadlines_of_stops_are_kept_after_the_watch_over_them_has_failed(obeys: bool) -> None:
    async def scenario() -> None:
        rig = Rig(real_time=True, stop_grace=0.3)
        handle = rig.add()
        async with rig.clock:
            await handle.wait_ready()
            rig.coordinator._watch.cancel()
            await turns()
            rig.launcher.obeys = obeys
        rig.assert_nothing_left()
        assert ("kill" in rig.launcher.calls) is not obeys

    run(scenario())


# Closing


def test_a_second_close_joins_the_first_and_the_last_thing_is_done_once() -> None:
    async def scenario() -> None:
        rig = Rig(obeys=False)
        last: list[str] = []
        async with rig.clock:
            handle = rig.add()
            await turns()
            rig.process.get_ready()
            await handle.wait_ready()
            first = asyncio.create_task(rig.coordinator.close(last=lambda: last.append("first")))
            await turns()
            second = asyncio.create_task(rig.coordinator.close(last=lambda: last.append("second")))
            await turns()
            assert not first.done()
            assert not second.done()
            assert not rig.coordinator.is_open
            rig.process.stop()
            await asyncio.gather(first, second)
            await rig.coordinator.close(last=lambda: last.append("third"))
            assert last == ["first"]
            assert rig.launcher.calls.count("close") == 1
            assert "kill" not in rig.launcher.calls

    run(scenario())


def test_a_close_kills_what_has_not_stopped_within_its_timeout() -> None:
    async def scenario() -> None:
        rig = Rig(stop_grace=30.0)
        last: list[str] = []
        handle = rig.add()
        async with rig.clock:
            await handle.wait_ready()
            rig.launcher.obeys = False
            await rig.coordinator.close(0.05, lambda: last.append("done"))
            assert last == ["done"]
            assert handle.status is WorkerStatus.STOPPED
            (death,) = rig.events.of(WorkerDied)
            assert (death.reason, death.exitcode) == (DeathReason.STOP_TIMEOUT, -9)

    run(scenario())


def test_a_cancelled_close_kills_and_the_clock_can_be_entered_again() -> None:
    async def scenario() -> None:
        rig = Rig(stop_grace=30.0)
        last: list[str] = []
        handles = [rig.add(name) for name in "abc"]
        async with rig.clock:
            for handle in handles:
                await handle.wait_ready()
            rig.launcher.obeys = False
            closing = asyncio.create_task(rig.coordinator.close(last=lambda: last.append("done")))
            await turns()
            assert not closing.done()
            closing.cancel()
            with pytest.raises(asyncio.CancelledError):
                await closing
            assert all(process.end.done() for process in rig.launcher.processes)
            assert [handle.status for handle in handles] == [WorkerStatus.STOPPED] * 3
            assert last == []
        rig.launcher.obeys = True
        async with rig.clock:
            for handle in handles:
                await handle.wait_ready()
        rig.assert_nothing_left()

    run(scenario())


def test_each_part_is_closed_whatever_another_one_raises() -> None:
    async def scenario() -> None:
        rig = Rig()
        rig.launcher.faults["close"] = OSError("no")
        with pytest.raises(OSError, match="no"):
            async with rig.clock:
                rig.launcher.hub.close = fail_with(OSError("hub"))  # type: ignore[method-assign]
        assert not rig.coordinator.ticker._thread.is_alive()
        assert not rig.coordinator._output._reader.is_alive()
        rig.assert_nothing_left()

    run(scenario())


# The end of the program


@pytest.mark.parametrize("kind", [SystemExit, KeyboardInterrupt])
@pytest.mark.parametrize(
    "when", [ClockStartEvent, WorkerStarting, WorkerReady, WorkerStopping, WorkerStopped]
)
def test_an_exit_from_a_callback_leaves_no_worker_behind(
    when: type[Event], kind: type[BaseException], caplog: pytest.LogCaptureFixture
) -> None:
    rigs: list[Rig] = []

    async def scenario() -> None:
        rig = Rig(real_time=True)
        rigs.append(rig)
        rig.clock.events.subscribe(fail_with(kind()), when)
        handles = [rig.add(name) for name in "ab"]
        async with rig.clock:
            for handle in handles:
                await handle.wait_ready()
            if when in (WorkerStopping, WorkerStopped):
                rig.clock.remove_processor(handles.pop())
            await asyncio.Event().wait()

    with pytest.raises(kind):
        asyncio.run(scenario())
    (rig,) = rigs
    rig.assert_nothing_left()
    assert not [message for message in messages(caplog) if "callback" not in message]
    if when is WorkerReady:
        assert "kill" not in rig.launcher.calls, "those that can stop gracefully do"


def test_an_exit_kills_a_worker_that_does_not_stop(caplog: pytest.LogCaptureFixture) -> None:
    rigs: list[Rig] = []

    async def scenario() -> None:
        rig = Rig(real_time=True, stop_grace=0.2)
        rigs.append(rig)
        handle = rig.add()
        async with rig.clock:
            await handle.wait_ready()
            rig.launcher.obeys = False
            rig.clock.events.subscribe(fail_with(SystemExit()), WorkerStarting)
            rig.add("b")
            await asyncio.Event().wait()

    with pytest.raises(SystemExit):
        asyncio.run(scenario())
    rigs[0].assert_nothing_left()
    assert not [message for message in messages(caplog) if "left behind" in message]


def test_an_exit_during_the_close_leaves_no_worker_behind(
    caplog: pytest.LogCaptureFixture,
) -> None:
    rigs: list[Rig] = []

    async def scenario() -> None:
        rig = Rig(real_time=True, stop_grace=30.0)
        rigs.append(rig)
        handles = [rig.add(name) for name in "ab"]
        async with rig.clock:
            for handle in handles:
                await handle.wait_ready()
            rig.launcher.obeys = False
            rig.clock.events.subscribe(fail_with(SystemExit()), WorkerStopping)

    with pytest.raises(SystemExit):
        asyncio.run(scenario())
    rigs[0].assert_nothing_left()
    assert not [message for message in messages(caplog) if "left behind" in message]


def test_a_clock_that_nobody_leaves_does_not_hold_up_the_end_of_the_program() -> None:
    rigs: list[Rig] = []

    async def scenario() -> None:
        rig = Rig(real_time=True, stop_grace=0.2)
        rigs.append(rig)
        handle = rig.add()
        await rig.clock.__aenter__()
        await handle.wait_ready()
        rig.launcher.obeys = False

    asyncio.run(scenario())
    (rig,) = rigs
    assert rig.process.end.done()
    rig.coordinator.ticker.close()
