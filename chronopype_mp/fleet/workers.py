"""The workers of a fleet: their names, and the order in which they start."""

from __future__ import annotations

import graphlib
from collections.abc import Collection
from typing import Any

import msgspec

from chronopype_mp.core.policy import Supervision
from chronopype_mp.core.settings import Settings
from chronopype_mp.exceptions import FleetProblem
from chronopype_mp.fleet.document import Node
from chronopype_mp.fleet.reading import nearest
from chronopype_mp.fleet.schema import Dependency, ProcessorEntry
from chronopype_mp.fleet.targets import Target
from chronopype_mp.processors import ProcessorSpec

__all__ = ["Draft", "WorkerPlan", "check_names", "dependencies"]

Problems = list[FleetProblem]


class WorkerPlan(Settings, frozen=True):
    """One worker of a fleet.

    Args:
        name: its name.
        spec: how its processor is made.
        supervision: how it is supervised.
        group: its group, if any.
        env: environment variables for its processes.
        depends_on: what must have happened before it starts; each names one worker.
    """

    name: str
    spec: ProcessorSpec
    supervision: Supervision
    group: str | None = None
    env: dict[str, str] = msgspec.field(default_factory=dict)
    depends_on: tuple[Dependency, ...] = ()

    def __repr__(self) -> str:
        """Leave the options and the environment out, which may hold secrets."""
        return f"{type(self).__name__}(name={self.name!r}, target={self.spec.target!r})"


class Draft(msgspec.Struct, frozen=True, kw_only=True):
    """A worker whose dependencies have not been resolved.

    Attributes:
        name: its name.
        written: the name of its entry, as the file has it.
        path: the path of its entry.
        node: its entry.
        entry: the same, read.
        target: what makes its processor; None if that was not found.
        options: the arguments of the target.
        env: environment variables for its processes.
        policy: how it is supervised.
    """

    name: str
    written: str
    path: str
    node: Node
    entry: ProcessorEntry
    target: Target | None
    options: dict[str, Any]
    env: dict[str, str]
    policy: Supervision

    def __repr__(self) -> str:
        """Leave the options and the environment out, which may hold secrets."""
        return f"{type(self).__name__}(name={self.name!r})"

    def plan(self, depends_on: tuple[Dependency, ...]) -> WorkerPlan:
        """Return the plan of this worker; it must have a target."""
        assert self.target is not None
        return WorkerPlan(
            name=self.name,
            spec=ProcessorSpec(target=self.target.path, options=self.options),
            supervision=self.policy,
            group=self.entry.group,
            env=self.env,
            depends_on=depends_on,
        )


def check_names(drafts: list[Draft], running: Collection[str], problems: Problems) -> None:
    """Note workers that have the same name, or that of one that runs."""
    seen: dict[str, Draft] = {}
    for draft in drafts:
        place = draft.node.get("name") or draft.node
        if draft.name in running:
            problem = f'the worker "{draft.name}" runs already; remove it first'
            problems.append(place.problem(f"{draft.path}.name", problem))
        earlier = seen.setdefault(draft.name, draft)
        if earlier is draft:
            continue
        first = earlier.node.get("name") or earlier.node
        problem = f'the worker "{draft.name}" exists already, see {first.file}:{first.line}'
        if (first.file, first.line) == (place.file, place.line):
            problem = f'two items give the name "{draft.name}"'
        problems.append(place.problem(f"{draft.path}.name", problem))


def dependencies(
    drafts: list[Draft], running: Collection[str], unread: set[str], problems: Problems
) -> dict[str, tuple[Dependency, ...]]:
    """Return what each worker depends on, worker by worker; note unknown names and cycles.

    Args:
        drafts: the workers.
        running: names of workers that run already.
        unread: names of workers that exist, but have no draft because their entries are wrong.
        problems: where mistakes are noted.
    """
    by_name: dict[str, list[Draft]] = {name: [] for name in unread}
    for draft in drafts:
        for name in dict.fromkeys((draft.name, draft.written)):
            by_name.setdefault(name, []).append(draft)
    found = {
        draft.name: tuple(_dependencies_of(draft, by_name, running, problems)) for draft in drafts
    }
    graph = {name: [each.name for each in depends_on] for name, depends_on in found.items()}
    try:
        graphlib.TopologicalSorter(graph).prepare()
    except graphlib.CycleError as error:
        cycle = list(reversed(error.args[1]))  # each worker before one that it waits for
        draft = by_name[cycle[0]][0]
        place = draft.node.get("depends_on") or draft.node
        problem = f"the workers wait for each other: {' → '.join(cycle)}"
        problems.append(place.problem(f"{draft.path}.depends_on", problem, with_value=False))
    return found


def _dependencies_of(
    draft: Draft,
    by_name: dict[str, list[Draft]],
    running: Collection[str],
    problems: Problems,
) -> list[Dependency]:
    found = []
    names = (*by_name, *running)
    place = draft.node.get("depends_on")
    for number, dependency in enumerate(draft.entry.depends_on):
        assert place is not None
        element = place.element(number)
        node = element.get("name") or element
        path = f"{draft.path}.depends_on[{number}]"
        if dependency.name in running:
            found.append(dependency)
        elif dependency.name not in names:
            problems.append(node.problem(f"{path}.name", nearest(dependency.name, names, "worker")))
        for other in by_name.get(dependency.name, ()):
            if dependency.until == "connected" and other.target and other.target.connects is False:
                problem = f"{other.target.path} is no NetworkProcessor and never connects; "
                problem += 'write until = "ready"'
                problems.append(node.problem(f"{path}.name", problem))
            found.append(dependency.model_copy(update={"name": other.name}))
    return found
