"""Every hook of a connection × everything that can go wrong in one, in real workers.

There is always a report, the loop goes on until the connection is there again, and no hook runs
twice for one cause.
"""

from __future__ import annotations

import asyncio
import logging
import os
import re
import threading
from pathlib import Path

import pytest

from chronopype_mp import BackoffPolicy, NetworkProcessor, NetworkStatus, WorkerHandle
from chronopype_mp.events import NetworkChanged, ProcessorFailed, WorkerDied
from tests.system.clocks import Watched, closes, run

HOOKS = {
    "check": "check_network",
    "start": "start_network",
    "connected": "on_connected",
    "run": "run_network",
    "disconnected": "on_disconnected",
    "stop": "stop_network",
    "task": "task reader",
}
"""What the processor notes, and the name in reports."""

ORDER = re.compile(r"((start )(connected (run )?disconnected )?stop )*")
"""The hooks of connections one after another, without checks and tasks."""

BOUND = 60.0
"""Seconds; far more than anything here needs on an idle machine."""

LAST = re.compile(r"(start (connected (run )?(disconnected )?)?)?(stop )?")
"""What a process that is ended in the middle adds to that."""


class Panic(BaseException):
    """An exception that is no `Exception`, as of a client written in Rust."""


class Faulty(NetworkProcessor):
    """Loses its first connection; one hook misbehaves in its first call."""

    LOGGER_NAME = "tests.faulty"
    network_backoff = BackoffPolicy(minimum=0.05, maximum=0.1)
    check_network_interval = 0.3
    check_network_timeout = 0.5
    network_error_wait_time = 0.1
    start_network_timeout = 0.5
    stop_network_timeout = 0.5
    up = runs = is_booted = False

    def __init__(self, path: Path, hook: str, fault: str) -> None:
        super().__init__()
        self.path, self.hook, self.fault = path, hook, fault

    @classmethod
    def logger(cls) -> logging.Logger:
        return logging.getLogger(cls.LOGGER_NAME)

    def start(self, timestamp: float) -> None:
        if not self.is_booted:
            self.is_booted = True
            with self.path.open("a") as file:
                file.write("\n")
        super().start(timestamp)

    def is_first(self, what: str) -> bool:
        try:
            os.close(os.open(f"{self.path}.{what}", os.O_CREAT | os.O_EXCL))
        except FileExistsError:
            return False
        return True

    async def enter(self, hook: str) -> None:
        with self.path.open("a") as file:
            file.write(f"{hook} ")
        if hook == self.hook and self.is_first("fault"):
            await getattr(self, f"do_{self.fault}")()

    async def check_network(self) -> NetworkStatus:
        await self.enter("check")
        if not self.up or (self.runs and self.is_first("loss")):
            return NetworkStatus.NOT_CONNECTED
        return NetworkStatus.CONNECTED

    async def start_network(self) -> None:
        self.spawn(self.enter("task"), "reader")
        await self.enter("start")
        self.up = True

    async def run_network(self) -> None:
        self.runs = True
        await self.enter("run")
        await super().run_network()

    async def stop_network(self) -> None:
        self.up = self.runs = False
        await self.enter("stop")

    async def on_connected(self) -> None:
        await self.enter("connected")

    async def on_disconnected(self) -> None:
        await self.enter("disconnected")

    # The faults

    async def do_exception(self) -> None:
        raise KeyError("price")

    async def do_panic(self) -> None:
        raise Panic("unwrap of nothing")

    async def do_hang(self) -> None:
        await asyncio.get_running_loop().create_future()

    async def do_swallow(self) -> None:
        while True:
            try:
                await asyncio.get_running_loop().create_future()
            except asyncio.CancelledError:
                continue

    async def do_lose_and_swallow(self) -> None:
        self.connection_lost("given up")
        await self.do_swallow()

    async def do_stop_and_swallow(self) -> None:
        self.stop()
        await self.do_swallow()

    async def do_lose_and_raise(self) -> None:
        """Raise when it is cancelled because of the loss, or by its timeout."""
        self.connection_lost("given up")
        try:
            await self.do_hang()
        finally:
            raise KeyError("price")

    async def do_cancel(self) -> None:
        future = asyncio.get_running_loop().create_future()
        future.cancel()
        await future

    async def do_block_a_thread(self) -> None:
        await asyncio.to_thread(threading.Event().wait)

    async def do_call_again(self) -> None:
        """Ask for what leads to the hook, and for everything else that does."""
        self.start(0.0)
        self.check_now()
        self.connection_lost("called from within")
        self.pause()
        self.resume()


def is_reported(hook: str, fault: str) -> bool:
    """Whether a fault is one: the body and a task may run for as long as there is a connection."""
    if fault == "call_again":
        return False
    return hook not in ("run", "task") or fault not in ("hang", "block_a_thread")


def check_order(path: Path, hook: str) -> None:
    """No hook runs twice for one cause."""
    *killed, last = path.read_text().splitlines()[1:]
    for calls in killed:
        rest = ORDER.sub("", without_free_calls(calls), count=1)
        assert LAST.fullmatch(rest), f"{hook}: {calls}"
    # An end runs stop_network whether there is a connection or not.
    rest = ORDER.sub("", without_free_calls(last), count=1)
    assert rest in ("", "stop "), f"{hook}: {last}"


def without_free_calls(calls: str) -> str:
    return re.sub(r"(check|task) ", "", calls)


@pytest.mark.parametrize(
    "fault",
    [
        "exception",
        "panic",
        "hang",
        "swallow",
        "lose_and_swallow",
        "stop_and_swallow",
        "lose_and_raise",
        "cancel",
        "call_again",
        "block_a_thread",
    ],
)
def test_whatever_a_hook_does_there_is_a_report_and_a_connection_and_no_hook_runs_twice(
    fault: str, tmp_path: Path
) -> None:
    run(_scenario(fault, tmp_path))


async def _scenario(fault: str, directory: Path) -> None:
    watched = Watched()
    handles: dict[str, WorkerHandle] = {}
    async with watched.clock as clock:
        for hook in HOOKS:
            processor = Faulty(directory / hook, hook, fault)
            handles[hook] = clock.add_processor(processor, name=hook)
        for hook in HOOKS:
            await _recovers(watched, hook, fault)
    for hook, handle in handles.items():
        assert closes(handle)
        check_order(directory / hook, hook)


async def _recovers(watched: Watched, hook: str, fault: str) -> None:
    """Wait for the report of the fault, and for the connection after it."""
    events, connected = watched.events, {"worker": hook, "after": NetworkStatus.CONNECTED}
    count = 2
    if is_reported(hook, fault):
        name = HOOKS[hook]
        failed = await events.wait_for(ProcessorFailed, worker=hook, hook=name, timeout=BOUND)
        before = events.events[: events.events.index(failed)]
        count = 1 + sum(
            isinstance(event, NetworkChanged)
            and (event.worker, event.after) == (hook, NetworkStatus.CONNECTED)
            for event in before
        )
    if fault.endswith("swallow"):
        died = await events.wait_for(WorkerDied, worker=hook, timeout=BOUND)
        assert died.exitcode == 70
        assert HOOKS[hook] in (died.error_message or "")
        connected["incarnation"] = 2
        count = 1
    await events.wait_for(NetworkChanged, count=count, timeout=BOUND, **connected)
