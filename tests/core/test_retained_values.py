"""The last retained message of each topic is kept, within bounds."""

from __future__ import annotations

import msgspec

from chronopype_mp.core.message_frames import decode_messages, encode_messages, message_topic
from chronopype_mp.core.retained_values import PART_BYTES, RetainedValues


def put(values: RetainedValues, topic: str, *payloads: object, serial: int = 1) -> None:
    encoded = list(map(msgspec.msgpack.encode, payloads))
    key = message_topic(topic, retain=True)
    values.put(*decode_messages(encode_messages(key, "feed", 1, serial, 1, encoded)))


def kept(values: RetainedValues, *patterns: str) -> list[tuple[str, bytes, int]]:
    return [
        (value.topic, bytes(value.payload), value.serial)
        for part in values.answer(1, patterns)
        for value in part.values
    ]


def test_the_last_message_of_a_batch_replaces_the_one_before() -> None:
    values = RetainedValues()
    put(values, "a", 1, 2)
    put(values, "a", 3, 4, 5, serial=7)
    assert kept(values, "a") == [("a", b"\x05", 9)]


def test_an_answer_has_the_topics_that_a_pattern_chooses_oldest_first() -> None:
    values = RetainedValues()
    for topic in ("prices.btc", "orders", "prices.eth", "prices.btc"):
        put(values, topic, 1)
    assert [topic for topic, _, _ in kept(values, "prices.*")] == ["prices.eth", "prices.btc"]
    assert kept(values, "nothing") == []


def test_an_answer_comes_in_numbered_parts_of_which_the_last_says_so() -> None:
    values = RetainedValues()
    for number in range(5):
        put(values, f"t{number}", bytes(PART_BYTES // 2))
    parts = list(values.answer(7, ["**"]))
    assert [part.part for part in parts] == [0, 1, 2]
    assert [part.is_last for part in parts] == [False, False, True]
    assert [len(part.values) for part in parts] == [2, 2, 1]
    assert {part.request for part in parts} == {7}


def test_a_hundred_thousand_topics_used_once_take_no_more_than_the_bound() -> None:
    values = RetainedValues(bound=1_000_000)
    for number in range(100_000):
        put(values, f"t{number}", number)
    assert values.bytes <= 1_000_000
    assert len(values) + values.displaced == 100_000
    assert [topic for topic, _, _ in kept(values, "**")][-1] == "t99999"


def test_a_single_value_larger_than_the_bound_is_kept() -> None:
    values = RetainedValues(bound=1000)
    put(values, "a", bytes(5000))
    assert len(values) == 1
