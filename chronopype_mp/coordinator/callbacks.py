"""Calling what users plug in, such as callbacks and log handlers, without depending on it."""

from __future__ import annotations

import asyncio
import functools
import inspect
import logging
from collections.abc import Callable

from chronopype_mp.guarded_log import GuardedLogger
from chronopype_mp.processors.code_reading import arguments_problem

__all__ = ["Guard", "callback_problem"]

logger = GuardedLogger("chronopype_mp.events")


def callback_problem(callback: object, *arguments: str) -> str | None:
    """Return why an object cannot be called back, to follow its ``repr``; None if it can.

    Args:
        callback: the object.
        arguments: the names of what it is called with.
    """
    if not callable(callback):
        return "is not callable; pass a plain function"
    for function in (callback, type(callback).__call__):
        if inspect.iscoroutinefunction(function) or inspect.isasyncgenfunction(function):
            return "is a coroutine function, which nobody would await; pass a plain function"
    return arguments_problem(callback, arguments)


class Guard:
    """Calls user code and keeps what it raises from the caller.

    Exceptions are logged, also those that are no `Exception`, such as a stray `CancelledError`.
    `KeyboardInterrupt` and `SystemExit` end the program, but not before the present callback of the
    event loop has returned: until then the supervisor's work on the same event is finished. A
    second one, raised by a callback during the clean-up, is logged.

    Args:
        end_run: called with the first `KeyboardInterrupt` or `SystemExit`; returns whether it will
            be raised by somebody. If not, the event loop raises it.
    """

    def __init__(self, end_run: Callable[[BaseException], bool] = lambda error: False) -> None:
        self._end_run = end_run
        self._exiting = False

    def reset(self) -> None:
        """Forget earlier exits: the program goes on."""
        self._exiting = False

    def call(self, what: str, function: Callable[..., object], *args: object) -> None:
        """Call a function.

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
            if isinstance(error, KeyboardInterrupt | SystemExit) and not self._exiting:
                self._exit(error)
            else:
                logger.error("%s failed: %r", what, function, exc_info=error)

    def log(
        self,
        to: logging.Logger,
        level: int,
        message: str,
        *args: object,
        error: BaseException | None = None,
    ) -> None:
        """Log a record whatever a handler or filter raises; an exit is deferred, as in `call`."""
        write = functools.partial(to.log, level, message, *args, exc_info=error, stacklevel=3)
        self.call("a log handler", write)

    def _exit(self, error: BaseException) -> None:
        def leave() -> None:
            raise error

        try:
            loop = asyncio.get_running_loop()
        except RuntimeError:
            raise error from None
        self._exiting = True
        if not self._end_run(error):
            loop.call_soon(leave)
