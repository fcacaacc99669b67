"""The ticker thread, on time that the test moves and an in-memory hub."""

from __future__ import annotations

import itertools
import queue
import threading
from collections.abc import Iterator
from contextlib import contextmanager

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from chronopype_mp.coordinator.ticker import ROUNDING, Position, Run, Ticker
from chronopype_mp.core.codec import TICK_TOPIC, command_topic, decode_command, decode_tick
from chronopype_mp.core.messages import Downlink, Stop, Tick
from chronopype_mp.core.schedule import SETTLED, Schedule
from chronopype_mp.exceptions import ClockError
from chronopype_mp.testing import ManualClock
from chronopype_mp.transport.memory import MemoryHub

BOUND = 10.0
"""Seconds after which the thread counts as hung."""

WALL, MONOTONIC = 1_000_000.0, 1000.0


class Hub(MemoryHub):
    """Notes in which thread its publishing half was closed, and fails on demand."""

    def __init__(self) -> None:
        super().__init__()
        self.failure: BaseException | None = None
        self.settled = threading.Semaphore(0)
        self.closed_in: str | None = None

    def publish(self, frame: bytes) -> None:
        if self.failure is not None:
            raise self.failure
        super().publish(frame)
        if frame.startswith(command_topic("nobody")):
            self.settled.release()

    def close_publisher(self) -> None:
        self.closed_in = threading.current_thread().name


class Rig:
    """A ticker with tick size ``tick_size``, and what a worker ``w`` receives of it."""

    def __init__(self, tick_size: float = 1.0) -> None:
        self.time = ManualClock(WALL, MONOTONIC)
        self.schedule = Schedule(tick_size, WALL - MONOTONIC)
        self.hub = Hub()
        self.link = self.hub.connect("w")
        self.failures: queue.SimpleQueue[BaseException] = queue.SimpleQueue()
        self.ticker = Ticker(self.hub, self.time, WALL, self.failures.put)
        self.ends: queue.SimpleQueue[BaseException | None] = queue.SimpleQueue()

    def begin(self, first: int | None = None, until: float | None = None) -> None:
        """Begin a run that ends ``until`` seconds from the start of time."""
        if first is None:
            first = self.schedule.number_at(WALL) + 1
        end = None if until is None else MONOTONIC + until
        self.ticker.begin(Run(self.schedule, first, end, self.ends.put))

    def settle(self) -> None:
        """Return when the thread has done all that is due."""
        self.ticker.send("nobody", Stop())
        assert self.hub.settled.acquire(timeout=BOUND)

    def advance(self, seconds: float) -> None:
        self.time.advance(seconds)
        self.settle()

    def received(self) -> list[Tick | Downlink]:
        """Return what has come since the last call, in order."""
        return [
            decode_tick(frame) if frame.startswith(TICK_TOPIC) else decode_command(frame)
            for frame in self.link.receive(100_000)
        ]

    def timestamps(self) -> list[float]:
        return [message.timestamp for message in self.received() if isinstance(message, Tick)]

    def ended(self) -> BaseException | None:
        return self.ends.get(timeout=BOUND)


@contextmanager
def started(tick_size: float = 1.0) -> Iterator[Rig]:
    rig = Rig(tick_size)
    rig.ticker.start()
    try:
        yield rig
    finally:
        rig.ticker.close()


def test_without_a_run_time_passes_without_a_tick() -> None:
    with started() as rig:
        rig.advance(10.0)
        assert rig.timestamps() == []
        assert rig.ticker.position == Position(0, WALL)


def test_ticks_come_at_their_deadline_and_not_before() -> None:
    with started() as rig:
        rig.begin()
        rig.advance(0.999)
        assert rig.timestamps() == []
        rig.advance(0.001)
        assert rig.received() == [Tick(1, WALL + 1)]
        rig.advance(1.0)
        assert rig.received() == [Tick(2, WALL + 2)]
        assert rig.ticker.position == Position(2, WALL + 2)


@pytest.mark.parametrize("tick_size", [0.1, 0.3, 0.7])
def test_time_that_moves_by_one_tick_size_at_a_time_meets_every_tick(tick_size: float) -> None:
    with started(tick_size) as rig:
        rig.begin()
        for number in range(1, 200):
            rig.advance(tick_size)
            assert rig.ticker.position.seq == number
        assert rig.ticker.position.skipped == 0


