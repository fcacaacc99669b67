"""Checks of a processor's hooks and settings, made when it is added to a clock.

What cannot work is refused with a `HookError`. What only looks like a mistake, because it may be
meant, is returned as a warning; `hook_hints` makes these. `hook_names` has the names that matter;
everything else is derived from them and from the base classes.
"""

from __future__ import annotations

import difflib
import functools
import inspect
import weakref

from chronopype_mp.exceptions import HookError
from chronopype_mp.processors.base import TickProcessor
from chronopype_mp.processors.code_reading import (
    ClassCode,
    arguments_problem,
    code_of,
    function_of,
    returns_a_value,
    user_classes,
)
from chronopype_mp.processors.hook_hints import hints
from chronopype_mp.processors.hook_names import (
    HOOKS,
    NETWORK_HOOKS,
    SHOWN,
    Hook,
    base_of,
    is_own,
    static_of,
    where,
)
from chronopype_mp.processors.network import NetworkProcessor

__all__ = ["check_class", "check_hooks"]

LONG = 8
"""Characters of a name from which on a likeness is no coincidence."""

LIKENESS = 0.9
"""`difflib` ratio from which on a long name is taken for a misspelt one."""

_warnings: weakref.WeakKeyDictionary[type, dict[tuple[str, ...], list[str]]] = (
    weakref.WeakKeyDictionary()
)
"""Of classes that passed, by the names of an object's attributes: many objects have one class."""


def check_hooks(processor: TickProcessor) -> list[str]:
    """Check a processor's hooks and settings.

    Args:
        processor: as it is about to be sent to its worker.

    Returns:
        Warnings: what works, but probably not as meant.

    Raises:
        HookError: a hook cannot work, or a name is a misspelt hook or setting.
    """
    known = _warnings.setdefault(type(processor), {})
    names = tuple(vars(processor))
    if names not in known or any(map(callable, vars(processor).values())):
        known[names] = _check(processor)
    return list(known[names])


def _check(processor: TickProcessor) -> list[str]:
    kind: type = type(processor)
    hooks = HOOKS + (NETWORK_HOOKS if isinstance(processor, NetworkProcessor) else ())
    code = code_of(kind)
    for hook in hooks:
        _check_required(processor, hook)
    _check_names_kept(processor, code)
    for hook in hooks:
        _check_hook(processor, hook)
    for name in SHOWN:
        _check_shown(processor, name)
    own = _own_names(processor)
    for name, value in own.items():
        _check_spelling(kind, name, value, hooks, code)
    return list(hints(processor, own, hooks, code))


def check_class(kind: type[TickProcessor]) -> list[str]:
    """Check a class whose instances will be made in the worker; see `check_hooks`."""
    try:
        bare = object.__new__(kind)
    except TypeError:  # its layout is not that of plain objects
        return []
    return check_hooks(bare)


def _check_required(processor: TickProcessor, hook: Hook) -> None:
    if hook.required and not is_own(processor, hook.name):
        name = type(processor).__name__
        raise HookError(name, hook.name, f"{name} does not override {hook.name}; {hook.required}")


def _check_hook(processor: TickProcessor, hook: Hook) -> None:
    static = static_of(processor, hook.name)
    if static is None or not is_own(processor, hook.name):
        return
    kind = type(processor).__name__
    place = f"{kind}.{hook.name}"
    try:
        value: object = getattr(processor, hook.name)
    except Exception:  # a property's
        value = static
    if isinstance(static, property) and not callable(value):
        problem = f"{place} is a property, but it is a hook; make it `{hook.definition}`"
        raise HookError(kind, hook.name, problem + where(static))
    if not callable(value):
        problem = (
            f"{place} = {value!r} hides the hook {hook.name}(); rename the attribute, or define "
            f"`{hook.definition}`"
        )
        raise HookError(kind, hook.name, problem)
    if hook.name == "tick" and is_own(processor, "async_tick"):
        return  # only async_tick is called
    problem = _kind_problem(value, hook) or _arguments_problem(value, hook)
    if problem:
        raise HookError(kind, hook.name, f"{place} {problem}{where(value)}")


