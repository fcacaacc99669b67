"""What each report of a worker changes."""

from __future__ import annotations

import logging
import math
from typing import Any, cast

import pytest

from chronopype_mp.coordinator.record import Life, WorkerRecord
from chronopype_mp.coordinator.reports import ReportHandler
from chronopype_mp.coordinator.starts import Place
from chronopype_mp.core.connection import NetworkStatus
from chronopype_mp.core.events import Event, NetworkChanged, ProcessorFailed
from chronopype_mp.core.ledger import TickTotals
from chronopype_mp.core.messages import (
    PROTOCOL,
    STOP_ID,
    Beat,
    Bye,
    CommandDone,
    Failure,
    GuardBeat,
    Hello,
    LogLine,
    Ready,
    Status,
    Uplink,
)
from chronopype_mp.core.policy import Supervision
from chronopype_mp.core.state import TickAccount, TickCounters
from chronopype_mp.core.stimuli import Beaten, GotReady, GuardBeaten, Stimulus
from chronopype_mp.launchers import Look, ProcessEnd
from chronopype_mp.processors import TickProcessor


class Process:
    """A process that keeps one exception."""

    pid = 77
    pipes = None
    inline = False

    def __init__(self) -> None:
        self.kept: dict[int, BaseException] = {}

    async def wait(self) -> ProcessEnd:
        return ProcessEnd(exitcode=0)

    async def look(self) -> Look:
        return Look()

    def kill(self, stacks_within: float = 0.0) -> None:
        """Nothing to kill."""

    def clean_up(self) -> None:
        """Nothing to clean up."""

    def exception(self, serial: int) -> BaseException | None:
        return self.kept.get(serial)


class Rig:
    """A handler with one worker ``a`` in its second incarnation."""

    def __init__(self) -> None:
        self.stimuli: list[Stimulus] = []
        self.events: list[Event] = []
        self.welcomed = 0
        self.configured = 0
        self.record = WorkerRecord("a", TickProcessor(), b"", Supervision(), lambda record: None)
        self.process = Process()
        self.life = Life(2, cast(Place, None))  # its start is over
        self.life.process = self.process
        self.record.life = self.life
        self.progressed = 0
        self.handler = ReportHandler(
            self.stimuli.append,
            self.events.append,
            self._welcome,
            self._configure,
            self._progressed,
        )

    def _progressed(self) -> None:
        self.progressed += 1

    def _welcome(self, record: WorkerRecord, life: Life) -> None:
        self.welcomed += 1
        life.welcomed_with = record.version

    def _configure(self, record: WorkerRecord) -> None:
        self.configured += 1

    def take(self, kind: type[Uplink], **values: Any) -> None:
        report = kind(worker="a", incarnation=2, **values)
        self.handler.handle(self.record, self.life, report)

    def get_ready(self, base: int = 10) -> None:
        self.take(Hello, pid=77)
        self.take(Ready, base=base)
        self.stimuli.clear()

    def beat(self, **values: Any) -> None:
        standard: dict[str, Any] = {
            "account": TickAccount(10),
            "counters": TickCounters(is_active=True),
            "largest_gap": 0.0,
            "lag": 0.0,
        }
        self.take(Beat, **{**standard, **values})


def test_a_hello_is_answered_each_time_because_the_answer_may_not_arrive() -> None:
    rig = Rig()
    rig.take(Hello, pid=77)
    rig.take(Hello, pid=77)
    assert rig.welcomed == 2
    assert rig.stimuli == []


def test_a_worker_of_another_protocol_is_not_welcomed_and_that_is_said_once(
    caplog: pytest.LogCaptureFixture,
) -> None:
    rig = Rig()
    rig.take(Hello, pid=77, protocol=PROTOCOL + 1)
    rig.take(Hello, pid=77, protocol=PROTOCOL + 1)
    assert rig.welcomed == 0
    (record,) = caplog.records
    assert record.levelno == logging.ERROR
    assert f"version {PROTOCOL + 1}" in record.getMessage()
    assert "same chronopype_mp" in record.getMessage()


