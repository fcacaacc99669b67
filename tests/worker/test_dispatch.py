"""The dispatcher: which ticks run, and what becomes of every other."""

from __future__ import annotations

import asyncio
import contextlib
import functools
import itertools
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import NamedTuple

import pytest
from hypothesis import given
from hypothesis import strategies as st

from chronopype_mp.core.boot import TickRules
from chronopype_mp.core.error_text import LONGEST_MESSAGE
from chronopype_mp.core.state import TickAccount, TickRecorder
from chronopype_mp.processors import ProcessorState, TickProcessor
from chronopype_mp.worker import dispatch
from chronopype_mp.worker.dispatch import FIRST_RETRY_PAUSE, TickDispatcher
from tests.waiting import Noticeboard, run, turns


class Failed(NamedTuple):
    error: Exception
    printed: str
    timestamp: float
    timeout: bool


class Ticked(TickProcessor):
    """Notes its ticks; ``behave`` is what a tick does."""

    def __init__(self) -> None:
        super().__init__()
        self.seen: list[float] = []
        self.ended: list[float] = []
        self.connected = True
        self.board = Noticeboard()
        self.behave: Callable[[float], Awaitable[object]] | None = None

    async def async_tick(self, timestamp: float) -> None:
        self.seen.append(timestamp)
        self.board.notify()
        if self.behave is not None:
            await self.behave(timestamp)
        self.ended.append(timestamp)
        self.board.notify()

    @property
    def wants_ticks(self) -> bool:
        return self.connected


class Rig:
    """A dispatcher at work on a processor."""

    def __init__(
        self, processor: TickProcessor, timeout: float, retries: int, every: bool = False
    ) -> None:
        self.recorder = TickRecorder(100, time.time)
        self.failures: list[Failed] = []
        self.settled_through: list[int] = []
        rules = TickRules(
            processor_timeout=timeout,
            max_retries=retries,
            stats_window_size=100,
            every_tick=every,
        )
        self.dispatcher = TickDispatcher(
            processor, rules, self.recorder, self._failed, self._settled
        )

    def _settled(self) -> None:
        self.settled_through.append(self.dispatcher.through)

    def _failed(self, error: Exception, printed: str, timestamp: float, timeout: bool) -> None:
        self.failures.append(Failed(error, printed, timestamp, timeout))

    def offer(self, *seqs: int) -> None:
        """Offer ticks; tick n has the timestamp 10·n."""
        for seq in seqs:
            self.dispatcher.offer(seq, (10.0 * seq,))

    async def tick(self, seq: int) -> None:
        """Offer a tick and wait for its end."""
        self.offer(seq)
        await self.dispatcher.settle()

    @property
    def state(self) -> ProcessorState:
        return ProcessorState.of(self.recorder.counters)

    @property
    def account(self) -> TickAccount:
        return self.dispatcher.account


@contextlib.asynccontextmanager
async def working(
    processor: TickProcessor, timeout: float = 5.0, retries: int = 0, every: bool = False
) -> AsyncIterator[Rig]:
    rig = Rig(processor, timeout, retries, every)
    task = asyncio.create_task(rig.dispatcher.run())
    yield rig
    assert not task.done(), "whatever a tick does, the next one runs"
    task.cancel()
    await asyncio.wait({task})


