"""User code is called without depending on it: errors are logged, exits wait their turn."""

from __future__ import annotations

import asyncio
import functools
import logging
from collections.abc import AsyncIterator, Iterator

import pytest

from chronopype_mp.coordinator.callbacks import Guard, callback_problem
from tests.waiting import run, turns


class Odd(BaseException):
    """Is no `Exception`."""


def fail(error: BaseException) -> None:
    raise error


@pytest.mark.parametrize("kind", [RuntimeError, StopIteration, asyncio.CancelledError, Odd])
def test_what_a_function_raises_is_logged_and_goes_no_further(
    caplog: pytest.LogCaptureFixture, kind: type[BaseException]
) -> None:
    Guard().call("the sink", fail, kind("too much"))
    (record,) = caplog.records
    assert (record.name, record.levelno) == ("chronopype_mp.events", logging.ERROR)
    assert record.getMessage().startswith("the sink failed: <function fail")
    assert record.exc_info is not None
    assert record.exc_info[0] is kind


@pytest.mark.parametrize("kind", [KeyboardInterrupt, SystemExit])
def test_an_exit_ends_the_loop_after_the_present_callback(kind: type[BaseException]) -> None:
    done: list[str] = []

    async def scenario() -> None:
        Guard().call("the sink", fail, kind("out"))
        done.append("the rest of the callback")
        try:
            await asyncio.Event().wait()
        finally:
            done.append("clean-up")

    with pytest.raises(kind, match="out"):
        asyncio.run(scenario())
    assert done == ["the rest of the callback", "clean-up"]


def test_a_second_exit_does_not_interrupt_the_clean_up(caplog: pytest.LogCaptureFixture) -> None:
    done: list[str] = []
    guard = Guard()

    async def scenario() -> None:
        guard.call("the sink", fail, SystemExit("first"))
        guard.call("the sink", fail, SystemExit("second"))
        try:
            await asyncio.Event().wait()
        finally:
            guard.call("the sink", fail, SystemExit("third"))
            await asyncio.sleep(0)  # a turn of the loop, in which an exit would come
            done.append("clean-up")

    with pytest.raises(SystemExit, match="first"):
        asyncio.run(scenario())
    assert done == ["clean-up"]
    logged = [str(record.exc_info[1]) for record in caplog.records if record.exc_info]
    assert logged == ["second", "third"]


def test_an_exit_that_somebody_raises_does_not_end_the_loop_too() -> None:
    async def scenario() -> None:
        exits: list[BaseException] = []

        def end_run(error: BaseException) -> bool:
            exits.append(error)
            return True

        guard = Guard(end_run)
        first, second, third = SystemExit(1), SystemExit(2), SystemExit(3)
        guard.call("the sink", fail, first)
        guard.call("the sink", fail, second)
        guard.reset()
        guard.call("the sink", fail, third)
        await turns()
        assert exits == [first, third]

    run(scenario())


@pytest.mark.parametrize("kind", [KeyboardInterrupt, SystemExit])
def test_without_a_loop_an_exit_is_raised_at_once(kind: type[BaseException]) -> None:
    with pytest.raises(kind):
        Guard().call("the sink", fail, kind())


class BrokenHandler(logging.Handler):
    """A handler that raises, as a user's may."""

    def handle(self, record: logging.LogRecord) -> bool:
        raise OSError("the log is full")


@pytest.fixture
def broken_log() -> Iterator[None]:
    handler = BrokenHandler()
    logging.getLogger("chronopype_mp.events").addHandler(handler)
    yield
    logging.getLogger("chronopype_mp.events").removeHandler(handler)


def test_a_log_that_fails_does_not_hide_the_error(
    broken_log: None, capsys: pytest.CaptureFixture[str]
) -> None:
    async def scenario() -> None:
        Guard().call("the sink", fail, RuntimeError("too much"))

    run(scenario())
    printed = capsys.readouterr().err
    assert "RuntimeError: too much" in printed
    assert "OSError: the log is full" in printed


async def coroutine() -> None:
    raise AssertionError


async def generator() -> AsyncIterator[None]:
    yield


class CalledLater:
    """Its instances are awaited when called."""

    async def __call__(self) -> None:
        raise AssertionError


@pytest.mark.parametrize(
    "callback", [coroutine, generator, CalledLater(), functools.partial(coroutine)]
)
def test_what_nobody_would_await_is_no_callback(callback: object) -> None:
    problem = callback_problem(callback)
    assert problem is not None
    assert "coroutine function" in problem
    assert "pass a plain function" in problem


def test_what_is_not_callable_is_no_callback() -> None:
    assert callback_problem("print") == "is not callable; pass a plain function"


@pytest.mark.parametrize("callback", [print, [].append, RuntimeError, lambda event: None])
def test_functions_methods_and_classes_are_callbacks(callback: object) -> None:
    assert callback_problem(callback, "event") is None


def test_what_cannot_take_the_arguments_is_no_callback() -> None:
    problem = callback_problem(lambda event: None, "processor", "exception")
    assert problem == "takes (event), but is called with processor, exception"
