"""Calling what users plug in, such as callbacks and log handlers, without depending on it."""

from __future__ import annotations

import asyncio
import contextlib
import inspect
import logging
import sys
import traceback
import weakref
from collections.abc import Callable

__all__ = ["callback_problem", "guarded"]

logger = logging.getLogger("chronopype_mp.events")

_exiting: weakref.WeakSet[asyncio.AbstractEventLoop] = weakref.WeakSet()
"""Event loops that were asked to end. Asking again would interrupt the clean-up."""


def callback_problem(callback: object) -> str | None:
    """Return why an object cannot be called back, to follow its ``repr``; None if it can."""
    if not callable(callback):
        return "is not callable; pass a plain function"
    for function in (callback, type(callback).__call__):
        if inspect.iscoroutinefunction(function) or inspect.isasyncgenfunction(function):
            return "is a coroutine function, which nobody would await; pass a plain function"
    return None


def guarded(what: str, function: Callable[..., object], *args: object) -> None:
    """Call a function and keep what it raises from the caller.

    Exceptions are logged, also those that are no `Exception`, such as a stray `CancelledError`.
    `KeyboardInterrupt` and `SystemExit` end the program, but not before the present callback of the
    event loop has returned: until then the supervisor's work on the same event is finished. An
    event loop ends once; a second request, made by a callback during the clean-up, is logged.

    Args:
        what: names the function's role in the log, such as ``"the error callback"``.
        function: belongs to the user, or runs the user's code.
        args: its arguments.

    Raises:
        KeyboardInterrupt, SystemExit: raised by ``function`` where no event loop is running.
    """
    try:
        function(*args)
    except BaseException as error:
        if not isinstance(error, KeyboardInterrupt | SystemExit) or not _exit_later(error):
            _log(what, function, error)


def _exit_later(error: KeyboardInterrupt | SystemExit) -> bool:
    """Have the running event loop raise an error; return False if it ends already."""
    try:
        loop = asyncio.get_running_loop()
    except RuntimeError:
        raise error from None
    if loop in _exiting:
        return False

    def leave() -> None:
        raise error

    _exiting.add(loop)
    loop.call_soon(leave)
    return True


def _log(what: str, function: Callable[..., object], error: BaseException) -> None:
    try:
        logger.error("%s failed: %r", what, function, exc_info=error)
    except BaseException:
        # A log handler is the user's, too. It must not hide the first error.
        with contextlib.suppress(Exception):
            traceback.print_exception(error, file=sys.stderr)
            traceback.print_exc(file=sys.stderr)
