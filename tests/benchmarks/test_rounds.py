"""Repeats are interleaved, in alternating order, and skip peers that are not installed."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from benchmarks import rounds
from benchmarks.peers import Answer
from benchmarks.report import OURS, Sample
from benchmarks.rounds import Rounds, Runs, SkipError, peer

UNITS = {"time": "ms"}


def giving(value: float, order: list[float]) -> Callable[[], Sample]:
    def run() -> Sample:
        order.append(value)
        return {"time": value}

    return run


def raising(*outcomes: float) -> Callable[[], Sample]:
    """Return a run that returns these samples and is then skipped."""
    left = list(outcomes)

    def run() -> Sample:
        if not left:
            raise SkipError("it is tired")
        return {"time": left.pop(0)}

    return run


def test_repeats_are_interleaved_and_every_second_one_goes_backwards() -> None:
    order: list[float] = []
    runs: Runs = {("a", OURS): giving(1, order), ("a", "bare"): giving(2, order)}
    Rounds(runs, 3)
    assert order == [1, 2, 2, 1, 1, 2]


def test_a_result_has_the_rows_of_all_cases_in_their_order() -> None:
    runs: Runs = {
        ("b", OURS): giving(6, []),
        ("a", OURS): giving(2, []),
        ("b", "bare"): giving(3, []),
        ("a", "bare"): giving(4, []),
    }
    result = Rounds(runs, 2).result(UNITS)
    assert [(row.case, row.value, row.ratio) for row in result.rows] == [
        ("b", 6, 2.0),
        ("b: bare", 3, 2.0),
        ("a", 2, 0.5),
        ("a: bare", 4, 0.5),
    ]
    assert result.skipped == {}


def test_what_is_skipped_once_is_left_out_and_named_with_the_reason() -> None:
    runs: Runs = {
        ("a", OURS): giving(1, []),
        ("a", "bare"): giving(1, []),
        ("a", "Ray"): raising(5),
    }
    result = Rounds(runs, 3).result(UNITS)
    assert [row.case for row in result.rows] == ["a", "a: bare"]
    assert result.skipped == {"Ray": "it is tired"}


def test_what_is_skipped_in_one_case_only_is_named_with_that_case() -> None:
    runs: Runs = {("10 workers", OURS): giving(1, []), ("1000 workers", OURS): raising()}
    result = Rounds(runs, 1).result(UNITS)
    assert [row.case for row in result.rows] == ["10 workers"]
    assert result.skipped == {"1000 workers, chronopype_mp": "it is tired"}


def answering(monkeypatch: pytest.MonkeyPatch, answer: Answer) -> list[tuple[str, ...]]:
    """Replace the peers by this answer. Return the programs and arguments that they get."""
    asked: list[tuple[str, ...]] = []

    def ask(*program_and_arguments: str) -> Answer:
        asked.append(program_and_arguments)
        return answer

    monkeypatch.setattr(rounds, "ask", ask)
    return asked


def test_a_peers_figures_come_under_our_names(monkeypatch: pytest.MonkeyPatch) -> None:
    asked = answering(monkeypatch, Answer({"restart_ms": 7.0, "other": 1.0}))
    assert peer(False, "ray_restart", "3", names={"restart_ms": "time"})() == {"time": 7.0}
    assert asked == [("ray_restart", "3")]


def test_a_peer_that_is_not_installed_is_skipped_in_its_own_words(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    answering(monkeypatch, Answer({}, "no .venv-peers, create it with ./scripts/bench-peers"))
    with pytest.raises(SkipError, match=r"create it with \./scripts/bench-peers"):
        peer(False, "ray_restart", names={"restart_ms": "time"})()


def test_a_peer_that_says_nothing_of_a_figure_is_skipped(monkeypatch: pytest.MonkeyPatch) -> None:
    answering(monkeypatch, Answer({"survived": 0.0}))
    with pytest.raises(SkipError, match="did not print p99_ms"):
        peer(False, "chronopype_isolation", names={"p99_ms": "p99"})()


def test_a_quick_run_asks_no_peer(monkeypatch: pytest.MonkeyPatch) -> None:
    asked = answering(monkeypatch, Answer({"restart_ms": 7.0}))
    with pytest.raises(SkipError, match=r"\./scripts/bench-peers"):
        peer(True, "ray_restart", names={"restart_ms": "time"})()
    assert asked == []
