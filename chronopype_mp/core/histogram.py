"""A histogram of durations with buckets of equal relative width, like HdrHistogram.

There are eight buckets per doubling, so any percentile is accurate to 7 %. A few hundred counters
cover the range from nanoseconds to an hour. Counting is a shift and an increment. Merging two
histograms adds their counters.
"""

from __future__ import annotations

import bisect
import itertools
import math

import msgspec

__all__ = ["BUCKETS", "Durations", "Histogram", "bucket_of"]

SUB_BITS = 3

BUCKETS = 320
"""The last bucket holds everything longer than about an hour."""


def bucket_of(nanoseconds: int) -> int:
    """Return the index of a duration's bucket, from 0. It may exceed the last bucket."""
    shift = nanoseconds.bit_length() - SUB_BITS - 1
    return nanoseconds if shift <= 0 else (shift << SUB_BITS) + (nanoseconds >> shift)


def _bounds(bucket: int) -> tuple[int, int]:
    """Return the smallest duration of a bucket and of the next bucket, nanoseconds."""
    shift = max(0, (bucket >> SUB_BITS) - 1)
    least = (bucket - (shift << SUB_BITS)) << shift
    return least, least + (1 << shift)


class Histogram(msgspec.Struct, frozen=True):
    """An immutable histogram of durations.

    Attributes:
        counts: the counts of the non-empty buckets, by bucket index.
        total: the sum of all durations, seconds.
        largest: the exact longest duration, seconds.
    """

    counts: dict[int, int] = {}
    total: float = 0.0
    largest: float = 0.0

    @property
    def count(self) -> int:
        """The number of durations."""
        return sum(self.counts.values())

    @property
    def mean(self) -> float:
        """The mean duration, seconds; 0.0 if there are none."""
        count = self.count
        return self.total / count if count else 0.0

    def percentile(self, percentile: float) -> float:
        """Return the duration that ``percentile`` percent of the durations do not exceed.

        Args:
            percentile: 0 to 100.

        Returns:
            The duration in seconds, accurate to 7 %; 0.0 if there are none.

        Raises:
            ValueError: ``percentile`` is out of range.
        """
        if not 0 <= percentile <= 100:
            raise ValueError(f"percentile = {percentile!r}: must be between 0 and 100")
        count = self.count
        rank = max(1, math.ceil(count * percentile / 100))
        if rank >= count:
            return self.largest
        buckets = sorted(self.counts)
        ranks = list(itertools.accumulate(self.counts[bucket] for bucket in buckets))
        least, beyond = _bounds(buckets[bisect.bisect_left(ranks, rank)])
        return (least + beyond - 1) / 2e9

    def merged(self, other: Histogram) -> Histogram:
        """Return a histogram with the durations of both."""
        counts = dict(self.counts)
        for bucket, count in other.counts.items():
            counts[bucket] = counts.get(bucket, 0) + count
        return Histogram(
            counts, math.fsum((self.total, other.total)), max(self.largest, other.largest)
        )


class Durations:
    """Counts durations one by one; a `Histogram` in the making."""

    def __init__(self) -> None:
        self._counts: dict[int, int] = {}
        self._total = 0
        self._largest = 0

    def add(self, nanoseconds: int) -> None:
        """Count a duration; a negative one counts as 0."""
        nanoseconds = max(0, nanoseconds)
        bucket = min(bucket_of(nanoseconds), BUCKETS - 1)
        self._counts[bucket] = self._counts.get(bucket, 0) + 1
        self._total += nanoseconds
        self._largest = max(self._largest, nanoseconds)

    @property
    def histogram(self) -> Histogram:
        """All durations so far."""
        return Histogram(self._counts.copy(), self._total / 1e9, self._largest / 1e9)
