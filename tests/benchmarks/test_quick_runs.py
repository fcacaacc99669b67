"""Quick runs of all benchmarks: they work, their JSON is complete, and nothing is left behind."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import pytest

from benchmarks.registry import BENCHMARKS
from tests.system.conftest import (  # noqa: F401 – fixtures
    TEST_TIMEOUT,
    nothing_left,
    scripts,
    short_path,
)
from tests.system.scripts import Scripts

pytestmark = pytest.mark.timeout(TEST_TIMEOUT)

ROOT = Path(__file__).parents[2]

FIELDS = {
    "case": str,
    "metric": str,
    "unit": str,
    "value": float,
    "min": float,
    "max": float,
    "reference": str,
    "ratio": float | None,
}


@pytest.mark.parametrize("name", list(BENCHMARKS))
def test_a_quick_run_reports_rows_with_all_fields(
    name: str,
    scripts: Scripts,  # noqa: F811
    tmp_path: Path,
) -> None:
    path = tmp_path / "report.json"
    command = [sys.executable, "-m", "benchmarks", name, "--quick", "--json", str(path)]
    script = scripts.run(command, PYTHONPATH=str(ROOT))
    assert script.wait() == 0, script.output
    assert "Traceback" not in script.output
    report = json.loads(path.read_bytes())
    assert list(report) == ["name", "machine", "argv", "rows"]
    assert report["name"] == name
    assert report["argv"] == command[3:]
    assert report["rows"]
    names = {(row["case"], row["metric"]) for row in report["rows"]}
    assert len(names) == len(report["rows"])
    for row in report["rows"]:
        assert list(row) == list(FIELDS)
        assert all(isinstance(row[field], kind) for field, kind in FIELDS.items()), row
        assert row["min"] <= row["value"] <= row["max"]
