"""The names of the ready-made processors, their extras and their pages."""

from __future__ import annotations

import importlib.metadata
import inspect
import re
import subprocess
import sys
import tomllib
from collections.abc import Iterable
from importlib.metadata import EntryPoint
from pathlib import Path
from typing import Any

import msgspec
import pytest

from chronopype_mp.fleet import load_fleet
from chronopype_mp.fleet.targets import ENTRY_POINTS
from workers._base import Options, ReadyMade

ROOT = Path(__file__).parent.parent.parent
PAGES = ROOT / "docs" / "workers"
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
EXTRAS = PROJECT["optional-dependencies"]
POINTS = {
    name: EntryPoint(name, path, ENTRY_POINTS)
    for name, path in PROJECT["entry-points"][ENTRY_POINTS].items()
}

WITHOUT_CLIENT = ("tcp", "process")
"""Processors that need no library."""

LOAD = """
import importlib.metadata, sys
import chronopype_mp.fleet
before = set(sys.modules)
for path in sys.argv[1:]:
    importlib.metadata.EntryPoint("name", path, "group").load()
    new = {name.partition(".")[0] for name in set(sys.modules) - before}
    print(path, sorted(new - sys.stdlib_module_names))
"""


def parametrized(names: Iterable[str]) -> Any:
    return pytest.mark.parametrize("name", sorted(names))


def options_of(name: str) -> type[Options]:
    """Return the struct of a processor's options."""
    processor = POINTS[name].load()
    assert issubclass(processor, ReadyMade)
    options = inspect.get_annotations(processor.__init__, eval_str=True)["options"]
    assert issubclass(options, Options)
    return options


def test_all_are_installed_under_their_names() -> None:
    """As ``chronopype-mp list-processors`` shows them."""
    found = importlib.metadata.entry_points(group=ENTRY_POINTS)
    assert {point.name: point.value for point in found if point.dist.name == PROJECT["name"]} == {
        name: point.value for name, point in POINTS.items()
    }


def test_no_client_is_imported_before_there_is_a_worker() -> None:
    """So that a fleet can be checked where the extras are not installed."""
    command = [sys.executable, "-c", LOAD, *(point.value for point in POINTS.values())]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    assert done.stdout.splitlines() == [f"{p.value} ['workers']" for p in POINTS.values()]


def test_each_has_an_extra_and_one_extra_has_all() -> None:
    """Apart from those that need no library."""
    named = [name for name in POINTS if name not in WITHOUT_CLIENT]
    (together,) = EXTRAS["workers"] or [f"{PROJECT['name']}[]"]
    assert together == f"{PROJECT['name']}[{','.join(sorted(named))}]"
    assert all(EXTRAS[name] for name in named)


def test_every_page_is_one_of_a_processor() -> None:
    """The first page lists all of them."""
    assert {page.stem for page in PAGES.glob("*.md")} == {"README", *POINTS}
    linked = re.findall(
        r"^\| \[`([a-z]+)`\]\(([a-z]+)\.md\)", (PAGES / "README.md").read_text(), re.M
    )
    assert linked == [(name, name) for name in POINTS]


def columns(page: str) -> set[str]:
    """Return the names in the first column of the table of options."""
    return set(re.findall(r"^\| `(\w+)` \|", page, re.M))


def test_the_first_page_has_the_common_options() -> None:
    """Its snippet has them all."""
    page = (PAGES / "README.md").read_text()
    assert columns(page.partition("\n## Common options\n")[2].partition("\n## ")[0]) == set(
        Options.__struct_fields__
    )


@parametrized(POINTS)
def test_the_page_of_a_processor_has_its_other_options(name: str) -> None:
    page = (PAGES / f"{name}.md").read_text()
    own = set(options_of(name).__struct_fields__) - set(Options.__struct_fields__)
    assert columns(page.partition("\n## Options\n")[2].partition("\n## ")[0]) == own


@parametrized(["README", *POINTS])
def test_the_fleet_files_of_a_page_are_right(name: str, tmp_path: Path) -> None:
    """Each is a whole fleet, whose processors can be made without their libraries."""
    page = (PAGES / f"{name}.md").read_text()
    files = re.findall(r"^```toml\n((?:.*\n)*?)```$", page, re.M)
    assert files or name == "README"
    for number, text in enumerate(files):
        path = tmp_path / f"{number}.toml"
        path.write_text(text)
        for module in tomllib.loads(text).get("preload", ()):
            pytest.importorskip(module)  # `preload` names modules that are there
        variables = dict.fromkeys(re.findall(r"\$\{(\w+)\}", text), "x")
        plan = load_fleet(path, variables)
        for worker in plan.workers:
            module, _, kind = str(worker.spec.target).partition(":")
            processor = getattr(sys.modules[module], kind)(**worker.spec.options)
            assert isinstance(processor, ReadyMade)
            assert isinstance(processor.options, msgspec.Struct)
        used = {str(worker.spec.target) for worker in plan.workers}
        assert name == "README" or POINTS[name].value in used
