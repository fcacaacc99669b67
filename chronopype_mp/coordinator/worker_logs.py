"""Log records of workers, handed to the loggers of the same names in the owner's process."""

from __future__ import annotations

import logging
import os

import msgspec

from chronopype_mp.core.messages import LogLine

__all__ = ["relay"]


def relay(report: LogLine) -> None:
    """Hand a worker's record to the logger of the same name in this process, if there is one.

    Otherwise it goes to the nearest logger above, and to the same handlers.

    The record has all the fields that it had in the worker, and the worker's name as ``worker``
    and ``processName``. Its traceback is the text ``exc_text``.

    Raises:
        BaseException: raised by a filter or handler of the user; the caller guards this.
    """
    target = _nearest(report.logger)
    is_disabled = target.disabled and target.name == report.logger
    if is_disabled or not _is_enabled(target, report.level):
        return
    filename = os.path.basename(report.pathname)
    record = logging.makeLogRecord({})
    started = record.created - record.relativeCreated / 1000
    for name, value in report.extra.items():
        if name not in vars(record):
            vars(record)[name] = _decoded(value)
    vars(record).update(
        {
            "name": report.logger,
            "levelno": report.level,
            "levelname": logging.getLevelName(report.level),
            "msg": report.message,
            "created": report.created,
            "msecs": report.created % 1 * 1000,
            "pathname": report.pathname,
            "filename": filename,
            "module": os.path.splitext(filename)[0],
            "lineno": report.lineno,
            "funcName": report.function,
            "thread": report.thread_id,
            "threadName": report.thread,
            "taskName": report.task,
            "process": report.process,
            "relativeCreated": (report.created - started) * 1000,
            "exc_text": report.exception,
            "stack_info": report.stack,
            "processName": report.worker,
            "worker": report.worker,
        }
    )
    # The filters of a logger are not for the ones below it.
    hand_over = target.handle if target.name == report.logger else target.callHandlers
    hand_over(record)


def _decoded(value: msgspec.Raw) -> object:
    try:
        return msgspec.msgpack.decode(value)
    except (ValueError, RecursionError):  # only a forger sends what cannot be decoded
        return None


def _nearest(name: str) -> logging.Logger:
    """Return the logger of a name, or the nearest one above it that exists.

    A worker may make up any number of names. A logger that was made for each would never go away.
    """
    known = logging.Logger.manager.loggerDict
    while name:
        logger = known.get(name)
        if isinstance(logger, logging.Logger):
            return logger
        name = name.rpartition(".")[0]
    return logging.getLogger()


def _is_enabled(logger: logging.Logger, level: int) -> bool:
    """Return whether a record passes the levels, also if this very logger is disabled."""
    return level > logger.manager.disable and level >= logger.getEffectiveLevel()
