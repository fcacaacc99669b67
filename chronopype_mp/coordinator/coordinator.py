"""The coordinator wires a clock's parts: supervisor, incarnations, ticker, inbox.

There is one for each use of a clock, from entering to leaving. It performs what
`chronopype_mp.core.supervisor` decides and publishes events. What concerns one process is in
`chronopype_mp.coordinator.incarnation`.
"""

from __future__ import annotations

import asyncio
import contextlib
import functools
import logging
import math
import os
from collections import deque
from collections.abc import Callable

import msgspec

from chronopype_mp.coordinator.callbacks import Guard
from chronopype_mp.coordinator.descriptor_budget import DescriptorBudget
from chronopype_mp.coordinator.inbox import DropCounts, Inbox
from chronopype_mp.coordinator.incarnation import Incarnation, Machinery
from chronopype_mp.coordinator.output import OutputPump
from chronopype_mp.coordinator.output_inlet import OutputInlet
from chronopype_mp.coordinator.output_stream import OutputStream
from chronopype_mp.coordinator.record import WorkerRecord
from chronopype_mp.coordinator.retained import RetainedMessages
from chronopype_mp.coordinator.starts import Starts
from chronopype_mp.coordinator.switchboard import Switchboard
from chronopype_mp.coordinator.ticker import QUEUED_IN_FREE_RUNS, Position, Ticker
from chronopype_mp.core.boot import TickRules
from chronopype_mp.core.messages import AskRetained, Bye, Downlink, SendAttributes, Uplink
from chronopype_mp.core.outputs import OutputPolicy
from chronopype_mp.core.restart import RestartBudget
from chronopype_mp.core.stimuli import (
    Action,
    Added,
    CheckDeadlines,
    Kill,
    Launch,
    PolicyChanged,
    Probe,
    RestartAsked,
    SendStop,
    StartAsked,
    Stimulus,
    StopAsked,
)
from chronopype_mp.core.supervisor import CLOCK_BUDGET, Supervisor, WorkerView
from chronopype_mp.core.worker_events import (
    Event,
    FramesDropped,
    WorkerDied,
    WorkerReady,
    WorkerStatus,
    WorkerStopped,
)
from chronopype_mp.exceptions import WorkerError
from chronopype_mp.launchers import Launcher
from chronopype_mp.timing import TimeSource, loop_time
from chronopype_mp.transport.base import FRAMES_QUEUED

__all__ = ["Coordinator"]

logger = logging.getLogger("chronopype_mp.coordinator")

CHECK_INTERVAL = 0.1
"""Seconds, at most, between two looks at deadlines and unacknowledged commands."""

SHORTEST_CHECK = 0.005
"""Seconds, at least, between two looks."""

REAP_GRACE = 5.0
"""Seconds beyond all stop deadlines after which an unkillable process is given up."""

SHORTEST_WAIT, LONGEST_WAIT = 0.05, 0.5
"""Seconds that the end of a run waits at most for the workers' attributes. Within them it is half a
tick, so that a worker that does not answer makes no gap between two runs."""

