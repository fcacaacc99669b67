"""bench-compare: changes beyond the spread, and errors for files that it cannot read."""

from __future__ import annotations

from pathlib import Path

import pytest

from benchmarks.compare import changes, main
from benchmarks.report import Report
from tests.benchmarks.samples import a_report, a_row


@pytest.fixture
def written(tmp_path: Path) -> list[str]:
    """One file for each of the reports that `compared` gets."""
    return [str(tmp_path / name) for name in ("old.json", "new.json")]


def compared(written: list[str], old: Report, new: Report) -> int:
    for report, path in zip((old, new), written, strict=True):
        report.write(Path(path))
    return main(written)


@pytest.mark.parametrize("values", [{"min": 3.0, "max": 9.0}, {"min": 0.1, "max": 1.0}, {}])
def test_spreads_that_touch_are_no_change(values: dict[str, float]) -> None:
    assert changes(a_report(a_row()), a_report(a_row(**values))) == []


def test_spreads_apart_are_a_change_and_tell_both_figures_and_both_ratios() -> None:
    new = a_row(value=4.0, min=3.5, max=5.0, ratio=2.0)
    (line,) = changes(a_report(a_row()), a_report(new))
    assert line == (
        "100 Hz, p50: 2.00 (1.00 to 3.00) → 4.00 (3.50 to 5.00) µs, 2.00 × as much; "
        "ratio to bare reader 1.00 → 2.00"
    )


def test_rows_that_came_or_went_are_named() -> None:
    old, new = a_report(a_row(), a_row("10 Hz")), a_report(a_row(), a_row("500 Hz"))
    assert changes(old, new) == ["10 Hz, p50: removed", "500 Hz, p50: added"]


def test_the_exit_status_says_whether_something_changed(
    written: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    assert compared(written, a_report(a_row()), a_report(a_row())) == 0
    assert capsys.readouterr().out == "latency: nothing changed beyond the spread\n"
    assert compared(written, a_report(a_row()), a_report(a_row(value=8.0, min=7.0, max=9.0))) == 1
    assert "latency: 1 changed" in capsys.readouterr().out


def test_another_machine_is_noted_and_another_load_is_not(
    written: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    compared(written, a_report(a_row()), a_report(a_row(), load="7.0", cores="64"))
    printed = capsys.readouterr().out
    assert "note: different machines, compare only the ratios: cores 2 → 64\n" in printed


def refused(files: list[str], capsys: pytest.CaptureFixture[str]) -> str:
    with pytest.raises(SystemExit) as exit_:
        main(files)
    assert exit_.value.code == 2
    return capsys.readouterr().err.splitlines()[-1]


def test_a_missing_file_is_named(written: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    assert f"{written[0]!r}: No such file or directory" in refused(written, capsys)


@pytest.mark.parametrize("content", ["", "{}", "[1]", '{"name": 1}', "\x00"])
def test_a_file_that_is_no_report_is_named(
    content: str, written: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    a_report(a_row()).write(Path(written[0]))
    Path(written[1]).write_text(content)
    assert f"{written[1]!r}: is not a report" in refused(written, capsys)


def test_reports_of_two_benchmarks_are_not_compared(
    written: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as exit_:
        compared(written, a_report(a_row()), a_report(a_row(), name="jitter"))
    assert exit_.value.code == 2
    assert "OLD is a report of latency, NEW of jitter" in capsys.readouterr().err
