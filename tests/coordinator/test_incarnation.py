"""One process from its launch order to its reaping, with a launcher that fails as told."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable
from typing import Any, cast

import pytest

from chronopype_mp.coordinator.callbacks import Guard
from chronopype_mp.coordinator.inbox import Inbox
from chronopype_mp.coordinator.incarnation import (
    ANSWER_WITHIN,
    GIVE_UP_AFTER,
    PATIENCE,
    STACKS_WITHIN,
    Incarnation,
    Machinery,
)
from chronopype_mp.coordinator.output import OutputPump
from chronopype_mp.coordinator.record import WorkerRecord
from chronopype_mp.coordinator.starts import Starts
from chronopype_mp.coordinator.switchboard import Switchboard
from chronopype_mp.coordinator.ticker import Position, Ticker
from chronopype_mp.core.boot import WorkerBoot
from chronopype_mp.core.connection import NetworkStatus
from chronopype_mp.core.ledger import TickTotals
from chronopype_mp.core.messages import (
    PROTOCOL,
    CommandDone,
    Configure,
    Downlink,
    Failure,
    Hello,
    LogLine,
    Ready,
    Rehearse,
    Status,
    Stop,
    Uplink,
    Welcome,
)
from chronopype_mp.core.outputs import OutputPolicy
from chronopype_mp.core.policy import Supervision
from chronopype_mp.core.session import LONGEST_REPEAT, UNHEARD_AFTER
from chronopype_mp.core.stimuli import (
    BeatReceived,
    Begun,
    Deferred,
    Exited,
    GotReady,
    Launched,
    LaunchFailed,
    Probed,
    Stimulus,
    StopAsked,
)
from chronopype_mp.core.worker_events import Event, NetworkChanged, ProcessorFailed, WorkerStatus
from chronopype_mp.launchers import Look
from chronopype_mp.processors import TickProcessor
from chronopype_mp.testing import ManualClock
from tests.coordinator.unruly import RULES, Bizarre, UnrulyLauncher, UnrulyProcess
from tests.waiting import run, turns

STEP = 0.05
"""Seconds by which time is moved on."""

FAULTS: dict[str, Callable[[], BaseException]] = {
    "exception": lambda: OSError("broken"),
    "cancelled": asyncio.CancelledError,
    "bizarre": lambda: Bizarre("broken"),
}


class SentCommands:
    """What a ticker is to an incarnation, without its thread."""

    def __init__(self) -> None:
        self.position = Position(0, 0.0)
        self.commands: list[Downlink] = []

    def send(self, worker: str, command: Downlink) -> None:
        assert worker == "a"
        self.commands.append(command)

    def wait_for_gap(self, work: float) -> float:
        return 0.0


class Output:
    """An output pump and the output of the one process that it watches."""

    def __init__(self, launcher: UnrulyLauncher) -> None:
        self._launcher = launcher
        self.lines = 2

    def watch(self, worker: str, pipes: tuple[int, int]) -> Output:
        self._launcher.do("watch")
        return self

    def finish(self) -> tuple[str, ...]:
        self._launcher.do("finish")
        return ("one", "two")


class Rig:
    """An incarnation of worker ``a`` on time that the test moves; made in an event loop.

    Attributes:
        stops: its process stops at once when that is asked for.
    """

    stops = False

    def __init__(self, starts: Starts | None = None, **policy: Any) -> None:
        self.launcher = UnrulyLauncher()
        self.time = ManualClock()
        self.sent = SentCommands()
        self.stimuli: list[Stimulus] = []
        self.events: list[Event] = []
        self.failures: list[BaseException] = []
        self.hub = self.launcher.open_hub(100)
        self.inbox = Inbox(self.hub, self._deliver)
        self.hub.attach(asyncio.get_running_loop(), self.inbox.on_readable)
        self.record = WorkerRecord(
            "a", TickProcessor(), b"", Supervision(**policy), lambda record: None
        )
        self.record.incarnation = self.incarnation = Incarnation(
            self.record,
            1,
            Machinery(
                launcher=self.launcher,
                hub=self.hub,
                ticker=cast(Ticker, self.sent),
                inbox=self.inbox,
                output=cast(OutputPump, Output(self.launcher)),
                starts=Starts() if starts is None else starts,
                timing=self.time,
                rules=RULES,
                event_loop="asyncio",
                outputs=OutputPolicy(),
                guard=Guard(),
                on_failure=self.failures.append,
                switchboard=Switchboard({}, lambda name: WorkerStatus.STOPPED),
            ),
            self._take,
            self.events.append,
        )

    def _take(self, stimulus: Stimulus) -> None:
        self.stimuli.append(stimulus)
        if isinstance(stimulus, StopAsked) and self.stops:
            self.process.stop()

    def _deliver(self, report: Uplink) -> str | None:
        return self.incarnation.take(report)

    @property
    def process(self) -> UnrulyProcess:
        return self.launcher.processes[-1]

    def of(self, kind: type[Stimulus]) -> list[Any]:
        return [stimulus for stimulus in self.stimuli if isinstance(stimulus, kind)]

    def sent_of(self, kind: type[Downlink]) -> list[Any]:
        return [command for command in self.sent.commands if isinstance(command, kind)]

    async def launched(self) -> UnrulyProcess:
        await self.launcher.board.until(lambda: bool(self.of(Launched)) or self.notify_later())
        return self.process

    def notify_later(self) -> bool:
        asyncio.get_running_loop().call_soon(self.launcher.board.notify)
        return False

    async def ready(self) -> UnrulyProcess:
        process = await self.launched()
        process.get_ready()
        await turns()
        assert self.of(GotReady)
        return process

    async def pass_time(self, seconds: float) -> None:
        for _ in range(round(seconds / STEP) + 2):  # the first before a new task sleeps
            self.time.advance(STEP)
            await turns(5)

    async def ended(self) -> Exited | LaunchFailed:
        """Wait for the end; check that it was reported once and that nothing is left."""
        await asyncio.wait({self.incarnation.ended})
        await turns()
        (end,) = [*self.of(Exited), *self.of(LaunchFailed)]
        assert self.stimuli[-1] is end
        assert self.record.incarnation is None
        assert asyncio.all_tasks() == {asyncio.current_task()}
        assert self.failures == []
        return cast("Exited | LaunchFailed", end)

    async def exited(self) -> Exited:
        end = await self.ended()
        assert isinstance(end, Exited)
        return end


def errors(caplog: pytest.LogCaptureFixture) -> list[str]:
    return [record.getMessage() for record in caplog.records if record.levelno >= logging.ERROR]


# The ordinary course


def test_a_process_is_reported_from_its_launch_to_its_end() -> None:
    async def scenario() -> None:
        rig = Rig()
        process = await rig.ready()
        assert rig.incarnation.pid == 1000
        assert rig.incarnation.was_ready
        rig.incarnation.stop()
        process.stop()
        end = await rig.exited()
        assert [type(stimulus) for stimulus in rig.stimuli] == [Launched, GotReady, Exited]
        assert (end.evidence.pid, end.evidence.exitcode) == (1000, 0)
        assert (end.evidence.trouble, end.evidence.killed) == (None, False)
        assert rig.launcher.calls == ["open_hub", "start", "wait", "clean_up"]

    run(scenario())


def test_ready_before_start_has_returned_is_kept_until_the_process_is_known() -> None:
    async def scenario() -> None:
        rig = Rig()
        rig.launcher.hangs.add("start")
        await turns()
        token = rig.incarnation.token
        early = UnrulyProcess(
            rig.launcher,
            WorkerBoot(
                worker="a",
                incarnation=1,
                token=token,
                payload=b"",
                down="",
                up="",
                data_up="",
                messages_in="",
                messages_out="",
                rules=RULES,
                beat_interval=1.0,
                stop_grace=1.0,
            ),
            1000,
        )
        early.get_ready()
        await turns()
        assert rig.stimuli == []
        rig.launcher.release()
        await turns()
        assert rig.stimuli == [Launched("a", 1, 1000), GotReady("a", 1)]
        rig.process.exit()
        await rig.ended()

    run(scenario())


def test_a_launch_that_fails_after_an_early_ready_leaves_no_account_open() -> None:
    async def scenario() -> None:
        rig = Rig()
        rig.launcher.hangs.add("start")
        await turns()
        common: dict[str, Any] = {"worker": "a", "incarnation": 1, "token": rig.incarnation.token}
        assert rig.incarnation.take(Hello(**common, pid=1)) is None
        assert rig.incarnation.take(Ready(**common, base=0)) is None
        assert rig.record.state.is_active
        rig.incarnation.kill()
        await rig.pass_time(PATIENCE)
        assert isinstance(await rig.ended(), LaunchFailed)
        assert not rig.record.state.is_active
        assert rig.record.ledger.totals(50) == TickTotals()

    run(scenario())


def test_a_start_that_waits_for_a_place_says_so() -> None:
    async def scenario() -> None:
        starts = Starts(1)
        place = starts.ask()
        rig = Rig(starts)
        await turns()
        assert rig.stimuli == [Deferred("a", 1)]
        place.leave()
        await rig.launched()
        assert rig.stimuli == [Deferred("a", 1), Begun("a", 1), Launched("a", 1, 1000)]
        rig.process.exit()
        await rig.ended()

    run(scenario())


def test_a_kill_before_a_place_is_granted_ends_it_without_a_process() -> None:
    async def scenario() -> None:
        starts = Starts(1)
        place = starts.ask()
        rig = Rig(starts)
        await turns()
        rig.incarnation.kill()
        end = await rig.exited()
        assert (end.evidence.pid, end.evidence.exitcode) == (None, None)
        assert "start" not in rig.launcher.calls
        place.leave()
        assert starts.ask().granted.done(), "the place was not kept"

    run(scenario())


# What is said


def test_a_report_without_the_token_is_forged() -> None:
    async def scenario() -> None:
        rig = Rig()
        await rig.launched()
        wrong = Hello(worker="a", incarnation=1, token=rig.incarnation.token + 1, pid=1)
        assert rig.incarnation.take(wrong) == "forged"
        assert rig.sent.commands == []
        rig.process.send(Hello, pid=1)
        await turns()
        assert [type(command) for command in rig.sent.commands] == [Welcome]
        rig.process.exit()
        await rig.ended()

    run(scenario())


def test_tokens_differ() -> None:
    async def scenario() -> None:
        rigs = [Rig() for _ in range(3)]
        assert len({rig.incarnation.token for rig in rigs}) == 3
        for rig in rigs:
            rig.incarnation.kill()
        await asyncio.wait({rig.incarnation.ended for rig in rigs})

    run(scenario())


def test_a_worker_of_another_protocol_gets_no_welcome_and_is_told_of_once(
    caplog: pytest.LogCaptureFixture,
) -> None:
    async def scenario() -> None:
        rig = Rig()
        process = await rig.launched()
        for _ in range(2):
            process.send(Hello, pid=1, protocol=PROTOCOL + 1, package="9.8.7", python="3.99.1")
        await turns()
        assert rig.inbox.dropped.garbage == 2
        assert rig.sent.commands == []
        process.exit()
        await rig.ended()

    run(scenario())
    (message,) = errors(caplog)
    for part in (f"version {PROTOCOL + 1}", "9.8.7", "3.99.1", "must run the same chronopype_mp"):
        assert part in message


def test_an_order_is_repeated_until_it_is_acknowledged() -> None:
    async def scenario() -> None:
        rig = Rig()
        rig.incarnation.order(Rehearse(fault="spin", amount=1.0))
        process = await rig.ready()
        assert rig.sent_of(Rehearse) == [], "before READY nothing is ordered"
        rig.incarnation.order(Rehearse(fault="spin", amount=1.0))
        for count in (1, 2, 3):
            assert len(rig.sent_of(Rehearse)) == count
            rig.time.advance(LONGEST_REPEAT)
            rig.incarnation.look_at_the_time()
        process.send(CommandDone, id=1, seq=0)
        await turns()
        rig.time.advance(LONGEST_REPEAT)
        rig.incarnation.look_at_the_time()
        assert len(rig.sent_of(Rehearse)) == 4
        process.exit()
        await rig.ended()

    run(scenario())


def test_settings_are_brought_as_they_are_in_the_record() -> None:
    async def scenario() -> None:
        rig = Rig()
        process = await rig.ready()
        rig.record.set_paused(True)
        rig.incarnation.configure()
        (command,) = rig.sent_of(Configure)
        assert command.settings.paused
        process.exit()
        await rig.ended()

    run(scenario())


def test_a_stop_that_is_not_heard_is_asked_for_by_a_signal_too() -> None:
    async def scenario() -> None:
        rig = Rig()
        process = await rig.ready()
        rig.incarnation.stop()
        rig.time.advance(UNHEARD_AFTER / 2)
        rig.incarnation.look_at_the_time()
        assert "terminate" not in rig.launcher.calls
        rig.time.advance(UNHEARD_AFTER)
        rig.incarnation.look_at_the_time()
        assert rig.launcher.calls.count("terminate") == 1
        process.send(CommandDone, id=rig.sent_of(Stop)[0].id, seq=7)
        await turns()
        rig.time.advance(UNHEARD_AFTER)
        rig.incarnation.look_at_the_time()
        assert rig.launcher.calls.count("terminate") == 1
        assert rig.incarnation.stopped_at == 7
        process.exit()
        await rig.ended()

    run(scenario())


def test_an_inline_worker_is_known_to_beat_since_its_loop_is_ours() -> None:
    async def scenario() -> None:
        rig = Rig()
        process = await rig.launched()
        process.inline = True  # type: ignore[misc]
        rig.incarnation.look_at_the_time()
        assert not rig.of(BeatReceived)
        process.get_ready()
        await turns()
        rig.incarnation.look_at_the_time()
        assert rig.of(BeatReceived)
        process.exit()
        await rig.ended()

    run(scenario())


def failure(**values: Any) -> dict[str, Any]:
    return {
        "hook": "async_tick",
        "serial": 4,
        "type_name": "KeyError",
        "message": "'price'",
        "traceback": "Traceback …",
        **values,
    }


def test_a_failure_is_an_event_with_the_exception_if_that_is_at_hand() -> None:
    async def scenario() -> None:
        rig = Rig()
        process = await rig.ready()
        process.send(Failure, **failure(timestamp=14.0))
        await turns()
        process.kept[4] = KeyError("price")
        process.send(Failure, **failure(timestamp=15.0))
        await turns()
        first, second = rig.events
        assert isinstance(first, ProcessorFailed)
        assert isinstance(second, ProcessorFailed)
        assert (first.exception, second.exception) == (None, process.kept[4])
        process.exit()
        await rig.ended()

    run(scenario())


def test_a_failure_that_ends_the_process_comes_with_its_end_and_not_twice() -> None:
    async def scenario() -> None:
        rig = Rig()
        process = await rig.launched()
        process.kept[4] = KeyError("price")
        process.send(Failure, **failure(fatal=True, hook="start"))
        process.exit(1)
        evidence = (await rig.exited()).evidence
        assert rig.events == []
        assert (evidence.error, evidence.error_type) == ("Traceback …", "KeyError")
        assert evidence.exception is process.kept[4]

    run(scenario())


def test_the_end_of_the_process_is_the_end_of_its_network() -> None:
    async def scenario() -> None:
        rig = Rig()
        process = await rig.ready()
        process.send(Status, network=NetworkStatus.CONNECTED, revision=1)
        process.exit(3)
        evidence = (await rig.exited()).evidence
        assert evidence.network_status is NetworkStatus.CONNECTED
        changes = [event for event in rig.events if isinstance(event, NetworkChanged)]
        assert [change.after for change in changes] == [
            NetworkStatus.CONNECTED,
            NetworkStatus.STOPPED,
        ]

    run(scenario())


class Rude(logging.Filter):
    """The owner's filter, which raises."""

    def __init__(self, error: BaseException) -> None:
        super().__init__()
        self.error = error

    def filter(self, record: logging.LogRecord) -> bool:
        raise self.error


