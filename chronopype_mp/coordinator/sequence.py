"""The order in which a worker gets the definitions and the values of its main module.

Definitions keep the order of the source. A value comes before the first definition that may use it
when it is executed: a decorator, a base class, a default, the body of a class.

A definition may also change such a value: ``@register`` adds to a dict. So lists, dicts and sets
begin as they did in the program and get their present contents in the end, and numbers and strings
are set again. Other objects are watched, and a change is an error.
"""

from __future__ import annotations

import collections
import copy
from collections.abc import Iterator
from typing import Any

from chronopype_mp.coordinator.definition import Definition
from chronopype_mp.coordinator.object_graph import ATOMS
from chronopype_mp.coordinator.reach import Names, Reach, is_object
from chronopype_mp.coordinator.refusals import OWN_MODULE, Refused
from chronopype_mp.processors.transfer import MAIN, Values

__all__ = ["Sequence"]

CONTAINERS = (list, dict, set, collections.deque)

GLOBALS = "the globals of the main module"


class Sequence:
    """The order for what is reached from one processor.

    Attributes:
        contents: what containers of the main module hold in the end, by name.
    """

    def __init__(self, reach: Reach) -> None:
        self._reach = reach
        self.contents: dict[str, Any] = {}
        self._main = next((n for n in reach.spaces.values() if n.key == MAIN), None)
        self._first: dict[str, Any] = {}
        self._again: dict[str, Any] = {}
        self._exposed: set[str] = set()
        self._sent: set[str] = set()
        self._executed: set[str] = set()

    def parts(self) -> Iterator[tuple[object, str]]:
        """Return the parts of the stream between prelude and ending, each with a label."""
        reach, main = self._reach, self._main
        definitions: list[Definition] = []
        if main is not None:
            definitions = sorted(
                {*main.definitions.values(), *reach.registrations}, key=lambda d: d.place
            )
            for definition in definitions:
                if definition.calls:
                    self._exposed |= self._early(main, definition)
            for name in self._exposed:
                self._expose(main, name)
            self.contents |= reach.states
        return self._parts(definitions)

    def _parts(self, definitions: list[Definition]) -> Iterator[tuple[object, str]]:
        main = self._main
        if main is not None:
            fresh = {
                name: first
                for name, first in self._first.items()
                if first is not main.values[name] and not first and type(first).__module__ != MAIN
            }
            simple = {
                name: self._first.get(name, value)
                for name, value in main.values.items()
                if name not in fresh and not main.needs[name]
            }
            for values in fresh, simple:
                if values:
                    self._sent |= values.keys()
                    watched = tuple(n for n in values if self._is_watched(n, values[n]))
                    yield Values(MAIN, values, watched), GLOBALS
            for definition in definitions:
                for name in sorted(self._early(main, definition)):
                    yield from self._before(main, name, definition)
                yield definition.sent(self._registered_already(main, definition)), str(definition)
                self._executed |= {n for n, d in main.definitions.items() if d is definition}
        for names in self._reach.spaces.values():
            for name in names.values:
                yield from self._late(names, name)
        if self._again:
            yield Values(MAIN, self._again), GLOBALS

    def _early(self, main: Names, definition: Definition) -> set[str]:
        """Return the names of values that may be used when a definition is executed."""
        found = set(definition.early_without(self._registered_already(main, definition)))
        if definition.calls:
            more = [name for name in found if name in main.definitions]
            while more:
                for name in main.definitions[more.pop()].names - found:
                    found.add(name)
                    if name in main.definitions:
                        more.append(name)
        return {name for name in found if name in main.values}

    def _expose(self, main: Names, name: str) -> None:
        """Choose with what a value begins that definitions may change."""
        value = main.values[name]
        if id(value) in self._reach.imports:
            return
        binding = main.bindings(name)[-1:]
        first = value
        for statement in binding:
            try:
                first = statement.literal()
            except ValueError:
                break
        if isinstance(value, CONTAINERS):
            if type(first) is not type(value) or first is value:
                first = copy.copy(value)
                if binding and binding[0].is_empty_container(type(value)):
                    first.clear()
            self.contents[name] = copy.copy(value)
            self._reach.named[id(value)] = MAIN, name
            self._first[name] = first
        elif type(value) in ATOMS or isinstance(value, tuple | frozenset):
            self._first[name] = first
            self._again[name] = value

    def _before(
        self, main: Names, name: str, definition: Definition
    ) -> Iterator[tuple[object, str]]:
        """Yield the value of a name that a definition may use, unless it was sent."""
        if name in self._sent:
            return
        first = self._first.get(name, main.values[name])
        if first is main.values[name] or first:
            missing = sorted(
                n for n in main.needs[name] if n in main.definitions and n not in self._executed
            )
            if missing and name not in definition.early:
                return  # only a function uses it that may be called; it comes in the end
            if missing:
                raise Refused(
                    f"the global {name} is used where {definition} is executed, and refers to "
                    f"{missing[0]}, which is defined there or later",
                    OWN_MODULE,
                )
        self._sent.add(name)
        for other in sorted(main.needs[name] & main.values.keys()):
            yield from self._before(main, other, definition)
        watched = (name,) if self._is_watched(name, first) else ()
        yield Values(MAIN, {name: first}, watched), f"the global {name}"

    def _late(self, names: Names, name: str) -> Iterator[tuple[object, str]]:
        """Yield a value after those that it needs, unless it was sent."""
        if names is self._main:
            if name in self._sent:
                return
            self._sent.add(name)
            for other in sorted(names.needs[name] & names.values.keys()):
                yield from self._late(names, other)
        value = (
            self._first.get(name, names.values[name]) if names is self._main else names.values[name]
        )
        yield Values(names.key, {name: value}), f"the global {name}"

    def _is_watched(self, name: str, value: object) -> bool:
        return name in self._exposed and id(value) not in self._reach.imports and is_object(value)

    def _registered_already(self, main: Names, definition: Definition) -> frozenset[str]:
        """Return the objects that decorate a definition; it is part of their state already."""
        return frozenset(
            root for root in definition.decorators if root and self._reach.is_object(main, root)
        )
