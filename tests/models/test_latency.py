"""models.latency: buckets that two processes share."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from models.latency import BUCKETS, bucket, middle


@given(st.floats(1, 2.0**26 * 0.999))
def test_the_middle_is_close(microseconds: float) -> None:
    """A duration read back from its bucket is within 4.5 %."""
    assert abs(middle(bucket(microseconds)) / microseconds - 1) < 0.045


@given(st.floats(0, 1e12), st.floats(0, 1e12))
def test_buckets_keep_the_order(one: float, other: float) -> None:
    """Longer is never in an earlier bucket, and every duration has one."""
    low, high = sorted((one, other))
    assert 0 <= bucket(low) <= bucket(high) < BUCKETS


def test_each_bucket_holds_its_middle() -> None:
    """Bucket and middle are each other's inverse."""
    assert [bucket(middle(i)) for i in range(BUCKETS)] == list(range(BUCKETS))