def test_ready_opens_the_account_and_tells_the_supervisor_once() -> None:
    rig = Rig()
    rig.take(Hello, pid=77)
    rig.take(Ready, base=10)
    rig.take(Ready, base=12)
    assert rig.stimuli == [GotReady("a", 2, 77)]
    assert rig.record.state.is_active
    assert rig.record.ledger.totals(15) == TickTotals(published=5)
    assert rig.configured == 0


def test_ready_before_its_process_is_known_is_kept_for_later() -> None:
    rig = Rig()
    process, rig.life.process = rig.life.process, None
    rig.take(Ready, base=10)
    assert rig.stimuli == []
    assert not rig.life.ready
    assert rig.life.early_ready is not None
    rig.life.process = process
    rig.take(Ready, base=rig.life.early_ready.base)
    assert rig.life.ready


def test_a_setting_that_changed_while_the_worker_started_is_sent_when_it_is_ready() -> None:
    rig = Rig()
    rig.take(Hello, pid=77)
    rig.record.set_paused(True)
    rig.take(Ready, base=10)
    assert rig.configured == 1
    assert not rig.record.state.is_active


def test_a_beat_replaces_what_is_known_and_shows_that_the_loop_turns() -> None:
    rig = Rig()
    rig.get_ready()
    rig.beat(
        account=TickAccount(10, run=3, missed=1),
        counters=TickCounters(is_active=True, success_count=3, last_timestamp=14.0),
        largest_gap=2.0,
        lag=0.25,
        reports_lost=4,
        frames_dropped=5,
    )
    snapshot = rig.record.snapshot
    assert (snapshot.state.success_count, snapshot.state.last_timestamp) == (3, 14.0)
    assert (snapshot.lag, snapshot.reports_lost, snapshot.frames_dropped) == (0.25, 4, 5)
    assert rig.record.ledger.totals(14) == TickTotals(published=4, run=3, missed=1)
    assert rig.stimuli == [Beaten("a", 2)]


def test_the_largest_gap_is_kept_over_all_incarnations() -> None:
    rig = Rig()
    rig.get_ready()
    rig.beat(largest_gap=2.0)
    rig.beat(largest_gap=1.0)
    assert rig.record.snapshot.largest_gap == 2.0
    rig.take(Bye, account=TickAccount(10), counters=TickCounters(), largest_gap=1.5)
    assert rig.record.snapshot.largest_gap == 2.0


def test_a_beat_that_crosses_a_pause_or_a_resume_does_not_undo_it() -> None:
    rig = Rig()
    rig.get_ready()
    rig.record.set_paused(True)
    rig.beat(counters=TickCounters(is_active=True))
    assert not rig.record.state.is_active
    rig.record.set_paused(False)
    rig.beat(counters=TickCounters(is_active=False))
    assert rig.record.state.is_active


def test_a_worker_that_is_not_ready_is_not_active_whatever_is_asked_of_it() -> None:
    rig = Rig()
    rig.beat(counters=TickCounters(is_active=False))
    assert not rig.record.state.is_active


def test_what_the_guard_says_is_for_the_supervisor() -> None:
    rig = Rig()
    rig.get_ready()
    rig.take(GuardBeat, stalled=0.7)
    assert rig.stimuli[-1] == GuardBeaten("a", 2, 0.7)


def test_a_status_is_an_event_when_it_is_new() -> None:
    rig = Rig()
    rig.take(Status, network=NetworkStatus.CONNECTED, at=5.0, last_connected=5.0)
    rig.take(Status, network=NetworkStatus.CONNECTED, at=6.0, last_connected=5.0)
    rig.take(Status, network=NetworkStatus.ERROR, at=7.0, error="reset by peer")
    assert rig.events == [
        NetworkChanged(
            worker="a",
            incarnation=2,
            before=NetworkStatus.STOPPED,
            after=NetworkStatus.CONNECTED,
        ),
        NetworkChanged(
            worker="a",
            incarnation=2,
            before=NetworkStatus.CONNECTED,
            after=NetworkStatus.ERROR,
            error="reset by peer",
        ),
    ]
    assert rig.record.network_status is NetworkStatus.ERROR


