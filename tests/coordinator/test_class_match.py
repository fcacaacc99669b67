"""Which class statement has made a class."""

from __future__ import annotations

import ast
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from chronopype_mp.coordinator.class_match import is_same, made_by

HEAD = """
import dataclasses, enum, typing
import msgspec

class Base: pass
"""

UNCLEAR = """
from chronopype_mp import ClockConfig, ClockMode, RealtimeClock, TickProcessor

if True:
    class Unclear(Exception):
        text = str(1)
else:
    class Unclear(Exception):
        text = str(2)

class Uses(TickProcessor):
    def tick(self, timestamp):
        return Unclear

try:
    RealtimeClock(ClockConfig(clock_mode=ClockMode.REALTIME)).add_processor(Uses())
except Exception as error:
    print(error)
"""


@pytest.mark.parametrize(
    ("first", "second"),
    [
        ("class A(enum.Enum):\n    X = 1", "class A(enum.Enum):\n    X = '1'"),
        ("class A(msgspec.Struct):\n    n: int = 1", "class A(msgspec.Struct):\n    n: int = 2"),
        ("@dataclasses.dataclass\nclass A:\n    n: int = 1", "class A:\n    n: int = 2"),
        (
            "class A(typing.NamedTuple):\n    n: int = 1",
            "class A(typing.NamedTuple):\n    n: int = 2",
        ),
        ("class A:\n    n = (1, 0)", "class A:\n    n = (True, False)"),
        ("class A(Base):\n    n = 1", "class A:\n    n = 1"),
    ],
)
def test_the_statement_is_known_by_its_bases_and_constants(first: str, second: str) -> None:
    """And since Python 3.13 by its line."""
    for made, other in ((first, second), (second, first)):
        names: dict[str, Any] = {"__name__": __name__}
        exec(compile(HEAD + made, "program", "exec"), names)
        line = HEAD.count("\n")
        fitting = [ast.parse("\n" * line + made), ast.parse("\n" * (line + 5) + other)]
        nodes = [tree.body[0] for tree in fitting]
        assert all(isinstance(node, ast.ClassDef) for node in nodes)
        assert [made_by(node, names["A"], names) for node in nodes] == [True, False]  # type: ignore[arg-type]


def test_parts_of_another_type_differ() -> None:
    """Although Python takes them for equal."""
    assert is_same({"a": [1, (2,)]}, {"a": [1, (2,)]})
    for value, other in (((1, 0), (True, False)), ([1], (1,)), ({"a": 1}, {"a": 1.0}), (0.0, 0)):
        assert not is_same(value, other)


def test_what_cannot_be_told_is_refused(tmp_path: Path) -> None:
    """Rather than guessed."""
    program = tmp_path / "program.py"
    program.write_text(UNCLEAR)
    done = subprocess.run([sys.executable, program], capture_output=True, text=True, check=True)
    if sys.version_info >= (3, 13):  # it is known by its line
        assert done.stdout == ""
    else:
        assert "'Unclear' is defined in lines 5 and 8, and it cannot be known" in done.stdout
