"""Which events are failures of a processor, and what stands for each."""

from __future__ import annotations

import copy
import json
import pickle
import sys
from typing import Any

import msgspec
import pytest

from chronopype_mp.coordinator.failures import failure_of
from chronopype_mp.core.connection import NetworkStatus
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
    WorkerStopping,
    WorkerUnkillable,
)
from chronopype_mp.exceptions import (
    ClockError,
    ConfigError,
    ProcessorError,
    ProcessorTimeoutError,
)


def failed(
    hook: str = "async_tick", *, timeout: bool = False, exception: BaseException | None = None
) -> ProcessorFailed:
    return ProcessorFailed(
        worker="a",
        incarnation=1,
        hook=hook,
        type_name="TimeoutError" if timeout else "KeyError",
        message="timed out after 0.5s" if timeout else "'price'",
        traceback="Traceback …\nthe last line",
        timeout=timeout,
        timestamp=7.0,
        exception=exception,
    )


def died(
    reason: DeathReason, exitcode: int | None, error: str | None = None, **more: Any
) -> WorkerDied:
    return WorkerDied(
        worker="a",
        incarnation=1,
        pid=None if reason is DeathReason.START_FAILED else 1,
        reason=reason,
        exitcode=exitcode,
        uptime=1.0,
        error=error,
        **more,
    )


@pytest.mark.parametrize("hook", ["async_tick", "start", "stop", "pause", "await_cleanup"])
def test_a_failed_hook_is_a_failure_that_prints_like_the_exception(hook: str) -> None:
    failure = failure_of(failed(hook))
    assert failure is not None
    assert failure.worker == "a"
    error = failure.error
    assert type(error) is ProcessorError
    assert (error.worker, error.type_name, error.message) == ("a", "KeyError", "'price'")
    assert str(error).startswith("KeyError: 'price'\n\nin worker 'a':\nTraceback …")
    assert str(error).endswith("the last line")


def test_a_tick_that_timed_out_is_a_timeout_even_where_the_exception_is_at_hand() -> None:
    for exception in (None, TimeoutError("timed out after 0.5s")):
        failure = failure_of(failed(timeout=True, exception=exception))
        assert failure is not None
        assert type(failure.error) is ProcessorTimeoutError
        assert "timed out after 0.5s" in str(failure.error)


def test_where_the_exception_never_left_the_process_it_is_the_cause() -> None:
    exception = KeyError("price")
    failure = failure_of(failed(exception=exception))
    assert failure is not None
    assert type(failure.error) is ProcessorError
    assert failure.error.__cause__ is exception


class Picky(Exception):
    """Needs arguments, and has a name for each of the error's attributes."""

    made = 0

    def __init__(self, code: int, *, reason: str) -> None:
        super().__init__(code, reason)
        Picky.made += 1
        self.code = code

    def __new__(cls, code: int, *, reason: str) -> Picky:
        Picky.made += 1
        return super().__new__(cls)

    @property
    def message(self) -> str:
        raise AssertionError("run code of the original's")

    worker = type_name = traceback = message

    def __setattr__(self, name: str, value: object) -> None:
        raise AssertionError("run code of the original's")

    def __str__(self) -> str:
        raise AssertionError("run code of the original's")

    __repr__ = __str__


class Own(ProcessorError):
    """A user's kind of the package's own."""


class Outer:
    class Inner(LookupError):
        """Has a path of two parts."""


class WithLayout(OSError):
    """Is larger than other exceptions."""


def standing_for(path: str) -> ProcessorError:
    """Return the error for a failed tick, and see that a death has the same."""
    _, _, qualname = path.partition(":")
    name = qualname.rpartition(".")[2]
    plain = msgspec.structs.replace(failed(), type_name=name, type_path=path)
    death = died(
        DeathReason.EXITED,
        1,
        error=plain.traceback,
        error_type=name,
        error_type_path=path,
        error_message=plain.message,
    )
    errors = []
    for event in (plain, death):
        failure = failure_of(event)
        assert failure is not None
        errors.append(failure.error)
    assert type(errors[0]) is type(errors[1])
    for error in errors:
        assert isinstance(error, ProcessorError)
        assert (error.worker, error.message, error.type_name) == ("a", "'price'", name)
        assert error.traceback == plain.traceback
        assert str(error).startswith(f"{name}: 'price'\n\nin worker 'a':\nTraceback …")
        assert repr(error) == f"{type(error).__name__}(\"'price'\")"
        for copied in (copy.copy(error), pickle.loads(pickle.dumps(error))):
            assert isinstance(copied, ProcessorError)
            assert str(copied) == str(error)
        with pytest.raises(type(error)):
            raise error
    return errors[0]


