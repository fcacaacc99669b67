"""What each fact that a worker reports changes in its mirror, and what its owner wants of it."""

from __future__ import annotations

import math
from types import SimpleNamespace
from typing import Any, cast

import pytest
from hypothesis import given
from hypothesis import strategies as st

from chronopype_mp.coordinator.incarnation import Incarnation
from chronopype_mp.coordinator.record import (
    LONGEST_NAME,
    NetworkError,
    ProcessFigures,
    WorkerRecord,
    WorkerSnapshot,
    checked_name,
)
from chronopype_mp.core.connection import NetworkStatus
from chronopype_mp.core.connection_counters import ConnectionCounters
from chronopype_mp.core.histogram import Histogram
from chronopype_mp.core.ledger import TickTotals
from chronopype_mp.core.messages import (
    Beat,
    Bye,
    CommandDone,
    Failure,
    GuardBeat,
    Hello,
    Ready,
    Report,
    Restoring,
    StatePart,
    Status,
    TickDone,
    WorkerSettings,
)
from chronopype_mp.core.policy import Supervision
from chronopype_mp.core.saved_state import SavedState
from chronopype_mp.core.state import TickAccount, TickCounters
from chronopype_mp.core.worker_events import Event, NetworkChanged, ProcessorFailed
from chronopype_mp.exceptions import AttributeNotSetError, ConfigError
from chronopype_mp.processors import ProcessorSpec, ProcessorState, TickProcessor

CONNECTED, ERROR = NetworkStatus.CONNECTED, NetworkStatus.ERROR

NOW = 1_000_000.0
"""The wall clock."""


class Rig:
    """The record of worker ``a``, which has been launched."""

    def __init__(self) -> None:
        self.changes: list[WorkerSettings] = []
        self.processor = TickProcessor()
        self.record = WorkerRecord(
            "a",
            self.processor,
            b"payload",
            Supervision(),
            lambda record: self.changes.append(record.settings),
        )
        self.record.launched = True

    def take(self, kind: type[Report], **values: Any) -> Event | None:
        report: Any = kind(worker="a", incarnation=2, token=7, **values)
        return self.record.take(report, NOW)

    def get_ready(self, base: int = 10) -> None:
        """Report READY, in an incarnation that knows it."""
        self.record.incarnation = cast(Incarnation, SimpleNamespace(was_ready=True))
        self.take(Ready, base=base)

    def beat(self, **values: Any) -> None:
        standard: dict[str, Any] = {
            "serial": 1,
            "account": TickAccount(10),
            "counters": TickCounters(is_active=True),
            "largest_gap": 0.0,
            "lag": 0.0,
        }
        assert self.take(Beat, **{**standard, **values}) is None

    def fail(self, hook: str = "async_tick", **values: Any) -> ProcessorFailed:
        standard: dict[str, Any] = {
            "hook": hook,
            "serial": 4,
            "type_name": "KeyError",
            "message": "'price'",
            "traceback": "Traceback …",
        }
        event = self.take(Failure, **{**standard, **values})
        assert isinstance(event, ProcessorFailed)
        return event


# Ticks


def test_ready_opens_the_account_and_makes_the_processor_active() -> None:
    rig = Rig()
    assert not rig.record.state.is_active
    rig.get_ready(base=10)
    assert rig.record.state == ProcessorState(is_active=True)
    assert rig.record.ledger.totals(15) == TickTotals(published=5)


def test_ready_of_a_paused_worker_leaves_it_inactive() -> None:
    rig = Rig()
    rig.record.set_paused(True)
    rig.get_ready()
    assert not rig.record.state.is_active


def test_ready_forgets_what_the_process_before_has_counted() -> None:
    rig = Rig()
    rig.get_ready()
    rig.beat(counters=TickCounters(is_active=True, success_count=3))
    rig.get_ready()
    assert rig.record.state.success_count == 0


def test_a_beat_replaces_what_is_known() -> None:
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


def test_a_snapshot_is_replaced_whole_and_never_changed() -> None:
    rig = Rig()
    rig.get_ready()
    before = rig.record.snapshot
    rig.beat(lag=0.25)
    assert before.lag == 0.0
    assert rig.record.snapshot is not before


def test_the_largest_gap_is_kept_over_all_incarnations() -> None:
    rig = Rig()
    rig.get_ready()
    rig.beat(largest_gap=2.0)
    rig.beat(largest_gap=1.0)
    assert rig.record.snapshot.largest_gap == 2.0
    rig.take(Bye, account=TickAccount(10), counters=TickCounters(), largest_gap=1.5)
    assert rig.record.snapshot.largest_gap == 2.0


