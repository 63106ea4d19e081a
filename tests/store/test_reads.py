"""What charts read, compared with a plain recomputation from the raw records."""

import math
from functools import partial

import numpy as np
import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from trainvitals.app.store import Store
from trainvitals.hooks.wire.codec import pack_counts
from trainvitals.hooks.wire.columns import MISSING_BITS
from trainvitals.hooks.wire.records import Histograms, Step

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


@pytest.mark.slow
@settings(
    max_examples=25,
    deadline=None,
    suppress_health_check=[HealthCheck.too_slow],
)
@given(training=trainings(), points=st.sampled_from([1, 7, 60, 1000]), cut=st.integers(0, 3000))
@example(training=([(0, 1), (1, 1), (1, 2)], 411708, 1), points=1, cut=0)
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


@pytest.mark.parametrize("points", [3, 50, 100_000])
@pytest.mark.parametrize("odd", [math.nan, math.inf, 1e30])
def test_one_odd_step_is_seen_at_every_zoom(store, sender, points, odd):
    stream = sender().start().layout()
    for step in range(5000):
        value = odd if step == 1234 else 1.0
        stream.sample(step, [[value, 1.0], [1.0, 1.0]], scalars={"loss": value})
    stream.send()
    series = store.series("run-1", ["loss"], points=points)["loss"]
    matrix = store.matrix("run-1", "activation", "std", buckets=points)
    bucket = np.searchsorted(series.steps, 1234, side="right") - 1
    column = np.searchsorted(matrix.steps, 1234, side="right") - 1
    if math.isfinite(odd):
        assert (series.max > 1e29).nonzero()[0].tolist() == [bucket]
        assert (matrix.max[0] > 1e29).nonzero()[0].tolist() == [column]
    else:
        assert series.nonfinite.nonzero()[0].tolist() == [bucket]
        assert np.argwhere(matrix.nonfinite).tolist() == [[0, column]]
        assert np.nansum(matrix.max[1]) == len(matrix.steps)


def test_what_was_not_recorded_is_apart_from_nan(store, sender):
    stream = sender().start().layout()
    for step in range(600):
        stream.sample(step, [[MISSING, np.nan], [1.0, 1.0]])
    stream.send()
    for buckets in (2, 1000):
        std = store.matrix("run-1", "activation", "std", buckets=buckets)
        rms = store.matrix("run-1", "activation", "rms", buckets=buckets)
        assert not std.recorded[0].any() and not std.nonfinite[0].any()
        assert rms.recorded[0].all() and rms.nonfinite[0].sum() == 600
        assert np.isnan(std.mean[0]).all() and (std.mean[1] == 1.0).all()
    assert set(store.row("run-1", "activation", "fc1")["std"].steps) == set()


def test_a_later_attempt_stands_in_for_the_steps_it_records_anew(store, sender):
    first, second = sender().start().layout(), sender(attempt="a2").start().layout()
    for step in range(1000):
        first.sample(step, [[1.0, 1.0]] * 2, scalars={"loss": 1.0})
    for step in range(500, 700):
        second.sample(step, [[2.0, 2.0]] * 2, scalars={"loss": 2.0})
    second.send()
    first.send()
    loss = store.series("run-1", ["loss"], points=10_000)["loss"]
    assert loss.steps.tolist() == list(range(700))
    assert loss.mean.tolist() == [1.0] * 500 + [2.0] * 200
    few = store.matrix("run-1", "activation", "std", buckets=5)
    assert few.max[0, -1] == 2.0 and few.min[0, 0] == 1.0


def test_rows_are_found_by_name_after_the_layout_changed(store, sender):
    stream = sender().start().layout(["old", "fc1"])
    for step in range(300):
        stream.sample(step, [[1.0, 0.0], [2.0, 0.0]])
    stream.layout(["fc1", "new"])
    for step in range(300, 600):
        stream.sample(step, [[3.0, 0.0], [4.0, 0.0]])
    stream.send()
    matrix = store.matrix("run-1", "activation", "std", buckets=10_000)
    assert [row.name for row in matrix.rows] == ["fc1", "new", "old"]
    assert matrix.mean[0].tolist() == [2.0] * 300 + [3.0] * 300
    assert matrix.recorded.sum(axis=1).tolist() == [600, 300, 300]
    series = store.row("run-1", "activation", "fc1")["std"]
    assert series.mean.tolist() == [2.0] * 300 + [3.0] * 300


