"""The inputs and the output of the watched model in a step."""

import math
from collections.abc import Sequence
from typing import Any

import msgspec
import numpy as np
import torch
from torch import Tensor

from trainvitals.hooks.asnumpy import as_numpy
from trainvitals.hooks.call import Call
from trainvitals.hooks.nonfinite import fingerprint
from trainvitals.hooks.observe.reading import Reading, Values
from trainvitals.hooks.registry import tensors_in
from trainvitals.hooks.wire.observed import BatchSeen

_SAMPLES = 1024
_ELEMENTS = 1 << 18
_CLOSE = {torch.float32: 1e-3, torch.float64: 1e-3}
"""How near 1 probabilities must add up to; 1e-2 for shorter types."""


def ask(call: Call, reading: Reading, measured: bool) -> str:
    """Ask for what `BatchSeen` tells of the inputs, and whether the output's rows are probabilities.

    Not `measured`: for what tells the batch from others only. Gives the checksum of the inputs, "" where there is none.
    """
    _, args, kwargs, output = call
    given = list(tensors_in((args, kwargs), floating=False))
    digest = _ask_inputs((args, kwargs), given[0], reading, measured) if given else ""
    if measured:
        for tensor in tensors_in(output, limit=1):
            _ask_output(tensor.detach(), reading)
    return digest


def _ask_inputs(batch: Any, tensor: Tensor, reading: Reading, measured: bool) -> str:
    sums = [str(entry.get("crc32", "")) for entry in fingerprint(batch)]
    digest = "-".join(sums) if all(sums) else ""
    base = tensor._base  # a detached tensor has none
    tensor = tensor.detach()
    known: dict[str, Any] = {
        "shape": tuple(tensor.shape)[:16],
        "dtype": str(tensor.dtype).removeprefix("torch."),
        "digest": digest,
        "owner": int(base.shape[0]) if base is not None and _are_rows(tensor, base) else 0,
    }
    known_otherwise = digest and not measured
    place = None if known_otherwise or not is_measurable(tensor) else reading.ask(moments(tensor))

    def part(values: Values) -> dict[str, object]:
        seen = BatchSeen(**known)
        return {"batch": seen if place is None else with_moments(seen, values[place])}

    reading.then(part)
    return digest


def is_measurable(tensor: Tensor) -> bool:
    """Whether the numbers of an input say how large it is."""
    return tensor.is_floating_point() and type(tensor.data) is Tensor and tensor.numel() > 0


def with_moments(seen: BatchSeen, numbers: Sequence[float]) -> BatchSeen:
    """`seen` with the five numbers of `moments`."""
    variance, mean, low, high, same = numbers
    return msgspec.structs.replace(
        seen,
        mean=mean,
        std=math.sqrt(max(variance, 0.0)),
        rms=math.sqrt(max(variance, 0.0) + mean * mean),
        low=low,
        high=high,
        constant=same / min(seen.shape[0], _SAMPLES) if len(seen.shape) > 1 else None,
    )


def _are_rows(tensor: Tensor, base: Tensor) -> bool:
    """Whether `tensor` is some samples of `base`: not the same numbers in another shape."""
    return tensor.dim() > 0 and base.dim() == tensor.dim() and base.shape[1:] == tensor.shape[1:]


def moments(tensor: Tensor) -> Tensor:
    """Variance, mean, lowest, highest, and of how many samples all values are the same (-1: there is one value each).

    Few operations: each costs some microseconds, whatever the size.
    """
    samples = tensor[:_SAMPLES] if tensor.dim() else tensor.reshape(1)
    rows = max(1, _ELEMENTS // max(samples[0].numel(), 1))
    samples = samples[:rows].flatten(1) if samples.dim() > 1 else samples[:rows].unsqueeze(1)
    if samples.is_cpu and samples.dtype is torch.float32:
        return torch.from_numpy(_moments_on_host(as_numpy(samples)))
    if not samples.is_floating_point() or samples.itemsize < 4:
        samples = samples.float()
    variance, mean = torch.var_mean(samples, correction=0)
    low, high = (
        samples.aminmax(dim=1) if samples.shape[1] > 1 else (samples[:, 0], samples[:, 0] + 1)
    )
    same = (low == high).sum()
    return torch.stack([variance, mean, low.amin(), high.amax(), same.to(mean.dtype)])


def _moments_on_host(samples: np.ndarray) -> np.ndarray:
    """The same for float32, at a tenth of the price."""
    count = samples.size
    lows, highs = samples.min(1), samples.max(1)
    flat = samples.reshape(-1).astype(np.float64)
    same = (lows == highs).sum() if samples.shape[1] > 1 else 0
    with np.errstate(invalid="ignore", over="ignore"):  # an infinite input is told by the watch
        mean = flat.sum() / count
        variance = flat.dot(flat) / count - mean * mean
    return np.array([variance, mean, lows.min(), highs.max(), same])


def _ask_output(tensor: Tensor, reading: Reading) -> None:
    place = None
    if tensor.dim() > 1 and tensor.shape[1] > 1 and type(tensor.data) is Tensor:
        rows = tensor[: max(1, _ELEMENTS // max(tensor[0].numel(), 1))]
        lowest = rows.amin(1)
        # On the host most outputs are seen to be none at once.
        if not (rows.is_cpu and bool(lowest.reshape(-1)[0] < 0)):
            close = _CLOSE.get(tensor.dtype, 1e-2)
            probable = (lowest >= 0) & ((rows.float().sum(1) - 1).abs() <= close)
            place = reading.ask(probable.float().mean())
    dtype = str(tensor.dtype).removeprefix("torch.")

    def part(values: Values) -> dict[str, object]:
        simplex = 0.0 if place is None else values[place][0]
        return {"output_dtype": dtype, "output_simplex": simplex}

    reading.then(part)
