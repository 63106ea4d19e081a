"""The loss calls that a backward pass comes from, read from the autograd graph.

The graph says what the training really does, whoever called the loss and by which name, and reading it replaces
nothing in torch. Only operations that losses are put together from are followed, never the model's layers.
"""

import math
from collections.abc import Iterator
from typing import Any, NamedTuple

from torch import Tensor

_MOST = 200
"""Operations that are followed from the roots at most."""

_KINDS = {
    "NllLoss": "nll",
    "NllLoss2D": "nll",
    "BinaryCrossEntropy": "bce",
    "BinaryCrossEntropyWithLogits": "bce-logits",
    "MseLoss": "mse",
    "SmoothL1Loss": "smooth-l1",
    "HuberLoss": "huber",
}
_SAME = frozenset(
    "View Reshape UnsafeView ReshapeAlias Squeeze Unsqueeze Transpose Permute T Slice Select Index Clone ToCopy Alias "
    "Contiguous Expand Split Unbind Narrow AsStrided Gather MaskedSelect IndexSelect Detach".split()
)
"""Operations that hand values on as they are, or some of them."""
_PARTS = _SAME | frozenset(
    "Mul Div Add Sub Neg Sum Mean Where MaskedFill Stack Cat Rsub Min Max".split()
)
"""What a loss is put together from, after its core."""
_REDUCTIONS = ("none", "mean", "sum")
_BEFORE = {
    "Softmax": "softmax",
    "LogSoftmax": "log-softmax",
    "Sigmoid": "sigmoid",
    "LogSigmoid": "log-sigmoid",
    "Tanh": "tanh",
    "Relu": "relu",
    "Hardtanh": "hardtanh",
    "Threshold": "relu",
    "Softplus": "softplus",
    "LeakyRelu": "leaky-relu",
    "Gelu": "gelu",
    "Silu": "silu",
    "Elu": "elu",
    "Exp": "exp",
    "Log": "log",
    "Addmm": "linear",
    "Mm": "linear",
    "Convolution": "convolution",
}


class Found(NamedTuple):
    """One loss call in the graph."""

    kind: str
    node: Any
    """Its core, whose saved tensors are the prediction and the target."""
    before: str
    """See `LossCall.before`."""
    normalised: tuple[int, int] | None
    shape: tuple[int, ...]
    wide: tuple[int, ...]
    reduction: str


def name_of(node: Any) -> str:
    """ "NllLoss" for NllLossBackward0."""
    name: str = node.name()
    return name.rpartition("::")[2].partition("Backward")[0]


def shape_of(node: Any) -> tuple[int, ...]:
    """Of the operation's (first) output."""
    for metadata in getattr(node, "_input_metadata", ()):
        return tuple(int(size) for size in metadata.shape)
    return ()


def saved(node: Any, name: str) -> Tensor | None:
    """A tensor that an operation saved; None where there is none, or where reading it would run code: a
    checkpoint would compute its part again, an offloaded tensor would be fetched."""
    raw = getattr(node, f"_raw_saved_{name}", None)
    if raw is None or getattr(raw, "unpack_hook", raw) is not None:
        return None
    try:
        tensor = getattr(node, f"_saved_{name}")
    except RuntimeError:  # changed in place since, or freed
        return None
    return tensor.detach() if isinstance(tensor, Tensor) else None


def ignored_by(node: Any) -> int | None:
    """The label that a loss leaves out; None for a loss without classes."""
    ignored = getattr(node, "_saved_ignore_index", None)
    return None if ignored is None else _signed(ignored)


def _signed(number: Any) -> int:
    """torch tells negative numbers of a node as unsigned ones of 64 bits."""
    return int(number) - 2**64 if number >= 2**63 else int(number)


def losses_of(roots: Any) -> Iterator[Found]:
    """The loss calls that a backward pass from these tensors begins with."""
    tensors = roots if isinstance(roots, list | tuple) else [roots]
    nodes = [
        root.grad_fn for root in tensors if isinstance(root, Tensor) and root.grad_fn is not None
    ]
    seen: set[Any] = set()
    while nodes and len(seen) < _MOST:
        node = nodes.pop(0)
        if node in seen:
            continue
        seen.add(node)
        name = name_of(node)
        if name in _KINDS:
            found = _core(node, name)
            seen.add(_source(node))  # the same log-softmax, on the way of label smoothing
            yield found
        elif name == "LogSoftmax":
            yield _soft(node)
        elif name in ("Pow", "Abs"):
            difference = _written_out(node, name)
            if difference is not None:
                yield difference
        elif name in _PARTS:
            nodes.extend(following for following, _ in node.next_functions if following is not None)


