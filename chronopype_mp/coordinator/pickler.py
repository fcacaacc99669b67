"""dill's pickler with the rules for what a worker finds by name, gets by value, or cannot get."""

from __future__ import annotations

import abc
import ast
import collections
import dis
import enum
import functools
import importlib
import io
import itertools
import struct
import sys
import threading
import types
import typing
import weakref
from collections.abc import Callable
from typing import Any, ClassVar

import dill
from dill import _dill

from chronopype_mp.coordinator.object_graph import ATOMS
from chronopype_mp.coordinator.reach import Reach, dispatches, is_importable
from chronopype_mp.coordinator.refusals import (
    INSTEAD,
    OWN_MODULE,
    Refused,
    is_channel,
    why_refused,
)
from chronopype_mp.processors.network import NetworkProcessor
from chronopype_mp.processors.transfer import (
    MAIN,
    cached,
    imported_name,
    item,
    make_enum,
    namespace,
    set_attributes,
    type_variable,
)

__all__ = ["Pickler"]

HEAP_TYPE = 1 << 9
"""The flag of a class that was made by Python code or could have been."""

FUNCTIONS = (types.FunctionType, classmethod, staticmethod, property)
"""What of an enum is set again when it is made by value."""

SET_BY_CACHE = {*functools.WRAPPER_ASSIGNMENTS, "__wrapped__", "cache_parameters"}
"""What `functools.lru_cache` sets."""

TYPE_VARIABLES = tuple(
    getattr(typing, name)
    for name in ("TypeVar", "ParamSpec", "TypeVarTuple")
    if hasattr(typing, name)
)


class Pickler(dill.Pickler):  # type: ignore[misc]
    """Pickles what belongs to one processor.

    Args:
        file: where to.
        reach: notes what is needed of the main module.
        source: the processor, which may not refer to others.
    """

    dispatch: ClassVar[dict[type, Any]] = dict(dill.Pickler.dispatch)

    def __init__(self, file: io.BytesIO, reach: Reach, source: object) -> None:
        super().__init__(file, recurse=True)
        self.reach = reach
        self._source = source

    def save(self, obj: Any, save_persistent_id: bool = True) -> None:
        """Save an object. Refuse it if it would arrive as something else."""
        if type(obj) not in ATOMS and id(obj) not in self.memo:
            if id(obj) in self.reach.named:
                self.save_reduce(item, self.reach.named[id(obj)], obj=obj)
                return
            if id(obj) in self.reach.imports:
                self.save_reduce(imported_name, self.reach.imports[id(obj)], obj=obj)
                return
            if isinstance(obj, type):
                self._save_class(obj)
                return
            if isinstance(obj, typing.ForwardRef) and self.reach.spaces:
                self.reach.need_annotations(self.reach.main, [obj])
            reason = None if obj is self._source else why_refused(obj)
            if reason is not None:
                raise Refused(reason, INSTEAD if is_channel(obj) else None, culprit=obj)
        super().save(obj, save_persistent_id)

    def save_global(self, obj: Any, name: str | None = None) -> None:
        """Save an object by the name that its own ``__reduce__`` gives."""
        if isinstance(obj, TYPE_VARIABLES):
            module = sys.modules.get(obj.__module__)
            if getattr(module, obj.__name__, None) is not obj:  # of `class Box[T]`
                self._save_without_name(obj)
                return
        if getattr(obj, "__module__", None) == MAIN:
            first = (name or getattr(obj, "__qualname__", obj.__name__)).partition(".")[0]
            self.reach.need(self.reach.main, first)
            if first not in self.reach.main.definitions:
                self._save_without_name(obj)
                return
        super().save_global(obj, name)

    def _save_without_name(self, obj: Any) -> None:
        if isinstance(obj, TYPE_VARIABLES):
            options = {
                option: getattr(obj, f"__{option}__")
                for option in ("bound", "covariant", "contravariant", "infer_variance")
                if getattr(obj, f"__{option}__", None)
            }
            arguments = (obj.__name__, *getattr(obj, "__constraints__", ()))
            self.save_reduce(type_variable, (type(obj), arguments, options), obj=obj)
        else:
            problem = f"{obj!r} has no name by which a worker finds it"
            raise Refused(self.reach.why_no_source(problem), OWN_MODULE, obj)

    def _save_class(self, kind: type) -> None:
        if kind.__module__ == MAIN and self.reach.is_named(kind):
            _dill.StockPickler.save_global(self, kind, kind.__qualname__)
        elif kind.__flags__ & HEAP_TYPE and not _is_importable(kind):
            problem = _why_not_by_value(kind)
            if problem is not None:
                problem = self.reach.why_no_source(f"the class {kind.__qualname__} {problem}")
                raise Refused(problem, OWN_MODULE, kind)
            if kind.__module__ == MAIN:
                annotations = getattr(kind, "__annotations__", {})
                self.reach.need_annotations(self.reach.main, annotations.values())
            if isinstance(kind, enum.EnumMeta):
                self._save_enum(kind)
            else:
                self._save_by_value(kind)
        else:
            super().save(kind)

    def _save_by_value(self, kind: type) -> None:
        try:
            _dill.save_type(self, kind)
        except dill.PicklingWarning as warning:
            if "Cannot locate reference" not in str(warning):
                raise
            problem = f"the class {kind.__qualname__} holds its own objects"
            raise Refused(self.reach.why_no_source(problem), OWN_MODULE, kind) from warning

    def _save_enum(self, kind: enum.EnumMeta) -> None:
        members = {name: getattr(kind, name).value for name in kind.__members__}
        rest = {
            name: value
            for name, value in vars(kind).items()
            if name not in members
            and (isinstance(value, FUNCTIONS) or not name.startswith("_") or name == "__doc__")
            and name not in ("__new__", "_generate_next_value_", "_new_member_", "__new_member__")
        }
        self.save_reduce(
            make_enum,
            (kind.__name__, kind.__bases__, kind.__module__, kind.__qualname__, members),
            state=rest,
            state_setter=set_attributes,
            obj=kind,
        )


