"""The order in which a fleet starts; with the inline launcher."""

from __future__ import annotations

import asyncio
import logging
from pathlib import Path

import pytest

from chronopype_mp import ConfigError
from chronopype_mp.core.worker_events import Event, WorkerQuarantined, WorkerReady, WorkerStarting
from chronopype_mp.fleet import FleetPlan, load_fleet, make_clock, run_fleet
from chronopype_mp.launchers import ForkserverLauncher
from chronopype_mp.timing import wall
from tests.waiting import run

HEAD = 'launcher = "inline"\n[clock]\ntick_size = "50ms"\n'


def entry(name: str, more: str = "", kind: str = "Feed") -> str:
    options = 'options = { url = "x" }\n' if kind in ("Feed", "Lost") else ""
    return (
        f'[[processor]]\nname = "{name}"\ntype = "tests.fleet.processors:{kind}"\n{options}{more}'
    )


def planned(tmp_path: Path, text: str) -> FleetPlan:
    (tmp_path / "fleet.toml").write_text(text)
    return load_fleet([tmp_path / "fleet.toml"], {})


async def started(plan: FleetPlan, last: str) -> list[Event]:
    """Run a fleet until a worker is READY; return the events."""
    stop, events = asyncio.Event(), list[Event]()

    def note(event: Event) -> None:
        events.append(event)
        if isinstance(event, WorkerReady) and event.worker == last:
            stop.set()

    await run_fleet(plan, stop, note)
    return events


def order(events: list[Event], kind: type[Event]) -> list[str]:
    return [event.worker for event in events if isinstance(event, kind)]  # type: ignore[attr-defined]


def test_workers_without_dependencies_start_in_the_order_of_the_file(tmp_path: Path) -> None:
    """Those that depend on others come after them, wherever they are in the file."""
    plan = planned(
        tmp_path,
        HEAD
        + entry("d", 'depends_on = [{ name = "c" }, { name = "b", until = "connected" }]\n')
        + entry("c", 'depends_on = [{ name = "b", until = "connected" }]\n')
        + entry("b")
        + entry("a"),
    )
    assert order(run(started(plan, "d")), WorkerStarting) == ["b", "a", "c", "d"]


def test_a_worker_is_started_although_its_dependency_takes_too_long(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """A warning says so."""
    lost = 'depends_on = [{ name = "a", until = "connected", timeout = "50ms" }]\n'
    plan = planned(tmp_path, HEAD + entry("a", kind="Lost") + entry("b", lost))
    with caplog.at_level(logging.WARNING):
        events = run(started(plan, "b"))
    assert order(events, WorkerReady) == ["a", "b"]
    assert (
        "worker 'b' is started although it depends on 'a': was not connected within 0.05 s"
    ) in caplog.messages


def test_a_worker_is_started_although_its_dependency_is_quarantined(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """It does not wait for the timeout."""
    once = "supervision = { budget = { max_restarts = 0 } }\n"
    plan = planned(
        tmp_path,
        HEAD
        + entry("a", once, kind="FailsToStart")
        + entry("b", 'depends_on = [{ name = "a" }]\n'),
    )
    with caplog.at_level(logging.WARNING):
        events = run(started(plan, "b"))
    assert order(events, WorkerQuarantined) == ["a"]
    assert any("depends on 'a'" in m and "QUARANTINED" in m for m in caplog.messages)


def test_a_fleet_ends_when_its_clock_does(tmp_path: Path) -> None:
    """Nobody has to stop it."""
    plan = planned(tmp_path, HEAD + f"end_time = {wall() + 0.2}\n" + entry("a"))
    run(run_fleet(plan, asyncio.Event()))


def test_a_worker_that_cannot_be_added_ends_the_fleet(tmp_path: Path) -> None:
    """Here it wants variables, which the check refuses before."""
    plan = planned(tmp_path, HEAD + entry("a") + entry("b", 'depends_on = [{ name = "a" }]\n'))
    broken = plan.workers[1].model_copy(update={"env": {"A": "1"}})
    plan = plan.model_copy(update={"workers": (plan.workers[0], broken)})
    with pytest.raises(ConfigError, match="the inline launcher has no process for them"):
        run(run_fleet(plan, asyncio.Event()))


def test_the_clock_has_the_settings_of_the_file(tmp_path: Path) -> None:
    """And the forkserver imports what is to be preloaded."""
    text = 'name = "f"\npreload = ["json"]\nstate_dir = "d"\n[groups]\ng = "one_for_all"\n'
    clock = make_clock(planned(tmp_path, text + entry("a")))
    assert clock.name == "f"
    assert (tmp_path / "d").is_dir()
    assert isinstance(clock._launcher, ForkserverLauncher)
    assert clock._launcher._preload[0] == "json"


@pytest.mark.parametrize("name", ["", "not a module", "a..b", 3])
def test_a_forkserver_preloads_modules_only(name: object) -> None:
    """The name is part of a program."""
    with pytest.raises(ConfigError, match=r"ForkserverLauncher\.preload"):
        ForkserverLauncher([name])  # type: ignore[list-item]
