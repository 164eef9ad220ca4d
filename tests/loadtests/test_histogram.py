"""Histograms: three digits at every size, merged exactly, and the same after being written."""

from __future__ import annotations

import json
import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from loadtests.harness.histogram import Histogram, quantile_of

SECONDS = st.lists(st.floats(0.0, 3600.0), min_size=1, max_size=60)


@given(values=SECONDS, share=st.floats(0.0, 1.0))
def test_quantiles_are_exact_to_a_thousandth(values: list[float], share: float) -> None:
    """A quantile is the value of that rank, to within a microsecond or 0.1 %."""
    exact = sorted(values)[max(1, math.ceil(share * len(values) - 1e-9)) - 1]
    assert pytest.approx(exact, rel=1e-3, abs=1e-6) == Histogram.of(np.array(values)).quantile_s(share)


@given(parts=st.lists(SECONDS, min_size=1, max_size=5))
def test_merging_loses_nothing(parts: list[list[float]]) -> None:
    """Histograms of parts, merged, are that of everything."""
    merged = Histogram.merged(Histogram.of(np.array(part)) for part in parts)
    whole = Histogram.of(np.array([value for part in parts for value in part]))
    assert (whole.bucket.tolist(), whole.count.tolist()) == (merged.bucket.tolist(), merged.count.tolist())


@given(values=SECONDS)
def test_what_is_written_is_read(values: list[float]) -> None:
    """Through JSON and back nothing changes."""
    whole = Histogram.of(np.array(values))
    read = Histogram.read(json.loads(json.dumps(whole.values())))
    assert (whole.bucket.tolist(), whole.count.tolist()) == (read.bucket.tolist(), read.count.tolist())


@given(blocks=st.lists(SECONDS, min_size=1, max_size=4), share=st.sampled_from([0.5, 0.9, 0.99]), data=st.data())
def test_blocks_may_count_several_times(blocks: list[list[float]], share: float, data: st.DataObject) -> None:
    """A quantile of repeated blocks is that of the repeated values."""
    times = data.draw(st.lists(st.integers(0, 3), min_size=len(blocks), max_size=len(blocks)))
    values = [value for block, count in zip(blocks, times, strict=True) for value in block * count]
    found = quantile_of([Histogram.of(np.array(block)) for block in blocks], share)(np.array(times))
    expected = Histogram.of(np.array(values)).quantile_s(share)
    assert (math.isnan(expected) and math.isnan(found)) or expected == found


@pytest.mark.parametrize(
    "values", [{}, {"bucket": [1], "count": []}, {"bucket": [1], "count": [0]}, {"bucket": [1, 0], "count": [1, 1]}]
)
def test_what_is_no_histogram_is_refused(values: dict[str, list[int]]) -> None:
    """Missing, unequal, empty or unordered buckets are no histogram."""
    with pytest.raises((KeyError, ValueError)):
        Histogram.read(values)


def test_nothing_has_no_quantile() -> None:
    """Of no values there is none."""
    assert math.isnan(Histogram.of(np.zeros(0)).quantile_s(0.5))
