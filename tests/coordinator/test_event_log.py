"""Events as log records: the right level, and what an operator needs to know."""

from __future__ import annotations

import logging

import pytest

from chronopype_mp.coordinator import event_log
from chronopype_mp.coordinator.event_log import log_event
from chronopype_mp.core.connection import (
    CHECK_RETURNED,
    RECONNECT_REQUESTED,
    STOP_REQUESTED,
    NetworkStatus,
)
from chronopype_mp.core.worker_events import (
    DeathReason,
    Event,
    FramesDropped,
    NetworkChanged,
    ProcessorFailed,
    WorkerBackingOff,
    WorkerDied,
    WorkerQuarantined,
    WorkerReady,
    WorkerStarting,
    WorkerStopped,
)

CASES: list[tuple[Event, int, list[str]]] = [
    (
        WorkerDied(
            worker="a",
            incarnation=2,
            pid=77,
            reason=DeathReason.SIGNALLED,
            exitcode=-9,
            uptime=1.5,
            output=("last words",),
            error="ValueError: no",
        ),
        logging.ERROR,
        ["'a'", "incarnation 2", "pid 77", "signalled", "-9", "last words", "ValueError: no"],
    ),
    (
        WorkerQuarantined(worker="a", restarts=5),
        logging.ERROR,
        ["'a'", "quarantined", "handle.restart()"],
    ),
    (
        ProcessorFailed(
            worker="a",
            incarnation=1,
            hook="async_tick",
            type_name="KeyError",
            message="'price'",
            traceback="Traceback …",
        ),
        logging.WARNING,
        ["'a'", "async_tick", "KeyError: 'price'"],
    ),
    (
        FramesDropped(garbage=3, foreign=4, stale=5, forged=6),
        logging.WARNING,
        ["3 garbage", "4 from unknown workers", "5 from earlier incarnations", "6 forged"],
    ),
    (
        NetworkChanged(
            worker="a",
            incarnation=1,
            before=NetworkStatus.CONNECTED,
            after=NetworkStatus.ERROR,
            error="reset by peer",
        ),
        logging.WARNING,
        ["'a'", "CONNECTED → ERROR", "(reset by peer); no further attempt is planned"],
    ),
    *(
        (
            NetworkChanged(
                worker="a",
                incarnation=1,
                before=NetworkStatus.CONNECTED,
                after=NetworkStatus.DISCONNECTING,
                reason=reason,
                next_attempt=104.0,
                at=100.0,
            ),
            level,
            [f"CONNECTED → DISCONNECTING ({reason}); next attempt in 4.0 s"],
        )
        for reason, level in (
            ("silent for 3 s", logging.WARNING),
            (RECONNECT_REQUESTED, logging.INFO),
            (STOP_REQUESTED, logging.INFO),
        )
    ),
    (
        NetworkChanged(
            worker="a",
            incarnation=1,
            before=NetworkStatus.CONNECTING,
            after=NetworkStatus.ERROR,
            reason="wrong key",
        ),
        logging.WARNING,
        ["(wrong key); no further attempt is planned, but handle.reconnect() or a restart"],
    ),
    (
        NetworkChanged(
            worker="a",
            incarnation=1,
            before=NetworkStatus.CONNECTING,
            after=NetworkStatus.NOT_CONNECTED,
            reason="refused",
            next_attempt=104.0,
            at=100.0,
        ),
        logging.INFO,
        ["CONNECTING → NOT_CONNECTED (refused); next attempt in 4.0 s"],
    ),
    *(
        (
            NetworkChanged(
                worker="a",
                incarnation=1,
                before=before,
                after=NetworkStatus.NOT_CONNECTED,
                reason=f"{CHECK_RETURNED}NOT_CONNECTED",
                next_attempt=104.0,
                at=100.0,
            ),
            level,
            ["(check_network() returned NOT_CONNECTED); next attempt in 4.0 s"],
        )
        for before, level in (
            (NetworkStatus.CONNECTING, logging.WARNING),
            (NetworkStatus.DISCONNECTING, logging.INFO),
        )
    ),
    (
        ProcessorFailed(
            worker="a",
            incarnation=1,
            hook="start_network",
            type_name="ConnectionRefusedError",
            message="nobody there",
            traceback="",
            next_attempt=104.0,
            at=100.0,
        ),
        logging.WARNING,
        ["start_network of worker 'a' failed", "nobody there; next attempt in 4.0 s"],
    ),
    (
        ProcessorFailed(
            worker="a",
            incarnation=1,
            hook="check_network",
            type_name="PermanentFailure",
            message="wrong key",
            traceback="",
        ),
        logging.WARNING,
        ["check_network of worker 'a' failed: PermanentFailure: wrong key"],
    ),
    (
        WorkerReady(worker="a", incarnation=2, pid=77, seconds=0.1),
        logging.INFO,
        ["'a' is ready", "incarnation 2", "pid 77"],
    ),
    (
        WorkerBackingOff(worker="a", delay=1.25, restarts=1),
        logging.INFO,
        ["'a' restarts in 1.2 s"],
    ),
    (WorkerStarting(worker="a", incarnation=1), logging.DEBUG, ["WorkerStarting", "'a'"]),
    (WorkerStopped(worker="a"), logging.DEBUG, ["WorkerStopped", "'a'"]),
]


