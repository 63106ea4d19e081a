"""Where the first NaN or infinity of a step comes from."""

import math
from typing import Any, Literal, NamedTuple

import torch
from torch import Tensor, nn

from trainvitals.hooks.registry import Parameter, Registry, tensors_in
from trainvitals.hooks.stats import has_nan_or_inf
from trainvitals.hooks.wire.records import NonFinite, Value

_MAX_SPREAD = 50


class Call(NamedTuple):
    """One call of a watched module: references only, for the length of a forward pass."""

    module: nn.Module
    args: tuple[Any, ...]
    kwargs: dict[str, Any]
    output: Any


def is_bad(value: object) -> bool:
    """Whether a CPU tensor in an output or in arguments holds NaN or +infinity."""
    if isinstance(value, Tensor):  # by far the most common
        return (
            value.is_cpu
            and value.is_floating_point()
            and value.layout is torch.strided
            and has_nan_or_inf(value.detach())
        )
    return any(
        tensor.device.type == "cpu" and has_nan_or_inf(tensor.detach())
        for tensor in tensors_in(value)
    )


def explain_forward(calls: list[Call], registry: Registry) -> NonFinite | None:
    """The origin of a non-finite output among a pass's calls, in the order of their completion.

    A layer completes before the containers round it, so the first bad output is the innermost one. When
    what went into that layer was bad already, the code of a container round it made it, or the input was bad.
    None when no output of a watched module is bad.
    """
    bad = [call for call in calls if is_bad(call.output)]
    if not bad:
        return None
    first = bad[0]
    spread = _spread(bad[1:], registry, first)
    outermost = calls[-1]
    if is_bad((first.args, first.kwargs)):
        if is_bad((outermost.args, outermost.kwargs)):
            return _forward_finding("input", outermost, first, registry, spread)
        first = _enclosing(first, calls, registry)
    parameter = _bad_parameter(first.module, registry)
    if parameter:
        found = _forward_finding("parameter", first, first, registry, spread)
        return NonFinite(**{**_fields(found), "parameter": parameter})
    if first is outermost and len(bad) == 1 and _only_scalar_bad(first.output):
        return _forward_finding("loss", first, first, registry, spread)
    return _forward_finding("forward", first, first, registry, spread)


def _fields(found: NonFinite) -> dict[str, Any]:
    return {field: getattr(found, field) for field in found.__struct_fields__}


def _forward_finding(
    direction: Literal["input", "parameter", "forward", "loss"],
    described: Call,
    blamed: Call,
    registry: Registry,
    spread: list[str],
) -> NonFinite:
    offending = (described.args, described.kwargs) if direction == "input" else blamed.output
    nan, inf = _count(offending)
    return NonFinite(
        direction=direction,
        layer=registry.layers.get(blamed.module, ""),
        type=type(blamed.module).__name__,
        nan=nan,
        inf=inf,
        inputs=[_describe(tensor) for tensor in tensors_in((described.args, described.kwargs))],
        spread=spread[:_MAX_SPREAD],
        spread_count=len(spread),
    )


def _spread(bad: list[Call], registry: Registry, first: Call) -> list[str]:
    names = dict.fromkeys(registry.layers.get(call.module, "") for call in bad)
    names.pop(registry.layers.get(first.module, ""), None)
    return list(names)


def _enclosing(first: Call, calls: list[Call], registry: Registry) -> Call:
    """The innermost container round a call whose own inputs are clean, else the innermost one."""
    name = registry.layers.get(first.module, "")
    place = next(index for index, call in enumerate(calls) if call is first)
    later = calls[place + 1 :]
    around = [call for call in later if _is_inside(name, registry.layers.get(call.module, ""))]
    for call in around:
        if not is_bad((call.args, call.kwargs)):
            return call
    return around[0] if around else first


def _is_inside(name: str, container: str) -> bool:
    return container == "" or name.startswith(f"{container}.")