def test_the_last_report_closes_with_the_final_state() -> None:
    rig = Rig()
    rig.get_ready()
    account, counters = TickAccount(10, run=5), TickCounters(success_count=5)
    assert rig.take(Bye, account=account, counters=counters) is None
    assert rig.record.state.success_count == 5
    assert rig.record.ledger.close(15) == 0


def test_the_last_report_of_a_processor_that_never_started_says_nothing_of_its_state() -> None:
    rig = Rig()
    rig.take(Bye, account=None, counters=TickCounters(success_count=5))
    assert rig.record.state.success_count == 0


def test_what_each_process_counts_adds_up_over_all_of_them_and_counts_once() -> None:
    rig = Rig()
    counters = TickCounters(executions=Histogram({5: 3}), lateness=Histogram({7: 4}))
    connection = ConnectionCounters(Histogram({9: 5}), connects=2, connected_seconds=2.5)
    for _ in range(2):
        rig.get_ready()
        rig.take(Status, network=CONNECTED, revision=1, connection=connection)
        rig.beat(counters=counters, connection=connection)
        rig.take(Bye, account=TickAccount(10), counters=counters, connection=connection)
        rig.record.process_ended(2, NOW)
    assert rig.record.figures == ProcessFigures(
        executions=Histogram({5: 6}),
        lateness=Histogram({7: 8}),
        connection=ConnectionCounters(Histogram({9: 10}), connects=4, connected_seconds=5.0),
    )


FIGURES = st.builds(
    lambda count, eighths: ProcessFigures(
        executions=Histogram({count: 1}, eighths / 8, eighths / 8),
        lateness=Histogram({count % 2: count}, eighths / 8, eighths / 8),
        connection=ConnectionCounters(Histogram({5: count}), count, eighths / 8),
    ),
    st.integers(min_value=1, max_value=5),
    st.integers(min_value=0, max_value=80),
)


@given(FIGURES, FIGURES, FIGURES)
def test_the_figures_of_processes_add_up_in_any_order(
    a: ProcessFigures, b: ProcessFigures, c: ProcessFigures
) -> None:
    assert a.merged(b) == b.merged(a)
    assert a.merged(b).merged(c) == a.merged(b.merged(c))
    assert a.merged(ProcessFigures()) == a


def test_a_connect_is_counted_as_soon_as_the_status_shows_it() -> None:
    rig = Rig()
    rig.get_ready()
    rig.take(Status, network=CONNECTED, revision=1, connection=ConnectionCounters(connects=1))
    assert rig.record.figures.connection.connects == 1


def test_memory_and_cpu_time_are_those_of_the_present_process() -> None:
    rig = Rig()
    rig.get_ready()
    rig.beat(rss=1000, cpu=2.5)
    assert (rig.record.snapshot.rss, rig.record.snapshot.cpu) == (1000, 2.5)
    rig.record.process_ended(2, NOW)
    assert (rig.record.snapshot.rss, rig.record.snapshot.cpu) == (0, 0.0)


def test_it_was_last_heard_of_when_its_event_loop_reported_last() -> None:
    rig = Rig()
    assert rig.record.snapshot.last_heard is None
    rig.get_ready()
    rig.record.take(GuardBeat(worker="a", incarnation=2, token=7, stalled=0.5), NOW + 1)
    assert rig.record.snapshot.last_heard == NOW
    status = Status(worker="a", incarnation=2, token=7, network=CONNECTED, revision=1)
    rig.record.take(status, NOW + 2)
    rig.record.process_ended(2, NOW + 3)
    assert rig.record.snapshot.last_heard == NOW + 2


@pytest.mark.parametrize(
    ("kind", "values"),
    [
        (Hello, {"pid": 7}),
        (GuardBeat, {"stalled": 0.5}),
        (CommandDone, {"id": 1, "seq": 2}),
        (TickDone, {"seq": 3}),
    ],
)
def test_what_concerns_the_conversation_alone_changes_nothing(
    kind: type[Report], values: dict[str, Any]
) -> None:
    rig = Rig()
    rig.get_ready()
    before = rig.record.snapshot
    assert rig.take(kind, **values) is None
    assert rig.record.snapshot is before


# Pausing


