"""One process of a worker, from the order to launch it to its reaping.

::

    wait for a place ─▶ launcher.start ─▶ process.wait ─▶ clean up, last reports, evidence
          │ not wanted       │ raises, or gets stuck           │
          ▼                  ▼                                 ▼
       Exited            LaunchFailed                       Exited

Its twin is `chronopype_mp.core.session`, which decides what is said to the worker. Whatever the
launcher raises in here ends in one of these three stimuli: the error is logged, becomes part of the
dossier, and the worker's policy goes on.

A launcher may also hang or do nothing. A kill is repeated until the process is gone. A `start` that
does not return after a kill is given up, and so is a `wait` for a process that a `look` shows as
gone. `chronopype_mp.testing.FaultyLauncher` does all that at random.

At the end of a program, `asyncio.run` cancels all tasks, these included. They stop their worker
then and still wait for its end, so that no process is left behind.
"""

from __future__ import annotations

import asyncio
import functools
import logging
import secrets
from collections.abc import Callable, Coroutine
from typing import Any, NamedTuple, TypeVar

import msgspec

from chronopype_mp.coordinator.callbacks import Guard
from chronopype_mp.coordinator.evidence import gather
from chronopype_mp.coordinator.inbox import Inbox
from chronopype_mp.coordinator.output import OutputPump, WorkerOutput
from chronopype_mp.coordinator.record import WorkerRecord
from chronopype_mp.coordinator.starts import Starts
from chronopype_mp.coordinator.switchboard import CallQueue, Switchboard
from chronopype_mp.coordinator.ticker import Ticker
from chronopype_mp.coordinator.trouble import Trouble, brief
from chronopype_mp.coordinator.worker_boot import boot_of
from chronopype_mp.coordinator.worker_logs import relay
from chronopype_mp.core.boot import TickRules
from chronopype_mp.core.messages import (
    PROTOCOL,
    CallAsked,
    CallDone,
    Downlink,
    Failure,
    Hello,
    LogLine,
    Reply,
    Stop,
    Uplink,
)
from chronopype_mp.core.outputs import OutputPolicy
from chronopype_mp.core.session import Answer, CoordinatorSession, Due, SessionState
from chronopype_mp.core.stimuli import (
    BeatReceived,
    Begun,
    Deferred,
    Evidence,
    Exited,
    GotReady,
    Launched,
    LaunchFailed,
    Probed,
    Stimulus,
    StopAsked,
)
from chronopype_mp.core.worker_events import Event, ProcessorFailed
from chronopype_mp.launchers import Launcher, Look, ProcessEnd, WorkerProcess
from chronopype_mp.timing import TimeSource
from chronopype_mp.transport.base import Hub

__all__ = ["Incarnation", "Machinery"]

T = TypeVar("T")

logger = logging.getLogger("chronopype_mp.coordinator")

STACKS_WITHIN = 0.5
"""Seconds that a process has to write its stacks when asked before it is killed."""

LOOKS_MISSED = 2
"""Looks that the guard may be late until Python counts as not running."""

LAST_REPORTS = 0.25
"""Seconds, at most, for what an ended process had sent to come out of the socket."""

PATIENCE = 2.0
"""Seconds after a kill until it is repeated, and until a launcher that is stuck is given up."""

ANSWER_WITHIN = 0.5
"""Seconds that a launcher has to answer a look, or to report the end of a process that is gone. The
supervisor waits twice as long for the answer to a probe."""

GIVE_UP_AFTER = 5.0
"""Seconds after which a process is left behind that the launcher can neither wait for nor kill."""

LOOK_AGAIN = 0.05
"""Seconds between two looks at a process whose end the launcher cannot report."""


class Machinery(NamedTuple):
    """What all incarnations of a coordinator share.

    Attributes:
        guard: calls what may run the owner's code, such as log handlers.
        on_failure: called in the event loop with an error that no worker's policy covers.
        switchboard: calls other workers.
    """

    launcher: Launcher
    hub: Hub
    ticker: Ticker
    inbox: Inbox
    output: OutputPump
    starts: Starts
    timing: TimeSource
    rules: TickRules
    event_loop: str
    outputs: OutputPolicy
    guard: Guard
    on_failure: Callable[[BaseException], None]
    switchboard: Switchboard


class _Cancelled(RuntimeError):
    """Something that was awaited was cancelled, though not by whoever awaited it."""


