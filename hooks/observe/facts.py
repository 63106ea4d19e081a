"""What can be said of the models and optimizers before the first step: wiring, initial weights, structure."""

import math
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from itertools import pairwise

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm
from torch.nn.modules.conv import _ConvNd
from torch.nn.parameter import is_lazy
from torch.nn.utils import parametrize
from torch.optim import Optimizer

from trainvitals.hooks.asnumpy import as_numpy
from trainvitals.hooks.observe.modes import drop_rate
from trainvitals.hooks.observe.reading import Reading, Values
from trainvitals.hooks.registry import Parameter, Registry, class_name, local
from trainvitals.hooks.wire.observed import Facts, GroupFacts

_NAMES = 50
_UNITS = 16
"""Rows of a weight that are compared; of each at most `_FAN` elements."""
_FAN = 1024
_ADAPTERS = ("lora_", "adapter", "ia3_", "prompt_")
_SQUASHING = nn.Sigmoid | nn.Tanh
_PASSING = nn.Dropout | nn.Identity | nn.Flatten
_NO = torch.zeros(())
_NORMS = ("Norm", "Embedding")
_UNIFORM = ("Linear", "Conv1d", "Conv2d", "Conv3d")
"""Layers whose weights PyTorch draws evenly from ±1/√fan-in."""


class Weights:
    """How the weights of the watched models start: looked at when watching begins, outside of any step."""

    def __init__(self, registry: Registry, reading: Reading) -> None:
        parameters = [
            p
            for p in registry.in_forward_order()
            if not (is_lazy(p.tensor) or p.tensor.is_meta) and local(p.tensor) is p.tensor
        ]
        trained = [p.tensor.requires_grad for p in parameters]
        behind = parameters[trained.index(True) :] if any(trained) else []
        self._matrices = [p for p in parameters if p.tensor.requires_grad and _is_matrix(p)]
        self._kept = [
            p for p in behind if not p.tensor.requires_grad and _is_matrix(p) and p.type in _UNIFORM
        ]
        self.trained_before = any(map(_has_moved_bias, list(registry.layers)[:-1]))
        """Whether a bias of any layer but the last one is nothing that a new layer begins with."""
        self._same = _ask_each(_sameness, self._matrices, reading)
        self._random = _ask_each(_randomness, self._kept, reading)

    def symmetric(self, values: Values) -> list[str]:
        """See `Facts.symmetric`."""
        return [] if self._same is None else _symmetric(self._matrices, values[self._same])

    def frozen_random(self, values: Values) -> list[str]:
        """See `Facts.frozen_random`."""
        scores = [] if self._random is None else values[self._random]
        return [p.name for p, score in zip(self._kept, scores, strict=False) if score]


def _ask_each(
    measure: Callable[[Tensor], Tensor], weights: list[Parameter], reading: Reading
) -> int | None:
    """Ask for a number of each weight; None when there are none, or not all are on one device."""
    if len({p.tensor.device for p in weights}) != 1:
        return None
    return reading.ask(torch.stack([measure(p.tensor) for p in weights]))


def ask(
    registry: Registry, optimizers: Sequence[Optimizer], weights: Weights, reading: Reading
) -> None:
    """Ask for what `Facts` tells; `optimizers`: those known so far, and the one that steps."""
    parameters = [p for p in registry.in_forward_order() if not is_lazy(p.tensor)]
    groups = [fact for optimizer in optimizers for fact in _groups(optimizer, registry)]
    elements = sum(p.tensor.numel() for p in parameters)
    trained = [p for p in parameters if p.tensor.requires_grad]
    frozen = [p for p in parameters if not p.tensor.requires_grad]
    stale = _stale(trained, optimizers, registry)
    modules = list(registry.layers)
    sizes: Counter[str] = Counter()
    for parameter in parameters:
        sizes[str(parameter.tensor.dtype).removeprefix("torch.")] += parameter.tensor.numel()

    def part(values: Values) -> dict[str, object]:
        return {
            "facts": Facts(
                groups=groups,
                elements=elements,
                frozen=sum(p.tensor.numel() for p in frozen),
                frozen_names=[p.name for p in frozen[:_NAMES]],
                frozen_random=weights.frozen_random(values)[:_NAMES],
                stale=[p.name for p in stale[:_NAMES]],
                stale_share=_share(stale, trained),
                symmetric=weights.symmetric(values)[:_NAMES],
                mode=_mode(parameters, frozen, weights.trained_before),
                normalised=bool(parameters) and any(word in parameters[0].type for word in _NORMS),
                has_norm=any("Norm" in class_name(module) for module in modules),
                dtype=sizes.most_common(1)[0][0] if sizes else "",
                deep_sigmoids=_deep_sigmoids(registry)[:_NAMES],
                bare_pairs=list(_bare_pairs(registry))[:_NAMES],
                biased_before_norm=[
                    name
                    for name, layer, _, second in _pairs(registry)
                    if isinstance(second, _BatchNorm) and layer.bias is not None
                ][:_NAMES],
                dropout=max(map(drop_rate, modules), default=0.0),
            )
        }

    reading.then(part)


