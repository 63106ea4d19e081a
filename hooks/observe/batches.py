"""The inputs and the output of the watched model in a step."""

from typing import Any

import torch
from torch import Tensor

from trainvitals.hooks.interception import Call
from trainvitals.hooks.nonfinite import fingerprint
from trainvitals.hooks.observe.reading import Reading, Values
from trainvitals.hooks.registry import tensors_in
from trainvitals.hooks.wire.observed import BatchSeen

_SAMPLES = 1024
_ELEMENTS = 1 << 18
_CLOSE = {torch.float32: 1e-3, torch.float64: 1e-3}
"""How near 1 probabilities must add up to; 1e-2 for shorter types."""


def ask(call: Call, reading: Reading) -> None:
    """Ask for what `BatchSeen` tells of the inputs, and whether the output's rows are probabilities."""
    _, args, kwargs, output = call
    given = list(tensors_in((args, kwargs), floating=False))
    if given:
        _ask_inputs((args, kwargs), given[0].detach(), reading)
    for tensor in tensors_in(output, limit=1):
        _ask_output(tensor.detach(), reading)


def _ask_inputs(batch: Any, tensor: Tensor, reading: Reading) -> None:
    sums = [str(entry.get("crc32", "")) for entry in fingerprint(batch)]
    base = tensor._base
    known: dict[str, Any] = {
        "shape": tuple(tensor.shape)[:16],
        "dtype": str(tensor.dtype).removeprefix("torch."),
        "digest": "-".join(sums) if all(sums) else "",
        "owner": int(base.shape[0]) if base is not None and base.dim() == tensor.dim() else 0,
    }
    place = None
    if tensor.is_floating_point() and type(tensor.data) is Tensor:
        place = reading.ask(_moments(tensor))

    def part(values: Values) -> dict[str, object]:
        if place is None:
            return {"batch": BatchSeen(**known)}
        mean, std, rms, low, high, nonfinite, constant = values[place]
        return {
            "batch": BatchSeen(
                **known,
                mean=mean,
                std=std,
                rms=rms,
                low=low,
                high=high,
                nonfinite=int(nonfinite),
                constant=constant if constant >= 0 else None,
            )
        }

    reading.then(part)


def _moments(tensor: Tensor) -> Tensor:
    samples = tensor[:_SAMPLES] if tensor.dim() else tensor.reshape(1)
    rows = max(1, _ELEMENTS // max(samples[0].numel(), 1))
    samples = samples[:rows].reshape(min(len(samples), rows), -1).float()
    finite = torch.isfinite(samples)
    clean = torch.where(finite, samples, torch.zeros_like(samples))
    constant = clean.new_full((), -1.0)
    if samples.shape[1] > 1:
        constant = (samples == samples[:, :1]).all(1).float().mean()
    return torch.stack(
        [
            clean.mean(),
            clean.std(correction=0),
            clean.square().mean().sqrt(),
            clean.amin(),
            clean.amax(),
            (~finite).sum().float(),
            constant,
        ]
    )


def _ask_output(tensor: Tensor, reading: Reading) -> None:
    place = None
    if tensor.dim() > 1 and tensor.shape[1] > 1 and type(tensor.data) is Tensor:
        rows = tensor[: max(1, _ELEMENTS // max(tensor[0].numel(), 1))].float()
        close = _CLOSE.get(tensor.dtype, 1e-2)
        probable = (rows.amin(1) >= 0) & ((rows.sum(1) - 1).abs() <= close)
        place = reading.ask(probable.float().mean())
    dtype = str(tensor.dtype).removeprefix("torch.")

    def part(values: Values) -> dict[str, object]:
        simplex = None if place is None else values[place][0]
        return {"output_dtype": dtype, "output_simplex": simplex}

    reading.then(part)
