"""Where the first NaN or infinity of a step comes from."""

from collections.abc import Sequence
from typing import Any, Literal
from zlib import crc32

import msgspec
import torch
from torch import Tensor, nn

from trainvitals.hooks.call import Call
from trainvitals.hooks.registry import Parameter, Registry, local, tensors_in
from trainvitals.hooks.stats import has_nan_or_inf, values_of
from trainvitals.hooks.wire.records import NonFinite, Value

_MAX_SPREAD = 50
_FINGERPRINTED = 1 << 20
"""Bytes of a tensor that go into its checksum."""


def is_bad(value: object) -> bool:
    """Whether a CPU tensor in an output or in arguments holds NaN or +infinity."""
    if isinstance(value, Tensor) and not value.is_nested:  # by far the most common
        value = local(value)
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


def explain_forward(calls: Sequence[Call], registry: Registry) -> NonFinite | None:
    """The origin of a non-finite output among the calls of forward passes, in the order of their completion.

    A layer completes before the containers round it, so the first bad output is the innermost one. When
    what went into that layer was bad already, the code of a container round it made it, or the input was bad.
    None when no output of a watched module is bad.
    """
    watched = [call for call in calls if registry.name_of(call[0]) is not None]
    bad = [call for call in watched if is_bad(call[3])]
    if not bad:
        return None
    first = bad[0]
    around = _around(first, watched, registry)
    outermost = around[-1] if around else first
    changed = _changed_later(first, bad)
    if changed is not None:
        first = changed
    elif _input_is_bad(first):
        if _input_is_bad(outermost):
            spread = _spread(bad, registry, first)
            return _forward_finding("input", outermost, first, registry, spread)
        first = next((call for call in around if not _input_is_bad(call)), (around or [first])[0])
    elif _is_overwritten(first) and around:
        first = around[0]
    elif _has_minus_infinity(_main_input(first)):
        maker = next((call for call in watched if _has_minus_infinity(call[3])), first)
        if maker is first and _has_minus_infinity(_main_input(outermost)):
            spread = _spread(bad, registry, first)
            return _forward_finding("input", outermost, first, registry, spread)
        first = maker
    spread = _spread(bad, registry, first)
    bad_part = _bad_part(first[0], registry, {call[0] for call in watched})
    if bad_part is not None:
        part, parameter = bad_part
        found = _forward_finding("parameter", first, first, registry, spread)
        layer = registry.name_of(part) or ""
        return msgspec.structs.replace(
            found, layer=layer, type=registry.type_of(part), parameter=parameter
        )
    if first is outermost and len(bad) == 1 and _only_scalar_bad(first[3]):
        return _forward_finding("loss", first, first, registry, spread)
    return _forward_finding("forward", first, first, registry, spread)


def _around(first: Call, calls: Sequence[Call], registry: Registry) -> list[Call]:
    """The calls that enclose this one, innermost first."""
    name = registry.name_of(first[0]) or ""
    place = next(index for index, call in enumerate(calls) if call is first)
    around = []
    for call in calls[place + 1 :]:
        if registry.encloses(registry.name_of(call[0]) or "", name):
            around.append(call)
            if call[0] in registry.roots:
                break
    return around


def _input_is_bad(call: Call) -> bool:
    """Whether what went in was bad; a tensor that came out again, changed in place, tells nothing of that."""
    _, args, kwargs, output = call
    out = set() if _changes_nothing(call) else {t.data_ptr() for t in tensors_in(output)}
    return any(
        tensor.data_ptr() not in out and is_bad(tensor) for tensor in tensors_in((args, kwargs))
    )


def _changes_nothing(call: Call) -> bool:
    """Whether what came out where something went in is that very thing, or a view of it: what `Unflatten` gives, or a
    dropout in evaluation. torch's own layers say when they work in place; of other modules it is sure where nothing
    was ever written to what came out."""
    module, output = call[0], call[3]
    if _is_torchs_own(module) and not any(True for _ in module.children()):
        return not getattr(module, "inplace", False)
    return not any(t.is_inference() or t._version for t in tensors_in(output))


def _main_input(call: Call) -> object:
    """What a layer works on, masks and the like left out."""
    return call[1][0] if call[1] else None


def _has_minus_infinity(value: object) -> bool:
    """Whether a CPU tensor in it holds -infinity, which is harmless until something makes NaN of it."""
    return any(
        tensor.is_cpu and bool(torch.isneginf(tensor.detach()).any())
        for tensor in tensors_in(value)
    )


def _changed_later(first: Call, bad: Sequence[Call]) -> Call | None:
    """A module of the user's own that changed the first bad output in place: torch's own make nothing bad."""
    if not _is_overwritten(first):
        return None
    out = {tensor.data_ptr() for tensor in tensors_in(first[3])}
    for call in bad:
        into = {tensor.data_ptr() for tensor in tensors_in((call[1], call[2]))}
        onto = {tensor.data_ptr() for tensor in tensors_in(call[3])}
        if call is not first and out & into & onto and not _is_torchs_own(call[0]):
            return call
    return None


def _is_overwritten(call: Call) -> bool:
    """Whether the output of one of torch's own layers was written to after it was made."""
    first = next(tensors_in(call[3]), None)
    if first is None or not _is_torchs_own(call[0]) or getattr(call[0], "inplace", False):
        return False
    return first._version > 0 and not is_bad((call[1], call[2])) and _recomputes_finite(call)


