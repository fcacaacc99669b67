"""What a program has changed of its classes and functions since their definition.

The worker executes the definitions again, and then gets what differs. An attribute is left out only
if the definition evidently makes it again. In doubt it is sent, because its present value is right
in any case.
"""

from __future__ import annotations

import abc
import ast
import collections
import contextlib
import enum
import functools
import inspect
import sys
import types
from collections.abc import Iterable, Iterator
from typing import Any, NamedTuple

from chronopype_mp.coordinator.class_match import is_same
from chronopype_mp.coordinator.definition import (
    BLOCKS,
    Definition,
    bound_by,
    decorator_root,
    layers,
    literal_of,
)
from chronopype_mp.coordinator.reach import DATA, Names, dispatches, is_importable
from chronopype_mp.processors.network import NetworkProcessor
from chronopype_mp.processors.transfer import MAIN

__all__ = ["Change", "changes", "patches", "registered", "removed"]

PLAIN_TUPLE = collections.namedtuple("PLAIN_TUPLE", "field")

SLOTS = (
    types.MemberDescriptorType,
    types.GetSetDescriptorType,
    type(vars(PLAIN_TUPLE)["field"]),
)

METHODS = (types.FunctionType, classmethod, staticmethod, property)

CACHE = functools._lru_cache_wrapper

FUNCTION_NODES = (ast.FunctionDef, ast.AsyncFunctionDef)

MADE_BY_PYTHON = frozenset(
    {
        *vars(type("", (), {})),
        "__abstractmethods__",
        "__annotate__",
        "__annotate_func__",
        "__annotations__",
        "__annotations_cache__",
        "__classcell__",
        "__firstlineno__",
        "__hash__",
        "__match_args__",
        "__orig_bases__",
        "__parameters__",
        "__slotnames__",
        "__slots__",
        "__static_attributes__",
        "__type_params__",
        "_abc_impl",
    }
)
"""Attributes of classes that follow from the definition."""

UNSET = object()


class Change(NamedTuple):
    """An attribute to be set again.

    Attributes:
        owner: a class or a function of the main module.
        path: of the attribute, from the owner, such as ``tick.calls``.
        value: what it is now.
        is_late: it was certainly set after the definition, so that it must not be lost.
    """

    owner: Any
    path: str
    value: Any
    is_late: bool


def changes(names: Names, name: str) -> Iterator[Change]:
    """Yield the attributes that the definition of a name may not make as they are."""
    owner, definition = names.globals[name], names.definitions[name]
    search = _Search(names, owner, definition)
    if isinstance(owner, types.FunctionType | CACHE):
        yield from search.of_function(owner, definition.node, "")
    elif isinstance(owner, type):
        yield from search.of_class(owner, class_node(names, name), "")


def class_node(names: Names, name: str) -> ast.ClassDef | None:
    """Return the class statement behind a name; None if the class was made by a call."""
    for definition in (names.definitions[name], *names.bindings(name)):
        if isinstance(definition.node, ast.ClassDef):
            return definition.node
    return None


def removed(names: Names, name: str) -> Iterator[str]:
    """Yield the attributes that a definition makes and its class does not have, as paths."""
    owner = names.globals[name]
    if isinstance(owner, type):
        yield from _removed(owner, class_node(names, name), "")


def _removed(kind: type, node: ast.ClassDef | None, path: str) -> Iterator[str]:
    for key, statement in _body(node, kind).items():
        value = vars(kind).get(key, UNSET)
        if value is UNSET:
            yield path + key
        elif isinstance(statement, ast.ClassDef) and isinstance(value, type):
            yield from _removed(value, statement, f"{path}{key}.")


def registered(names: Names, name: str) -> Iterator[tuple[str, type, Any]]:
    """Yield what is registered besides: the path of the registry, the type and the function."""
    owner, definition = names.globals[name], names.definitions[name]
    if isinstance(owner, abc.ABCMeta):
        kinds = [kind for ref in abc._get_dump(owner)[0] if (kind := ref()) is not None]  # type: ignore[attr-defined]
        for kind in sorted(kinds, key=lambda kind: kind.__qualname__):
            yield "", kind, None
    executed = [definition, *(names.source.registrations(name) if names.source else ())]
    registries = [("", owner)] if dispatches(owner) else []
    if isinstance(owner, type):
        registries += [
            (key, value.dispatcher)
            for key, value in vars(owner).items()
            if isinstance(value, functools.singledispatchmethod)
        ]
    for path, registry in registries:
        for kind, function in registry.registry.items():
            code = getattr(function, "__code__", None)
            if code is None or not any(made.contains(code) for made in executed):
                yield path, kind, function