@pytest.mark.parametrize("fault", FAULTS)
def test_a_log_handler_of_the_owner_that_raises_does_no_harm(fault: str) -> None:
    line = {"logger": "tests.incarnation", "level": logging.ERROR, "message": "m", "created": 1.0}
    rude = Rude(FAULTS[fault]())
    ours = logging.getLogger("chronopype_mp.coordinator")

    async def scenario() -> None:
        rig = Rig()
        process = await rig.ready()
        process.send(LogLine, **line)
        process.send(Status, network=NetworkStatus.CONNECTED, revision=1)
        await turns()
        assert rig.record.network_status is NetworkStatus.CONNECTED
        rig.launcher.faults["wait"] = OSError("broken")  # what is logged of it meets the filter
        rig.launcher.faults["clean_up"] = OSError("broken")
        process.exit()
        assert "clean_up() failed" in ((await rig.exited()).evidence.trouble or "")

    target = logging.getLogger("tests.incarnation")
    target.addFilter(rude)
    ours.addFilter(rude)
    try:
        run(scenario())
    finally:
        target.removeFilter(rude)
        ours.removeFilter(rude)


def test_an_exit_raised_by_a_log_handler_ends_the_program_later() -> None:
    rude = Rude(SystemExit(3))
    target = logging.getLogger("tests.incarnation")
    target.addFilter(rude)
    line = {"logger": "tests.incarnation", "level": logging.ERROR, "message": "m", "created": 1.0}
    rigs: list[Rig] = []

    async def scenario() -> None:
        rig = Rig()
        rigs.append(rig)
        process = await rig.ready()
        process.send(LogLine, **line)
        process.send(Status, network=NetworkStatus.CONNECTED, revision=1)
        process.exit()
        await asyncio.Event().wait()

    try:
        with pytest.raises(SystemExit):
            asyncio.run(scenario())
    finally:
        target.removeFilter(rude)
    (rig,) = rigs
    assert isinstance(rig.events[0], NetworkChanged), "what came after the log line was handled"


