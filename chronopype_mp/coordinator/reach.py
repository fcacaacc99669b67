"""What a processor reaches of the main module: its definitions, and the values of its globals.

A function or class that the program defines in the main module is executed again in the worker from
its source. Every other global that its code uses is pickled. Code that has no source, or whose
source was edited since the program started, is pickled as well.
"""

from __future__ import annotations

import ast
import collections
import contextvars
import copy
import enum
import functools
import logging
import sys
import threading
import types
import typing
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

from chronopype_mp.coordinator.class_match import made_by
from chronopype_mp.coordinator.definition import Definition, names_in, names_in_text, own_code
from chronopype_mp.coordinator.main_source import MainSource
from chronopype_mp.coordinator.object_graph import ATOMS
from chronopype_mp.coordinator.refusals import OWN_MODULE, Refused, opens_again
from chronopype_mp.processors.transfer import MAIN

__all__ = ["DATA", "Names", "Reach", "dispatches", "is_importable", "is_object", "state_of"]

DATA = (*ATOMS, list, dict, set, frozenset, tuple, bytearray, collections.deque)

CODE = (
    type,
    types.ModuleType,
    types.FunctionType,
    types.BuiltinFunctionType,
    functools.partial,
    functools._lru_cache_wrapper,
)

SYSTEM_NAMES = frozenset(
    {
        "__name__",
        "__file__",
        "__package__",
        "__spec__",
        "__loader__",
        "__doc__",
        "__cached__",
        "__builtins__",
        "__annotations__",
        "__conditional_annotations__",
    }
)
"""Globals that are there before the first statement."""

_sources: dict[int, tuple[types.ModuleType, MainSource]] = {}


class _Holder:
    """Has a namespace as its ``__dict__``."""


class Names:
    """A namespace whose code travels: the main module's, or one that belongs to no module.

    Attributes:
        key: of the namespace in the worker.
        globals: the names here.
        source: of the code in it; None if it is not the main module's.
        definitions: those that the worker executes, by name.
        values: what is pickled, by name.
        needs: the names of the main module to which the pickle of a value refers.
        holder: an object whose ``__dict__`` is the namespace, as dill wants it.
    """

    def __init__(self, key: str, names: dict[str, Any], source: MainSource | None) -> None:
        self.key = key
        self.globals = names
        self.source = source
        self.definitions: dict[str, Definition] = {}
        self.values: dict[str, Any] = {}
        self.needs: dict[str, set[str]] = {}
        self.holder = _Holder()
        self.holder.__dict__ = names

    def bindings(self, name: str) -> list[Definition]:
        """Return the statements that bind a name, the last one first."""
        return [] if self.source is None else self.source.bindings(name)[::-1]