@pytest.fixture
def short_pauses(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(dispatch, "FIRST_RETRY_PAUSE", 0.001)


def test_a_tick_is_executed_with_its_timestamp_and_accounted_for() -> None:
    async def scenario() -> None:
        processor = Ticked()
        async with working(processor) as rig:
            before = time.time()
            await rig.tick(1)
            await rig.tick(2)
            assert processor.seen == [10.0, 20.0]
            assert rig.account == TickAccount(base=0, run=2)
            state = rig.state
            assert (state.success_count, state.last_timestamp) == (2, 20.0)
            assert state.last_success_time is not None
            assert before <= state.last_success_time.timestamp() <= time.time()
            assert rig.failures == []

    run(scenario())


def test_the_account_opens_after_its_base_and_older_ticks_are_nothing_to_it() -> None:
    async def scenario() -> None:
        processor = Ticked()
        async with working(processor) as rig:
            rig.dispatcher.open(7)
            rig.offer(6, 7)
            await turns()
            assert processor.seen == []
            await rig.tick(8)
            rig.offer(8, 3)
            await turns()
            assert processor.seen == [80.0]
            assert rig.account == TickAccount(base=7, run=1)

    run(scenario())


def test_of_ticks_that_wait_the_newest_wins_and_the_others_are_missed() -> None:
    async def scenario() -> None:
        processor = Ticked()
        gate = asyncio.Event()
        processor.behave = lambda _: gate.wait()
        async with working(processor) as rig:
            rig.offer(1)
            await processor.board.until(lambda: processor.seen == [10.0])
            rig.offer(2, 3, 4)
            gate.set()
            await rig.dispatcher.settle()
            assert processor.seen == [10.0, 40.0]
            assert rig.account == TickAccount(base=0, run=2, missed=2)

    run(scenario())


def test_a_gap_in_the_numbers_is_missed() -> None:
    async def scenario() -> None:
        processor = Ticked()
        async with working(processor) as rig:
            await rig.tick(3)
            await rig.tick(7)
            assert rig.account == TickAccount(base=0, run=2, missed=5)

    run(scenario())


def test_one_tick_runs_at_a_time() -> None:
    async def scenario() -> None:
        processor = Ticked()
        overlaps = []

        async def behave(_: float) -> None:
            overlaps.append(len(processor.seen) - len(processor.ended))
            await turns(3)

        processor.behave = behave
        async with working(processor) as rig:
            for seq in range(1, 40):
                rig.offer(seq)
                await turns(1)
            await rig.dispatcher.settle()
        assert len(overlaps) > 5
        assert set(overlaps) == {1}

    run(scenario())


def test_a_tick_that_fails_is_tried_again_with_the_same_timestamp_after_growing_pauses(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    assert FIRST_RETRY_PAUSE == 0.1, "chronopype's"
    monkeypatch.setattr(dispatch, "FIRST_RETRY_PAUSE", 0.02)

    async def scenario() -> None:
        processor = Ticked()
        at: list[float] = []

        async def behave(_: float) -> None:
            at.append(time.monotonic())
            if len(at) < 4:
                raise ValueError(f"attempt {len(at)}")

        processor.behave = behave
        async with working(processor, retries=3) as rig:
            await rig.tick(1)
            assert processor.seen == [10.0] * 4
            pauses = [later - before for before, later in itertools.pairwise(at)]
            assert all(p >= q for p, q in zip(pauses, (0.02, 0.04, 0.08), strict=True))
            assert rig.failures == []
            state = rig.state
            assert (state.success_count, state.error_count) == (1, 0)
            assert (state.retry_count, state.max_consecutive_retries) == (0, 3)
            assert state.execution_times[0] < 0.14, "the last attempt's time, not all of them"
            assert rig.account == TickAccount(base=0, run=1)

    run(scenario())


@pytest.mark.usefixtures("short_pauses")
def test_a_tick_that_fails_for_good_is_reported_once_and_the_next_one_runs() -> None:
    async def scenario() -> None:
        processor = Ticked()

        async def behave(timestamp: float) -> None:
            if timestamp == 10.0:
                raise ValueError(f"attempt {len(processor.seen)}")

        processor.behave = behave
        async with working(processor, retries=2) as rig:
            await rig.tick(1)
            (failed,) = rig.failures
            assert isinstance(failed.error, ValueError)
            assert str(failed.error) == "attempt 3"
            assert "in behave" in failed.printed
            assert (failed.timestamp, failed.timeout) == (10.0, False)
            state = rig.state
            assert (state.error_count, state.consecutive_errors, state.retry_count) == (1, 1, 3)
            assert (state.last_error, state.last_timestamp) == ("attempt 3", 10.0)
            await rig.tick(2)
            assert processor.ended == [20.0]
            assert rig.state.consecutive_errors == 0
            assert rig.account == TickAccount(base=0, run=2)

    run(scenario())


@pytest.mark.usefixtures("short_pauses")
def test_a_tick_that_takes_too_long_is_cancelled_and_tried_again() -> None:
    async def scenario() -> None:
        processor = Ticked()
        cancelled = []

        async def behave(timestamp: float) -> None:
            try:
                await asyncio.get_running_loop().create_future()
            except asyncio.CancelledError:
                cancelled.append(timestamp)
                raise

        processor.behave = behave
        async with working(processor, timeout=0.02, retries=1) as rig:
            await rig.tick(1)
            assert cancelled == [10.0, 10.0]
            (failed,) = rig.failures
            assert isinstance(failed.error, TimeoutError)
            assert str(failed.error) == "timed out after 0.02s"
            assert failed.timeout
            assert "in behave" in failed.printed, "where it hung"

    run(scenario())


async def raise_timeout_error(_: float) -> None:
    raise TimeoutError("the processor's own")


async def run_into_a_timeout_of_its_own(_: float) -> None:
    async with asyncio.timeout(0.001):
        await asyncio.get_running_loop().create_future()


@pytest.mark.parametrize("behave", [raise_timeout_error, run_into_a_timeout_of_its_own])
def test_a_ticks_own_timeout_error_is_not_reported_as_the_clocks(
    behave: Callable[[float], Awaitable[None]],
) -> None:
    async def scenario() -> None:
        processor = Ticked()
        processor.behave = behave
        async with working(processor) as rig:
            await rig.tick(1)
            (failed,) = rig.failures
            assert isinstance(failed.error, TimeoutError)
            assert "timed out after" not in str(failed.error)
            assert not failed.timeout

    run(scenario())


def test_a_tick_that_awaits_something_cancelled_has_failed_and_no_more() -> None:
    async def scenario() -> None:
        processor = Ticked()

        async def behave(timestamp: float) -> None:
            if timestamp == 10.0:
                other = asyncio.get_running_loop().create_future()
                other.cancel()
                await other

        processor.behave = behave
        async with working(processor) as rig:
            await rig.tick(1)
            (failed,) = rig.failures
            assert "cancelled from within" in str(failed.error)
            assert not failed.timeout
            await rig.tick(2)
            assert processor.ended == [20.0]
            assert rig.account == TickAccount(base=0, run=2)

    run(scenario())


def test_cancelling_the_dispatcher_cancels_the_tick_that_runs() -> None:
    async def scenario() -> None:
        processor = Ticked()
        processor.behave = lambda _: asyncio.get_running_loop().create_future()
        rig = Rig(processor, 5.0, 3)
        task = asyncio.create_task(rig.dispatcher.run())
        rig.offer(1)
        await processor.board.until(lambda: bool(processor.seen))
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        assert processor.seen == [10.0], "no retry of what was cancelled from outside"
        assert rig.failures == []

    run(scenario())


class Unprintable(Exception):
    def __str__(self) -> str:
        raise ValueError("no text for you")


@pytest.mark.parametrize(
    ("error", "text"),
    [
        (Unprintable(), "Unprintable, which cannot be printed (ValueError)"),
        (ValueError("caf\udce9.txt"), "caf\udce9.txt"),
    ],
    ids=["unprintable", "no UTF-8"],
)
def test_an_error_whose_text_is_broken_is_recorded_like_any_other(
    error: Exception, text: str
) -> None:
    async def scenario() -> None:
        processor = Ticked()

        async def behave(_: float) -> None:
            raise error

        processor.behave = behave
        async with working(processor) as rig:
            await rig.tick(1)
            await rig.tick(2)
            assert rig.state.last_error == text
            assert [failed.error for failed in rig.failures] == [error, error]

    run(scenario())


def test_of_an_endless_message_both_ends_are_kept() -> None:
    """It travels in every beat; a beat larger than a frame would cost the connection."""

    async def scenario() -> None:
        processor = Ticked()

        async def behave(_: float) -> None:
            raise ValueError("begin" + "x" * 10_000_000 + "end")

        processor.behave = behave
        async with working(processor) as rig:
            await rig.tick(1)
            message = rig.state.last_error
            assert message is not None
            assert len(message) < LONGEST_MESSAGE + 100
            assert message.startswith("begin")
            assert message.endswith("end")
            assert "more bytes" in message

    run(scenario())


@pytest.mark.parametrize("timestamp", [1.7e12, -1e18, float("nan"), float("inf")])
def test_a_timestamp_that_no_calendar_reaches_can_fail_like_any_other(timestamp: float) -> None:
    """A backtest may run on milliseconds."""

    async def scenario() -> None:
        processor = Ticked()

        async def behave(_: float) -> None:
            raise ValueError("no")

        processor.behave = behave
        async with working(processor) as rig:
            rig.dispatcher.offer(1, (timestamp,))
            await rig.dispatcher.settle()
            assert rig.state.error_count == 1
            assert rig.state.last_error_time is None

    run(scenario())


def test_while_paused_ticks_are_skipped_and_one_that_waits_is_too() -> None:
    async def scenario() -> None:
        processor = Ticked()
        gate = asyncio.Event()
        processor.behave = lambda _: gate.wait()
        async with working(processor) as rig:
            rig.offer(1)
            await processor.board.until(lambda: processor.seen == [10.0])
            rig.offer(2)
            rig.dispatcher.pause()
            rig.offer(3, 5)
            gate.set()
            await rig.dispatcher.settle()
            assert processor.seen == [10.0]
            assert rig.account == TickAccount(base=0, run=1, skipped=4)
            rig.dispatcher.resume()
            await rig.tick(6)
            assert processor.seen == [10.0, 60.0]
            assert rig.account == TickAccount(base=0, run=2, skipped=4)

    run(scenario())


def test_while_not_connected_ticks_are_skipped_and_one_that_waits_is_too() -> None:
    async def scenario() -> None:
        processor = Ticked()
        async with working(processor) as rig:
            processor.connected = False
            rig.offer(1, 2)
            processor.connected = True
            rig.offer(3)
            processor.connected = False
            await rig.dispatcher.settle()
            assert processor.seen == []
            assert rig.account == TickAccount(base=0, skipped=3)
            processor.connected = True
            await rig.tick(4)
            assert rig.account == TickAccount(base=0, run=1, skipped=3)

    run(scenario())


def test_the_largest_gap_is_between_two_ticks_in_a_row_and_held_back_ones_make_none() -> None:
    async def scenario() -> None:
        async with working(Ticked()) as rig:
            await rig.tick(1)
            assert rig.dispatcher.largest_gap == 0.0
            await rig.tick(2)
            assert rig.dispatcher.largest_gap == 10.0
            await rig.tick(5)
            assert rig.dispatcher.largest_gap == 30.0
            rig.dispatcher.pause()
            rig.offer(6)
            rig.dispatcher.resume()
            await rig.tick(100)
            assert rig.dispatcher.largest_gap == 30.0

    run(scenario())


def test_at_the_close_what_has_not_arrived_is_missed() -> None:
    async def scenario() -> None:
        async with working(Ticked()) as rig:
            await rig.tick(2)
            rig.dispatcher.close(1)
            assert rig.account == TickAccount(base=0, run=1, missed=1)
            rig.dispatcher.close(6)
            assert rig.account == TickAccount(base=0, run=1, missed=5)

    run(scenario())


def test_a_tick_that_waits_can_be_dropped() -> None:
    async def scenario() -> None:
        processor = Ticked()
        gate = asyncio.Event()
        processor.behave = lambda _: gate.wait()
        async with working(processor) as rig:
            rig.dispatcher.drop_pending()
            rig.offer(1)
            await processor.board.until(lambda: processor.seen == [10.0])
            rig.offer(2)
            rig.dispatcher.drop_pending()
            gate.set()
            await rig.dispatcher.settle()
            assert processor.seen == [10.0]
            assert rig.account == TickAccount(base=0, run=1, missed=1)

    run(scenario())


def test_settling_waits_for_the_tick_that_runs_and_for_the_one_that_waits() -> None:
    async def scenario() -> None:
        processor = Ticked()
        gate = asyncio.Event()
        processor.behave = lambda _: gate.wait()
        async with working(processor) as rig:
            await rig.dispatcher.settle()
            rig.offer(1)
            settled = asyncio.create_task(rig.dispatcher.settle())
            await processor.board.until(lambda: processor.seen == [10.0])
            rig.offer(2)
            await turns()
            assert not settled.done()
            gate.set()
            await settled
            assert processor.ended == [10.0, 20.0]

    run(scenario())


@pytest.mark.usefixtures("short_pauses")
def test_the_time_of_an_attempt_is_known_while_it_runs_and_only_then() -> None:
    async def scenario() -> None:
        processor = Ticked()
        gate = asyncio.Event()
        processor.behave = lambda _: gate.wait()
        async with working(processor) as rig:
            assert rig.dispatcher.attempt_started is None
            before = time.monotonic()
            rig.offer(1)
            await processor.board.until(lambda: processor.seen == [10.0])
            began = rig.dispatcher.attempt_started
            assert began is not None
            assert before <= began <= time.monotonic()
            gate.set()
            await rig.dispatcher.settle()
            assert rig.dispatcher.attempt_started is None

    run(scenario())


STEPS = st.one_of(
    st.tuples(st.just("offer"), st.integers(min_value=1, max_value=4)),
    st.tuples(st.just("offer an old one"), st.integers(min_value=0, max_value=3)),
    st.tuples(st.just("turn"), st.integers(min_value=1, max_value=6)),
    st.tuples(st.sampled_from(["pause", "resume", "connect", "disconnect"]), st.just(0)),
)


@given(
    base=st.integers(min_value=0, max_value=10**6),
    steps=st.lists(STEPS, max_size=60),
    unseen=st.integers(min_value=0, max_value=5),
    length=st.integers(min_value=0, max_value=4),
    failing=st.integers(min_value=1, max_value=5),
)
def test_whatever_is_offered_every_tick_is_run_missed_or_skipped(
    base: int, steps: list[tuple[str, int]], unseen: int, length: int, failing: int
) -> None:
    async def scenario() -> None:
        processor = Ticked()

        async def behave(timestamp: float) -> None:
            await turns(length)
            if len(processor.seen) % failing == 0:
                raise ValueError("now and then")

        processor.behave = behave
        seq = base
        async with working(processor) as rig:
            rig.dispatcher.open(base)
            for step, number in steps:
                match step:
                    case "offer":
                        seq += number
                        rig.offer(seq)
                    case "offer an old one":
                        rig.offer(seq - number)
                    case "turn":
                        await turns(number)
                    case "pause":
                        rig.dispatcher.pause()
                    case "resume":
                        rig.dispatcher.resume()
                    case "connect" | "disconnect":
                        processor.connected = step == "connect"
                assert rig.account.through <= seq
            rig.dispatcher.close(seq + unseen)
            await rig.dispatcher.settle()
            account = rig.account
            assert account.through == seq + unseen
            assert account.base == base
            assert account.run == len(processor.seen) == rig.state.total_ticks
            assert min(account.missed, account.skipped) >= 0
            assert processor.seen == sorted(set(processor.seen)), "none twice, none backwards"

    run(scenario())


class Called(TickProcessor):
    """Has a plain `tick`; ``behave`` is what that does."""

    def __init__(self, behave: Callable[[float], object] = lambda _: None) -> None:
        super().__init__()
        self.seen: list[float] = []
        self.connected = True
        self.behave = behave

    def tick(self, timestamp: float) -> None:
        self.seen.append(timestamp)
        self.behave(timestamp)

    @property
    def wants_ticks(self) -> bool:
        return self.connected


def test_a_plain_tick_runs_where_it_arrives_and_waits_for_no_task() -> None:
    async def scenario() -> None:
        processor = Called()
        async with working(processor) as rig:
            rig.offer(1, 2)
            assert processor.seen == [10.0, 20.0]
            assert rig.account == TickAccount(base=0, run=2)
            assert (rig.state.success_count, rig.state.last_timestamp) == (2, 20.0)
            assert rig.dispatcher.largest_gap == 10.0
            await rig.dispatcher.settle()

    run(scenario())


def test_a_tick_that_is_assigned_after_the_dispatcher_was_made_is_the_one_that_runs() -> None:
    """Processors assign one in their ``start``."""

    async def scenario() -> None:
        seen: list[object] = []
        plain, suspends = TickProcessor(), TickProcessor()

        async def later(timestamp: float) -> None:
            await asyncio.sleep(0)  # suspends once
            seen.append(("later", timestamp))

        async with working(plain) as rig:
            rig.dispatcher.open(0)
            rig.offer(1)
            plain.tick = lambda timestamp: seen.append(("tick", timestamp))  # type: ignore[method-assign]
            rig.offer(2)
        async with working(suspends) as rig:
            suspends.async_tick = later  # type: ignore[method-assign]
            rig.dispatcher.open(0)
            await rig.tick(1)
        assert seen == [("tick", 20.0), ("later", 10.0)]

    run(scenario())


def test_a_tick_of_the_instance_counts_and_so_does_an_async_tick_of_it() -> None:
    async def scenario() -> None:
        seen: list[object] = []
        plain, suspends = TickProcessor(), TickProcessor()
        plain.tick = seen.append  # type: ignore[method-assign]

        async def async_tick(timestamp: float) -> None:
            await asyncio.sleep(0)
            seen.append(-timestamp)

        suspends.async_tick = async_tick  # type: ignore[method-assign]
        for processor in (plain, suspends):
            async with working(processor) as rig:
                await rig.tick(1)
        assert seen == [10.0, -10.0]

    run(scenario())


@pytest.mark.usefixtures("short_pauses")
def test_a_plain_tick_that_fails_is_tried_again_before_any_other_runs() -> None:
    async def scenario() -> None:
        def behave(timestamp: float) -> None:
            if len(processor.seen) < 3:
                raise ValueError(f"attempt {len(processor.seen)}")

        processor = Called(behave)
        async with working(processor, retries=2) as rig:
            rig.offer(1)
            assert processor.seen == [10.0]
            rig.offer(2, 3)
            await rig.dispatcher.settle()
            assert processor.seen == [10.0, 10.0, 10.0, 30.0]
            assert rig.account == TickAccount(base=0, run=2, missed=1)
            assert rig.failures == []
            assert (rig.state.success_count, rig.state.max_consecutive_retries) == (2, 2)
            rig.offer(4)
            assert processor.seen[-1] == 40.0, "back to plain calls"

    run(scenario())


@pytest.mark.parametrize("error", [ValueError("no"), asyncio.CancelledError()], ids=repr)
def test_a_plain_tick_that_fails_for_good_is_reported_once(error: BaseException) -> None:
    async def scenario() -> None:
        def behave(timestamp: float) -> None:
            if timestamp == 10.0:
                raise error

        processor = Called(behave)
        async with working(processor) as rig:
            await rig.tick(1)
            (failed,) = rig.failures
            assert (failed.timestamp, failed.timeout) == (10.0, False)
            assert "in behave" in failed.printed
            await rig.tick(2)
            assert rig.account == TickAccount(base=0, run=2)
            assert (rig.state.error_count, rig.state.success_count) == (1, 1)

    run(scenario())


@pytest.mark.parametrize("plain", [True, False], ids=["plain", "async"])
@pytest.mark.parametrize("why", ["paused", "not connected", "stopping"])
@pytest.mark.usefixtures("short_pauses")
def test_a_failed_tick_is_not_tried_again_when_ticks_are_held_back(why: str, plain: bool) -> None:
    async def scenario() -> None:
        def behave(timestamp: float) -> None:
            if len(processor.seen) == 2:
                match why:
                    case "paused":
                        rig.dispatcher.pause()
                    case "not connected":
                        processor.connected = False
                    case "stopping":
                        rig.dispatcher.close(1)
            raise ValueError("no")

        async def behave_async(timestamp: float) -> None:
            behave(timestamp)

        processor: Called | Ticked = Called(behave)
        if not plain:
            processor = Ticked()
            processor.behave = behave_async
        async with working(processor, retries=5) as rig:
            await rig.tick(1)
            assert processor.seen == [10.0, 10.0], "one retry before that, and none after it"
            assert rig.account == TickAccount(base=0, run=1)
            assert len(rig.failures) == 1
            state = rig.state
            assert (state.error_count, state.retry_count) == (1, 2)

    run(scenario())


class Bizarre(BaseException):
    """Neither an error nor an exit."""


@pytest.mark.parametrize("plain", [True, False], ids=["plain", "async"])
def test_a_tick_that_raises_what_is_no_error_ends_the_task_with_that(plain: bool) -> None:
    async def scenario() -> None:
        def behave(timestamp: float) -> None:
            raise Bizarre

        async def behave_async(timestamp: float) -> None:
            await asyncio.sleep(0)  # suspends once
            behave(timestamp)

        processor: TickProcessor = Called(behave)
        if not plain:
            processor = Ticked()
            processor.behave = behave_async
        rig = Rig(processor, 5.0, 3)
        task = asyncio.create_task(rig.dispatcher.run())
        rig.offer(1)
        with pytest.raises(Bizarre):
            await task
        assert rig.failures == []

    run(scenario())


def test_a_plain_tick_that_exits_exits() -> None:
    async def scenario() -> None:
        def behave(timestamp: float) -> None:
            raise SystemExit(3)

        async with working(Called(behave)) as rig:
            with pytest.raises(SystemExit):
                rig.offer(1)

    run(scenario())


class Unreadable(Exception):
    """Not even its traceback can be read."""

    def __getattribute__(self, name: str) -> object:
        raise Bizarre

    def __str__(self) -> str:
        raise Bizarre


def test_a_tick_is_accounted_for_whatever_its_exception_does() -> None:
    async def scenario() -> None:
        def behave(timestamp: float) -> None:
            raise Unreadable

        async with working(Called(behave)) as rig:
            await rig.tick(1)
            assert rig.account == TickAccount(base=0, run=1)
            (failed,) = rig.failures
            assert "Unreadable, which cannot be printed (Bizarre)" in failed.printed
            assert rig.state.last_error == "Unreadable, which cannot be printed (Bizarre)"

    run(scenario())


@pytest.mark.parametrize("plain", [True, False], ids=["plain", "async"])
def test_where_every_tick_is_to_run_none_is_replaced_and_the_end_is_told(plain: bool) -> None:
    async def scenario() -> None:
        processor = Called() if plain else Ticked()
        async with working(processor, every=True) as rig:
            rig.offer(1, 2, 3)
            await rig.dispatcher.settle()
            assert processor.seen == [10.0, 20.0, 30.0]
            assert rig.account == TickAccount(base=0, run=3)
            assert rig.dispatcher.through == 3
            assert rig.settled_through == ([] if plain else [3])

    run(scenario())


def test_what_an_async_tick_awaits_after_the_first_time_comes_back_to_it() -> None:
    async def scenario() -> None:
        got: list[object] = []

        async def behave(_: float) -> None:
            loop = asyncio.get_running_loop()
            for number in range(3):
                future: asyncio.Future[int] = loop.create_future()
                loop.call_soon(future.set_result, number)
                got.append(await future)
            failing: asyncio.Future[int] = loop.create_future()
            loop.call_soon(failing.set_exception, KeyError("from outside"))
            with contextlib.suppress(KeyError):
                await failing
            async with asyncio.timeout(5.0):
                got.append(await asyncio.sleep(0, "slept"))
            async with asyncio.TaskGroup() as group:
                group.create_task(turns(2))
            got.append(asyncio.current_task() is not None)

        processor = Ticked()
        processor.behave = behave
        async with working(processor) as rig:
            await rig.tick(1)
            assert got == [0, 1, 2, "slept", True]
            assert rig.failures == []

    run(scenario())


def test_a_tick_that_outlives_its_timeout_after_a_timeout_of_its_own_is_told_from_it() -> None:
    async def scenario() -> None:
        async def behave(_: float) -> None:
            try:
                async with asyncio.timeout(0.001):
                    await asyncio.get_running_loop().create_future()
            except TimeoutError:
                await asyncio.get_running_loop().create_future()

        processor = Ticked()
        processor.behave = behave
        async with working(processor, timeout=0.05) as rig:
            await rig.tick(1)
            (failed,) = rig.failures
            assert failed.timeout
            assert str(failed.error) == "timed out after 0.05s"

    run(scenario())


def test_an_async_tick_may_return_any_awaitable() -> None:
    async def scenario() -> None:
        done: asyncio.Future[None] = asyncio.get_running_loop().create_future()

        class Future(TickProcessor):
            def async_tick(self, timestamp: float) -> asyncio.Future[None]:  # type: ignore[override]
                asyncio.get_running_loop().call_soon(done.set_result, None)
                return done

        async with working(Future()) as rig:
            await rig.tick(1)
            assert done.done()
            assert rig.failures == []

    run(scenario())


def test_ticks_in_a_row_are_taken_together_and_those_seen_already_are_passed_over() -> None:
    async def scenario() -> None:
        processor = Called()
        async with working(processor, every=True) as rig:
            rig.dispatcher.offer(3, [30.0, 40.0])
            assert rig.account == TickAccount(base=0, run=2, missed=2)
            rig.dispatcher.offer(2, [20.0, 30.0, 40.0, 50.0])
            rig.dispatcher.offer(1, [10.0])
            rig.dispatcher.offer(9, [])
            assert processor.seen == [30.0, 40.0, 50.0]
            assert rig.account == TickAccount(base=0, run=3, missed=2)
            rig.dispatcher.pause()
            rig.dispatcher.offer(7, [70.0, 80.0])
            assert rig.account == TickAccount(base=0, run=3, missed=2, skipped=3)

    run(scenario())


def test_of_ticks_in_a_row_those_after_a_failing_one_wait_for_its_retries() -> None:
    async def scenario() -> None:
        def behave(timestamp: float) -> None:
            if len(processor.seen) == 2:
                raise ValueError("once")

        processor = Called(behave)
        async with working(processor, retries=1, every=True) as rig:
            rig.dispatcher.offer(1, [10.0, 20.0, 30.0, 40.0])
            await rig.dispatcher.settle()
            assert processor.seen == [10.0, 20.0, 20.0, 30.0, 40.0]
            assert rig.account == TickAccount(base=0, run=4)

    run(scenario())


def test_of_ticks_in_a_row_one_may_fail_for_good_and_the_others_are_all_recorded() -> None:
    async def scenario() -> None:
        def behave(timestamp: float) -> None:
            if timestamp == 20.0:
                raise ValueError("never")

        processor = Called(behave)
        async with working(processor, every=True) as rig:
            rig.dispatcher.offer(1, [10.0, 20.0, 35.0, 40.0])
            assert processor.seen == [10.0, 20.0, 35.0, 40.0]
            assert rig.account == TickAccount(base=0, run=4)
            assert (rig.state.success_count, rig.state.error_count) == (3, 1)
            assert rig.state.consecutive_errors == 0
            assert rig.state.last_timestamp == 40.0
            assert [failure.timestamp for failure in rig.failures] == [20.0]
            assert rig.dispatcher.largest_gap == 15.0

    run(scenario())


def test_a_tick_in_a_row_sees_what_the_one_before_has_left() -> None:
    async def scenario() -> None:
        seen: list[tuple[int, float | None]] = []

        def behave(timestamp: float) -> None:
            seen.append((rig.state.success_count, rig.state.last_timestamp))

        async with working(Called(behave), every=True) as rig:
            rig.dispatcher.offer(1, [10.0, 20.0, 30.0])
            assert seen == [(0, None), (1, 10.0), (2, 20.0)]
            assert rig.account == TickAccount(base=0, run=3)

    run(scenario())


def test_of_ticks_in_a_row_none_runs_after_one_that_has_its_processor_paused() -> None:
    async def scenario() -> None:
        processor = Called()
        async with working(processor, every=True) as rig:

            def behave(timestamp: float) -> None:
                if timestamp == 20.0:
                    rig.dispatcher.pause()

            processor.behave = behave
            rig.dispatcher.offer(1, [10.0, 20.0, 30.0, 40.0])
            assert processor.seen == [10.0, 20.0]
            assert rig.account == TickAccount(base=0, run=2, skipped=2)

    run(scenario())


def test_ticks_in_a_row_before_one_that_exits_are_accounted_for() -> None:
    async def scenario() -> None:
        def behave(timestamp: float) -> None:
            if timestamp == 30.0:
                raise SystemExit(3)

        async with working(Called(behave), every=True) as rig:
            with pytest.raises(SystemExit):
                rig.dispatcher.offer(1, [10.0, 20.0, 30.0, 40.0])
            assert rig.account == TickAccount(base=0, run=2)
            assert rig.state.success_count == 2

    run(scenario())


@pytest.mark.parametrize("plain", [True, False])
def test_each_tick_that_is_begun_is_late_once_however_often_it_is_tried(
    plain: bool, short_pauses: None
) -> None:
    class Plain(TickProcessor):
        def tick(self, timestamp: float) -> None:
            if timestamp == 20.0:
                raise ValueError("no")

    class Awaits(TickProcessor):
        async def async_tick(self, timestamp: float) -> None:
            Plain.tick(self, timestamp)  # type: ignore[arg-type]

    async def scenario() -> None:
        async with working(Plain() if plain else Awaits(), retries=2) as rig:
            offset = 30.0 - time.monotonic()  # tick 3 is due now, the others were before
            rig.recorder = rig.dispatcher._recorder = TickRecorder(100, time.time, offset)
            for seq in (1, 2, 3):
                await rig.tick(seq)
            assert rig.account.run == 3
            lateness = rig.recorder.counters.lateness
            assert lateness.count == 3
            assert 20.0 <= lateness.largest < 30.0
            assert rig.recorder.counters.lateness == lateness

    run(scenario())


def test_what_runs_between_ticks_takes_turns_with_those_that_wait_and_runs_in_a_pause() -> None:
    async def scenario() -> None:
        processor = Ticked()
        ticks_before: list[int] = []
        async with working(processor) as rig:

            async def work(seq: int) -> None:
                rig.offer(seq)
                await turns()
                ticks_before.append(len(processor.seen))

            rig.dispatcher.run_between(functools.partial(work, 1))
            rig.dispatcher.run_between(functools.partial(work, 2))
            await rig.dispatcher.settle()
            assert ticks_before == [0, 1]
            assert processor.seen == [10.0, 20.0]
            rig.dispatcher.pause()
            rig.dispatcher.run_between(functools.partial(work, 3))
            await rig.dispatcher.settle()
            assert ticks_before == [0, 1, 2]
            assert rig.account == TickAccount(base=0, run=2, skipped=1)

    run(scenario())


def test_a_plain_tick_waits_for_what_runs_between_ticks() -> None:
    async def scenario() -> None:
        processor = Called()
        async with working(processor) as rig:

            async def work() -> None:
                rig.offer(1)
                await turns()
                assert processor.seen == []

            rig.dispatcher.run_between(work)
            await rig.dispatcher.settle()
            assert processor.seen == [10.0]

    run(scenario())


def test_what_has_not_begun_between_ticks_is_dropped_by_a_stop() -> None:
    async def scenario() -> None:
        begun: list[str] = []
        async with working(Ticked()) as rig:

            async def stops() -> None:
                begun.append("stops")
                rig.dispatcher.close(0)

            async def never() -> None:
                begun.append("never")

            rig.dispatcher.run_between(stops)
            rig.dispatcher.run_between(never)
            await rig.dispatcher.settle()
            assert begun == ["stops"]

    run(scenario())
