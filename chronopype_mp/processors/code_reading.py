"""What the code of a user's class does, read from its bytecode without running it.

`chronopype_mp.processors.hook_checks` asks before it calls something a mistake: a method that the
class itself calls is no misspelt hook.
"""

from __future__ import annotations

import contextlib
import dis
import functools
import inspect
import itertools
from collections.abc import Iterator, Sequence
from types import CodeType, FunctionType, MethodType
from typing import NamedTuple

__all__ = [
    "ClassCode",
    "Use",
    "arguments_problem",
    "code_of",
    "function_of",
    "never_awaitable",
    "user_classes",
]

PACKAGE = "chronopype_mp."

MUTATORS = frozenset(
    {
        *("add", "append", "appendleft", "clear", "discard", "extend", "insert", "pop", "popitem"),
        *("popleft", "put", "put_nowait", "remove", "setdefault", "update"),
    }
)
"""Methods by which containers and queues are changed."""

TASK_MAKERS = frozenset({"create_task", "ensure_future"})
"""asyncio's functions and methods that start a task."""

WAITERS = frozenset({"as_completed", "gather", "shield", "wait", "wait_for"})
"""asyncio's functions that wait for tasks."""

FATES = ("STORE_", "LIST_APPEND", "POP_TOP", "RETURN_VALUE", "GET_AWAITABLE")
"""How the instructions begin that decide what becomes of the result of a call."""

VALUES = frozenset({"LOAD_CONST", "LOAD_SMALL_INT", "LOAD_ATTR", "COMPARE_OP", "CONTAINS_OP"})
"""Instructions whose result is hardly something to await."""


class Use(NamedTuple):
    """A place at which a function changes a variable.

    Attributes:
        function: the name of the function.
        name: the variable's name.
        value: what it is now, in this process.
    """

    function: str
    name: str
    value: object


def user_classes(kind: type) -> list[type]:
    """Return the classes of an MRO that the user wrote, the most derived first."""
    return [
        each
        for each in kind.__mro__
        if each.__module__ != "builtins" and not f"{each.__module__}.".startswith(PACKAGE)
    ]


def function_of(value: object) -> FunctionType | None:
    """Return the function behind a method, a partial, a property or a decorator; None if none."""
    for _ in range(10):
        match value:
            case FunctionType():
                inner = getattr(value, "__wrapped__", None)
                if inner is None:
                    return value
                value = inner
            case classmethod() | staticmethod():
                value = value.__func__
            case property():
                value = value.fget
            case functools.partial():
                value = value.func
            case MethodType():
                value = value.__func__
            case _:
                inner = inspect.getattr_static(value, "__wrapped__", None)
                if inner is None:
                    return None
                value = inner
    return None


def arguments_problem(function: object, arguments: Sequence[str]) -> str | None:
    """Return why something cannot be called with positional arguments; None if it can.

    Args:
        function: what is called.
        arguments: their names, for the message.
    """
    try:
        signature = inspect.signature(function)  # type: ignore[arg-type]  # TypeError if it is none
    except (TypeError, ValueError):
        return None  # unknown
    try:
        signature.bind(*arguments)
    except TypeError:
        return f"takes {signature}, but is called with {', '.join(arguments) or 'no arguments'}"
    return None


def never_awaitable(function: FunctionType) -> bool:
    """Whether a plain function never returns, or evidently returns what cannot be awaited."""
    before, returns = "", False
    for step in dis.get_instructions(function):
        if step.opname == "RETURN_CONST" or (step.opname == "RETURN_VALUE" and before in VALUES):
            return True
        returns = returns or step.opname == "RETURN_VALUE"
        if step.opname not in ("NOP", "RESUME", "CACHE"):
            before = step.opname
    return not returns


class ClassCode:
    """The code of all methods that the user's classes in an MRO define; see `code_of`.

    Args:
        kind: the class.
    """

    def __init__(self, kind: type) -> None:
        self._codes = [
            (function, code, list(dis.get_instructions(code)))
            for each in user_classes(kind)
            for value in vars(each).values()
            for function in _functions(value)
            for code in _codes(function.__code__)
        ]
        self._static = {
            function_of(value)
            for each in user_classes(kind)
            for value in vars(each).values()
            if isinstance(value, staticmethod)
        }

    @functools.cached_property
    def names_read(self) -> frozenset[str]:
        """The names of all attributes that are read."""
        return frozenset(
            step.argval
            for _, _, steps in self._codes
            for step in steps
            if step.opname in ("LOAD_ATTR", "LOAD_METHOD", "LOAD_SUPER_ATTR")
        )

    @functools.cached_property
    def _texts(self) -> frozenset[str]:
        """The texts that may be names of attributes."""
        return frozenset(
            constant
            for _, code, _ in self._codes
            if "getattr" in code.co_names
            for constant in code.co_consts
            if isinstance(constant, str)
        )

    def mentions(self, name: str) -> bool:
        """Whether an attribute is read, also as in ``getattr(self, f"on_{name}")``."""
        return name in self.names_read or any(
            text == name or (text.endswith("_") and name.startswith(text)) for text in self._texts
        )

    @functools.cached_property
    def names_set(self) -> tuple[tuple[FunctionType, str], ...]:
        """The attributes that methods assign to on ``self``, with the method."""
        return tuple(
            (function, step.argval)
            for function, code, steps in self._codes
            if function.__code__.co_argcount and function not in self._static
            for before, step in itertools.pairwise(steps)
            if step.opname == "STORE_ATTR"
            and _loaded_last(before) == function.__code__.co_varnames[0]
            # A function inside a method may have a ``self`` of its own.
            and (code is function.__code__ or _loaded_last(before) in code.co_freevars)
        )

    def changes_own(self, name: str) -> bool:
        """Whether a method changes the object in ``self.name``, as ``self.name.append`` does."""
        return any(
            step.opname in ("LOAD_ATTR", "LOAD_METHOD")
            and step.argval in MUTATORS
            and before.opname == "LOAD_ATTR"
            and before.argval == name
            for _, _, steps in self._codes
            for before, step in itertools.pairwise(steps)
        )

    def starts_task(self, function: FunctionType) -> bool:
        """Whether a method, or a function inside it, starts a task that belongs to nobody."""
        return any(
            _starts_task(before, step) and not _awaits_task(each, code, steps[place + 2 :])
            for each, code, steps in self._codes
            if each is function
            for place, (before, step) in enumerate(itertools.pairwise(steps))
        )

    def changes_outside(self) -> Iterator[Use]:
        """Yield the variables of the main module and of enclosing functions that are changed."""
        for function, _, steps in self._codes:
            names = {_changed(steps, index) for index in range(len(steps))} - {""}
            known = _outside(function) if names else {}
            for name in sorted(names & known.keys()):
                yield Use(function.__qualname__, name, known[name])


