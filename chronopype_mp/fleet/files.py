"""The files of a running fleet: reloading them, and adding and removing workers beside them.

What is added and removed is not in the files unless it is saved there. A reload makes the fleet
that of its files again.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine, Mapping, Sequence
from pathlib import Path

from chronopype_mp.exceptions import FleetError, FleetProblem
from chronopype_mp.fleet.changes import Changes, compare
from chronopype_mp.fleet.document import Node, parse
from chronopype_mp.fleet.plan import FleetPlan, WorkerPlan, plan_of, read_files
from chronopype_mp.fleet.runner import RunningFleet
from chronopype_mp.fleet.saving import with_entries, without_entry, write
from chronopype_mp.guarded_log import GuardedLogger

__all__ = ["FleetFiles"]

logger = GuardedLogger("chronopype_mp.fleet")


class FleetFiles:
    """Changes a running fleet by its files. One change is made at a time.

    Args:
        files: the paths of the files.
        tree: what was read from them.
        fleet: runs what is in them.
        on_begin: called before each change.
        on_end: called after it.
    """

    def __init__(
        self,
        files: Sequence[str],
        tree: Node,
        fleet: RunningFleet,
        on_begin: Callable[[], None] = lambda: None,
        on_end: Callable[[], None] = lambda: None,
    ) -> None:
        self._files = list(files)
        self._tree = tree
        self._fleet = fleet
        self._on_begin = on_begin
        self._on_end = on_end
        self._turn = asyncio.Lock()
        self._changes: set[asyncio.Task[Changes]] = set()

    async def preview(self) -> Changes:
        """Return what `reload` would do.

        Raises:
            FleetError: the files have mistakes, or a change that only a new run can apply.
        """
        _, new = await asyncio.to_thread(self._read)
        return compare(self._fleet.plan, new)

    def reload(self) -> asyncio.Task[Changes]:
        """Make the fleet that of its files; see `RunningFleet.reload`.

        It goes on if nobody waits for it. `close` ends it.

        Returns:
            A task with what has changed. It raises the errors of `RunningFleet.reload`, and those
            of `preview`, which have changed nothing.
        """
        return self._begin(self._reload())

    def add(self, file: str, save: bool) -> asyncio.Task[Changes]:
        """Start the workers of a file, with the settings of the fleet.

        Args:
            file: its path. It may have ``[[processor]]`` only.
            save: whether to append them to the last file of the fleet.

        Returns:
            As `reload`.
        """
        return self._begin(self._add(file, save))

    def remove(self, names: Sequence[str], save: bool) -> asyncio.Task[Changes]:
        """Stop workers, and forget them.

        Args:
            names: the workers.
            save: whether to delete them from the files, too.

        Returns:
            As `reload`.
        """
        return self._begin(self._remove(names, save))

    async def close(self) -> None:
        """End what is being changed; it is left half done."""
        for task in self._changes:
            task.cancel()
        await asyncio.gather(*self._changes, return_exceptions=True)

    def _begin(self, change: Coroutine[object, object, Changes]) -> asyncio.Task[Changes]:
        task = asyncio.get_running_loop().create_task(self._in_turn(change))
        self._changes.add(task)
        task.add_done_callback(self._ended)
        return task

    def _ended(self, task: asyncio.Task[Changes]) -> None:
        self._changes.discard(task)
        name = self._fleet.plan.settings.name
        error = None if task.cancelled() else task.exception()
        if isinstance(error, FleetError):
            logger.error("fleet %r: nothing was changed:\n%s", name, error)
        elif error is not None:
            logger.error("fleet %r: not wholly changed: %s", name, error, exc_info=error)

    async def _in_turn(self, change: Coroutine[object, object, Changes]) -> Changes:
        try:
            async with self._turn:
                self._on_begin()
                try:
                    return await change
                finally:
                    self._on_end()
        finally:
            change.close()  # if it has not begun

    async def _reload(self) -> Changes:
        logger.info("reading %s", ", ".join(self._files))
        tree, new = await asyncio.to_thread(self._read)
        changes = await self._apply(new)
        self._tree = tree
        return changes

    async def _add(self, file: str, save: bool) -> Changes:
        logger.info("adding the workers of %s", file)
        old = self._fleet.plan
        added = await asyncio.to_thread(self._plan_beside, file, {w.name for w in old.workers})
        new = FleetPlan(settings=old.settings, workers=(*old.workers, *added.workers))
        texts = {}
        if save:
            texts = {self._files[-1]: with_entries(_text(self._files[-1]), _text(file))}
            await asyncio.to_thread(self._check_saving, texts, added.workers, ())
        changes = await self._apply(new)
        self._save(texts)
        return changes

    async def _remove(self, names: Sequence[str], save: bool) -> Changes:
        old = self._fleet.plan
        new = FleetPlan(
            settings=old.settings, workers=tuple(w for w in old.workers if w.name not in names)
        )
        for worker in new.workers:
            for dependency in worker.depends_on:
                if dependency.name in names:
                    problem = f'depends on "{dependency.name}"; remove it, too'
                    raise _error(old.settings.name, f"processor[{worker.name}]", problem)
        texts = self._without(names) if save else {}
        if save:
            await asyncio.to_thread(self._check_saving, texts, (), tuple(names))
        changes = await self._apply(new)
        self._save(texts)
        return changes

    async def _apply(self, new: FleetPlan) -> Changes:
        name = self._fleet.plan.settings.name
        logger.info("fleet %r: to do: %s", name, compare(self._fleet.plan, new))
        changes = await self._fleet.reload(new)
        logger.info("fleet %r: changed", name)
        return changes

    def _read(self) -> tuple[Node, FleetPlan]:
        tree = read_files(self._files)
        return tree, plan_of(tree)

    def _plan_beside(self, file: str, running: set[str]) -> FleetPlan:
        """Return the plan of a file whose workers run beside others, with the fleet's settings."""
        problems: list[FleetProblem] = []
        tree = parse(file, problems)
        for name, node in tree.value.items():
            if name != "processor":
                problem = "a file that is added may have [[processor]] only; leave it out"
                problems.append(node.problem(name, problem, with_value=False))
        if problems:
            raise FleetError(problems)
        entries = tree.value.get("processor", tree.with_value([]))
        settings = self._tree.value | {"processor": entries}
        return plan_of(tree.with_value(settings), running=running)

    def _without(self, names: Sequence[str]) -> dict[str, str]:
        """Return the files that change if the entries of workers are deleted, with their texts."""
        texts: dict[str, str] = {}
        for name in names:
            found = [(file, texts.get(file) or _text(file)) for file in self._files]
            shorter = {f: rest for f, text in found if (rest := without_entry(text, name)) != text}
            if not shorter:
                problem = "has no entry of its own in the fleet's files; edit them, and reload"
                raise _error(self._files[-1], f"processor[{name}]", problem)
            texts |= shorter
        return texts

    def _check_saving(
        self, texts: Mapping[str, str], added: Sequence[WorkerPlan], removed: tuple[str, ...]
    ) -> None:
        """Check that new texts of the files mean these changes, and no others."""
        before = plan_of(read_files(self._files))
        after = plan_of(read_files(self._files, texts))
        kept = tuple(worker for worker in before.workers if worker.name not in removed)
        wanted = FleetPlan(settings=before.settings, workers=(*kept, *added))
        difference = compare(wanted, after)
        if difference != Changes():
            problem = f"cannot be saved: the file would mean something else ({difference}); edit it"
            raise _error(next(iter(texts)), "processor", problem)

    def _save(self, texts: Mapping[str, str]) -> None:
        for file, text in texts.items():
            write(file, text)
            logger.info("%s saved", file)


def _text(file: str) -> str:
    try:
        return Path(file).read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise _error(file, "", f"cannot be read: {error}") from None


def _error(file: str, path: str, problem: str) -> FleetError:
    return FleetError([FleetProblem(file, None, path, None, problem)])
