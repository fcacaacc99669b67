"""What each kind of report changes: the worker's snapshot, its account, the supervisor, events."""

from __future__ import annotations

import logging
import math
import os
from collections.abc import Callable

from chronopype_mp.coordinator.record import Life, WorkerRecord
from chronopype_mp.core.events import Event, NetworkChanged, ProcessorFailed
from chronopype_mp.core.messages import (
    PROTOCOL,
    STOP_ID,
    Beat,
    Bye,
    CommandDone,
    Failure,
    GuardBeat,
    Hello,
    LogLine,
    Ready,
    Status,
    TickDone,
    Uplink,
)
from chronopype_mp.core.stimuli import Beaten, GotReady, GuardBeaten, Stimulus
from chronopype_mp.processors import ProcessorState

__all__ = ["ReportHandler"]

logger = logging.getLogger("chronopype_mp.coordinator")


NETWORK_HOOKS = frozenset(
    {"check_network", "start_network", "stop_network", "on_connected", "on_disconnected"}
)


class ReportHandler:
    """Handles the reports of present incarnations.

    Args:
        stimulate: hands a stimulus to the supervisor.
        emit: publishes an event.
        welcome: answers a `Hello`.
        configure: sends a worker's present settings.
        progressed: called when a worker has run some of the ticks that all are to be run.
    """

    def __init__(
        self,
        stimulate: Callable[[Stimulus], None],
        emit: Callable[[Event], None],
        welcome: Callable[[WorkerRecord, Life], None],
        configure: Callable[[WorkerRecord], None],
        progressed: Callable[[], None],
    ) -> None:
        self._stimulate = stimulate
        self._emit = emit
        self._welcome = welcome
        self._configure = configure
        self._progressed = progressed

    def handle(self, record: WorkerRecord, life: Life, report: Uplink) -> None:
        """Take a report of a worker's present incarnation."""
        match report:
            case Beat():
                self._beat(record, life, report)
            case TickDone():
                life.through = report.seq
                self._progressed()
            case Status():
                self._status(record, report)
            case Hello():
                self._hello(record, life, report)
            case Ready():
                self._ready(record, life, report)
            case GuardBeat():
                self._stimulate(GuardBeaten(record.name, report.incarnation, report.stalled))
            case CommandDone():
                if report.id == STOP_ID:
                    life.stop_begun = True
                else:
                    life.settings_done = max(life.settings_done, report.id)
            case Failure():
                self._failure(record, life, report)
            case LogLine():
                _log(report)
            case Bye():
                if report.account is not None:
                    record.ledger.report(report.account)
                    record.update(
                        state=ProcessorState.of(report.counters),
                        executions=report.counters.executions,
                        largest_gap=max(record.snapshot.largest_gap, report.largest_gap),
                    )

    def _hello(self, record: WorkerRecord, life: Life, report: Hello) -> None:
        if report.protocol != PROTOCOL:
            if life.refused:
                return
            life.refused = True
            logger.error(
                "worker %r speaks version %d of the protocol, the coordinator %d; both processes "
                "must run the same chronopype_mp",
                record.name,
                report.protocol,
                PROTOCOL,
            )
            return
        self._welcome(record, life)

    def _ready(self, record: WorkerRecord, life: Life, report: Ready) -> None:
        if life.process is None:
            # The worker was faster than the thread that started it; the coordinator hands it on.
            life.early_ready = report
        if life.ready or life.process is None:
            return
        life.ready = True
        life.through = report.base
        self._progressed()
        record.ledger.open(report.base)
        record.update(state=ProcessorState(is_active=not record.settings.paused))
        self._stimulate(GotReady(record.name, report.incarnation, life.process.pid))
        if life.welcomed_with != record.version:
            life.settings_done = 0
            self._configure(record)

    def _beat(self, record: WorkerRecord, life: Life, report: Beat) -> None:
        record.ledger.report(report.account)
        counters = report.counters
        # The beat may be older than what was asked for last, or than the worker's obedience.
        active = not record.settings.paused if life.ready else counters.is_active
        record.update(
            state=ProcessorState.of(counters, is_active=active),
            executions=counters.executions,
            largest_gap=max(record.snapshot.largest_gap, report.largest_gap),
            lag=report.lag,
            reports_lost=report.reports_lost,
            frames_dropped=report.frames_dropped,
        )
        self._stimulate(Beaten(record.name, report.incarnation, report.rss, report.cpu))

    def _status(self, record: WorkerRecord, report: Status) -> None:
        before = record.network_status
        record.update(
            network_status=report.network,
            last_connected_timestamp=(
                math.nan if report.last_connected is None else report.last_connected
            ),
        )
        if report.error is not None:
            record.network_error = report.error
        if report.network is not before:
            self._emit(
                NetworkChanged(
                    worker=record.name,
                    incarnation=report.incarnation,
                    before=before,
                    after=report.network,
                    error=report.error,
                )
            )

    def _failure(self, record: WorkerRecord, life: Life, report: Failure) -> None:
        if report.fatal:
            # It comes again in the event of the process' end.
            life.fatal = report
            return
        if report.hook in NETWORK_HOOKS:
            record.network_error = f"{report.hook}: {report.type_name}: {report.message}"
        original = None if life.process is None else life.process.exception(report.serial)
        self._emit(
            ProcessorFailed(
                worker=record.name,
                incarnation=report.incarnation,
                hook=report.hook,
                type_name=report.type_name,
                message=report.message,
                traceback=report.traceback,
                timeout=report.timeout,
                timestamp=report.timestamp,
                exception=original,
            )
        )


def _log(report: LogLine) -> None:
    """Hand a worker's record to the logger of the same name here, with the worker's name."""
    target = logging.getLogger(report.logger)
    if not target.isEnabledFor(report.level):
        return
    filename = os.path.basename(report.pathname)
    target.handle(
        logging.makeLogRecord(
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
    )
