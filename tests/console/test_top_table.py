"""What `chronopype-mp top` shows, without a terminal."""

from __future__ import annotations

import itertools

import msgspec

from chronopype_mp.console.top_table import COLUMNS, CpuMeter, cells, chosen, details, summary
from chronopype_mp.control.messages import FleetStatus, WorkerRow

NUMBERS = itertools.count(1)


def worker(name: str, **fields: object) -> WorkerRow:
    row = WorkerRow(
        worker=name, status="ready", network_status="CONNECTED", pid=next(NUMBERS), heard=0.1
    )
    return msgspec.structs.replace(row, **fields)


def column(start: str) -> int:
    (number,) = [n for n, each in enumerate(COLUMNS) if each.heading.startswith(start)]
    return number


def names(rows: list[WorkerRow], words: str = "", by: str = "", **how: bool) -> list[str]:
    tops = chosen(rows, {}, words, COLUMNS[column(by)] if by else None, **how)
    return [top.row.worker for top in tops]


def test_rows_are_sorted_by_any_column() -> None:
    """Numbers from the largest down, texts from A to Z; equal ones in the order of the fleet."""
    rows = [worker("c", run=1, missed=1), worker("a", run=3), worker("b", run=2)]
    assert names(rows) == ["c", "a", "b"]
    assert names(rows, by="worker") == ["a", "b", "c"]
    assert names(rows, by="run") == ["a", "b", "c"]
    assert names(rows, by="run", is_reversed=True) == ["c", "b", "a"]
    assert names(rows, by="missed") == ["c", "a", "b"]
    for number, _ in enumerate(COLUMNS):
        assert len(chosen(rows, {}, "", COLUMNS[number])) == 3


def test_a_worker_that_was_never_heard_is_the_one_heard_longest_ago() -> None:
    rows = [worker("a", heard=5.0), worker("b", heard=None), worker("c")]
    assert names(rows, by="heard") == ["b", "a", "c"]


def test_the_filter_finds_words_in_names_states_reasons_and_errors() -> None:
    """All of the words, in any case."""
    rows = [
        worker("feed-1"),
        worker("feed-2", network_status="ERROR", network_reason="Connection refused"),
        worker("cron", is_paused=True, last_error="KeyError: 'x'"),
    ]
    assert names(rows, "feed") == ["feed-1", "feed-2"]
    assert names(rows, "FEED refused") == ["feed-2"]
    assert names(rows, "paused") == names(rows, "keyerror") == ["cron"]
    assert names(rows, "feed keyerror") == []


def test_rows_that_were_not_heard_for_some_time_are_dim() -> None:
    """All of them, if the fleet does not answer."""
    rows = [worker("a"), worker("b", heard=3.5), worker("c", heard=None)]

    def dim(is_old: bool) -> list[bool]:
        tops = chosen(rows, {}, "", None, is_old=is_old)
        return [{style for _, style in cells(top)} == {"dim"} for top in tops]

    assert dim(False) == [False, True, True]
    assert dim(True) == [True, True, True]


def test_cells_hold_one_line_each_and_mark_what_is_wrong() -> None:
    row = worker(
        "a",
        network_status="ERROR",
        network_reason="refused\nby peer",
        missed=1234,
        lateness_p99=0.0123,
        rss=45_600_000,
        last_error="\nfirst\nsecond",
    )
    (top,) = chosen([row], {"a": 12.34}, "", None)
    made = cells(top)
    texts = {start: made[column(start)] for start in ("reason", "missed", "lateness\np99", "RSS")}
    assert [text for text, _ in texts.values()] == ["refused", "1,234", "12.3", "46"]
    assert made[column("last")][0] == "first"
    assert made[column("CPU")][0] == "12.3"
    assert made[column("network")][1] == "bold red"
    assert made[column("status")][1] == "green"


def test_the_cpu_load_is_that_of_the_last_readings_of_one_process() -> None:
    meter = CpuMeter()
    row = worker("a", pid=1, cpu=10.0)
    assert meter.read([row], 100.0) == {}
    assert meter.read([msgspec.structs.replace(row, cpu=10.5)], 101.0) == {"a": 50.0}
    for second in range(2, 20):  # of the old ones, nothing is left
        loads = meter.read([msgspec.structs.replace(row, cpu=10.5)], 100.0 + second)
    assert loads == {"a": 0.0}
    again = msgspec.structs.replace(row, pid=2, cpu=0.1)
    assert meter.read([again], 120.0) == {}
    assert meter.read([], 121.0) == {}
    assert meter.read([again], 122.0) == {}


def test_the_summary_counts_the_states() -> None:
    status = FleetStatus(
        fleet="main",
        pid=7,
        version="1",
        ticks=1234,
        tick_size=0.1,
        is_stopping=True,
        workers=(
            worker("a"),
            worker("b", status="quarantined", network_status="STOPPED"),
            worker("c", is_paused=True),
        ),
    )
    text = summary(status, 0.0)
    assert text.startswith(
        "main is stopping  3 workers: 1 ready, 1 quarantined, 1 paused  network: 2 connected  "
        "1,234 ticks of 0.1 s  pid 7  "
    )


def test_the_details_have_the_newest_dossier_first() -> None:
    dossiers = [{"at": 1.0, "report": "old"}, {"at": 2.0, "report": "new\n  stacks:"}]
    text = details(worker("a", last_error="first\nsecond"), dossiers)
    assert text.index("new\n  stacks:") < text.index("old")
    assert "first\nsecond" in text
    assert "has not died" in details(worker("a"), [])
