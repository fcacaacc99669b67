"""Log records of workers, in the owner's process."""

from __future__ import annotations

import io
import logging
from collections.abc import Iterator
from typing import Any

import msgspec
import pytest

from chronopype_mp.coordinator.worker_logs import relay
from chronopype_mp.core.messages import LogLine

NAME = "tests.relayed"

EVERY_FIELD = (
    "%(asctime)s %(created)f %(filename)s %(funcName)s %(levelname)s %(levelno)d %(lineno)d "
    "%(message)s %(module)s %(msecs)d %(name)s %(pathname)s %(process)d %(processName)s "
    "%(relativeCreated)d %(thread)d %(threadName)s %(taskName)s"
)


class Target:
    """A logger with a handler that keeps the records, and one that formats them."""

    def __init__(self) -> None:
        self.records: list[logging.LogRecord] = []
        self.shown = io.StringIO()
        keeper = logging.Handler()
        keeper.emit = self.records.append  # type: ignore[method-assign]
        self.handlers = [keeper, logging.StreamHandler(self.shown)]
        self.logger = logging.getLogger(NAME)


@pytest.fixture
def target() -> Iterator[Target]:
    target = Target()
    logger = target.logger
    for handler in target.handlers:
        logger.addHandler(handler)
    logger.propagate = False
    yield target
    logger.propagate = True
    for handler in target.handlers:
        logger.removeHandler(handler)


def line(**fields: Any) -> LogLine:
    plain: dict[str, Any] = {
        "logger": NAME,
        "level": logging.WARNING,
        "message": "100 % done",
        "created": 1_000_000.5,
        "pathname": "/app/feed.py",
        "lineno": 7,
        "function": "tick",
        "thread": "MainThread",
        "thread_id": 140_000,
        "task": "Task-1",
        "process": 77,
    }
    return LogLine(worker="feed", incarnation=1, token=5, **(plain | fields))


def extra(**values: object) -> dict[str, msgspec.Raw]:
    return {name: msgspec.Raw(msgspec.msgpack.encode(value)) for name, value in values.items()}


def test_a_record_has_every_field_that_a_formatter_may_want(
    target: Target, capsys: pytest.CaptureFixture[str]
) -> None:
    target.handlers[1].setFormatter(logging.Formatter(EVERY_FIELD))
    relay(line())
    (record,) = target.records
    assert (record.process, record.thread, record.threadName) == (77, 140_000, "MainThread")
    assert record.processName == "feed"
    assert vars(record)["worker"] == "feed"
    assert vars(record)["taskName"] == "Task-1"
    own = logging.makeLogRecord({})
    started = own.created - own.relativeCreated / 1000
    assert record.relativeCreated == pytest.approx((1_000_000.5 - started) * 1000, abs=100)
    assert "100 % done" in target.shown.getvalue()
    assert capsys.readouterr().err == ""  # where "Logging error" would be


def test_a_record_has_what_the_program_added(target: Target) -> None:
    target.handlers[1].setFormatter(logging.Formatter("%(order)d %(tags)s"))
    relay(line(extra=extra(order=17, tags=["a"])))
    (record,) = target.records
    assert (vars(record)["order"], vars(record)["tags"]) == (17, ["a"])
    assert target.shown.getvalue() == "17 ['a']\n"


def test_what_the_program_added_replaces_no_field_of_the_record(target: Target) -> None:
    relay(line(extra=extra(name="other", levelno=5, msg="no", worker="other")))
    (record,) = target.records
    assert (record.name, record.levelno, record.getMessage()) == (NAME, 30, "100 % done")
    assert vars(record)["worker"] == "feed"


def test_the_traceback_follows_the_message_in_every_format(target: Target) -> None:
    relay(line(exception="Traceback …\nValueError: no", stack="Stack …"))
    assert target.shown.getvalue() == "100 % done\nTraceback …\nValueError: no\nStack …\n"


def test_what_no_worker_of_this_version_encodes_is_shown_as_none(target: Target) -> None:
    relay(line(extra={"bad": msgspec.Raw(b"\xa1\xff")}))
    (record,) = target.records
    assert vars(record)["bad"] is None


def test_a_level_that_is_off_costs_nothing(target: Target) -> None:
    relay(line(level=logging.DEBUG))
    assert target.records == []


class Kept(logging.Handler):
    """Keeps the names of the records."""

    def __init__(self) -> None:
        super().__init__()
        self.names: list[str] = []

    def emit(self, record: logging.LogRecord) -> None:
        self.names.append(record.name)


@pytest.fixture
def above() -> Iterator[tuple[logging.Logger, Kept]]:
    """A logger of the owner with a handler."""
    logger, kept = logging.getLogger("tests.above"), Kept()
    logger.addHandler(kept)
    logger.setLevel(logging.INFO)
    yield logger, kept
    logger.removeHandler(kept)
    logger.setLevel(logging.NOTSET)
    logger.disabled = False


def test_names_that_a_worker_makes_up_leave_no_loggers(
    above: tuple[logging.Logger, Kept],
) -> None:
    before = set(logging.Logger.manager.loggerDict)
    names = [f"tests.above.request.{number}" for number in range(100)]
    for name in names:
        relay(line(logger=name))
    assert above[1].names == names
    assert set(logging.Logger.manager.loggerDict) == before


def test_a_made_up_logger_has_the_level_but_not_the_filters_of_the_one_above(
    above: tuple[logging.Logger, Kept],
) -> None:
    logger, kept = above
    logger.addFilter(lambda record: False)
    try:
        relay(line(logger="tests.above.new", level=logging.DEBUG))
        relay(line(logger="tests.above"))
        relay(line(logger="tests.above.new"))
    finally:
        logger.filters.clear()
    assert kept.names == ["tests.above.new"]


def test_a_disabled_logger_shows_nothing_but_the_ones_below_it_do(
    above: tuple[logging.Logger, Kept],
) -> None:
    logger, kept = above
    logger.disabled = True
    relay(line(logger="tests.above"))
    relay(line(logger="tests.above.new"))
    assert kept.names == ["tests.above.new"]
