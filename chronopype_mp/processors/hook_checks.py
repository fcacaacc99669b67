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

from chronopype_mp.core.outputs import PayloadTypes
from chronopype_mp.exceptions import HookError
from chronopype_mp.processors.base import TickProcessor
from chronopype_mp.processors.code_reading import (
    ClassCode,
    arguments_problem,
    code_of,
    function_of,
    never_awaitable,
    user_classes,
)
from chronopype_mp.processors.hook_hints import hints
from chronopype_mp.processors.hook_names import (
    CALLS,
    HOOKS,
    MESSAGE_HOOKS,
    NETWORK_HOOKS,
    SHOWN,
    Hook,
    base_of,
    hidden_by_order,
    is_own,
    of_class,
    order_problem,
    static_of,
    where,
)
from chronopype_mp.processors.network import SETTINGS, NetworkProcessor
from chronopype_mp.processors.network_settings import NetworkSetting
from chronopype_mp.processors.remote_methods import is_remote
from chronopype_mp.processors.state_settings import check_state_settings

__all__ = ["check_class", "check_hooks"]

LONG = 8
"""Characters of a name from which on a likeness is no coincidence."""

LIKENESS = 0.9
"""`difflib` ratio from which on a long name is taken for a misspelt one."""

_warnings: weakref.WeakKeyDictionary[type, dict[tuple[str, ...], list[str]]] = (
    weakref.WeakKeyDictionary()
)
"""Of classes that passed, by the names of an object's attributes: many objects have one class.

Objects of which an attribute is callable are left out, because it may be a hook.
"""


def check_hooks(processor: TickProcessor) -> list[str]:
    """Check a processor's hooks and settings.

    Args:
        processor: as it is about to be sent to its worker.

    Returns:
        Warnings: what works, but probably not as meant.

    Raises:
        HookError: a hook cannot work, a name is a misspelt hook or setting or hides what belongs to
            the framework, or a setting was assigned to the class later than in its body.
        ConfigError: a setting of the snapshots, or ``mirrored``, is invalid.
    """
    _check_settings_kept(processor)
    check_state_settings(processor)
    if any(map(callable, vars(processor).values())):
        return _check(processor)
    known = _warnings.setdefault(type(processor), {})
    names = tuple(vars(processor))
    if names not in known:
        known[names] = _check(processor)
    return list(known[names])


def _check(processor: TickProcessor) -> list[str]:
    kind: type = type(processor)
    hooks = HOOKS + (NETWORK_HOOKS if isinstance(processor, NetworkProcessor) else ())
    code = code_of(kind)
    if _subscribes(processor, code):
        hooks += MESSAGE_HOOKS
    _check_settable(processor)
    for hook in hooks:
        _check_required(processor, hook)
    _check_names_kept(processor, code)
    _check_calls(processor, code)
    for hook in hooks:
        _check_hook(processor, hook)
    for name in SHOWN:
        _check_shown(processor, name)
    _check_wants_ticks(processor)
    _check_both(processor, "snapshot", "restore")
    for name in ("output_types", "message_types"):
        _check_types(processor, name)
    own = _own_names(processor)
    for name, value in own.items():
        _check_spelling(kind, name, value, hooks, code)
    return list(hints(processor, own, hooks, code))


def _subscribes(processor: TickProcessor, code: ClassCode) -> bool:
    """Whether a processor gets messages, as far as its code tells.

    The names are common. A class with a ``subscribe`` of its own means that one.
    """
    calls_ours = code.mentions("subscribe") and not is_own(processor, "subscribe")
    return calls_ours or bool(processor._initial_topics)


def check_class(kind: type[TickProcessor]) -> list[str]:
    """Check a class whose instances will be made in the worker; see `check_hooks`."""
    try:
        bare = object.__new__(kind)
    except TypeError:  # its layout is not that of plain objects
        return []
    return check_hooks(bare)


def _check_settable(processor: TickProcessor) -> None:
    """Check that attributes can be set, as the clock and the worker do."""
    try:
        processor._is_hosted_in_place = processor._is_hosted_in_place
    except AttributeError as error:
        if type(error).__name__ != "FrozenInstanceError":  # of dataclasses, or of attrs
            return  # a ``__setattr__`` that needs what ``__init__`` makes
        kind = type(processor).__name__
        problem = f"{kind} is frozen, but its hooks and its worker set attributes of it"
        raise HookError(kind, "__setattr__", f"{problem}; leave out frozen=True") from None


