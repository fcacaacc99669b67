"""The coordinator: it performs what `chronopype_mp.core.supervisor` decides.

One per stretch between entering and leaving a clock. It launches, signals and reaps processes
(a task per process, so that none holds up another), hands reports on, repeats commands until they
are acknowledged, and turns all that happens into events.
"""

from __future__ import annotations

import asyncio
import logging
import math
import os
from collections import defaultdict
from collections.abc import Callable, Coroutine
from typing import Any

import msgspec

from chronopype_mp.coordinator.boot import boot_of
from chronopype_mp.coordinator.evidence import gather
from chronopype_mp.coordinator.inbox import DropCounts, Inbox
from chronopype_mp.coordinator.killing import kill, kill_for_cause, probe
from chronopype_mp.coordinator.output import OutputPump
from chronopype_mp.coordinator.record import Life, WorkerRecord
from chronopype_mp.coordinator.reports import ReportHandler
from chronopype_mp.coordinator.starts import Starts
from chronopype_mp.coordinator.ticker import QUEUED, QUEUED_IN_FREE_RUNS, Position, Ticker
from chronopype_mp.core.boot import TickRules
from chronopype_mp.core.connection import NetworkStatus
from chronopype_mp.core.events import (
    Event,
    FramesDropped,
    NetworkChanged,
    WorkerDied,
    WorkerReady,
    WorkerStatus,
)
from chronopype_mp.core.messages import Configure, Hello, Rehearse, Stop, Uplink, Welcome
from chronopype_mp.core.restart import RestartBudget
from chronopype_mp.core.stimuli import (
    Action,
    Added,
    Beaten,
    Begun,
    CheckDeadlines,
    Deferred,
    Evidence,
    Exited,
    Kill,
    Launch,
    LaunchFailed,
    Probe,
    RestartAsked,
    SendStop,
    Stimulus,
    StopAsked,
)
from chronopype_mp.core.supervisor import CLOCK_BUDGET, Supervisor, WorkerView
from chronopype_mp.exceptions import WorkerError
from chronopype_mp.launchers import Launcher
from chronopype_mp.timing import TimeSource

__all__ = ["Coordinator"]

logger = logging.getLogger("chronopype_mp.coordinator")

CHECK_INTERVAL = 0.1
"""Seconds between two looks at deadlines and unacknowledged commands, at the most."""

SHORTEST_CHECK = 0.005
"""And at the least."""

TERMINATE_AFTER = 1.0
"""Seconds without an answer after which SIGTERM asks for the stop, too."""

LAST_REPORTS = 0.25
"""Seconds, at most, for what an ended process had sent to come out of the socket."""

REAP_GRACE = 5.0
"""Seconds beyond all stop deadlines after which an unkillable process is given up."""

DROPS_INTERVAL = 1.0
"""Seconds between two events about dropped frames."""