def _kind_problem(value: object, hook: Hook) -> str:
    """Return what is wrong with how a hook is defined; "" if nothing is."""
    function = function_of(value)
    if function is None:
        return ""
    if inspect.isgeneratorfunction(function) or inspect.isasyncgenfunction(function):
        if getattr(value, "__wrapped__", None) is not None:
            return ""  # a decorator, such as contextmanager, makes something else of it
        return f"contains `yield`, so calling it runs nothing; make it a `{hook.definition}`"
    if inspect.iscoroutinefunction(value) and hook.awaited is False:
        if hook.name == "tick":
            return "is `async def`, but nobody awaits it; rename it to async_tick"
        return f"is `async def`, but nobody awaits it; make it `{hook.definition}`"
    # A plain function, such as a decorator's, may return an awaitable.
    is_coroutine = inspect.iscoroutinefunction(value) or inspect.iscoroutinefunction(function)
    if hook.awaited and not is_coroutine and returns_a_value(function):
        return f"is a plain function, but it is awaited; make it `{hook.definition}`"
    return ""


def _arguments_problem(value: object, hook: Hook) -> str:
    """Return what is wrong with a hook's parameters; "" if nothing is."""
    problem = arguments_problem(value, hook.arguments)
    return "" if problem is None else f"{problem}; make it `{hook.definition}`"


def _check_shown(processor: TickProcessor, name: str) -> None:
    static = static_of(processor, name)
    is_descriptor = hasattr(type(static), "__get__") and not inspect.isroutine(static)
    if not is_own(processor, name) or is_descriptor:
        return
    kind = type(processor).__name__
    raise HookError(
        kind,
        name,
        f"{kind}.{name} hides the property {name}, which shows what the worker reported; "
        f"use another name{where(static)}",
    )


def _check_names_kept(processor: TickProcessor, code: ClassCode) -> None:
    """Check that no method assigns to an attribute in which a base class keeps its own state."""
    kept = {
        name: base.__name__
        for base in (TickProcessor, base_of(processor))
        for name in vars(base)
        if name.startswith("_") and not name.startswith("__")
    }
    kind = type(processor).__name__
    for function, name in code.names_set:
        if name in kept:
            problem = (
                f"{function.__qualname__} sets self.{name}, in which {kept[name]} keeps its own "
                f"state; use another name{where(function)}"
            )
            raise HookError(kind, name, problem)


def _own_names(processor: TickProcessor) -> dict[str, object]:
    """Return the public attributes that no base class from elsewhere defines."""
    kind = type(processor)
    hooks = {hook.name for hook in HOOKS}
    inherited = {
        name
        for base in kind.__mro__
        if not (issubclass(base, TickProcessor) and base in user_classes(kind))
        for name in vars(base)
    }
    own = {
        name: value
        for base in reversed(user_classes(kind))
        if issubclass(base, TickProcessor)
        for name, value in vars(base).items()
    }
    own.update(vars(processor))
    return {
        name: value
        for name, value in own.items()
        if not name.startswith("_") and name not in inherited and name not in hooks
    }


@functools.cache
def _settings(base: type) -> tuple[str, ...]:
    """Return the names of a base class's settings."""
    return tuple(
        name
        for each in base.__mro__
        for name, value in vars(each).items()
        if not name.startswith("_") and not inspect.isroutine(value) and name not in SHOWN
    )


def _check_spelling(
    kind: type, name: str, value: object, hooks: tuple[Hook, ...], code: ClassCode
) -> None:
    function = function_of(value)
    if isinstance(value, property):
        return
    if function is not None:
        near = next((hook.name for hook in hooks if _is_like(name, hook, function)), None)
        what = "hook"
    elif len(name) >= LONG:
        base = NetworkProcessor if issubclass(kind, NetworkProcessor) else TickProcessor
        found = difflib.get_close_matches(name, _settings(base), n=1, cutoff=LIKENESS)
        near = found[0] if found else None
        what = "setting"
    else:
        return
    if near is not None and not code.mentions(name):
        problem = (
            f"{kind.__name__}.{name} is not a {what}: did you mean {near}? A method or attribute "
            f"of your own needs a name that is less alike{where(value)}"
        )
        raise HookError(kind.__name__, name, problem)


def _is_like(name: str, hook: Hook, function: object) -> bool:
    """Whether a method's name is a misspelt hook's."""
    if name.replace("_", "").lower() == hook.name.replace("_", ""):
        return True
    if len(hook.name) >= LONG:
        return difflib.SequenceMatcher(None, name, hook.name).ratio() >= LIKENESS
    swapped = {
        hook.name[:i] + hook.name[i + 1] + hook.name[i] + hook.name[i + 2 :]
        for i in range(len(hook.name) - 1)
    }
    # A letter short, it is a word of its own too often, unless it takes the same.
    lacking = {hook.name[:i] + hook.name[i + 1 :] for i in range(len(hook.name))}
    return name in swapped or (
        name in lacking
        and bool(hook.arguments)
        and arguments_problem(function, ("self", *hook.arguments)) is None
    )
