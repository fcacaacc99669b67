"""The difference between two plans."""

from __future__ import annotations

from typing import Any

import pytest

from chronopype_mp import ClockConfig, ClockMode
from chronopype_mp.core.limits import Limits
from chronopype_mp.core.policy import Supervision
from chronopype_mp.exceptions import FleetError
from chronopype_mp.fleet.changes import Changes, compare
from chronopype_mp.fleet.plan import FleetPlan
from chronopype_mp.fleet.schema import Dependency, FleetFile
from chronopype_mp.fleet.workers import WorkerPlan
from chronopype_mp.processors import ProcessorSpec


def worker(name: str, target: str = "m:A", options: Any = None, **more: Any) -> WorkerPlan:
    more.setdefault("supervision", Supervision())
    return WorkerPlan(name=name, spec=ProcessorSpec(target=target, options=options or {}), **more)


def plan(*workers: WorkerPlan, **settings: Any) -> FleetPlan:
    return FleetPlan(settings=FleetFile(**settings), workers=workers)


def test_an_equal_plan_changes_nothing() -> None:
    """Also if it was read anew."""
    old, new = (plan(worker("a", options={"x": [1, {"y": "z"}]})) for _ in range(2))
    assert compare(old, new) == Changes()
    assert str(Changes()) == "nothing to change"


def test_workers_come_and_go() -> None:
    """In the orders of their files."""
    changes = compare(plan(worker("a"), worker("b"), worker("c")), plan(worker("d"), worker("b")))
    assert changes == Changes(stop=("a", "c"), start=("d",))
    assert str(changes) == "stop a, c; start d"


@pytest.mark.parametrize(
    "changed",
    [
        {"target": "m:B"},
        {"options": {"x": 1}},
        {"options": {"x": True}},
        {"options": {"x": [0.0]}},
        {"env": {"A": "1"}},
        {"group": "g"},
        {"supervision": Supervision(stop_grace=1.0, limits=Limits(max_rss=1))},
    ],
)
def test_what_a_process_was_made_with_restarts_it(changed: dict[str, Any]) -> None:
    """And nothing else of the fleet."""
    old = plan(worker("a", options={"x": 0}), worker("b"))
    new = plan(worker("a", **{"options": {"x": 0}, **changed}), worker("b"))
    assert compare(old, new) == Changes(restart=("a",))


def test_options_of_another_type_are_others() -> None:
    """Although Python has them equal."""
    old, new = (plan(worker("a", options={"x": (x,)})) for x in (1, True))
    assert compare(old, new) == Changes(restart=("a",))


def test_supervision_changes_live_and_dependencies_change_nothing() -> None:
    """The latter set an order of starts."""
    limited = Supervision(limits=Limits(max_rss=1))
    old = plan(worker("a"), worker("b"))
    new = plan(
        worker("a", supervision=limited),
        worker("b", depends_on=(Dependency(name="a"),)),
        stagger=1.0,
        supervision=limited,
    )
    assert compare(old, new) == Changes(adjust=("a",))


def test_settings_that_need_a_new_run_are_refused_all_at_once() -> None:
    """Whatever else has changed."""
    clock = ClockConfig(clock_mode=ClockMode.REALTIME, tick_size=9.0)
    with pytest.raises(FleetError) as caught:
        compare(plan(worker("a")), plan(worker("b"), clock=clock, preload=("json",), name="f"))
    why = "cannot change while the fleet runs; stop it and run it anew"
    assert str(caught.value).splitlines() == [
        f"f: {name}: {why}" for name in ("name", "clock", "preload")
    ]