def _groups(optimizer: Optimizer, registry: Registry) -> Iterator[GroupFacts]:
    for group in optimizer.param_groups:
        tensors = group["params"]
        known = [registry.parameters[id(t)] for t in tensors if id(t) in registry.parameters]
        betas = group.get("betas")
        yield GroupFacts(
            optimizer=type(optimizer).__name__,
            rate=_number(group.get("lr")),
            decay=_number(group.get("weight_decay")),
            momentum=_number(group.get("momentum") or (betas[0] if betas else 0.0)),
            eps=_number(group.get("eps")),
            parameters=len(tensors),
            watched=len(known),
            small=sum(1 for p in known if p.tensor.dim() < 2 or "Embedding" in p.type),
        )


def _number(value: object) -> float:
    """Of a setting; 0 for what is none, or lies on a device."""
    if isinstance(value, Tensor):
        return float(as_numpy(value.detach())) if value.is_cpu and value.numel() == 1 else 0.0
    return float(value) if isinstance(value, int | float) else 0.0


def _stale(
    trained: list[Parameter], optimizers: Iterable[Optimizer], registry: Registry
) -> list[Parameter]:
    """Parameters held by no optimizer, where one holds tensors from elsewhere in their very shapes: all of them."""
    held = [tensor for o in optimizers for group in o.param_groups for tensor in group["params"]]
    ids = {id(tensor) for tensor in held}
    missing = [p for p in trained if id(p.tensor) not in ids]
    foreign = Counter(
        tuple(t.shape) for t in held if id(t) not in registry.parameters and not is_lazy(t)
    )
    wanted = Counter(tuple(p.tensor.shape) for p in missing)
    return missing if missing and not wanted - foreign else []


def _share(some: list[Parameter], of: list[Parameter]) -> float:
    total = sum(p.tensor.numel() for p in of)
    return sum(p.tensor.numel() for p in some) / total if total else 0.0


def _is_matrix(parameter: Parameter) -> bool:
    """A dense weight that makes several units of several inputs."""
    tensor = parameter.tensor
    return (
        type(tensor.data) is Tensor
        and tensor.is_floating_point()
        and tensor.dim() >= 2
        and len(tensor) > 1
        and tensor[0].numel() > 1
        and parameter.layer != ""
        and "Embedding" not in parameter.type
    )


def _sameness(tensor: Tensor) -> Tensor:
    """1 when the first units of a weight are the same but for rounding, 2 when all are zero; else 0."""
    if tensor.is_cpu and tensor.dtype is torch.float32 and _differ(tensor):
        return _NO
    rows = tensor.detach()[:_UNITS].reshape(min(len(tensor), _UNITS), -1)[:, :_FAN].float()
    largest = rows.abs().amax()
    apart = (rows - rows[:1]).abs().amax()
    return torch.where(largest == 0, 2.0, (apart <= 1e-6 * largest).float())


def _differ(tensor: Tensor) -> bool:
    """Whether the first two units of a weight on the host plainly differ: the usual case, seen at once."""
    one, two = as_numpy(tensor.detach()[:2].flatten(1)[:, :_FAN])
    return bool(abs(one - two).max() > 1e-3 * abs(one).max())


def _randomness(tensor: Tensor) -> Tensor:
    """1 when a weight fills ±1/√fan-in as evenly as PyTorch's start does, else 0."""
    bound = math.sqrt(tensor[0].numel())
    values = tensor.detach().reshape(-1)[: _FAN * _FAN].float() * bound
    count = values.numel()
    top = values.abs().amax()
    # The largest of n even draws is 1 - 1/n on average; the mean square is 1/3 ± sqrt(4/45n).
    even = (values.square().mean() - 1 / 3).abs() <= 3 * math.sqrt(4 / 45 / count)
    fills = (top <= 1 + 1e-6) & (top >= 1 - 10 / count)
    return (fills & even).float()


