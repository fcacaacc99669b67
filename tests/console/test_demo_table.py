"""The demo's texts and tables."""

from __future__ import annotations

import io
import os

import msgspec
import pytest
from rich.console import Console
from rich.table import Table

from chronopype_mp.console.demo_course import Feed, cast
from chronopype_mp.console.demo_record import History, brief, describe
from chronopype_mp.console.demo_table import LiveRow, conclusion, live_table, verdict_table
from chronopype_mp.console.verdict import TROUBLE_DUE, Death, Role, WorkerRecord, judge
from chronopype_mp.core.connection import NetworkStatus
from chronopype_mp.core.worker_events import (
    DeathReason,
    NetworkChanged,
    ProcessorFailed,
    WorkerDied,
    WorkerReady,
    WorkerStatus,
)


def printed(table: Table, width: int = 80) -> str:
    console = Console(file=io.StringIO(), width=width, color_system=None)
    console.print(table)
    assert isinstance(console.file, io.StringIO)
    return console.file.getvalue()


def died(reason: DeathReason, exitcode: int | None, **more: object) -> WorkerDied:
    return WorkerDied(
        worker="w", incarnation=1, pid=7, reason=reason, exitcode=exitcode, uptime=2.5, **more
    )


def test_a_feed_is_healthy_unless_trouble_is_scripted() -> None:
    """A strategy and two workers with faults of their own are added."""
    feeds = [
        Feed(name="calm", trouble=None, options={"url": "wss://calm"}),
        Feed(name="ban", trouble="bans", options={"url": "wss://ban"}),
    ]
    calm, ban, *faulty = cast(30.0, "http://h", feeds)
    assert (calm.name, calm.role, calm.trouble) == ("calm", Role.HEALTHY, None)
    assert (ban.name, ban.role, ban.trouble) == ("ban", Role.EXCHANGE, "bans")
    assert ban.options == {"url": "wss://ban"}
    assert [member.role for member in faulty] == [Role.KILLED, Role.BLOCKS, Role.CRASHES]


def test_a_history_keeps_what_the_verdict_asks_for() -> None:
    """Readies, deaths and statuses, in order."""
    history = History()
    history.take(WorkerReady(worker="w", incarnation=1, pid=7, seconds=0.1))
    history.take(
        NetworkChanged(
            worker="w",
            incarnation=1,
            before=NetworkStatus.STOPPED,
            after=NetworkStatus.CONNECTING,
        )
    )
    history.take(died(DeathReason.SIGNALLED, -11))
    assert history.readies == 1
    assert history.statuses == [NetworkStatus.CONNECTING]
    assert history.deaths == [Death(DeathReason.SIGNALLED, -11)]


def test_a_death_is_told_with_its_signal_and_its_error() -> None:
    """Also for a signal without a name, and for an exit status."""
    assert describe(died(DeathReason.SIGNALLED, -11, ticks_lost=3)) == (
        "died: SIGSEGV, 2.5 s after its start; 3 ticks lost"
    )
    assert "killed: its event loop was blocked" in describe(died(DeathReason.LOOP_BLOCKED, -9))
    assert "signal 99" in describe(died(DeathReason.SIGNALLED, -99))
    assert describe(died(DeathReason.EXITED, 1, error="Traceback\n  x\nE: why\n")).endswith(
        "exit status 1, 2.5 s after its start; E: why"
    )


def test_an_event_is_one_line_however_long_its_message_is() -> None:
    """Only the first line of a failure's message is shown."""
    event = ProcessorFailed(
        worker="w",
        incarnation=1,
        hook="start_network",
        type_name="OSError",
        message="first\nsecond",
        traceback="",
    )
    assert describe(event) == "start_network failed: OSError: first"


def test_a_change_of_the_network_is_told_with_its_reason() -> None:
    """An error takes precedence."""
    change = NetworkChanged(
        worker="w",
        incarnation=1,
        before=NetworkStatus.CONNECTED,
        after=NetworkStatus.DISCONNECTING,
        reason="silent for 3 s",
    )
    assert describe(change) == "network CONNECTED -> DISCONNECTING (silent for 3 s)"
    wrong = msgspec.structs.replace(change, error="wrong key\nmore")
    assert describe(wrong) == "network CONNECTED -> DISCONNECTING (wrong key)"


def test_statuses_are_listed_once_with_how_often() -> None:
    """In the order of their first occurrence."""
    statuses = (NetworkStatus.CONNECTING, NetworkStatus.CONNECTED, NetworkStatus.CONNECTING)
    assert brief(statuses) == "CONNECTING x2, CONNECTED"
    assert brief(()) == ""


def test_both_tables_fit_80_columns() -> None:
    """No number is truncated."""
    row = LiveRow(
        worker="api-crashes",
        role=Role.CRASHES,
        status=WorkerStatus.STARTING,
        network=NetworkStatus.NOT_CONNECTED,
        due=1234,
        run=1234,
        missed=123,
        skipped=123,
        lost=123,
        largest_gap=12.345,
        restarts=12,
    )
    shown = printed(live_table([row], 1.0, 30.0))
    assert "…" not in shown
    assert "api-crashes starting NOT_CONNECTED 1234 1234" in shown
    record = WorkerRecord(worker="api-crashes", role=Role.CRASHES, due=12345, run=12345)
    shown = printed(verdict_table(judge([record], 5.0)))
    assert "…" not in shown
    assert "not judged" in shown


@pytest.mark.parametrize("seconds", [5.0, 30.0])
def test_the_conclusion_names_who_is_expected_healthy_and_what_is_bad(seconds: float) -> None:
    """Whether the faults were judged or not."""
    records = [
        WorkerRecord(worker="api-1", role=Role.HEALTHY, due=9, run=8, missed=1),
        WorkerRecord(worker="feed-9", role=Role.EXCHANGE, trouble="bans the key"),
        WorkerRecord(worker="strategy", role=Role.KILLED, summary="14 orders"),
    ]
    words = os.linesep.join(conclusion(judge(records, seconds)))
    assert "Expected healthy: api-1." in words
    assert "BAD: api-1 (healthy): missed 1 tick" in words
    assert ("BAD: feed-9" in words) == (seconds >= TROUBLE_DUE)
    assert "feed-9: scripted trouble: bans the key: nothing" in words
    assert "strategy: is killed (kill -9), keeps its positions: 14 orders" in words
    assert ("not judged" in words) == (seconds < TROUBLE_DUE)
    assert "GOOD" not in words


def test_ticks_that_the_clock_never_published_are_told() -> None:
    """No worker's account contains them."""
    assert "7 ticks" in os.linesep.join(conclusion(judge([], 30.0, unpublished=7)))
    assert "never published" not in os.linesep.join(conclusion(judge([], 30.0)))


def test_a_run_without_ticks_is_called_neither_good_nor_bad() -> None:
    """Ctrl-C may come before the first tick."""
    record = WorkerRecord(worker="api-1", role=Role.HEALTHY)
    words = os.linesep.join(conclusion(judge([record], 30.0, complete=False)))
    assert "nothing to judge" in words
    assert "GOOD" not in words
