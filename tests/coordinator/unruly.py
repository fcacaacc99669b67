"""A launcher without processes, which fails as told."""

from __future__ import annotations

import asyncio
import itertools
from collections.abc import Callable
from typing import Any

from chronopype_mp.core.boot import TickRules, WorkerBoot
from chronopype_mp.core.codec import command_topic, decode_command, encode_report
from chronopype_mp.core.messages import Beat, Bye, CommandDone, Hello, Ready, Report, Stop, Welcome
from chronopype_mp.core.state import TickAccount, TickCounters
from chronopype_mp.launchers import Look, ProcessEnd
from chronopype_mp.launchers.base import Gap
from chronopype_mp.processors import TickProcessor
from chronopype_mp.transport.base import Hub
from chronopype_mp.transport.memory import MemoryHub
from tests.waiting import Noticeboard

__all__ = ["RULES", "Bizarre", "UnrulyLauncher", "UnrulyProcess"]

RULES = TickRules(processor_timeout=1.0, max_retries=0, stats_window_size=10)


class Bizarre(BaseException):
    """No `Exception`."""


class ThreadedHub(MemoryHub):
    """A hub with a thread, which a test lets fail by `thread_failed`."""

    def watch_threads(self, on_failure: Callable[[BaseException], None]) -> None:
        self.thread_failed = on_failure


class UnrulyLauncher:
    """Starts processes that end when they are told, killed or asked to.

    Attributes:
        faults: what methods raise, of the launcher and of its processes, by name.
        hangs: names of methods that return once `release` is called, or never.
        obeys: processes get READY by themselves, and stop when asked.
        processes: all that were started, oldest first.
        calls: the methods called so far, in order.
        board: notified of each call.
    """

    def __init__(self) -> None:
        self.faults: dict[str, BaseException] = {}
        self.hangs: set[str] = set()
        self.obeys = False
        self.processes: list[UnrulyProcess] = []
        self.calls: list[str] = []
        self.board = Noticeboard()
        self.hub = ThreadedHub()
        self._released = asyncio.Event()

    def release(self) -> None:
        """Let everything that hangs return."""
        self._released.set()

    def do(self, name: str) -> None:
        self.calls.append(name)
        self.board.notify()
        if name in self.faults:
            raise self.faults[name]

    async def do_slowly(self, name: str) -> None:
        self.do(name)
        if name in self.hangs:
            await self._released.wait()

    def open_hub(self, queued: int) -> ThreadedHub:
        self.do("open_hub")
        self.hub = ThreadedHub(queued)
        return self.hub

    async def start(
        self, boot: WorkerBoot, hub: Hub, original: TickProcessor | None, gap: Gap
    ) -> UnrulyProcess:
        await self.do_slowly("start")
        process = UnrulyProcess(self, boot, 1000 + len(self.processes))
        self.processes.append(process)
        self.board.notify()
        return process

    def close(self) -> None:
        self.do("close")


class UnrulyProcess:
    """A process; made by `UnrulyLauncher.start`."""

    inline = False
    pipes: tuple[int, int] | None = None

    def __init__(self, launcher: UnrulyLauncher, boot: WorkerBoot, pid: int) -> None:
        self.pid = pid
        self.boot = boot
        self.kept: dict[int, BaseException] = {}
        self.end: asyncio.Future[ProcessEnd] = asyncio.get_running_loop().create_future()
        self._launcher = launcher
        self._serials = itertools.count(1)
        if launcher.obeys:
            self._link = launcher.hub.connect(boot.worker)
            self._link.attach(asyncio.get_running_loop(), self._obey)
            self.send(Hello, pid=pid)

    def _obey(self) -> None:
        for frame in self._link.receive(100):
            if not frame.startswith(command_topic(self.boot.worker)):
                continue  # a tick
            command = decode_command(frame)
            if isinstance(command, Welcome):
                self.send(Ready, base=command.seq)
            elif isinstance(command, Stop) and self._launcher.obeys:
                self.send(CommandDone, id=command.id, seq=command.seq)
                self.stop(command.seq)

    # What the test has it do

    def send(self, kind: type[Report], **values: Any) -> None:
        """Send a report."""
        frame = encode_report(self.boot.report(kind, **values))  # type: ignore[arg-type]
        assert self._launcher.hub.echo(frame)

    def get_ready(self, base: int = 0) -> None:
        self.send(Hello, pid=self.pid)
        self.send(Ready, base=base)

    def beat(self, base: int = 0) -> None:
        self.send(
            Beat,
            serial=next(self._serials),
            account=TickAccount(base),
            counters=TickCounters(is_active=True),
            largest_gap=0.0,
            lag=0.0,
        )

    def exit(self, exitcode: int = 0) -> None:
        """End, without a word or after `Bye`."""
        if not self.end.done():
            self.end.set_result(ProcessEnd(exitcode=exitcode))

    def stop(self, base: int = 0) -> None:
        """End gracefully."""
        self.send(Bye, account=TickAccount(base), counters=TickCounters(), stopped_at=base)
        self.exit()

    # What the coordinator calls

    async def wait(self) -> ProcessEnd:
        await self._launcher.do_slowly("wait")
        return await asyncio.shield(self.end)

    async def look(self) -> Look:
        await self._launcher.do_slowly("look")
        return Look(gone=self.end.done())

    def kill(self, stacks_within: float = 0.0) -> None:
        self._launcher.do("kill")
        self.exit(-9)

    def terminate(self) -> None:
        self._launcher.do("terminate")
        if self._launcher.obeys:
            self.stop()

    def clean_up(self) -> None:
        self._launcher.do("clean_up")

    def exception(self, serial: int) -> BaseException | None:
        self._launcher.do("exception")
        return self.kept.get(serial)
