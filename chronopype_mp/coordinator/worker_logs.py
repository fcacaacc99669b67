"""Log records of workers, handed to the loggers of the same names in the owner's process."""

from __future__ import annotations

import logging
import os

from chronopype_mp.core.messages import LogLine

__all__ = ["relay"]


def relay(report: LogLine) -> None:
    """Hand a worker's record to the logger of the same name in this process.

    The record carries the worker's name; what a handler raises is logged.
    """
    target = logging.getLogger(report.logger)
    if not target.isEnabledFor(report.level):
        return
    filename = os.path.basename(report.pathname)
    record = logging.makeLogRecord(
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
            "threadName": report.thread,
            "processName": report.worker,
            "worker": report.worker,
        }
    )
    target.handle(record)
