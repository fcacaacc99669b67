"""Turns the tree of a fleet file into typed settings, and notes every mistake on the way.

`msgspec.convert` stops at the first mistake. Here tables and arrays are walked, and `msgspec`
converts only what they hold. A value that is wrong becomes `BROKEN`.
"""

from __future__ import annotations

import difflib
import enum
import pathlib
import tomllib
import types
import typing
from collections.abc import Hashable, Iterable, Mapping
from typing import Any

import msgspec

from chronopype_mp.exceptions import ConfigError, FleetProblem
from chronopype_mp.fleet.document import BROKEN, Node, plain
from chronopype_mp.fleet.durations import seconds_of

__all__ = ["nearest", "read", "read_best", "read_fields"]

Problems = list[FleetProblem]

MOST_NAMES = 20
"""Known names to list in a message."""

NAMES = {
    str: "a string",
    int: "a whole number",
    float: "a number",
    bool: "true or false",
    dict: "a table",
    list: "an array",
    tuple: "an array",
}


def nearest(name: str, known: Iterable[str], what: str) -> str:
    """Return the message for an unknown name: the nearest known one, or all of them."""
    names = sorted(known)
    near = difflib.get_close_matches(name, names, n=1)
    if near:
        return f'no such {what}; did you mean "{near[0]}"?'
    more = ", …" if len(names) > MOST_NAMES else ""
    return f"no such {what}; known are: {', '.join(names[:MOST_NAMES]) or 'none'}{more}"


def read(node: Node, kind: Any, path: str, problems: Problems, default: object = None) -> Any:
    """Return a value as an annotation wants it.

    Args:
        node: the value.
        kind: the annotation.
        path: the value's path, for messages.
        problems: where mistakes are noted.
        default: what would hold without the value. A table changes only what it names.

    Returns:
        The value, or `BROKEN`.
    """
    if node.value is BROKEN:
        return BROKEN
    bare, is_seconds = _bare(kind)
    if node.is_text and _is_container(bare):
        node = _from_text(node)
    structs = [option for option in _options(bare) if _is_struct(option)]
    if isinstance(node.value, dict) and len(structs) == 1:
        before = len(problems)
        made = read_best(node, structs[0], path, problems, default)
        return made if len(problems) == before else BROKEN
    if isinstance(node.value, dict) and (element := _element(bare, dict)) is not None:
        parts = {n: read(c, element, f"{path}.{n}", problems) for n, c in node.value.items()}
        return BROKEN if any(part is BROKEN for part in parts.values()) else parts
    if isinstance(node.value, list):
        for made in (list, tuple):
            if (element := _element(bare, made)) is None:
                continue
            found = [read(c, element, f"{path}[{i}]", problems) for i, c in enumerate(node.value)]
            return BROKEN if any(item is BROKEN for item in found) else made(found)
    try:
        if is_seconds and isinstance(node.value, str):
            return _seconds(node)
        return _leaf(node, kind)
    except ValueError as error:
        problems.append(node.problem(path, str(error)))
        return BROKEN


def read_fields(
    node: Node,
    kinds: dict[str, Any],
    required: Iterable[str],
    path: str,
    problems: Problems,
    defaults: Mapping[str, object] | None = None,
) -> dict[str, Any] | None:
    """Read the values of a table by name.

    Args:
        kinds: the annotations by name.
        required: the names that must be there.
        defaults: what would hold without the values.
        Others as for `read`.

    Returns:
        The values that are not wrong; None if a required one is missing or wrong.
    """
    values = {}
    for name, child in node.value.items():
        place = f"{path}.{name}" if path else name
        if name not in kinds:
            what = "option" if path.endswith(".options") else "setting"
            problems.append(child.problem(place, nearest(name, kinds, what)))
            continue
        value = read(child, kinds[name], place, problems, (defaults or {}).get(name))
        if value is not BROKEN:
            values[name] = value
    is_whole = True
    for name in required:
        if name not in node.value:
            place = f"{path}.{name}" if path else name
            problems.append(node.problem(place, "must be given", with_value=False))
        is_whole = is_whole and name in values
    return values if is_whole else None


def read_best(
    node: Node, kind: type[msgspec.Struct], path: str, problems: Problems, default: object = None
) -> Any:
    """Read a table into a struct, with the defaults in place of what is wrong.

    The arguments are those of `read`.

    Returns:
        The struct; `BROKEN` if a value without a default is missing or wrong.
    """
    fields = {field.encode_name: field for field in msgspec.structs.fields(kind)}
    kinds = {name: field.type for name, field in fields.items()}
    required = [name for name, field in fields.items() if field.required]
    defaults = {name: field.default for name, field in fields.items()}
    # What a table does not name stays as it is without the table.
    values = msgspec.structs.asdict(default) if isinstance(default, kind) else {}
    given = read_fields(node, kinds, required, path, problems, defaults)
    return BROKEN if given is None else _construct(node, kind, values, given, path, problems)


