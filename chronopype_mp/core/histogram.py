"""A histogram of durations with buckets of equal relative width, after HdrHistogram's.

Eight buckets for every doubling: any percentile is right to within 7 %, from nanoseconds to an
hour, in a few hundred counters. Counting is a shift and an increment; two histograms are merged by
adding up.
"""

from __future__ import annotations

import bisect
import itertools
import math

import msgspec

__all__ = ["BUCKETS", "Histogram", "bucket_of"]

SUB_BITS = 3

BUCKETS = 320
"""The last one takes all that is longer than about an hour."""


def bucket_of(nanoseconds: int) -> int:
    """Return the number of the bucket of a duration, 0 or more; it may lie beyond the last."""
    shift = nanoseconds.bit_length() - SUB_BITS - 1
    return nanoseconds if shift <= 0 else (shift << SUB_BITS) + (nanoseconds >> shift)


def _bounds(bucket: int) -> tuple[int, int]:
    """Return the least duration of a bucket, and of the one after it, nanoseconds."""
    shift = max(0, (bucket >> SUB_BITS) - 1)
    least = (bucket - (shift << SUB_BITS)) << shift
    return least, least + (1 << shift)


class Histogram(msgspec.Struct, frozen=True):
    """Durations counted.

    Attributes:
        counts: by number of the bucket, those that are not empty.
        total: the sum of all durations, seconds.
        largest: the longest, seconds; exact.
    """

    counts: dict[int, int] = {}
    total: float = 0.0
    largest: float = 0.0

    @property
    def count(self) -> int:
        """How many durations were counted."""
        return sum(self.counts.values())

    @property
    def mean(self) -> float:
        """Their mean, seconds; 0.0 when there are none."""
        count = self.count
        return self.total / count if count else 0.0

    def percentile(self, percentile: float) -> float:
        """Return the duration that so many percent of all do not exceed.

        Args:
            percentile: 0 to 100.

        Returns:
            Seconds, within 7 %; 0.0 when there are none.

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
        """Return the histogram of the durations of both."""
        counts = dict(self.counts)
        for bucket, count in other.counts.items():
            counts[bucket] = counts.get(bucket, 0) + count
        return Histogram(
            counts, math.fsum((self.total, other.total)), max(self.largest, other.largest)
        )
