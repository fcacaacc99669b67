"""Adds entries to the text of a fleet file, and deletes them. The rest of the text stays."""

from __future__ import annotations

import contextlib
import os
import tempfile
import tomllib
from typing import Any

from chronopype_mp.fleet.document import statements

__all__ = ["with_entries", "without_entry", "write"]


def with_entries(text: str, entries: str) -> str:
    """Return the text of a file with the ``[[processor]]`` tables of another one at its end."""
    return f"{text.rstrip()}\n\n{entries.strip()}\n"


def without_entry(text: str, name: str) -> str:
    """Return a text without the ``[[processor]]`` table that has this name.

    The comments above it stay. The text is returned as it is if there is none, or if it makes
    several workers.
    """
    lines = text.splitlines(keepends=True)
    starts = [line for line, document in _headers(text) if _opens_entry(document)]
    ends = [line for line, document in _headers(text) if not _is_within_entry(document)]
    for start in starts:
        end = min((line for line in ends if line > start), default=len(lines) + 1)
        entry = lines[start - 1 : end - 1]
        while entry and (not entry[-1].strip() or entry[-1].lstrip().startswith("#")):
            entry.pop()  # what stands above the next table
        table = tomllib.loads("".join(entry))["processor"][0]
        if table.get("name") == name and not table.keys() & {"count", "for_each"}:
            rest = lines[start - 1 + len(entry) :]
            return "".join((*lines[: start - 1], *rest)).rstrip() + "\n"
    return text


def _headers(text: str) -> list[tuple[int, dict[str, Any]]]:
    """Return the headers of tables, each as a document of its own, with their lines."""
    return [
        (line, tomllib.loads(statement))
        for line, statement in statements(text)
        if statement.lstrip().startswith("[")
    ]


def _opens_entry(header: dict[str, Any]) -> bool:
    return header.get("processor") == [{}]


def _is_within_entry(header: dict[str, Any]) -> bool:
    """Whether this is the header of a table in an entry, such as ``[processor.options]``."""
    return isinstance(header.get("processor"), dict)


def write(file: str, text: str) -> None:
    """Write a file: whole, or not at all. Links to it and its mode stay.

    Raises:
        OSError: it cannot be written.
    """
    file = os.path.realpath(file)
    with tempfile.NamedTemporaryFile(
        "w", encoding="utf-8", dir=os.path.dirname(file), prefix=".fleet-", delete=False
    ) as new:
        try:
            new.write(text)
            new.flush()
            os.fsync(new.fileno())
            os.chmod(new.name, os.stat(file).st_mode & 0o7777)
            os.replace(new.name, file)
        except BaseException:
            with contextlib.suppress(OSError):
                os.unlink(new.name)
            raise
