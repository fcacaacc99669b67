"""The ticker thread owns the PUB socket and publishes at absolute deadlines.

`chronopype_mp.core.schedule` decides when a tick is due. Ticks do not depend on the owner's event
loop, so a blocked loop delays none. Commands to workers are published by this thread, too: a socket
belongs to one thread, and commands and ticks keep the same order for all workers.

A `FreeRun` has no deadlines. Its ticks are published as fast as the slowest worker runs them, and
at most a window ahead of it.
"""

from __future__ import annotations

import contextlib
import ctypes
import math
import queue
import sys
import threading
from collections.abc import Callable
from typing import NamedTuple

import msgspec

from chronopype_mp.core.codec import encode_command, encode_tick, encode_ticks
from chronopype_mp.core.messages import Downlink, Tick, Ticks
from chronopype_mp.core.schedule import Schedule
from chronopype_mp.exceptions import ClockError
from chronopype_mp.timing import TimeSource
from chronopype_mp.transport.base import Hub

__all__ = ["WIDEST_WINDOW", "FreeRun", "Position", "Run", "Ticker"]

PR_SET_TIMERSLACK = 29

BURST = 100
"""Ticks of a free run in one frame."""

WIDEST_WINDOW = 5000
"""Ticks that a worker may be behind in a free run."""

QUEUED_IN_FREE_RUNS = 4 * WIDEST_WINDOW
"""Frames queued for one worker in free runs, which may drop none. libzmq tells the sender how much
was taken from the queue only after half of it, and a millisecond late. A window of a quarter never
fills the queue, even if each frame holds one tick."""

PUBLISHING = 0.0003
"""Seconds, about, until a tick has been published that was due."""

ROUNDING = 1e-6
"""Seconds by which a tick may come early. A deadline is the difference of two numbers in the
billions, so rounding can move it past the time of a clock that advances by exact tick sizes."""


class Position(NamedTuple):
    """Where the clock stands.

    Attributes:
        seq: ticks published so far.
        timestamp: of the last one; before the first, the boundary before the clock was entered.
        skipped: boundaries that passed during runs without a tick, because nobody was awake.
    """

    seq: int
    timestamp: float
    skipped: int = 0


class Run(NamedTuple):
    """A stretch of ticking.

    Attributes:
        schedule: its boundaries.
        first: the number of the first boundary to publish.
        until: when it ends, on the monotonic clock, or None; a boundary at that time is published.
        on_end: called in the ticker thread at ``until``, or with the error that ended the run.
    """

    schedule: Schedule
    first: int
    until: float | None
    on_end: Callable[[BaseException | None], None]


class FreeRun(NamedTuple):
    """A stretch of ticks without deadlines; none may be lost.

    Attributes:
        schedule: its boundaries.
        first: the number of the first boundary to publish.
        ticks: how many to publish.
        window: how many the slowest worker may be behind, 1 to `WIDEST_WINDOW`.
        on_end: called in the ticker thread when all workers have run all ticks, or with the error
            that ended the run.
    """

    schedule: Schedule
    first: int
    ticks: int
    window: int
    on_end: Callable[[BaseException | None], None]


