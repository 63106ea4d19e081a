"""Statistics of layer outputs, taken in the call of a sampled step."""

import math
from collections.abc import Iterator
from typing import Any

from torch import Tensor, nn

from trainvitals.hooks import histogram
from trainvitals.hooks.deadunits import DeadUnits, has_flat_zero_side
from trainvitals.hooks.draft import COLUMN, Draft
from trainvitals.hooks.plain import plain, values
from trainvitals.hooks.readout import Number
from trainvitals.hooks.registry import Rows
from trainvitals.hooks.settings import clean_name
from trainvitals.hooks.stats import moments
from trainvitals.hooks.units import batch_variation, saturated_fraction, tails
from trainvitals.hooks.wire.records import Row

_CHANNELS_FIRST = (
    nn.modules.conv._ConvNd,
    nn.modules.batchnorm._NormBase,
    nn.GroupNorm,
    nn.LocalResponseNorm,
)
_CHANNELS_LAST = (nn.Linear, nn.LayerNorm, nn.RMSNorm, nn.Embedding, nn.MultiheadAttention)
_FIRST_COLUMN = COLUMN["mean"]


class _Layer:
    """What has to be known of a module whose output is looked at, found out once."""

    def __init__(self, module: nn.Module) -> None:
        self.channels_first: bool | None = None
        """What the module says about the layout from here on; None: nothing."""
        if isinstance(module, _CHANNELS_FIRST):
            self.channels_first = True
        elif isinstance(module, _CHANNELS_LAST):
            self.channels_first = False
        self.dead = DeadUnits(module) if has_flat_zero_side(module) else None
        self.tails = tails(module)
        self.is_container = next(module.children(), None) is not None


class Taps:
    """Fills the activation rows of a draft: the first call of each layer within a step counts."""

    def __init__(self, rows: Rows) -> None:
        self._rows = rows
        self._layers: dict[nn.Module, _Layer] = {}
        self._draft: Draft | None = None
        self._histograms = False
        self._done: set[nn.Module] = set()
        self._last_output: Tensor | None = None
        self._channels_first = True

    def begin(self, draft: Draft, histograms: bool) -> None:
        """Fill `draft` from now on."""
        self.end()
        self._draft = draft
        self._histograms = histograms
        self._channels_first = True

    def end(self) -> None:
        """The step's forward passes are over; nothing of them is kept."""
        self._draft = None
        self._last_output = None
        self._done.clear()

    def finish(self) -> None:
        """The step's forward passes are over and count."""
        self.end()

    def forget(self, layers: dict[nn.Module, str]) -> None:
        """Drop what is known of modules that are not in `layers` any more."""
        self._layers = {module: known for module, known in self._layers.items() if module in layers}

    def see(self, module: nn.Module, name: str, output: Any) -> None:
        """Take the statistics of one call's output: of its first tensor that holds real or complex numbers."""
        layer = self._layers.get(module)
        if layer is None:
            layer = self._layers[module] = _Layer(module)
        if layer.channels_first is not None:
            self._channels_first = layer.channels_first
        if self._draft is None or module in self._done:
            return
        for found in _tensors_in(output):
            tensor = plain(found)
            if tensor is not None:
                break
        else:
            return
        passes_on = found is self._last_output and layer.is_container
        self._last_output = found
        if passes_on:  # it returns its last layer's output and has nothing of its own to show
            return
        self._done.add(module)
        known = self._rows.find(name)
        row = known if known is not None else self._rows.place(_row(module, name, found))
        if row is not None:
            self._take(self._draft, layer, row, tensor)

    def _take(self, draft: Draft, layer: _Layer, row: int, tensor: Tensor) -> None:
        known = values(tensor)
        taken = moments(tensor, zeros=True, values=known)
        dead: tuple[Number, float] = (math.nan, math.nan)
        saturated: Number = math.nan
        channels_first = self._channels_first or tensor.dim() == 4
        if tensor.dim() >= 1:
            if layer.dead is not None:
                layer.dead.see(tensor, channels_first)
                dead = layer.dead.read()
            elif layer.tails is not None:
                saturated = saturated_fraction(tensor, layer.tails, channels_first)
        varies = batch_variation(tensor, taken.rms, known)
        draft.put("activation", _FIRST_COLUMN, row, (*taken, *dead, saturated, varies))
        if self._histograms:
            draft.count("activation", row, histogram.count_patterns(tensor, None, known))


def _tensors_in(value: object, depth: int = 0) -> Iterator[Tensor]:
    """All tensors in an output, in order: of tuples, dicts and dataclasses."""
    if isinstance(value, Tensor):
        yield value
        return
    if isinstance(value, dict):
        items = list(value.values())
    elif isinstance(value, list | tuple):
        items = list(value)
    elif hasattr(value, "__dataclass_fields__"):
        items = [getattr(value, name) for name in value.__dataclass_fields__]
    else:
        return
    if depth <= 4:
        for item in items[:64]:
            yield from _tensors_in(item, depth + 1)


def _row(module: nn.Module, name: str, tensor: Tensor) -> Row:
    shape = tuple(size for size in tensor.shape if isinstance(size, int))
    return Row(name=name, layer=name, type=clean_name(type(module).__name__), shape=shape[:16])
