"""Where the first NaN or infinity of a step comes from."""

import copy
from collections.abc import Container, Iterable, Iterator, Sequence
from typing import Any, Literal
from zlib import crc32

import msgspec
import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _NormBase

from trainvitals.hooks.asnumpy import as_numpy
from trainvitals.hooks.call import Call
from trainvitals.hooks.leaves import Place
from trainvitals.hooks.registry import Parameter, Registry, local, tensors_in
from trainvitals.hooks.stats import has_nan_or_inf, values_of
from trainvitals.hooks.wire.records import NonFinite, Value

_MAX_SPREAD = 50
_FINGERPRINTED = 1 << 20
"""Bytes of a tensor that go into its checksum."""
_TENSORS = 1_000
"""Tensors of an output or of arguments that are looked at."""
_MEANT_FOR_MASKS = (nn.Softmax, nn.LogSoftmax, nn.Softmax2d)
"""Layers that take -infinity for what is masked: they fail where all is."""


def is_finite(tensor: Tensor) -> bool:
    """Whether all numbers in a parameter, or in what lies on this rank of it, are finite."""
    return bool(torch.isfinite(local(tensor).detach()).all())


def is_bad(value: object) -> bool:
    """Whether a CPU tensor in an output or in arguments holds NaN or +infinity."""
    return any(has_nan_or_inf(tensor) for tensor in _numbers_in(value))


def _numbers_in(value: object) -> Iterator[Tensor]:
    """The CPU tensors of real numbers in it; of complex ones their two parts."""
    for tensor in tensors_in(value, _TENSORS, floating=False):
        if tensor.is_cpu and tensor.is_complex():
            yield torch.view_as_real(tensor.detach().resolve_conj())
        elif tensor.is_cpu and tensor.is_floating_point():
            yield tensor.detach()


def explain_forward(calls: Sequence[Call], registry: Registry) -> NonFinite | None:
    """The origin of a non-finite output among the calls of forward passes, in the order of their completion.

    A layer completes before the containers round it, so the first bad output is the innermost one. When
    what went into that layer was bad already, the code of a container round it made it, or the input was bad.
    None when no output of a watched module is bad.
    """
    watched = [call for call in calls if registry.name_of(call[0]) is not None]
    bad = _unusual([call for call in watched if is_bad(call[3])], registry, worse=True)
    if not bad:
        return None
    first = bad[0]
    around = _around(first, watched, registry.roots)
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
    elif _was_given_minus_infinity(first):
        before = watched[: _place(first, watched)]
        maker = _maker_of_minus_infinity(before)
        if maker is not None and not isinstance(first[0], _MEANT_FOR_MASKS):
            # the layer itself is to blame where it is given such a mask in every step
            maker = _maker_of_minus_infinity(_unusual(before, registry, worse=False)) or first
        if maker is None and _was_given_minus_infinity(outermost):
            spread = _spread(bad, registry, first)
            return _forward_finding("input", outermost, first, registry, spread)
        if maker is None and not isinstance(first[0], _MEANT_FOR_MASKS):
            code = (call for call in around if not _was_given_minus_infinity(call))
            maker = next(code, None)
        first = maker or first
    spread = _spread(bad, registry, first)
    bad_part = _bad_part(first[0], registry, {call[0] for call in bad})
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


def explain_minus_infinity(calls: Sequence[Call], registry: Registry) -> NonFinite | None:
    """The origin of a -infinity that the model gave to a loss, which is infinite now; None when it gave none."""
    watched = [call for call in calls if registry.name_of(call[0]) is not None]
    maker = _maker_of_minus_infinity(_unusual(watched, registry, worse=False))
    if maker is None or not _has_minus_infinity(watched[-1][3]):
        return None
    onwards = [call for call in watched[_place(maker, watched) :] if _has_minus_infinity(call[3])]
    spread = _spread(onwards, registry, maker)
    return _forward_finding("forward", maker, maker, registry, spread)


