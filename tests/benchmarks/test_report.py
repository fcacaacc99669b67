"""The rows of a report (medians, spreads, ratios), and how it is printed and written."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from benchmarks.report import OURS, facts, row, rows
from tests.benchmarks.samples import a_report, a_row

UNITS = {"p50": "µs", "p99": "µs"}


def test_a_row_has_median_least_most_and_the_ratio_of_the_medians() -> None:
    made = row("100 Hz", "p50", "µs", [4.0, 100.0, 2.0], "bare reader", [2.0, 1.0, 50.0])
    assert (made.value, made.min, made.max, made.ratio) == (4.0, 2.0, 100.0, 2.0)
    assert made.subject == OURS


@pytest.mark.parametrize(
    ("ours", "reference", "ratio"), [(0.0, 0.0, 1.0), (1.0, 0.0, None), (0.0, 2.0, 0.0)]
)
def test_a_reference_of_nothing_has_a_ratio_only_to_nothing(
    ours: float, reference: float, ratio: float | None
) -> None:
    assert row("a", "missed", "%", [ours], "bare", [reference]).ratio == ratio


def test_each_reference_and_peer_has_a_row_of_its_own_with_our_ratio_to_it() -> None:
    made = rows(
        "a", {"p50": "µs"}, [{"p50": 6.0}], {"bare": [{"p50": 3.0}], "Ray": [{"p50": 12.0}]}
    )
    assert [(r.case, r.value, r.reference, r.ratio, r.subject) for r in made] == [
        ("a", 6.0, "bare", 2.0, OURS),
        ("a: bare", 3.0, "bare", 2.0, "bare"),
        ("a: Ray", 12.0, "Ray", 0.5, "Ray"),
    ]


def test_the_first_other_that_has_a_metric_is_its_reference() -> None:
    """A peer may have fewer metrics than the reference, or more."""
    ours = [{"p50": 1.0, "p99": 2.0}]
    made = rows("a", UNITS, ours, {"bare": [{"p50": 1.0}], "Ray": [{"p50": 1.0, "p99": 4.0}]})
    assert [(r.case, r.metric, r.reference) for r in made] == [
        ("a", "p50", "bare"),
        ("a: bare", "p50", "bare"),
        ("a: Ray", "p50", "Ray"),
        ("a", "p99", "Ray"),
        ("a: Ray", "p99", "Ray"),
    ]


def test_a_metric_that_one_repeat_lacks_is_left_out() -> None:
    assert rows("a", {"p99": "µs"}, [{"p99": 1.0}, {}], {"bare": [{"p99": 1.0}] * 2}) == []


def test_a_peer_that_was_skipped_has_no_rows() -> None:
    made = rows("a", {"p50": "µs"}, [{"p50": 1.0}], {"bare": [{"p50": 1.0}], "Ray": []})
    assert [r.case for r in made] == ["a", "a: bare"]


def test_what_is_printed_tells_the_machine_and_for_each_row_the_ratio_to_whom() -> None:
    printed = str(
        a_report(a_row(), a_row("100 Hz: bare reader", ratio=1.5), a_row("missed", ratio=None))
    )
    first, ours, reference, none = printed.splitlines()
    assert "a CPU" in first
    assert "load 0.1" in first
    assert ours.endswith("1.00 × bare reader")
    assert reference.endswith("(ours is 1.50 × this)")
    assert none.endswith("no ratio bare reader")


def test_the_json_has_these_fields_and_no_others(tmp_path: Path) -> None:
    path = tmp_path / "report.json"
    a_report(a_row(ratio=None)).write(path)
    report = json.loads(path.read_bytes())
    assert list(report) == ["name", "machine", "argv", "rows"]
    assert report["rows"] == [
        {
            "case": "100 Hz",
            "metric": "p50",
            "unit": "µs",
            "value": 2.0,
            "min": 1.0,
            "max": 3.0,
            "reference": "bare reader",
            "ratio": None,
        }
    ]


def test_the_machine_facts_are_there() -> None:
    assert list(facts()) == ["CPU", "cores", "machine", "Python", "libzmq", "load"]
    assert all(facts().values())