@pytest.mark.parametrize(
    "original",
    [
        KeyError,
        OSError,
        ConnectionRefusedError,
        UnicodeDecodeError,
        SyntaxError,
        ImportError,
        TimeoutError,
        ClockError,
        ConfigError,
        ProcessorTimeoutError,
        json.JSONDecodeError,
        Own,
        Outer.Inner,
        WithLayout,
        Picky,
    ],
)
def test_an_error_is_of_the_originals_type_where_that_is_known(original: type[Exception]) -> None:
    error = standing_for(f"{original.__module__}:{original.__qualname__}")
    assert isinstance(error, original)
    assert type(error).__name__ == original.__name__
    assert Picky.made == 0


@pytest.mark.parametrize(
    "path",
    [
        "",
        ":",
        "builtins:NoSuchError",
        "builtins:print",
        "builtins:int",
        "no.such.module:Error",
        "xml.dom.minidom:Error",  # not loaded, and not to be
        "tests.coordinator.test_failures:json.JSONDecodeError",
        # These would mean something to Python where they are raised.
        "builtins:StopIteration",
        "builtins:StopAsyncIteration",
        "builtins:SystemExit",
        "builtins:KeyboardInterrupt",
        "builtins:GeneratorExit",
        "asyncio.exceptions:CancelledError",
        # Its layout needs the exceptions of the group.
        "builtins:ExceptionGroup",
    ],
)
def test_an_error_of_any_other_type_is_a_plain_one(path: str) -> None:
    assert type(standing_for(path)) is ProcessorError
    assert "xml.dom.minidom" not in sys.modules


@pytest.mark.parametrize(
    "hook",
    [
        "check_network",
        "start_network",
        "run_network",
        "stop_network",
        "on_connected",
        "on_disconnected",
        "task reader",
    ],
)
def test_what_fails_in_the_network_loop_is_tried_again_and_no_failure(hook: str) -> None:
    assert failure_of(failed(hook)) is None


def test_a_death_is_a_failure_and_says_how() -> None:
    failure = failure_of(died(DeathReason.EXITED, 3))
    assert failure is not None
    assert failure.worker == "a"
    assert isinstance(failure.error, ProcessorError)
    assert str(failure.error) == "worker 'a' died (exited, exit status 3)"


def test_a_death_carries_the_traceback_that_the_worker_could_send() -> None:
    failure = failure_of(died(DeathReason.EXITED, 1, error="Traceback …\nValueError: no"))
    assert failure is not None
    assert "worker 'a' died" in str(failure.error)
    assert str(failure.error).endswith("ValueError: no")


def test_a_worker_that_never_was_could_not_be_started() -> None:
    failure = failure_of(died(DeathReason.START_FAILED, None, error="OSError: no memory"))
    assert failure is not None
    assert "worker 'a' could not be started" in str(failure.error)
    assert "OSError: no memory" in str(failure.error)


def test_a_death_by_an_exception_prints_like_that_and_names_it_where_it_never_left() -> None:
    said = {"error": "Traceback …", "error_type": "ValueError", "error_message": "no"}
    failure = failure_of(died(DeathReason.EXITED, 1, **said))
    assert failure is not None
    assert (failure.error.type_name, failure.error.message) == ("ValueError", "no")
    original = ValueError("no")
    failure = failure_of(died(DeathReason.EXITED, 1, **said, exception=original))
    assert failure is not None
    assert failure.error.__cause__ is original


@pytest.mark.parametrize(
    "event",
    [
        Event(),
        WorkerStarting(worker="a", incarnation=1),
        WorkerReady(worker="a", incarnation=1, pid=1, seconds=0.1),
        WorkerBackingOff(worker="a", delay=1.0, restarts=1),
        WorkerQuarantined(worker="a", restarts=1),
        WorkerStopping(worker="a", incarnation=1),
        WorkerStopped(worker="a"),
        WorkerUnkillable(worker="a", incarnation=1, pid=1),
        NetworkChanged(
            worker="a",
            incarnation=1,
            before=NetworkStatus.CONNECTED,
            after=NetworkStatus.ERROR,
            error="gone",
        ),
        FramesDropped(garbage=1, foreign=1, stale=1),
    ],
    ids=lambda event: type(event).__name__,
)
def test_everything_else_is_no_failure(event: Event) -> None:
    assert failure_of(event) is None