class Reach:
    """All that is reached from one processor.

    Attributes:
        spaces: the namespaces, by the `id` of their globals.
        pending: values whose own needs are not known yet.
        found: names of the main module that were needed since this was emptied.
        named: objects that a worker finds under a name, by `id`: the namespace's key, the name.
        unnamed: functions and classes that took the place of what the definition of a class has
            made under their name, by `id`.
        states: what imported objects hold now, by the name of the global.
        imports: objects that ``from module import name`` has bound, by `id`: the module, the name.
        registrations: other statements that are executed, because they are part of a definition.
        attributes: the names of attributes that the code uses.
    """

    def __init__(self) -> None:
        self.spaces: dict[int, Names] = {}
        self.pending: list[tuple[Names, str]] = []
        self.found: set[str] = set()
        self.named: dict[int, tuple[str, str]] = {}
        self.imports: dict[int, tuple[str, str]] = {}
        self.unnamed: set[int] = set()
        self.states: dict[str, Any] = {}
        self.registrations: list[Definition] = []
        self.attributes: set[str] = set()
        self._filenames: set[str] = set()

    @property
    def main(self) -> Names:
        """The names of the main module."""
        module = sys.modules[MAIN]
        known = self.spaces.get(id(module.__dict__))
        if known is None:
            known = Names(MAIN, module.__dict__, _source_of(module))
            self.spaces[id(module.__dict__)] = known
        return known

    @property
    def has_main(self) -> bool:
        """Whether the main module is reached."""
        return id(sys.modules[MAIN].__dict__) in self.spaces

    def space_of(self, names: dict[str, Any]) -> Names | None:
        """Return the namespace that a function's globals are; None if they are a module's."""
        known = self.spaces.get(id(names))
        if known is not None:
            return known
        if names is sys.modules[MAIN].__dict__:
            return self.main
        name = names.get("__name__")
        module = sys.modules.get(name) if isinstance(name, str) else None
        if module is None or module.__dict__ is names:
            return None
        # Of a doctest, or of a program that another one runs.
        known = self.spaces[id(names)] = Names(f"{name} {len(self.spaces)}", names, None)
        return known

    def is_named(self, value: Any) -> bool:
        """Whether a worker finds a class or a function of the main module by its name."""
        first, *rest = value.__qualname__.split(".")
        found = sys.modules[MAIN].__dict__.get(first)
        for part in rest:
            found = getattr(found, part, None)
        if found is not value or id(value) in self.unnamed:
            return False
        self.need(self.main, first)
        return first in self.main.definitions

    def need(self, names: Names, name: str) -> None:
        """Note that something uses a global.

        Raises:
            Refused: it cannot travel.
        """
        if name not in names.globals or name in SYSTEM_NAMES:
            return
        if names.key == MAIN:
            self.found.add(name)
        if name in names.definitions or name in names.values:
            return
        value = names.globals[name]
        definition = self._definition_of(names, name, value)
        if definition is None:
            names.values[name] = value
            self._note_import(names, name, value)
            self.pending.append((names, name))
            return
        names.definitions[name] = definition
        if isinstance(value, contextvars.ContextVar | threading.local):
            self.named[id(value)] = MAIN, name
        self._need_all_of(names, definition)
        more = names.source.registrations(name) if names.source and dispatches(value) else []
        for statement in (*more, *_earlier(names, name, definition)):
            if statement not in self.registrations:
                self.registrations.append(statement)
                self._need_all_of(names, statement)

    def need_all_in(self, names: Names, code: types.CodeType) -> None:
        """Note the globals that code uses which travels by value."""
        self.attributes.update(code.co_names)
        self._filenames.add(code.co_filename)
        self._need_used(names, set(names_in(code)), code.co_names)

    def need_annotations(self, names: Names, annotations: Iterable[object]) -> None:
        """Note the globals in annotations that are strings."""
        for annotation in annotations:
            if isinstance(annotation, typing.ForwardRef):
                annotation = annotation.__forward_arg__
            if isinstance(annotation, str):
                for name in names_in_text(annotation):
                    self.need(names, name)

    def _need_all_of(self, names: Names, definition: Definition) -> None:
        self.attributes |= definition.attributes
        self._filenames.add(definition.filename)
        found = set(self.found)
        self._need_used(names, definition.names, definition.attributes)
        self.found = found

    def _need_used(self, names: Names, used: Iterable[str], attributes: Iterable[str]) -> None:
        """Note the globals that code uses, and those that may be attributes of the main module."""
        for name in sorted(used):
            self.need(names, name)
        if any(names.globals.get(name) is sys.modules[MAIN] for name in used):
            for name in attributes:
                self.need(self.main, name)

    def _definition_of(self, names: Names, name: str, value: Any) -> Definition | None:
        """Return the statement that makes a value again; None if the value is to be pickled."""
        candidates = names.bindings(name)
        if isinstance(value, contextvars.ContextVar | threading.local) and candidates:
            _check_unset(name, value)
            return candidates[0]
        if (
            not candidates
            or isinstance(value, types.ModuleType)
            or getattr(value, "__module__", None) != MAIN
            or getattr(value, "__qualname__", getattr(value, "__name__", None)) != name
        ):
            return None
        candidates.sort(
            key=lambda c: (
                not c.looks_like(value),
                # A class statement, unless it was `Point = dataclass(Point)` later.
                isinstance(value, type) and not c.is_compound and name not in c.early,
            )
        )
        fitting = [candidate for candidate in candidates if candidate.is_of(value)]
        if not fitting:
            return None
        candidate = fitting[0]
        if isinstance(value, type) and len(fitting) > 1:
            candidate = _only_one(value, fitting, names.globals)
        if isinstance(value, type):
            _check_body(value, candidate)
        if not isinstance(value, type) and not self._is_made_again(names, candidate, value):
            return None
        if isinstance(value, type) and not all(map(_is_current, value.__bases__)):
            return None  # a base class was defined again
        if any(self._was_bound_again(names, used, candidate) for used in candidate.early):
            return None
        return candidate

    def _is_made_again(self, names: Names, candidate: Definition, value: Any) -> bool:
        """Whether a statement makes what it has bound as it is now, if that is no class."""
        if candidate.is_compound and type(value).__module__ == MAIN:
            return False  # an object that a decorator has made of it has a state
        if own_code(value) is None:
            return True
        if not candidate.makes(value):
            return False
        # What an object has made of a function is a value like others.
        return (
            not isinstance(value, types.FunctionType)
            or candidate.contains(value.__code__)
            or not any(self.is_object(names, root) for root in candidate.decorators)
        )

    @staticmethod
    def _was_bound_again(names: Names, used: str, definition: Definition) -> bool:
        """Whether a definition used a name, when it was executed, that was bound again later."""
        bindings = names.bindings(used)
        if not bindings or bindings[0].is_import or bindings[0].place <= definition.place:
            return False
        return bindings[-1].place < definition.place

    def is_object(self, names: Names, name: str | None) -> bool:
        """Whether a global is an object of the program, and not code or plain data."""
        if name is None or name not in names.globals:
            return False
        value = names.globals[name]
        self._note_import(names, name, value)
        return id(value) not in self.imports and is_object(value)

    def _note_import(self, names: Names, name: str, value: object) -> None:
        if type(value) in ATOMS or isinstance(value, type | types.FunctionType | types.ModuleType):
            return
        if names.source is not None and names.source.missing:
            self._refuse_import(names, name, value)
        package = names.globals.get("__package__")
        for statement in names.bindings(name)[:1]:
            where = statement.imported(name, package)
            module = None if where is None else sys.modules.get(where[0])
            if module is not None and where and getattr(module, where[1], None) is value:
                self.imports[id(value)] = where

    @staticmethod
    def _refuse_import(names: Names, name: str, value: object) -> None:
        """Refuse an object that may have been imported where no source tells."""
        if isinstance(value, logging.Logger | enum.Enum) or type(value).__module__ == "typing":
            return  # there is one in each process, whatever way it comes
        for module in list(sys.modules.values()):
            found = getattr(module, "__dict__", {})
            if found is not names.globals and found.get(name) is value:
                raise Refused(
                    f"the global {name} is also a global of the module {module.__name__}, and "
                    f"without a source ({names.source and names.source.missing}) it is not known "
                    "whether it was imported",
                    f"Use it as {module.__name__}.{name}",
                )

    @property
    def size(self) -> int:
        """How many names are reached."""
        return sum(len(names.definitions) + len(names.values) for names in self.spaces.values())

    def need_subclasses(self) -> None:
        """Note the subclasses of what is reached, if the code asks a class for them."""
        if "__subclasses__" not in self.attributes:
            return
        for names in list(self.spaces.values()):
            for name in [*names.definitions, *names.values]:
                value = names.globals[name]
                if not isinstance(value, type) or value.__module__ != MAIN:
                    continue
                kinds: list[type] = value.__subclasses__()
                for kind in kinds:
                    if _is_current(kind) and kind.__module__ == MAIN:
                        self.need(self.main, kind.__qualname__.partition(".")[0])

    # What the worker's main module begins with

    def submodules(self) -> tuple[str, ...]:
        """Return the loaded submodules that code reaches as attributes of their packages."""
        more = [
            value
            for names in self.spaces.values()
            for value in names.values.values()
            if isinstance(value, types.ModuleType)
        ]
        found: dict[str, None] = {}
        while more:
            package = more.pop()
            if not hasattr(package, "__path__"):
                continue
            for attribute in sorted(self.attributes & set(vars(package))):
                name = f"{package.__name__}.{attribute}"
                module = sys.modules.get(name)
                if name not in found and module is not None and vars(package)[attribute] is module:
                    found[name] = None
                    more.append(module)
        return tuple(found)

    def texts(self) -> dict[str, str]:
        """Return the sources of what is reached that are not in files, by file name."""
        return {
            filename: text
            for names in self.spaces.values()
            if names.source is not None
            for filename, text in names.source.texts(self._filenames).items()
        }

    def why_no_source(self, problem: str) -> str:
        """Return a problem of code that travels by value, and why it does."""
        reasons = [n.source.missing for n in self.spaces.values() if n.source is not None]
        reason = next(filter(None, reasons), "it was made while the program ran, or edited since")
        return f"{problem}, and its source is not known ({reason})"