@pytest.mark.parametrize(
    ("event", "level", "parts"), CASES, ids=[type(event).__name__ for event, _, _ in CASES]
)
def test_an_event_is_one_record_that_says_what_happened(
    caplog: pytest.LogCaptureFixture, event: Event, level: int, parts: list[str]
) -> None:
    with caplog.at_level(level, logger="chronopype_mp.events"):
        log_event("market", event)
    (record,) = caplog.records
    assert (record.name, record.levelno) == ("chronopype_mp.events", level)
    text = record.getMessage()
    assert text.startswith("market: ")
    for part in parts:
        assert part in text


def test_a_change_without_an_error_says_no_more() -> None:
    records: list[logging.LogRecord] = []
    logger = logging.getLogger("chronopype_mp.events")
    handler = logging.Handler()
    handler.emit = records.append  # type: ignore[method-assign]
    logger.addHandler(handler)
    before, logger.level = logger.level, logging.INFO
    try:
        log_event(
            "market",
            NetworkChanged(
                worker="a",
                incarnation=1,
                before=NetworkStatus.CONNECTING,
                after=NetworkStatus.CONNECTED,
            ),
        )
    finally:
        logger.removeHandler(handler)
        logger.setLevel(before)
    assert records[0].getMessage() == "market: worker 'a': network CONNECTING → CONNECTED"


def test_the_traceback_of_a_failed_hook_is_for_those_who_look_closer(
    caplog: pytest.LogCaptureFixture,
) -> None:
    event = ProcessorFailed(
        worker="a",
        incarnation=1,
        hook="start_network",
        type_name="KeyError",
        message="'price'",
        traceback="Traceback …\nthe last line",
    )
    with caplog.at_level(logging.DEBUG, logger="chronopype_mp.events"):
        log_event("market", event)
    assert [record.levelno for record in caplog.records] == [logging.WARNING, logging.DEBUG]
    assert "the last line" in caplog.records[1].getMessage()


def test_a_failure_without_a_message_is_named_by_its_type(
    caplog: pytest.LogCaptureFixture,
) -> None:
    event = ProcessorFailed(
        worker="a",
        incarnation=1,
        hook="run_network",
        type_name="ConnectionResetError",
        message="",
        traceback="",
    )
    log_event("market", event)
    assert caplog.messages == ["market: run_network of worker 'a' failed: ConnectionResetError"]


HERE = '  File "/home/user/feed.py", line 8, in tick\n    self.parse(text)\n'
SHOWN = '[File "/home/user/feed.py", line 8, in tick: self.parse(text)]'
LIBRARY = '  File "/usr/lib/python3.11/json/decoder.py", line 355, in raw_decode\n    raise Error\n'
PACKAGE = f'  File "{event_log.__file__}", line 1, in run\n    hook()\n'


@pytest.mark.parametrize(
    ("frames", "place"),
    [
        (PACKAGE + HERE, SHOWN),
        (
            PACKAGE + HERE + LIBRARY,
            '[File "/home/user/feed.py", line 8, in tick: self.parse(text)]',
        ),
        (PACKAGE + LIBRARY, f"[{LIBRARY.splitlines()[0].strip()}: raise Error]"),
        ('  File "<console>", line 1, in tick\n', '[File "<console>", line 1, in tick]'),
        (PACKAGE, None),
        ("", None),
        (PACKAGE + "".join(f"    | {line}\n" for line in HERE.splitlines()), SHOWN),
    ],
)
def test_a_failure_says_where_in_the_users_code(
    caplog: pytest.LogCaptureFixture, frames: str, place: str | None
) -> None:
    printed = f"Traceback (most recent call last):\n{frames}ValueError: no\n"
    log_event(
        "market",
        ProcessorFailed(
            worker="a",
            incarnation=1,
            hook="async_tick",
            type_name="ValueError",
            message="no",
            traceback=printed,
        ),
    )
    (text,) = caplog.messages
    assert text.partition("ValueError: no")[2] == ("" if place is None else f" {place}")
