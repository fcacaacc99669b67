"""The order in which a fleet starts; with the inline launcher."""

from __future__ import annotations

import asyncio
import logging
from pathlib import Path

import pytest

from chronopype_mp import ClockError, ConfigError, FleetError
from chronopype_mp.core.worker_events import Event, WorkerQuarantined, WorkerReady, WorkerStarting
from chronopype_mp.fleet import (
    Changes,
    FleetPlan,
    RunningFleet,
    load_fleet,
    make_clock,
    run_fleet,
)
from chronopype_mp.launchers import ForkserverLauncher
from chronopype_mp.timing import wall
from tests.waiting import run, turns

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


# Reloading


async def reloaded(tmp_path: Path, first: str, *later: str) -> tuple[list[object], RunningFleet]:
    """Run a fleet, and reload it with other files one after the other; return what came of it.

    The last result says of each worker whether it is the first one of its name.
    """
    stop = asyncio.Event()
    fleet = RunningFleet(planned(tmp_path, first))
    running = asyncio.create_task(fleet.run(stop))
    await fleet.wait_settled()
    before = fleet.clock.workers
    results: list[object] = []
    for text in later:
        try:
            results.append(await fleet.reload(planned(tmp_path, text)))
        except ClockError as error:
            results.append(error)
    for handle in fleet.clock.workers:
        await handle.wait_ready()
        assert handle.incarnation == 1
    results.append({handle.name: handle in before for handle in fleet.clock.workers})
    stop.set()
    await running
    return results, fleet


def test_a_reload_touches_what_changed_only(tmp_path: Path) -> None:
    """One worker each is stopped, started, restarted, adjusted and left alone."""
    limited = "supervision = { limits = { max_rss = 1_000_000_000_000 } }\n"
    other = entry("restart").replace('"x"', '"y"')
    first = HEAD + "".join(map(entry, ("stop", "restart", "adjust", "same")))
    second = HEAD + other + entry("adjust", limited) + entry("same") + entry("start")
    (changes, again, kept), fleet = run(reloaded(tmp_path, first, second, second))
    assert changes == Changes(
        stop=("stop",), start=("start",), restart=("restart",), adjust=("adjust",)
    )
    assert again == Changes()
    assert kept == {"adjust": True, "same": True, "restart": False, "start": False}
    assert {worker.name for worker in fleet.plan.workers} == {"adjust", "same", "restart", "start"}
    with pytest.raises(ClockError, match="does not run"):
        run(fleet.reload(fleet.plan))


def test_what_cannot_change_is_refused_and_the_fleet_goes_on(tmp_path: Path) -> None:
    """Nothing else of the new file is done either."""
    first = HEAD + entry("a")
    second = first.replace("50ms", "60ms") + entry("b")
    (error, kept), _ = run(reloaded(tmp_path, first, second))
    assert isinstance(error, FleetError)
    assert kept == {"a": True}


def test_the_next_reload_does_what_the_last_could_not(tmp_path: Path) -> None:
    """A worker that cannot be added does not end the fleet that runs."""

    async def scenario() -> None:
        stop = asyncio.Event()
        fleet = RunningFleet(planned(tmp_path, HEAD + entry("a")))
        running = asyncio.create_task(fleet.run(stop))
        await fleet.wait_settled()
        plan = planned(tmp_path, HEAD + entry("a") + entry("b"))
        broken = plan.workers[1].model_copy(update={"env": {"A": "1"}})
        with pytest.raises(ConfigError, match="the inline launcher has no process for them"):
            await fleet.reload(plan.model_copy(update={"workers": (plan.workers[0], broken)}))
        assert await fleet.reload(plan) == Changes(start=("b",))
        stop.set()
        await running

    run(scenario())


def test_a_reload_takes_over_the_starts_that_wait(tmp_path: Path) -> None:
    """One that waits for a dependency in vain is started at once when it no longer has it."""

    async def scenario() -> None:
        stop = asyncio.Event()
        lost = entry("a", kind="Lost")
        waits = 'depends_on = [{ name = "a", until = "connected", timeout = "1h" }]\n'
        text = HEAD + lost + entry("b", waits) + entry("c", waits)
        first = asyncio.Event()
        fleet = RunningFleet(planned(tmp_path, text), lambda event: first.set())
        running = asyncio.create_task(fleet.run(stop))
        await first.wait()
        await turns()  # until "a" is added
        changes = await fleet.reload(planned(tmp_path, HEAD + lost + entry("b")))
        assert changes == Changes(start=("b",))
        await fleet.wait_settled()  # "c" is not waited for any more
        assert [handle.name for handle in fleet.clock.workers] == ["a", "b"]
        stop.set()
        await running

    run(scenario())