def _core(node: Any, name: str) -> Found:
    kind = _KINDS[name]
    normalised = None
    wide: tuple[int, ...] = ()
    source = _next(node)
    if source is not None and name_of(source) == "Expand" and kind != "nll":
        given, whole = _sizes(source), shape_of(source)
        if given != whole and _crossed(given, whole, saved(node, "target")):
            wide = whole
        source = _next(source)
    shape = shape_of(source) if source is not None else ()
    source = _through(source)
    if kind == "nll" and source is not None and name_of(source) == "LogSoftmax":
        kind, shape = "cross-entropy", shape_of(source)
        normalised = _dimension(source)
        source = _through(_next(source))
    before = _before(source)
    inner = _through(_next(source)) if before == "log" else source
    if _before(inner) in ("softmax", "log-softmax"):
        normalised = _dimension(inner)
    reduction = getattr(node, "_saved_reduction", None)
    return Found(
        kind,
        node,
        before,
        normalised,
        shape,
        wide,
        _REDUCTIONS[reduction] if reduction in (0, 1, 2) else "",
    )


def _sizes(expand: Any) -> tuple[int, ...]:
    return tuple(int(size) for size in expand._saved_self_sym_sizes)


def _crossed(given: tuple[int, ...], whole: tuple[int, ...], target: Tensor | None) -> bool:
    """Whether a prediction was stretched against a target that was stretched the other way: each meets each.

    Where the target cannot be seen, whether it became a square. A prediction that somebody stretched on purpose has a
    target as large as it is, or one that was stretched likewise.
    """
    if target is None or tuple(target.shape) != whole:
        return len(whole) == 2 and whole[0] == whole[1] == math.prod(given)
    padded = (1,) * (len(whole) - len(given)) + given
    return any(
        size > 1 and padded[dimension] == size and target.stride(dimension) == 0
        for dimension, size in enumerate(whole)
    )


def _soft(node: Any) -> Found:
    """A log-softmax that is multiplied with probabilities: soft targets, or a divergence."""
    source = _through(_next(node))
    before = _before(source)
    normalised = _dimension(source) if before in ("softmax", "log-softmax") else _dimension(node)
    return Found("soft-cross-entropy", node, before, normalised, shape_of(node), (), "")


def _written_out(node: Any, name: str) -> Found | None:
    """`((prediction - target) ** 2)` or `abs(...)`; None for a power of anything else."""
    difference = _next(node)
    if difference is None or name_of(difference) not in ("Sub", "Rsub"):
        return None
    square = name == "Pow" and float(getattr(node, "_saved_exponent", 0)) == 2.0
    if name == "Pow" and not square:
        return None
    sources = [following for following, _ in difference.next_functions if following is not None]
    if len(sources) != 1:  # two predictions: a distance
        return None
    source, whole = sources[0], shape_of(difference)
    by_hand = name_of(source) == "Expand"
    if by_hand:  # or by l1_loss: then only what becomes a square is sure
        source = _next(source)
    shape = shape_of(source) if source is not None else ()
    stretched = shape not in ((), whole)
    wide = whole if stretched and (not by_hand or _crossed(shape, whole, None)) else ()
    before = _before(_through(source))
    return Found("squares" if square else "absolute", node, before, None, shape, wide, "")


def _next(node: Any) -> Any:
    for following, _ in node.next_functions:
        if following is not None:
            return following
    return None


def _source(node: Any) -> Any:
    return _through(_next(node))


def _through(node: Any) -> Any:
    """The operation that made the values, past those that only hand them on."""
    for _ in range(20):
        if node is None or name_of(node) not in _SAME:
            return node
        node = _next(node)
    return node


def _before(node: Any) -> str:
    if node is None:
        return ""
    name = name_of(node)
    return _BEFORE.get(name, name.lower())


def _dimension(node: Any) -> tuple[int, int] | None:
    shape = shape_of(node)
    if not shape:
        return None
    dimension = _signed(getattr(node, "_saved_dim", -1)) % len(shape)
    return dimension, shape[dimension]
