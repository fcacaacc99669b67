"""Log records of a worker, on their way to the coordinator."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import threading
from collections.abc import Iterator
from typing import NamedTuple

import msgspec
import pytest

from chronopype_mp.core.codec import MAX_FRAME, decode_report, encode_report
from chronopype_mp.core.messages import LogLine
from chronopype_mp.worker.logs import (
    EXTRA_BYTES,
    EXTRA_FIELDS,
    LONGEST_EXTRA,
    LONGEST_LOG_MESSAGE,
    RECORD_BYTES_AT_ONCE,
    RECORDS_KEPT,
    RECORDS_PER_SECOND,
    LogForwarder,
    set_levels,
)
from chronopype_mp.worker.outbox import Outbox
from tests.boots import boot_of_a
from tests.waiting import Noticeboard, run, turns

BOOT = boot_of_a()


class Kept:
    """A sender that keeps what it is given, and knows in which thread it was."""

    def __init__(self) -> None:
        self.lines: list[LogLine] = []
        self.threads: set[int] = set()
        self.board = Noticeboard()

    def send(self, frame: bytes) -> bool:
        line = decode_report(frame)
        assert isinstance(line, LogLine)
        self.lines.append(line)
        self.threads.add(threading.get_ident())
        self.board.notify()
        return True

    def close(self, linger: float) -> None:
        """Nothing to close."""


class Rig:
    """A logger of its own, forwarded; in the running loop."""

    def __init__(self) -> None:
        self.kept = Kept()
        self.outbox = Outbox(self.kept)
        self.forwarder = LogForwarder(BOOT, self.outbox, asyncio.get_running_loop())
        self.logger = logging.Logger("tests.forwarded")  # known to nobody else
        self.logger.addHandler(self.forwarder)

    @property
    def messages(self) -> list[str]:
        return [line.message for line in self.kept.lines]


def test_a_record_travels_with_all_that_the_coordinators_logger_needs() -> None:
    async def scenario() -> None:
        rig = Rig()
        rig.logger.warning("%s of %d", "one", 3)
        (line,) = rig.kept.lines
        assert (line.worker, line.incarnation) == ("a", 2)
        assert (line.logger, line.level) == ("tests.forwarded", logging.WARNING)
        assert line.message == "one of 3"
        assert line.pathname == __file__
        assert line.function == "scenario"
        assert line.thread == threading.current_thread().name
        assert line.created > 1e9
        assert line.lineno > 0

    run(scenario())


def test_an_exception_and_a_stack_travel_as_text() -> None:
    async def scenario() -> None:
        rig = Rig()
        try:
            raise ValueError("no")
        except ValueError:
            rig.logger.exception("it failed", stack_info=True)
        (line,) = rig.kept.lines
        assert line.message == "it failed"
        assert line.exception is not None
        assert line.exception.startswith("Traceback")
        assert line.exception.endswith("ValueError: no")
        assert line.stack is not None
        assert line.stack.startswith("Stack (most recent call last)")

    run(scenario())


def test_pid_thread_and_task_are_the_workers() -> None:
    async def scenario() -> None:
        rig = Rig()
        rig.logger.info("here")
        (line,) = rig.kept.lines
        assert (line.process, line.thread_id) == (os.getpid(), threading.get_ident())
        record = logging.makeLogRecord({})
        assert line.task == getattr(record, "taskName", None)

    run(scenario())


class Point(NamedTuple):
    """Goes as a list does."""

    x: int
    y: int


class Hostile:
    """Neither travels nor prints."""

    def __str__(self) -> str:
        raise LookupError("no text for you")


@pytest.mark.parametrize(
    ("value", "travels_as"),
    [
        (17, 17),
        (0.5, 0.5),
        (None, None),
        ("€", "€"),
        ({"a": [1, {"b": True}]}, {"a": [1, {"b": True}]}),
        (Point(1, 2), [1, 2]),
        (2**80, str(2**80)),
        ("caf\udce9", "caf\\udce9"),
        (ValueError("no"), "no"),
        (Hostile(), "Hostile, which cannot be printed (LookupError)"),
    ],
    ids=lambda value: type(value).__name__,
)
def test_what_a_program_adds_to_a_record_travels(value: object, travels_as: object) -> None:
    async def scenario() -> None:
        rig = Rig()
        rig.logger.info("order sent", extra={"added": value, "caf\udce9": 1})
        (line,) = rig.kept.lines
        assert msgspec.msgpack.decode(line.extra["added"]) == travels_as
        assert len(line.extra) == 2

    run(scenario())


def test_what_a_program_adds_is_bounded_and_goes_as_it_is_when_it_is_logged() -> None:
    async def scenario() -> None:
        rig = Rig()
        changing = [1]
        added = {f"field{n}": "x" * 1_000_000 for n in range(EXTRA_FIELDS)}
        rig.logger.info("much", extra={"first": changing, **added})
        changing.append(2)
        (line,) = rig.kept.lines
        assert msgspec.msgpack.decode(line.extra["first"]) == [1]
        assert len(line.extra) == EXTRA_FIELDS
        assert all(len(value) <= LONGEST_EXTRA + 100 for value in line.extra.values())
        assert sum(map(len, line.extra.values())) <= EXTRA_BYTES + EXTRA_FIELDS * 100

    run(scenario())


def test_a_short_field_after_long_ones_travels_as_it_is() -> None:
    async def scenario() -> None:
        rig = Rig()
        added = {f"field{n}": "x" * 1_000_000 for n in range(5)}
        rig.logger.info("much", extra={**added, "order": 17, "venue": "x" * 40})
        (line,) = rig.kept.lines
        assert msgspec.msgpack.decode(line.extra["order"]) == 17
        assert msgspec.msgpack.decode(line.extra["venue"]) == "x" * 40

    run(scenario())


@pytest.mark.parametrize("character", ["x", "\U0001f600", "\udce9"])
def test_no_text_of_a_record_is_endless(character: str) -> None:
    async def scenario() -> None:
        rig = Rig()
        huge = character * 500_000
        try:
            raise ValueError(huge)
        except ValueError as error:
            record = rig.logger.makeRecord(
                huge, 20, huge, 1, huge, (), (ValueError, error, None), huge, sinfo=huge
            )
        record.threadName = huge
        for number in range(EXTRA_FIELDS):
            setattr(record, f"{number}{huge}", huge)
        rig.logger.handle(record)
        (line,) = rig.kept.lines
        assert len(encode_report(line)) <= MAX_FRAME

    run(scenario())


def test_a_record_of_another_thread_is_sent_by_the_loops_own() -> None:
    async def scenario() -> None:
        rig = Rig()

        def log() -> None:
            for number in range(5):
                rig.logger.info("line %d", number)

        thread = threading.Thread(target=log, name="other")
        thread.start()
        await rig.kept.board.until(lambda: len(rig.kept.lines) == 5)
        thread.join()
        assert rig.messages == [f"line {n}" for n in range(5)]
        assert rig.kept.threads == {threading.get_ident()}
        assert {line.thread for line in rig.kept.lines} == {"other"}

    run(scenario())


def test_a_log_storm_while_the_loop_is_blocked_is_bounded_and_counted() -> None:
    async def scenario() -> None:
        rig = Rig()

        def storm() -> None:
            for number in range(RECORDS_KEPT + 500):
                rig.logger.info("line %d", number)

        thread = threading.Thread(target=storm)
        thread.start()
        thread.join()  # the loop is blocked meanwhile, on purpose
        assert rig.kept.lines == []
        await rig.kept.board.until(lambda: len(rig.kept.lines) == RECORDS_KEPT)
        await turns()
        assert rig.messages == [f"line {n}" for n in range(RECORDS_KEPT)]
        assert rig.outbox.lost == 500
        rig.logger.info("after the storm")
        assert rig.messages[-1] == "after the storm"

    run(scenario())


def test_an_endless_message_is_cut_and_says_so() -> None:
    async def scenario() -> None:
        rig = Rig()
        rig.logger.info("x" * (LONGEST_LOG_MESSAGE + 5))
        assert rig.messages == ["x" * LONGEST_LOG_MESSAGE + "… (5 more characters)"]

    run(scenario())


def test_text_that_is_no_utf8_is_no_error_in_the_users_call() -> None:
    async def scenario() -> None:
        rig = Rig()
        rig.logger.info("cannot open %s", "caf\udce9.txt")
        assert rig.messages == ["cannot open caf\\udce9.txt"]

    run(scenario())


def test_a_record_that_cannot_be_formatted_is_reported_as_logging_does_and_not_raised(
    capsys: pytest.CaptureFixture[str],
) -> None:
    async def scenario() -> None:
        rig = Rig()
        rig.logger.info("%d", "no number")
        rig.logger.info("and on")
        assert rig.messages == ["and on"]

    run(scenario())
    assert "--- Logging error ---" in capsys.readouterr().err


class Unprintable:
    def __str__(self) -> str:
        raise ValueError("no text for you")


def test_a_record_whose_fields_a_factory_has_changed_still_travels(
    capsys: pytest.CaptureFixture[str],
) -> None:
    async def scenario() -> None:
        rig = Rig()

        def change(record: logging.LogRecord) -> bool:
            record.threadName = ("no", "text")  # type: ignore[assignment]
            record.lineno = "7"  # type: ignore[assignment]
            record.funcName = None
            if record.msg == "worse":
                record.pathname = Unprintable()  # type: ignore[assignment]
            return True

        rig.logger.addFilter(change)
        rig.logger.info("bad")
        rig.logger.info("worse")
        (line,) = rig.kept.lines
        assert (line.message, line.lineno, line.function) == ("bad", 7, None)
        assert line.thread == "('no', 'text')"

    run(scenario())
    assert "--- Logging error ---" in capsys.readouterr().err


def test_a_filter_of_the_handler_that_raises_is_no_error_in_the_users_call(
    capsys: pytest.CaptureFixture[str],
) -> None:
    async def scenario() -> None:
        rig = Rig()

        def fail(record: logging.LogRecord) -> bool:
            raise LookupError("in the filter")

        rig.forwarder.addFilter(fail)
        rig.logger.info("lost")
        rig.forwarder.removeFilter(fail)
        rig.logger.info("and on")
        assert rig.messages == ["and on"]

    run(scenario())
    assert "in the filter" in capsys.readouterr().err


def test_a_forked_child_does_not_write_to_the_workers_sockets(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    async def scenario() -> None:
        rig = Rig()
        monkeypatch.setattr("os.getpid", lambda: -1)
        rig.logger.warning("from the child")
        rig.logger.info("of no importance")
        assert rig.kept.lines == []

    run(scenario())
    assert capsys.readouterr().err == "from the child\n"


def test_a_record_after_the_end_of_the_loop_is_no_error() -> None:
    async def scenario() -> Rig:
        return Rig()

    rig = run(scenario())
    thread = threading.Thread(target=rig.logger.info, args=("too late",))
    thread.start()
    thread.join()
    assert rig.messages == []


@pytest.fixture
def levels() -> Iterator[None]:
    with contextlib.ExitStack() as stack:
        for name in ("", "tests.levels.one"):
            logger = logging.getLogger(name)
            stack.callback(logger.setLevel, logger.level)
        yield


@pytest.mark.usefixtures("levels")
def test_loggers_get_the_levels_that_they_have_in_the_coordinator() -> None:
    set_levels({"": logging.ERROR, "tests.levels.one": logging.DEBUG})
    assert logging.getLogger().level == logging.ERROR
    assert logging.getLogger("tests.levels.one").level == logging.DEBUG
    assert not logging.getLogger("tests.levels.two").isEnabledFor(logging.WARNING)


def test_a_flood_of_records_is_limited_at_the_worker_and_counted(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    async def scenario() -> None:
        now = 0.0
        monkeypatch.setattr("chronopype_mp.worker.logs.monotonic", lambda: now)
        rig = Rig()
        burst = int(RECORDS_PER_SECOND)
        for number in range(burst + 500):
            rig.logger.info("line %d", number)
        assert rig.messages == [f"line {n}" for n in range(burst)]
        assert rig.outbox.lost == 500
        now = 0.01
        for number in range(50):
            rig.logger.info("later %d", number)
        assert len(rig.messages) == burst + 10
        assert rig.outbox.lost == 540

    run(scenario())


def test_a_flood_of_long_records_is_limited_in_bytes(monkeypatch: pytest.MonkeyPatch) -> None:
    async def scenario() -> None:
        now = 0.0
        monkeypatch.setattr("chronopype_mp.worker.logs.monotonic", lambda: now)
        rig = Rig()
        long = {f"field{n}": "x" * LONGEST_EXTRA for n in range(2)}
        for _ in range(900):
            rig.logger.info("x" * LONGEST_LOG_MESSAGE, extra=long)
        sent = len(rig.kept.lines)
        size = len(encode_report(rig.kept.lines[0]))
        assert RECORD_BYTES_AT_ONCE * 0.9 < sent * size < RECORD_BYTES_AT_ONCE * 1.1
        assert rig.outbox.lost == 900 - sent
        now = 0.5
        rig.logger.info("short")
        assert rig.messages[-1] == "short"

    run(scenario())


def test_a_flood_of_a_forked_child_is_limited_like_the_workers_own(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    async def scenario() -> None:
        monkeypatch.setattr("chronopype_mp.worker.logs.monotonic", lambda: 0.0)
        rig = Rig()
        rig.forwarder.prepare_fork()
        await turns()
        burst = int(RECORDS_PER_SECOND)
        for number in range(burst + 500):
            with monkeypatch.context() as in_child:
                in_child.setattr("os.getpid", lambda: -1)
                rig.logger.info("line %d", number)
            if number % 50 == 0:  # before the channel is full
                await turns()
        await turns()
        rig.forwarder.end()
        assert rig.messages == [f"line {n}" for n in range(burst)]
        assert rig.outbox.lost == 500

    run(scenario())
