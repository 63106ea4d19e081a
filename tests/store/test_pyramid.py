"""The pyramid, down to its third level, is what its raw records give, whatever came in and in whichever batches.

Blocks of 32 records instead of 256 make as many levels of an eighth of the records.
"""

from unittest.mock import patch

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from trainvitals.app.store import Store, groups, pyramid, tiles
from trainvitals.app.store.audit import audit
from trainvitals.hooks.wire.columns import MISSING_BITS

MISSING = np.array([MISSING_BITS], np.uint32).view(np.float32)[0]
BLOCK = 32


def fill(stream, steps, rows, odd, random):
    """`steps` records in any batches; the values of all, shape (steps, rows, 2), and the losses."""
    values = random.normal(size=(steps, rows, 2)).astype(np.float32)
    drawn = random.random(values.shape)
    values[drawn < odd] = MISSING
    values[drawn < odd / 3] = np.nan
    values[drawn < odd / 6] = -np.inf
    losses = np.where(random.random(steps) < odd / 3, np.nan, random.normal(size=steps))
    stream.start().layout([f"fc{number}" for number in range(rows)])
    for step in range(steps):
        stream.sample(step, values[step], scalars={"loss": float(losses[step])})
    while stream.sent < len(stream.records):
        stream.send(last=stream.sent + int(random.integers(1, 400)))
    return values, losses


def summed(values, edges):
    """Smallest, largest, mean and number of non-finite ones of `values` between the edges."""
    found = []
    for low, high in zip(edges, [*edges[1:], len(values)], strict=True):
        part = values[low:high]
        recorded = part[part.view(np.uint32) != MISSING_BITS] if part.itemsize == 4 else part
        finite = recorded[np.isfinite(recorded)].astype(float)
        some = finite if len(finite) else np.array([np.nan])
        found.append((some.min(), some.max(), some.mean(), len(recorded) - len(finite)))
    return np.array(found).T


@pytest.mark.slow
@settings(max_examples=12, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(
    steps=st.sampled_from([300, 1100, 4200]),
    rows=st.sampled_from([1, 16, 19]),
    odd=st.sampled_from([0.0, 0.001, 0.3]),
    points=st.sampled_from([3, 20, 100]),
    seed=st.integers(0, 2**31),
)
def test_all_levels_equal_a_recomputation(
    tmp_path_factory, sender_to, steps, rows, odd, points, seed
):
    path = tmp_path_factory.mktemp("db") / "t.db"
    random = np.random.default_rng(seed)
    with Store.open(path) as store, patch.object(groups, "BLOCK", BLOCK):
        values, losses = fill(sender_to(store), steps, rows, odd, random)
        with store._database.read() as connection:
            assert audit(connection, "run-1") == []
            (top,) = connection.execute("SELECT MAX(level) FROM blocks").fetchone()
        assert top == sum(BLOCK * pyramid.spread(level) <= steps for level in (1, 2, 3))
        loss = store.series("run-1", ["loss"], points=points)["loss"]
        matrix = store.matrix("run-1", "activation", "rms", buckets=points)
        line = store.row("run-1", "activation", f"fc{rows - 1}", points=points)["rms"]
    wanted = summed(losses, loss.steps)
    for found, expected in zip(
        (loss.min, loss.max, loss.mean, loss.nonfinite), wanted, strict=True
    ):
        assert found == pytest.approx(expected, rel=1e-5, abs=1e-6, nan_ok=True)
    for row in range(rows):
        wanted = summed(values[:, row, 1], matrix.steps)
        fields = (matrix.min, matrix.max, matrix.mean, matrix.nonfinite)
        for field, expected in zip(fields, wanted, strict=True):
            assert field[row] == pytest.approx(expected, rel=1e-5, abs=1e-6, nan_ok=True)
    kept = matrix.recorded[-1]
    assert line.steps.tolist() == matrix.steps[kept].tolist()
    assert line.max == pytest.approx(matrix.max[-1, kept], nan_ok=True)


@pytest.mark.parametrize("dtype", ["<f4", "<f8"])
@pytest.mark.parametrize("level", [1, 2, 3])
def test_nodes_survive_with_and_without_counts(dtype, level):
    random = np.random.default_rng(level)
    shape, width = (19, 8), pyramid.width(level)
    numbers = [random.normal(size=shape).astype(dtype) for _ in range(4)]
    full = np.full(shape, width)
    finite, nonfinite = full.copy(), np.zeros(shape, int)
    finite[17, 3], nonfinite[17, 3] = width - 5, 4  # in the second tile alone
    nodes = pyramid.Nodes(*numbers, finite, nonfinite)
    first, last = tiles.pack_nodes(nodes, dtype, level)
    for body, rows in ((first, slice(0, 16)), (last, slice(16, 19))):
        found = tiles.unpack_nodes([body], dtype, rows.stop - rows.start, 8, level)
        for own, put in zip(found.fields, nodes[rows].fields, strict=True):
            assert np.array_equal(own[0], put)


def test_what_is_written_to_one_field_of_a_record_as_a_node_is_in_no_other():
    values = np.array([[np.nan, 2.0]])
    nodes = pyramid.writable(pyramid.leaves(values, np.float64(MISSING)))
    numbers, counts = np.array([-1.0, 3.0, 1.0, 3.0]), np.array([2, 0])
    nodes.put(np.s_[:, :1], pyramid.Nodes(*numbers.reshape(4, 1, 1), *counts.reshape(2, 1, 1)))
    assert [field.tolist() for field in nodes.fields] == [
        [[-1.0, 2.0]],
        [[3.0, 2.0]],
        [[1.0, 2.0]],
        [[3.0, 2.0]],
        [[2, 1]],
        [[0, 0]],
    ]