@settings(max_examples=30)
@given(
    tick_size=st.sampled_from([0.1, 0.25, 0.3, 1.0, 7.0]),
    steps=st.lists(st.floats(0.0, 4.0), max_size=15),
)
def test_timestamps_are_multiples_that_rise_and_every_boundary_is_ticked_or_skipped(
    tick_size: float, steps: list[float]
) -> None:
    with started(tick_size) as rig:
        first = rig.schedule.number_at(WALL) + 1
        rig.begin(first)
        for step in steps:
            rig.advance(step)
        ticks = [message for message in rig.received() if isinstance(message, Tick)]
        position = rig.ticker.position
    numbers = [rig.schedule.number_at(tick.timestamp) for tick in ticks]
    assert [tick.seq for tick in ticks] == list(range(1, len(ticks) + 1))
    assert [tick.timestamp for tick in ticks] == [rig.schedule.timestamp(n) for n in numbers]
    assert all(before < after for before, after in itertools.pairwise(numbers))
    passed = itertools.takewhile(
        lambda n: rig.schedule.deadline(n) - ROUNDING <= rig.time.monotonic(),
        itertools.count(first),
    )
    assert position.seq + position.skipped == len(list(passed))


def test_a_long_step_fires_one_tick_and_counts_the_others_as_skipped() -> None:
    with started() as rig:
        rig.begin()
        rig.advance(5.5)
        assert rig.timestamps() == [WALL + 1]
        assert rig.ticker.position == Position(1, WALL + 1, skipped=4)
        rig.advance(0.5)
        assert rig.timestamps() == [WALL + 6]
        assert rig.ticker.position == Position(2, WALL + 6, skipped=4)


def test_a_run_ends_at_its_end_with_a_boundary_there_included() -> None:
    with started() as rig:
        rig.begin(until=2.0)
        rig.advance(1.0)
        assert rig.ends.empty()
        rig.advance(1.0)
        assert rig.ended() is None
        assert rig.timestamps() == [WALL + 1, WALL + 2]
        rig.advance(5.0)
        assert rig.timestamps() == []
        assert rig.ends.empty()


def test_a_run_may_end_between_two_boundaries() -> None:
    with started() as rig:
        rig.begin(until=1.5)
        rig.advance(1.0)
        assert rig.ends.empty()
        rig.advance(0.5)
        assert rig.ended() is None
        assert rig.timestamps() == [WALL + 1]


def test_what_passes_after_the_end_of_a_run_was_not_skipped_by_it() -> None:
    with started() as rig:
        rig.begin(until=3.0)
        rig.advance(60.0)
        assert rig.ended() is None
        assert rig.timestamps() == [WALL + 1]
        assert rig.ticker.position == Position(1, WALL + 1, skipped=2)


def test_after_end_there_are_no_more_ticks_and_nobody_is_told() -> None:
    with started() as rig:
        rig.begin(until=5.0)
        rig.advance(1.0)
        rig.ticker.end()
        assert rig.timestamps() == [WALL + 1]
        rig.advance(10.0)
        rig.ticker.end()
        assert rig.timestamps() == []
        assert rig.ends.empty()


def test_a_tick_that_is_due_when_end_is_called_comes_before_it_returns_or_not_at_all() -> None:
    with started() as rig:
        rig.begin()
        rig.settle()
        rig.time.advance(1.0)
        rig.ticker.end()
        before = rig.ticker.position
        rig.settle()
        assert rig.ticker.position == before
        assert len(rig.timestamps()) == before.seq


def test_a_run_that_follows_goes_on_counting() -> None:
    with started() as rig:
        rig.begin(until=1.0)
        rig.advance(2.5)
        assert rig.ended() is None
        rig.begin(rig.schedule.first(rig.time.monotonic()))
        rig.advance(0.5)
        assert rig.received() == [Tick(1, WALL + 1), Tick(2, WALL + 3)]
        # The boundary between the two runs belonged to none.
        assert rig.ticker.position.skipped == 0


def test_setting_the_wall_clock_moves_no_tick() -> None:
    with started() as rig:
        rig.begin()
        for number, wall in enumerate([WALL + 3600, WALL - 3600, 0.0], start=1):
            rig.time.set_wall(wall)
            rig.settle()
            assert rig.timestamps() == []
            rig.advance(1.0)
            assert rig.timestamps() == [WALL + number]


