"""Checksums of what a rank holds, against numpy."""

import numpy as np
import pytest
import torch

from trainvitals.hooks.observe.peers import _halves, _in_order
from trainvitals.hooks.registry import Parameter


def whole(halves: torch.Tensor) -> list[int]:
    low, high = halves.tolist()
    return [int(a) + (int(b) << 16) for a, b in zip(low, high, strict=True)]


def parameter(tensor: torch.Tensor) -> Parameter:
    return Parameter("weight", "", "Linear", tensor)


def test_a_checksum_of_weights_is_the_sum_of_their_bits() -> None:
    values = np.random.default_rng(0).normal(size=(300, 70)).astype(np.float32)
    expected = int(values.view(np.uint32).astype(object).sum()) % 2**32
    assert whole(_halves([parameter(torch.from_numpy(values))])) == [expected]


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float64, torch.complex64])
def test_one_bit_changes_a_checksum_of_weights(dtype: torch.dtype) -> None:
    weight = torch.randn(40, 30, dtype=dtype)
    before = whole(_halves([parameter(weight)]))
    assert whole(_halves([parameter(weight.clone())])) == before
    weight.view(torch.uint8)[7, 0] ^= 1
    assert whole(_halves([parameter(weight)])) != before


def test_a_checksum_of_inputs_tells_their_order() -> None:
    labels = torch.arange(10).repeat(50)
    shuffled = labels[torch.randperm(500, generator=torch.Generator().manual_seed(0))]
    assert whole(_in_order(labels)) == whole(_in_order(labels.clone()))
    assert whole(_in_order(labels)) != whole(_in_order(shuffled))


def test_a_checksum_of_inputs_is_made_with_odd_factors() -> None:
    values = torch.tensor([3, 1, 4, 1, 5], dtype=torch.int32)
    factors = [(i * 0x9E3779B1 * 2 + 1) for i in range(5)]
    total = sum(int(v) * f for v, f in zip(values.tolist(), factors, strict=True)) % 2**64
    signed = total - 2**64 if total >= 2**63 else total
    assert whole(_in_order(values)) == [(signed >> 31) % 2**32]
