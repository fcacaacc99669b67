"""The guard thread, without a worker process around it."""

from __future__ import annotations

import os
import queue
import threading
from collections.abc import Callable, Iterator

import pytest

from chronopype_mp.core.codec import decode_report
from chronopype_mp.core.messages import GuardBeat
from chronopype_mp.timing import monotonic
from chronopype_mp.worker import guard as guard_module
from chronopype_mp.worker.guard import Guard
from chronopype_mp.worker.watchdog import Watchdog
from tests.boots import boot_of_a

PATIENCE = 10.0
"""Seconds after which something counts as not coming."""


class Interruption(BaseException):
    """No `Exception`."""


class NotedWatchdog(Watchdog):
    """Counts what it is asked for; faulthandler stays as it is."""

    def __init__(self) -> None:
        self.looks = 0
        self.written = 0

    def python_runs(self, now: float) -> None:
        self.looks += 1

    def write(self) -> None:
        self.written += 1


class Rig:
    """A guard, the pipe that stands for its parent, and what it does.

    Attributes:
        beats: what the guard has reported.
        calls: its callbacks, by name.
        threads: the names of the threads in which they were called.
        turned_at: returns when the event loop turned last; set it.
        on_send: called with every report before it is kept; set it.
    """

    def __init__(self, stacks_after: float = 3600.0) -> None:
        self.beats: queue.Queue[GuardBeat] = queue.Queue()
        self.calls: queue.Queue[str] = queue.Queue()
        self.threads: set[str] = set()
        self.errors: list[BaseException] = []
        self.turned_at: Callable[[], float] = monotonic
        self.on_send: Callable[[], None] = lambda: None
        self.on_orphaned: Callable[[], None] = lambda: None
        self.watchdog = NotedWatchdog()
        self.parent, self._parents_end = os.pipe()
        self._closed = False
        self.guard = Guard(
            boot_of_a(beat_interval=0.01, guard_interval=0.01, stacks_after=stacks_after),
            self.parent,
            self._make_sender,
            self.watchdog,
            lambda: self.turned_at(),
            lambda: self._note("asked to turn"),
            self._orphaned,
            self._failed,
        )

    def _note(self, call: str) -> None:
        self.threads.add(threading.current_thread().name)
        self.calls.put(call)

    def _make_sender(self) -> Rig:
        self._note("sender made")
        return self

    def _orphaned(self) -> None:
        self._note("orphaned")
        self.on_orphaned()

    def _failed(self, error: BaseException) -> None:
        self.errors.append(error)
        self._note("failed")

    def send(self, frame: bytes) -> bool:
        self.on_send()
        beat = decode_report(frame)
        assert isinstance(beat, GuardBeat)
        self.beats.put(beat)
        return True

    def close(self, linger: float) -> None:
        self._note("sender closed")

    def beat(self) -> GuardBeat:
        return self.beats.get(timeout=PATIENCE)

    def until_beat(self, condition: Callable[[GuardBeat], bool]) -> GuardBeat:
        while not condition(beat := self.beat()):
            pass
        return beat

    def until_called(self, name: str) -> None:
        while self.calls.get(timeout=PATIENCE) != name:
            pass

    def kill_parent(self) -> None:
        if self._parents_end >= 0:
            os.close(self._parents_end)
            self._parents_end = -1

    def end(self) -> None:
        if not self._closed:
            self._closed = True
            self.guard.close()

    def clean_up(self) -> None:
        self.end()
        self.kill_parent()
        os.close(self.parent)


@pytest.fixture
def make_rig() -> Iterator[Callable[..., Rig]]:
    rigs: list[Rig] = []

    def make(stacks_after: float = 3600.0) -> Rig:
        rigs.append(Rig(stacks_after))
        return rigs[-1]

    yield make
    for rig in rigs:
        rig.clean_up()


@pytest.fixture
def ended(monkeypatch: pytest.MonkeyPatch) -> threading.Event:
    """Set when the process would have been killed."""
    ended = threading.Event()
    monkeypatch.setattr(guard_module, "end_with_children", ended.set)
    return ended