OUTPUTS_WITHIN = 1.0
"""Seconds that the outputs of ended processes have to arrive when the clock is left."""

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
        on_failure: called in the event loop when a task or thread of the machinery, which should
            last until `close`, has ended with an error. The clock is then unsupervised.
        budget: the restarts of all workers together.
        event_loop: the workers' event loops: ``"asyncio"`` or ``"uvloop"``.
        guard: calls what may run the owner's code, such as log handlers; None for one of its own.
        outputs: who follows the outputs of the workers; None for nobody.
        output_policy: what becomes of outputs that are not read in time.

    Attributes:
        hub: the coordinator's end of the transport.
        ticker: publishes ticks and commands.
        switchboard: calls methods of workers.

    Raises:
        TransportError: the sockets cannot be bound, or there are hardly any file descriptors.
    """

    def __init__(
        self,
        launcher: Launcher,
        timing: TimeSource,
        rules: TickRules,
        timestamp: float,
        emit: Callable[[Event], None],
        on_failure: Callable[[BaseException], None],
        budget: RestartBudget = CLOCK_BUDGET,
        event_loop: str = "asyncio",
        guard: Guard | None = None,
        outputs: OutputStream | None = None,
        output_policy: OutputPolicy = OutputPolicy(),  # noqa: B008 – frozen
    ) -> None:
        self._guard = Guard() if guard is None else guard
        self._launcher = launcher
        self._timing = timing
        self._rules = rules
        self._emit = emit
        self._on_failure = on_failure
        self._loop = asyncio.get_running_loop()
        self._supervisor = Supervisor(budget)
        self._records: dict[str, WorkerRecord] = {}
        self._running: set[asyncio.Task[None]] = set()
        self._unpublished: deque[tuple[Event, WorkerRecord | None]] = deque()
        self._publishing = False
        self._waiters: dict[str | None, set[asyncio.Future[None]]] = {}
        self._told_drops = DropCounts()
        self._told_drops_at = timing.monotonic()
        self._closing: asyncio.Task[None] | None = None
        self._descriptors = DescriptorBudget()
        self.hub = launcher.open_hub(QUEUED_IN_FREE_RUNS if rules.every_tick else FRAMES_QUEUED)
        self._output = OutputPump(self._thread_failed)
        self._inbox = Inbox(self.hub, self._deliver)
        self.ticker = Ticker(self.hub, timing, timestamp, self._thread_failed)
        self.switchboard = Switchboard(self._records, self._status)
        self._stream = OutputStream(self._guard, output_policy) if outputs is None else outputs
        self._outputs = OutputInlet(
            self.hub.outputs, self._stream, self._inbox.drop, self.ticker.wait_for_tick
        )
        self._retained = RetainedMessages(self.hub.messages)
        self._machinery = Machinery(
            launcher=launcher,
            hub=self.hub,
            ticker=self.ticker,
            inbox=self._inbox,
            output=self._output,
            starts=Starts(),
            timing=timing,
            rules=rules,
            event_loop=event_loop,
            outputs=output_policy,
            guard=self._guard,
            on_failure=self._fail,
            switchboard=self.switchboard,
        )
        self.hub.attach(self._loop, functools.partial(self._read, self._inbox.on_readable))
        self._stream.open(self._loop)
        self.hub.outputs.attach(
            self._loop, functools.partial(self._read, self._outputs.on_readable)
        )
        self.hub.messages.attach(
            self._loop, functools.partial(self._read, self._retained.on_readable)
        )
        self.hub.watch_threads(self._thread_failed)
        self._output.start()
        self.ticker.start()
        self._watch = self._start_watch()

    @property
    def is_open(self) -> bool:
        """Whether `close` has not been called."""
        return self._closing is None

    @property
    def position(self) -> Position:
        """Where the clock stands."""
        return self.ticker.position

    @property
    def dropped(self) -> DropCounts:
        """Frames dropped so far."""
        return self._inbox.dropped

    @property
    def waiters(self) -> int:
        """How many futures of `next_event` are not done."""
        return sum(map(len, self._waiters.values()))

    def view(self, name: str) -> WorkerView:
        """Return what the supervisor knows of a worker.

        Raises:
            KeyError: there is no such worker.
        """
        return self._supervisor.view(name)

    def emit(self, *events: Event) -> None:
        """Publish events, stamped with the wall clock, after those that are being published.

        What a sink asks for while it is told of an event leads to events that come later for
        everyone: after that event, and after those with the same cause.
        """
        for event in events:
            event = msgspec.structs.replace(event, at=self._timing.wall())
            name = getattr(event, "worker", None)
            record = None if name is None else self._records.get(name)
            if record is not None:
                if isinstance(event, WorkerDied):
                    record.last_failure = event
                elif isinstance(event, WorkerReady) and record.incarnation is not None:
                    record.incarnation.start_is_over()
            self._unpublished.append((event, record))
        if self._publishing:
            return
        self._publishing = True
        try:
            while self._unpublished:
                self._publish(*self._unpublished.popleft())
        finally:
            self._publishing = False

    def _publish(self, event: Event, record: WorkerRecord | None) -> None:
        self._emit(event)
        for key in {None, getattr(event, "worker", None)}:
            for waiter in self._waiters.pop(key, ()):
                if not waiter.done():
                    waiter.set_result(None)
        if record is not None and isinstance(event, WorkerStopped):
            self._forget_if_removed(record)

    # What the owner asks for

    def check_room(self, more: int) -> None:
        """Check that there are file descriptors for ``more`` workers.

        Raises:
            ConfigError: there are not.
        """
        per_worker = self.hub.per_worker
        if not self._descriptors.fits(len(self._records) + more, per_worker):
            running = sum(map(self.is_taken, self._records))
            self._descriptors.check(running + more, per_worker)

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
        """Whether ``record`` is the one with its name here."""
        return self._records.get(record.name) is record

    def is_taken(self, name: str) -> bool:
        """Whether a worker of that name is here and not STOPPED."""
        return self._status(name) is not WorkerStatus.STOPPED

    def stop(self, name: str) -> None:
        """Stop a worker until `start`; `wait_stopped` waits for it."""
        self._stimulate(StopAsked(name))

    def start(self, name: str) -> None:
        """Start a worker that was stopped, or is being stopped; `wait_ready` waits for it."""
        self._stimulate(StartAsked(name))

    def uptime(self, name: str) -> float:
        """Return for how long a worker's present process has run, seconds; 0.0 without one."""
        launched_at = self.view(name).launched_at
        return 0.0 if launched_at is None else self._timing.monotonic() - launched_at

    def remove(self, record: WorkerRecord) -> None:
        """Stop a worker, and forget it once it is STOPPED."""
        record.is_removed = True
        self.stop(record.name)
        self._forget_if_removed(record)

    async def restart(self, name: str) -> None:
        """Start a new process for a worker and wait until it is READY."""
        before = self._supervisor.view(name)
        self._stimulate(RestartAsked(name))
        wanted = before.incarnation
        if before.status is not WorkerStatus.STARTING:
            wanted += 1
        await self.wait_ready(name, wanted)

    async def wait_ready(self, name: str, incarnation: int) -> None:
        """Wait until a worker is READY in ``incarnation`` or a later one.

        Raises:
            WorkerError: it was stopped or quarantined.
        """
        while True:
            status = self._status(name)
            if status in (WorkerStatus.STOPPED, WorkerStatus.QUARANTINED):
                remedy = "; start() starts it" if self.is_open and name in self._records else ""
                raise WorkerError(name, f"it is {status.name} and will not become READY{remedy}")
            if status is WorkerStatus.READY and self.view(name).incarnation >= incarnation:
                return
            await self.next_event(name)

    async def wait_stopped(self, name: str) -> None:
        """Wait until a worker is STOPPED."""
        while self._status(name) is not WorkerStatus.STOPPED:
            await self.next_event(name)

    def next_event(self, worker: str | None = None) -> asyncio.Future[None]:
        """Return a future that is done after the next event, of all workers or of one."""
        waiter: asyncio.Future[None] = self._loop.create_future()
        self._waiters.setdefault(worker, set()).add(waiter)

        def leave(_: asyncio.Future[None]) -> None:
            waiters = self._waiters.get(worker)
            if waiters is not None:
                waiters.discard(waiter)
                if not waiters:
                    del self._waiters[worker]

        waiter.add_done_callback(leave)
        return waiter

    def settings_changed(self, record: WorkerRecord) -> None:
        """Bring new settings to a worker; repeated until it acknowledges them."""
        if record.incarnation is not None:
            record.incarnation.configure()

    def policy_changed(self, record: WorkerRecord) -> None:
        """Supervise a worker as its record says from now on."""
        self._stimulate(PolicyChanged(record.name, record.policy))

    def order(self, record: WorkerRecord, command: Downlink) -> None:
        """Give a worker an order, if it has a process that is READY."""
        if record.incarnation is not None:
            record.incarnation.order(command)

    async def fetch_attributes(self) -> None:
        """Have the attributes of all READY workers set on their owner's objects.

        Returns once that is done, or after half a tick, at least 0.05 and at most 0.5 s. The
        attributes of a worker that is busy for longer come later.
        """
        answers = set()
        for record in self._records.values():
            if record.original is not None and self._status(record.name) is WorkerStatus.READY:
                request, answer = record.view.ask()
                self.order(record, SendAttributes(request=request))
                answers.add(answer)
        if answers:
            within = min(LONGEST_WAIT, max(SHORTEST_WAIT, self._rules.tick_size / 2))
            await asyncio.wait(answers, timeout=within)

    async def close(
        self, timeout: float | None = None, last: Callable[[], None] | None = None
    ) -> None:
        """Stop all workers side by side, then the machinery; join a close that is under way.

        Cancelling this kills what is left; the CancelledError is raised once all has ended.

        Args:
            timeout: seconds after which the remaining processes are killed; None for the workers'
                own ``stop_grace``.
            last: called at the end, unless cancelled or another close was under way.
        """
        is_first = self._closing is None
        if self._closing is None:
            self._closing = self._loop.create_task(self._close(), name="close of a clock")
        try:
            await asyncio.wait({self._closing}, timeout=timeout)
            if not self._closing.done():
                self._kill_all()
                await asyncio.wait({self._closing})
        except asyncio.CancelledError:
            self._kill_all()
            await _finish(self._closing)
            if self._closing.cancelled():
                # Before its first step, with all tasks of the event loop.
                self._closing = self._loop.create_task(self._close(), name="close of a clock")
                await _finish(self._closing)
            raise
        await self._closing
        await asyncio.sleep(0)  # what the last ticks have queued comes first
        if last is not None and is_first:
            last()

    async def _close(self) -> None:
        if self._watch.done():
            self._watch = self._start_watch()  # stops have deadlines, too
        with contextlib.ExitStack() as last:
            # In the reverse order, each one whatever becomes of the others.
            last.callback(self._launcher.close)
            last.callback(self._output.close)
            last.callback(self.hub.close)
            last.callback(self.ticker.close)
            last.callback(self._tell_drops)
            last.callback(self._read, self._inbox.drain)
            last.callback(self._watch.cancel)
            last.callback(self._kill_all)
            for name in list(self._records):
                self.stop(name)
            await self._all_stopped()
            await self._outputs.settle(OUTPUTS_WITHIN)

    async def _all_stopped(self) -> None:
        grace = max((record.policy.stop_grace for record in self._records.values()), default=0.0)
        await self._all_ended(grace + REAP_GRACE)
        for record in self._records.values():
            if self._supervisor.view(record.name).status is not WorkerStatus.STOPPED:
                self._guard.log(
                    logger,
                    logging.ERROR,
                    "worker %r cannot be killed; it is left behind",
                    record.name,
                )
            if record.incarnation is not None:
                record.incarnation.give_up()
        await self._all_ended(REAP_GRACE)

    async def _all_ended(self, timeout: float) -> None:
        """Wait until no process is left; being cancelled meanwhile kills them."""
        until = loop_time() + timeout
        while self._running and (left := until - loop_time()) > 0:
            try:
                await asyncio.wait(set(self._running), timeout=left)
            except asyncio.CancelledError:
                self._kill_all()

    def _kill_all(self) -> None:
        for record in self._records.values():
            if record.incarnation is not None:
                record.incarnation.kill()

    def _status(self, name: str) -> WorkerStatus:
        """Return a worker's status; STOPPED for one that is not, or no longer, here."""
        if name not in self._records:
            return WorkerStatus.STOPPED
        return self._supervisor.view(name).status

    def _forget_if_removed(self, record: WorkerRecord) -> None:
        if record.is_removed and self.has(record) and not self.is_taken(record.name):
            record.last_view = self._supervisor.view(record.name)
            record.payload, record.saved_state = b"", None
            del self._records[record.name]
            self._supervisor.forget(record.name)

    # What the supervisor decides

    def _stimulate(self, stimulus: Stimulus) -> None:
        actions, events = self._supervisor.handle(stimulus, self._timing.monotonic())
        # Actions first: a subscriber of the events may ask for something that builds on them.
        for action in actions:
            self._perform(action)
        self.emit(*events)
        self._tell_progress()

    def _perform(self, action: Action) -> None:
        record = self._records[action.worker]
        if isinstance(action, Launch):
            record.incarnation = Incarnation(
                record, action.incarnation, self._machinery, self._stimulate, self.emit
            )
            self._expect_outputs(record.incarnation)
            self._running.add(record.incarnation.ended)
            record.incarnation.ended.add_done_callback(self._running.discard)
            record.incarnation.ended.add_done_callback(self._task_ended)
        elif record.incarnation is not None:
            match action:
                case SendStop():
                    record.incarnation.stop()
                case Kill():
                    record.incarnation.kill(stacks=action.stacks)
                case Probe():
                    record.incarnation.probe()

    def _expect_outputs(self, incarnation: Incarnation) -> None:
        token, record = incarnation.token, incarnation.record
        self._outputs.expect(token, record.name, incarnation.number, record.payload_types)
        incarnation.ended.add_done_callback(lambda _: self._outputs.ended(token))

    def _tell_progress(self) -> None:
        """Tell the ticker how far the slowest worker is in a free run."""
        if self._rules.every_tick:
            all_progress = (
                record.incarnation.progress
                for record in self._records.values()
                if record.incarnation is not None
            )
            slowest = min((each for each in all_progress if each is not None), default=math.inf)
            self.ticker.allow(slowest)

    # Reports

    def _read(self, read: Callable[[], None]) -> None:
        """Handle what has come in."""
        try:
            read()
        except (KeyboardInterrupt, SystemExit):
            raise
        except BaseException as error:
            self._fail(error)

    def _deliver(self, report: Uplink) -> str | None:
        record = self._records.get(report.worker)
        if record is None:
            return "foreign"
        incarnation = record.incarnation
        if incarnation is None or report.incarnation != incarnation.number:
            return "stale"
        dropped = incarnation.take(report)
        if dropped is None and isinstance(report, Bye):
            self._outputs.said_bye(report.token, report.outputs.sent)
        elif dropped is None and isinstance(report, AskRetained):
            self._retained.ask(report)
        self._tell_progress()
        return dropped

    # Permanent tasks and threads

    def _start_watch(self) -> asyncio.Task[None]:
        watch = self._loop.create_task(self._watch_time(), name="chronopype_mp coordinator")
        watch.add_done_callback(self._task_ended)
        return watch

    async def _watch_time(self) -> None:
        """Check deadlines regularly. How late a check is, is not the workers' fault."""
        due = self._timing.monotonic() + CHECK_INTERVAL
        while True:
            await self._timing.sleep_until(due)
            now = self._timing.monotonic()
            self._inbox.drain()
            self._stimulate(CheckDeadlines(lateness=now - due))
            for record in list(self._records.values()):
                if record.incarnation is not None:
                    record.incarnation.look_at_the_time()
            if now - self._told_drops_at >= DROPS_INTERVAL:
                self._told_drops_at = now
                self._tell_drops()
            due = now + CHECK_INTERVAL
            next_one = self._supervisor.next_deadline()
            if next_one is not None:
                due = min(due, max(next_one, now + SHORTEST_CHECK))

    def _tell_drops(self) -> None:
        told, now = self._told_drops, self._inbox.dropped
        if now != told:
            self._told_drops = now
            self.emit(
                FramesDropped(
                    garbage=now.garbage - told.garbage,
                    foreign=now.foreign - told.foreign,
                    stale=now.stale - told.stale,
                    forged=now.forged - told.forged,
                )
            )

    def _task_ended(self, task: asyncio.Task[None]) -> None:
        if task.cancelled():
            if self.is_open:
                self._fail(RuntimeError(f"the task {task.get_name()!r} was cancelled"))
        elif (error := task.exception()) is not None:
            self._fail(error)

    def _thread_failed(self, error: BaseException) -> None:
        """Take note that a permanent thread has ended; called in that thread."""
        if not self._loop.is_closed():
            self._loop.call_soon_threadsafe(self._fail, error)

    def _fail(self, error: BaseException) -> None:
        self._guard.log(
            logger, logging.CRITICAL, "the machinery of the clock has failed", error=error
        )
        if not self.is_open:
            self._kill_all()  # nobody may be left to see to the deadlines of their stops
        self._on_failure(error)


async def _finish(task: asyncio.Task[None]) -> None:
    """Wait for a task that ends in bounded time, whatever else is cancelled meanwhile."""
    while not task.done():
        try:
            await asyncio.wait({task})
        except asyncio.CancelledError:
            continue
