"""Log records of workers in the owner's process."""

from __future__ import annotations

import logging

import pytest

from chronopype_mp.coordinator.worker_logs import relay
from chronopype_mp.core.messages import LogLine


def line(level: int) -> LogLine:
    return LogLine(
        worker="a",
        incarnation=2,
        token=7,
        logger="market.feed",
        level=level,
        message="50 % done",
        created=12.5,
        pathname="/srv/feed.py",
        lineno=8,
        function="poll",
        thread="MainThread",
    )


def test_a_workers_log_line_goes_to_the_logger_of_the_same_name(
    caplog: pytest.LogCaptureFixture,
) -> None:
    with caplog.at_level(logging.INFO, logger="market.feed"):
        relay(line(logging.INFO))
        relay(line(logging.DEBUG))
    (record,) = caplog.records
    assert (record.name, record.levelname) == ("market.feed", "INFO")
    assert record.getMessage() == "50 % done"
    assert (record.created, record.funcName, record.lineno) == (12.5, "poll", 8)
    assert (record.filename, record.module) == ("feed.py", "feed")
    assert (record.threadName, record.processName) == ("MainThread", "a")
    assert record.__dict__["worker"] == "a"