class Ticker:
    """Publishes ticks and commands.

    Args:
        hub: whose publishing half this owns from `start` to `close`.
        timing: where time comes from.
        timestamp: the position's timestamp before the first tick.
        on_failure: called in the ticker thread when it ends because of an error.

    Attributes:
        position: where the clock stands; replaced whole, so any thread may read it.
        on_tick: called in the ticker thread after each tick, if not None.
    """

    def __init__(
        self,
        hub: Hub,
        timing: TimeSource,
        timestamp: float,
        on_failure: Callable[[BaseException], None],
    ) -> None:
        self.position = Position(0, timestamp)
        self._on_failure = on_failure
        self.on_tick: Callable[[Position], None] | None = None
        self._hub = hub
        self._timing = timing
        self._jobs: queue.Queue[Callable[[], None]] = queue.Queue()
        self._run: Run | FreeRun | None = None
        self._number = 0
        self._last = 0
        self._through = math.inf
        self._open = True
        self._failure: BaseException | None = None
        self._thread = threading.Thread(target=self._work, name="chronopype_mp ticker", daemon=True)

    def start(self) -> None:
        """Start the thread."""
        self._thread.start()

    def close(self) -> None:
        """Publish what is queued, end the thread, and wait for it."""
        self._jobs.put(self._finish)
        self._thread.join()

    def begin(self, run: Run | FreeRun) -> None:
        """Begin a run in place of the present one, whose ``on_end`` is not called.

        Raises:
            ClockError: the thread has failed; no more ticks are published.
        """
        if self._failure is not None:
            raise ClockError(
                "the ticker thread has failed; leave the clock and enter it again"
            ) from self._failure
        self._jobs.put(lambda: self._begin(run))

    def end(self) -> None:
        """End the present run, if any. When this returns, no further tick is published."""
        ended = threading.Event()
        self._jobs.put(lambda: self._end(ended))
        while not ended.wait(0.1) and self._thread.is_alive():
            pass

    def send(self, worker: str, command: Downlink) -> None:
        """Publish a command after all ticks so far; the frame carries their position."""
        self._jobs.put(lambda: self._send(worker, command))

    def publish(self, frame: bytes) -> None:
        """Publish a frame as it is, after everything so far; for tests of the transport."""
        self._jobs.put(lambda: self._hub.publish(frame))

    def allow(self, through: float) -> None:
        """Note that all workers have finished the ticks up to ``through``."""
        self._through = through
        self._jobs.put(_look_again)

    def wait_for_gap(self, work: float) -> float:
        """Return in how many seconds to begin ``work`` seconds of work, to fit between two ticks.

        It is 0.0 between runs, and if the tick size is too small for the work.
        """
        run = self._run
        if not isinstance(run, Run):
            return 0.0
        return run.schedule.wait_for_gap(self._timing.monotonic(), work)

    def wait_for_tick(self, work: float) -> float:
        """Return in how many seconds to begin ``work`` seconds of work that keeps the interpreter.

        It is 0.0 unless a tick is due meanwhile or is being published.
        """
        run = self._run
        if not isinstance(run, Run):
            return 0.0
        return run.schedule.wait_for_gap(self._timing.monotonic(), work, PUBLISHING)

    def _send(self, worker: str, command: Downlink) -> None:
        seq, timestamp, _ = self.position
        command = msgspec.structs.replace(command, seq=seq, timestamp=timestamp)
        self._hub.publish(encode_command(worker, command))

    def _begin(self, run: Run | FreeRun) -> None:
        self._run, self._number = run, run.first
        if isinstance(run, FreeRun):
            self._last = self.position.seq + run.ticks

    def _end(self, ended: threading.Event) -> None:
        self._run = None
        ended.set()

    def _finish(self) -> None:
        self._open = False

    def _work(self) -> None:
        _tighten_timer_slack()
        try:
            while self._open:
                if isinstance(self._run, FreeRun) and self._flow(self._run):
                    self._do_jobs()
                    continue
                deadline = self._deadline()
                if deadline is not None and self._timing.monotonic() >= deadline:
                    self._fire()
                    # The next tick may be due already, and the one after that.
                    self._do_jobs()
                    continue
                job = self._timing.get(self._jobs, deadline)
                if job is not None:
                    job()
        except BaseException as error:
            run, self._run = self._run, None
            self._failure = error
            if run is not None:
                run.on_end(error)
            self._on_failure(error)
        finally:
            self._hub.close_publisher()

    def _do_jobs(self) -> None:
        """Do what is queued by now."""
        for _ in range(self._jobs.qsize()):
            job = self._timing.get(self._jobs, -math.inf)
            if job is not None:
                job()

    def _deadline(self) -> float | None:
        run = self._run
        if not isinstance(run, Run):
            return None
        due = run.schedule.deadline(self._number)
        return (due if run.until is None else min(due, run.until)) - ROUNDING

    def _flow(self, run: FreeRun) -> bool:
        """Publish what the window allows; return whether there is more to do at once."""
        seq, _, skipped = self.position
        if self._through >= self._last:
            self._run = None
            run.on_end(None)
            return True
        until = int(min(self._last, self._through + run.window, seq + BURST))
        if until <= seq:
            return False
        numbers = range(self._number, self._number + until - seq)
        timestamps = [run.schedule.timestamp(number) for number in numbers]
        self._hub.publish(encode_ticks(Ticks(seq + 1, timestamps)))
        self._number = numbers.stop
        self.position = Position(until, timestamps[-1], skipped)
        return True

    def _fire(self) -> None:
        run = self._run
        assert isinstance(run, Run)
        if run.until is not None and run.schedule.deadline(self._number) > run.until:
            self._run = None
            run.on_end(None)
            return
        seq, _, skipped = self.position
        timestamp = run.schedule.timestamp(self._number)
        self._hub.publish(encode_tick(Tick(seq + 1, timestamp)))
        fired = self._number
        self._number, more = run.schedule.following(fired, self._timing.monotonic())
        if more and run.until is not None:
            # Boundaries after the end of the run were not skipped by it.
            end = run.schedule.first(run.until)
            last = end if run.schedule.deadline(end) <= run.until else end - 1
            more = min(more, last - fired)
        self.position = Position(seq + 1, timestamp, skipped + more)
        if self.on_tick is not None:
            self.on_tick(self.position)


def _look_again() -> None:
    """Do nothing. A job makes the thread look at its run again."""


def _tighten_timer_slack() -> None:
    """Let the kernel wake this thread within 1 ns of a deadline instead of 50 µs."""
    if sys.platform == "linux":
        with contextlib.suppress(OSError, AttributeError):
            ctypes.CDLL(None).prctl(PR_SET_TIMERSLACK, 1, 0, 0, 0)