def patches(names: Names, attributes: Iterable[str]) -> Iterator[tuple[Any, str, Any]]:
    """Yield the functions of the main module that it has put into modules and their classes.

    Args:
        names: of the main module.
        attributes: the names of attributes that its code uses.
    """
    owners: dict[int, Any] = {}
    for value in names.values.values():
        if isinstance(value, types.ModuleType | type):
            owners[id(value)] = value
    for name in names.definitions:
        if isinstance(names.globals[name], type):
            owners |= {id(base): base for base in names.globals[name].__mro__}
    more = list(owners.values())
    while more:
        if isinstance(module := more.pop(), types.ModuleType):
            held = [vars(module).get(key) for key in attributes]
            found = {id(v): v for v in held if isinstance(v, types.ModuleType | type)}
            more += [value for key, value in found.items() if key not in owners]
            owners |= found
    for owner in owners.values():
        # What is put into `sys`, such as an excepthook, is meant for this process.
        is_main = (owner.__module__ if isinstance(owner, type) else owner.__name__) == MAIN
        if is_main or owner is sys:
            continue
        for key, value in list(vars(owner).items()):
            function = value.__func__ if isinstance(value, staticmethod | classmethod) else value
            if isinstance(function, types.FunctionType) and function.__globals__ is names.globals:
                yield owner, key, value


