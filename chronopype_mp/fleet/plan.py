"""Reads fleet files into a plan: settings that were checked, and one record for each worker.

Nothing is started. Modules of processors are imported, because their arguments are checked.
"""

from __future__ import annotations

import functools
import importlib.util
import os
import types
from collections.abc import Collection, Iterator, Mapping, Sequence
from typing import Any

from chronopype_mp.clocks.arguments import checked_env, checked_event_loop, checked_policy
from chronopype_mp.clocks.modes import ClockMode
from chronopype_mp.coordinator.record import checked_name
from chronopype_mp.core.policy import Supervision
from chronopype_mp.core.settings import Settings
from chronopype_mp.exceptions import ConfigError, FleetError, FleetProblem
from chronopype_mp.fleet.document import BROKEN, Node, merged, override, parse, resolved
from chronopype_mp.fleet.env_file import read_env_file
from chronopype_mp.fleet.reading import nearest, read, read_best
from chronopype_mp.fleet.references import ITEM, expanded, with_item
from chronopype_mp.fleet.schema import MOST_WORKERS, FleetFile, ProcessorEntry
from chronopype_mp.fleet.targets import Target, find, options_of
from chronopype_mp.fleet.workers import Draft, WorkerPlan, check_names, dependencies

__all__ = ["FleetPlan", "WorkerPlan", "load_fleet", "plan_of", "read_files"]


Path = str | os.PathLike[str]

NO_TEXTS: Mapping[str, str] = types.MappingProxyType({})


class FleetPlan(Settings, frozen=True):
    """A fleet that can be run.

    Args:
        settings: all but the processors.
        workers: the workers, in the order of the files.
    """

    settings: FleetFile
    workers: tuple[WorkerPlan, ...]


def load_fleet(
    files: Path | Sequence[Path], environment: Mapping[str, str] | None = None
) -> FleetPlan:
    """Read and check a fleet. No process is started.

    Args:
        files: the path of a fleet file, or the paths of several. Later ones override earlier ones:
            tables key by key, ``[[processor]]`` by name, anything else as a whole.
        environment: the variables for references and overrides; None means those of this process.

    Raises:
        FleetError: something is wrong; it holds all problems.
        ConfigError: ``files`` is empty.
    """
    return plan_of(read_files(files), environment)


def read_files(files: Path | Sequence[Path], texts: Mapping[str, str] = NO_TEXTS) -> Node:
    """Read fleet files into one tree.

    Args:
        files: their paths.
        texts: by path, what is read in place of a file.

    Raises:
        FleetError, ConfigError: as `load_fleet`.
    """
    if isinstance(files, str | os.PathLike):
        files = [files]
    if not files:
        raise ConfigError("load_fleet", "files", files, "must name a file at least")
    problems: list[FleetProblem] = []
    paths = [os.fspath(file) for file in files]
    trees = [parse(path, problems, texts.get(path)) for path in paths]
    if problems:
        raise FleetError(problems)
    return functools.reduce(merged, trees)


def plan_of(
    tree: Node, environment: Mapping[str, str] | None = None, running: Collection[str] = ()
) -> FleetPlan:
    """Make a plan of a tree.

    Args:
        tree: the fleet.
        environment: as `load_fleet` takes it.
        running: names of workers that run beside those of the tree.

    Raises:
        FleetError: as `load_fleet`.
    """
    problems: list[FleetProblem] = []
    variables = os.environ if environment is None else environment
    root = override(tree, variables, problems)
    plan = _Loader(root, variables, problems, running).plan()
    if problems:
        raise FleetError(_distinct(problems))
    assert plan is not None
    return plan


def _distinct(problems: list[FleetProblem]) -> list[FleetProblem]:
    """Leave out what was found again in another worker of an entry. Sort by line."""
    found: dict[object, FleetProblem] = {}
    for problem in problems:
        last = problem.path.rpartition(".")[2]
        found.setdefault((problem.file, problem.line, last, problem.problem), problem)
    files = list(dict.fromkeys(problem.file for problem in problems))
    return sorted(found.values(), key=lambda p: (files.index(p.file), p.line or 0))


