"""Statistics of layer outputs, taken in the forward hook of a sampled step."""

from typing import Any

from torch import Tensor, nn

from trainvitals.hooks import histogram
from trainvitals.hooks.deadunits import DeadUnits, has_flat_zero_side
from trainvitals.hooks.draft import Draft
from trainvitals.hooks.packed import Packed, is_small
from trainvitals.hooks.readout import Number
from trainvitals.hooks.registry import Rows, tensors_in
from trainvitals.hooks.settings import clean_name
from trainvitals.hooks.stats import Moments, moments, zero_fraction
from trainvitals.hooks.wire.records import Row

_CHANNELS_FIRST = (
    nn.modules.conv._ConvNd,
    nn.modules.batchnorm._NormBase,
    nn.GroupNorm,
    nn.LocalResponseNorm,
)
_CHANNELS_LAST = (nn.Linear, nn.LayerNorm, nn.RMSNorm, nn.Embedding, nn.MultiheadAttention)


class Taps:
    """Fills the activation rows of a draft: the first call of each layer within a step counts."""

    def __init__(self, rows: Rows) -> None:
        self._rows = rows
        self._dead: dict[nn.Module, DeadUnits] = {}
        self._draft: Draft | None = None
        self._histograms = False
        self._done: set[nn.Module] = set()
        self._last_output: Tensor | None = None
        self._small: list[tuple[int, Tensor]] = []
        self._channels_first = True

    def begin(self, draft: Draft, histograms: bool) -> None:
        """Fill `draft` from now on."""
        self._draft = draft
        self._small.clear()
        self._histograms = histograms
        self._done.clear()
        self._channels_first = True

    def end(self) -> None:
        """The step's forward passes are over; nothing of them is kept."""
        self._draft = None
        self._last_output = None
        self._small.clear()
        self._done.clear()

    def forget(self, layers: dict[nn.Module, str]) -> None:
        """Drop what is known of modules that are not in `layers` any more."""
        self._dead = {module: dead for module, dead in self._dead.items() if module in layers}

    def see(self, module: nn.Module, name: str, output: Any) -> None:
        """Take the statistics of one call's output: its first floating tensor."""
        if isinstance(module, _CHANNELS_FIRST):
            self._channels_first = True
        elif isinstance(module, _CHANNELS_LAST):
            self._channels_first = False
        tensor = next(tensors_in(output, 1), None)
        if self._draft is None or tensor is None or module in self._done:
            return
        passes_on = tensor is self._last_output and next(module.children(), None) is not None
        self._last_output = tensor
        if (
            passes_on
        ):  # a container that returns its last layer's output has nothing of its own to show
            return
        self._done.add(module)
        known = self._rows.find(name)
        row = known if known is not None else self._rows.place(_row(module, name, tensor))
        if row is None:
            return
        columns: dict[str, Number] = {}
        self._read_dead_units(module, tensor, columns)
        if is_small(tensor):  # what follows may change it in place
            self._small.append((row, tensor.detach().clone()))
        else:
            columns["zero_fraction"] = zero_fraction(tensor)
            columns.update(_columns(moments(tensor)))
            if self._histograms:
                counts = histogram.count_patterns(tensor)
                self._draft.patterns.setdefault("activation", {})[row] = counts
        self._draft.put("activation", row, columns)

    def finish(self) -> None:
        """The step's forward passes are over: take what was put off, in one go."""
        if self._draft is not None and self._small:
            packed = Packed([tensor for _, tensor in self._small])
            rows = [row for row, _ in self._small]
            for row, taken, zeros in zip(
                rows, packed.moments(), packed.zero_fractions(), strict=True
            ):
                self._draft.put("activation", row, {**_columns(taken), "zero_fraction": zeros})
            if self._histograms:
                counted = zip(rows, packed.patterns(), strict=True)
                self._draft.patterns.setdefault("activation", {}).update(counted)
        self.end()

    def _read_dead_units(
        self, module: nn.Module, tensor: Tensor, columns: dict[str, Number]
    ) -> None:
        dead = self._dead.get(module)
        if dead is None:
            if not has_flat_zero_side(module):  # left unset: not recorded is not the same as NaN
                return
            dead = self._dead[module] = DeadUnits(module)
        if tensor.dim() >= 1:
            dead.see(tensor, self._channels_first or tensor.dim() == 4)
            columns["dead_fraction"], columns["dead_positions"] = dead.read()


def _row(module: nn.Module, name: str, tensor: Tensor) -> Row:
    return Row(
        name=name,
        layer=name,
        type=clean_name(type(module).__name__),
        shape=tuple(tensor.shape)[:16],
    )


def _columns(taken: Moments) -> dict[str, Number]:
    return {
        "mean": taken.mean,
        "std": taken.std,
        "rms": taken.rms,
        "absmax": taken.absmax,
        "nonfinite": taken.nonfinite,
    }