def test_when_it_was_connected_last_is_kept_as_reported() -> None:
    rig = Rig()
    assert math.isnan(rig.record.last_connected_timestamp)
    rig.take(Status, network=NetworkStatus.CONNECTED, at=5.0, last_connected=5.0)
    assert rig.record.last_connected_timestamp == 5.0


def test_what_is_done_is_not_repeated_and_old_news_change_nothing() -> None:
    rig = Rig()
    rig.take(CommandDone, id=3)
    rig.take(CommandDone, id=2)
    assert rig.life.settings_done == 3
    assert not rig.life.stop_begun
    rig.take(CommandDone, id=STOP_ID)
    assert rig.life.stop_begun
    assert rig.life.settings_done == 3


def failure(**values: Any) -> dict[str, Any]:
    return {
        "hook": "async_tick",
        "serial": 4,
        "type_name": "KeyError",
        "message": "'price'",
        "traceback": "Traceback …",
        **values,
    }


def test_a_failure_is_an_event_with_all_that_is_known_of_it() -> None:
    rig = Rig()
    rig.take(Failure, **failure(timestamp=14.0))
    rig.process.kept[4] = KeyError("price")
    rig.take(Failure, **failure(timestamp=15.0))
    first, second = rig.events
    assert isinstance(first, ProcessorFailed)
    assert isinstance(second, ProcessorFailed)
    assert (first.worker, first.incarnation, first.hook) == ("a", 2, "async_tick")
    assert (first.type_name, first.message, first.timestamp) == ("KeyError", "'price'", 14.0)
    assert first.exception is None
    assert second.exception is rig.process.kept[4]


def test_a_failure_that_ends_the_process_comes_with_its_end_and_not_twice() -> None:
    rig = Rig()
    rig.take(Failure, **failure(fatal=True, hook="start"))
    assert rig.events == []
    assert rig.life.fatal is not None
    assert rig.life.fatal.traceback == "Traceback …"


def test_the_last_report_closes_with_the_final_state() -> None:
    rig = Rig()
    rig.get_ready()
    rig.take(
        Bye, account=TickAccount(10, run=5), counters=TickCounters(success_count=5), largest_gap=1.0
    )
    assert rig.record.state.success_count == 5
    assert rig.record.ledger.close(15) == 0


def test_the_last_report_of_a_processor_that_never_started_says_nothing_of_its_state() -> None:
    rig = Rig()
    rig.take(Bye, account=None, counters=TickCounters(success_count=5))
    assert rig.record.state.success_count == 0


def log_line(level: int) -> dict[str, Any]:
    return {
        "logger": "market.feed",
        "level": level,
        "message": "50 % done",
        "created": 12.5,
        "pathname": "/srv/feed.py",
        "lineno": 8,
        "function": "poll",
        "thread": "MainThread",
    }


def test_a_workers_log_line_goes_to_the_logger_of_the_same_name(
    caplog: pytest.LogCaptureFixture,
) -> None:
    rig = Rig()
    with caplog.at_level(logging.INFO, logger="market.feed"):
        rig.take(LogLine, **log_line(logging.INFO))
        rig.take(LogLine, **log_line(logging.DEBUG))
    (record,) = caplog.records
    assert (record.name, record.levelname) == ("market.feed", "INFO")
    assert record.getMessage() == "50 % done"
    assert (record.created, record.funcName, record.lineno) == (12.5, "poll", 8)
    assert (record.filename, record.module) == ("feed.py", "feed")
    assert record.processName == "a"
    assert record.__dict__["worker"] == "a"