def _unusual(calls: Sequence[Call], registry: Registry, worse: bool) -> list[Call]:
    """The calls without those whose output tells nothing, as their layers gave what is not finite in steps that went
    well (if `worse`, NaN or +infinity); and without those that only pass such an output on."""
    harmless = registry.harmless
    gave = harmless.gave_worse if worse else harmless.gave
    meant = {id(call) for call in calls if gave(registry.name_of(call[0]) or "")}
    if not meant:
        return list(calls)
    places = {p for call in calls if id(call) in meant for p in _places_of(call[3])}
    passed_on = [call for call in calls if _places_of(call[3]) <= places and _places_of(call[3])]
    meant |= set(map(id, passed_on))
    return [call for call in calls if id(call) not in meant]


def _place(call: Call, calls: Sequence[Call]) -> int:
    return next(index for index, other in enumerate(calls) if other is call)


def _around(first: Call, calls: Sequence[Call], roots: set[nn.Module]) -> list[Call]:
    """The calls that enclose this one, innermost first."""
    around = []
    for call in calls[_place(first, calls) + 1 :]:
        if call[0] is not first[0] and _holds(call[0], first[0]):
            around.append(call)
            if call[0] in roots:
                break
    return around


def _holds(container: nn.Module, module: nn.Module) -> bool:
    return any(part is module for part in container.modules())


def _maker_of_minus_infinity(calls: Iterable[Call]) -> Call | None:
    """The first call that gave a -infinity which is still there at the end: what a later layer, or the code round it,
    has made finite again was an intended mask."""
    maker: Call | None = None
    for call in calls:
        if _has_minus_infinity(call[3]):
            maker = maker or call
        elif maker is not None:
            if _was_given_minus_infinity(call) or _holds(call[0], maker[0]):
                maker = None
    return maker


def _input_is_bad(call: Call) -> bool:
    """Whether what went in was bad."""
    return any(map(has_nan_or_inf, _given(call, (call[1], call[2]))))


def _was_given_minus_infinity(call: Call) -> bool:
    """Whether what a layer works on held a -infinity; masks and the like are no matter."""
    return any(bool(torch.isneginf(tensor).any()) for tensor in _given(call, _main_input(call)))


def _given(call: Call, value: object) -> Iterator[Tensor]:
    """The tensors in this part of what went in; one that came out again, changed in place, tells nothing of that."""
    out = set() if _changes_nothing(call) else _places_of(call[3])
    return (tensor for tensor in _numbers_in(value) if tensor.data_ptr() not in out)


def _places_of(value: object) -> set[int]:
    """Where in memory its tensors lie."""
    return {tensor.data_ptr() for tensor in _numbers_in(value)}


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
    return call[1][0] if call[1] else next(iter(call[2].values()), None)


def _has_minus_infinity(value: object) -> bool:
    """Whether a CPU tensor in it holds -infinity, which is harmless until something makes NaN of it."""
    return any(bool(torch.isneginf(tensor).any()) for tensor in _numbers_in(value))


def _changed_later(first: Call, bad: Sequence[Call]) -> Call | None:
    """A module of the user's own that changed the first bad output in place: torch's own make nothing bad."""
    if not _is_overwritten(first):
        return None
    out = _places_of(first[3])
    for call in bad:
        into, onto = _places_of((call[1], call[2])), _places_of(call[3])
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
    """Whether a layer without parts gives a finite output from the same inputs; False of others, and where it ran in
    another precision. Its buffers and the random state stay as they are."""
    module, args, kwargs, output = call
    if module._modules or module._forward_hooks or module._forward_pre_hooks:
        return False
    twin = copy.copy(module)
    twin._buffers = {key: b if b is None else b.clone() for key, b in module._buffers.items()}
    with torch.no_grad(), torch.random.fork_rng(devices=[]):
        again = twin.forward(*args, **kwargs)
    types = [[tensor.dtype for tensor in _numbers_in(value)] for value in (again, output)]
    return types[0] == types[1] and not is_bad(again)


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
    module: nn.Module, registry: Registry, spoilt: set[nn.Module]
) -> tuple[nn.Module, str] | None:
    """A non-finite parameter or buffer that the module reads, and its owner; an infinite mask buffer is none.

    Besides its own ones it may read those of its parts, as attention does, but for those that gave something bad
    (`spoilt`): they were given it, as the first of all is known.
    """
    for part in module.modules():
        if part is not module and part in spoilt:
            continue
        name = registry.name_of(part) or ""
        for key, tensor in part.named_parameters(recurse=False):
            if not is_finite(tensor):
                known = registry.parameters.get(id(tensor))
                return part, known.name if known else f"{name}.{key}".lstrip(".")
        if part.training and isinstance(part, _NormBase):
            continue  # it writes to its buffers and doesn't read them
        for key, buffer in part.named_buffers(recurse=False):
            if (
                buffer.is_floating_point()
                and buffer.numel()
                and id(buffer) not in registry.harmless.buffers
                and has_nan_or_inf(local(buffer).detach())
            ):
                return part, f"{name}.{key}".lstrip(".")
    return None