def _earlier(names: Names, name: str, definition: Definition) -> Iterator[Definition]:
    """Yield what must be executed before `Point = dataclass(Point)`."""
    while not definition.is_compound and name in definition.early:
        before = [d for d in names.bindings(name) if d.place < definition.place]
        if not before:
            return
        definition = before[0]
        yield definition


def _check_body(kind: type, definition: Definition) -> None:
    """Refuse a class whose body has opened something: it would be opened again in the worker.

    Raises:
        Refused: an attribute has a descriptor of its own.
    """
    own = set(definition.class_names()) if isinstance(definition.node, ast.ClassDef) else ()
    for name in own:
        if opens_again(vars(kind).get(name)):
            raise Refused(
                f"the class {kind.__name__!r} opens its attribute {name!r} in its body, which a "
                "worker would do again",
                "Open it in start() or start_network(), which run in the worker",
                kind,
            )


def _only_one(kind: type, fitting: Sequence[Definition], names: Mapping[str, Any]) -> Definition:
    """Return the statement that has made a class.

    Raises:
        Refused: several may have, such as the branches of an ``if``.
    """
    classes = [each for each in fitting if isinstance(each.node, ast.ClassDef)]
    if fitting[0] not in classes or len(classes) == 1:
        return fitting[0]
    made = [each for each in classes if made_by(each.node, kind, names)] or classes
    others = [each for each in made[1:] if each.filename == made[0].filename]
    is_in_block = made[0].node.col_offset > 0
    if is_in_block and any(ast.dump(each.node) != ast.dump(made[0].node) for each in others):
        lines = " and ".join(str(each.node.lineno) for each in reversed(made))
        raise Refused(
            f"the class {kind.__name__!r} is defined in lines {lines}, and it cannot be known "
            "which definition is loaded",
            OWN_MODULE,
            kind,
        )
    return made[0]


