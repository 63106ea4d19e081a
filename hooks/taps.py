"""Statistics of layer outputs, taken in the call of a sampled step."""

import math
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn

from trainvitals.hooks import histogram
from trainvitals.hooks.asnumpy import as_numpy
from trainvitals.hooks.deadunits import DeadUnits, has_flat_zero_side
from trainvitals.hooks.draft import Draft
from trainvitals.hooks.gathered import COLUMN
from trainvitals.hooks.memory import Floats
from trainvitals.hooks.packed import Packed, is_small
from trainvitals.hooks.plain import plain, values
from trainvitals.hooks.readout import Number
from trainvitals.hooks.registry import Rows, class_name, every_tensor
from trainvitals.hooks.settings import clean_name
from trainvitals.hooks.stats import has_nan_or_inf, moments
from trainvitals.hooks.units import batch_variation, batch_variations, saturated_fraction, tails
from trainvitals.hooks.wire.records import Row

_CHANNELS_FIRST = (
    nn.modules.conv._ConvNd,
    nn.modules.batchnorm._NormBase,
    nn.GroupNorm,
    nn.LocalResponseNorm,
)
_CHANNELS_LAST = (nn.Linear, nn.LayerNorm, nn.RMSNorm, nn.Embedding, nn.MultiheadAttention)
_FIRST_COLUMN = COLUMN["mean"]
_NO_UNITS: tuple[Number, Number, Number] = (math.nan, math.nan, math.nan)
COPIED = 1 << 20
"""Elements of small outputs of one step that are kept at most: 4 MiB."""


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


class _Copied(NamedTuple):
    """An output that is measured later."""

    layer: _Layer
    row: int
    values: npt.NDArray[np.float32]
    """In the shape of the output; what follows may change that in place."""
    channels_first: bool


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
        self._copied: list[_Copied] = []
        self._room: Floats = np.empty(COPIED, np.float32)
        """Where they lie, end to end: memory that is never written takes no place."""
        self._elements = 0
        """Of all copies."""
        self.nonfinite: dict[str, bool] = {}
        """Layers of the step whose outputs on the CPU were not finite: whether they held NaN or +infinity."""

    def begin(self, draft: Draft, histograms: bool) -> None:
        """Fill `draft` from now on."""
        self.end()
        self._draft = draft
        self._histograms = histograms
        self._channels_first = True
        self.nonfinite = {}

    def end(self) -> None:
        """The step's forward passes are over; nothing of them is kept."""
        self._draft = None
        self._last_output = None
        self._done.clear()
        self._copied, self._elements = [], 0

    def finish(self) -> None:
        """The optimizer has stepped: measure what was copied, in one go with the parameters, whose code is the same."""
        if self._draft is not None and self._copied:
            self._measure(self._draft)
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
        if self._draft is None:
            return
        for found in (output,) if type(output) is Tensor else every_tensor(output):
            tensor = plain(found)
            if tensor is not None:
                break
        else:
            return
        passes_on = found is self._last_output and layer.is_container
        self._last_output = found
        if passes_on or module in self._done:  # or it has nothing of its own to show
            return
        self._done.add(module)
        known = self._rows.find(name)
        row = known if known is not None else self._rows.place(_row(module, name, found))
        if row is None:
            return
        channels_first = self._channels_first or tensor.dim() == 4
        if is_small(tensor):
            self._copy(self._draft, layer, row, tensor, channels_first)
        else:
            self._take(self._draft, layer, row, tensor, channels_first)

    def _take(
        self, draft: Draft, layer: _Layer, row: int, tensor: Tensor, channels_first: bool
    ) -> None:
        known = values(tensor)
        taken = moments(tensor, zeros=True, values=known)
        if isinstance(taken.nonfinite, float) and taken.nonfinite:
            self.nonfinite[self._rows.rows[row].name] = has_nan_or_inf(tensor)
        units = _of_units(layer, tensor, channels_first, taken.absmax)
        varies = batch_variation(tensor, taken.rms, known)
        draft.put("activation", _FIRST_COLUMN, row, (*taken, *units, varies))
        if self._histograms:
            draft.count("activation", row, histogram.count(tensor, None, known))

    def _copy(
        self, draft: Draft, layer: _Layer, row: int, tensor: Tensor, channels_first: bool
    ) -> None:
        output = as_numpy(tensor if tensor.dtype is torch.float32 else tensor.float())
        if self._elements + output.size > COPIED:
            self._measure(draft)
        begin, self._elements = self._elements, self._elements + output.size
        values = self._room[begin : self._elements].reshape(output.shape)
        values[...] = output
        self._copied.append(_Copied(layer, row, values, channels_first))

    def _measure(self, draft: Draft) -> None:
        """Fill the rows of what was copied, all together."""
        copied = self._copied
        packed = Packed([copy.values.reshape(-1) for copy in copied])
        self._copied, self._elements = [], 0
        taken = packed.moments(zeros=True)
        varies = batch_variations([copy.values for copy in copied], [each.rms for each in taken])
        found: list[tuple[Any, ...]] = []
        for copy, each, apart in zip(copied, taken, varies, strict=True):
            if each.nonfinite:
                worse = has_nan_or_inf(torch.from_numpy(copy.values))
                self.nonfinite[self._rows.rows[copy.row].name] = worse
            units = _NO_UNITS
            if copy.layer.dead is not None or copy.layer.tails is not None:
                units = _of_units(copy.layer, copy.values, copy.channels_first, each.absmax)
            found.append((*each, *units, apart))
        rows = [copy.row for copy in copied]
        draft.put_all("activation", _FIRST_COLUMN, rows, found)
        if self._histograms:
            draft.count_all("activation", rows, packed.histograms())


def _of_units(
    layer: _Layer, output: Tensor | npt.NDArray[Any], channels_first: bool, absmax: Number
) -> tuple[Number, Number, Number]:
    """Dead fraction, the positions behind it, saturated fraction; NaN for what the layer cannot have."""
    if output.ndim == 0:
        return _NO_UNITS
    if layer.dead is not None:
        layer.dead.see(output, channels_first)
        return (*layer.dead.read(), math.nan)
    if layer.tails is not None:
        low, high = layer.tails
        if isinstance(absmax, float) and absmax <= high and low <= -absmax:  # none in a tail
            return (math.nan, math.nan, 0.0)
        tensor = torch.as_tensor(output)
        return (math.nan, math.nan, saturated_fraction(tensor, layer.tails, channels_first))
    return _NO_UNITS


def _row(module: nn.Module, name: str, tensor: Tensor) -> Row:
    shape = tuple(size for size in tensor.shape if isinstance(size, int))
    return Row(name=name, layer=name, type=clean_name(class_name(module)), shape=shape[:16])