# A launcher that raises


@pytest.mark.parametrize("fault", FAULTS)
def test_a_start_that_raises_is_a_failed_launch(fault: str) -> None:
    async def scenario() -> None:
        rig = Rig()
        rig.launcher.faults["start"] = FAULTS[fault]()
        end = await rig.ended()
        assert isinstance(end, LaunchFailed)
        assert ("cancelled" if fault == "cancelled" else "broken") in end.error
        assert [type(stimulus) for stimulus in rig.stimuli] == [LaunchFailed]

    run(scenario())


def test_a_start_that_returns_nonsense_is_a_failed_launch() -> None:
    async def scenario() -> None:
        rig = Rig()

        async def start(*_: object) -> None:
            return None

        rig.launcher.start = start  # type: ignore[method-assign, assignment]
        end = await rig.ended()
        assert isinstance(end, LaunchFailed)
        assert "'NoneType'" in end.error

    run(scenario())


@pytest.mark.parametrize("fault", FAULTS)
def test_a_wait_that_raises_ends_in_a_kill_and_in_an_end_that_says_so(
    fault: str, caplog: pytest.LogCaptureFixture
) -> None:
    async def scenario() -> None:
        rig = Rig()
        rig.launcher.faults["wait"] = FAULTS[fault]()
        evidence = (await rig.exited()).evidence
        assert evidence.exitcode is None
        assert evidence.trouble is not None
        assert evidence.trouble.startswith("wait() failed: ")
        assert rig.launcher.calls[-1] == "clean_up"
        assert "kill" in rig.launcher.calls
        assert rig.process.end.done()

    run(scenario())
    assert set(errors(caplog)) == {"wait() of worker 'a' (incarnation 1) failed"}


