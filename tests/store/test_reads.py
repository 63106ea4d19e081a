"""What charts read, compared with a plain recomputation from the raw records."""

import math
from functools import partial

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from trainvitals.app.store import Store
from trainvitals.hooks.wire.columns import MISSING_BITS

MISSING = np.array([MISSING_BITS], np.uint32).view(np.float32)[0]


def expected(points, low, high):
    """Of the values at steps from `low` to before `high`. points: (step, value) in order."""
    values = [float(value) for step, value in points if low <= step < high]
    finite = [value for value in values if math.isfinite(value)]
    return {
        "min": min(finite, default=math.nan),
        "max": max(finite, default=math.nan),
        "mean": math.fsum(finite) / len(finite) if finite else math.nan,
        "last": values[-1] if values else math.nan,
        "nonfinite": len(values) - len(finite),
    }


def check(series, points, start=None, stop=None):
    """Each bucket of `series` says what the raw `points` from its step to before the next bucket's say."""
    points = [
        point
        for point in points
        if (start is None or point[0] >= start) and (stop is None or point[0] < stop)
    ]
    assert (np.diff(series.steps) > 0).all()
    assert bool(points) == bool(len(series.steps))
    if points:
        assert series.steps[0] <= points[0][0]
    for index, step in enumerate(series.steps):
        after = series.steps[index + 1] if index + 1 < len(series.steps) else 2**60
        for field, value in expected(points, step, after).items():
            found = float(getattr(series, field)[index])
            assert found == pytest.approx(value, rel=1e-5, abs=1e-30, nan_ok=True), (field, step)


@st.composite
def trainings(draw):
    """Attempts of a training: the step each starts at, and how many samples it takes; a seed for the rest."""
    count = draw(st.integers(1, 3))
    attempts = [
        (draw(st.integers(0, 900)), draw(st.integers(1, draw(st.sampled_from([20, 700, 1500])))))
        for _ in range(count)
    ]
    return attempts, draw(st.integers(0, 2**31)), draw(st.integers(1, 7))


def fill(store, make, attempts, seed, every):
    """Store the attempts in odd batches, some twice; the view of loss and of fc2's std as (step, value)."""
    random = np.random.default_rng(seed)
    losses, stds = [], []
    for number, (first, samples) in enumerate(attempts):
        stream = make(attempt=f"a{number}").start().layout()
        losses = [point for point in losses if point[0] < first]
        stds = [point for point in stds if point[0] < first]
        for index in range(samples):
            step = first + index * every
            if index == samples // 2:
                stream.layout(["fc0", "fc1", "fc2"])
            values = random.normal(size=(2 + (index >= samples // 2), 2)).astype(np.float32)
            odd = random.random(values.shape)
            values[odd < 0.2] = MISSING
            values[odd < 0.04] = np.nan
            values[odd < 0.02] = np.inf
            if values[-1, 0].view(np.uint32) != MISSING_BITS:
                stds.append((step, values[-1, 0]))
            loss = [random.normal(), math.nan, -math.inf][int(random.random() * 1.03 // 0.97) % 3]
            losses.append((step, loss))
            stream.sample(step, values, scalars={"loss": loss})
        while stream.sent < len(stream.records):
            last = stream.sent + int(random.integers(1, 400))
            back = max(0, stream.sent - int(random.integers(0, 3)))
            stream.send(back, last)
    return losses, stds


@settings(
    max_examples=25,
    deadline=None,
    suppress_health_check=[HealthCheck.too_slow],
)
@given(training=trainings(), points=st.sampled_from([1, 7, 60, 1000]), cut=st.integers(0, 3000))
def test_charts_equal_a_recomputation_at_every_zoom(
    tmp_path_factory, sender_to, training, points, cut
):
    with Store.open(tmp_path_factory.mktemp("db") / "t.db") as store:
        losses, stds = fill(store, partial(sender_to, store), *training)
        for start, stop in [(None, None), (cut, None), (None, cut), (cut // 2, cut)]:
            limits = {"start": start, "stop": stop}
            series = store.series("run-1", ["loss"], points=points, **limits)["loss"]
            check(series, losses, start, stop)
            assert len(series.steps) <= points
            row = store.row("run-1", "activation", "fc2", points=points, **limits)
            if row:
                check(row["std"], stds, start, stop)
