"""The difference between two plans of a fleet: which workers to stop, start and restart."""

from __future__ import annotations

from collections.abc import Iterable

from chronopype_mp.core.settings import Settings
from chronopype_mp.exceptions import FleetError, FleetProblem
from chronopype_mp.fleet.plan import FleetPlan
from chronopype_mp.fleet.schema import FleetFile
from chronopype_mp.fleet.workers import WorkerPlan

__all__ = ["Changes", "compare"]

LIVE = ("supervision", "stagger", "processor")
"""Settings that may change while the fleet runs. Those of ``supervision`` are in the workers."""


class Changes(Settings, frozen=True):
    """What makes one plan of the other. Each worker is named once at most.

    Args:
        stop: workers that the new plan does not have.
        start: workers that the old plan does not have.
        restart: workers that need a new process.
        adjust: workers whose supervision changes while they run.
    """

    stop: tuple[str, ...] = ()
    start: tuple[str, ...] = ()
    restart: tuple[str, ...] = ()
    adjust: tuple[str, ...] = ()

    def __str__(self) -> str:
        parts = [f"{verb} {', '.join(getattr(self, verb))}" for verb in self.__struct_fields__]
        return "; ".join(part for part in parts if not part.endswith(" ")) or "nothing to change"


def compare(old: FleetPlan, new: FleetPlan) -> Changes:
    """Return what to change of a running fleet.

    What a worker depends on matters for its start only, and changes nothing.

    Args:
        old: what runs.
        new: what is wanted.

    Raises:
        FleetError: a setting has changed that only a new run can apply.
    """
    problems = list(_fixed(old.settings, new.settings))
    if problems:
        raise FleetError(problems)
    before = {worker.name: worker for worker in old.workers}
    after = {worker.name: worker for worker in new.workers}
    both = [(before[name], after[name]) for name in after if name in before]
    restart = tuple(new.name for old, new in both if _needs_process(old, new))
    adjust = (new.name for old, new in both if old.supervision != new.supervision)
    return Changes(
        stop=tuple(name for name in before if name not in after),
        start=tuple(name for name in after if name not in before),
        restart=restart,
        adjust=tuple(name for name in adjust if name not in restart),
    )


def _fixed(old: FleetFile, new: FleetFile) -> Iterable[FleetProblem]:
    """Yield the settings that have changed, but cannot."""
    for name in FleetFile.__struct_fields__:
        if name not in LIVE and getattr(old, name) != getattr(new, name):
            problem = "cannot change while the fleet runs; stop it and run it anew"
            yield FleetProblem(new.name, None, name, None, problem)


def _needs_process(old: WorkerPlan, new: WorkerPlan) -> bool:
    """Whether a worker has to be made anew."""
    return not (
        old.spec.target == new.spec.target
        and _same(old.spec.options, new.spec.options)
        and old.env == new.env
        and old.group == new.group
        and new.supervision.fits_process_of(old.supervision)
    )


def _same(old: object, new: object) -> bool:
    """Whether options are equal; those of other types are not, such as 1 and 1.0 and true.

    Options that are objects of a class without ``__eq__`` never are.
    """
    if type(old) is not type(new):
        return False
    if isinstance(old, dict) and isinstance(new, dict):
        return old.keys() == new.keys() and all(_same(old[name], new[name]) for name in old)
    if isinstance(old, list | tuple) and isinstance(new, list | tuple):
        return len(old) == len(new) and all(map(_same, old, new))
    return bool(old == new)
