"""The host runs one processor in a worker, from hello to bye.

::

    make the processor ─▶ Hello … until Welcome ─▶ restore, start ─▶ Ready
        ─▶ ticks, commands, beats ─▶ Stop (or STOP_SIGNAL, or the parent's death)
        ─▶ the last tick, snapshot, stop, await_cleanup ─▶ Attributes, Bye

Its twin is `chronopype_mp.core.session.WorkerSession`, which decides what is said to the
coordinator; the host carries out its deeds. The same host runs in a worker process and, with the
inline launcher, in the coordinator's loop.
"""

from __future__ import annotations

import asyncio
import functools
import inspect
import math
from collections.abc import Callable, Sequence
from typing import Any

from chronopype_mp.core.boot import WorkerBoot
from chronopype_mp.core.codec import (
    TICK_TOPIC,
    TICKS_TOPIC,
    FrameError,
    decode_command,
    decode_tick,
    decode_ticks,
)
from chronopype_mp.core.connection_counters import ConnectionRecorder
from chronopype_mp.core.error_text import message_of, name_of, path_of, traceback_of
from chronopype_mp.core.messages import (
    LOADING,
    Configure,
    Downlink,
    Failure,
    Reconnect,
    Rehearse,
    Restoring,
    SendAttributes,
    StatePart,
    Stop,
    Uplink,
    Welcome,
    WorkerSettings,
)
from chronopype_mp.core.outputs import PayloadTypes
from chronopype_mp.core.rate import TokenBucket
from chronopype_mp.core.session import Due, WorkerAnswer, WorkerSession
from chronopype_mp.core.state import TickRecorder
from chronopype_mp.exceptions import HookError
from chronopype_mp.processors import NetworkProcessor, ProcessorState, TickProcessor
from chronopype_mp.processors.base import HOSTED_BY
from chronopype_mp.processors.hooks import CANCEL_GRACE, HookTimeout, bounded
from chronopype_mp.processors.network_loop import (
    NOBODY,
    NetworkChange,
    NetworkFailure,
    NetworkListener,
    NetworkLoop,
)
from chronopype_mp.processors.state_settings import SHORTEST_INTERVAL, check_state_settings
from chronopype_mp.timing import monotonic, wall
from chronopype_mp.transport.base import Link
from chronopype_mp.version import CODE_VERSION
from chronopype_mp.worker.attributes import AttributeReader
from chronopype_mp.worker.blocking import BlockingWatch
from chronopype_mp.worker.call_runner import CallRunner
from chronopype_mp.worker.dispatch import TickDispatcher
from chronopype_mp.worker.emitter import Emitter
from chronopype_mp.worker.inflict import inflict
from chronopype_mp.worker.outbox import Outbox
from chronopype_mp.worker.payload import PayloadError
from chronopype_mp.worker.snapshots import Snapshots
from chronopype_mp.worker.subscriber import MessageSubscriber

__all__ = ["EXIT_FAILED", "EXIT_OK", "EXIT_STUCK", "WorkerHost"]

EXIT_OK = 0
EXIT_FAILED = 1
EXIT_STUCK = 70

NETWORK_SETTINGS = tuple(
    name for name in WorkerSettings.__struct_fields__ if name not in ("paused", "outputs")
)

FLUSH_WITHIN = 0.9
"""The part of ``stop_grace`` after which a stop waits no longer for outputs to be sent."""

PROGRAM_EXITS = (SystemExit, KeyboardInterrupt)
"""A hook that raises one of them ends the process."""

FAILURES_PER_SECOND = 100.0
"""Failures of ticks that are reported, with bursts of as many. Further ones count in
``error_count`` and as lost reports. A free run, which waits for its workers, reports all."""

FRAMES_PER_READ = 1000
"""Frames read in one turn of the event loop."""

FRAMES_PER_READ_IN_FREE_RUNS = 20
"""The same in free runs, whose frames hold many ticks. Progress is reported after each batch, which
costs as much as dozens of ticks; a batch of full frames has 2,000 ticks."""


