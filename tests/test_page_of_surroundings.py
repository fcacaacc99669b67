"""The page on supervision names a test for each promise about surroundings."""

from __future__ import annotations

import re
from pathlib import Path

ROOT = Path(__file__).parent.parent

LEAST_WORDS = 4
"""Of the name of a test; no other name on that page has so many."""


def test_the_tests_that_the_page_names_are_there() -> None:
    page = (ROOT / "docs" / "supervision.md").read_text()
    section = page.partition("\n## Surroundings\n")[2].partition("\n## ")[0]
    names = {
        name
        for name in re.findall(r"`([a-z0-9_]+)(?:\[[^`]*\])?`", section)
        if name.count("_") >= LEAST_WORDS
    }
    tests = "\n".join(path.read_text() for path in (ROOT / "tests").rglob("test_*.py"))
    assert len(names) > 10
    assert {name for name in names if f"def test_{name}(" not in tests} == set()
