"""Patterns choose topics by their words."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from chronopype_mp.core.topics import (
    EVERY,
    LONGEST_TOPIC,
    match_any,
    matches,
    pattern_problem,
    topic_problem,
)

words = st.lists(st.text("abc", min_size=1, max_size=3), min_size=1, max_size=4)


@pytest.mark.parametrize(
    ("pattern", "chosen", "others"),
    [
        ("a", ["a"], ["", "a.b", "b"]),
        ("a.*", ["a.b", "a.c"], ["a", "a.b.c", "b.b", ""]),
        ("*.b", ["a.b"], ["b", "a.b.b"]),
        ("a.**", ["a.b", "a.b.c"], ["a", "b.a", ""]),
        ("*", ["", "a"], ["a.b"]),
        ("**", ["", "a", "a.b.c"], []),
        ("", [""], ["a"]),
    ],
)
def test_a_pattern_chooses_these_topics(pattern: str, chosen: list[str], others: list[str]) -> None:
    assert pattern_problem(pattern) is None
    assert [topic for topic in chosen + others if matches(pattern, topic)] == chosen


@given(words, st.data())
def test_a_topic_is_chosen_by_itself_and_with_any_word_replaced(
    topic: list[str], data: st.DataObject
) -> None:
    pattern = [data.draw(st.sampled_from((word, "*"))) for word in topic]
    cut = data.draw(st.integers(0, len(topic) - 1))
    assert matches(".".join(pattern), ".".join(topic))
    assert matches(".".join([*pattern[:cut], EVERY]), ".".join(topic))
    assert not matches(".".join([*pattern, EVERY]), ".".join(topic))


def test_one_of_several_patterns_is_enough() -> None:
    assert match_any(("a", "b.*"), "b.c")
    assert not match_any((), "a")


@pytest.mark.parametrize(
    ("topic", "problem"),
    [
        (None, "must be a str"),
        (b"a", "must be a str"),
        ("a..b", "empty word"),
        (".a", "empty word"),
        ("a.", "empty word"),
        ("a.*", "only patterns"),
        ("\ud800", "UTF-8"),
        ("é" * LONGEST_TOPIC, "at most 200"),
    ],
)
def test_what_is_not_a_topic_is_named(topic: object, problem: str) -> None:
    assert problem in (topic_problem(topic) or "")


@pytest.mark.parametrize("pattern", ["pri*", "a.**.b", "***", "a.b*", 3, "a..*"])
def test_what_is_not_a_pattern_is_refused(pattern: object) -> None:
    assert pattern_problem(pattern)