class _Search:
    """Looks through one definition."""

    def __init__(self, names: Names, owner: Any, definition: Definition) -> None:
        self._names = names
        self._owner = owner
        self._definition = definition

    def of_function(self, function: Any, node: Any, path: str) -> Iterator[Change]:
        """Yield the attributes of a function, or of what a decorator has made of one."""
        is_plain = isinstance(function, types.FunctionType) and self._definition.contains(
            function.__code__
        )
        is_bare = is_plain and not getattr(node, "decorator_list", None)
        for key, value in list(vars(function).items()):
            if is_plain or (isinstance(value, DATA) and key not in functools.WRAPPER_ASSIGNMENTS):
                yield self._change(f"{path}{key}", value, is_bare)
        if not is_plain or not isinstance(node, FUNCTION_NODES):
            return
        if self._has_other_defaults(node, function):
            yield self._change(f"{path}__defaults__", function.__defaults__, False)
            yield self._change(f"{path}__kwdefaults__", function.__kwdefaults__, False)
        if is_bare:
            if function.__name__ != node.name:
                yield self._change(f"{path}__name__", function.__name__, True)
            if _has_other_doc(node, function):
                yield self._change(f"{path}__doc__", function.__doc__, True)

    def of_class(self, kind: type, node: ast.ClassDef | None, path: str) -> Iterator[Change]:
        """Yield the attributes of a class."""
        body = _body(node, kind)
        is_simple = type(kind) in (type, abc.ABCMeta)
        is_plain = node is not None and (is_simple or type(kind).__module__ == MAIN)
        is_bare = is_simple and node is not None and not _is_extended(kind, node)
        if is_bare and node is not None and kind.__name__ != node.name:
            yield self._change(f"{path}__name__", kind.__name__, True)
        if is_bare and _has_other_doc(node, kind):
            yield self._change(f"{path}__doc__", kind.__doc__, True)
        if node is not None and is_simple and self._has_other_bases(kind, node):
            yield self._change(f"{path}__bases__", kind.__bases__, True)
        if node is None and issubclass(kind, tuple) and hasattr(kind, "_field_defaults"):
            defaults = kind.__new__.__defaults__ or ()
            if defaults != tuple(kind._field_defaults.values()):
                yield self._change(f"{path}__new__.__defaults__", defaults, True)
        made = MADE_BY_PYTHON
        if issubclass(kind, tuple) and hasattr(kind, "_field_defaults"):
            made |= vars(PLAIN_TUPLE).keys()
        for key, value in list(vars(kind).items()):
            statement = body.get(key)
            if isinstance(kind, enum.EnumMeta) and key in kind.__members__:
                yield from self._of_member(kind, key, f"{path}{key}.")
            elif self._makes(value, statement):
                function = getattr(value, "__func__", value)
                if isinstance(function, types.FunctionType | CACHE):
                    step = f"{key}.__func__." if isinstance(value, classmethod) else f"{key}."
                    yield from self.of_function(function, statement, path + step)
            elif (
                isinstance(statement, ast.ClassDef)
                and isinstance(value, type)
                and value.__qualname__ == f"{kind.__qualname__}.{key}"
            ):
                yield from self.of_class(value, statement, f"{path}{key}.")
            elif not isinstance(value, SLOTS) and key not in made:
                is_late = statement is None or (
                    isinstance(statement, (*FUNCTION_NODES, ast.ClassDef))
                    and not statement.decorator_list
                )
                if self._is_made_by_others(kind, node, statement, value):
                    continue
                if (is_late and is_bare) or self._is_other(key, value, statement, is_plain):
                    yield self._change(path + key, value, is_late and is_bare)

    def _is_made_by_others(
        self, kind: type, node: ast.ClassDef | None, statement: ast.stmt | None, value: Any
    ) -> bool:
        """Whether a decorator, a metaclass or a base class has made an attribute of a class."""
        code = next(_codes(value), None)
        if code is None:
            return False
        if not self._is_own(code):
            return _is_extended(kind, node) and self._wraps_own(value)
        roots = {decorator_root(d) for d in (*_decorators(node), *_decorators(statement))}
        roots |= {type(kind).__name__, *(base.__name__ for base in kind.__mro__)}
        return "<locals>" in code.co_qualname and code.co_qualname.split(".")[0] in roots

    def _is_other(self, key: str, value: Any, statement: ast.stmt | None, is_plain: bool) -> bool:
        """Whether an attribute that was perhaps set later is to be set again."""
        code = next(_codes(value), None)
        if code is not None and self._is_own(code):
            return True
        if key.startswith("__"):
            return False
        if isinstance(value, METHODS):
            return statement is None and is_importable(value)
        if hasattr(type(value), "__get__") or hasattr(type(value), "__set_name__"):
            return is_plain and type(value).__module__ == MAIN
        with contextlib.suppress(ValueError):
            constant = literal_of(statement)
            return not is_same(value, constant) if type(constant) is type(value) else is_plain
        return is_plain or (isinstance(value, DATA) and not key.startswith("_"))

    def _of_member(self, kind: enum.EnumMeta, name: str, path: str) -> Iterator[Change]:
        """Yield what was set on a member of an enum."""
        is_bare = not {"__init__", "__new__"} & vars(kind).keys()
        for key, value in list(getattr(kind.__members__[name], "__dict__", {}).items()):
            if not key.startswith("_") and (is_bare or isinstance(value, DATA)):
                yield self._change(path + key, value, is_bare)

    def _makes(self, value: Any, statement: ast.stmt | None) -> bool:
        """Whether a statement makes a function, or what its decorators have made of one."""
        codes = list(_codes(value))
        if statement is None or not codes or type(value).__module__ == MAIN:
            return False  # an object that a decorator has made has a state
        decorators = _decorators(statement)
        if all(map(self._definition.contains, codes)):
            return (
                not isinstance(statement, FUNCTION_NODES)
                or bool(decorators)
                or statement.lineno <= codes[0].co_firstlineno <= (statement.end_lineno or 0)
            )
        if not decorators or not isinstance(value, types.FunctionType | CACHE):
            return False
        if self._is_own(codes[0]):
            roots = set(map(decorator_root, decorators))
            if codes[0].co_qualname.split(".")[0] not in roots:
                return False
        return layers(value) <= len(decorators) and self._wraps_own(value)

    def _wraps_own(self, value: Any) -> bool:
        return any(map(self._definition.contains, _held_codes(value)))

    def _has_other_bases(self, kind: type, node: ast.ClassDef) -> bool:
        """Whether a class has other bases than its definition gives it."""
        names = [base.id for base in node.bases if isinstance(base, ast.Name)]
        bases = tuple(self._names.globals.get(name) for name in names)
        is_known = len(names) == len(node.bases) and all(isinstance(b, type) for b in bases)
        return is_known and len(bases) > 0 and bases != kind.__bases__

    def _is_own(self, code: types.CodeType) -> bool:
        assert self._names.source is not None
        return self._names.source.owns(code)

    def _has_other_defaults(self, node: Any, function: types.FunctionType) -> bool:
        """Whether the definition gives a function other defaults than it has."""
        arguments, values = node.args, function.__defaults__ or ()
        if len(values) != len(arguments.defaults):
            return True
        by_name = function.__kwdefaults__ or {}
        pairs = [
            *zip(arguments.defaults, values, strict=True),
            *(
                (default, by_name.get(argument.arg, UNSET))
                for argument, default in zip(
                    arguments.kwonlyargs, arguments.kw_defaults, strict=True
                )
                if default is not None
            ),
        ]
        return any(self._is_other_default(default, value) for default, value in pairs)

    def _is_other_default(self, node: ast.expr, value: Any) -> bool:
        if isinstance(node, ast.Name):
            return self._names.globals.get(node.id, value) is not value
        try:
            made = ast.literal_eval(node)
        except (ValueError, TypeError):
            return not isinstance(node, ast.Lambda)  # it may give something else by now
        return not is_same(value, made)

    def _change(self, path: str, value: Any, is_late: bool) -> Change:
        return Change(self._owner, path, value, is_late)