def _save_function(pickler: Pickler, function: types.FunctionType) -> None:
    reach = pickler.reach
    if function.__module__ == MAIN and reach.is_named(function):
        _dill.StockPickler.save_global(pickler, function, function.__qualname__)
        return
    if dispatches(function):
        problem = f"the function {function.__qualname__} dispatches by type"
        raise Refused(reach.why_no_source(problem), OWN_MODULE, function)
    names = reach.space_of(function.__globals__)
    if names is not None:
        reach.need_all_in(names, function.__code__)
        reach.need_annotations(names, function.__annotations__.values())
        # This is how dill is told that the globals are a namespace that is there already.
        pickler._original_main = pickler._main = names.holder
    pickler._main_modified = names is not None
    pickler._recurse = names is None
    _dill.save_function(pickler, function)


def _save_cache(pickler: Pickler, function: Any) -> None:
    is_named = function.__module__ == MAIN and pickler.reach.is_named(function)
    if is_named or is_importable(function):
        _dill.StockPickler.save_global(pickler, function, function.__qualname__)
        return
    cache = function.cache_parameters()
    made = cached, (function.__wrapped__, cache["maxsize"], cache["typed"])
    state = {key: value for key, value in vars(function).items() if key not in SET_BY_CACHE}
    pickler.save_reduce(*made, state=state or None, state_setter=set_attributes, obj=function)


def _save_dict(pickler: Pickler, value: dict[Any, Any]) -> None:
    names = pickler.reach.spaces.get(id(value))
    module = sys.modules.get(value["__name__"]) if "__spec__" in value else None
    if names is not None:
        pickler.save_reduce(namespace, (names.key,), obj=value)
    elif module is not None and vars(module) is value:
        pickler.save_reduce(vars, (module,), obj=value)
    else:
        _dill.StockPickler.save_dict(pickler, value)


def _save_module(pickler: Pickler, module: types.ModuleType) -> None:
    if sys.modules.get(module.__name__) is not module:
        raise Refused(f"{module!r} cannot be imported", culprit=module)
    if module.__name__ == MAIN:
        assert pickler.reach.main  # the worker gets one
    pickler.save_reduce(importlib.import_module, (module.__name__,), obj=module)


def _save_lock(pickler: Pickler, lock: Any) -> None:
    """Save a lock that nobody holds. The worker's is a new one."""
    make: Callable[[], object] = threading.Lock
    is_held = False
    if isinstance(lock, type(threading.RLock())):
        make, is_held = threading.RLock, lock._is_owned()  # type: ignore[attr-defined]
    if is_held or not lock.acquire(blocking=False):
        raise Refused("a lock that is held here could never be released there", culprit=lock)
    lock.release()
    pickler.save_reduce(make, (), obj=lock)