class Incarnation:
    """One process and the conversation with it. Making one asks for its launch.

    Args:
        record: of which worker.
        number: the incarnation, from 1.
        machinery: what it shares with the others.
        stimulate: hands a stimulus to the supervisor.
        emit: publishes an event.

    Attributes:
        is_killed: the coordinator has killed it, or will as soon as it exists.
        fatal: the failure that it reported as its end.
        token: what its reports must carry.
        calls: those of its processor's methods.
        ended: a task that is done once the supervisor knows of its end. Cancelling it stops the
            worker permanently, at the latest by a kill after its ``stop_grace``.
    """

    def __init__(
        self,
        record: WorkerRecord,
        number: int,
        machinery: Machinery,
        stimulate: Callable[[Stimulus], None],
        emit: Callable[[Event], None],
    ) -> None:
        self.record = record
        self.number = number
        self.is_killed = False
        self.fatal: Failure | None = None
        self._machinery = machinery
        self._stimulate = stimulate
        self._emit = emit
        self.token = secrets.randbits(63)
        self.calls = CallQueue(record.name, self.order, machinery.guard)
        self._session = CoordinatorSession(record.name, number, record.settings)
        self._process: WorkerProcess | None = None
        self._output: WorkerOutput | None = None
        self._place = machinery.starts.ask()
        self._early_ready: GotReady | None = None
        self._trouble = Trouble(record.name, number, machinery.guard)
        self._operation: asyncio.Task[Any] | None = None
        self._of_task: BaseException | None = None
        self._is_stuck = False
        self._is_given_up = False
        self._is_over = False
        self._cancellations = 0
        self._tasks: set[asyncio.Task[None]] = set()
        self._insistence: asyncio.Task[None] | None = None
        self.ended = asyncio.create_task(self._run(), name=f"incarnation of {record.name}")
        self.ended.add_done_callback(self._never_began)
        self.ended.add_done_callback(lambda _: self.calls.end())

    @property
    def pid(self) -> int | None:
        """The process id; None while there is no process."""
        return None if self._process is None else self._process.pid

    @property
    def was_ready(self) -> bool:
        """Whether the worker has reported that it is ready."""
        return self._session.was_ready

    @property
    def is_ready(self) -> bool:
        """Whether the worker takes orders."""
        return self._session.state is SessionState.READY

    @property
    def is_inline(self) -> bool:
        """Whether it runs in the owner's process and event loop now."""
        is_inline = False
        if self._process is not None:
            with self._trouble.noting("inline"):
                is_inline = self._process.inline
        return is_inline

    @property
    def stopped_at(self) -> int | None:
        """The last tick before the stop that the worker has confirmed; None before that."""
        return self._session.stopped_at

    @property
    def progress(self) -> int | None:
        """The last tick that it has finished in a free run; None if it is not READY."""
        return self._session.through if self.is_ready else None

    @property
    def output_lines(self) -> int:
        """Lines that it has printed."""
        return 0 if self._output is None else self._output.lines

    def exception(self, serial: int) -> BaseException | None:
        """Return the exception of failure ``serial``, if it never left this process."""
        kept: list[BaseException | None] = [None]
        process = self._process
        if process is not None:
            with self._trouble.noting("exception()"):
                kept.append(process.exception(serial))
        return kept[-1]

    def start_is_over(self) -> None:
        """Let the next start begin."""
        self._place.leave()

    # The conversation

    def take(self, report: Uplink) -> str | None:
        """Take a report of this incarnation; return why it is dropped, or None."""
        if report.token != self.token:
            return "forged"
        self._follow(self._session.handle(report, self._now()))
        is_foreign = isinstance(report, Hello) and report.protocol != PROTOCOL
        return "garbage" if is_foreign else None

    def order(self, command: Downlink) -> None:
        """Give a READY worker an order; it is repeated until acknowledged."""
        self._send(self._session.order(command, self._now()))

    def configure(self) -> None:
        """Bring the present settings to the worker."""
        self._send(self._session.configure(self.record.settings, self._now()))

    def stop(self) -> None:
        """Ask for a graceful stop."""
        self.order(Stop())

    def look_at_the_time(self) -> None:
        """Repeat what is not acknowledged; ask for a stop that is not heard by a signal, too."""
        now = self._now()
        self._follow(self._session.handle(Due(), now))
        if self._process is not None and self._session.stop_is_unheard(now):
            with self._trouble.noting("terminate()"):
                self._process.terminate()
        if self.is_inline and self.was_ready:
            # The loop turns, since this runs in it; the worker's own beats come in real time.
            self._stimulate(BeatReceived(self.record.name, self.number))

    def _now(self) -> float:
        return self._machinery.timing.monotonic()

    def _send(self, commands: list[Downlink]) -> None:
        for command in commands:
            self._machinery.ticker.send(self.record.name, command)

    def _follow(self, answer: Answer) -> None:
        self._send(answer.commands)
        for fact in answer.facts:
            self._note(fact)
        for stimulus in answer.stimuli:
            if isinstance(stimulus, GotReady) and self._process is None:
                self._early_ready = stimulus  # faster than the thread that started it
            else:
                self._stimulate(stimulus)

    def _note(self, fact: Uplink) -> None:
        if isinstance(fact, LogLine):
            self._machinery.guard.call("a log handler", relay, fact)
        elif isinstance(fact, Hello):
            self._tell_versions(fact)
        elif isinstance(fact, CallDone):
            self.calls.take(fact)
        elif isinstance(fact, CallAsked):
            self._spawn(self._call_another(fact))
        elif isinstance(fact, Failure) and fact.fatal:
            self.fatal = fact  # it comes again in the event of the process' end
        else:
            event = self.record.take(fact, self._machinery.timing.wall())
            if isinstance(event, ProcessorFailed) and isinstance(fact, Failure):
                exception = self.exception(fact.serial)
                event = msgspec.structs.replace(event, exception=exception)
            if event is not None:
                self._emit(event)

    async def _call_another(self, asked: CallAsked) -> None:
        outcome = await self._machinery.switchboard.call(
            asked.callee, asked.method, asked.arguments, asked.timeout
        )
        self.order(Reply(call=asked.call, outcome=outcome))

    def _tell_versions(self, hello: Hello) -> None:
        self._machinery.guard.log(
            logger,
            logging.ERROR,
            "worker %r speaks version %d of the protocol (chronopype_mp %s, Python %s), the "
            "coordinator version %d; both processes must run the same chronopype_mp",
            self.record.name,
            hello.protocol,
            hello.package,
            hello.python,
            PROTOCOL,
        )

    # The process

    def kill(self, *, stacks: bool = False) -> None:
        """Kill the process; one that is being started, as soon as it exists.

        Args:
            stacks: let it write its stacks first.
        """
        self.is_killed = True
        process = self._process
        if process is not None:
            with self._trouble.noting("kill()"):
                process.kill(STACKS_WITHIN if stacks else 0.0)
        elif not self._place.granted.done():
            self._place.leave()
        self._insist()

    def probe(self) -> None:
        """Look at the process and tell the supervisor; an end that the launcher missed counts."""
        self._spawn(self._probe())

    async def _probe(self) -> None:
        look = await self._look()
        if look is None:
            return  # the supervisor does without
        if look.gone:
            self._insist(ANSWER_WITHIN)
            return
        silence = LOOKS_MISSED * self.record.policy.guard_interval
        self._stimulate(
            Probed(
                self.record.name,
                self.number,
                process_stopped=look.stopped,
                stacks_written=look.stacks_written,
                python_runs=look.silent_for is None or look.silent_for < silence,
            )
        )

    async def _look(self) -> Look | None:
        """Return what can be seen of the process; None if the launcher fails."""
        if self._process is None:
            return Look()
        return await self._soon("look()", self._process.look)

    async def _soon(self, what: str, make: Callable[[], Coroutine[object, object, T]]) -> T | None:
        """Await the launcher for `ANSWER_WITHIN`; return None if it fails."""
        operation = asyncio.create_task(_awaited(make))
        pause = asyncio.create_task(self._pause(ANSWER_WITHIN))
        try:
            await asyncio.wait({operation, pause}, return_when=asyncio.FIRST_COMPLETED)
        finally:
            pause.cancel()
            is_late = operation.cancel()
        if is_late:
            self._trouble.note(what, TimeoutError(f"no answer within {ANSWER_WITHIN:g} s"))
            return None
        try:
            return operation.result()
        except BaseException as error:
            self._trouble.note(what, error)
            return None

    def _insist(self, patience: float = PATIENCE) -> None:
        task = self._insistence
        if self._is_over:
            return  # a subscriber of its last event may still want it killed
        if task is None or task.done() or task.cancelling():
            self._insistence = self._spawn(self._kill_again(patience))

    async def _kill_again(self, patience: float) -> None:
        """Repeat the kill until the launcher reports the end; give up one that is stuck.

        Args:
            patience: seconds until the first look.
        """
        while True:
            await self._pause(patience)
            patience = PATIENCE
            process = self._process
            look = await self._look()
            if process is None or (look is not None and look.gone):
                if self._operation is not None:
                    self._is_stuck = True
                    self._operation.cancel()
            elif self.is_killed:
                with self._trouble.noting("kill()"):
                    process.kill()

    async def _kill_later(self) -> None:
        await self._pause(self.record.policy.stop_grace)
        self.kill()

    async def _pause(self, seconds: float) -> None:
        await self._machinery.timing.sleep_until(self._now() + seconds)

    def _spawn(self, work: Coroutine[object, object, None]) -> asyncio.Task[None]:
        task = asyncio.create_task(work, name=f"watch of {self.record.name}")
        self._tasks.add(task)
        task.add_done_callback(self._watch_ended)
        return task

    def _watch_ended(self, task: asyncio.Task[None]) -> None:
        self._tasks.discard(task)
        if not task.cancelled() and (error := task.exception()) is not None:
            self._machinery.on_failure(error)

    def _end_watches(self) -> None:
        self._is_over = True
        self._place.leave()
        for task in self._tasks:
            task.cancel()

    def give_up(self) -> None:
        """End without the process, which cannot be killed; the supervisor gets no word of it."""
        self._is_given_up = True
        self.ended.cancel()

    async def _run(self) -> None:
        try:
            end = await self._launch_and_reap()
        except BaseException as error:
            if self._is_given_up:
                raise
            end = self._broken_by(error)
        finally:
            self._end_watches()
            if self._output is not None:
                with self._trouble.noting("output"):
                    self._output.finish()
        self._close_account()
        for event in (
            self.record.restore_ended(self.number),
            self.record.process_ended(self.number, self._machinery.timing.wall()),
        ):
            if event is not None:
                self._emit(event)
        self.record.incarnation = None
        self._stimulate(end)

    def _never_began(self, task: asyncio.Task[None]) -> None:
        """Report the end of a task that was cancelled before its first step; else do nothing."""
        if task.cancelled() and not self._is_given_up:
            self._end_watches()
            self.record.incarnation = None
            self._stimulate(StopAsked(self.record.name))
            never = Evidence(pid=None, exitcode=None)
            self._stimulate(Exited(self.record.name, self.number, never))

    async def _launch_and_reap(self) -> Exited | LaunchFailed:
        """Start the process and see it to its end."""
        if not await self._may_start():
            never = Evidence(pid=None, exitcode=None)
            return Exited(self.record.name, self.number, never)
        try:
            process = await self._call("start()", self._start())
            if not isinstance(process.pid, int):
                with self._trouble.noting("kill()"):
                    process.kill()
                raise TypeError(f"start() returned a process whose pid is {process.pid!r}")
            launched = Launched(self.record.name, self.number, process.pid)
        except BaseException as error:
            if self._is_given_up:
                raise
            message = "worker %r cannot be launched"
            guard = self._machinery.guard
            guard.log(logger, logging.DEBUG, message, self.record.name, error=error)
            self._end_later("start()", error)
            # The process may have reported before its start failed.
            lost = self._close_account()
            return LaunchFailed(self.record.name, self.number, brief(error), lost)
        self._process = process
        self._stimulate(launched)
        with self._trouble.noting("output"):
            self._watch_output()
        if self.is_killed:
            self.kill()
        if self._early_ready is not None:
            self._stimulate(self._early_ready)
        end = await self._end_of(process)
        self.start_is_over()
        with self._trouble.noting("clean_up()"):
            process.clean_up()
        await self._read_last_reports()
        return Exited(self.record.name, self.number, self._evidence(end))

    def _broken_by(self, error: BaseException) -> Exited:
        """Return the end of a process that cannot be followed any further."""
        self._trouble.note("supervision", error)
        self._end_later("supervision", error)
        if self._process is not None:
            with self._trouble.noting("kill()"):
                self._process.kill()
        evidence = Evidence(
            pid=self.pid, exitcode=None, killed=self.is_killed, trouble=self._trouble.text
        )
        return Exited(self.record.name, self.number, evidence)

    async def _may_start(self) -> bool:
        """Wait for a place; return False if the process was to be killed before it had one."""
        if self._place.granted.done():
            return self._place.granted.result()
        self._stimulate(Deferred(self.record.name, self.number))
        await self._sit_out(self._place.granted)
        granted = self._place.granted.result()
        if granted:
            self._stimulate(Begun(self.record.name, self.number))
        return granted

    async def _start(self) -> WorkerProcess:
        machinery, record = self._machinery, self.record
        original = None if record.launched else record.original
        record.launched = True
        boot = boot_of(
            self,
            self.token,
            machinery.hub,
            machinery.rules,
            machinery.event_loop,
            machinery.outputs,
        )
        return await machinery.launcher.start(
            boot, machinery.hub, original, machinery.ticker.wait_for_gap
        )

    async def _call(self, what: str, work: Coroutine[object, object, T]) -> T:
        """Await the launcher, which is given up if it gets stuck after a kill."""
        operation = asyncio.create_task(work, name=f"{what} {self.record.name}")
        self._operation = operation
        try:
            await self._sit_out(operation)
        finally:
            self._operation = None
        if not operation.cancelled():
            self._of_task = operation.exception()
            return operation.result()
        if self._is_stuck:
            raise RuntimeError(f"{what} did not return and was given up")
        raise _Cancelled(f"{what} was cancelled")

    def _end_later(self, what: str, error: BaseException) -> None:
        """Let an exit that struck in this task end the program; asyncio raises those of others."""
        if error is not self._of_task:
            self._trouble.end_later(what, error)

    async def _call_until_done(
        self, what: str, make: Callable[[], Coroutine[object, object, T]]
    ) -> T:
        """Await what may be awaited twice, even if the event loop cancels all tasks meanwhile."""
        while True:
            cancellations = self._cancellations
            try:
                return await self._call(what, make())
            except _Cancelled:
                if self._cancellations == cancellations:
                    raise  # it was not the event loop

    async def _sit_out(self, future: asyncio.Future[Any]) -> None:
        """Wait until a future is done; being cancelled meanwhile stops the worker, not this."""
        while not future.done():
            try:
                await asyncio.wait({future})
            except asyncio.CancelledError:
                if self._is_given_up:
                    future.cancel()
                    raise
                self._stop_for_good()

    def _stop_for_good(self) -> None:
        """Stop the worker permanently; again, kill it. The watches were cancelled, too."""
        self.ended.uncancel()
        if self._cancellations or self.is_killed:
            self.kill()
        else:
            self._spawn(self._kill_later())
        self._cancellations += 1
        self._stimulate(StopAsked(self.record.name))

    async def _end_of(self, process: WorkerProcess) -> ProcessEnd:
        """Wait for the end of the process, even if the launcher cannot."""
        try:
            return await self._call_until_done("wait()", process.wait)
        except BaseException as error:
            if self._is_given_up:
                raise
            self._trouble.note("wait()", error)
            self._end_later("wait()", error)
            is_exit = isinstance(error, KeyboardInterrupt | SystemExit)
        await self._call_until_done("kill()", functools.partial(self._bury, process))
        end: ProcessEnd | None = None
        if not is_exit:  # the program ends; another wait would raise it again
            end = await self._call_until_done("wait()", lambda: self._soon("wait()", process.wait))
        return end or ProcessEnd(exitcode=None)

    async def _bury(self, process: WorkerProcess) -> None:
        """Kill a process whose end the launcher could not report, until it is gone."""
        give_up_at = self._now() + GIVE_UP_AFTER
        while True:
            with self._trouble.noting("kill()"):
                process.kill()
            look = await self._look()
            if look is not None and look.gone:
                break
            if self._now() >= give_up_at:
                left = TimeoutError(f"process {process.pid} may still run; it is left behind")
                self._trouble.note("kill()", left)
                break
            await self._pause(LOOK_AGAIN)

    async def _read_last_reports(self) -> None:
        inbox = self._machinery.inbox
        try:
            await self._call_until_done(
                "the inbox", functools.partial(inbox.catch_up, LAST_REPORTS)
            )
        except BaseException as error:
            if self._is_given_up:
                raise
            self._trouble.note("the inbox", error)
            self._end_later("the inbox", error)

    def _watch_output(self) -> None:
        assert self._process is not None
        if self._process.pipes is not None:
            pump = self._machinery.output
            self._output = pump.watch(self.record.name, self._process.pipes)

    def _close_account(self) -> int:
        """Close the account of ticks, once; return how many were lost with the process."""
        published = self._machinery.ticker.position.seq
        return self.record.ledger.close(published, self.stopped_at)

    def _evidence(self, end: ProcessEnd) -> Evidence:
        record = self.record
        lost = self._close_account()
        output: tuple[str, ...] = ()
        if self._output is not None:
            with self._trouble.noting("output"):
                output = self._output.finish()
            record.output_lines += self._output.lines
            self._output = None
        if end.exitcode is None and self.stopped_at is not None:
            # It has said goodbye, but the owner does not get to know the statuses of its children.
            end = msgspec.structs.replace(end, exitcode=0)
        evidence = gather(self, end, output, lost)
        return msgspec.structs.replace(evidence, trouble=self._trouble.text)


async def _awaited(make: Callable[[], Coroutine[object, object, T]]) -> T:
    """Call and await, so that what the call itself raises is raised here, too."""
    return await make()