def _only_scalar_bad(output: Any) -> bool:
    return all(tensor.numel() == 1 for tensor in _numbers_in(output) if has_nan_or_inf(tensor))


def _count(value: object) -> tuple[int, int]:
    """NaN and infinity counts of the first tensor that is not finite."""
    for tensor in _numbers_in(value):
        if not bool(torch.isfinite(tensor).all()):
            return int(torch.isnan(tensor).sum()), int(torch.isinf(tensor).sum())
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
        found["crc32"] = f"{crc32(as_numpy(values.view(torch.uint8)).tobytes()):08x}"
    return found


def explain_loss(loss: object) -> NonFinite:
    """The loss is not finite although all outputs of watched modules are."""
    nan, inf = _count(loss)
    return NonFinite(direction="loss", nan=nan, inf=inf)


def explain_parameters(used: Container[int], registry: Registry) -> NonFinite | None:
    """The first non-finite parameter, in the order of the forward pass, among those whose ids are in `used`."""
    held = (p for p in registry.in_forward_order() if id(p.tensor) in used)
    bad = next((parameter for parameter in held if not is_finite(parameter.tensor)), None)
    return None if bad is None else _of_parameter("parameter", bad, local(bad.tensor).detach())


def explain_gradients(bad: Sequence[tuple[Parameter, Tensor]], registry: Registry) -> NonFinite:
    """The origin of non-finite gradients after a finite forward pass.

    Backward meets what was used last first, so the last bad one is where it began. One that is used several times is
    bad by any of its uses. Where the uses of one are not known the order of the layers' calls has to do.
    """
    orders = {id(parameter.tensor): i for i, parameter in enumerate(registry.in_forward_order())}
    uses, bad_ids = registry.uses, {id(parameter.tensor) for parameter, _ in bad}
    last_uses = {key: uses.last(key) for key in {*orders, *bad_ids}}
    known = all(last_uses[key] is not None for key in bad_ids)
    fine = [place for key, place in last_uses.items() if place is not None and key not in bad_ids]

    def place(pair: tuple[Parameter, Tensor]) -> tuple[Place, int]:
        key = id(pair[0].tensor)
        return uses.last_before(key, fine) if known else (), orders.get(key, -1)

    ordered = sorted(bad, key=place, reverse=True)
    last, gradient = ordered[0]
    beside = _layers_beside(last, [parameter for parameter, _ in ordered])
    return _of_parameter("backward", last, values_of(gradient), gradients=len(bad), **beside)


def explain_update(spoiled: Sequence[Parameter]) -> NonFinite:
    """The optimizer step itself made weights non-finite."""
    first = spoiled[0]
    values = local(first.tensor).detach()
    return _of_parameter("update", first, values, **_layers_beside(first, spoiled))


def _of_parameter(
    direction: Literal["parameter", "backward", "update"],
    parameter: Parameter,
    values: Tensor,
    **more: Any,
) -> NonFinite:
    """`values`: the bad ones, of the parameter or of its gradient."""
    return NonFinite(
        direction=direction,
        layer=parameter.layer,
        parameter=parameter.name,
        type=parameter.type,
        nan=int(torch.isnan(values).sum()),
        inf=int(torch.isinf(values).sum()),
        **more,
    )


def _layers_beside(first: Parameter, bad: Sequence[Parameter]) -> dict[str, Any]:
    layers = list(dict.fromkeys(p.layer for p in bad if p.layer != first.layer))
    return {"spread": layers[:_MAX_SPREAD], "spread_count": len(layers)}
