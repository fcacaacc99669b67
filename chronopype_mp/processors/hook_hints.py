"""Warnings of what works, but probably not as its author meant it."""

from __future__ import annotations

import inspect
from collections.abc import Iterator
from types import FunctionType

from chronopype_mp.processors.base import TickProcessor
from chronopype_mp.processors.code_reading import ClassCode, arguments_problem, function_of
from chronopype_mp.processors.hook_names import (
    NETWORK_HOOKS,
    Hook,
    hidden_by_order,
    is_own,
    order_problem,
    static_of,
    where,
)
from chronopype_mp.processors.network import SETTINGS, NetworkProcessor

__all__ = ["hints"]

AFFIXES = ("async_", "on_", "do_", "handle_")
"""What other frameworks put before the name of a hook."""

TIMES = (("timestamp",), ("ts",), ("now",), ("time",))
"""What the argument of a tick is called."""


def hints(
    processor: TickProcessor, own: dict[str, object], hooks: tuple[Hook, ...], code: ClassCode
) -> Iterator[str]:
    """Yield warnings.

    Args:
        processor: as it is about to be sent to its worker.
        own: its public attributes that no base class from elsewhere defines.
        hooks: those that it may have.
        code: of its class.
    """
    yield from _habits(processor, own, hooks, code)
    yield from _short_names(processor, own, code)
    yield from _lone_values(processor, own, code)
    yield from _hidden(type(processor))
    yield from _idle_ticks(processor, code)
    yield from _lone_tasks(processor, code)


def _habits(
    processor: TickProcessor, own: dict[str, object], hooks: tuple[Hook, ...], code: ClassCode
) -> Iterator[str]:
    """Yield the methods that are named as another framework, or another base, names a hook."""
    names = {hook.name for hook in hooks}
    of_others = {hook.name for hook in NETWORK_HOOKS} - names - {"logger"}
    for name, value in own.items():
        if function_of(value) is None or isinstance(value, property):
            continue
        if name in of_others and not code.mentions(name):
            yield (
                f"{type(processor).__name__}.{name} is never called: it is a hook of "
                f"NetworkProcessor, from which this class is not derived{where(value)}"
            )
        for affix in AFFIXES:
            bare = name.removeprefix(affix)
            is_habit = bare != name and bare in names and not is_own(processor, bare)
            if is_habit and not code.mentions(name):
                yield (
                    f"{type(processor).__name__}.{name} is never called: it is not a hook; "
                    f"did you mean {bare}?{where(value)}"
                )


def _short_names(
    processor: TickProcessor, own: dict[str, object], code: ClassCode
) -> Iterator[str]:
    """Yield the methods that are named almost as a hook that is missing, and that nobody calls."""
    is_ticked = is_own(processor, "tick") or is_own(processor, "async_tick")
    ticks, run = function_of(own.get("ticks")), function_of(own.get("run"))
    found: list[tuple[str, FunctionType, str]] = []
    if ticks is not None and not is_ticked and ticks.__code__.co_varnames[1:2] in TIMES:
        found.append(("ticks", ticks, "tick"))
    if (
        run is not None
        and isinstance(processor, NetworkProcessor)
        and not is_own(processor, "run_network")
        and inspect.iscoroutinefunction(own["run"])
        and arguments_problem(run, ("self",)) is None
    ):
        found.append(("run", run, "run_network"))
    kind = type(processor).__name__
    for name, function, hook in found:
        if not code.mentions(name):
            yield (
                f"{kind}.{name} is not a hook, and no method of {kind} calls it; did you mean "
                f"{hook}?{where(function)}"
            )


def _lone_values(
    processor: TickProcessor, own: dict[str, object], code: ClassCode
) -> Iterator[str]:
    """Yield the attributes that look meant for settings, and that nobody reads."""
    kind = type(processor).__name__
    values = {name for name, value in own.items() if function_of(value) is None}
    for name, setting in SETTINGS.items():
        short = name.replace("network_", "").replace("_network", "")
        if isinstance(processor, NetworkProcessor):
            is_default = getattr(processor, setting.slot) is getattr(NetworkProcessor, name)
            is_word = "_" not in short  # such as backoff, which may be anything
            if short in values and is_default and not is_word and not code.mentions(short):
                yield (
                    f"{kind}.{short} is not a setting, and no method of {kind} reads it; did you "
                    f"mean {name}?"
                )
        elif name in values and not code.mentions(name):
            yield (
                f"{kind}.{name} has no effect: it is a setting of NetworkProcessor, from which "
                "this class is not derived"
            )


def _hidden(kind: type) -> Iterator[str]:
    """Yield the hooks and settings of mixins that the base class hides.

    The common names, such as ``start``, are left out: another library's base class has them, too.
    """
    names = ["tick", "async_tick"]
    if issubclass(kind, NetworkProcessor):
        names += [*(hook.name for hook in NETWORK_HOOKS), *SETTINGS]
    for name in names:
        hidden = hidden_by_order(kind, name)
        if hidden is not None:
            yield f"{kind.__name__}.{name} is that of the base class: {order_problem(kind, hidden)}"


def _idle_ticks(processor: TickProcessor, code: ClassCode) -> Iterator[str]:
    """Yield a warning if tick is overridden, but only async_tick is called."""
    both = is_own(processor, "tick") and is_own(processor, "async_tick")
    if both and not {"tick", "async_tick"} & code.names_read:
        kind = type(processor).__name__
        yield (
            f"{kind}.tick is never called: {kind} overrides async_tick, too, which is called "
            f"instead; remove one of them, or call self.tick(timestamp) in async_tick"
            f"{where(static_of(processor, 'tick'))}"
        )


def _lone_tasks(processor: TickProcessor, code: ClassCode) -> Iterator[str]:
    """Yield a warning if a hook starts a task whose end nobody would notice."""
    if not isinstance(processor, NetworkProcessor) or is_own(processor, "run_network"):
        return
    if "add_done_callback" in code.names_read:
        return
    for hook in ("start_network", "on_connected"):
        value = static_of(processor, hook)
        function = function_of(value)
        if function is not None and code.starts_task(function):
            yield (
                f"{type(processor).__name__}.{hook} starts a task whose end nobody notices: if it "
                "fails, the connection goes on without it; start it with self.spawn(...), or put "
                f"what it does into run_network{where(value)}"
            )
