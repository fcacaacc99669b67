"""Packs a processor for its worker, once, when it is added.

- What belongs to an imported module travels by name.
- Definitions of the main module travel as their source, values of its globals by pickle
  (`chronopype_mp.coordinator.reach`). The worker executes the definitions in the order of the
  source, in its own main module, and puts the values under their names there.
- Lambdas, and classes and functions that were made in functions, are pickled by value. Their
  globals are the worker's main module, too.
- What would arrive as something else is refused, with the path to it.

`chronopype_mp.processors.transfer` shows the format. The worker's end is
`chronopype_mp.worker.payload`.
"""

from __future__ import annotations

import io
import sys
import warnings
from collections.abc import Iterator
from typing import NamedTuple

import dill

from chronopype_mp.coordinator import late_changes
from chronopype_mp.coordinator.object_graph import ATOMS, children, mutable_objects
from chronopype_mp.coordinator.pickler import Pickler
from chronopype_mp.coordinator.reach import Reach, state_of
from chronopype_mp.coordinator.refusals import Refused
from chronopype_mp.coordinator.sequence import Sequence
from chronopype_mp.exceptions import TransferError
from chronopype_mp.processors import ProcessorSpec, TickProcessor
from chronopype_mp.processors.transfer import MAIN, Ending, Prelude

__all__ = ["Packed", "pack"]


class Packed(NamedTuple):
    """A processor as it travels.

    Attributes:
        payload: the bytes.
        carried: the objects in it that can be changed, with the path to each, by `id`.
    """

    payload: bytes
    carried: dict[int, tuple[object, str]]


def pack(source: TickProcessor | ProcessorSpec) -> Packed:
    """Serialize a processor, or the spec of one, for its worker.

    Raises:
        TransferError: it cannot be serialized. The error names the path to what prevents it.
    """
    packing = _Packing(source)
    return Packed(packing.payload(), mutable_objects(packing.roots()))


