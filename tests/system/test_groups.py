"""Groups: who is restarted with a member that died."""

from __future__ import annotations

from pathlib import Path

import pytest

from chronopype_mp import RestartBudget, WorkerHandle, WorkerStatus
from chronopype_mp.events import (
    WorkerDied,
    WorkerQuarantined,
    WorkerReady,
    WorkerStarting,
    WorkerStopped,
    WorkerStopping,
)
from chronopype_mp.testing import faults
from tests.system.clocks import run
from tests.system.neighbours import SHORT, Neighbourhood
from tests.system.processors import Network

NAMES = ("a", "b", "c")


def notes_in(path: Path) -> list[str]:
    return path.read_text().splitlines()


async def add_group(n: Neighbourhood, directory: Path, group: str) -> list[WorkerHandle]:
    return [await n.add(Network(directory / name), name=name, group=group) for name in NAMES]


@pytest.mark.parametrize(
    ("strategy", "victim", "restarted"),
    [
        ("one_for_one", "b", "b"),
        ("one_for_all", "b", "abc"),
        ("one_for_all", "c", "abc"),
        ("rest_for_one", "a", "abc"),
        ("rest_for_one", "b", "bc"),
        ("rest_for_one", "c", "c"),
    ],
)
def test_the_members_that_the_strategy_names_stop_in_order_and_start_together(
    tmp_path: Path, strategy: str, victim: str, restarted: str
) -> None:
    async def scenario() -> None:
        async with Neighbourhood(tmp_path, supervision=SHORT, groups={"g": strategy}) as n:
            handles = dict(zip(NAMES, await add_group(n, tmp_path, "g"), strict=True))
            pids = {name: handle.pid for name, handle in handles.items()}
            await n.ticks(3)
            faults.kill(handles[victim])
            for name in restarted:
                await n.events.wait_for(WorkerReady, worker=name, incarnation=2)
            await n.ticks(5)
            for name, handle in handles.items():
                assert (handle.pid != pids[name]) == (name in restarted)
                assert handle.incarnation == 1 + (name in restarted)
                assert handle.status is WorkerStatus.READY
            # Only the victim died; the others were stopped in order.
            (death,) = n.events.of(WorkerDied)
            assert death.worker == victim
            followers = set(restarted) - {victim}
            assert {event.worker for event in n.events.of(WorkerStopping)} == followers
            for name in followers:
                notes = notes_in(tmp_path / name)
                assert notes == ["started", "stop begun", "stop ended", "started"]
            # Together, once the last has ended, in the order of adding.
            starts = [event.worker for event in n.events.of(WorkerStarting, incarnation=2)]
            assert "".join(starts) == restarted
            stopped = [n.events.events.index(event) for event in n.events.of(WorkerStopping)]
            first = n.events.events.index(n.events.of(WorkerStarting, incarnation=2)[0])
            assert all(position < first for position in stopped)

    run(scenario())


def test_a_group_shares_the_quarantine_of_a_member_and_comes_back_with_it(tmp_path: Path) -> None:
    policy = SHORT.model_copy(update={"budget": RestartBudget(max_restarts=1)})

    async def scenario() -> None:
        async with Neighbourhood(
            tmp_path, supervision=policy, groups={"g": "one_for_all", "other": "one_for_all"}
        ) as n:
            handles = await add_group(n, tmp_path, "g")
            outsider = await n.add(Network(tmp_path / "outsider"), name="outsider", group="other")
            for incarnation in (1, 2):
                for name in NAMES:
                    await n.events.wait_for(WorkerReady, worker=name, incarnation=incarnation)
                faults.kill(handles[1])
                await n.events.wait_for(WorkerDied, worker="b", incarnation=incarnation)
            for name in NAMES:
                await n.events.wait_for(WorkerQuarantined, worker=name)
            assert all(handle.pid is None for handle in handles)
            assert outsider.incarnation == 1
            await handles[1].restart()
            for name in NAMES:
                await n.events.wait_for(WorkerReady, worker=name, incarnation=3)
            assert not n.events.of(WorkerStopped)

    run(scenario())