def _symmetric(weights: list[Parameter], same: Sequence[float]) -> list[str]:
    """The weights whose symmetry nothing breaks: all units of a layer then learn the same for ever.

    Zeros in one weight are a common start (a head, the end of a residual branch, an adapter): its gradient differs from
    unit to unit as its inputs and what comes after it do. Zeros in a weight and in the next one get no gradient at
    all. Equal rows keep the units equal wherever they are, but in the last weight, whose labels tell them apart.
    """
    found = []
    last = len(weights) - 1
    for index, (parameter, score) in enumerate(zip(weights, same, strict=True)):
        zeros = score == 2 and (
            (index < last and same[index + 1] == 2) or (index > 0 and same[index - 1] == 2)
        )
        if (zeros or (score == 1 and index < last)) and not _is_adapter(parameter.name):
            found.append(parameter.name)
    return found


def _is_adapter(name: str) -> bool:
    return any(word in name.lower() for word in _ADAPTERS)


def _has_moved_bias(module: nn.Module) -> bool:
    """Whether a layer's bias is neither constant nor within ±1/√fan-in, where PyTorch draws it from."""
    if parametrize.is_parametrized(
        module
    ):  # to read a weight would compute it, which spectral norm counts
        return False
    bias = getattr(module, "bias", None)
    if not isinstance(module, nn.Linear | _ConvNd) or not isinstance(bias, Tensor):
        return False
    if is_lazy(bias) or not bias.is_cpu or type(bias.data) is not Tensor or len(bias) < 2:
        return False
    if not bias.is_floating_point():
        return False
    values, bound = bias.detach().float(), 1 / math.sqrt(module.weight[0].numel())
    return bool(values.abs().amax() > bound * 1.000001) and not bool((values == values[0]).all())


def _mode(parameters: list[Parameter], frozen: list[Parameter], trained_before: bool) -> str:
    if any(_is_adapter(p.name) for p in parameters):
        return "adapter"
    norms = [p.tensor for p in parameters if "Norm" in p.type and p.name.endswith("weight")]
    # Norm gains start at 1: others were trained before. Of a sharded one only what lies here can be asked.
    gains = [local(t).detach() for t in norms if t.is_cpu and t.dim() == 1]
    moved = any(len(gain) > 0 and not bool((gain == gain[0]).all()) for gain in gains)
    return (
        "fine-tuning"
        if moved or trained_before or (frozen and len(frozen) < len(parameters))
        else "scratch"
    )


def _deep_sigmoids(registry: Registry) -> list[str]:
    """The longest run of squashing layers in one `Sequential` without a norm, of 4 or more."""
    longest: list[str] = []
    for names in _sequentials(registry):
        run: list[str] = []
        for name, module in names:
            if isinstance(module, _SQUASHING):
                run.append(name)
            elif any(word in class_name(module) for word in _NORMS):
                run = []
            longest = max(longest, list(run), key=len)
    return longest if len(longest) >= 4 else []


def _bare_pairs(registry: Registry) -> Iterator[str]:
    for first, one, second, two in _pairs(registry):
        if isinstance(one, nn.Linear) and isinstance(two, nn.Linear):
            if one.out_features >= min(one.in_features, two.out_features):
                yield f"{first} → {second}"
        elif isinstance(two, nn.Linear | _ConvNd):
            if 1 == getattr(one, "groups", 1) == getattr(two, "groups", 1):
                yield f"{first} → {second} (convolution)"


def _pairs(registry: Registry) -> Iterator[tuple[str, nn.Module, str, nn.Module]]:
    """Name and module of each Linear or convolution layer in a `Sequential`, and of what follows it."""
    for names in _sequentials(registry):
        parts = [(name, module) for name, module in names if not isinstance(module, _PASSING)]
        for (first, one), (second, two) in pairwise(parts):
            if isinstance(one, nn.Linear | _ConvNd):
                yield first, one, second, two


def _sequentials(registry: Registry) -> Iterator[list[tuple[str, nn.Module]]]:
    for module, name in registry.layers.items():
        if type(module) is nn.Sequential:
            prefix = f"{name}." if name else ""
            # `named_children` would leave out a module that is used a second time.
            parts = module._modules.items()
            yield [(f"{prefix}{key}", child) for key, child in parts if child is not None]