def _recomputes_finite(call: Call) -> bool:
    """Whether a layer without state or chance gives a finite output from the same inputs; False of others."""
    module, args, kwargs, _ = call
    if not isinstance(module, _REPEATABLE) or module._forward_hooks or module._forward_pre_hooks:
        return False
    with torch.no_grad():
        return not is_bad(module.forward(*args, **kwargs))


_REPEATABLE = (
    nn.Linear,
    nn.modules.conv._ConvNd,
    nn.Embedding,
    nn.LayerNorm,
    nn.GroupNorm,
    nn.RMSNorm,
)


def _is_torchs_own(module: nn.Module) -> bool:
    return type(module).__module__.startswith("torch.nn.")


def _forward_finding(
    direction: Literal["input", "parameter", "forward", "loss"],
    described: Call,
    blamed: Call,
    registry: Registry,
    spread: list[str],
) -> NonFinite:
    offending = (described[1], described[2]) if direction == "input" else blamed[3]
    nan, inf = _count(offending)
    return NonFinite(
        direction=direction,
        layer=registry.name_of(blamed[0]) or "",
        type=registry.type_of(blamed[0]),
        nan=nan,
        inf=inf,
        inputs=[_describe(tensor) for tensor in tensors_in((described[1], described[2]))],
        spread=spread[:_MAX_SPREAD],
        spread_count=len(spread),
    )


def _spread(bad: Sequence[Call], registry: Registry, first: Call) -> list[str]:
    names = dict.fromkeys(registry.name_of(call[0]) or "" for call in bad)
    names.pop(registry.name_of(first[0]) or "", None)
    return list(names)


def _bad_part(
    module: nn.Module, registry: Registry, called: set[nn.Module]
) -> tuple[nn.Module, str] | None:
    """A non-finite parameter or buffer that the module reads, and its owner; an infinite mask buffer is none.

    Besides its own ones it may read those of parts that are never called, as attention does.
    """
    for part in module.modules():
        if part is not module and part in called:
            continue
        name = registry.name_of(part) or ""
        for key, tensor in part.named_parameters(recurse=False):
            if tensor.is_floating_point() and not bool(torch.isfinite(local(tensor)).all()):
                known = registry.parameters.get(id(tensor))
                return part, known.name if known else f"{name}.{key}".lstrip(".")
        for key, buffer in part.named_buffers(recurse=False):
            if (
                buffer.is_floating_point()
                and buffer.numel()
                and has_nan_or_inf(local(buffer).detach())
            ):
                return part, f"{name}.{key}".lstrip(".")
    return None


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


def fingerprint(batch: object) -> list[dict[str, Value]]:
    """Shape, dtype and CRC-32 of the first 1 MiB of each tensor that went into a model."""
    return [_fingerprint(tensor.detach()) for tensor in tensors_in(batch, floating=False)]


def _fingerprint(tensor: Tensor) -> dict[str, Value]:
    found: dict[str, Value] = {
        "shape": list(tensor.shape),
        "dtype": str(tensor.dtype).removeprefix("torch."),
    }
    if type(tensor.data) is Tensor and tensor.is_cpu:
        values = tensor.reshape(-1)[: _FINGERPRINTED // tensor.itemsize].contiguous()
        found["crc32"] = f"{crc32(values.view(torch.uint8).numpy().tobytes()):08x}"
    return found


def explain_loss(loss: object) -> NonFinite:
    """The loss is not finite although all outputs of watched modules are."""
    nan, inf = _count(loss)
    return NonFinite(direction="loss", nan=nan, inf=inf)


def explain_gradients(bad: Sequence[tuple[Parameter, Tensor]], registry: Registry) -> NonFinite:
    """The origin of non-finite gradients after a finite forward pass.

    Backward meets the layers from the last to the first, so the last bad one is where it began.
    """
    places = {id(parameter.tensor): i for i, parameter in enumerate(registry.in_forward_order())}
    ordered = sorted(bad, key=lambda pair: -places.get(id(pair[0].tensor), -1))
    last, gradient = ordered[0]
    found = values_of(gradient)
    return NonFinite(
        direction="backward",
        layer=last.layer,
        parameter=last.name,
        type=last.type,
        nan=int(torch.isnan(found).sum()),
        inf=int(torch.isinf(found).sum()),
        gradients=len(bad),
        **_layers_beside(last, [parameter for parameter, _ in ordered]),
    )


def explain_update(spoiled: Sequence[Parameter]) -> NonFinite:
    """The optimizer step itself made weights non-finite."""
    first = spoiled[0]
    values = local(first.tensor).detach()
    return NonFinite(
        direction="update",
        layer=first.layer,
        parameter=first.name,
        type=first.type,
        nan=int(torch.isnan(values).sum()),
        inf=int(torch.isinf(values).sum()),
        **_layers_beside(first, spoiled),
    )


def _layers_beside(first: Parameter, bad: Sequence[Parameter]) -> dict[str, Any]:
    layers = list(dict.fromkeys(p.layer for p in bad if p.layer != first.layer))
    return {"spread": layers[:_MAX_SPREAD], "spread_count": len(layers)}