def test_a_beat_that_crosses_a_pause_or_a_resume_does_not_undo_it() -> None:
    rig = Rig()
    rig.get_ready()
    rig.record.set_paused(True)
    rig.beat(counters=TickCounters(is_active=True))
    assert not rig.record.state.is_active
    rig.record.set_paused(False)
    rig.beat(counters=TickCounters(is_active=False))
    assert rig.record.state.is_active


@pytest.mark.parametrize("incarnation", [None, SimpleNamespace(was_ready=False)])
def test_a_worker_that_is_down_or_starting_is_not_active_when_it_is_resumed(
    incarnation: Any,
) -> None:
    rig = Rig()
    rig.record.incarnation = incarnation
    rig.record.set_paused(True)
    rig.record.set_paused(False)
    assert not rig.record.state.is_active


def test_a_setting_that_changes_is_passed_on_once() -> None:
    rig = Rig()
    for paused in (True, True, False):
        rig.record.set_paused(paused)
    rig.record.network_setting_changed("check_network_interval", 5.0)
    rig.record.network_setting_changed("check_network_interval", 5.0)
    assert rig.changes == [
        WorkerSettings(paused=True),
        WorkerSettings(),
        WorkerSettings(check_network_interval=5.0),
    ]


# The network


def test_a_network_status_is_an_event_when_it_is_new() -> None:
    rig = Rig()
    changes = [
        rig.take(Status, network=CONNECTED, revision=1, last_connected=5.0),
        rig.take(Status, network=CONNECTED, revision=2, last_connected=6.0),
        rig.take(
            Status,
            network=ERROR,
            revision=3,
            error="reset by peer",
            reason="reset by peer",
            next_attempt=60.0,
        ),
    ]
    common: dict[str, Any] = {"worker": "a", "incarnation": 2}
    assert changes == [
        NetworkChanged(**common, before=NetworkStatus.STOPPED, after=CONNECTED),
        None,
        NetworkChanged(
            **common,
            before=CONNECTED,
            after=ERROR,
            error="reset by peer",
            reason="reset by peer",
            next_attempt=60.0,
        ),
    ]
    assert rig.record.network_status is ERROR
    assert rig.record.snapshot.network_error == NetworkError("reset by peer", NOW, 2)
    assert rig.record.snapshot.network_since == NOW


def test_when_it_was_connected_last_is_kept_as_reported() -> None:
    rig = Rig()
    assert math.isnan(rig.record.last_connected_timestamp)
    rig.take(Status, network=CONNECTED, revision=1, last_connected=5.0)
    assert rig.record.last_connected_timestamp == 5.0
    rig.take(Status, network=NetworkStatus.NOT_CONNECTED, revision=2)
    assert math.isnan(rig.record.last_connected_timestamp)


def test_the_end_of_a_process_is_the_end_of_its_network() -> None:
    rig = Rig()
    rig.get_ready()
    rig.take(Status, network=CONNECTED, revision=1)
    rig.take(Status, network=ERROR, revision=2, error="reset by peer")
    event = rig.record.process_ended(2, NOW + 1)
    assert event == NetworkChanged(
        worker="a",
        incarnation=2,
        before=ERROR,
        after=NetworkStatus.STOPPED,
        error="the worker's process ended",
        reason="the worker's process ended",
    )
    assert rig.record.snapshot.network_since == NOW + 1
    assert not rig.record.state.is_active
    assert rig.record.process_ended(2, NOW + 1) is None


def test_the_last_error_of_the_network_outlives_its_process_and_is_known_as_its() -> None:
    rig = Rig()
    rig.take(Status, network=ERROR, revision=1, error="reset by peer")
    assert rig.record.network_error_of(2) == "reset by peer"
    rig.record.process_ended(2, NOW + 1)
    assert rig.record.snapshot.network_error == NetworkError("reset by peer", NOW, 2)
    assert rig.record.network_error_of(3) is None


def test_a_paused_worker_plans_no_attempt() -> None:
    rig = Rig()
    rig.take(Status, network=NetworkStatus.NOT_CONNECTED, revision=1, next_attempt=NOW + 5)
    assert rig.record.next_attempt == NOW + 5
    rig.record.set_paused(True)
    assert rig.record.next_attempt is None
    rig.record.set_paused(False)
    assert rig.record.next_attempt == NOW + 5


# Failures


def test_a_failure_is_an_event_with_all_that_is_known_of_it() -> None:
    rig = Rig()
    assert rig.fail(timeout=True, timestamp=14.0) == ProcessorFailed(
        worker="a",
        incarnation=2,
        hook="async_tick",
        type_name="KeyError",
        message="'price'",
        traceback="Traceback …",
        timeout=True,
        timestamp=14.0,
    )
    assert rig.record.snapshot.network_error is None