def _save_weak_dictionary(pickler: Pickler, value: Any) -> None:
    pickler.save_reduce(type(value), (dict(value),), obj=value)


def _save_struct(pickler: Pickler, value: struct.Struct) -> None:
    pickler.save_reduce(struct.Struct, (value.format,), obj=value)


def _save_partialmethod(pickler: Pickler, value: functools.partialmethod[Any]) -> None:
    make = functools.partial(functools.partialmethod, value.func, *value.args, **value.keywords)
    pickler.save_reduce(make, (), obj=value)


def _save_count(pickler: Pickler, counter: itertools.count[Any]) -> None:
    """Save a counter by its repr, which alone shows its position since Python 3.14."""
    arguments = repr(counter).removeprefix("count(").removesuffix(")")
    try:
        made = ast.literal_eval(f"({arguments},)")
    except (ValueError, SyntaxError):
        raise Refused(f"{counter!r} counts in objects", culprit=counter) from None
    pickler.save_reduce(itertools.count, made, obj=counter)


Pickler.dispatch.update(
    {
        types.FunctionType: _save_function,
        functools._lru_cache_wrapper: _save_cache,
        functools.partialmethod: _save_partialmethod,
        itertools.count: _save_count,
        dict: _save_dict,
        types.ModuleType: _save_module,
        struct.Struct: _save_struct,
        weakref.WeakKeyDictionary: _save_weak_dictionary,
        weakref.WeakValueDictionary: _save_weak_dictionary,
        type(threading.Lock()): _save_lock,
        type(threading.RLock()): _save_lock,
    }
)


def _is_importable(kind: type) -> bool:
    if kind in _dill._typemap:
        return True
    if "<locals>" in kind.__qualname__ or kind.__module__ == MAIN:
        return False
    try:
        found: Any = importlib.import_module(kind.__module__)
        for part in kind.__qualname__.split("."):
            found = getattr(found, part)
    except (ImportError, AttributeError):
        return False
    return found is kind


def _why_not_by_value(kind: type) -> str | None:
    """Return why a class cannot be made again from its attributes alone; None if it can."""
    if isinstance(kind, enum.EnumMeta):
        own = ("__init__", "__new_member__", "_generate_next_value_")
        for name in own:
            method = vars(kind).get(name)
            method = getattr(method, "__func__", method)
            if isinstance(method, types.FunctionType) and method.__module__ != "enum":
                return f"is an enum with {name.replace('new_member', 'new')}"
        member: enum.Enum
        for member in kind.__members__.values():
            if any(not name.startswith("_") for name in getattr(member, "__dict__", ())):
                return f"is an enum whose member {member.name} has attributes"
        return None if type(kind) is enum.EnumMeta else f"has the metaclass {type(kind).__name__}"
    if type(kind) not in (type, abc.ABCMeta):
        return f"has the metaclass {type(kind).__name__}"
    for base in kind.__mro__[1:]:
        # That of NetworkProcessor has no effect on a class that it has seen before.
        is_harmless = base.__module__ in ("builtins", "typing") or base is NetworkProcessor
        if "__init_subclass__" in vars(base) and not is_harmless:
            return f"inherits __init_subclass__ from {base.__name__}"
    if kind.__bases__ == (tuple,) and hasattr(kind, "_fields"):
        plain = vars(collections.namedtuple("plain", kind._fields))
        own_names = {n for n in vars(kind) if n not in plain and not n.startswith("__")}
        if own_names:
            return f"is a named tuple with {min(own_names)}"
    for name, value in vars(kind).items():
        if isinstance(value, functools.singledispatchmethod):
            return f"has {name}, which dispatches by type"
        if type(value).__module__ == MAIN and _changes_owner(type(value)):
            return f"has {name}, whose __set_name__ changes the class"
    return None


def _changes_owner(kind: type) -> bool:
    """Whether the ``__set_name__`` of a descriptor does something with the class."""
    code = getattr(getattr(kind, "__set_name__", None), "__code__", None)
    if code is None or code.co_argcount < 2:
        return False
    return any(step.argval == code.co_varnames[1] for step in dis.get_instructions(code))
