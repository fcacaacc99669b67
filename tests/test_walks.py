"""Walks: how many files a reader follows to understand one path through the package.

The calls are recorded with `sys.setprofile` while real processes run. The section "Call paths" of
`docs/design.md` names the files.
"""

from __future__ import annotations

import ast
import asyncio
import logging
import os
import signal
import sys
from pathlib import Path
from types import FrameType
from typing import NamedTuple

from chronopype_mp import (
    ClockConfig,
    ClockMode,
    NetworkProcessor,
    NetworkStatus,
    RealtimeClock,
    TickProcessor,
)
from chronopype_mp.core.boot import WorkerBoot
from chronopype_mp.events import Event, NetworkChanged
from chronopype_mp.launchers import ForkserverLauncher, Gap, WorkerProcess
from chronopype_mp.transport.base import Hub
from tests.waiting import run

PACKAGE = Path(__file__).parent.parent / "chronopype_mp"
COORDINATOR = "coordinator/coordinator.py"


class Call(NamedTuple):
    """A call of a function of the package."""

    file: str
    function: str


SINKS = Call(COORDINATOR, "emit")
"""What this calls publishes events and is on no path."""

BESIDE_A_DEATH = {
    Call(COORDINATOR, "_watch_time"),  # the deadlines of all workers
    Call(COORDINATOR, "_deliver"),  # the last reports of the process
    Call("launchers/process.py", "<lambda>"),  # the timer that makes a spare process
    Call("launchers/process.py", "_prepare_next"),
}
"""What these call happens meanwhile."""

Chain = list[Call]
"""A call, preceded by the calls of the package that led to it, outermost first."""


class Recorder:
    """Records the calls of this thread between `begin` and `end`."""

    def __init__(self) -> None:
        self.chains: list[Chain] = []

    def begin(self) -> None:
        sys.setprofile(self._take)

    def end(self) -> None:
        sys.setprofile(None)

    def _take(self, frame: FrameType, event: str, argument: object) -> None:
        if event != "call" or (call := call_of(frame)) is None:
            return
        callers = [call]
        back = frame.f_back
        while back is not None:
            if (caller := call_of(back)) is not None:
                callers.append(caller)
            back = back.f_back
        if SINKS not in callers[1:]:
            self.chains.append(callers[::-1])


def call_of(frame: FrameType) -> Call | None:
    path = Path(frame.f_code.co_filename)
    if not path.is_relative_to(PACKAGE):
        return None
    return Call(str(path.relative_to(PACKAGE)), frame.f_code.co_name)


def entered(chains: list[Chain]) -> set[str]:
    """Return the files that were entered, but for `timing.py`, which only reads the clock."""
    return {call.file for chain in chains for call in chain} - {"timing.py"}


def handing_on(chains: list[Chain]) -> set[str]:
    """Return the files that called into another file. The others are leaves."""
    return {chain[-2].file for chain in chains if crosses(chain)}


def crosses(chain: Chain) -> bool:
    """Whether a call came from another file of the package."""
    return len(chain) > 1 and chain[-2].file != chain[-1].file


class Connects(NetworkProcessor):
    @classmethod
    def logger(cls) -> logging.Logger:
        return logging.getLogger("tests.walks")

    async def check_network(self) -> NetworkStatus:
        return NetworkStatus.CONNECTED


def clock(launcher: ForkserverLauncher) -> RealtimeClock:
    config = ClockConfig(clock_mode=ClockMode.REALTIME, tick_size=0.5)
    return RealtimeClock(config, launcher=launcher)


def test_a_status_report_enters_at_most_8_files_from_the_socket_to_the_handle() -> None:
    recorder = Recorder()

    async def scenario() -> None:
        changed = asyncio.Event()

        def take(event: Event) -> None:
            recorder.end()
            changed.set()

        async with clock(ForkserverLauncher()) as entered_clock:
            entered_clock.events.subscribe(take, NetworkChanged)
            handle = entered_clock.add_processor(Connects(), name="a")
            recorder.begin()
            await changed.wait()
            recorder.begin()
            assert handle.network_status is not NetworkStatus.STOPPED
            recorder.end()

    run(scenario())
    files = entered(of_the_status(recorder.chains))
    assert "coordinator/handle.py" in files
    assert len(files) <= 8, str(sorted(files))


def of_the_status(chains: list[Chain]) -> list[Chain]:
    """Leave out what is about other reports, of the same batch or earlier ones."""
    names = [chain[-1].function for chain in chains]
    noted = names.index("_change_network")
    received = last_before(noted, names, "receive")
    decoded = last_before(noted, names, "decode_report")
    return chains[received : names.index("decode_report", received)] + chains[decoded:]


def last_before(end: int, names: list[str], name: str) -> int:
    return max(index for index in range(end) if names[index] == name)


class StopsRecording(ForkserverLauncher):
    """Ends the recording when the second process is to be started."""

    def __init__(self, recorder: Recorder) -> None:
        super().__init__()
        self.recorder = recorder
        self.starts = 0
        self.relaunched = asyncio.Event()

    async def start(
        self, boot: WorkerBoot, hub: Hub, original: TickProcessor | None, gap: Gap
    ) -> WorkerProcess:
        self.starts += 1
        if self.starts == 2:
            self.recorder.end()
            self.relaunched.set()
        return await super().start(boot, hub, original, gap)


def test_a_death_is_handed_on_by_at_most_9_files_from_the_sentinel_to_the_relaunch() -> None:
    recorder = Recorder()

    async def scenario() -> None:
        launcher = StopsRecording(recorder)
        async with clock(launcher) as entered_clock:
            handle = entered_clock.add_processor(TickProcessor(), name="a")
            await handle.wait_ready()
            pid = handle.pid
            assert pid is not None
            recorder.begin()
            os.kill(pid, signal.SIGKILL)
            await launcher.relaunched.wait()

    run(scenario())
    chains = [chain for chain in recorder.chains if BESIDE_A_DEATH.isdisjoint(chain)]
    files = handing_on(chains)
    assert {"launchers/child.py", "core/supervisor.py"} <= files
    leaves = entered(chains) - files
    assert len(files) <= 9, f"{sorted(files)}, and the leaves {sorted(leaves)}"
    entries = [chain for chain in chains if chain[-1].file == COORDINATOR and crosses(chain)]
    assert 1 <= len(entries) <= 2, entries


def files_that_name(name: str) -> set[str]:
    """Return the files of the package whose code uses a name."""
    return {
        str(path.relative_to(PACKAGE))
        for path in PACKAGE.rglob("*.py")
        for node in ast.walk(ast.parse(path.read_text()))
        if (isinstance(node, ast.ClassDef) and node.name == name)
        or (isinstance(node, ast.Name) and node.id == name)
    }


def test_a_command_is_named_in_3_files_its_message_its_deed_and_whoever_orders_it() -> None:
    assert files_that_name("Rehearse") == {
        "core/messages.py",
        "worker/host.py",
        "coordinator/handle.py",
    }