def stop_at(seq: int) -> Stop:
    """The command as it arrives when it was sent after tick ``seq``."""
    return Stop(incarnation=1, seq=seq, timestamp=WALL + seq)


def test_commands_keep_their_place_among_the_ticks() -> None:
    with started() as rig:
        rig.begin()
        for _ in range(2):
            rig.ticker.send("w", Stop(incarnation=1))
            rig.settle()
            rig.advance(1.0)
        rig.ticker.send("w", Stop(incarnation=1))
        rig.settle()
        first, second = Tick(1, WALL + 1), Tick(2, WALL + 2)
        assert rig.received() == [stop_at(0), first, stop_at(1), second, stop_at(2)]


def test_commands_and_the_end_get_their_turn_when_every_tick_is_overdue() -> None:
    with started() as rig:
        publish = rig.hub.publish

        def slow(frame: bytes) -> None:
            if frame.startswith(TICK_TOPIC):
                rig.time.advance(10.0)  # ten boundaries pass while one tick is published
            publish(frame)

        rig.hub.publish = slow  # type: ignore[method-assign]
        rig.begin()
        rig.time.advance(1.0)
        for _ in range(3):
            rig.settle()
        ended = threading.Thread(target=rig.ticker.end, daemon=True)
        ended.start()
        ended.join(BOUND)
        assert not ended.is_alive()
        position = rig.ticker.position
        assert position.skipped == 9 * position.seq


def test_a_command_knows_how_many_ticks_came_before_it_however_they_race() -> None:
    with started() as rig:
        rig.begin()
        for _ in range(50):
            rig.ticker.send("w", Stop(incarnation=1))
            rig.time.advance(1.0)
        rig.settle()
        ticks = 0
        for message in rig.received():
            if isinstance(message, Tick):
                ticks += 1
            else:
                assert isinstance(message, Stop)
                assert message.seq == ticks


def test_whoever_wants_to_know_is_told_of_each_tick_in_the_thread() -> None:
    with started() as rig:
        told: list[tuple[Position, str]] = []
        rig.ticker.on_tick = lambda position: told.append(
            (position, threading.current_thread().name)
        )
        rig.begin()
        rig.advance(1.0)
        rig.advance(2.5)
        assert told == [
            (Position(1, WALL + 1), "chronopype_mp ticker"),
            (Position(2, WALL + 2, skipped=1), "chronopype_mp ticker"),
        ]


def test_work_is_put_off_between_ticks_and_only_then() -> None:
    with started() as rig:
        assert rig.ticker.wait_for_gap(0.5) == 0.0
        rig.begin()
        rig.advance(0.75)
        assert rig.ticker.wait_for_gap(0.2) == 0.0
        assert rig.ticker.wait_for_gap(0.5) == pytest.approx(0.25 + SETTLED, abs=1e-4)
        assert rig.ticker.wait_for_gap(5.0) == 0.0
        rig.ticker.end()
        assert rig.ticker.wait_for_gap(0.5) == 0.0


def test_what_goes_wrong_in_the_thread_ends_the_run_with_it() -> None:
    with started() as rig:
        rig.begin()
        rig.settle()
        rig.hub.failure = OSError("no more sockets")
        rig.time.advance(1.0)
        assert rig.ended() is rig.hub.failure
        assert rig.failures.get(timeout=BOUND) is rig.hub.failure
        # Nothing waits for a thread that is gone.
        rig.ticker.end()


def test_what_goes_wrong_between_two_runs_is_reported_at_once() -> None:
    with started() as rig:
        rig.hub.failure = OSError("no more sockets")
        rig.ticker.send("w", Stop())
        assert rig.failures.get(timeout=BOUND) is rig.hub.failure


def test_after_a_failure_no_run_can_begin_and_says_why() -> None:
    with started() as rig:
        rig.begin()
        rig.settle()
        rig.hub.failure = OSError("no more sockets")
        rig.time.advance(1.0)
        rig.ended()
        with pytest.raises(ClockError, match="ticker thread has failed") as caught:
            rig.begin()
        assert caught.value.__cause__ is rig.hub.failure


def test_closing_publishes_what_is_queued_and_gives_the_socket_back_in_the_thread() -> None:
    rig = Rig()
    for _ in range(2):
        rig.ticker.send("w", Stop(incarnation=1))
    rig.ticker.start()
    rig.ticker.close()
    assert rig.received() == [stop_at(0), stop_at(0)]
    assert rig.hub.closed_in == "chronopype_mp ticker"
