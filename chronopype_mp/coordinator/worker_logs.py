"""Log records of workers, handed to the loggers of the same names in the owner's process."""

from __future__ import annotations

import logging
import os

import msgspec

from chronopype_mp.coordinator.callbacks import Guard
from chronopype_mp.core.messages import LogLine

__all__ = ["relay"]


def relay(report: LogLine) -> None:
    """Hand a worker's record to the logger of the same name in this process.

    The record has all the fields that it had in the worker, and the worker's name as ``worker``
    and ``processName``. Its traceback is the text ``exc_text``. What a filter or handler
    of the user raises goes no further.
    """
    target = logging.getLogger(report.logger)
    if not target.isEnabledFor(report.level):
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
    Guard().call("a log handler", target.handle, record)


def _decoded(value: msgspec.Raw) -> object:
    try:
        return msgspec.msgpack.decode(value)
    except (ValueError, RecursionError):  # only a forger sends what cannot be decoded
        return None
