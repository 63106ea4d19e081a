"""Histograms of a record as bytes."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from trainvitals.app.store import bars
from trainvitals.hooks.wire.bins import BINS
from trainvitals.hooks.wire.codec import WireError, pack_counts


def made(rows, seed):
    random = np.random.default_rng(seed)
    counts = random.integers(0, 2**32, (rows, BINS)) >> random.integers(0, 40, (rows, BINS))
    counts[random.random(rows) < 0.2] = 0
    return counts


@settings(deadline=None)
@given(rows=st.integers(1, 100), seed=st.integers(0, 2**31))
def test_histograms_survive_whole_and_row_by_row(rows, seed):
    first, second = made(rows, seed), made(rows, seed + 1)
    bodies = [bars.pack(pack_counts(counts), rows) for counts in (first, second)]
    assert np.array_equal(bars.unpack(bodies[0], rows), first)
    for row in {0, rows // 2, rows - 1}:
        assert np.array_equal(bars.unpack_row(bodies, rows, row), np.stack([first, second])[:, row])


def test_histograms_of_version_1_survive():
    counts = made(70, 0)
    first = np.array([np.flatnonzero(line)[0] if line.any() else 0 for line in counts])
    length = (
        np.array([np.flatnonzero(line)[-1] + 1 if line.any() else 0 for line in counts]) - first
    )
    kept = [line[at : at + n] for line, at, n in zip(counts, first, length, strict=True)]
    head = np.concatenate([first, length]).astype("u1").tobytes()
    packed = head + np.concatenate(kept).astype("<u4").tobytes()
    assert np.array_equal(bars.unpack(bars.pack(packed, 70), 70), counts)


def test_what_does_not_fit_is_refused():
    with pytest.raises(WireError, match="do not fit"):
        bars.pack(pack_counts(made(3, 1))[:-1], 3)