class Coordinator:
    """Runs the workers of one clock.

    Args:
        launcher: starts them.
        timing: where time comes from.
        rules: how they execute ticks.
        timestamp: the clock's time on entry.
        emit: called with each event, in the event loop.
        budget: the restarts of all workers together.
        event_loop: what their event loops are: ``"asyncio"`` or ``"uvloop"``.

    Raises:
        TransportError: the sockets cannot be bound.
    """

    def __init__(
        self,
        launcher: Launcher,
        timing: TimeSource,
        rules: TickRules,
        timestamp: float,
        emit: Callable[[Event], None],
        budget: RestartBudget = CLOCK_BUDGET,
        event_loop: str = "asyncio",
    ) -> None:
        self._launcher = launcher
        self._timing = timing
        self._rules = rules
        self._event_loop = event_loop
        self._emit = emit
        self._supervisor = Supervisor(budget)
        self._records: dict[str, WorkerRecord] = {}
        self._lives: set[asyncio.Task[None]] = set()
        self._tasks: set[asyncio.Task[None]] = set()
        self._waiters: defaultdict[str | None, list[asyncio.Future[None]]] = defaultdict(list)
        self._hub = launcher.open_hub(QUEUED_IN_FREE_RUNS if rules.every_tick else QUEUED)
        self._starts = Starts()
        self._output = OutputPump()
        self._inbox = Inbox(self._hub, self._deliver)
        self._told_drops = DropCounts()
        self._told_drops_at = timing.monotonic()
        self._reports = ReportHandler(
            self._stimulate, self.emit, self._welcome, self._configure, self._tell_progress
        )
        self.ticker = Ticker(self._hub, timing, timestamp)
        self.is_open = True
        self._closed = asyncio.Event()
        self._hub.attach(asyncio.get_running_loop(), self._inbox.on_readable)
        self._output.start()
        self.ticker.start()
        self._watch = asyncio.create_task(self._watch_time(), name="chronopype_mp coordinator")

    @property
    def position(self) -> Position:
        """Where the clock stands."""
        return self.ticker.position

    @property
    def dropped(self) -> DropCounts:
        """Frames dropped so far."""
        return self._inbox.dropped

    def view(self, name: str) -> WorkerView:
        """Return what the supervisor knows of a worker that was added once."""
        return self._supervisor.view(name)

    def emit(self, event: Event) -> None:
        """Publish an event, stamped with the wall clock."""
        event = msgspec.structs.replace(event, at=self._timing.wall())
        if isinstance(event, WorkerDied):
            self._records[event.worker].last_failure = event
        elif isinstance(event, WorkerReady):
            self._leave_start(event.worker)
        self._emit(event)
        for worker in {None, getattr(event, "worker", None)}:
            for waiter in self._waiters.pop(worker, ()):
                if not waiter.done():
                    waiter.set_result(None)

    def _leave_start(self, worker: str) -> None:
        life = self._records[worker].life
        if life is not None:
            life.place.leave()

    # What the owner asks for

    def add(self, record: WorkerRecord) -> None:
        """Start a worker."""
        self._records[record.name] = record
        self._stimulate(
            Added(
                record.name,
                record.policy,
                seed=f"{os.getpid()} {record.name}",
                group=record.group,
                strategy=record.strategy,
            )
        )

    def has(self, record: WorkerRecord) -> bool:
        """Whether ``record`` is the one that goes by its name here."""
        return self._records.get(record.name) is record

    def is_taken(self, name: str) -> bool:
        """Whether a worker of that name is here and not STOPPED."""
        return (
            name in self._records and self._supervisor.view(name).status is not WorkerStatus.STOPPED
        )

    def stop(self, name: str) -> None:
        """Stop a worker for good; `wait_stopped` waits for it."""
        self._stimulate(StopAsked(name))

    async def restart(self, name: str) -> None:
        """Start a new process for a worker and wait until it is READY."""
        before = self._supervisor.view(name)
        self._stimulate(RestartAsked(name))
        newer = before.status is not WorkerStatus.STARTING
        await self.wait_ready(name, before.incarnation + newer)

    async def wait_ready(self, name: str, incarnation: int) -> None:
        """Wait until a worker is READY in ``incarnation`` or a later one.

        Raises:
            WorkerError: it was stopped or quarantined.
        """
        while True:
            view = self._supervisor.view(name)
            if view.status is WorkerStatus.READY and view.incarnation >= incarnation:
                return
            if view.status in (WorkerStatus.STOPPED, WorkerStatus.QUARANTINED):
                raise WorkerError(name, f"it is {view.status.name} and will not get READY")
            await self.next_event(name)

    async def wait_stopped(self, name: str) -> None:
        """Wait until a worker is STOPPED."""
        while self._supervisor.view(name).status is not WorkerStatus.STOPPED:
            await self.next_event(name)

    def next_event(self, worker: str | None = None) -> asyncio.Future[None]:
        """Return a future that is done after the next event, of all or of one worker."""
        waiter: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._waiters[worker].append(waiter)
        return waiter

    def settings_changed(self, record: WorkerRecord) -> None:
        """Tell a running worker of its new settings; repeated until it confirms."""
        life = record.life
        if life is not None and life.ready and not life.stopping:
            self._configure(record)

    async def close(
        self, timeout: float | None = None, last: Callable[[], None] | None = None
    ) -> None:
        """Stop all workers side by side, then the machinery; wait if that is under way already.

        Cancelling this kills what is left at once.

        Args:
            timeout: seconds after which what is left is killed; None for the workers' own
                ``stop_grace``.
            last: called in the end, unless cancelled.
        """
        if not self.is_open:
            await self._wait_closed(timeout)
            return
        self.is_open = False
        try:
            await self._close(timeout)
            await asyncio.sleep(0)  # what the last ticks have queued comes first
            if last is not None:
                last()
        finally:
            self._closed.set()

    async def _close(self, timeout: float | None) -> None:
        try:
            for name in self._records:
                self.stop(name)
            await self._all_stopped(timeout)
        finally:
            self._kill_all()
            self._watch.cancel()
            self._inbox.drain()
            self._tell_drops()
            self.ticker.close()
            self._hub.close()
            self._close_output()
            self._launcher.close()

    async def _wait_closed(self, timeout: float | None) -> None:
        """Wait for a close that another task has begun, no longer than if it were ours."""
        try:
            async with asyncio.timeout(timeout):
                await self._closed.wait()
        except TimeoutError:
            self._kill_all()
            await self._closed.wait()
        except asyncio.CancelledError:
            self._kill_all()
            raise

    async def _all_stopped(self, timeout: float | None) -> None:
        grace = max((record.policy.stop_grace for record in self._records.values()), default=0.0)
        if timeout is not None and self._lives:
            await asyncio.wait(set(self._lives), timeout=timeout)
            self._kill_all()
        if self._lives:
            await asyncio.wait(set(self._lives), timeout=grace + REAP_GRACE)
        for name in self._records:
            if self._supervisor.view(name).status is not WorkerStatus.STOPPED:
                logger.error("worker %r cannot be killed; it is left behind", name)
        for life in self._lives:
            life.cancel()
        if self._lives:
            await asyncio.wait(set(self._lives))

    def _close_output(self) -> None:
        for record in self._records.values():
            if record.life is not None and record.life.output is not None:
                record.life.output.finish()  # of a process that was left behind
        self._output.close()

    def _kill_all(self) -> None:
        for record in self._records.values():
            if record.life is not None:
                kill(record.life)

    # What the supervisor decides

    def _stimulate(self, stimulus: Stimulus) -> None:
        actions, events = self._supervisor.handle(stimulus, self._timing.monotonic())
        # Actions first: a follower of the events may ask for something that builds on them.
        for action in actions:
            self._perform(action)
        for event in events:
            self.emit(event)

    def _perform(self, action: Action) -> None:
        record = self._records[action.worker]
        match action:
            case Launch():
                record.life = Life(action.incarnation, self._starts.ask())
                task = asyncio.create_task(
                    self._live(record, record.life), name=f"life of {record.name}"
                )
                self._lives.add(task)
                task.add_done_callback(self._lives.discard)
            case SendStop():
                if record.life is not None:
                    record.life.stopping = True
                    record.life.stop_asked_at = self._timing.monotonic()
                    self._tell_progress()
                    self._send_stop(record, record.life)
            case Kill():
                if record.life is not None:
                    self._in_task(kill_for_cause(record, record.life))
            case Probe():
                if record.life is not None:
                    self._in_task(self._probe(record, record.life))

    async def _probe(self, record: WorkerRecord, life: Life) -> None:
        self._stimulate(await probe(record, life))

    def _in_task(self, work: Coroutine[Any, Any, None]) -> None:
        task = asyncio.create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _live(self, record: WorkerRecord, life: Life) -> None:
        """Start one process, see it to its end, report that."""
        try:
            if await self._may_start(record, life):
                await self._live_now(record, life)
            else:
                record.life = None
                never = Evidence(pid=None, exitcode=None)
                self._stimulate(Exited(record.name, life.incarnation, never))
        finally:
            life.place.leave()

    async def _may_start(self, record: WorkerRecord, life: Life) -> bool:
        """Wait for a place; return False if the process was to be killed before it had one."""
        if life.place.granted.done():
            return life.place.granted.result()
        self._stimulate(Deferred(record.name, life.incarnation))
        granted = await life.place.granted
        if granted:
            self._stimulate(Begun(record.name, life.incarnation))
        return granted

    async def _live_now(self, record: WorkerRecord, life: Life) -> None:
        try:
            original, record.launched = None if record.launched else record.original, True
            life.process = await self._launcher.start(
                boot_of(record, life, self._hub, self._rules, self._event_loop),
                self._hub,
                original,
                self.ticker.wait_for_gap,
            )
        except Exception as error:
            # OSError and EOFError (the forkserver died) are known; whatever else a launcher
            # raises must not leave the supervisor waiting either.
            logger.debug("worker %r cannot be launched", record.name, exc_info=True)
            record.life = None
            message = f"{type(error).__name__}: {error}"
            self._stimulate(LaunchFailed(record.name, life.incarnation, message))
            return
        if life.process.pipes is not None:
            life.output = self._output.watch(record.name, life.process.pipes)
        if life.kill_asked:
            life.process.kill()
        if life.early_ready is not None:
            self._reports.handle(record, life, life.early_ready)
        end = await life.process.wait()
        life.place.leave()
        life.process.clean_up()
        await self._inbox.catch_up(LAST_REPORTS)
        record.life = None
        self._tell_progress()
        evidence = gather(
            record, life, end, record.ledger.close(self.position.seq, life.stop_begun)
        )
        record.process_ended()
        self._note_network_gone(record, life)
        self._stimulate(Exited(record.name, life.incarnation, evidence))

    def _note_network_gone(self, record: WorkerRecord, life: Life) -> None:
        before = record.network_status
        record.update(state=msgspec.structs.replace(record.state, is_active=False))
        if before is not NetworkStatus.STOPPED:
            record.update(network_status=NetworkStatus.STOPPED)
            self.emit(
                NetworkChanged(
                    worker=record.name,
                    incarnation=life.incarnation,
                    before=before,
                    after=NetworkStatus.STOPPED,
                    error="the worker's process ended",
                )
            )

    def _tell_progress(self) -> None:
        """Tell the ticker how far the slowest worker is, where each tick is to be run."""
        if self._rules.every_tick:
            lives = (record.life for record in self._records.values())
            running = [life.through for life in lives if life and life.ready and not life.stopping]
            self.ticker.allow(min(running, default=math.inf))

    # Reports and commands

    def _deliver(self, report: Uplink) -> str | None:
        record = self._records.get(report.worker)
        if record is None:
            return "foreign"
        life = record.life
        if life is None or report.incarnation != life.incarnation:
            return "stale"
        self._reports.handle(record, life, report)
        return "garbage" if life.refused and isinstance(report, Hello) else None

    def _welcome(self, record: WorkerRecord, life: Life) -> None:
        if life.welcomed_with is None:
            life.welcomed_with = life.settings_done = record.version
        settings, incarnation = record.settings, life.incarnation
        self.ticker.send(
            record.name,
            lambda position: Welcome(incarnation, position.seq, position.timestamp, settings),
        )

    def _configure(self, record: WorkerRecord) -> None:
        life = record.life
        assert life is not None
        command = Configure(life.incarnation, record.version, record.settings)
        self.ticker.send(record.name, lambda _: command)

    def rehearse(self, record: WorkerRecord, fault: str, amount: float) -> None:
        """Have a worker do itself harm, once."""
        life = record.life
        if life is not None:
            command = Rehearse(life.incarnation, fault, amount)
            self.ticker.send(record.name, lambda _: command)

    def _send_stop(self, record: WorkerRecord, life: Life) -> None:
        incarnation, ledger = life.incarnation, record.ledger

        def make(position: Position) -> Stop:
            ledger.stop_sent(position.seq)
            return Stop(incarnation, position.seq)

        self.ticker.send(record.name, make)

    def _repeat_commands(self) -> None:
        for record in self._records.values():
            life = record.life
            if life is None or not life.ready:
                continue
            if life.stopping:
                if not life.stop_begun:
                    self._send_stop(record, life)
                    if self._timing.monotonic() >= life.stop_asked_at + TERMINATE_AFTER:
                        life.terminate()
            elif life.settings_done < record.version:
                self._configure(record)

    async def _watch_time(self) -> None:
        """Look at the deadlines now and then; how late that is, is nobody else's fault."""
        due = self._timing.monotonic() + CHECK_INTERVAL
        while True:
            await self._timing.sleep_until(due)
            now = self._timing.monotonic()
            self._inbox.drain()
            self._vouch_for_inline()
            self._stimulate(CheckDeadlines(lateness=now - due))
            self._repeat_commands()
            if now - self._told_drops_at >= DROPS_INTERVAL:
                self._told_drops_at = now
                self._tell_drops()
            next_one = self._supervisor.next_deadline()
            due = now + CHECK_INTERVAL
            if next_one is not None:
                due = min(due, max(next_one, now + SHORTEST_CHECK))

    def _vouch_for_inline(self) -> None:
        """Beat for the workers in this loop, which turns: their own beats come in real time."""
        for record in self._records.values():
            life = record.life
            if life and life.ready and life.process and life.process.inline:
                self._stimulate(Beaten(record.name, life.incarnation))

    def _tell_drops(self) -> None:
        told, now = self._told_drops, self._inbox.dropped
        if now != told:
            self._told_drops = now
            self.emit(
                FramesDropped(
                    garbage=now.garbage - told.garbage,
                    foreign=now.foreign - told.foreign,
                    stale=now.stale - told.stale,
                )
            )
