"""Arrays of floats as bytes: every bit comes back, whichever rows are asked for."""

import numpy as np
import pytest

from trainvitals.app.store import floats


@pytest.mark.parametrize("dtype", ["<f4", "<f8"])
def test_every_bit_of_many_arrays_comes_back(dtype):
    """More arrays than are unpacked at a time; some of both signs, some with what is no number."""
    random = np.random.default_rng(3)
    values = np.exp(random.normal(size=(40, 16, 256))).astype(dtype)
    values[::3] *= random.choice([-1, 1], size=values[::3].shape)
    values[5, 2, 7:9] = np.nan, -np.inf
    bodies = floats.pack(values)
    whole = floats.unpack(bodies, dtype, 16, 256)
    some = floats.unpack(bodies, dtype, 16, 256, slice(3, None, 4))
    assert whole.tobytes() == values.tobytes()
    assert some.tobytes() == values[:, 3::4].tobytes()