def _bad_parameter(module: nn.Module, registry: Registry) -> str:
    """Name of a non-finite parameter or buffer of the module itself; an infinite mask buffer is none."""
    for key, tensor in module.named_parameters(recurse=False):
        if tensor.is_floating_point() and not bool(torch.isfinite(tensor).all()):
            known = registry.parameters.get(id(tensor))
            return known.name if known else key
    for key, buffer in module.named_buffers(recurse=False):
        if buffer.is_floating_point() and buffer.numel() and has_nan_or_inf(buffer.detach()):
            layer = registry.layers.get(module, "")
            return f"{layer}.{key}" if layer else key
    return ""


def _only_scalar_bad(output: Any) -> bool:
    return all(tensor.numel() == 1 for tensor in tensors_in(output) if is_bad(tensor))


def _count(value: object) -> tuple[int, int]:
    """NaN and infinity counts of the first bad tensor."""
    for tensor in tensors_in(value):
        if is_bad(tensor):
            part = tensor.detach()
            return int(torch.isnan(part).sum()), int(torch.isinf(part).sum())
    return 0, 0


def _describe(tensor: Tensor) -> dict[str, Value]:
    """Shape, range, mean of the finite values, and the non-finite count of a tensor."""
    values = tensor.detach()
    finite = values[torch.isfinite(values)]
    described: dict[str, Value] = {
        "shape": list(values.shape),
        "nonfinite": values.numel() - finite.numel(),
    }
    if finite.numel():
        described["min"] = float(finite.min())
        described["max"] = float(finite.max())
        described["mean"] = float(finite.mean(dtype=torch.float64))
    return described


def explain_gradients(bad: list[Parameter], registry: Registry, loss_is_bad: bool) -> NonFinite:
    """The origin of non-finite gradients after a finite forward pass.

    Backward meets the layers from the last to the first, so the last bad one is where it began.
    """
    places = {id(parameter.tensor): i for i, parameter in enumerate(registry.in_forward_order())}
    ordered = sorted(bad, key=lambda parameter: -places.get(id(parameter.tensor), -1))
    last = ordered[0]
    gradient = last.tensor.grad
    nan, inf = _count(gradient) if gradient is not None and not gradient.is_sparse else (0, 0)
    if gradient is not None and not gradient.is_sparse and not nan and not inf:
        inf = int(torch.isinf(gradient).sum())
    spread = list(
        dict.fromkeys(parameter.layer for parameter in ordered if parameter.layer != last.layer)
    )
    return NonFinite(
        direction="loss" if loss_is_bad else "backward",
        layer="" if loss_is_bad else last.layer,
        parameter="" if loss_is_bad else last.name,
        type="" if loss_is_bad else last.type,
        nan=nan,
        inf=inf,
        spread=spread[:_MAX_SPREAD],
        spread_count=len(spread),
        gradients=len(bad),
    )


def explain_update(spoiled: list[Tensor], registry: Registry) -> NonFinite:
    """The optimizer step itself made weights non-finite."""
    known = [registry.parameters[id(t)] for t in spoiled if id(t) in registry.parameters]
    first = known[0]
    values = first.tensor.detach()
    layers = list(
        dict.fromkeys(parameter.layer for parameter in known if parameter.layer != first.layer)
    )
    return NonFinite(
        direction="update",
        layer=first.layer,
        parameter=first.name,
        type=first.type,
        nan=int(torch.isnan(values).sum()),
        inf=int(torch.isinf(values).sum()),
        spread=layers[:_MAX_SPREAD],
        spread_count=len(layers),
    )


def is_loss_name(key: str) -> bool:
    """Whether a logged key names a loss ("train/loss", "loss_total")."""
    return "loss" in key.rsplit("/", 1)[-1].lower()


def not_finite(value: object) -> bool:
    """Whether a logged number is NaN or infinite."""
    return isinstance(value, float) and not math.isfinite(value)
