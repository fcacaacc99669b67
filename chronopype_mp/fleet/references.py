"""References in the strings of a fleet file: ``${VAR}``, ``${VAR:-default}``, ``${file:path}``.

``$${`` stands for ``${`` itself. In an entry with ``count`` or ``for_each``, ``{item}`` stands for
the item. What a reference was replaced by never shows in a message.
"""

from __future__ import annotations

import re
from collections.abc import Mapping

import msgspec

from chronopype_mp.exceptions import FleetProblem
from chronopype_mp.fleet.document import BROKEN, Node, resolved

__all__ = ["ITEM", "expanded", "with_item"]

ITEM = "{item}"

REFERENCE = re.compile(r"\$\$\{|\$\{([^{}]*)\}")

VARIABLE = re.compile(r"[A-Za-z_]\w*")


def expanded(
    node: Node, path: str, environment: Mapping[str, str], problems: list[FleetProblem]
) -> Node:
    """Return a tree with all references replaced; a value whose reference fails is `BROKEN`."""
    value = node.value
    if isinstance(value, dict):
        return node.with_value(
            {
                name: expanded(child, f"{path}.{name}" if path else name, environment, problems)
                for name, child in value.items()
            }
        )
    if isinstance(value, list):
        return node.with_value([expanded(child, path, environment, problems) for child in value])
    if not isinstance(value, str) or "${" not in value or node.line is None:
        return node
    try:
        text = REFERENCE.sub(lambda match: _replacement(match, node, environment), value)
    except ValueError as error:
        problems.append(FleetProblem(node.file, node.line, path, _raw(node), str(error)))
        return node.with_value(BROKEN)
    return msgspec.structs.replace(node, value=text, is_text=True)


def _raw(node: Node) -> str:
    return msgspec.json.encode(node.raw).decode()


def _replacement(match: re.Match[str], node: Node, environment: Mapping[str, str]) -> str:
    """Return what a reference stands for.

    Raises:
        ValueError: it cannot be resolved; the message says what to do.
    """
    if match[1] is None:
        return "${"
    if match[1].startswith("file:"):
        path = resolved(node, match[1].removeprefix("file:"))
        try:
            with open(path, encoding="utf-8") as file:
                return file.read().rstrip("\r\n")
        except (OSError, ValueError) as error:
            reason = error.strerror if isinstance(error, OSError) else "is not UTF-8 text"
            raise ValueError(f"the file {path} cannot be read: {reason}") from None
    name, has_default, default = match[1].partition(":-")
    if not VARIABLE.fullmatch(name):
        problem = f"${{{match[1]}}} is not a reference; write ${{VAR}}, ${{VAR:-default}} or "
        raise ValueError(problem + "${file:path}; for a literal ${ write $${")
    if has_default:
        return environment.get(name) or default
    if name not in environment:
        raise ValueError(
            f"the environment variable {name} is not set; set it, or write ${{{name}:-default}}"
        )
    return environment[name]


def with_item(node: Node, item: str | int) -> Node:
    """Return an entry in which ``{item}`` was replaced, in every string.

    Where a number is wanted, it is read from the string.
    """
    value = node.value
    if isinstance(value, dict):
        return node.with_value({name: with_item(child, item) for name, child in value.items()})
    if isinstance(value, list):
        return node.with_value([with_item(child, item) for child in value])
    if not isinstance(value, str) or ITEM not in value:
        return node
    return msgspec.structs.replace(node, value=value.replace(ITEM, str(item)), is_text=True)
