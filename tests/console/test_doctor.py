"""``chronopype-mp doctor``."""

from __future__ import annotations

import json
import resource
from pathlib import Path

import pytest

from chronopype_mp.console.cli import main


@pytest.fixture(autouse=True)
def runtime(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Have directories of fleets for this test alone."""
    path = tmp_path_factory.mktemp("run")
    monkeypatch.setenv("XDG_RUNTIME_DIR", str(path))
    return path


def findings(capsys: pytest.CaptureFixture[str]) -> dict[str, dict[str, object]]:
    main(["doctor", "--json"])
    return {found["check"]: found for found in json.loads(capsys.readouterr().out)}


def test_a_low_limit_is_shown_with_advice(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """The exit status is then 1."""
    monkeypatch.setattr(resource, "getrlimit", lambda kind: (200, 200))
    assert main(["doctor"]) == 1
    shown = capsys.readouterr().out
    assert "BAD open files: at most 200\n      allow at least 1024 (ulimit -n" in shown


def test_what_a_dead_coordinator_left_is_shown(
    capsys: pytest.CaptureFixture[str], runtime: Path
) -> None:
    """It is no problem, since the next run replaces it."""
    left = runtime / "chronopype_mp" / "feeds"
    left.mkdir(parents=True)
    (left / "pid").write_text("1\n")
    found = findings(capsys)["fleet feeds"]
    assert found["ok"]
    assert found["found"] == f"its coordinator died and left {left}"
    assert "the next run of 'feeds' replaces it" in str(found["advice"])


def test_a_directory_that_cannot_be_made_is_a_problem(
    capsys: pytest.CaptureFixture[str], runtime: Path
) -> None:
    """A file is in its place."""
    assert findings(capsys)["directory of fleets"]["ok"]
    (runtime / "chronopype_mp").write_text("")
    found = findings(capsys)["directory of fleets"]
    assert not found["ok"]
    assert "is not a directory; remove it" in str(found["found"])


def test_a_missing_temporary_directory_is_a_problem(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """The advice says how to have another."""
    monkeypatch.setattr("tempfile.tempdir", "/no/such/directory")
    found = findings(capsys)["temporary files"]
    assert not found["ok"]
    assert "TMPDIR" in str(found["advice"])