def _construct(
    node: Node,
    kind: type[msgspec.Struct],
    values: dict[str, Any],
    given: dict[str, Any],
    path: str,
    problems: Problems,
) -> Any:
    """Make a struct. A value that it refuses is noted and left out, until it refuses none."""
    while True:
        try:
            return kind(**{**values, **given})
        except ConfigError as error:
            name, _, key = error.field.partition("[")
            place = f"{path}.{name}" if path else name
            if name not in given:
                problem = f"{error.problem}; it is {error.value} unless it is given"
                problems.append(node.problem(place, problem, with_value=False))
                return BROKEN
            child = node.value[name]
            for inner in (key.strip("']"), error.value):  # of a table, a value or a name is wrong
                if isinstance(inner, str) and child.get(inner) is not None:
                    place, child = f"{place}.{inner}", child.value[inner]
            problems.append(child.problem(place, error.problem))
            del given[name]
        except (TypeError, ValueError) as error:
            problems.append(node.problem(path, str(error)))
            return BROKEN


def _bare(kind: Any) -> tuple[Any, bool]:
    """Return an annotation without ``Annotated``, and whether it means seconds."""
    is_seconds = False
    for option in _options(kind):
        metas = getattr(option, "__metadata__", ())
        is_seconds = is_seconds or any(
            isinstance(meta, msgspec.Meta) and (meta.extra or {}).get("unit") == "s"
            for meta in metas
        )
    while typing.get_origin(kind) is typing.Annotated:
        kind = typing.get_args(kind)[0]
    return kind, is_seconds


def _options(kind: Any) -> tuple[Any, ...]:
    """Return the parts of a union; of anything else, itself."""
    if typing.get_origin(kind) in (typing.Union, types.UnionType):
        return typing.get_args(kind)
    return (kind,)


def _element(kind: Any, container: type) -> Any:
    """Return what the elements of a container must be; None if the annotation does not say."""
    for option in _options(kind):
        arguments = typing.get_args(option)
        if _origin(option) is not container or not arguments:
            continue
        if container is not tuple or arguments[1:] == (...,):
            return arguments[-1] if container is dict else arguments[0]
    return None


def _origin(kind: Any) -> Any:
    return typing.get_origin(kind) or kind


def _is_struct(kind: Any) -> bool:
    return isinstance(kind, type) and issubclass(kind, msgspec.Struct)


def _is_container(kind: Any) -> bool:
    options = _options(kind)
    return str not in options and any(
        _origin(option) in (list, tuple, dict) or _is_struct(option) for option in options
    )


def _from_text(node: Node) -> Node:
    """Read an array or a table from text, as TOML; return the node itself if it is none."""
    try:
        value = tomllib.loads(f"value = {node.value}")["value"]
    except tomllib.TOMLDecodeError:
        return node
    return _inside(node, value)


def _inside(node: Node, value: Any) -> Node:
    if isinstance(value, dict):
        return node.with_value({name: _inside(node, child) for name, child in value.items()})
    if isinstance(value, list):
        return node.with_value([_inside(node, child) for child in value])
    return node.with_value(value)


def _seconds(node: Node) -> float:
    if node.is_text:
        try:
            return float(node.value)
        except ValueError:
            pass
    return seconds_of(node.value)


def _leaf(node: Node, kind: Any) -> Any:
    """Convert a value that needs no walk.

    Raises:
        ValueError: it is not what the annotation wants.
    """
    value = plain(node)
    choices = _choices(kind)
    if choices is not None:
        if not isinstance(value, Hashable) or value not in choices:
            raise ValueError(f"must be one of {', '.join(map(_quoted, choices))}")
        return choices[value]
    reads_text = node.is_text and str not in _options(_bare(kind)[0])
    try:
        return msgspec.convert(value, kind, strict=not reads_text, dec_hook=_made)
    except msgspec.ValidationError as error:
        raise ValueError(_complaint(kind, error)) from None
    except (TypeError, NotImplementedError):
        return value  # an annotation that msgspec does not know


def _choices(kind: Any) -> dict[Any, Any] | None:
    """Return the values of an enumeration or of literals by what a file writes; None for others.

    Members with numbers are written by their names.
    """
    bare = [option for option in _options(_bare(kind)[0]) if option is not types.NoneType]
    if len(bare) != 1:
        return None
    if typing.get_origin(bare[0]) is typing.Literal:
        return {value: value for value in typing.get_args(bare[0])}
    if isinstance(bare[0], type) and issubclass(bare[0], enum.Enum):
        return {m.value if isinstance(m.value, str) else m.name.lower(): m for m in bare[0]}
    return None


def _quoted(value: object) -> str:
    return f'"{value}"' if isinstance(value, str) else str(value)


def _made(kind: type, value: object) -> object:
    """Make what `msgspec` cannot: paths and subclasses of str. Other values pass as they are."""
    if isinstance(kind, type) and issubclass(kind, str) and not isinstance(value, str):
        raise ValueError("must be a string")
    if isinstance(kind, type) and issubclass(kind, (pathlib.PurePath, str)):
        return kind(value)  # type: ignore[arg-type]  # a path says itself what it takes
    raise NotImplementedError


def _complaint(kind: Any, error: msgspec.ValidationError) -> str:
    """Return what a value must be, in the words of TOML; for other annotations, msgspec's."""
    bare, is_seconds = _bare(kind)
    if is_seconds:
        return 'must be seconds, or a duration such as "250ms", "5s", "2m" or "1h"'
    options = [_origin(option) for option in _options(bare) if option is not types.NoneType]
    names = [("a table" if _is_struct(option) else NAMES.get(option)) for option in options]
    if "Expected" in str(error) and ", got" in str(error) and all(names):
        return f"must be {' or '.join(map(str, names))}"
    return str(error).partition(" - at `")[0]
