"""The buffer of outputs is bounded, keeps the order and counts exactly."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from chronopype_mp.core.output_buffer import OUTPUT_BYTES, OutputBuffer
from chronopype_mp.core.outputs import BATCH_BYTES, BATCH_OUTPUTS


def test_the_oldest_outputs_are_dropped_and_counted() -> None:
    buffer = OutputBuffer(3 * (OUTPUT_BYTES + 1))
    for item in (b"1", b"2", b"3", b"4", b"5"):
        buffer.put(item)
    assert buffer.take() == (3, [b"3", b"4", b"5"])
    assert (buffer.numbered, buffer.dropped, buffer.bytes, len(buffer)) == (5, 2, 0, 0)


def test_a_single_output_may_exceed_the_bound() -> None:
    buffer = OutputBuffer(100)
    assert buffer.fits(b"x" * 1000)
    buffer.put(b"x" * 1000)
    assert not buffer.fits(b"")
    assert len(buffer) == 1


def test_a_frame_is_bounded_in_bytes_and_in_outputs() -> None:
    buffer = OutputBuffer(10**9)
    for _ in range(BATCH_OUTPUTS + 1):
        buffer.put(b"x")
    assert len(buffer.take().items) == BATCH_OUTPUTS
    large = b"x" * (BATCH_BYTES // 2)
    for _ in range(4):
        buffer.put(large)
    assert [len(item) for item in buffer.take().items] == [1, len(large), len(large)]


steps = st.lists(st.one_of(st.binary(max_size=300), st.none(), st.just("drop")), max_size=60)


@given(st.integers(1, 1000), steps)
def test_every_output_is_taken_once_in_order_or_counted_as_dropped(
    bound: int, steps: list[bytes | str | None]
) -> None:
    buffer = OutputBuffer(bound)
    put: list[bytes] = []
    taken = 0
    last = 0
    for step in steps:
        if isinstance(step, bytes):
            put.append(step)
            buffer.put(step)
        elif step is None:
            first, items = buffer.take()
            assert first > last
            assert items == put[first - 1 : first - 1 + len(items)]
            last = first + len(items) - 1
            taken += len(items)
        else:
            buffer.drop_all()
        assert buffer.bytes <= bound or len(buffer) == 1
        assert taken + buffer.dropped + len(buffer) == len(put) == buffer.numbered
