"""Every value of a fleet file knows its line; files and variables are merged by simple rules."""

from __future__ import annotations

import json
import tempfile
import tomllib
from collections.abc import Iterator
from pathlib import Path

from hypothesis import given
from hypothesis import strategies as st

from chronopype_mp.exceptions import FleetProblem
from chronopype_mp.fleet.document import Node, merged, override, parse, plain

FIXED = '''# a comment
a = 1

b.c = """
[not.a.header]
d = 2
"""
"b".e = [
  1, # [x]
  { f = 2 },
]

[g]
h = 1
[g."i.j"]
k = 2024-01-01
[[p]]
q = 1
[p.r]
s = 1
[[p]]
[p.r]
s = 1
[[p.t]]
u = 1
[[p.t]]
u = 1
'''
WHERE = {
    "a": 2,
    "b": 4,
    "b.c": 4,
    "b.e": 8,
    "b.e.0": 8,
    "b.e.1.f": 8,
    "g": 13,
    "g.h": 14,
    "g.i.j": 15,
    "g.i.j.k": 16,
    "p": 17,
    "p.0": 17,
    "p.0.q": 18,
    "p.0.r": 19,
    "p.0.r.s": 20,
    "p.1": 21,
    "p.1.r.s": 23,
    "p.1.t.0.u": 25,
    "p.1.t.1": 26,
    "p.1.t.1.u": 27,
}


def flat(node: Node, path: str = "") -> Iterator[tuple[str, Node]]:
    """Yield all nodes by path."""
    if path:
        yield path, node
    children = node.value
    if isinstance(children, list):
        children = {str(number): child for number, child in enumerate(children)}
    if isinstance(children, dict):
        for name, child in children.items():
            yield from flat(child, f"{path}.{name}" if path else name)


def parsed(path: Path, text: str) -> Node:
    path.write_text(text)
    problems: list[FleetProblem] = []
    node = parse(str(path), problems)
    assert problems == []
    return node


def test_lines_are_those_of_the_statements(tmp_path: Path) -> None:
    """Neither comments, strings and arrays over several lines, nor quoted keys mislead them."""
    node = parsed(tmp_path / "fleet.toml", FIXED)
    assert plain(node) == tomllib.loads(FIXED)
    lines = {path: child.line for path, child in flat(node)}
    assert {path: lines[path] for path in WHERE} == WHERE


names = st.text("abc.[]#\"' =", min_size=1, max_size=4)
values = st.recursive(
    st.integers() | st.booleans() | st.text("ab\n\"'#[]=\\", max_size=8),
    lambda inner: st.lists(inner, max_size=2),
    max_leaves=4,
)


@given(st.lists(st.dictionaries(names, values, max_size=3), max_size=4), st.booleans())
def test_a_value_is_found_in_its_line_whatever_it_holds(
    tables: list[dict[str, object]], with_crlf: bool
) -> None:
    """Any names and values, also with the line ends of Windows."""
    lines, where = [], {}
    for number, table in enumerate(tables):
        lines.append("[[t]]  # x = [")
        for name, value in table.items():
            lines.append("")
            where[number, name] = len(lines) + 1
            lines.append(f"{json.dumps(name)} = {json.dumps(value)}")
    with tempfile.NamedTemporaryFile(suffix=".toml") as file:
        file.write(("\r\n" if with_crlf else "\n").join(lines).encode())
        file.flush()
        node = parse(file.name, [])
    found = {
        (number, name): child.line
        for number, table in enumerate(node.value["t"].value if tables else ())
        for name, child in table.value.items()
    }
    assert found == where


def test_later_files_change_what_they_name(tmp_path: Path) -> None:
    """Tables by key, processors by name, anything else as a whole. Each value keeps its file."""
    below = parsed(
        tmp_path / "a.toml",
        'preload = ["x", "y"]\n[clock]\ntick_size = 1\nmax_retries = 1\n'
        '[[processor]]\nname = "a"\ntype = "t"\n[[processor]]\nname = "b"\n',
    )
    above = parsed(
        tmp_path / "b.toml",
        'preload = ["z"]\n[clock]\ntick_size = 2\n'
        '[[processor]]\nname = "b"\ntype = "u"\n[[processor]]\nname = "c"\n',
    )
    both = merged(below, above)
    assert plain(both) == {
        "preload": ["z"],
        "clock": {"tick_size": 2, "max_retries": 1},
        "processor": [{"name": "a", "type": "t"}, {"name": "b", "type": "u"}, {"name": "c"}],
    }
    clock = both.value["clock"].value
    places = {name: (Path(node.file).name, node.line) for name, node in clock.items()}
    assert places == {"tick_size": ("b.toml", 3), "max_retries": ("a.toml", 4)}


def test_variables_override_single_settings(tmp_path: Path) -> None:
    """Their names are paths. Others than those with the prefix are left alone."""
    root = parsed(tmp_path / "fleet.toml", "[clock]\ntick_size = 1\nmax_retries = 1\n")
    problems: list[FleetProblem] = []
    variables = {
        "CHRONOPYPE_MP__CLOCK__TICK_SIZE": "0.5",
        "CHRONOPYPE_MP__SUPERVISION__BUDGET__WINDOW": "5s",
        "CHRONOPYPE_MP_LAUNCHER": "spawn",
    }
    changed = override(root, variables, problems)
    assert problems == []
    assert plain(changed) == {
        "clock": {"tick_size": "0.5", "max_retries": 1},
        "supervision": {"budget": {"window": "5s"}},
    }
    assert changed.value["clock"].value["tick_size"].file == "CHRONOPYPE_MP__CLOCK__TICK_SIZE"


def test_variables_that_name_no_setting_are_problems(tmp_path: Path) -> None:
    """An override that does nothing would be a surprise."""
    root = parsed(tmp_path / "fleet.toml", "")
    problems: list[FleetProblem] = []
    override(root, {"CHRONOPYPE_MP__": "1", "CHRONOPYPE_MP__PROCESSOR__X": "1"}, problems)
    assert [problem.file for problem in problems] == [
        "CHRONOPYPE_MP__",
        "CHRONOPYPE_MP__PROCESSOR__X",
    ]
