"""A logger whose handlers and filters, which are the user's, cannot fail the code that logs."""

from __future__ import annotations

import contextlib
import logging
import sys
import traceback

__all__ = ["GuardedLogger"]


class GuardedLogger:
    """Logs as `logging.Logger` does. A record whose handler raises is printed on stderr instead.

    `KeyboardInterrupt` and `SystemExit` are raised.

    Args:
        name: the logger's.
    """

    def __init__(self, name: str) -> None:
        self._logger = logging.getLogger(name)

    def debug(
        self, message: str, *args: object, exc_info: bool | BaseException | None = None
    ) -> None:
        """Log for those who look closer."""
        self._log(logging.DEBUG, message, args, exc_info)

    def info(
        self, message: str, *args: object, exc_info: bool | BaseException | None = None
    ) -> None:
        """Log what an operator may want to know."""
        self._log(logging.INFO, message, args, exc_info)

    def warning(
        self, message: str, *args: object, exc_info: bool | BaseException | None = None
    ) -> None:
        """Log a warning."""
        self._log(logging.WARNING, message, args, exc_info)

    def error(
        self, message: str, *args: object, exc_info: bool | BaseException | None = None
    ) -> None:
        """Log an error."""
        self._log(logging.ERROR, message, args, exc_info)

    def critical(
        self, message: str, *args: object, exc_info: bool | BaseException | None = None
    ) -> None:
        """Log an error after which the program cannot go on as it should."""
        self._log(logging.CRITICAL, message, args, exc_info)

    def _log(
        self,
        level: int,
        message: str,
        args: tuple[object, ...],
        exc_info: bool | BaseException | None,
    ) -> None:
        try:
            self._logger.log(level, message, *args, exc_info=exc_info, stacklevel=3)
        except (KeyboardInterrupt, SystemExit):
            raise
        except BaseException:
            # What was to be logged must not be lost because of the log.
            with contextlib.suppress(Exception):
                if isinstance(exc_info, BaseException):
                    traceback.print_exception(exc_info, file=sys.stderr)
                traceback.print_exc(file=sys.stderr)
                print(message % args if args else message, file=sys.stderr)