def _body(node: ast.ClassDef | None, kind: type) -> dict[str, ast.stmt]:
    """Return the statements of a class body, by the names that they bind."""
    found: dict[str, ast.stmt] = {}
    more = [] if node is None else node.body[::-1]
    while more:
        statement = more.pop()
        if isinstance(statement, BLOCKS):
            for part in ("finalbody", "orelse", "handlers", "body"):
                for inner in getattr(statement, part, ()):
                    more += inner.body if isinstance(inner, ast.ExceptHandler) else [inner]
        elif isinstance(statement, ast.AnnAssign) and statement.value is None:
            continue
        for name in bound_by(statement):
            if name.startswith("__") and not name.endswith("__"):
                name = f"_{kind.__name__.lstrip('_')}{name}"
            found[name] = statement
    return found


def _decorators(node: ast.stmt | None) -> list[ast.expr]:
    return getattr(node, "decorator_list", [])


def _is_extended(kind: type, node: ast.ClassDef | None) -> bool:
    """Whether something else than the body of a class may have set attributes of it."""
    if type(kind) not in (type, abc.ABCMeta) or _decorators(node):
        return True
    for base in kind.__mro__[1:]:
        # That of NetworkProcessor checks only.
        is_harmless = base.__module__ in ("builtins", "typing") or base is NetworkProcessor
        if "__init_subclass__" in vars(base) and not is_harmless:
            return True
    named = (value for value in vars(kind).values() if hasattr(type(value), "__set_name__"))
    return any(type(value).__module__ not in ("builtins", "functools") for value in named)


def _codes(value: Any) -> Iterator[types.CodeType]:
    """Yield the code of a function, or of the functions of a property or another descriptor."""
    if isinstance(value, types.FunctionType):
        yield value.__code__
    elif hasattr(type(value), "__get__") or isinstance(value, CACHE):
        for name in ("__func__", "__wrapped__", "fget", "fset", "fdel", "func"):
            part = getattr(value, name, None)
            if isinstance(part, types.FunctionType):
                yield part.__code__


def _held_codes(function: Any) -> Iterator[types.CodeType]:
    """Yield the code of what a decorator's function wraps, as far as it can be found."""
    seen, more = set(), [function]
    while more:
        value = more.pop()
        if id(value) in seen or not isinstance(value, types.FunctionType | CACHE):
            continue
        seen.add(id(value))
        yield from _codes(value)
        more.append(getattr(value, "__wrapped__", None))
        for cell in getattr(value, "__closure__", None) or ():
            with contextlib.suppress(ValueError):  # an empty cell
                more.append(cell.cell_contents)


def _has_other_doc(node: Any, owner: Any) -> bool:
    """Whether the docstring of a class or a function was changed. Python may leave it out."""
    doc = owner.__doc__
    return isinstance(doc, str) and inspect.cleandoc(doc) != ast.get_docstring(node)