class _Loader:
    """Reads one merged tree; notes problems."""

    def __init__(
        self,
        root: Node,
        variables: Mapping[str, str],
        problems: list[FleetProblem],
        running: Collection[str],
    ) -> None:
        self._running = running
        self._variables = variables
        self._problems = problems
        self._unread: set[str] = set()  # names of workers whose entries are wrong
        entries = root.value.get("processor", root.with_value([]))
        self._entries: Node = entries
        rest = {name: node for name, node in root.value.items() if name != "processor"}
        if (clock := rest.get("clock")) is not None and isinstance(clock.value, dict):
            mode = clock.with_value("realtime")
            rest["clock"] = clock.with_value({"clock_mode": mode, **clock.value})
        self._root = expanded(root.with_value(rest), "", variables, problems)

    def plan(self) -> FleetPlan | None:
        """Return the plan; None if there are problems."""
        settings = read_best(self._root, FleetFile, "", self._problems)
        self._settings = FleetFile() if settings is BROKEN else settings
        self._check_settings()
        drafts = list(self._drafts())
        check_names(drafts, self._running, self._problems)
        depends_on = dependencies(drafts, self._running, self._unread, self._problems)
        if not self._entries.value:
            problem = "there is no [[processor]]; add one, see chronopype-mp init"
            self._problems.append(self._root.problem("", problem, with_value=False))
        if self._problems:
            return None
        workers = tuple(draft.plan(depends_on[draft.name]) for draft in drafts)
        return FleetPlan(settings=self._with_directory(self._settings), workers=workers)

    def _with_directory(self, settings: FleetFile) -> FleetFile:
        node = self._root.get("state_dir")
        if node is None or settings.state_dir is None:
            return settings
        return settings.model_copy(update={"state_dir": resolved(node, settings.state_dir)})

    def _check_settings(self) -> None:
        """Check what only the machine, or several settings together, can tell."""
        settings = self._settings
        if settings.clock.clock_mode is not ClockMode.REALTIME:
            self._note("clock.clock_mode", 'must be "realtime"')
        try:
            checked_event_loop("fleet", settings.event_loop)
        except ConfigError as error:
            self._note("event_loop", error.problem)
        self._check_policy(settings.supervision, self._root.get("supervision"), "supervision")
        if settings.preload and settings.launcher not in (None, "forkserver"):
            self._note("preload", f'needs launcher = "forkserver", not "{settings.launcher}"')
        for number, module in enumerate(settings.preload):
            if not _exists(module):
                node = self._root.value["preload"].element(number)
                self._problems.append(node.problem(f"preload[{number}]", "there is no such module"))

    def _note(self, path: str, problem: str) -> None:
        """Note a problem with a setting at a path of names."""
        node = self._root
        for name in path.split("."):
            node = node.get(name) or node
        self._problems.append(node.problem(path, problem))

    def _check_policy(self, policy: Supervision, node: Node | None, path: str) -> None:
        try:
            checked_policy("supervision", policy)
        except ConfigError as error:
            resources = (node and node.get("resources")) or node
            name = error.field.partition("[")[0]
            place = (resources and resources.get(name)) or resources or self._root
            where = f"{path}.resources.{error.field}"
            self._problems.append(place.problem(where, error.problem))

    # Entries

    def _drafts(self) -> Iterator[Draft]:
        """Yield the workers of all entries that can be read."""
        if not isinstance(self._entries.value, list):
            problem = "must be written [[processor]], with two brackets"
            self._problems.append(self._entries.problem("processor", problem, with_value=False))
            return
        for number, entry in enumerate(self._entries.value):
            if not isinstance(entry.value, dict):
                where = f"processor[{number}]"
                self._problems.append(self._entries.problem(where, "must be a table"))
                continue
            name = entry.get("name")
            written = name.raw if name is not None and isinstance(name.raw, str) else None
            path = f"processor[{number if written is None else written}]"
            for worker, item in self._workers_of(entry, path):
                node = expanded(worker, path, self._variables, self._problems)
                draft = self._draft(node, written or "", path, item)
                if draft is not None:
                    yield draft
                elif written is not None:
                    self._unread |= {written, _name_of(written, item)}

    def _workers_of(self, node: Node, path: str) -> Iterator[tuple[Node, str | int | None]]:
        """Yield the entry of each worker, with its item."""
        values = {n: c for n, c in node.value.items() if n in ("count", "for_each")}
        given = expanded(node.with_value(values), path, self._variables, self._problems)
        if not values:
            yield node, None
            return
        items: Any = BROKEN
        if len(values) == 2:
            problem = "count and for_each exclude each other; leave one out"
            self._problems.append(values["count"].problem(f"{path}.count", problem))
        elif (each := given.get("for_each")) is not None:
            items = read(each, tuple[str | int, ...], f"{path}.for_each", self._problems)
            if items is not BROKEN and not items:
                note = each.problem(f"{path}.for_each", "must have at least one item")
                self._problems.append(note)
        elif (count := given.get("count")) is not None:
            number = read(count, int, f"{path}.count", self._problems)
            in_range = number is not BROKEN and 1 <= number <= MOST_WORKERS
            items = range(1, number + 1) if in_range else [1]  # `ProcessorEntry` refuses others
        rest = {**node.value, **given.value}
        if items is BROKEN:
            rest = {name: child for name, child in rest.items() if name not in values}
            items = ["item"]  # the other settings are checked all the same
        for item in items:
            yield with_item(node.with_value(rest), item), item

    def _draft(self, node: Node, written: str, path: str, item: str | int | None) -> Draft | None:
        default = self._root.get("supervision")
        own = node.get("supervision")
        options = node.get("options") or node.with_value({})
        values = dict(node.value)
        if own is not None and default is not None:
            values["supervision"] = merged(default, own)
        if isinstance(options.value, dict):
            values.pop("options", None)  # its class knows their types
        entry = read(node.with_value(values), ProcessorEntry, path, self._problems)
        target = self._target(node.get("type"), path)
        made: dict[str, Any] = {}
        if target is not None and isinstance(options.value, dict):
            made = options_of(target, options, f"{path}.options", self._problems)
        if entry is BROKEN:
            return None
        name = entry.name if ITEM in written else _name_of(entry.name, item)
        policy = entry.supervision or self._settings.supervision
        if entry.supervision is not None:
            self._check_policy(policy, own, f"{path}.supervision")
        self._check_entry(node, entry, name, path)
        return Draft(
            name=name,
            written=written,
            path=path,
            node=node,
            entry=entry,
            target=target,
            options=made,
            env=self._env(node, entry, path),
            policy=policy,
        )

    def _target(self, node: Node | None, path: str) -> Target | None:
        if node is None or not isinstance(node.value, str):
            return None
        try:
            return find(node.value)
        except ValueError as error:
            self._problems.append(node.problem(f"{path}.type", str(error)))
            return None

    def _check_entry(self, node: Node, entry: ProcessorEntry, name: str, path: str) -> None:
        try:
            checked_name(name)
        except ConfigError as error:
            place = node.get("name") or node
            self._problems.append(place.problem(f"{path}.name", error.problem))
        groups = self._root.get("groups")
        known = groups.value if groups is not None and isinstance(groups.value, dict) else {}
        if entry.group is not None and entry.group not in known:
            problem = nearest(entry.group, known, "group")
            place = node.get("group") or node
            self._problems.append(place.problem(f"{path}.group", problem))

    # Environment

    def _env(self, node: Node, entry: ProcessorEntry, path: str) -> dict[str, str]:
        env: dict[str, str] = {}
        if entry.env_file is not None:
            place = node.get("env_file") or node
            env = read_env_file(place, entry.env_file, f"{path}.env_file", self._problems)
        env.update(entry.env)
        place = node.get("env") or node.get("env_file") or node
        try:
            checked_env("processor", env)
        except ConfigError as error:
            note = place.problem(f"{path}.env.{error.value}", error.problem, with_value=False)
            self._problems.append(note)
        if env and self._settings.launcher == "inline":
            problem = 'is not possible with launcher = "inline", whose workers have no processes'
            self._problems.append(place.problem(f"{path}.env", problem, with_value=False))
        return env


def _name_of(written: str, item: str | int | None) -> str:
    """Return a worker's name from that of its entry."""
    if item is None:
        return written
    return written.replace(ITEM, str(item)) if ITEM in written else f"{written}-{item}"


def _exists(module: str) -> bool:
    """Whether a module can be found; imports the packages that it is in."""
    try:
        return importlib.util.find_spec(module) is not None
    except (ImportError, ValueError):
        return False