def test_a_wait_that_raises_later_kills_a_worker_that_was_ready() -> None:
    async def scenario() -> None:
        rig = Rig()
        rig.launcher.hangs.add("wait")
        process = await rig.ready()
        process.end.set_exception(ConnectionError("the forkserver is gone"))
        rig.launcher.release()
        evidence = (await rig.exited()).evidence
        assert evidence.trouble == "wait() failed: ConnectionError: the forkserver is gone"
        assert "kill" in rig.launcher.calls

    run(scenario())


async def call_everything(rig: Rig) -> None:
    """Lead an incarnation through every method of its process, to its end."""
    process = await rig.ready()
    process.send(Failure, **failure())
    await turns()
    rig.incarnation.probe()
    await turns()
    rig.incarnation.stop()
    rig.time.advance(2 * UNHEARD_AFTER)
    rig.incarnation.look_at_the_time()
    rig.incarnation.look_at_the_time()
    rig.incarnation.kill()
    process.exit(-9)


@pytest.mark.parametrize("fault", FAULTS)
@pytest.mark.parametrize(
    "method", ["look", "kill", "terminate", "clean_up", "exception", "watch", "finish"]
)
def test_whatever_a_process_raises_is_in_its_dossier_and_its_end_is_reported_once(
    method: str, fault: str, caplog: pytest.LogCaptureFixture
) -> None:
    name = "output" if method in ("watch", "finish") else f"{method}()"

    async def scenario() -> None:
        rig = Rig()
        rig.launcher.faults[method] = FAULTS[fault]()
        UnrulyProcess.pipes = (0, 1)  # nobody reads them here
        try:
            await call_everything(rig)
            evidence = (await rig.exited()).evidence
        finally:
            UnrulyProcess.pipes = None
        assert method in rig.launcher.calls
        assert (evidence.pid, evidence.exitcode) == (1000, -9)
        assert evidence.trouble is not None
        assert evidence.trouble.startswith(f"{name} failed: ")
        assert rig.of(LaunchFailed) == []

    run(scenario())
    assert errors(caplog) == [f"{name} of worker 'a' (incarnation 1) failed"]


