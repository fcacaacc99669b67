"""What a program may define in its main module: one table for scripts, modules and notebooks.

A case is some code that defines a processor ``C_<name>``, whose ``check`` returns what it sees. The
worker must see what the inline launcher sees, or the processor is refused with the message that
stands in the table.
"""

from __future__ import annotations

import re
import sys
from pathlib import Path
from textwrap import dedent
from typing import NamedTuple

__all__ = ["CASES", "Case"]


class Case(NamedTuple):
    """One row.

    Attributes:
        name: the kind of definition.
        source: the code.
        refused: the message with which it is refused everywhere; None if it works.
        refused_without_source: the message if the program has no source; None if it works.
    """

    name: str
    source: str
    refused: str | None
    refused_without_source: str | None


IN_WORKER = (
    "Create it in start() or start_network(), which run in the worker. Or create the whole "
    'processor in the worker: add ProcessorSpec(target="package.module:Class", options={...}); the '
    "target may also be a function."
)

NO_SOURCE = "the program came through a pipe or a shell that keeps no source"

HEADER = dedent(
    """
    import abc, collections, concurrent.futures, contextlib, contextvars, dataclasses, enum
    import functools, inspect, logging, os, pathlib, pickle, socket, subprocess, sys, threading
    import time, traceback, typing, weakref
    import attr, msgspec, pydantic
    from chronopype_mp import ProcessorSpec
    from case_runner import Check
    """
)


def _cases() -> list[Case]:
    """Read the table: name, code, and after ``---`` and ``+++`` the two messages.

    The name ends with `` since 3.12`` if the code needs that version of Python.
    """
    table = Path(__file__).with_suffix(".txt").read_text()
    cases = []
    for part in re.split(r"^=== ", table, flags=re.M)[1:]:
        name, _, rest = part.partition("\n")
        name, _, version = name.partition(" since ")
        if version and sys.version_info < tuple(map(int, version.split("."))):
            continue  # its syntax is newer than this Python
        source, *messages = re.split(r"^(---|\+\+\+) ", rest, flags=re.M)
        found = dict(zip(messages[::2], map(str.strip, messages[1::2]), strict=True))
        refused, without = (
            found[mark].replace("{in_worker}", IN_WORKER).replace("{no_source}", NO_SOURCE)
            if mark in found
            else None
            for mark in ("---", "+++")
        )
        cases.append(Case(name.replace(" ", "_"), source, refused, without or refused))
    assert len({case.name for case in cases}) == len(cases), "two rows have one name"
    return cases


CASES = _cases()
