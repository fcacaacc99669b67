"""ProcessorTest, which runs one processor in a test, on time that the test moves."""

from __future__ import annotations

import asyncio
import contextlib
import math
import os
import warnings
from collections.abc import AsyncIterator, Callable
from types import TracebackType
from typing import Any, Generic, TypeVar

import msgspec

from chronopype_mp.core.boot import TickRules, WorkerBoot
from chronopype_mp.core.call_outcome import failed, pack_arguments, result_of
from chronopype_mp.core.checks import positive
from chronopype_mp.core.codec import decode_report, encode_command, encode_tick
from chronopype_mp.core.connection import NetworkStatus
from chronopype_mp.core.messages import (
    Call,
    CallAsked,
    CallDone,
    CommandDone,
    Downlink,
    Failure,
    Hello,
    Outcome,
    Ready,
    Reconnect,
    Reply,
    Report,
    Status,
    Tick,
    TickDone,
    Welcome,
    WorkerSettings,
)
from chronopype_mp.core.operations import Check, NotifyConnected, NotifyDisconnected, Start, Stop
from chronopype_mp.core.schedule import Schedule
from chronopype_mp.exceptions import ConfigError, WorkerUnavailableError
from chronopype_mp.processors import NetworkProcessor, TickProcessor
from chronopype_mp.processors.hook_checks import check_hooks
from chronopype_mp.processors.hooks import HookTimeout
from chronopype_mp.processors.network_loop import NetworkLoop, says_when
from chronopype_mp.processors.remote_methods import result_type
from chronopype_mp.testing.manual_clock import ManualClock
from chronopype_mp.transport.memory import MemoryHub
from chronopype_mp.worker.host import WorkerHost

__all__ = ["ProcessorTest", "Transition"]

P = TypeVar("P", bound=TickProcessor)

NEVER = 1e6
"""Seconds between two beats, which no test waits for."""

FRAMES_PER_READ = 1000

POLL_INTERVAL = 0.005
"""Seconds between two looks at a condition of the test's."""

SHOWN_TIMEOUTS = ("check_network", "start_network", "on_connected")
"""Hooks whose timeouts decide on the network status, and so show as transitions."""


RAISED_BY = "raised by"

HOOKS: dict[type, str] = {
    Check: "check_network",
    Start: "start_network",
    NotifyConnected: "on_connected",
    NotifyDisconnected: "on_disconnected",
    Stop: "stop_network",
}


class Transition(msgspec.Struct, frozen=True, eq=False):
    """A change of the network status. It equals that status, and transitions to it.

    Attributes:
        status: the new status.
        reason: why it changed.
        at: when, in seconds of the manual clock since the test began.
    """

    status: NetworkStatus
    reason: str
    at: float

    def __eq__(self, other: object) -> bool:
        if isinstance(other, Transition):
            return self.status is other.status
        return self.status is other if isinstance(other, NetworkStatus) else NotImplemented

    def __hash__(self) -> int:
        return hash(self.status)

    def __repr__(self) -> str:
        return f"{self.status.name} at {self.at:g} s ({self.reason})"


class _Clock(ManualClock):
    """A manual clock that says when somebody waits for it."""

    def __init__(self, wall: float, on_wait: Callable[[], None]) -> None:
        super().__init__(wall)
        self._on_wait = on_wait

    async def sleep_until(self, deadline: float) -> None:
        self._on_wait()
        await super().sleep_until(deadline)


