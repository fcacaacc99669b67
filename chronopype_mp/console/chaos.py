"""The chaos demo: injects one fault after another into a worker and shows what was detected.

It also checks that the worker's neighbours are not affected.
"""

from __future__ import annotations

import asyncio
import contextlib
import io
import logging
import sys
from collections.abc import Callable
from typing import NamedTuple

from rich.console import Console
from rich.text import Text

from chronopype_mp import (
    BackoffPolicy,
    ClockConfig,
    ClockMode,
    Limits,
    RestartBudget,
    Supervision,
    TickProcessor,
    WorkerHandle,
)
from chronopype_mp.clocks import RealtimeClock
from chronopype_mp.core.worker_events import DeathReason, WorkerDied, WorkerReady
from chronopype_mp.testing import EventRecorder, faults
from chronopype_mp.timing import wall

__all__ = ["SCENES", "Scene", "run"]

MEGABYTE = 1 << 20

STALL_TIMEOUT = 2.0

RECOVERS_WITHIN = 30.0
"""Seconds for a fault to be detected, and for the recovery."""

POLICY = Supervision(
    loop_stall_timeout=STALL_TIMEOUT,
    stop_grace=2.0,
    backoff=BackoffPolicy(minimum=0.05, maximum=0.5),
    budget=RestartBudget(max_restarts=1000),
    healthy_after=0.5,
    limits=Limits(max_rss=400 * MEGABYTE),
)

CULPRIT_LINES = 3
"""Lines of the stack to show."""


class Scene(NamedTuple):
    """One fault and its expected class."""

    title: str
    inflict: Callable[[WorkerHandle], object]
    expected: DeathReason


SCENES = (
    Scene("SIGKILL", faults.kill, DeathReason.SIGNALLED),
    Scene("SIGSTOP", faults.stop, DeathReason.STOPPED),
    Scene(
        "time.sleep in the event loop",
        lambda h: faults.block_loop(h, 600),
        DeathReason.LOOP_BLOCKED,
    ),
    Scene("an endless loop in Python", lambda h: faults.spin(h, 600), DeathReason.LOOP_BLOCKED),
    Scene("C code that holds the GIL", lambda h: faults.hold_gil(h, 600), DeathReason.GIL_STUCK),
    Scene("a segmentation fault", faults.crash, DeathReason.SIGNALLED),
    Scene("sys.exit(3) in a hook", lambda h: faults.exit_in_hook(h, 3), DeathReason.EXITED),
    Scene("os._exit(5)", lambda h: faults.exit_at_once(h, 5), DeathReason.EXITED),
    Scene("reports are lost", lambda h: faults.drop_reports(h, 600), DeathReason.UNREACHABLE),
    Scene("a memory leak", lambda h: faults.leak(h, 500 * MEGABYTE), DeathReason.LIMIT_EXCEEDED),
)


class Finding(NamedTuple):
    """The result of one scene."""

    scene: Scene
    death: WorkerDied
    found_after: float
    ready_after: float

    @property
    def good(self) -> bool:
        """Whether the fault got the expected class."""
        return self.death.reason is self.scene.expected


def run() -> int:
    """Play all scenes. Return the exit status: 1 if a fault was misclassified or spread."""
    console = Console(file=sys.stdout, highlight=False, markup=False, emoji=False)
    loggers = logging.getLogger("chronopype_mp")
    level = loggers.level
    loggers.setLevel(logging.CRITICAL)  # the demo prints the deaths itself
    try:
        return asyncio.run(_play(console))
    finally:
        loggers.setLevel(level)


async def _play(console: Console) -> int:
    config = ClockConfig(clock_mode=ClockMode.REALTIME, tick_size=0.1)
    # The victim's output is in its dossiers.
    with contextlib.redirect_stdout(io.StringIO()), contextlib.redirect_stderr(io.StringIO()):
        async with RealtimeClock(config, supervision=POLICY) as clock:
            events = EventRecorder(clock.events)
            victim = clock.add_processor(TickProcessor(), name="victim")
            neighbours = [clock.add_processor(TickProcessor(), name=f"n{i}") for i in (1, 2)]
            for handle in clock.workers:
                await handle.wait_ready()
            pids = [handle.pid for handle in neighbours]
            ticking = asyncio.create_task(clock.run())
            findings: list[Finding] = []
            for scene in SCENES:
                findings.append(await _act(scene, victim, events, len(findings)))
                _tell(console, findings[-1])
            same = pids == [handle.pid for handle in neighbours]
            await clock.shutdown()
            await ticking
    accounts = [handle.statistics() for handle in neighbours]
    unharmed = same and all(s.run == s.published for s in accounts)
    console.print(
        f"The neighbours {'kept' if same else 'did not keep'} their processes and ran "
        f"{sum(s.run for s in accounts)} of {sum(s.published for s in accounts)} ticks."
    )
    good = unharmed and all(finding.good for finding in findings)
    console.print(
        "GOOD: every fault was classified correctly and affected no other worker."
        if good
        else "BAD: a fault was misclassified or affected another worker, see above."
    )
    return 0 if good else 1


async def _act(scene: Scene, victim: WorkerHandle, events: EventRecorder, deaths: int) -> Finding:
    began = wall()
    scene.inflict(victim)
    death = await events.wait_for(
        WorkerDied, worker=victim.name, count=deaths + 1, timeout=RECOVERS_WITHIN
    )
    ready = await events.wait_for(
        WorkerReady, worker=victim.name, incarnation=death.incarnation + 1, timeout=RECOVERS_WITHIN
    )
    return Finding(scene, death, death.at - began, ready.at - death.at)


def _tell(console: Console, finding: Finding) -> None:
    death = finding.death
    mark = "" if finding.good else f"   BAD: expected {finding.scene.expected.value}"
    how = death.signal or f"exit status {death.exitcode}"
    console.print(
        Text(
            f"{finding.scene.title}\n"
            f"    detected after {finding.found_after:.2f} s: {death.reason.value} ({how}); "
            f"a new process was ready {finding.ready_after * 1000:.0f} ms later{mark}"
        ),
        soft_wrap=True,
    )
    for line in [*([death.detail] if death.detail else []), *_culprit(death)]:
        console.print(Text(f"    {line}"), soft_wrap=True)


def _culprit(death: WorkerDied) -> list[str]:
    """Return the innermost frames of the thread that ran the event loop."""
    if death.stacks is None:
        return []
    threads = death.stacks.split("\n\n")
    loops = [thread for thread in threads if "asyncio" in thread]
    lines = (loops or threads)[-1].splitlines()
    return [line.strip() for line in lines if line.lstrip().startswith("File ")][:CULPRIT_LINES]
