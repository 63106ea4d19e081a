"""What a sample costs on the wire, before compression: at most 120 bytes a row and 264 a histogram."""

import numpy as np
import pytest

from trainvitals.hooks.wire import codec
from trainvitals.hooks.wire.bins import BINS
from trainvitals.hooks.wire.columns import ACTIVATION, PARAMETER, Column
from trainvitals.hooks.wire.records import Histograms, Sample, Step

LAYERS = 400


@pytest.mark.parametrize("columns", [ACTIVATION, PARAMETER], ids=["activation", "parameter"])
def test_a_row_of_statistics_takes_at_most_120_bytes(columns: tuple[Column, ...]) -> None:
    values = np.random.default_rng(0).normal(size=(LAYERS, len(columns)))
    sample = Sample(group=1, values=codec.pack_floats(values))
    step = Step(seq=10**9, time=1e9, step=10**9, samples=[sample])
    assert len(codec.encode_record(step)) <= 120 * LAYERS


@pytest.mark.parametrize(
    "counts",
    [
        np.full(BINS, (1 << 20) // BINS),  # evenly over all bins
        np.array([1 << 14] * 63 + [128] * (BINS - 63)),  # as many long numbers as a million allows
        np.array([1, *[0] * (BINS - 2), (1 << 20) - 1]),  # everything at both ends
    ],
    ids=["even", "long", "ends"],
)
def test_a_histogram_of_a_million_values_takes_at_most_264_bytes(counts: np.ndarray) -> None:
    table = np.tile(counts, (LAYERS, 1))
    packed = codec.pack_counts(table)
    assert np.array_equal(codec.unpack_counts(packed, LAYERS), table)
    step = Step(
        seq=10**9,
        time=1e9,
        step=10**9,
        histograms=[Histograms(group=1, kind="weight", counts=packed)],
    )
    assert len(codec.encode_record(step)) <= 264 * LAYERS


def test_a_histogram_of_normal_values_takes_less_than_a_byte_and_a_half_a_bin() -> None:
    values = np.random.default_rng(1).normal(size=4096)
    exponents = np.floor(np.log2(np.abs(values))).astype(int).clip(-32, 14)
    bins = np.where(values > 0, 81 + exponents, 15 - exponents)
    counts = np.bincount(bins, minlength=BINS)[None]
    filled = np.flatnonzero(counts[0])
    packed = codec.pack_counts(counts)
    assert np.array_equal(codec.unpack_counts(packed, 1), counts)
    assert len(packed) - 2 < 1.5 * (filled[-1] - filled[0] + 1)
