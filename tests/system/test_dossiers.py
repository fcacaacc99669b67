"""Dossiers on disk and on the handle: one per death, as in the event."""

from __future__ import annotations

import time
from pathlib import Path

import msgspec

from chronopype_mp import Supervision, TickProcessor
from chronopype_mp.coordinator.dossiers import KEPT_PER_WORKER
from chronopype_mp.core.restart import RestartBudget
from chronopype_mp.events import DeathReason, WorkerDied, WorkerReady
from chronopype_mp.testing import faults
from tests.system.clocks import run
from tests.system.neighbours import QUICK, SHORT, Neighbourhood


class Talker(TickProcessor):
    """Says something in every tick."""

    def tick(self, timestamp: float) -> None:
        print(f"tick {timestamp}", flush=True)


def dossiers_in(directory: Path) -> list[WorkerDied]:
    """Return the dossiers in a directory, oldest first."""
    return [
        msgspec.json.decode(path.read_bytes(), type=WorkerDied)
        for path in sorted(directory.iterdir())
    ]


def test_one_file_per_death_says_what_the_event_says_and_the_newest_20_are_kept(
    tmp_path: Path,
) -> None:
    deaths = KEPT_PER_WORKER + 3
    policy = Supervision(backoff=QUICK, budget=RestartBudget(max_restarts=deaths))
    state = tmp_path / "state"
    state.mkdir()

    async def scenario() -> None:
        async with Neighbourhood(tmp_path, supervision=policy, state_dir=state) as n:
            victim = await n.add(Talker(), name="victim")
            other = await n.add(Talker(), name="other/one")
            assert victim.last_failure is None
            for incarnation in range(1, deaths + 1):
                await n.events.wait_for(WorkerReady, worker="victim", incarnation=incarnation)
                faults.kill(victim)
                death = await n.events.wait_for(WorkerDied, worker="victim", count=incarnation)
                assert victim.last_failure is death
                assert dossiers_in(state / "victim")[-1] == death
            await n.ticks(3)
            faults.exit_at_once(other, 7)
            await n.events.wait_for(WorkerDied, worker="other/one")
            assert other.last_failure is not None
            assert other.last_failure.exitcode == 7
            assert other.last_failure.output[-1].startswith("tick ")
            events = n.events.of(WorkerDied, worker="victim")
            assert dossiers_in(state / "victim") == events[-KEPT_PER_WORKER:]
            assert {path.name for path in state.iterdir()} == {"victim", "other%2fone"}
            assert dossiers_in(state / "other%2fone") == [other.last_failure]

    run(scenario())


class SleepsInTick(TickProcessor):
    """Blocks its loop."""

    def tick(self, timestamp: float) -> None:
        print("about to sleep", flush=True)
        time.sleep(9999.0)  # the fault under test


def test_the_dossier_of_a_stall_has_the_stacks_on_disk_too(tmp_path: Path) -> None:
    state = tmp_path / "state"
    state.mkdir()

    async def scenario() -> None:
        async with Neighbourhood(tmp_path, supervision=SHORT, state_dir=state) as n:
            victim = await n.add(SleepsInTick(), name="victim")
            death = await n.events.wait_for(WorkerDied, worker="victim")
            assert death.reason is DeathReason.LOOP_BLOCKED
            assert "test_dossiers.py" in (death.stacks or "")
            assert death.output == ("about to sleep",)
            assert victim.last_failure is death
            assert dossiers_in(state / "victim")[0] == death
            text = str(death)
            for part in ("loop_blocked", "SIGKILL", "about to sleep", "in SleepsInTick.tick"):
                assert part in text

    run(scenario())