class _Hosting:
    """What the host keeps for its processor: the counters, and settings of this incarnation."""

    def __init__(
        self,
        recorder: TickRecorder,
        connections: ConnectionRecorder,
        outputs: Emitter,
        messages: MessageSubscriber,
    ) -> None:
        self._recorder = recorder
        self.outputs = outputs
        self.messages = messages
        self.network_settings: dict[str, Any] = {}
        self.connections = connections
        self.calls: CallRunner | None = None

    @property
    def state(self) -> ProcessorState:
        return ProcessorState.of(self._recorder.counters)

    async def call(
        self, worker: str, method: str, args: Sequence[object], kwargs: dict[str, Any], timeout: Any
    ) -> Any:
        assert self.calls is not None
        return await self.calls.call(worker, method, args, kwargs, timeout)


class WorkerHost:
    """Hosts one incarnation of a worker in the running event loop.

    Args:
        boot: what the worker was told.
        link: its sockets; the caller closes them.
        pid: to report.
        make_processor: makes the processor in `run`; another one if that cannot be restored.
        keep_exception: called with a failure's serial number and exception, so that who shares
            this process can have the exception itself.
        on_turn: called at every `beat`.
        usage: returns resident memory in bytes and CPU time in seconds, for the beats.

    Attributes:
        outbox: where its reports go.
        turned_at: when its event loop turned last, monotonic seconds.
    """

    def __init__(
        self,
        boot: WorkerBoot,
        link: Link,
        pid: int,
        make_processor: Callable[[], TickProcessor],
        keep_exception: Callable[[int, BaseException], None] | None = None,
        on_turn: Callable[[], None] = lambda: None,
        usage: Callable[[], tuple[int, float]] = lambda: (0, 0.0),
    ) -> None:
        self._boot = boot
        self._link = link
        self._make_processor = make_processor
        self._keep_exception = keep_exception
        self._on_turn = on_turn
        self._usage = usage
        self.outbox = Outbox(link)
        self._recorder = TickRecorder(boot.rules.stats_window_size, wall, boot.rules.offset)
        self._connections = ConnectionRecorder()
        self._processor: TickProcessor | None = None
        self._dispatcher: TickDispatcher | None = None
        self._calls: CallRunner | None = None
        self._outputs: Emitter | None = None
        self._messages: MessageSubscriber | None = None
        self._session = WorkerSession(boot, pid, CODE_VERSION)
        self._deeds: dict[type[Downlink], Callable[[Any], None]] = {
            Welcome: self._welcomed,
            Configure: self._configure,
            Stop: self._begin_stop,
            Rehearse: self._rehearse,
            Reconnect: self._reconnect,
            SendAttributes: self._send_attributes,
        }
        self._settings = WorkerSettings()
        self._welcome: asyncio.Future[Welcome] | None = None
        self._end: asyncio.Future[int] | None = None
        self._stopping: asyncio.Task[None] | None = None
        self._has_begun = False
        self._over = False
        self._snapshots: Snapshots | None = None
        self._attributes: AttributeReader | None = None
        self._failures = 0
        self._failure_rate = TokenBucket(FAILURES_PER_SECOND, monotonic())
        self._garbage = 0
        self._blocking = BlockingWatch(boot.worker, boot.rules.tick_size)
        every_tick = boot.rules.every_tick
        self._batch = FRAMES_PER_READ_IN_FREE_RUNS if every_tick else FRAMES_PER_READ
        self.turned_at = self._beat_due = monotonic()

    async def run(self) -> int:
        """Host the processor to its end.

        Returns:
            The exit status: `EXIT_OK` after an orderly stop, `EXIT_FAILED` when the processor
            could not be made or started, `EXIT_STUCK` when a hook could not be ended.
        """
        loop = asyncio.get_running_loop()
        self._welcome = loop.create_future()
        self._end = loop.create_future()
        if not self._make():
            return EXIT_FAILED
        self._link.attach(loop, self._read)
        beats = loop.create_task(self._beat(), name=f"beats of {self._boot.worker}")
        beats.add_done_callback(self._beats_ended)
        ticks: asyncio.Task[None] | None = None
        snapshots: asyncio.Task[None] | None = None
        try:
            welcome = await self._say_hello()
            if welcome is None:
                return self._end.result()
            if not self._restore():
                return EXIT_FAILED
            if not await self._start(welcome):
                is_ending = self._stopping is not None or self._end.done()
                return await self._end if is_ending else EXIT_FAILED
            assert self._dispatcher is not None
            assert self._snapshots is not None
            ticks = loop.create_task(self._dispatcher.run(), name=f"ticks of {self._boot.worker}")
            ticks.add_done_callback(self._ticks_ended)
            if self._snapshots.are_wanted:
                name = f"snapshots of {self._boot.worker}"
                snapshots = loop.create_task(self._take_snapshots(), name=name)
                snapshots.add_done_callback(self._snapshots_ended)
            return await self._end
        finally:
            self._over = True
            for task in (beats, ticks, snapshots, self._stopping):
                if task is not None:
                    task.cancel()
            if self._messages is not None:
                self._messages.close()
            if self._outputs is not None:
                self._outputs.close()
            self._say_bye()
            self._abandon()

    def stop(self) -> None:
        """Stop gracefully without a command of the coordinator. Idempotent."""
        if self._end is not None:
            for deed in self._session.stop():
                self._deeds[type(deed)](deed)

    def ignore_stops(self) -> None:
        """Carry out no stop from now on: a fault to rehearse."""
        self._deeds[Stop] = lambda command: None

    def fail(self, part: str, error: BaseException) -> None:
        """End with a fatal report: a part of the worker has failed without which it cannot run."""
        self._report(part, error, fatal=True)
        self._finish(EXIT_FAILED)

    def beat(self) -> None:
        """Report that the event loop turns: regularly, and when the guard asks."""
        now = self.turned_at = monotonic()
        self._on_turn()
        if self._dispatcher is not None and not self._over:
            self._post_beat(max(0.0, now - self._beat_due))
            self._watch_tick(now)

    def _make(self) -> bool:
        """Make the processor; return whether it worked."""
        try:
            processor = self._make_processor()
            check_state_settings(processor)
            types = PayloadTypes(processor.output_types)
            message_types = PayloadTypes(processor.message_types)
        except PROGRAM_EXITS:
            raise
        except PayloadError as error:
            self._report(LOADING, error.__cause__ or error, fatal=True)
            return False
        except BaseException as error:
            self._report("the processor cannot be made", error, fatal=True)
            return False
        self._processor = processor
        if self._outputs is None:
            self._outputs = Emitter(self._boot, self._link, type(processor).__name__, types)
        self._adopt(processor, self._outputs, message_types)
        return True

    def _adopt(
        self, processor: TickProcessor, outputs: Emitter, message_types: PayloadTypes
    ) -> None:
        processor._stats_window_size = self._boot.rules.stats_window_size
        if isinstance(processor, NetworkProcessor):
            for name in ("start_network_timeout", "stop_network_timeout"):
                if getattr(self._boot, name) is not None:
                    setattr(processor, name, getattr(self._boot, name))
            processor._listener = NetworkListener(
                self._network_changed, self._hook_failed, self._hook_stuck, self._network_ended
            )
        self._snapshots = Snapshots(processor)
        self._attributes = AttributeReader(processor, self._boot.worker)
        self._dispatcher = TickDispatcher(
            processor,
            self._boot.rules,
            self._recorder,
            self._tick_failed,
            self._tell_progress,
            self._tick_blocked,
        )
        if self._messages is not None:
            self._messages.close()  # of a processor that could not be restored
        self._messages = MessageSubscriber(
            self._boot,
            self._link,
            self.outbox,
            processor,
            message_types,
            self._dispatcher,
            self._message_failed,
            lambda: self._hook_stuck("on_message"),
        )
        hosting = processor._host = _Hosting(
            self._recorder, self._connections, outputs, self._messages
        )
        HOSTED_BY.set(processor._host)
        self._calls = hosting.calls = CallRunner(
            self._boot, processor, self._dispatcher, self._post, self._hook_stuck
        )
        self._deeds.update(self._calls.deeds)

    def _abandon(self) -> None:
        """Leave no trace of the host on an object that outlives it (inline)."""
        processor = self._processor
        assert processor is not None
        processor._host = None
        if isinstance(processor, NetworkProcessor):
            processor._listener = NOBODY
            processor._drop()

    async def _say_hello(self) -> Welcome | None:
        """Greet until welcomed; return None if the process ends before that."""
        assert self._welcome is not None
        assert self._end is not None
        waited: set[asyncio.Future[Any]] = {self._welcome, self._end}
        while not self._welcome.done() and not self._end.done():
            now = monotonic()
            for hello in self._session.handle(Due(), now).reports:
                self.outbox.post_if_free(hello)
            assert self._session.next_due is not None
            await asyncio.wait(
                waited,
                timeout=max(0.0, self._session.next_due - now),
                return_when=asyncio.FIRST_COMPLETED,
            )
        return None if self._end.done() else self._welcome.result()

    def _restore(self) -> bool:
        """Hand the last snapshot to the processor, or make another one that begins without it.

        Returns:
            Whether there is a processor.
        """
        saved = self._boot.state
        assert self._snapshots is not None
        if saved is None:
            return True
        self._post([self._boot.report(Restoring, is_over=False)])
        try:
            self._snapshots.restore(saved)
        except KeyboardInterrupt:
            raise
        except BaseException as error:  # a SystemExit, too: the next process would not fare better
            self._report("restore", error)
            self._abandon()
            return self._make()
        finally:
            self._post([self._boot.report(Restoring, is_over=True)])
        return True

    async def _start(self, welcome: Welcome) -> bool:
        """Apply the settings, start the processor, open the account.

        Returns:
            Whether it worked, and no stop came meanwhile.
        """
        processor = self._processor
        assert processor is not None
        assert self._dispatcher is not None
        assert self._end is not None
        assert self._outputs is not None
        assert self._messages is not None
        self._outputs.want(welcome.settings.outputs)
        self._set_network(welcome.settings)
        self._recorder.last_timestamp = welcome.timestamp
        before = processor._own_state
        self._has_begun = True
        try:
            self._messages.subscribe(processor._initial_topics)
            processor.start(welcome.timestamp)
        except PROGRAM_EXITS:
            raise
        except BaseException as error:
            self._report("start", error, fatal=True)
            self._call("stop", processor.stop)
            return False
        self._check_super(processor, before)
        await self._messages.catch_up()
        if self._stopping is not None or self._end.done():
            return False
        self._recorder.is_active = True
        self._set_paused(self._settings.paused)  # they may have changed meanwhile
        # What was published while the processor started is from before READY.
        self._read()
        base = self._session.newest_tick
        self._dispatcher.open(base)
        self._post(self._session.started(base))
        self._post_beat(0.0)
        return True

    def _read(self) -> None:
        """Take what has come in; ticks before a command are dealt with before it."""
        newest: list[bytes] = []
        for frame in self._link.receive(self._batch):
            if frame.startswith(TICK_TOPIC):
                newest.append(frame)
                continue
            self._take_newest(newest)
            try:
                if frame.startswith(TICKS_TOPIC):
                    ticks = decode_ticks(frame)
                    self._take_ticks(ticks.seq, ticks.timestamps)
                else:
                    self._obey(self._session.handle(decode_command(frame), monotonic()))
            except FrameError:
                self._garbage += 1
        self._take_newest(newest)
        self._tell_progress()

    def _take_newest(self, frames: list[bytes]) -> None:
        """Take the last of some frames that is a tick; the others are not even decoded."""
        while frames:
            try:
                tick = decode_tick(frames.pop())
            except FrameError:
                self._garbage += 1
            else:
                frames.clear()
                self._take_ticks(tick.seq, (tick.timestamp,))

    def _take_ticks(self, seq: int, timestamps: Sequence[float]) -> None:
        self._session.newest_tick = max(self._session.newest_tick, seq + len(timestamps) - 1)
        if self._session.has_started and self._stopping is None:
            assert self._dispatcher is not None
            self._dispatcher.offer(seq, timestamps)

    def _tell_progress(self) -> None:
        """Report which ticks are over, where the coordinator waits for that."""
        if not self._boot.rules.every_tick or self._dispatcher is None:
            return
        self._post(self._session.progressed(self._dispatcher.through))

    def _obey(self, answer: WorkerAnswer) -> None:
        self._post(answer.reports)
        for deed in answer.deeds:
            self._deeds[type(deed)](deed)

    # The deeds

    def _welcomed(self, welcome: Welcome) -> None:
        assert self._welcome is not None
        self._session.newest_tick = max(self._session.newest_tick, welcome.seq)
        self._welcome.set_result(welcome)

    def _configure(self, command: Configure) -> None:
        assert self._outputs is not None
        self._outputs.want(command.settings.outputs)
        self._set_network(command.settings)
        self._set_paused(command.settings.paused)

    def _begin_stop(self, command: Stop) -> None:
        self._stopping = asyncio.get_running_loop().create_task(
            self._stop_gracefully(command.seq), name=f"stop of {self._boot.worker}"
        )
        self._stopping.add_done_callback(self._stop_ended)

    @property
    def _network(self) -> NetworkLoop | None:
        processor = self._processor
        return processor._network if isinstance(processor, NetworkProcessor) else None

    def _reconnect(self, command: Reconnect) -> None:
        if self._network is not None:
            self._network.reconnect()

    def _rehearse(self, command: Rehearse) -> None:
        inflict(command.fault, command.amount, self)

    def _send_attributes(self, command: SendAttributes) -> None:
        assert self._dispatcher is not None

        async def answer() -> None:
            self._post_attributes(command.request)

        self._dispatcher.run_between(answer)

    def _post_attributes(self, request: int) -> None:
        """Report the public attributes, unless the owner has this very object."""
        assert self._attributes is not None
        self._post([*self._attributes.reports(self._boot, request)])

    async def _take_snapshots(self) -> None:
        assert self._processor is not None
        assert self._dispatcher is not None
        while True:
            await asyncio.sleep(max(SHORTEST_INTERVAL, self._processor.snapshot_interval))
            taken = asyncio.Event()
            self._dispatcher.run_between(functools.partial(self._take_snapshot, taken))
            await taken.wait()

    async def _take_snapshot(self, taken: asyncio.Event) -> None:
        """Take a snapshot and send it; if the coordinator does not read, the next one will do."""
        taken.set()
        for part in self._snapshot_parts():
            if not self.outbox.post_if_free(part):
                break

    def _snapshot_parts(self) -> list[StatePart]:
        assert self._snapshots is not None
        try:
            return self._snapshots.parts(self._boot)
        except PROGRAM_EXITS:
            raise
        except BaseException as error:
            self._report("snapshot", error)
            return []

    def _set_network(self, settings: WorkerSettings) -> None:
        """Set what the owner has changed; the rest may have been changed by the processor."""
        processor, before = self._processor, self._settings
        self._settings = settings
        if isinstance(processor, NetworkProcessor):
            for name in NETWORK_SETTINGS:
                value = getattr(settings, name)
                if value is not None and value != getattr(before, name):
                    setattr(processor, name, None if value == math.inf else value)

    def _set_paused(self, paused: bool) -> None:
        """Pause or resume ticks and the network, whether or not the hooks call their super()."""
        processor = self._processor
        assert self._dispatcher is not None
        assert processor is not None
        if paused and not self._dispatcher.paused:
            self._dispatcher.pause()
            self._recorder.is_active = False
            self._call("pause", processor.pause)
            if self._network is not None:
                self._network.pause()
        elif not paused and self._dispatcher.paused:
            self._dispatcher.resume()
            self._recorder.is_active = True
            self._call("resume", processor.resume)
            if self._network is not None:
                self._network.resume()

    def _call(self, hook: str, function: Callable[[], None]) -> None:
        try:
            function()
        except PROGRAM_EXITS:
            raise
        except BaseException as error:
            self._report(hook, error)

    async def _stop_gracefully(self, seq: int) -> None:
        """Run the last tick, stop the processor, clean up, say bye."""
        assert self._end is not None
        flush_until = monotonic() + FLUSH_WITHIN * self._boot.stop_grace
        processor, dispatcher = self._processor, self._dispatcher
        if processor is None or dispatcher is None or not self._has_begun:
            self._finish(EXIT_OK)
            return
        assert self._calls is not None
        assert self._messages is not None
        self._calls.stop()
        self._messages.close()
        if self._session.has_started:
            dispatcher.close(seq)
            try:
                async with asyncio.timeout(self._boot.stop_grace / 2):
                    await dispatcher.settle()
                self._post([*self._snapshot_parts()])
            except TimeoutError:
                dispatcher.drop_pending()
        self._call("stop", processor.stop)
        # Whatever the hooks have left out or failed to do, the network is stopped.
        if self._network is not None:
            self._network.stop_for_good()
        await self._clean_up(processor)
        if self._network is not None:
            await self._network.wait_stopped()
        assert self._outputs is not None
        await self._outputs.finish(flush_until - monotonic())
        self._recorder.is_active = False
        self._post_attributes(0)
        if processor.mirrored:
            self._post_beat(0.0)
        self._finish(EXIT_OK)

    async def _clean_up(self, processor: TickProcessor) -> None:
        if inspect.getattr_static(processor, "await_cleanup", None) is None:
            return
        try:
            await bounded(processor.await_cleanup(), None)  # type: ignore[attr-defined]
        except (*PROGRAM_EXITS, asyncio.CancelledError):
            raise
        except BaseException as error:
            self._report("await_cleanup", error)

    def _say_bye(self) -> None:
        dispatcher, outputs, messages = self._dispatcher, self._outputs, self._messages
        assert dispatcher is not None
        assert outputs is not None
        assert messages is not None
        self._post(
            self._session.bye(
                dispatcher.account,
                self._recorder.counters,
                dispatcher.largest_gap,
                self._connections.counters(monotonic()),
                outputs.counters,
                messages.counters,
            )
        )

    def _post(self, reports: list[Uplink]) -> None:
        for report in reports:
            self.outbox.post(report)

    def _finish(self, code: int) -> None:
        if self._messages is not None:
            self._messages.close()  # the start may wait for some
        if self._end is not None and not self._end.done():
            self._end.set_result(code)

    async def _beat(self) -> None:
        interval = self._boot.beat_interval
        while True:
            self._beat_due = max(self._beat_due + interval, monotonic())
            await asyncio.sleep(self._beat_due - monotonic())
            self.beat()

    def _post_beat(self, lag: float) -> None:
        assert self._dispatcher is not None
        assert self._attributes is not None
        assert self._outputs is not None
        assert self._messages is not None
        rss, cpu = self._usage()
        network = self._network
        beats = self._session.beat(
            account=self._dispatcher.account,
            counters=self._recorder.counters,
            largest_gap=self._dispatcher.largest_gap,
            lag=lag,
            connection=self._connections.counters(monotonic()),
            downtime=0.0 if network is None else network.downtime,
            check_timeouts=0 if network is None else network.connection.check_timeouts,
            rss=rss,
            cpu=cpu,
            reports_lost=self.outbox.lost,
            frames_dropped=self._garbage + self._messages.garbage,
            mirrored=self._attributes.mirrored() if self._session.has_started else {},
            outputs=self._outputs.counters,
            messages=self._messages.counters,
        )
        for beat in beats:
            self.outbox.post_if_free(beat)

    def _watch_tick(self, now: float) -> None:
        """End the process if a tick has outlived its timeout and swallowed its cancellation."""
        assert self._dispatcher is not None
        began = self._dispatcher.attempt_started
        limit = self._boot.rules.processor_timeout + CANCEL_GRACE
        if began is not None and now - began > limit and self._stopping is None:
            self._hook_stuck("async_tick")

    def _ticks_ended(self, ticks: asyncio.Task[None]) -> None:
        self._task_ended("async_tick", ticks, "a tick cancelled its own task")

    def _snapshots_ended(self, snapshots: asyncio.Task[None]) -> None:
        self._task_ended("snapshot", snapshots, "the task of the snapshots was cancelled")

    def _beats_ended(self, beats: asyncio.Task[None]) -> None:
        self._task_ended("beat", beats, "the task of the beats was cancelled")

    def _stop_ended(self, stopping: asyncio.Task[None]) -> None:
        if stopping.cancelled() or stopping.exception() is not None:
            self._task_ended("stop", stopping, "the task of the stop was cancelled")

    def _task_ended(self, hook: str, task: asyncio.Task[None], cancelled: str) -> None:
        """End the process with a report: a permanent task has ended."""
        if self._over:
            return
        error = None if task.cancelled() else task.exception()
        self.fail(hook, error or RuntimeError(cancelled))

    def _network_changed(self, change: NetworkChange) -> None:
        processor = self._processor
        assert isinstance(processor, NetworkProcessor)
        last = processor.last_connected_timestamp
        self._post(
            self._session.network_changed(
                change.status,
                change.error,
                last_connected=None if math.isnan(last) else last,
                reason=change.reason,
                next_attempt=change.next_attempt,
                connection=self._connections.counters(monotonic()),
            )
        )

    def _hook_failed(self, failure: NetworkFailure) -> None:
        self._report(
            failure.hook,
            failure.error,
            printed="" if failure.expected else None,
            next_attempt=failure.next_attempt,
        )
        if failure.hook == "check_network" and isinstance(failure.error, HookTimeout):
            self.beat()  # so that max_check_timeouts is exact

    def _hook_stuck(self, hook: str) -> None:
        self._report(
            hook,
            RuntimeError(f"{hook} swallowed its cancellation; only a new process ends it"),
            fatal=True,
        )
        self._finish(EXIT_STUCK)

    def _network_ended(self, reason: BaseException) -> None:
        self.fail("network loop", reason)

    def _check_super(self, processor: TickProcessor, before: ProcessorState) -> None:
        """Report a network processor whose ``start`` has not called its base class's.

        Args:
            processor: it has been started.
            before: its own state before that.
        """
        # The base class's hook makes a new state.
        if isinstance(processor, NetworkProcessor) and processor._own_state is before:
            kind = type(processor).__name__
            problem = (
                f"{kind}.start has not called super().start(timestamp), so the network loop does "
                "not run; call it first"
            )
            self._report("start", HookError(kind, "start", problem))

    def _tick_blocked(self, hook: str, nanoseconds: int, ended: int) -> None:
        self._blocking.saw(hook, nanoseconds / 1e9, ended, monotonic())

    def _tick_failed(
        self, error: BaseException, printed: str, timestamp: float, timeout: bool
    ) -> None:
        if self._network is not None:
            is_first = self._recorder.consecutive_errors == 1
            self._network.tick_failed(error, is_first=is_first)
        if not self._boot.rules.every_tick and not self._failure_rate.take(1, monotonic()):
            self.outbox.lost += 1
            return
        self._report("async_tick", error, printed=printed, timestamp=timestamp, timeout=timeout)

    def _message_failed(self, error: BaseException) -> None:
        if self._failure_rate.take(1, monotonic()):
            self._report("on_message", error, timeout=isinstance(error, TimeoutError))
        else:
            self.outbox.lost += 1

    def _report(
        self,
        hook: str,
        error: BaseException,
        *,
        printed: str | None = None,
        timestamp: float | None = None,
        timeout: bool = False,
        fatal: bool = False,
        next_attempt: float | None = None,
    ) -> None:
        self._failures += 1
        if self._keep_exception is not None:
            self._keep_exception(self._failures, error)
        self.outbox.post(
            self._boot.report(
                Failure,
                hook=hook,
                serial=self._failures,
                type_name=name_of(type(error)),
                type_path=path_of(type(error)),
                message=message_of(error),
                traceback=traceback_of(error) if printed is None else printed,
                fatal=fatal,
                timeout=timeout,
                timestamp=timestamp,
                next_attempt=next_attempt,
            )
        )
