"""No module of the package reads time, except `chronopype_mp.timing`."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

PACKAGE = Path(__file__).parent.parent / "chronopype_mp"

CLOCKS = {
    "now": "datetime.now",
    "utcnow": "datetime.utcnow",
    "today": "datetime.today",
    "time": "the event loop's time",
    "times": "os.times",
}
"""Methods that read a clock, whatever they are looked up in."""


def readings_of_time(source: str) -> Iterator[str]:
    """Find what reads time in a module.

    Args:
        source: the module's text.

    Returns:
        The line number and what is wrong there, one after the other.
    """
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            if any(alias.name.split(".")[0] == "time" for alias in node.names):
                yield f"{node.lineno}: imports time"
        elif isinstance(node, ast.ImportFrom):
            if node.module == "time":
                yield f"{node.lineno}: imports from time"
        elif isinstance(node, ast.Attribute) and node.attr in CLOCKS:
            yield f"{node.lineno}: reads {CLOCKS[node.attr]}"


def test_only_timing_reads_time() -> None:
    wrong = [
        f"{path.relative_to(PACKAGE)}:{reading}"
        for path in sorted(PACKAGE.rglob("*.py"))
        if path != PACKAGE / "timing.py"
        for reading in readings_of_time(path.read_text())
    ]
    assert not wrong


@pytest.mark.parametrize(
    "source",
    [
        "import time",
        "import os, time as t",
        "from time import monotonic",
        "def late():\n    import time",
        "when = datetime.now()",
        "when = datetime.datetime.now(UTC)",
        "when = date.today()",
        "deadline = loop.time() + 1",
        "deadline = asyncio.get_running_loop().time() + 1",
        "clock = loop.time",
        "used = os.times().user",
    ],
)
def test_every_way_of_reading_time_is_found(source: str) -> None:
    assert list(readings_of_time(source))


@pytest.mark.parametrize(
    "source",
    [
        "from datetime import datetime",
        "when = datetime.fromtimestamp(at)",
        "from chronopype_mp.timing import monotonic",
        "began = monotonic()",
    ],
)
def test_what_is_given_a_time_reads_none(source: str) -> None:
    assert not list(readings_of_time(source))