def _is_current(kind: type) -> bool:
    """Whether a class of the main module is the one that has its name now."""
    if kind.__module__ != MAIN:
        return True
    found: Any = sys.modules[MAIN]
    for part in kind.__qualname__.split("."):
        found = getattr(found, part, None)
    return found is kind


def state_of(value: Any) -> Any:
    """Return a copy of what an imported object holds; None if that is not to be restored."""
    if isinstance(value, (list, dict, set, collections.deque)):
        return copy.copy(value)
    package = type(value).__module__.partition(".")[0]
    if package in sys.stdlib_module_names or not hasattr(value, "__dict__"):
        return None
    return dict(vars(value))


def dispatches(value: object) -> bool:
    """Whether a function was made by `functools.singledispatch`."""
    return isinstance(value, types.FunctionType) and {"registry", "dispatch"} <= vars(value).keys()


def is_importable(value: Any) -> bool:
    """Whether an imported module has a class or a function under its own name."""
    module = getattr(value, "__module__", None)
    found: Any = None if module in (None, MAIN) else sys.modules.get(module)
    for part in getattr(value, "__qualname__", "").split("."):
        found = getattr(found, part, None)
    return found is value


def is_object(value: object) -> bool:
    """Whether a value is an object of the program, and not code or plain data."""
    return not isinstance(value, (*CODE, *DATA))


def _check_unset(name: str, value: contextvars.ContextVar[Any] | threading.local) -> None:
    unset = object()
    if isinstance(value, contextvars.ContextVar):
        is_set = value.get(unset) is not unset
    else:
        is_set = bool(vars(value))
    if is_set:
        raise Refused(
            f"the global {name} is set in this context, and would not be in the worker",
            "Set it in start(), which runs in the worker",
        )


def _source_of(module: types.ModuleType) -> MainSource:
    """Return the source of the main module, which is read once."""
    known = _sources.get(id(module))
    if known is None:
        known = _sources[id(module)] = module, MainSource(module)
    known[1].update()
    return known[1]
