"""A fleet file as a tree in which every value knows its line.

`tomllib` reports no lines, so `_Lines` finds them. A key with its value, or the header of a table,
is a TOML document of its own. The lines of a valid file are therefore taken one after another until
`tomllib` can read them: that is one statement. All parts of a statement have its first line.
"""

from __future__ import annotations

import os
import re
import tomllib
from collections.abc import Iterator, Mapping
from typing import Any

import msgspec

from chronopype_mp.exceptions import FleetProblem

__all__ = [
    "BROKEN",
    "PREFIX",
    "Node",
    "merged",
    "override",
    "parse",
    "plain",
    "resolved",
    "shown",
    "statements",
]

PREFIX = "CHRONOPYPE_MP__"
"""Environment variables that begin with this override settings."""

LONGEST_VALUE = 80
"""Characters of a value in a message."""

TOML_LINE = re.compile(r" \(at line (\d+), column (\d+)\)$")


class _Broken:
    """The type of `BROKEN`."""


BROKEN = _Broken()
"""In place of a value that is wrong; the problem has been noted."""


class Node(msgspec.Struct, frozen=True, kw_only=True):
    """A value of a fleet file.

    Attributes:
        value: a table as ``dict[str, Node]``, an array as ``list[Node]``, a scalar, or `BROKEN`.
        file: the path of its file, or the name of an environment variable.
        line: its line, from 1; None in a variable.
        raw: the scalar as it was written, before references were replaced.
        is_text: numbers and other values may be read from it, since it was not TOML.
    """

    value: Any
    file: str
    line: int | None = None
    raw: Any = None
    is_text: bool = False

    def __repr__(self) -> str:
        """Name the place. The value may be a secret."""
        return f"<value at {self.file}:{self.line}>"

    def problem(self, path: str, problem: str, *, with_value: bool = True) -> FleetProblem:
        """Return a problem with this value. No text that references were replaced by is shown."""
        if any(secret in problem for secret in _secrets(self)):
            problem = "is not valid here"
        return FleetProblem(
            self.file, self.line, path, shown(self) if with_value else None, problem
        )

    def with_value(self, value: Any) -> Node:
        """Return a node for a value at the same place."""
        return msgspec.structs.replace(self, value=value)

    def get(self, name: str) -> Node | None:
        """Return a value of a table; None if this is not a table, or it has none."""
        return self.value.get(name) if isinstance(self.value, dict) else None

    def element(self, number: int) -> Node:
        """Return an element of an array; the node itself if its array was read from text."""
        return self.value[number] if isinstance(self.value, list) else self


def _secrets(node: Node) -> Iterator[str]:
    """Yield the texts in which references were replaced."""
    if isinstance(node.value, dict | list):
        for child in node.value.values() if isinstance(node.value, dict) else node.value:
            yield from _secrets(child)
    elif isinstance(node.raw, str) and "${" in node.raw and node.value not in (BROKEN, ""):
        yield str(node.value)


def shown(node: Node) -> str | None:
    """Return a value for a message, as it was written; None for tables and arrays."""
    value = node.value if node.raw is None else node.raw
    if isinstance(value, dict | list | _Broken):
        return None
    text = msgspec.json.encode(value).decode() if isinstance(value, str | bool) else str(value)
    return text if len(text) <= LONGEST_VALUE else f"{text[:LONGEST_VALUE]}…"


def plain(node: Node) -> Any:
    """Return the value without places."""
    if isinstance(node.value, dict):
        return {name: plain(child) for name, child in node.value.items()}
    if isinstance(node.value, list):
        return [plain(child) for child in node.value]
    return node.value


def parse(path: str, problems: list[FleetProblem], text: str | None = None) -> Node:
    """Read a file, or its future text. What is wrong is appended to ``problems``."""
    root = Node(value={}, file=path, line=1)
    try:
        if text is None:
            with open(path, "rb") as file:
                text = file.read().decode()
        document = tomllib.loads(text)
    except OSError as error:
        problems.append(FleetProblem(path, None, "", None, f"cannot be read: {error.strerror}"))
    except UnicodeDecodeError:
        problems.append(FleetProblem(path, None, "", None, "is not UTF-8 text"))
    except tomllib.TOMLDecodeError as error:
        place = TOML_LINE.search(str(error))
        line = int(place[1]) if place else (text or "").count("\n") + 1
        problem = TOML_LINE.sub("", str(error)).removesuffix(" (at end of document)")
        problems.append(FleetProblem(path, line, "", None, f"is not valid TOML: {problem}"))
    else:
        return _placed(document, (), _Lines(text).found, path, 1)
    return root


