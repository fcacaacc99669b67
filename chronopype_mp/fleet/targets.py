"""The classes of a fleet's processors: found by their names, and checked with their options."""

from __future__ import annotations

import difflib
import importlib
import importlib.metadata
import inspect
import typing
from collections.abc import Callable
from typing import Any

import msgspec

from chronopype_mp.exceptions import FleetProblem, HookError
from chronopype_mp.fleet.described import described
from chronopype_mp.fleet.document import BROKEN, Node
from chronopype_mp.fleet.reading import nearest, read, read_fields
from chronopype_mp.processors import NetworkProcessor, TickProcessor
from chronopype_mp.processors.hook_checks import check_class

__all__ = ["ENTRY_POINTS", "Target", "arguments_of", "find", "installed", "options_of"]

ENTRY_POINTS = "chronopype_mp.processors"
"""The group of entry points that name processors."""

BY_NAME = (inspect.Parameter.POSITIONAL_OR_KEYWORD, inspect.Parameter.KEYWORD_ONLY)


class Target(msgspec.Struct, frozen=True):
    """What makes a processor.

    Attributes:
        path: ``"package.module:Class"``.
        made_by: the class or function.
    """

    path: str
    made_by: Callable[..., object]

    @property
    def connects(self) -> bool | None:
        """Whether it makes a `NetworkProcessor`; None if only calling it would tell."""
        made_by = self.made_by
        return issubclass(made_by, NetworkProcessor) if isinstance(made_by, type) else None


def installed() -> dict[str, str]:
    """Return the paths of all processors that have an entry point, by name."""
    points = importlib.metadata.entry_points(group=ENTRY_POINTS)
    return {
        point.name: f"{point.module}:{point.attr}"
        for point in sorted(points, key=lambda point: point.name)
    }


def find(name: str) -> Target:
    """Import what makes a processor.

    Args:
        name: the name of an entry point, or ``"package.module:Class"``.

    Raises:
        ValueError: it does not exist, cannot be imported, or is not a processor.
    """
    path = name
    if ":" not in name:
        known = installed()
        if name not in known:
            problem = nearest(name, known, "processor")
            raise ValueError(f'{problem}; or write "package.module:Class"')
        path = known[name]
    module, _, attributes = path.partition(":")
    if not all(part.isidentifier() for part in (*module.split("."), *attributes.split("."))):
        raise ValueError('must look like "package.module:Class"')
    try:
        found: Any = importlib.import_module(module)
        for part in attributes.split("."):
            if not hasattr(found, part):
                near = difflib.get_close_matches(part, dir(found), n=1)
                hint = f'; did you mean "{near[0]}"?' if near else ""
                raise _NoSuchName(f"{module} has no {part!r}{hint}")
            found = getattr(found, part)
    except (_NoSuchName, KeyboardInterrupt):
        raise
    except BaseException as error:  # the module may do anything, such as exit
        raise ValueError(f"cannot be imported: {type(error).__name__}: {error}") from error
    return Target(path, _checked(found))


class _NoSuchName(ValueError):
    """A module has no such name."""


def _checked(found: Any) -> Callable[..., object]:
    if isinstance(found, type) and issubclass(found, TickProcessor):
        try:
            check_class(found)
        except HookError as error:
            raise ValueError(str(error)) from None
    elif isinstance(found, type) or not callable(found):
        raise ValueError("is no TickProcessor, nor a function that returns one")
    made_by: Callable[..., object] = found
    return made_by


def arguments_of(target: Target) -> list[str]:
    """Return the options of a target as its code states them, such as ``"url: str"``.

    Those of a struct are in the words of fleet files, such as ``"timeout: seconds, default 5.0"``.
    """
    struct = options_struct(target)
    if struct is not None:
        return [described(field) for field in msgspec.structs.fields(struct)]
    try:
        return [str(each) for each in inspect.signature(target.made_by).parameters.values()]
    except (TypeError, ValueError):  # made in C, so it does not say
        return []


def options_struct(target: Target) -> type[msgspec.Struct] | None:
    """Return the struct of all options: what the only argument of a target, ``options``, is."""
    try:
        names = list(inspect.signature(target.made_by).parameters)
    except (TypeError, ValueError):  # made in C, so it does not say
        return None
    kind = _hints(target.made_by).get("options") if names == ["options"] else None
    return kind if isinstance(kind, type) and issubclass(kind, msgspec.Struct) else None


def options_of(
    target: Target, node: Node, path: str, problems: list[FleetProblem]
) -> dict[str, Any]:
    """Return the options of a processor, as the annotations of its arguments want them.

    Args:
        target: what they are for.
        node: the table of options.
        path: its path.
        problems: where mistakes are noted.
    """
    struct = options_struct(target)
    if struct is not None:
        made = read(node, struct, path, problems)
        return {} if made is BROKEN else {"options": made}
    try:
        parameters = inspect.signature(target.made_by).parameters.values()
    except (TypeError, ValueError):  # made in C, so it does not say
        parameters = {}.values()
        takes_any = True
    else:
        takes_any = any(each.kind is inspect.Parameter.VAR_KEYWORD for each in parameters)
    hints = _hints(target.made_by)
    kinds = {each.name: hints.get(each.name, Any) for each in parameters if each.kind in BY_NAME}
    if takes_any:
        kinds = {**dict.fromkeys(node.value, Any), **kinds}
    empty = inspect.Parameter.empty
    required = [each.name for each in parameters if each.name in kinds and each.default is empty]
    return read_fields(node, kinds, required, path, problems) or {}


def _hints(made_by: Any) -> dict[str, Any]:
    """Return the annotations of the arguments; none if they cannot be resolved."""
    called = made_by.__init__ if isinstance(made_by, type) else made_by  # type: ignore[misc]
    try:
        return typing.get_type_hints(called, include_extras=True)
    except Exception:  # for example, a name that is imported for type checkers only
        return {}