@functools.lru_cache(maxsize=100)
def code_of(kind: type) -> ClassCode:
    """Return the code of a class; it is read once."""
    return ClassCode(kind)


def _functions(value: object, depth: int = 3) -> Iterator[FunctionType]:
    """Yield the function behind a value, and those that it has in variables, as decorators do."""
    function = function_of(value)
    if function is not None:
        yield function
        for inner in _enclosed(function).values() if depth else ():
            if isinstance(inner, FunctionType):
                yield from _functions(inner, depth - 1)


def _codes(code: CodeType) -> Iterator[CodeType]:
    """Yield a function's code and that of the functions inside it."""
    yield code
    for constant in code.co_consts:
        if isinstance(constant, CodeType):
            yield from _codes(constant)


def _starts_task(before: dis.Instruction, step: dis.Instruction) -> bool:
    """Whether an instruction gets what starts a task from asyncio or an event loop.

    A `TaskGroup` has such a method, too, but its tasks belong to it.
    """
    if step.argval not in TASK_MAKERS:
        return False
    if step.opname == "LOAD_GLOBAL":
        return True
    if step.opname not in ("LOAD_ATTR", "LOAD_METHOD"):
        return False
    return before.opname.startswith("CALL") or before.argval in ("asyncio", "loop")


def _awaits_task(function: FunctionType, code: CodeType, after: Sequence[dis.Instruction]) -> bool:
    """Whether a hook itself waits for a task that it starts, or returns it.

    Args:
        function: the hook.
        code: its code, or that of a function inside it.
        after: the instructions after the start.
    """
    end = next((step for step in after if step.opname.startswith(FATES)), None)
    if end is None or end.opname in ("POP_TOP", "GET_AWAITABLE"):
        return end is not None and end.opname == "GET_AWAITABLE"
    if end.opname == "RETURN_VALUE" and code is function.__code__:
        return True
    is_local = end.opname != "STORE_ATTR"
    if is_local and not WAITERS.isdisjoint((*code.co_names, *function.__code__.co_names)):
        return True
    kept = end.argval[0] if isinstance(end.argval, tuple) else end.argval
    return any(
        step.opname == "GET_AWAITABLE" and kept in (_loaded_last(before), before.argval)
        for before, step in itertools.pairwise(after)
    )


def _loaded_last(step: dis.Instruction) -> object:
    """Return the variable that an instruction leaves on top of the stack, if it loads one."""
    if "LOAD_FAST" not in step.opname and step.opname != "LOAD_DEREF":
        return None
    # From 3.13 on, one instruction may store or load two.
    return step.argval[-1] if isinstance(step.argval, tuple) else step.argval


def _outside(function: FunctionType) -> dict[str, object]:
    """Return the variables that a function shares with the main module and with closures."""
    known: dict[str, object] = {}
    if function.__globals__.get("__name__") == "__main__":
        known.update(function.__globals__)
    return known | _enclosed(function)


def _enclosed(function: FunctionType) -> dict[str, object]:
    """Return the variables of enclosing functions that a function uses."""
    known: dict[str, object] = {}
    for name, cell in zip(function.__code__.co_freevars, function.__closure__ or (), strict=True):
        with contextlib.suppress(ValueError):  # not assigned yet
            known[name] = cell.cell_contents
    return known


def _changed(steps: list[dis.Instruction], index: int) -> str:
    """Return the name of the outer variable that an instruction changes; "" if it changes none."""
    step = steps[index]
    if step.opname == "STORE_GLOBAL":
        return str(step.argval)
    if step.opname in ("LOAD_ATTR", "LOAD_METHOD") and step.argval in MUTATORS and index >= 1:
        holder = steps[index - 1]
    elif step.opname == "STORE_SUBSCR" and index >= 2:
        holder = steps[index - 2]
    else:
        return ""
    return str(holder.argval) if holder.opname in ("LOAD_GLOBAL", "LOAD_DEREF") else ""