def test_it_reports_a_loop_that_turns_and_asks_nothing_of_it(make_rig: Callable[..., Rig]) -> None:
    rig = make_rig()
    rig.guard.start()
    for _ in range(3):
        assert rig.beat() == GuardBeat(worker="a", incarnation=2, token=99, stalled=0.0)
    rig.end()
    assert rig.watchdog.looks >= 3
    assert rig.watchdog.written == 0
    assert [rig.calls.get_nowait() for _ in range(2)] == ["sender made", "sender closed"]
    assert rig.threads == {"chronopype_mp guard"}
    assert not rig.guard.orphaned


def test_a_loop_that_does_not_turn_is_asked_once_before_it_counts_as_stalled(
    make_rig: Callable[..., Rig],
) -> None:
    rig = make_rig()
    stood_still_at = monotonic() - 100.0
    rig.turned_at = lambda: stood_still_at
    rig.guard.start()
    assert rig.beat().stalled == 0.0
    rig.until_called("asked to turn")
    for _ in range(3):
        assert rig.beat().stalled >= 100.0
    assert rig.calls.empty()
    assert rig.watchdog.written == 0, "the stacks are not due yet"


def test_a_loop_that_answers_does_not_count_as_stalled_and_is_asked_again_later(
    make_rig: Callable[..., Rig],
) -> None:
    rig = make_rig()
    rig.turned_at = lambda: 1.0
    rig.guard.start()
    rig.until_called("asked to turn")
    rig.turned_at = monotonic
    rig.until_beat(lambda beat: beat.stalled == 0.0)
    assert rig.calls.empty()
    stood_still_at = monotonic()
    rig.turned_at = lambda: stood_still_at
    rig.until_called("asked to turn")
    rig.until_beat(lambda beat: beat.stalled > 0.0)


def test_the_stacks_of_a_stalled_loop_are_written_at_every_look(
    make_rig: Callable[..., Rig],
) -> None:
    rig = make_rig(stacks_after=50.0)
    rig.turned_at = lambda: 1.0
    rig.guard.start()
    rig.until_beat(lambda beat: beat.stalled > 0.0)
    written = rig.watchdog.written
    assert written >= 1
    for _ in range(3):
        rig.beat()
    assert rig.watchdog.written > written


def test_the_death_of_the_parent_stops_the_worker_which_has_a_grace_for_that(
    make_rig: Callable[..., Rig], ended: threading.Event
) -> None:
    rig = make_rig()
    rig.guard.start()
    rig.kill_parent()
    rig.until_called("orphaned")
    assert rig.guard.orphaned
    rig.end()  # as the worker does once its loop has ended
    assert not ended.is_set()


def test_an_orphan_that_does_not_stop_in_time_is_killed(
    make_rig: Callable[..., Rig], ended: threading.Event, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(guard_module, "ORPHAN_GRACE", 0.01)
    rig = make_rig()
    rig.guard.start()
    rig.kill_parent()
    assert ended.wait(PATIENCE)


def test_an_orphan_that_cannot_even_be_told_to_stop_is_killed_too(
    make_rig: Callable[..., Rig], ended: threading.Event, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(guard_module, "ORPHAN_GRACE", 0.01)
    rig = make_rig()

    def fail() -> None:
        raise Interruption

    rig.on_orphaned = fail
    rig.guard.start()
    rig.kill_parent()
    assert ended.wait(PATIENCE)
    rig.until_called("failed")


@pytest.mark.parametrize("error", [ValueError("no"), Interruption()])
@pytest.mark.parametrize("where", ["turned_at", "on_send"])
def test_a_guard_that_fails_says_so_and_can_still_be_closed(
    make_rig: Callable[..., Rig], where: str, error: BaseException
) -> None:
    rig = make_rig()

    def fail() -> float:
        raise error

    setattr(rig, where, fail)
    rig.guard.start()
    rig.until_called("failed")
    rig.end()
    assert rig.errors == [error]
    assert rig.threads == {"chronopype_mp guard"}
