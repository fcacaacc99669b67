"""The demo: eight feeds of a troubled exchange, a strategy, two faulty workers, and a verdict.

The pure parts are in other modules: `demo_course` defines the workers, `demo_record` collects what
happened, `demo_trading` what the strategy did, and `verdict` judges it. This module starts the
servers and the clock, and always stops both.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import signal
from collections.abc import Coroutine, Iterator
from typing import Any

import msgspec

from chronopype_mp import CallError, ClockConfig, ClockMode, Output, ProcessorSpec, WorkerHandle
from chronopype_mp.clocks import RealtimeClock
from chronopype_mp.console.demo_course import (
    STRATEGY,
    Cast,
    DemoError,
    DemoOptions,
    cast,
    kill_after,
)
from chronopype_mp.console.demo_record import History, worker_of
from chronopype_mp.console.demo_servers import DemoServers, find_examples
from chronopype_mp.console.demo_table import LiveRow
from chronopype_mp.console.demo_trading import Order, Position, Trade, Trading, positions_text
from chronopype_mp.console.demo_view import DemoView, LogLines, captured, make_view
from chronopype_mp.console.verdict import Role, Verdict, WorkerRecord, judge
from chronopype_mp.core.connection import NetworkStatus
from chronopype_mp.core.worker_events import Event
from chronopype_mp.exceptions import ClockError, WorkerError
from chronopype_mp.testing import faults
from chronopype_mp.timing import wall

__all__ = ["run"]

REFRESH_INTERVAL = 0.25
"""Seconds between two updates of the live table."""


def run(options: DemoOptions) -> int:
    """Run the demo.

    Args:
        options: the user's choices.

    Returns:
        The exit status: 0 for a good verdict, 1 for a bad one, 128 plus the signal's number after
        a signal.

    Raises:
        DemoError: the demo cannot run. The message says why.
    """
    if os.environ.get("CHRONOPYPE_MP_LAUNCHER") == "inline":
        raise DemoError(
            "CHRONOPYPE_MP_LAUNCHER=inline is not possible, because one worker segfaults; "
            "use forkserver (the default) or spawn"
        )
    find_examples()
    view = make_view(options.plain)
    with quiet_logging(view):
        try:
            return asyncio.run(_Demo(options, view).run())
        except ClockError as error:
            raise DemoError(str(error), status=1) from error


@contextlib.contextmanager
def quiet_logging(view: DemoView) -> Iterator[None]:
    """Show only warnings and errors, from this process and the workers, as lines of the view."""
    root, handler = logging.getLogger(), LogLines(view)
    events = logging.getLogger("chronopype_mp.events")
    levels = root.level, events.level
    root.addHandler(handler)
    root.setLevel(logging.WARNING)
    events.setLevel(logging.CRITICAL)  # the view shows the events themselves
    try:
        yield
    finally:
        root.setLevel(levels[0])
        events.setLevel(levels[1])
        root.removeHandler(handler)


class _Demo:
    """One run of the demo."""

    def __init__(self, options: DemoOptions, view: DemoView) -> None:
        self._options = options
        self._view = view
        self._history: dict[str, History] = {}
        self._handles: dict[str, WorkerHandle] = {}
        self._cast: tuple[Cast, ...] = ()
        self._began: float | None = None
        self._at_end: dict[str, NetworkStatus] | None = None
        self._unpublished = 0
        self._trading = Trading()
        self._trading_problems: tuple[str, ...] = ()
        self._signal: int | None = None
        self._stop = asyncio.Event()

    async def run(self) -> int:
        """Run the demo and return the exit status."""
        with self._signals_stop(), self._view.shown():
            async with DemoServers() as servers:
                self._cast = cast(self._options.seconds, servers.http, servers.feeds)
                for member in self._cast:
                    if member.trouble is not None:
                        self._view.line(member.name, f"scripted trouble: {member.trouble}")
                self._history = {member.name: History() for member in self._cast}
                silent = [member.name for member in self._cast if member.role is Role.CRASHES]
                with captured(self._view, silent):
                    await self._clock()
        verdict = self._judge()
        self._view.verdict(verdict)
        if self._signal is not None:
            return 128 + self._signal
        return 0 if verdict.ok else 1

    @contextlib.contextmanager
    def _signals_stop(self) -> Iterator[None]:
        """Stop gracefully on the first Ctrl-C or SIGTERM. A second one has its usual effect."""
        loop = asyncio.get_running_loop()
        numbers = (signal.SIGINT, signal.SIGTERM)

        def stop(number: int) -> None:
            self._signal = number
            self._stop.set()
            for each in numbers:
                loop.remove_signal_handler(each)

        for number in numbers:
            loop.add_signal_handler(number, stop, number)
        try:
            yield
        finally:
            for number in numbers:
                loop.remove_signal_handler(number)

    async def _clock(self) -> None:
        """Run the clock until the last worker has ended."""
        config = ClockConfig(
            clock_mode=ClockMode.REALTIME,
            tick_size=self._options.tick_size,
            start_time=wall(),
        )
        async with RealtimeClock(config) as clock:
            clock.events.subscribe(self._take)
            clock.outputs.subscribe(self._show_order, "orders.*", worker=STRATEGY)
            clock.outputs.subscribe(self._show_positions, "positions", worker=STRATEGY)
            for member in self._cast:
                self._handles[member.name] = clock.add_processor(
                    ProcessorSpec(target=member.target, options=member.options),
                    name=member.name,
                    supervision=member.supervision,
                )
            await self._until_stopped(self._course(clock))
            self._at_end = {name: each.network_status for name, each in self._handles.items()}
            self._unpublished = clock.position.skipped

    async def _until_stopped(self, course: Coroutine[Any, Any, None]) -> None:
        """Await the course of the demo, or cancel it on a signal. Redraw the view meanwhile."""
        running = asyncio.create_task(course)
        stopped = asyncio.create_task(self._stop.wait())
        redrawing = asyncio.create_task(self._redraw())
        tasks: set[asyncio.Task[Any]] = {running, stopped, redrawing}
        try:
            await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
        finally:
            for task in tasks:
                task.cancel()
            await asyncio.wait(tasks)
        for task in tasks:
            if not task.cancelled():
                task.result()

    async def _course(self, clock: RealtimeClock) -> None:
        """Wait for the workers, then tick them. Meanwhile kill the strategy."""
        await asyncio.gather(*(handle.wait_ready() for handle in self._handles.values()))
        self._began = wall()
        self._view.note(f"all workers are ready; ticking for {self._options.seconds:g} s")
        delay = kill_after(self._options.seconds)
        killing = asyncio.get_running_loop().call_later(delay, self._kill_strategy)
        try:
            await clock.run_til(self._began + self._options.seconds)
        finally:
            killing.cancel()
        await self._check_trading()

    def _kill_strategy(self) -> None:
        try:
            pid = faults.kill(self._handles[STRATEGY])
        except WorkerError as error:
            self._view.note(f"the strategy could not be killed: {error}")
        else:
            positions = positions_text(self._trading.positions)
            self._view.note(f"kill -9 {pid}: the strategy, with {positions}")

    async def _check_trading(self) -> None:
        """Stop the strategy, and compare what it has reported with what the markets did."""
        strategy = self._handles[STRATEGY]
        strategy.stop()
        await strategy.wait_stopped()
        try:
            trades = {market: await self._trades(market) for market in self._trading.positions}
        except CallError as error:
            self._trading_problems = (f"its positions cannot be checked: {error}",)
        else:
            self._trading_problems = tuple(self._trading.problems(trades))

    async def _trades(self, market: str) -> list[Trade]:
        """Return all trades of a market."""
        trades: list[Trade] = []
        while answer := await self._handles[market].call("trades_after", len(trades)):
            trades += msgspec.convert(answer, list[Trade], from_attributes=True)
        return trades

    def _show_order(self, output: Output) -> None:
        order = msgspec.convert(output.payload, Order, from_attributes=True)
        self._view.line(output.worker, self._trading.booked(order), output.at)

    def _show_positions(self, output: Output) -> None:
        positions = msgspec.convert(output.payload, dict[str, Position], from_attributes=True)
        line = f"process {output.incarnation} {self._trading.began(positions)}"
        self._view.line(output.worker, line, output.at)

    async def _redraw(self) -> None:
        while True:
            elapsed = 0.0 if self._began is None else wall() - self._began
            self._view.refresh(self._rows(), elapsed, self._options.seconds)
            await asyncio.sleep(REFRESH_INTERVAL)

    def _take(self, event: Event) -> None:
        """Show and record an event. Events of the final stop are shown but not recorded."""
        history = self._history.get(worker_of(event))
        if history is not None and self._at_end is None:
            history.take(event)
        self._view.event(event)

    def _rows(self) -> Iterator[LiveRow]:
        for member in self._cast:
            handle = self._handles[member.name]
            yield LiveRow(
                worker=member.name,
                role=member.role,
                status=handle.status,
                network=handle.network_status,
                **_counts(handle),
            )

    def _judge(self) -> Verdict:
        at_end = self._at_end or {}
        records = []
        for member in self._cast:
            history = self._history[member.name]
            records.append(
                WorkerRecord(
                    worker=member.name,
                    role=member.role,
                    readies=history.readies,
                    deaths=tuple(history.deaths),
                    statuses=tuple(history.statuses),
                    trouble=member.trouble,
                    at_end=at_end.get(member.name, NetworkStatus.STOPPED),
                    summary=self._trading.summary if member.name == STRATEGY else None,
                    problems=self._trading_problems if member.name == STRATEGY else (),
                    **_counts(self._handles[member.name]),
                )
            )
        return judge(
            records,
            self._options.seconds,
            complete=self._signal is None,
            unpublished=self._unpublished,
        )


def _counts(handle: WorkerHandle) -> dict[str, Any]:
    """Return a worker's account with the field names of the records."""
    statistics = handle.statistics()
    return {
        "due": statistics.published,
        "run": statistics.run,
        "missed": statistics.missed,
        "skipped": statistics.skipped,
        "lost": statistics.lost,
        "largest_gap": statistics.largest_gap,
        "restarts": statistics.restarts,
    }