def test_a_failure_of_a_network_hook_is_the_last_network_error() -> None:
    rig = Rig()
    rig.fail("start_network")
    assert rig.record.network_error_of(2) == "start_network: KeyError: 'price'"


# The next use of the clock


def test_each_use_of_the_clock_begins_with_nothing_but_the_settings() -> None:
    rig = Rig()
    rig.get_ready()
    rig.beat(account=TickAccount(10, run=3), largest_gap=2.0)
    rig.record.ledger.close(13)
    rig.record.network_setting_changed("check_network_interval", 5.0)
    rig.record.set_paused(True)
    rig.record.begin()
    record = rig.record
    assert record.snapshot == WorkerSnapshot()
    assert record.ledger.totals(0) == TickTotals()
    assert record.settings == WorkerSettings(check_network_interval=5.0)
    assert not record.launched


def test_what_was_made_from_a_spec_has_no_original() -> None:
    rig = Rig()
    assert rig.record.original is rig.processor
    spec = ProcessorSpec(target=TickProcessor)
    record = WorkerRecord("b", spec, b"", Supervision(), lambda record: None)
    assert record.original is None


@pytest.mark.parametrize("name", ["a", "ä b", "x" * LONGEST_NAME])
def test_a_name_that_a_terminal_can_show_is_good(name: str) -> None:
    assert checked_name(name) == name


@pytest.mark.parametrize("name", [None, 5, b"a", "", "x" * (LONGEST_NAME + 1), "a\nb", "\x1b[0m"])
def test_a_name_that_a_terminal_cannot_show_is_refused(name: object) -> None:
    with pytest.raises(ConfigError, match="name"):
        checked_name(name)


# State over a restart


def part(index: int, count: int, data: bytes) -> dict[str, Any]:
    return {
        "serial": 1,
        "index": index,
        "count": count,
        "version": 3,
        "taken_at": 1.5,
        "data": data,
    }


def test_only_a_whole_snapshot_replaces_the_one_before() -> None:
    rig = Rig()
    before = SavedState(3, 0.5, b"before")
    kept: list[SavedState | None] = []
    rig.record.begin(before)
    rig.record.on_saved = kept.append
    rig.take(StatePart, **part(0, 2, b"a"))
    assert (rig.record.saved_state, kept) == (before, [])
    rig.take(StatePart, **part(1, 2, b"b"))
    assert rig.record.saved_state == SavedState(3, 1.5, b"ab")
    assert kept == [SavedState(3, 1.5, b"ab")]


def test_a_snapshot_that_cannot_be_restored_is_given_up() -> None:
    rig = Rig()
    kept: list[SavedState | None] = []
    rig.record.begin(SavedState(3, 0.5, b"broken"))
    rig.record.on_saved = kept.append
    assert rig.fail("restore").hook == "restore"
    assert (rig.record.saved_state, kept) == (None, [None])


def test_a_snapshot_is_given_up_after_three_processes_in_a_row_that_ended_in_restore() -> None:
    rig = Rig()
    rig.record.begin(SavedState(3, 0.5, b"deadly"))
    events = []
    for ends_in_restore in (True, True, False, None, True, True, None, True):
        if ends_in_restore is not None:  # else it has not come as far as that
            rig.take(Restoring, is_over=False)
        if ends_in_restore is False:
            rig.take(Restoring, is_over=True)
        events.append(rig.record.restore_ended(2))
    assert events[:-1] == [None] * 7
    assert isinstance(events[-1], ProcessorFailed)
    assert events[-1].message.startswith("3 processes in a row ended in it")
    assert rig.record.saved_state is None


def test_each_use_of_the_clock_begins_with_the_snapshot_that_is_given() -> None:
    rig = Rig()
    rig.take(StatePart, **part(0, 1, b"old"))
    rig.record.begin()
    assert rig.record.saved_state is None


# The owner's object


def test_a_public_attribute_cannot_be_set_while_the_worker_is_in_use() -> None:
    rig = Rig()
    rig.record.attribute_set("limit")
    rig.record.begin()
    with pytest.raises(AttributeNotSetError, match=r"TickProcessor\.limit cannot be set here"):
        rig.record.attribute_set("limit")
    rig.record.attribute_set("_limit")
    rig.record.is_in_use = False
    rig.record.attribute_set("limit")