def _check_required(processor: TickProcessor, hook: Hook) -> None:
    if hook.required and not is_own(processor, hook.name):
        kind = type(processor)
        name = kind.__name__
        hidden = hidden_by_order(kind, hook.name)
        remedy = hook.required if hidden is None else order_problem(kind, hidden)
        raise HookError(name, hook.name, f"{name} does not override {hook.name}; {remedy}")


def _check_hook(processor: TickProcessor, hook: Hook) -> None:
    static = static_of(processor, hook.name)
    if not is_own(processor, hook.name):
        return
    kind = type(processor).__name__
    place = f"{kind}.{hook.name}"
    if is_remote(static):
        problem = f"{place} is a hook, which the framework calls; take @remote away from it"
        raise HookError(kind, hook.name, f"{problem}{where(static)}")
    try:
        value: object = getattr(processor, hook.name)
    except Exception:  # a property's
        value = static
    if isinstance(static, property) and not callable(value):
        problem = f"{place} is a property, but it is a hook; make it `{hook.definition}`"
        raise HookError(kind, hook.name, problem + where(static))
    if not callable(value):
        remedy = "leave it out" if value is None else "rename the attribute"
        problem = (
            f"{place} = {value!r} hides the hook {hook.name}(); {remedy}, or define "
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
    # A plain function may return an awaitable, as that of a decorator does.
    is_wrapped = getattr(value, "__wrapped__", None) is not None
    is_coroutine = inspect.iscoroutinefunction(value) or is_wrapped
    if hook.awaited and not is_coroutine and never_awaitable(function):
        return f"is a plain function, but it is awaited; make it `{hook.definition}`"
    return ""


def _arguments_problem(value: object, hook: Hook) -> str:
    """Return what is wrong with a hook's parameters; "" if nothing is."""
    problem = arguments_problem(value, hook.arguments)
    return "" if problem is None else f"{problem}; make it `{hook.definition}`"


def _check_shown(processor: TickProcessor, name: str) -> None:
    static = static_of(processor, name)
    is_descriptor = hasattr(type(static), "__get__") and not inspect.isroutine(static)
    is_shown = of_class(base_of(processor), name) is not None
    if not is_shown or not is_own(processor, name) or is_descriptor:
        return
    kind = type(processor).__name__
    raise HookError(
        kind,
        name,
        f"{kind}.{name} hides the property {name}, which shows what the worker reported; "
        f"use another name{where(static)}",
    )


def _check_wants_ticks(processor: TickProcessor) -> None:
    """Check that ``wants_ticks`` is no method, which would be true always."""
    static = of_class(type(processor), "wants_ticks")
    if isinstance(static, bool | property):
        return
    kind = type(processor).__name__
    raise HookError(
        kind,
        "wants_ticks",
        f"{kind}.wants_ticks is read like an attribute, before each tick; make it a property, or "
        f"True or False{where(static)}",
    )


def _check_both(processor: TickProcessor, one: str, other: str) -> None:
    """Check that of two hooks that need each other both are overridden, or none."""
    for name, missing in ((one, other), (other, one)):
        if is_own(processor, name) and not is_own(processor, missing):
            kind = type(processor).__name__
            hook = next(hook for hook in HOOKS if hook.name == missing)
            problem = f"{kind} overrides {name}, but not {missing}; add `{hook.definition}`"
            raise HookError(kind, missing, problem + where(static_of(processor, name)))


def _check_settings_kept(processor: TickProcessor) -> None:
    """Check that no setting was assigned to a class later than in its body.

    That replaces the `NetworkSetting`, and a worker, which imports the class, does not get it.
    """
    if not isinstance(processor, NetworkProcessor):
        return
    kind = type(processor)
    for owner in kind.__mro__:
        own = vars(owner)
        for name in SETTINGS:
            if name not in own or isinstance(own[name], NetworkSetting):
                continue
            if own[name] is of_class(kind, name):  # otherwise a mixin's, which was adopted
                problem = (
                    f"{owner.__name__}.{name} = {own[name]!r} was assigned after the class was "
                    "created, so a worker does not get it; set it in the body of the class, or on "
                    "the object"
                )
                raise HookError(kind.__name__, name, problem)


def _check_calls(processor: TickProcessor, code: ClassCode) -> None:
    """Check that nothing hides a method that is there to be called."""
    kind = type(processor).__name__
    calls = {name: hook for name, hook in CALLS.items() if hasattr(base_of(processor), name)}
    for setter, name in code.names_set:
        if name in calls:
            problem = f"{setter.__qualname__} sets self.{name}, which hides {_call(name)}"
            raise HookError(kind, name, f"{problem}; use another name{where(setter)}")
    for name, hook in calls.items():
        value = static_of(processor, name)
        function = function_of(value)
        if not is_own(processor, name) or (function and name in function.__code__.co_names):
            continue  # what calls the method that it overrides hides nothing
        if function is None:
            problem = f"{kind}.{name} = {value!r} hides {_call(name)}; use another name"
        else:
            meant = f"did you mean {hook}? Otherwise use" if hook else "use"
            problem = (
                f"{kind}.{name} hides {_call(name)}; {meant} another name, or call "
                f"super().{name}() in it{where(function)}"
            )
        raise HookError(kind, name, problem)


def _check_types(processor: TickProcessor, name: str) -> None:
    """Check that the declared types of payloads can be decoded."""
    try:
        PayloadTypes(getattr(processor, name))
    except ValueError as error:
        kind = type(processor).__name__
        problem = f"{kind}.{name} = {getattr(processor, name)!r}: {error}"
        raise HookError(kind, name, problem) from error


def _call(name: str) -> str:
    base = TickProcessor if hasattr(TickProcessor, name) else NetworkProcessor
    return f"{base.__name__}.{name}(), which is not a hook, but there to be called"


def _check_names_kept(processor: TickProcessor, code: ClassCode) -> None:
    """Check that a class leaves alone the attributes in which a base class keeps its own state."""
    kept = {
        name: base.__name__
        for base in (TickProcessor, base_of(processor))
        for name in vars(base)
        if name.startswith("_") and not name.startswith("__")
    }
    kind = type(processor).__name__
    for function, name in code.names_set:
        if name in kept:
            meant = name.removeprefix("_")
            remedy = f"set self.{meant}" if meant in SETTINGS else "use another name"
            problem = (
                f"{function.__qualname__} sets self.{name}, in which {kept[name]} keeps its own "
                f"state; {remedy}{where(function)}"
            )
            raise HookError(kind, name, problem)
    slots = {setting.slot: name for name, setting in SETTINGS.items()}
    for name in kept:
        value = of_class(type(processor), name)
        if name in slots:
            _check_slot(type(processor), name, slots[name])
        elif value is not of_class(base_of(processor), name):
            problem = (
                f"{kind}.{name} hides an attribute of {kept[name]} that is not meant to be "
                f"overridden; use another name{where(value)}"
            )
            raise HookError(kind, name, problem)


def _check_slot(kind: type, slot: str, setting: str) -> None:
    """Check that no class sets the attribute in which a setting is kept, instead of the setting."""
    for owner in kind.__mro__:
        if slot in vars(owner) and setting not in vars(owner):
            problem = f"{owner.__name__}.{slot} is where NetworkProcessor keeps its own state"
            raise HookError(kind.__name__, slot, f"{problem}; set {setting} instead")


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
        if not (name.startswith("_") or name in inherited or name in hooks or is_remote(value))
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
        settings = _settings(
            NetworkProcessor if issubclass(kind, NetworkProcessor) else TickProcessor
        )
        found = difflib.get_close_matches(name, settings, n=1, cutoff=LIKENESS)
        found += [each for each in settings if _has_same_words(name, each)]
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


def _has_same_words(name: str, other: str) -> bool:
    """Whether two names differ at most in the order of their words."""
    return sorted(name.split("_")) == sorted(other.split("_"))


def _is_like(name: str, hook: Hook, function: object) -> bool:
    """Whether a method's name is a misspelt hook's."""
    if name.replace("_", "").lower() == hook.name.replace("_", ""):
        return True
    if _has_same_words(name, hook.name):
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
