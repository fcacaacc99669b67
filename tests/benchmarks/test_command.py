"""The command line of the benchmarks. No benchmark runs."""

from __future__ import annotations

import importlib.util
from pathlib import Path
from typing import Any

import pytest

from benchmarks import __main__ as command
from benchmarks.measures import MeasurementError
from benchmarks.registry import BENCHMARKS, find
from benchmarks.report import Result
from chronopype_mp.console import cli
from tests.benchmarks.samples import a_row


def measuring(monkeypatch: pytest.MonkeyPatch, outcome: Result | BaseException) -> list[str]:
    """Replace every benchmark by this outcome. Return the names of the requested benchmarks."""
    found: list[str] = []

    def measure(quick: bool) -> Result:
        if isinstance(outcome, BaseException):
            raise outcome
        return outcome

    def find(name: str) -> Any:
        found.append(name)
        return measure

    monkeypatch.setattr(command, "find", find)
    return found


def refused(argv: list[str], capsys: pytest.CaptureFixture[str]) -> str:
    """Return the error line for invalid arguments."""
    assert cli.main(["bench", *argv]) == 2
    return capsys.readouterr().err.splitlines()[-1]


@pytest.mark.parametrize("name", list(BENCHMARKS))
def test_every_benchmark_is_a_module_with_a_measure(name: str) -> None:
    assert callable(find(name))


def test_an_unknown_name_is_an_error_that_lists_the_known_ones(
    capsys: pytest.CaptureFixture[str],
) -> None:
    line = refused(["nonsense"], capsys)
    assert line.startswith("chronopype-mp bench: error:")
    assert all(name in line for name in ("nonsense", *BENCHMARKS))


@pytest.mark.parametrize("option", ["--json", "--plot"])
def test_a_file_that_cannot_be_written_is_refused_before_anything_runs(
    option: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    directory = tmp_path / "directory.png"
    directory.mkdir()
    for path in (directory, tmp_path / "nowhere" / "x.png"):
        line = refused(["restart", option, str(path)], capsys)
        assert f"{str(path)!r}: cannot be written" in line


def test_a_plot_is_a_png(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert "must end in .png" in refused(["restart", "--plot", str(tmp_path / "x.gif")], capsys)


def test_a_plot_without_matplotlib_names_the_extra(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    line = refused(["restart", "--plot", str(tmp_path / "x.png")], capsys)
    assert "pip install 'chronopype-mp[bench]'" in line


def test_a_report_is_printed_written_and_drawn(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    rows = [a_row(value=900.0, max=1000.0), a_row("100 Hz: bare reader"), a_row("x", "missed")]
    measuring(monkeypatch, Result(rows, {"Ray": "no .venv-peers"}))
    paths = [str(tmp_path / name) for name in ("x.json", "x.png")]
    assert command.main(["latency", "--json", paths[0], "--plot", paths[1]]) == 0
    assert "  skipped: Ray (no .venv-peers)\n" in capsys.readouterr().out
    assert Path(paths[0]).read_bytes().startswith(b'{\n  "name": "latency"')
    assert Path(paths[1]).read_bytes().startswith(b"\x89PNG")


def test_what_did_not_happen_is_one_line_and_status_1(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    measuring(monkeypatch, MeasurementError("no tick arrived"))
    assert command.main(["latency"], prog="bench") == 1
    assert capsys.readouterr().err == "bench: latency: no tick arrived\n"


def test_ctrl_c_is_status_130(monkeypatch: pytest.MonkeyPatch) -> None:
    measuring(monkeypatch, KeyboardInterrupt())
    assert command.main(["latency"]) == 130


def test_the_command_hands_over_to_the_benchmarks(monkeypatch: pytest.MonkeyPatch) -> None:
    found = measuring(monkeypatch, Result([a_row()]))
    assert cli.main(["bench", "restart", "--quick"]) == 0
    assert found == ["restart"]
