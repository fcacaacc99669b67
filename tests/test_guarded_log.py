"""The package's own log calls: a user's handler cannot fail them."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator

import pytest

from chronopype_mp.guarded_log import GuardedLogger

NAME = "tests.guarded"


class Odd(BaseException):
    """Is no `Exception`."""


class Broken(logging.Handler):
    """A handler that raises, as a user's may."""

    def __init__(self) -> None:
        super().__init__()
        self.error: BaseException = OSError("the log is full")

    def handle(self, record: logging.LogRecord) -> bool:
        raise self.error


@pytest.fixture
def broken() -> Iterator[Broken]:
    handler = Broken()
    logging.getLogger(NAME).addHandler(handler)
    yield handler
    logging.getLogger(NAME).removeHandler(handler)


def logs() -> list[Callable[..., None]]:
    logger = GuardedLogger(NAME)
    return [logger.debug, logger.info, logger.warning, logger.error, logger.critical]


def test_a_record_is_that_of_the_caller(caplog: pytest.LogCaptureFixture) -> None:
    error = ValueError("no")
    with caplog.at_level(logging.DEBUG):
        for log in logs():
            log("%d of %s", 1, "many", exc_info=error)
    assert [record.levelname for record in caplog.records] == [
        "DEBUG",
        "INFO",
        "WARNING",
        "ERROR",
        "CRITICAL",
    ]
    for record in caplog.records:
        assert (record.name, record.getMessage()) == (NAME, "1 of many")
        assert record.funcName == "test_a_record_is_that_of_the_caller"
        assert record.exc_info is not None
        assert record.exc_info[1] is error


@pytest.mark.parametrize("error", [OSError("the log is full"), Odd("the log is odd")])
def test_what_a_handler_raises_is_printed_with_what_was_logged(
    broken: Broken, capsys: pytest.CaptureFixture[str], error: BaseException
) -> None:
    broken.error = error
    GuardedLogger(NAME).error("%d of %s", 1, "many", exc_info=ValueError("the cause"))
    printed = capsys.readouterr().err
    assert "1 of many" in printed
    assert "ValueError: the cause" in printed
    assert str(error) in printed


@pytest.mark.parametrize("kind", [KeyboardInterrupt, SystemExit])
def test_an_exit_is_raised(broken: Broken, kind: type[BaseException]) -> None:
    broken.error = kind()
    with pytest.raises(kind):
        GuardedLogger(NAME).error("on the way out")
