"""What the units of a layer do over the samples of a batch: do they saturate, do they tell samples apart?"""

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn

from trainvitals.hooks import readout
from trainvitals.hooks.asnumpy import as_numpy
from trainvitals.hooks.plain import Array, array
from trainvitals.hooks.readout import Number

POSITIONS = 128
"""Samples·positions from which a unit is judged saturated, at most."""
_SHARE = 0.95
"""A unit is saturated when more than this share of them lie in one tail."""
_SAMPLES = 16
_FEATURES = 256
"""First samples of the batch, and features of each, from which the batch variation is taken, at most."""


def unit_axis(tensor: Tensor | npt.NDArray[Any], channels_first: bool) -> int:
    """The dimension of the units: the last, or dimension 1 of an output in `(N, C, ...)` form."""
    return 1 if channels_first and tensor.ndim >= 3 else tensor.ndim - 1


def tails(module: nn.Module) -> tuple[float, float] | None:
    """Output below and above which an S-shaped function is flat (derivative below a tenth of its largest)."""
    if isinstance(module, nn.Tanh):
        return -0.97, 0.97
    if isinstance(module, nn.Sigmoid):
        return 0.02, 0.98
    return None


def saturated_fraction(tensor: Tensor, limits: tuple[float, float], channels_first: bool) -> Number:
    """Share of units of which more than 95 % of the positions lie in one tail.

    From up to `POSITIONS` evenly spaced positions: a unit with a share p in one tail is seen there with a standard
    error of sqrt(p (1 - p) / 128), at most two points near the limit.
    """
    axis = unit_axis(tensor, channels_first)
    units = tensor.movedim(axis, -1)
    units = units.flatten(1, -2) if units.dim() > 2 else units.view(1, -1, units.shape[-1])
    units = units[:, :: -(-units.shape[1] // POSITIONS)]
    units = units[:: -(-units.shape[0] * units.shape[1] // POSITIONS)].flatten(0, 1)
    if readout.on_host(units):
        found = as_numpy(units if units.dtype is torch.float32 else units.float())
        low, high = ((found < limits[0]).view(np.uint8), (found > limits[1]).view(np.uint8))
        most = np.maximum(np.add.reduce(low, 0, np.uint8), np.add.reduce(high, 0, np.uint8))
        return float(np.count_nonzero(most > _SHARE * len(found))) / len(most)
    below, above = (units < limits[0]).float().mean(0), (units > limits[1]).float().mean(0)
    return (below.maximum(above) > _SHARE).float().mean()


def batch_variation(tensor: Tensor, rms: Number, values: Array | None) -> Number:
    """Variance between samples (dimension 0), averaged over features, as a share of the mean square.

    0 when every sample gives the same; NaN for one sample or a layer of zeros. Variance and mean square are of the
    first 16 samples and up to 256 features of each, so the share is right within a factor of about 1.5: what it is for
    is telling 1e-4 from 1. `values`: what `plain.values` gave of the tensor.
    """
    shape = tensor.shape
    if len(shape) < 2 or shape[0] < 2:
        return math.nan
    if isinstance(rms, Tensor):
        part = tensor[:_SAMPLES].flatten(1).to(rms.dtype)
        part = part[:, :: _step(part.shape[1])]
        return part.var(0, correction=0).mean() / part.square().mean()
    if values is not None and tensor.stride(0) * shape[0] == len(
        values
    ):  # dimension 0 is outermost
        samples = values.reshape(shape[0], -1)[:_SAMPLES]
    else:
        part = tensor[:_SAMPLES]
        samples = array(part.reshape(-1)).reshape(len(part), -1)
    return batch_variations([samples], [rms])[0]


def batch_variations(
    outputs: Sequence[npt.NDArray[np.floating[Any]]], rms: Sequence[float]
) -> list[float]:
    """`batch_variation` of contiguous arrays in the shape of the outputs, all together."""
    return [
        _batch_variation(output, size)
        if output.ndim > 1 and len(output) > 1 and 0.0 < size < math.inf
        else math.nan
        for output, size in zip(outputs, rms, strict=True)
    ]


@np.errstate(all="ignore")
def _batch_variation(output: npt.NDArray[np.floating[Any]], rms: float) -> float:
    samples = output[:_SAMPLES].reshape(min(len(output), _SAMPLES), -1)
    taken = samples[:, :: _step(samples.shape[1])]
    if not 1e-15 < rms < 1e15:  # float32 does not hold the squares
        taken = taken.astype(np.float64)
    # Relative to the first sample: what all have in common cancels before it is squared.
    apart = taken - taken[0]
    total = np.add.reduce(apart)
    every, each = taken.reshape(-1), apart.reshape(-1)
    return float((each.dot(each) - total.dot(total) / len(apart)) / every.dot(every))


def _step(features: int) -> int:
    """Every how many features one is taken."""
    return -(-features // _FEATURES)
