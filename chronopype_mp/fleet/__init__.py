"""Fleet files: from TOML to the workers of a clock."""

from __future__ import annotations

from chronopype_mp.fleet.changes import Changes, compare
from chronopype_mp.fleet.plan import FleetPlan, WorkerPlan, load_fleet
from chronopype_mp.fleet.runner import RunningFleet, make_clock, run_fleet

__all__ = [
    "Changes",
    "FleetPlan",
    "RunningFleet",
    "WorkerPlan",
    "compare",
    "load_fleet",
    "make_clock",
    "run_fleet",
]