class _Packing:
    """The packing of one processor."""

    def __init__(self, source: TickProcessor | ProcessorSpec) -> None:
        self._source = source
        self._label = type(source).__name__
        self._reach = Reach()

    def payload(self) -> bytes:
        """Return the payload.

        Raises:
            TransferError: something cannot be serialized.
        """
        reach, alone = self._reach, self._dump(self._source, self._label)
        target = getattr(self._source, "target", None)
        if isinstance(target, str) and target.startswith(f"{MAIN}:"):
            with self._blaming(self._source, self._label):
                reach.need(reach.main, target.partition(":")[2].partition(".")[0])
        if not reach.spaces:
            return alone
        known = -1
        while known != (known := reach.size):
            # What was changed may need more definitions, which may have been changed.
            ending = self._ending()
            while reach.pending:
                names, name = reach.pending.pop()
                reach.found = set()
                if type(names.values[name]) not in ATOMS:
                    self._dump(names.values[name], f"the global {name}")
                names.needs[name] = set(reach.found)
                if id(names.values[name]) in reach.imports:
                    state = state_of(names.values[name])
                    if state is not None and self._can_travel(state):
                        reach.states[name] = state
            with self._blaming(self._source, self._label):
                reach.need_subclasses()
        return self._stream(ending)

    def roots(self) -> Iterator[tuple[str, object]]:
        """Yield what is carried with its label: the processor, and globals."""
        yield self._label, self._source
        for names in self._reach.spaces.values():
            for name, value in names.values.items():
                if id(value) not in self._reach.imports:
                    yield f"the global {name}", value

    def _stream(self, ending: Ending) -> bytes:
        reach = self._reach
        stream = io.BytesIO()
        pickler = Pickler(stream, reach, self._source)
        first = {
            names.key: {"__name__": names.globals.get("__name__")}
            if names.source is None
            else names.source.first_names
            for names in reach.spaces.values()
        }
        sequence = Sequence(reach)
        # Before anything is pickled, because it says which objects a worker finds by name.
        parts = sequence.parts()
        pickler.dump(Prelude(first, list(sys.argv), reach.texts(), reach.submodules()))
        with self._blaming(self._source, self._label):
            for part, label in parts:
                with self._blaming(part, label):
                    pickler.dump(part)
        with self._blaming(self._source, self._label):
            pickler.dump(ending._replace(contents=sequence.contents))
        return stream.getvalue()

    def _ending(self) -> Ending:
        """Return what is restored after the definitions. What it needs is noted.

        Raises:
            TransferError: an attribute was certainly set after its definition, and cannot travel.
        """
        ending = Ending({}, [], [], [], [], self._source)
        if not self._reach.has_main:
            return ending
        main = self._reach.main
        for name in list(main.definitions):
            owner = main.globals[name]
            ending.removed.extend((owner, path) for path in late_changes.removed(main, name))
            for change in late_changes.changes(main, name):
                path = f"{name}.{change.path}"
                if getattr(change.value, "__qualname__", None) == path:
                    self._reach.unnamed.add(id(change.value))
                if change.is_late:
                    self._dump(change.value, path)
                elif type(change.value) not in ATOMS and not self._can_travel(change.value):
                    ending.expected.append((owner, change.path))
                    continue
                ending.attributes.append((owner, change.path, change.value))
            for path, kind, function in late_changes.registered(main, name):
                self._dump((kind, function), f"{name}.registry[{kind.__qualname__}]")
                ending.registered.append((owner, path, kind, function))
        for owner, path, value in late_changes.patches(main, self._reach.attributes):
            self._dump(value, f"{owner.__name__}.{path}")
            ending.attributes.append((owner, path, value))
        return ending

    def _can_travel(self, value: object) -> bool:
        """Whether an object can be pickled that the worker makes or imports if it cannot."""
        try:
            Pickler(io.BytesIO(), self._reach, self._source).dump(value)
        except Exception:
            return False
        return True

    def _dump(self, value: object, label: str) -> bytes:
        """Pickle an object alone, to see what it needs."""
        frame = io.BytesIO()
        with self._blaming(value, label):
            Pickler(frame, self._reach, self._source).dump(value)
        return frame.getvalue()

    def _blaming(self, value: object, label: str) -> _Blaming:
        return _Blaming(self._reach, self._source, value, label)


class _Blaming:
    """Turns the errors of pickling an object into one that names the path to the cause."""

    def __init__(self, reach: Reach, source: object, value: object, label: str) -> None:
        self._reach = reach
        self._source = source
        self._value = value
        self._label = label
        self._warnings = warnings.catch_warnings()

    def __enter__(self) -> None:
        self._warnings.__enter__()
        # dill warns about names that it cannot find. They would fail in the worker.
        warnings.simplefilter("error", dill.PicklingWarning)

    def __exit__(self, kind: object, error: BaseException | None, trace: object) -> None:
        try:
            if isinstance(error, Exception) and not isinstance(error, TransferError):
                raise self._blame(error) from error
        finally:
            self._warnings.__exit__(None, None, None)

    def _blame(self, error: Exception) -> TransferError:
        """Return the error for the innermost object that cannot be pickled."""
        value, path, seen = self._value, "", set()
        while id(value) not in seen and getattr(error, "culprit", None) is not value:
            seen.add(id(value))
            for step, child in children(value):
                if type(child) in ATOMS or id(child) in seen:
                    continue
                try:
                    Pickler(io.BytesIO(), self._reach, self._source).dump(child)
                except Exception as cause:
                    value, error = child, cause
                    path += step
                    break
        return TransferError(
            type(self._source).__name__,
            path.removeprefix(".") or None,
            str(error) if isinstance(error, Refused) else _brief(error),
            where=self._label + path,
            remedy=error.remedy if isinstance(error, Refused) else None,
        )


def _brief(error: BaseException) -> str:
    return f"{type(error).__name__}: {str(error).splitlines()[0] if str(error) else ''}".rstrip(
        ": "
    )
