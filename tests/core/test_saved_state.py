"""Parts of snapshots: whatever becomes of them, only whole snapshots come out."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from chronopype_mp.core.codec import MAX_FRAME, encode_report
from chronopype_mp.core.messages import StatePart
from chronopype_mp.core.saved_state import (
    MAX_STATE,
    PART_SIZE,
    Assembly,
    SavedState,
    pieces_of,
)


def parts(incarnation: int, serial: int, *pieces: bytes) -> list[StatePart]:
    return [
        StatePart(
            worker="a",
            incarnation=incarnation,
            token=7,
            serial=serial,
            index=index,
            count=len(pieces),
            version=3,
            taken_at=1.5,
            data=piece,
        )
        for index, piece in enumerate(pieces)
    ]


def whole(assembly: Assembly, frames: list[StatePart]) -> list[bytes]:
    return [state.data for part in frames if (state := assembly.take(part)) is not None]


def test_state_is_cut_into_parts_that_fit_into_frames_and_put_together_again() -> None:
    for size in (0, 1, PART_SIZE, PART_SIZE + 1, MAX_STATE):
        data = bytes(range(256)) * (size // 256 + 1)
        frames = parts(1, 1, *pieces_of(data[:size]))
        assert all(len(encode_report(frame)) < MAX_FRAME for frame in frames)
        assembly = Assembly()
        assert [assembly.take(frame) for frame in frames[:-1]] == [None] * (len(frames) - 1)
        assert assembly.take(frames[-1]) == SavedState(3, 1.5, data[:size])


def test_a_half_snapshot_is_replaced_by_the_next_one() -> None:
    assembly = Assembly()
    assert whole(assembly, parts(1, 1, b"a", b"b")[:1]) == []
    assert whole(assembly, parts(2, 1, b"c", b"d")) == [b"cd"]
    assert whole(assembly, parts(2, 2, b"e")) == [b"e"]


def test_the_rest_of_one_snapshot_does_not_complete_another() -> None:
    for incarnation, serial in ((1, 2), (2, 1)):
        assembly = Assembly()
        assembly.take(parts(1, 1, b"a", b"b")[0])
        assert whole(assembly, parts(incarnation, serial, b"c", b"d")[1:]) == []


def test_more_than_a_snapshot_may_have_is_given_up() -> None:
    pieces = [bytes(PART_SIZE)] * (MAX_STATE // PART_SIZE + 1)
    assembly = Assembly()
    assert whole(assembly, parts(1, 1, *pieces)) == []
    assert whole(assembly, parts(1, 2, b"a")) == [b"a"]


@given(st.data())
def test_whatever_becomes_of_the_parts_only_whole_snapshots_come_out(data: st.DataObject) -> None:
    sent = {
        (incarnation, serial): [b"%d %d %d" % (incarnation, serial, n) for n in range(count)]
        for incarnation in (1, 2)
        for serial, count in enumerate(data.draw(st.lists(st.integers(1, 4), max_size=3)), 1)
    }
    frames = [part for key, pieces in sent.items() for part in parts(*key, *pieces)]
    if frames:
        frames = data.draw(st.lists(st.sampled_from(frames), max_size=12))
    wholes = {b"".join(pieces) for pieces in sent.values()}
    assert set(whole(Assembly(), frames)) <= wholes