class ProcessorTest(Generic[P]):
    """Runs one processor in the event loop of a test, as its worker would run it.

    ::

        async with ProcessorTest(Feed(url)) as feed:
            await feed.reaches(NetworkStatus.CONNECTED)
            await feed.tick()
            assert feed.transitions == [
                NetworkStatus.NOT_CONNECTED, NetworkStatus.CONNECTING, NetworkStatus.CONNECTED
            ]

    The hooks of the object itself run, so the test can look at its attributes. Ticks and the waits
    of the network loop (checks, backoff, ``stale_after`` …) follow a manual clock, which moves only
    when the test says so. Whatever the hooks await takes real time, and the timeouts of hooks are
    in real time, too.

    If a hook fails, the test fails: the exception is raised by the call that waits, or else by the
    next one, at the latest at the end of the ``async with``. Not raised is what the network loop
    deals with and shows as a transition: ``expected_errors``, `RetryAfter`, `PermanentFailure`, and
    timeouts of ``check_network``, ``start_network`` and ``on_connected``. A failed tick is not
    retried. Failures that are still to be raised when the test fails otherwise are added to its
    exception as notes.

    Entering starts the processor. Leaving stops it gracefully.

    Args:
        processor: what to run. It may be run again by another `ProcessorTest`.
        tick_size: seconds between two ticks, above 0.
        processor_timeout: for one tick, in seconds of real time.
        timeout: for each call of a method, in seconds of real time.
        start_time: what the manual clock shows first, wall clock in seconds.

    Attributes:
        processor: the same.
        clock: the manual clock. Its ``advance`` waits for nothing.

    Raises:
        HookError: a hook of the processor cannot work, as in ``add_processor``. What is only likely
            to be a mistake is a `UserWarning`.
        ConfigError: a number is out of range.
    """

    def __init__(
        self,
        processor: P,
        *,
        tick_size: float = 1.0,
        processor_timeout: float = 1.0,
        timeout: float = 5.0,
        start_time: float = 1_000_000.0,
    ) -> None:
        owner = type(self).__name__
        if not isinstance(processor, TickProcessor):
            raise ConfigError(owner, "processor", processor, "must be a TickProcessor object")
        for problem in check_hooks(processor):
            warnings.warn(problem, stacklevel=2)
        self.processor = processor
        self.clock = _Clock(start_time, self._notify)
        self._name = type(processor).__name__
        self._schedule = Schedule(positive(owner, "tick_size", tick_size))
        self._timeout = positive(owner, "timeout", timeout)
        self._began = self.clock.monotonic()
        self._ticked = self._schedule.number_at(start_time)
        self._seq = self._ticks_done = self._commands = self._commands_done = 0
        self._outcomes: dict[int, Outcome] = {}
        self._transitions: list[Transition] = []
        self._passed = 0
        self._is_ready = False
        self._failures: list[BaseException] = []
        self._exceptions: dict[int, BaseException] = {}
        self._changed = asyncio.Event()
        self._hub = MemoryHub()
        self._link = self._hub.connect(self._name)
        boot = WorkerBoot(
            worker=self._name,
            incarnation=1,
            token=0,
            payload=b"",
            down=self._hub.down,
            up=self._hub.up,
            data_up=self._hub.data_up,
            messages_in=self._hub.messages_in,
            messages_out=self._hub.messages_out,
            rules=TickRules(
                processor_timeout=positive(owner, "processor_timeout", processor_timeout),
                max_retries=0,
                stats_window_size=processor._stats_window_size,
                every_tick=True,
                tick_size=tick_size,
            ),
            beat_interval=NEVER,
            stop_grace=2 * timeout,
        )
        self._host = WorkerHost(
            boot, self._link, os.getpid(), lambda: processor, self._exceptions.__setitem__
        )
        self._hosting: asyncio.Task[int] | None = None

    async def __aenter__(self) -> ProcessorTest[P]:
        if self._hosting is not None:
            raise RuntimeError("a ProcessorTest can be entered once; make another one")
        if isinstance(self.processor, NetworkProcessor):
            self.processor._timing = self.clock
        loop = asyncio.get_running_loop()
        self._hub.attach(loop, self._read)
        self._hosting = loop.create_task(self._host.run(), name=f"test of {self._name}")
        self._hosting.add_done_callback(lambda _: self._notify())
        try:
            async with self._in_time("the end of start()"):
                await self._until(lambda: self._is_ready)
                # What `reaches` waits for comes after the start.
                await self._until(lambda: len(self._transitions) > 1 or self._is_at_rest())
                self._passed = min(1, len(self._transitions))
        except BaseException:
            await self._close()
            raise
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        assert self._hosting is not None
        if not self._hosting.done():
            self._host.stop()
        done, _ = await asyncio.wait({self._hosting}, timeout=self._timeout)
        late = "" if done else self._late("the end of stop()")
        await self._close()
        if error is not None:
            for failure in self._failures:
                error.add_note(f"also {_where(failure)}: {type(failure).__name__}: {failure}")
        elif self._failures:
            raise self._failures.pop(0)
        elif late:
            raise AssertionError(late)

    # What the test does

    async def reaches(self, status: NetworkStatus, *, within: float = 0.0) -> Transition:
        """Wait until the network status is ``status``, or was since the last call of this method.

        Args:
            status: the status to wait for.
            within: seconds by which the manual clock may be advanced for that, to one check or
                attempt after the other. 0: the clock stands still.

        Returns:
            The transition to it, which has the reason.

        Raises:
            AssertionError: it was not reached. The message has all transitions with their reasons.
            TypeError: the processor is not a `NetworkProcessor`.
            Exception: a hook has failed.
        """
        self._needs_network("reaches")
        end = self.clock.monotonic() + within
        async with self._in_time(status.name):
            while (found := self._find(status)) is None:
                await self._until(
                    lambda: self._find(status) is not None or self._is_at_rest(until=end)
                )
                if self._find(status) is None:
                    self._move_to(self._rests_until)
        self._passed = found + 1
        return self._transitions[found]

    async def tick(self, count: int = 1) -> None:
        """Advance the clock to the next boundary of ``tick_size`` and tick there.

        Args:
            count: how many times.

        Raises:
            AssertionError: the tick was held back, because the processor is not connected; or it
                takes longer than the ``timeout`` of this object.
            Exception: the tick or another hook has failed.
        """
        for _ in range(count):
            self._ticked = 1 + max(self._ticked, self._schedule.number_at(self.clock.wall()))
            timestamp = self._schedule.timestamp(self._ticked)
            await self.advance(max(0.0, timestamp - self.clock.wall()))
            if not self.processor.wants_ticks:
                raise AssertionError(f"{self._name} gets no tick: {self._doing}{self._seen}")
            self._seq += 1
            self._hub.publish(encode_tick(Tick(self._seq, timestamp)))
            async with self._in_time("the end of the tick"):
                await self._until(lambda: self._ticks_done >= self._seq)

    async def call(self, method: str, /, *args: Any, **kwargs: Any) -> Any:
        """Call a method that is marked with ``@remote``, as ``handle.call`` does.

        The processor's own calls of other workers raise `WorkerUnavailableError`: there are none.

        Args:
            method: its name.
            args: positional arguments.
            kwargs: keyword arguments.

        Raises:
            CallError: the method or its arguments are wrong.
            RemoteError: the method raised.
            AssertionError: it takes longer than the ``timeout`` of this object.
            Exception: a hook has failed.
        """
        body = pack_arguments(self._name, method, args, kwargs)
        number = self._commands + 1
        self._order(Call(call=number, method=method, arguments=body, timeout=self._timeout))
        async with self._in_time("the end of the call"):
            await self._until(lambda: number in self._outcomes)
        declared = result_type(type(self.processor), self._name, method)
        return result_of(self._outcomes.pop(number), self._name, method, declared)

    async def advance(self, seconds: float) -> None:
        """Advance the clock, and wait for the checks and attempts that become due on the way.

        Args:
            seconds: how far, at least 0. With 0.0 it waits for the hooks that run now.

        Raises:
            AssertionError: the hooks take longer than the ``timeout`` of this object.
            ValueError: ``seconds`` is negative.
            Exception: a hook has failed.
        """
        if not seconds >= 0.0:
            raise ValueError(f"seconds = {seconds!r}: must not be negative")
        end = self.clock.monotonic() + seconds
        async with self._in_time("the end of its hooks"):
            while True:
                await self._until(self._is_at_rest)
                if self.clock.monotonic() >= end:
                    return
                self._move_to(min(end, self._rests_until))

    async def reconnect(self) -> None:
        """Have the connection made anew, as ``handle.reconnect()`` does; wait for its hooks.

        A wait for the next attempt ends, also that after a `RetryAfter` or `PermanentFailure`.

        Raises:
            AssertionError: the hooks take longer than the ``timeout`` of this object.
            TypeError: the processor is not a `NetworkProcessor`.
            Exception: a hook has failed.
        """
        self._needs_network("reconnect")
        self._order(Reconnect())
        number = self._commands
        async with self._in_time("reconnect()"):
            await self._until(lambda: self._commands_done == number)
        await self.advance(0.0)

    async def until(self, condition: Callable[[], bool]) -> None:
        """Wait in real time until a condition holds, such as that something was received.

        Args:
            condition: is called every few milliseconds.

        Raises:
            AssertionError: it does not hold within the ``timeout`` of this object.
            Exception: a hook has failed.
        """
        async with self._in_time("what the test waits for"):
            while True:
                await self._until(lambda: True)  # raises what has failed
                if condition():
                    return
                await asyncio.sleep(POLL_INTERVAL)

    @property
    def transitions(self) -> list[Transition]:
        """All changes of the network status so far. Compare them with a list of statuses."""
        self._take_reports()
        return list(self._transitions)

    def _needs_network(self, what: str) -> None:
        if not isinstance(self.processor, NetworkProcessor):
            raise TypeError(f"{what}() needs a NetworkProcessor, which {self._name} is not")

    # Waiting

    @contextlib.asynccontextmanager
    async def _in_time(self, goal: str) -> AsyncIterator[None]:
        """Bound a block in time.

        Raises:
            AssertionError: the time is over.
        """
        try:
            async with asyncio.timeout(self._timeout) as limit:
                yield
        except TimeoutError:
            if not limit.expired():
                raise
            raise AssertionError(self._late(goal)) from None

    async def _until(self, condition: Callable[[], bool]) -> None:
        """Wait for a condition.

        Raises:
            AssertionError: the worker has ended.
            RuntimeError: there is no worker.
            Exception: a hook has failed.
        """
        if self._hosting is None:
            raise RuntimeError("use it inside of `async with ProcessorTest(...) as ...`")
        while True:
            self._take_reports()
            if self._failures:
                raise self._failures.pop(0)
            if condition():
                return
            if self._hosting.done():
                raise AssertionError(f"the worker of {self._name} has ended{self._seen}")
            self._changed.clear()
            await self._changed.wait()

    def _notify(self) -> None:
        self._changed.set()

    def _find(self, status: NetworkStatus) -> int | None:
        """Return the place of the transition for which a call of `reaches` waits."""
        for place in range(self._passed, len(self._transitions)):
            if self._transitions[place] == status:
                return place
        last = len(self._transitions) - 1
        return last if last >= 0 and self._transitions[last] == status else None

    @property
    def _network(self) -> NetworkLoop | None:
        processor = self.processor
        return processor._network if isinstance(processor, NetworkProcessor) else None

    @property
    def _rests_until(self) -> float:
        """Until when the network loop waits, monotonic seconds; -inf while it has work to do."""
        return math.inf if self._network is None else self._network.rests_until

    def _is_at_rest(self, until: float = math.inf) -> bool:
        """Whether the network loop has no work to do now, but possibly at ``until``."""
        return self.clock.monotonic() < self._rests_until <= until

    def _move_to(self, moment: float) -> None:
        self.clock.advance(max(0.0, moment - self.clock.monotonic()))

    # The worker

    def _read(self) -> None:
        self._take_reports()
        self._notify()

    def _take_reports(self) -> None:
        for frame in self._hub.receive(FRAMES_PER_READ):
            self._take(decode_report(frame))

    def _take(self, report: Report) -> None:
        match report:
            case Hello():
                welcome = Welcome(
                    incarnation=1, timestamp=self.clock.wall(), settings=WorkerSettings()
                )
                self._hub.publish(encode_command(self._name, welcome))
            case Ready():
                self._is_ready = True
            case CommandDone():
                self._commands_done = report.id
            case TickDone():
                self._ticks_done = report.seq
            case Status():
                change = Transition(report.network, report.reason or "", self._elapsed)
                if self._transitions[-1:] != [change]:
                    self._transitions.append(change)
            case CallDone():
                self._outcomes[report.call] = report.outcome
            case CallAsked():
                problem = "a ProcessorTest runs no other workers"
                error = WorkerUnavailableError(report.callee, report.method, problem)
                self._order(Reply(call=report.call, outcome=failed(error)))
            case Failure():
                self._keep(report, self._exceptions.pop(report.serial))

    def _keep(self, failure: Failure, error: BaseException) -> None:
        """Keep a failure for the test, unless the network loop deals with it."""
        if not failure.traceback:
            return  # networks have such errors
        if isinstance(error, HookTimeout) and failure.hook in SHOWN_TIMEOUTS:
            return
        is_tick = failure.hook == "async_tick"
        if is_tick and isinstance(self.processor, NetworkProcessor) and says_when(error):
            return
        error.add_note(f"{RAISED_BY} {failure.hook} of {self._name}, at {self._elapsed:g} s")
        self._failures.append(error)

    def _order(self, command: Downlink) -> None:
        self._commands += 1
        command = msgspec.structs.replace(command, incarnation=1, id=self._commands)
        self._hub.publish(encode_command(self._name, command))

    async def _close(self) -> None:
        """End what is left of the worker."""
        assert self._hosting is not None
        self._hosting.cancel()
        await asyncio.wait({self._hosting})
        self._take_reports()
        self._link.close(0)
        self._hub.close()
        if isinstance(self.processor, NetworkProcessor):
            del self.processor._timing
        if not self._hosting.cancelled() and (error := self._hosting.exception()) is not None:
            self._failures.append(error)

    # Words

    @property
    def _elapsed(self) -> float:
        return self.clock.monotonic() - self._began

    def _late(self, goal: str) -> str:
        self._take_reports()
        within = f"within {self._timeout:g} s"
        return f"{self._name} did not come to {goal} {within}: {self._doing}{self._seen}"

    @property
    def _doing(self) -> str:
        """What the processor does now."""
        network = self._network
        if network is None:
            return "no network loop runs"
        status = network.connection.status.name
        operation = network.connection.operation
        if type(operation) in HOOKS:
            return f"it is {status}, and {HOOKS[type(operation)]} is under way"
        wait = network.rests_until - self.clock.monotonic()
        if wait == math.inf:
            return f"it is {status}, and no check is due any more"
        return f"it is {status}, and the next check is due in {max(0.0, wait):g} s of its clock"

    @property
    def _seen(self) -> str:
        seen = "\n".join(f"  {transition!r}" for transition in self._transitions)
        return f". Transitions:\n{seen or '  none'}"


def _where(failure: BaseException) -> str:
    """Return the note that says which hook raised a failure."""
    notes: list[str] = getattr(failure, "__notes__", [])
    return next((note for note in reversed(notes) if note.startswith(RAISED_BY)), "raised")
