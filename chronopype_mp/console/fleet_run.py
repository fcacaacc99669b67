"""Runs a fleet in the foreground: signals, logging, and the exit status."""

from __future__ import annotations

import asyncio
import json
import logging
import os
import signal
import sys
from collections.abc import Sequence

from chronopype_mp.console.exit_status import EXIT_FAILED, EXIT_OK, EXIT_SIGNALLED
from chronopype_mp.console.service_manager import ServiceManager
from chronopype_mp.control.event_buffer import record_of
from chronopype_mp.control.server import serving
from chronopype_mp.core.worker_events import Event
from chronopype_mp.exceptions import ClockError
from chronopype_mp.fleet.directory import FleetDirectory
from chronopype_mp.fleet.document import Node
from chronopype_mp.fleet.files import FleetFiles
from chronopype_mp.fleet.plan import FleetPlan
from chronopype_mp.fleet.runner import RunningFleet
from chronopype_mp.fleet.schema import LoggingSettings

__all__ = ["run_in_foreground"]

logger = logging.getLogger("chronopype_mp.fleet")

SIGNALS = (signal.SIGTERM, signal.SIGINT)


def run_in_foreground(plan: FleetPlan, tree: Node, files: Sequence[str], as_json: bool) -> int:
    """Run a fleet until it is stopped by SIGTERM or SIGINT, or ends. SIGHUP reloads its files.

    Args:
        plan: the fleet.
        tree: what was read from its files.
        files: where that was.
        as_json: whether to print each event on standard output.

    Returns:
        The exit status.
    """
    _set_up_logging(plan.settings.logging)
    name, count = plan.settings.name, len(plan.workers)
    logger.info("fleet %r: starting %d worker%s", name, count, "s" if count > 1 else "")
    foreground = _Foreground(files, tree)
    directory: FleetDirectory | None = None
    try:
        directory = FleetDirectory(name)
        asyncio.run(foreground.run(plan, as_json, directory))
    except asyncio.CancelledError:
        logger.warning("fleet %r: killed by a second signal", name)
        return EXIT_SIGNALLED + foreground.last_signal
    except ClockError as error:
        logger.error("fleet %r: cannot go on: %s", name, error)
        return EXIT_FAILED
    except Exception:  # a fault of the machinery, or what a processor has raised
        logger.exception("fleet %r: cannot go on", name)
        return EXIT_FAILED
    finally:
        if directory is not None:
            directory.close()
    logger.info("fleet %r: stopped", name)
    return EXIT_OK


class _Foreground:
    """Stops the fleet at the first signal, and kills it at the second. Reloads it at SIGHUP.

    Args:
        files: those of the fleet.
        tree: what was read from them.

    Attributes:
        last_signal: the number of the signal that came last; 0 before the first. SIGHUP is none.
    """

    def __init__(self, files: Sequence[str], tree: Node) -> None:
        self.last_signal = 0
        self._files = files
        self._tree = tree
        self._manager = ServiceManager(os.environ)

    async def run(self, plan: FleetPlan, as_json: bool, directory: FleetDirectory) -> None:
        """Run the fleet, and serve its control socket.

        Raises:
            CancelledError: a second signal has killed it.
            Others as `run_fleet`.
        """
        loop = asyncio.get_running_loop()
        stop = asyncio.Event()
        running = RunningFleet(plan, _print_event if as_json else None)
        fleet = loop.create_task(running.run(stop))
        files = FleetFiles(
            self._files, self._tree, running, self._manager.reloading, self._manager.reloaded
        )
        beside = [
            loop.create_task(self._report_ready(running)),
            loop.create_task(self._manager.keep_alive()),
        ]
        loop.add_signal_handler(signal.SIGHUP, self._reload, files)
        for number in SIGNALS:
            loop.add_signal_handler(number, self._take, number, stop, fleet)
        try:
            socket = str(directory.socket)
            async with serving(socket, plan.settings.name, running.clock, stop, files):
                await fleet
        finally:
            fleet.cancel()  # if it could not be served
            for number in (*SIGNALS, signal.SIGHUP):
                loop.remove_signal_handler(number)
            self._manager.stopping()
            for task in beside:
                task.cancel()
            await files.close()
            await asyncio.gather(*beside, fleet, return_exceptions=True)

    async def _report_ready(self, fleet: RunningFleet) -> None:
        await fleet.wait_settled()
        logger.info("fleet %r: all workers have been started", fleet.plan.settings.name)
        self._manager.ready()

    def _reload(self, files: FleetFiles) -> None:
        logger.info("SIGHUP: reloading")
        files.reload()  # its end is logged

    def _take(self, number: int, stop: asyncio.Event, fleet: asyncio.Task[None]) -> None:
        self.last_signal = number
        if stop.is_set():
            fleet.cancel()
            return
        name = signal.Signals(number).name
        logger.info("%s: stopping gracefully; a second signal kills", name)
        self._manager.stopping()
        stop.set()


def _set_up_logging(settings: LoggingSettings) -> None:
    logging.basicConfig(
        level=settings.level,
        stream=sys.stderr,
        format="%(asctime)s %(levelname)s %(name)s: %(message)s",
    )
    for name, level in settings.levels.items():
        logging.getLogger(name).setLevel(level)


def _print_event(event: Event) -> None:
    print(json.dumps(record_of(event)), flush=True)
