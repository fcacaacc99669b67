"""The text of exceptions: bounded, and never an exception itself."""

from __future__ import annotations

import pytest

from chronopype_mp.core.error_text import (
    LONGEST_MESSAGE,
    LONGEST_NAME,
    LONGEST_TRACEBACK,
    line_of,
    message_of,
    name_of,
    repr_of,
    traceback_of,
)

ROOM_FOR_THE_NOTE = 100
"""Characters that say how much was left out."""

HUGE = "x" * 5_000_000


class Unprintable(Exception):
    def __str__(self) -> str:
        raise ValueError(HUGE)


def raised(error: BaseException) -> BaseException:
    try:
        raise error
    except BaseException as caught:
        return caught


@pytest.mark.parametrize("error", [ValueError(HUGE), type(HUGE, (Exception,), {})(HUGE)])
def test_every_text_of_an_endless_exception_is_shortened(error: BaseException) -> None:
    error = raised(error)
    assert len(name_of(type(error))) <= LONGEST_NAME + ROOM_FOR_THE_NOTE
    assert len(message_of(error)) <= LONGEST_MESSAGE + ROOM_FOR_THE_NOTE
    assert len(traceback_of(error)) <= LONGEST_TRACEBACK + ROOM_FOR_THE_NOTE


@pytest.mark.parametrize("character", ["x", "é", "€", "\U0001f600", "\udce9"])
def test_a_text_that_is_shortened_travels_as_few_bytes_whatever_its_characters(
    character: str,
) -> None:
    error = raised(ValueError(character * LONGEST_TRACEBACK))
    for text, longest in (
        (message_of(error), LONGEST_MESSAGE),
        (traceback_of(error), LONGEST_TRACEBACK),
    ):
        assert "�" not in text
        size = len(text.encode(errors="backslashreplace"))
        assert longest - ROOM_FOR_THE_NOTE < size <= longest + ROOM_FOR_THE_NOTE


class WithoutRepr:
    def __repr__(self) -> str:
        raise LookupError


def test_the_text_of_a_value_is_never_an_exception_itself() -> None:
    assert repr_of("a") == "'a'"
    assert repr_of(WithoutRepr()) == "a WithoutRepr, which cannot be printed (LookupError)"


def test_an_exception_without_a_message_is_its_name_alone() -> None:
    assert line_of(KeyError("a")) == "KeyError: 'a'"
    assert line_of(ConnectionResetError()) == "ConnectionResetError"


def test_a_short_text_is_left_alone() -> None:
    error = raised(KeyError("price"))
    assert (name_of(type(error)), message_of(error)) == ("KeyError", "'price'")
    assert traceback_of(error).endswith("KeyError: 'price'\n")


def test_an_exception_that_cannot_be_printed_has_a_text_all_the_same() -> None:
    assert message_of(Unprintable()) == "Unprintable, which cannot be printed (ValueError)"