class _Lines:
    """The lines of all keys of a valid file, by path."""

    def __init__(self, text: str) -> None:
        self.found: dict[tuple[str | int, ...], int] = {}
        self._table: tuple[str | int, ...] = ()
        self._elements: dict[tuple[str | int, ...], int] = {}
        for line, statement in statements(text):
            document = tomllib.loads(statement)
            if statement.lstrip().startswith("["):
                self._enter(document, line)
            else:
                self._note(document, self._table, line)

    def _enter(self, header: dict[str, Any], line: int) -> None:
        """Resolve a header. A name of an array of tables means its last element."""
        path: tuple[str | int, ...] = ()
        value: Any = header
        while value:
            ((name, value),) = value.items()
            path = (*path, name)
            self.found.setdefault(path, line)
            if isinstance(value, list):  # [[name]]
                self._elements[path] = self._elements.get(path, -1) + 1
                value = value[0]
            if path in self._elements:
                path = (*path, self._elements[path])
            self.found.setdefault(path, line)
        self._table = path

    def _note(self, document: Any, path: tuple[str | int, ...], line: int) -> None:
        for name, value in document.items():
            self.found.setdefault((*path, name), line)
            if isinstance(value, dict):
                self._note(value, (*path, name), line)


def statements(text: str) -> Iterator[tuple[int, str]]:
    """Yield each statement of a valid file with its first line."""
    pending, first = "", 1
    for number, line in enumerate(text.replace("\r\n", "\n").split("\n"), 1):
        if not pending:
            first = number
        pending += f"{line}\n"
        try:
            document = tomllib.loads(pending)
        except tomllib.TOMLDecodeError:
            continue
        if document:
            yield first, pending
        pending = ""


def _placed(
    value: Any,
    path: tuple[str | int, ...],
    lines: Mapping[tuple[str | int, ...], int],
    file: str,
    line: int,
) -> Node:
    line = lines.get(path, line)
    made = value
    if isinstance(value, dict):
        made = {
            name: _placed(child, (*path, name), lines, file, line) for name, child in value.items()
        }
    elif isinstance(value, list):
        made = [_placed(child, (*path, n), lines, file, line) for n, child in enumerate(value)]
    raw = None if isinstance(value, dict | list) else value
    return Node(value=made, file=file, line=line, raw=raw)


def merged(below: Node, above: Node) -> Node:
    """Return both together: tables key by key, anything else as ``above`` has it.

    Entries of ``[[processor]]`` are merged with those of the same name, others are appended.
    """
    if not isinstance(below.value, dict) or not isinstance(above.value, dict):
        return above
    values = dict(below.value)
    for name, child in above.value.items():
        if name not in values:
            values[name] = child
        elif name == "processor" and isinstance(values[name].value, list):
            values[name] = _merged_entries(values[name], child)
        else:
            values[name] = merged(values[name], child)
    return below.with_value(values)


def _merged_entries(below: Node, above: Node) -> Node:
    if not isinstance(above.value, list):
        return above
    entries = list(below.value)
    earlier = {plain(n): i for i, entry in enumerate(entries) if (n := entry.get("name")) and n.raw}
    for entry in above.value:
        name = entry.get("name")
        at = earlier.get(plain(name)) if name is not None and name.raw else None
        if at is None:
            entries.append(entry)
        else:
            entries[at] = merged(entries[at], entry)
    return below.with_value(entries)


def override(root: Node, environment: Mapping[str, str], problems: list[FleetProblem]) -> Node:
    """Return the tree with the settings that environment variables override."""
    for variable in sorted(environment):
        if not variable.startswith(PREFIX):
            continue
        path = variable.removeprefix(PREFIX).lower().split("__")
        text = environment[variable]
        leaf = Node(value=text, file=variable, raw=text, is_text=True)
        if not all(path) or path[0] == "processor":
            what = "names no setting" if path[0] != "processor" else "processors have no variables"
            problems.append(leaf.problem("", f"{what}; write {PREFIX}CLOCK__TICK_SIZE=0.5"))
            continue
        for name in reversed(path):
            leaf = Node(value={name: leaf}, file=variable)
        root = merged(root, leaf)
    return root


def resolved(node: Node, path: str) -> str:
    """Return a path that is relative to the file of ``node``; a variable's is left as it is."""
    return path if node.line is None else os.path.join(os.path.dirname(node.file), path)
