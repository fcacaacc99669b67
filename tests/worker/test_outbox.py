"""The outbox: reports on their way out."""

from __future__ import annotations

from typing import ClassVar

from hypothesis import given
from hypothesis import strategies as st

from chronopype_mp.core.codec import MAX_FRAME, decode_report, encode_report
from chronopype_mp.core.messages import CommandDone, LogLine
from chronopype_mp.worker.outbox import BYTES_KEPT, Outbox


class Pipe:
    """A sender with room for so many frames."""

    def __init__(self, room: int) -> None:
        self.room = room
        self.numbers: list[int] = []
        self.refused = 0

    def send(self, frame: bytes) -> bool:
        if self.room <= 0:
            self.refused += 1
            return False
        self.room -= 1
        report = decode_report(frame)
        assert isinstance(report, CommandDone)
        self.numbers.append(report.id)
        return True

    def close(self, linger: float) -> None:
        """Nothing to close."""


def report(number: int) -> CommandDone:
    return CommandDone(worker="a", incarnation=1, token=5, id=number, seq=0)


def test_a_report_leaves_at_once_where_there_is_room() -> None:
    pipe = Pipe(room=10)
    outbox = Outbox(pipe)
    outbox.post(report(1))
    outbox.post_if_free(report(2))
    assert pipe.numbers == [1, 2]
    assert outbox.lost == 0


def test_what_finds_no_room_is_kept_and_leaves_before_anything_newer() -> None:
    pipe = Pipe(room=0)
    outbox = Outbox(pipe)
    outbox.post(report(1))
    outbox.post(report(2))
    pipe.room = 10
    outbox.post(report(3))
    assert pipe.numbers == [1, 2, 3]
    assert outbox.lost == 0


def test_a_report_that_the_next_one_replaces_is_not_kept_but_counted() -> None:
    pipe = Pipe(room=0)
    outbox = Outbox(pipe)
    outbox.post_if_free(report(1))
    pipe.room = 10
    outbox.flush()
    assert pipe.numbers == []
    assert outbox.lost == 1
    outbox.post_if_free(report(2))
    assert pipe.numbers == [2]


def test_a_report_that_the_next_one_replaces_does_not_overtake_kept_ones() -> None:
    pipe = Pipe(room=0)
    outbox = Outbox(pipe)
    outbox.post(report(1))
    outbox.post(report(2))
    pipe.room = 1
    outbox.post_if_free(report(3))
    assert pipe.numbers == [1]
    pipe.room = 10
    outbox.post_if_free(report(4))
    assert pipe.numbers == [1, 2, 4]


def test_past_the_bound_the_oldest_is_dropped_and_counted() -> None:
    pipe = Pipe(room=0)
    outbox = Outbox(pipe)
    first = 100_000  # from here on all frames are equally long
    kept = BYTES_KEPT // len(encode_report(report(first)))
    for number in range(first, first + kept + 3):
        outbox.post(report(number))
    assert outbox.lost == 3
    pipe.room = 2 * kept
    outbox.flush()
    assert pipe.numbers == list(range(first + 3, first + kept + 3))
    for number in range(kept):  # the bound is on what is kept now
        pipe.room = number % 2
        outbox.post(report(first + number))
    assert outbox.lost == 3


def test_room_that_appears_in_between_lets_no_report_overtake_a_kept_one() -> None:
    class Wavering(Pipe):
        answers: ClassVar[list[bool]] = [False, False, True]

        def send(self, frame: bytes) -> bool:
            self.room = int(self.answers.pop(0)) if self.answers else 1
            return super().send(frame)

    pipe = Wavering(room=0)
    outbox = Outbox(pipe)
    outbox.post(report(1))
    outbox.post(report(2))
    outbox.flush()
    assert pipe.numbers == [1, 2]


def test_a_flush_stops_at_the_first_that_is_refused() -> None:
    pipe = Pipe(room=0)
    outbox = Outbox(pipe)
    for number in range(5):
        outbox.post(report(number))
    pipe.room, pipe.refused = 2, 0
    outbox.flush()
    assert pipe.numbers == [0, 1]
    assert pipe.refused == 1


def test_a_report_that_does_not_fit_into_a_frame_is_dropped_and_counted() -> None:
    pipe = Pipe(room=10)
    outbox = Outbox(pipe)
    who = {"worker": "a", "incarnation": 1, "token": 5}
    long = LogLine(**who, logger="x", level=10, message="x" * MAX_FRAME, created=0.0)
    outbox.post(long)
    outbox.post_if_free(long)
    outbox.post(report(1))
    assert pipe.numbers == [1]
    assert outbox.lost == 2


@given(
    st.lists(
        st.tuples(st.sampled_from(["post", "if free", "flush"]), st.integers(0, 3)), max_size=60
    )
)
def test_reports_leave_in_order_and_none_is_lost_uncounted(steps: list[tuple[str, int]]) -> None:
    pipe = Pipe(room=0)
    outbox = Outbox(pipe)
    for number, (step, room) in enumerate(steps):
        pipe.room = room
        if step == "post":
            outbox.post(report(number))
        elif step == "if free":
            outbox.post_if_free(report(number))
        else:
            outbox.flush()
    pipe.room = len(steps)
    outbox.flush()
    assert pipe.numbers == sorted(set(pipe.numbers))
    posted = [number for number, (step, _) in enumerate(steps) if step != "flush"]
    assert len(pipe.numbers) + outbox.lost == len(posted)
    assert {n for n, (step, _) in enumerate(steps) if step == "post"} <= set(pipe.numbers)
