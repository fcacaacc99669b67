"""Imports point one way, and the pure core stays pure."""

from __future__ import annotations

import ast
from pathlib import Path

PACKAGE = Path(__file__).parent.parent / "chronopype_mp"

ORDER = [
    {"exceptions", "guarded_log", "timing", "version"},
    {"core"},
    {"processors"},
    {"transport", "launchers"},
    {"worker", "coordinator"},
    {"clocks"},
    {"events", "testing", "runtime", "fleet"},
    {"control"},
    {"console"},
    {"__init__", "__main__"},
]
RANK = {part: rank for rank, parts in enumerate(ORDER) for part in parts}
SIDE_BY_SIDE = {frozenset({"worker", "coordinator"})}
IMPURE = {
    "asyncio",
    "multiprocess",
    "multiprocessing",
    "os",
    "pathlib",
    "psutil",
    "signal",
    "socket",
    "subprocess",
    "threading",
    "time",
    "zmq",
}


def imports(path: Path) -> set[str]:
    """Return the dotted names of all modules that a file imports, at any depth."""
    names: set[str] = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            names.update(alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module:
            names.add(node.module)
    return names


def part_of(path: Path) -> str:
    return path.relative_to(PACKAGE).with_suffix("").parts[0]


def test_imports_point_from_the_edges_to_the_core() -> None:
    wrong = []
    for path in sorted(PACKAGE.rglob("*.py")):
        part = part_of(path)
        for name in imports(path):
            if not name.startswith("chronopype_mp."):
                continue
            other = name.split(".")[1]
            if part == other:
                continue
            if RANK[other] > RANK[part] or frozenset({part, other}) in SIDE_BY_SIDE:
                wrong.append(f"{path.relative_to(PACKAGE)} imports {name}")
    assert not wrong


def test_the_core_reads_no_clock_and_touches_no_socket_process_or_file() -> None:
    wrong = [
        f"{path.relative_to(PACKAGE)} imports {name}"
        for path in sorted((PACKAGE / "core").rglob("*.py"))
        for name in imports(path)
        if name.split(".")[0] in IMPURE
    ]
    assert not wrong


def test_workers_and_examples_import_public_names_only() -> None:
    public = {
        "chronopype_mp",
        *(f"chronopype_mp.{name}" for name in ("clocks", "events", "exceptions", "processors")),
        "chronopype_mp.testing",
    }
    wrong = [
        f"{path.name} imports {name}"
        for folder in ("workers", "examples")
        for path in sorted((PACKAGE.parent / folder).glob("*.py"))
        for name in imports(path)
        if name.split(".")[0] == "chronopype_mp" and name not in public
    ]
    assert not wrong


def test_only_the_transport_imports_zmq() -> None:
    wrong = [
        str(path.relative_to(PACKAGE))
        for path in sorted(PACKAGE.rglob("*.py"))
        if part_of(path) != "transport"
        and any(name.split(".")[0] == "zmq" for name in imports(path))
    ]
    assert not wrong