def test_an_inbox_that_fails_in_the_end_costs_only_the_last_reports() -> None:
    async def scenario() -> None:
        rig = Rig()
        process = await rig.ready()

        async def catch_up(timeout: float) -> None:
            raise OSError("no more sockets")

        rig.inbox.catch_up = catch_up  # type: ignore[method-assign]
        process.exit(3)
        evidence = (await rig.exited()).evidence
        assert (evidence.exitcode, evidence.trouble) == (
            3,
            "the inbox failed: OSError: no more sockets",
        )

    run(scenario())


def test_evidence_that_cannot_be_gathered_is_an_end_all_the_same(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def gather(*_: object) -> None:
        raise ValueError("nonsense")

    monkeypatch.setattr("chronopype_mp.coordinator.incarnation.gather", gather)

    async def scenario() -> None:
        rig = Rig()
        process = await rig.ready()
        process.exit(3)
        evidence = (await rig.exited()).evidence
        assert evidence.pid == 1000
        assert evidence.trouble == "supervision failed: ValueError: nonsense"

    run(scenario())
    assert errors(caplog) == ["supervision of worker 'a' (incarnation 1) failed"]


def test_a_wait_that_returns_nonsense_is_an_end() -> None:
    async def scenario() -> None:
        rig = Rig()
        process = await rig.launched()
        process.end.set_result(cast(Any, None))
        assert "'NoneType'" in ((await rig.exited()).evidence.trouble or "")

    run(scenario())


@pytest.mark.parametrize("kind", [SystemExit, KeyboardInterrupt])
@pytest.mark.parametrize("method", ["start", "wait", "look", "kill", "clean_up"])
def test_an_exit_raised_by_a_launcher_ends_the_program_and_its_worker(
    method: str, kind: type[BaseException]
) -> None:
    rigs: list[Rig] = []

    async def scenario() -> None:
        rig = Rig()
        rigs.append(rig)
        rig.stops = method == "look"
        rig.launcher.faults[method] = kind()
        if method not in ("start", "wait"):
            process = await rig.ready()
            rig.incarnation.probe()
            await turns()
            rig.incarnation.kill()
            process.exit()
        await asyncio.Event().wait()

    with pytest.raises(kind):
        asyncio.run(scenario())
    (rig,) = rigs
    assert len([*rig.of(Exited), *rig.of(LaunchFailed)]) == 1
    assert all(process.end.done() for process in rig.launcher.processes)


# A launcher that hangs, or answers late


def test_a_start_that_hangs_after_a_kill_is_given_up() -> None:
    async def scenario() -> None:
        rig = Rig()
        rig.launcher.hangs.add("start")
        await turns()
        rig.incarnation.kill()
        await rig.pass_time(PATIENCE / 2)
        assert rig.stimuli == []
        await rig.pass_time(PATIENCE / 2)
        end = await rig.ended()
        assert isinstance(end, LaunchFailed)
        assert "start() did not return and was given up" in end.error

    run(scenario())


def test_a_process_whose_start_returns_after_a_kill_is_killed_as_soon_as_it_exists() -> None:
    async def scenario() -> None:
        rig = Rig()
        rig.launcher.hangs.add("start")
        await turns()
        rig.incarnation.kill()
        assert rig.incarnation.is_killed
        rig.launcher.release()
        end = await rig.exited()
        assert (end.evidence.exitcode, end.evidence.killed) == (-9, True)
        assert rig.of(Launched) == [Launched("a", 1, 1000)]

    run(scenario())


def test_a_wait_that_hangs_after_the_end_is_given_up_once_somebody_looks() -> None:
    async def scenario() -> None:
        rig = Rig()
        rig.launcher.hangs.add("wait")
        process = await rig.ready()
        process.exit(0)
        rig.incarnation.probe()
        await rig.pass_time(3 * ANSWER_WITHIN)
        evidence = (await rig.exited()).evidence
        assert evidence.exitcode is None
        assert (evidence.trouble or "").startswith(
            "wait() failed: RuntimeError: wait() did not return and was given up"
        )

    run(scenario())


def test_a_wait_that_hangs_after_a_kill_is_given_up() -> None:
    async def scenario() -> None:
        rig = Rig()
        rig.launcher.hangs.add("wait")
        await rig.ready()
        rig.incarnation.kill()
        await rig.pass_time(PATIENCE + 2 * ANSWER_WITHIN)
        assert (await rig.exited()).evidence.killed

    run(scenario())


def test_a_kill_that_has_no_effect_is_repeated() -> None:
    async def scenario() -> None:
        rig = Rig()
        process = await rig.ready()
        rig.launcher.faults["kill"] = PermissionError("not yours")
        rig.incarnation.kill()
        await rig.pass_time(PATIENCE)
        assert rig.launcher.calls.count("kill") == 2
        assert process.end.done() is False
        del rig.launcher.faults["kill"]
        await rig.pass_time(PATIENCE)
        evidence = (await rig.exited()).evidence
        assert (evidence.exitcode, evidence.killed) == (-9, True)

    run(scenario())


def test_a_look_that_hangs_does_not_keep_a_process_from_being_killed_again() -> None:
    async def scenario() -> None:
        rig = Rig()
        rig.launcher.hangs.add("look")
        await rig.ready()
        rig.launcher.faults["kill"] = PermissionError("not yours")
        rig.incarnation.kill()
        await rig.pass_time(PATIENCE)
        del rig.launcher.faults["kill"]
        await rig.pass_time(PATIENCE)
        evidence = (await rig.exited()).evidence
        assert evidence.exitcode == -9
        assert "look() failed: TimeoutError" in (evidence.trouble or "")

    run(scenario())


def test_a_wait_that_raises_and_a_look_that_hangs_end_too() -> None:
    async def scenario() -> None:
        rig = Rig()
        rig.launcher.hangs.add("look")
        rig.launcher.faults["wait"] = OSError("broken")
        await rig.launched()
        await rig.pass_time(GIVE_UP_AFTER + 3 * ANSWER_WITHIN)
        trouble = (await rig.exited()).evidence.trouble or ""
        assert "wait() failed" in trouble
        assert "look() failed" in trouble

    run(scenario())


def test_a_look_that_answers_late_is_an_answer() -> None:
    async def scenario() -> None:
        rig = Rig()
        rig.launcher.hangs.add("look")
        process = await rig.ready()
        rig.incarnation.probe()
        await turns()
        assert not rig.of(Probed)
        rig.launcher.release()
        await turns()
        assert len(rig.of(Probed)) == 1
        process.exit()
        assert (await rig.exited()).evidence.trouble is None

    run(scenario())


def test_a_wait_that_answers_late_is_an_end() -> None:
    async def scenario() -> None:
        rig = Rig()
        rig.launcher.hangs.add("wait")
        process = await rig.ready()
        process.exit(5)
        await turns()
        assert not rig.of(Exited)
        rig.launcher.release()
        evidence = (await rig.exited()).evidence
        assert (evidence.exitcode, evidence.trouble) == (5, None)

    run(scenario())


# Looking and killing


@pytest.mark.parametrize(
    ("look", "expected"),
    [
        (Look(), (False, False, True)),
        (Look(stopped=True), (True, False, True)),
        (Look(stacks_written=True), (False, True, True)),
        (Look(silent_for=1.9), (False, False, True)),
        (Look(silent_for=2.1), (False, False, False)),
    ],
)
def test_a_probe_tells_the_supervisor_what_was_seen(
    look: Look, expected: tuple[bool, bool, bool]
) -> None:
    async def scenario() -> None:
        rig = Rig(loop_stall_timeout=10.0)
        rig.record.policy = Supervision(loop_stall_timeout=10.0)
        interval = rig.record.policy.guard_interval
        process = await rig.ready()

        async def see() -> Look:
            if look.silent_for is None:
                return look
            return Look(silent_for=look.silent_for * interval)

        process.look = see  # type: ignore[method-assign]
        rig.incarnation.probe()
        await turns()
        (probed,) = rig.of(Probed)
        assert (probed.process_stopped, probed.stacks_written, probed.python_runs) == expected
        process.exit()
        await rig.ended()

    run(scenario())


@pytest.mark.parametrize("stacks", [False, True])
def test_a_kill_gives_time_for_stacks_where_they_are_wanted(stacks: bool) -> None:
    async def scenario() -> None:
        rig = Rig()
        process = await rig.ready()
        within: list[float] = []

        def kill(stacks_within: float = 0.0) -> None:
            within.append(stacks_within)
            process.exit(-9)

        process.kill = kill  # type: ignore[method-assign]
        rig.incarnation.kill(stacks=stacks)
        await rig.ended()
        assert within == [STACKS_WITHIN if stacks else 0.0]

    run(scenario())


def test_a_kill_that_a_subscriber_of_the_last_event_asks_for_leaves_no_task() -> None:
    async def scenario() -> None:
        rig = Rig()
        process = await rig.ready()
        process.send(Status, network=NetworkStatus.CONNECTED, revision=1)
        await turns()
        rig.incarnation._emit = lambda event: rig.incarnation.kill()
        process.exit(3)
        await rig.exited()
        assert "kill" in rig.launcher.calls

    run(scenario())


# Cancelled from outside, as `asyncio.run` does at the end of a program


def cancel_everything() -> None:
    for task in asyncio.all_tasks() - {asyncio.current_task()}:
        task.cancel()


def test_a_cancelled_incarnation_stops_its_worker_and_sees_it_to_its_end() -> None:
    async def scenario() -> None:
        rig = Rig()
        process = await rig.ready()
        cancel_everything()
        await turns()
        assert rig.stimuli[-1] == StopAsked("a")
        assert not rig.incarnation.ended.done()
        process.stop()
        evidence = (await rig.exited()).evidence
        assert (evidence.exitcode, evidence.trouble) == (0, None)

    run(scenario())


@pytest.mark.parametrize("again", [False, True])
def test_a_cancelled_incarnation_kills_a_worker_that_does_not_stop(again: bool) -> None:
    async def scenario() -> None:
        rig = Rig(stop_grace=3.0)
        await rig.ready()
        cancel_everything()
        await turns()
        if again:
            cancel_everything()
        else:
            await rig.pass_time(2.8)
            assert "kill" not in rig.launcher.calls
            await rig.pass_time(0.2)
        evidence = (await rig.exited()).evidence
        assert (evidence.exitcode, evidence.killed) == (-9, True)

    run(scenario())


def test_an_incarnation_that_is_cancelled_after_a_kill_insists_on_it() -> None:
    async def scenario() -> None:
        rig = Rig()
        await rig.ready()
        rig.launcher.faults["kill"] = PermissionError("not yours")
        rig.incarnation.kill()
        await turns()
        cancel_everything()
        await turns()
        del rig.launcher.faults["kill"]
        await rig.pass_time(PATIENCE)
        assert (await rig.exited()).evidence.exitcode == -9

    run(scenario())


@pytest.mark.parametrize("began", [False, True])
def test_an_incarnation_that_is_cancelled_before_its_start_is_over_ends(began: bool) -> None:
    async def scenario() -> None:
        rig = Rig()
        rig.launcher.hangs.add("start")
        if began:
            await turns()
        cancel_everything()
        await asyncio.wait({rig.incarnation.ended})
        await turns()
        assert rig.stimuli[0] == StopAsked("a")
        assert len([*rig.of(Exited), *rig.of(LaunchFailed)]) == 1
        assert rig.record.incarnation is None
        assert asyncio.all_tasks() == {asyncio.current_task()}

    run(scenario())


def test_a_process_that_is_given_up_is_reported_no_more() -> None:
    async def scenario() -> None:
        rig = Rig()
        await rig.ready()
        rig.launcher.faults["kill"] = PermissionError("not yours")
        rig.incarnation.kill()
        rig.incarnation.give_up()
        await asyncio.wait({rig.incarnation.ended})
        await turns()
        assert not rig.of(Exited)
        assert rig.incarnation.pid == 1000
        assert asyncio.all_tasks() == {asyncio.current_task()}

    run(scenario())


def test_an_error_in_a_watch_is_one_of_the_machinery() -> None:
    async def scenario() -> None:
        rig = Rig()
        process = await rig.ready()
        broken = RuntimeError("the supervisor is broken")

        def stimulate(stimulus: Stimulus) -> None:
            raise broken

        good: Callable[[Stimulus], None] = rig.incarnation._stimulate
        rig.incarnation._stimulate = stimulate
        rig.incarnation.probe()
        await turns()
        assert rig.failures == [broken]
        rig.failures.clear()
        rig.incarnation._stimulate = good
        process.exit()
        await rig.ended()

    run(scenario())


# Launchers that do not keep to the protocol


def test_a_look_that_raises_when_it_is_called_is_one_without_an_answer() -> None:
    async def scenario() -> None:
        rig = Rig()
        process = await rig.ready()

        def look() -> object:
            raise OSError("look fails")

        process.look = look  # type: ignore[assignment,method-assign]
        rig.incarnation.probe()
        await turns()
        assert rig.of(Probed) == []
        process.exit(1)
        evidence = (await rig.exited()).evidence
        assert "look() failed: OSError: look fails" in (evidence.trouble or "")

    run(scenario())


def test_a_process_without_a_process_id_is_killed_and_its_launch_has_failed() -> None:
    async def scenario() -> None:
        rig = Rig()
        start = rig.launcher.start

        async def start_badly(*arguments: Any) -> UnrulyProcess:
            process = await start(*arguments)
            process.pid = None  # type: ignore[assignment]
            return process

        rig.launcher.start = start_badly  # type: ignore[method-assign]
        end = await rig.ended()
        assert isinstance(end, LaunchFailed)
        assert "pid is None" in end.error
        assert "kill" in rig.launcher.calls

    run(scenario())


def test_a_process_that_does_not_say_whether_it_is_inline_is_not() -> None:
    async def scenario() -> None:
        rig = Rig()
        process = await rig.ready()

        def inline(_: object) -> bool:
            raise AttributeError("inline")

        process.__class__ = type("Odd", (UnrulyProcess,), {"inline": property(inline)})
        assert not rig.incarnation.is_inline
        rig.incarnation.look_at_the_time()
        process.exit(1)
        assert "inline failed" in ((await rig.exited()).evidence.trouble or "")

    run(scenario())


def test_a_ctrl_c_that_strikes_in_the_last_steps_ends_the_program_after_them() -> None:
    """asyncio raises the second one in whatever runs at the time."""
    rigs: list[Rig] = []

    async def scenario() -> None:
        rig = Rig()
        rigs.append(rig)
        process = await rig.ready()

        def catch_up(timeout: float) -> object:
            raise KeyboardInterrupt

        rig.inbox.catch_up = catch_up  # type: ignore[assignment,method-assign]
        process.exit(3)
        await asyncio.Event().wait()

    with pytest.raises(KeyboardInterrupt):
        asyncio.run(scenario())
    assert len(rigs[0].of(Exited)) == 1
