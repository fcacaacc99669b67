"""Topics are words separated by dots. A pattern chooses topics: ``*`` is one word, ``**`` the rest.

``prices.*`` chooses ``prices.btc``, but neither ``prices`` nor ``prices.btc.eur``. ``prices.**``
chooses both ``prices.btc`` and ``prices.btc.eur``, and ``**`` chooses every topic.
"""

from __future__ import annotations

from collections.abc import Iterable

__all__ = ["EVERY", "LONGEST_TOPIC", "match_any", "matches", "pattern_problem", "topic_problem"]

EVERY = "**"
"""The pattern of every topic; at the end of a pattern it stands for one word or more."""

LONGEST_TOPIC = 200
"""Bytes of a topic or pattern in UTF-8."""


def topic_problem(topic: object) -> str | None:
    """Return why an object is not a topic, to follow its ``repr``; None if it is one."""
    problem = _text_problem(topic)
    if problem is None and "*" in str(topic):
        problem = 'must not contain "*", which only patterns do'
    return problem


def pattern_problem(pattern: object) -> str | None:
    """Return why an object is not a pattern of topics, to follow its ``repr``; None if it is."""
    problem = _text_problem(pattern)
    if problem is not None:
        return problem
    *words, last = str(pattern).split(".")
    if any("*" in word and word != "*" for word in words) or (
        "*" in last and last not in ("*", EVERY)
    ):
        return '"*" must be a whole word, and "**" the last one, as in "prices.*" or "prices.**"'
    return None


def _text_problem(text: object) -> str | None:
    if not isinstance(text, str):
        return 'must be a str of words separated by dots, such as "prices.btc"'
    try:
        length = len(text.encode())
    except UnicodeEncodeError:
        return "cannot be encoded in UTF-8"
    if length > LONGEST_TOPIC:
        return f"has {length} bytes, but at most {LONGEST_TOPIC} are allowed"
    if text and not all(text.split(".")):
        return "has an empty word between, before or after its dots"
    return None


def matches(pattern: str, topic: str) -> bool:
    """Whether a pattern chooses a topic."""
    wanted, words = pattern.split("."), topic.split(".")
    if wanted[-1] == EVERY:
        wanted.pop()
        if len(words) <= len(wanted):
            return False
    elif len(words) != len(wanted):
        return False
    return all(want in ("*", word) for want, word in zip(wanted, words, strict=False))


def match_any(patterns: Iterable[str], topic: str) -> bool:
    """Whether one of several patterns chooses a topic."""
    return any(matches(pattern, topic) for pattern in patterns)
