"""Rows 5 to 9 of the table of faults: a worker's process is there, but is not heard of."""

from __future__ import annotations

import re
from pathlib import Path

from chronopype_mp import WorkerHandle, WorkerStatus
from chronopype_mp.events import DeathReason, WorkerDied, WorkerReady, WorkerStopping
from chronopype_mp.testing import faults
from tests.system.clocks import run
from tests.system.neighbours import SHORT, Neighbourhood, row
from tests.system.processors import HELD_UP, Network, Scribe, ticks_in
from tests.system.victims import (
    SleepsInCheck,
    SleepsInStart,
    SleepsInTick,
    SpinsInTick,
    WillNotBeCancelled,
    harmed_at,
)

DEADLINE = SHORT.loop_stall_timeout

SLACK = 2.0
"""Seconds beyond a deadline: for a beat that was just sent, the probe, the end of the process."""


async def comes_back(n: Neighbourhood, handle: WorkerHandle) -> WorkerDied:
    """Wait until a worker has died once and is READY again; return its dossier."""
    death = await n.events.wait_for(WorkerDied, worker=handle.name)
    ready = await n.events.wait_for(WorkerReady, worker=handle.name, incarnation=2)
    assert handle.status is WorkerStatus.READY
    assert handle.pid == ready.pid != death.pid
    assert handle.last_failure == death
    return death


BLOCKERS: dict[str, tuple[type[Scribe] | type[Network], str]] = {
    "tick": (SleepsInTick, "tick"),
    "tick in Python": (SpinsInTick, "tick"),
    "check": (SleepsInCheck, "check_network"),
    "start": (SleepsInStart, "start_network"),
}
"""Processors that block their loop, and the hook in which they do."""


@row(5, "forkserver", "spawn")
def test_a_blocked_loop_is_found_in_time_shown_by_its_stack_and_replaced(
    tmp_path: Path, launcher: str
) -> None:
    async def scenario() -> None:
        async with Neighbourhood(tmp_path, launcher=launcher, supervision=SHORT) as n:
            victims = {
                name: await n.add(kind(tmp_path / name), ready=False, name=name)
                for name, (kind, _) in BLOCKERS.items()
            }
            for name, (_, culprit) in BLOCKERS.items():
                death = await comes_back(n, victims[name])
                assert (death.reason, death.signal) == (DeathReason.LOOP_BLOCKED, "SIGKILL"), name
                assert re.search(rf'victims\.py", line \d+ in \w+\.{culprit}\b', death.stacks or "")
                assert f"{DEADLINE:g} s" in (death.detail or "")
                assert death.at - harmed_at(tmp_path / name) < DEADLINE + SLACK, name
            await n.ticks(3)

    run(scenario())


@row(6, "forkserver", "spawn")
def test_a_check_that_will_not_be_cancelled_stops_no_tick_and_costs_the_worker_in_time(
    tmp_path: Path, launcher: str
) -> None:
    async def scenario() -> None:
        path = tmp_path / "victim"
        processor = WillNotBeCancelled(path)
        async with Neighbourhood(tmp_path, launcher=launcher, supervision=SHORT) as n:
            victim = await n.add(processor, ready=False, name="victim")
            death = await comes_back(n, victim)
            assert (death.reason, death.exitcode) == (DeathReason.EXITED, 70)
            assert "check_network swallowed its cancellation" in (death.error or "")
            took = death.at - harmed_at(path)
            assert took < processor.check_network_timeout + 1.0 + SLACK
            statistics = victim.statistics()
            assert statistics.missed <= HELD_UP
            assert statistics.lost <= 6  # published between its last report and its end
            assert statistics.run >= 10
            await n.ticks(3)
        # Nothing but the restart itself stops the ticks: all before and all after it are there.
        seen = ticks_in(path)
        first, last = n.published.index(seen[0]), n.published.index(seen[-1])
        gap = [t for t in n.published[first : last + 1] if t not in seen]
        assert gap == [t for t in n.published if gap and gap[0] <= t <= gap[-1]]
        assert last == len(n.published) - 1

    run(scenario())


@row(7, "forkserver", "spawn")
def test_a_healthy_worker_whose_beats_are_lost_is_stopped_in_order(
    tmp_path: Path, launcher: str
) -> None:
    async def scenario() -> None:
        path = tmp_path / "victim"
        async with Neighbourhood(tmp_path, launcher=launcher, supervision=SHORT) as n:
            victim = await n.add(Network(path), name="victim")
            briefly = await n.add(Scribe(tmp_path / "briefly"), name="briefly")
            pid = briefly.pid
            await n.ticks(10)
            faults.drop_reports(victim, 60.0)
            faults.drop_reports(briefly, DEADLINE / 2)
            await n.ticks(1)
            begun = n.published[-1]
            stopping = await n.events.wait_for(WorkerStopping, worker="victim")
            assert stopping.at - begun > DEADLINE - SHORT.beat_interval - 2 * n.tick_size
            death = await comes_back(n, victim)
            assert (death.reason, death.exitcode) == (DeathReason.UNREACHABLE, 0)
            assert "the process runs" in (death.detail or "")
            lines = path.read_text().splitlines()
            assert lines[:3] == ["started", "stop begun", "stop ended"]
            await n.ticks(10)
            assert (briefly.pid, briefly.incarnation) == (pid, 1)
        assert briefly.statistics().missed <= HELD_UP
        assert briefly.statistics().lost == 0

    run(scenario())


@row(8, "forkserver", "spawn")
def test_a_stopped_process_is_told_from_a_hanging_one_and_replaced_every_time(
    tmp_path: Path, launcher: str
) -> None:
    async def scenario() -> None:
        async with Neighbourhood(tmp_path, launcher=launcher, supervision=SHORT) as n:
            victim = await n.add(Scribe(tmp_path / "victim"), name="victim")
            for incarnation in (1, 2, 3, 4):
                await n.ticks(3)
                pid = faults.stop(victim)
                death = await n.events.wait_for(
                    WorkerDied, worker="victim", incarnation=incarnation
                )
                assert (death.pid, death.reason) == (pid, DeathReason.STOPPED)
                assert death.detail == "the process was stopped (SIGSTOP, or a debugger)"
                assert death.signal == "SIGKILL"
                await n.events.wait_for(WorkerReady, worker="victim", incarnation=incarnation + 1)
                assert victim.pid != pid
            await n.ticks(3)

    run(scenario())


@row(9, "forkserver", "spawn")
def test_the_gil_may_be_held_shorter_than_the_deadline_but_not_longer(
    tmp_path: Path, launcher: str
) -> None:
    async def scenario() -> None:
        async with Neighbourhood(tmp_path, launcher=launcher, supervision=SHORT) as n:
            shorter = await n.add(Scribe(tmp_path / "shorter"), name="shorter")
            longer = await n.add(Scribe(tmp_path / "longer"), name="longer")
            pid = shorter.pid
            await n.ticks(3)
            faults.hold_gil(shorter, DEADLINE / 2)
            faults.hold_gil(longer, 600.0)
            await n.ticks(1)
            begun = n.published[-1]
            death = await comes_back(n, longer)
            assert (death.reason, death.signal) == (DeathReason.GIL_STUCK, "SIGKILL")
            assert re.search(r'inflict\.py", line \d+ in _hold_gil', death.stacks or "")
            assert death.at - begun < DEADLINE + SLACK
            await n.ticks(10)
            assert (shorter.pid, shorter.incarnation) == (pid, 1)
            assert shorter.statistics().missed >= 3
        assert shorter.last_failure is None

    run(scenario())