def test_other_ranks_feed_no_chart(store, sender):
    sender().start().layout().sample(0, [[1.0, 1.0]] * 2, scalars={"loss": 1.0}).send()
    other = sender(rank=1).start().layout(["elsewhere"])
    other.sample(0, [[5.0, 5.0]], scalars={"loss": 5.0, "own": 1.0}).send()
    assert store.scalar_names("run-1") == ["loss"]
    assert store.series("run-1", ["loss"])["loss"].max.tolist() == [1.0]
    assert [row.name for row in store.matrix("run-1", "activation", "std").rows] == ["fc1", "fc2"]


def test_scalars_come_and_go_and_several_records_speak_of_a_step(store, sender):
    stream = sender().start()
    for step in range(700):
        stream.scalars(step, loss=step)
        stream.scalars(step, **{f"grad/{number}": number for number in range(step % 7)})
        if step % 100 == 0:
            stream.scalars(step, **{"val/loss": -step})
    stream.send()
    series = store.series("run-1", ["val/loss", "loss", "grad/5", "never"], points=10_000)
    assert set(series) == {"val/loss", "loss", "grad/5"}
    assert series["val/loss"].steps.tolist() == list(range(0, 700, 100))
    assert series["loss"].last.tolist() == list(range(700))
    assert series["grad/5"].steps.tolist() == list(range(6, 700, 7))


def test_a_thousand_scalars_a_step_are_kept(store, sender):
    stream = sender().start()
    for step in range(260):
        stream.scalars(step, **{f"m{number}": number + step for number in range(1000)})
    stream.send()
    series = store.series("run-1", ["m0", "m999"], points=300)
    assert series["m999"].mean.tolist() == [999.0 + step for step in range(260)]
    assert len(store.scalar_names("run-1")) == 1000


def test_values_near_the_largest_have_a_mean(store, sender):
    stream = sender().start()
    for step in range(600):
        stream.scalars(step, loss=1.5e308)
    stream.send()
    mean = store.series("run-1", ["loss"], points=2)["loss"].mean
    assert mean == pytest.approx(1.5e308, rel=1e-9)


def test_histograms_are_thinned_evenly_and_the_newest_is_kept(store, sender):
    stream = sender().start().layout(["a", "b", "c"])
    counts = np.zeros((3, 96), int)
    for step in range(0, 1000, 10):
        counts[:, 48], counts[1, 50] = step + 1, step + 2
        kept = Histograms(group=0, kind="weight", counts=pack_counts(counts))
        stream.make(Step, step=step, histograms=[kept])
    stream.send()
    few = store.histograms("run-1", "weight", "b", times=12)
    assert few.steps.tolist() == [0, 90, 180, 270, 360, 450, 540, 630, 720, 810, 900, 990]
    assert few.counts[:, 50].tolist() == (few.steps + 2).tolist()
    assert few.counts.sum() == (2 * few.steps + 3).sum()
    assert store.histograms("run-1", "weight", "b", times=1).steps.tolist() == [990]
    assert len(store.histograms("run-1", "weight", "c").steps) == 100
    assert len(store.histograms("run-1", "gradient", "c").steps) == 0
    assert store.histograms("run-1", "weight", "b", start=20, stop=40).steps.tolist() == [20, 30]


def test_the_latest_sample_is_read_from_the_tail_and_from_a_block(store, sender):
    stream = sender().start().layout().layout(["w"], group=1, kind="parameter")
    assert store.latest("run-1", "activation") is None
    for step in range(512):
        stream.sample(step, [[step, 1.0], [2.0, 3.0]])
        if step in (100, 511):
            stream.send()
            layout, found, values = store.latest("run-1", "activation")
            assert (found, layout.columns) == (step, ["std", "rms"])
            assert values.tolist() == [[step, 1.0], [2.0, 3.0]]
    assert store.latest("run-1", "parameter") is None


def test_nothing_is_found_of_a_run_that_is_not_there(store):
    assert store.series("nope", ["loss"]) == {}
    assert store.matrix("nope", "activation", "std").rows == []
    assert store.row("nope", "activation", "fc1") == {}
    assert len(store.histograms("nope", "weight", "fc1").steps) == 0
    assert store.layouts("nope") == store.events("nope") == store.findings("nope") == []
    assert store.run("nope") is None
    assert store.replay("nope", {}) == []
