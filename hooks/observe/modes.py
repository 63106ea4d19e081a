"""Layers that behave otherwise in training than in evaluation, and in which mode they run."""

from collections.abc import Iterator
from typing import Any

import msgspec
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm
from torch.nn.modules.dropout import _DropoutNd

from trainvitals.hooks.observe import batches
from trainvitals.hooks.observe.reading import Reading, Values
from trainvitals.hooks.registry import Registry
from trainvitals.hooks.wire.observed import BatchSeen, Evaluation, Modes

_NAMES = 20
_MEASURED = 8
"""First evaluations whose inputs are measured; later the 16th, the 32nd, …"""


def drop_rate(module: nn.Module) -> float:
    """Share of values that the module drops in training mode; 0 for a layer without dropout."""
    if isinstance(module, _DropoutNd):
        return float(module.p)
    if isinstance(module, nn.RNNBase | nn.MultiheadAttention):
        return float(module.dropout)
    return 0.0


class Moded:
    """The layers of the watched models that have modes; followed when the models change."""

    def __init__(self, registry: Registry) -> None:
        self._registry = registry
        self._of: dict[nn.Module, str] = {}
        self._found: list[tuple[str, nn.Module]] = []

    def layers(self) -> list[tuple[str, nn.Module]]:
        """Name and module of each, in the order of the model."""
        if self._of is not self._registry.layers:
            self._of = self._registry.layers
            self._found = [
                (name, module)
                for module, name in self._of.items()
                if drop_rate(module) > 0
                or (isinstance(module, _BatchNorm) and module.track_running_stats)
            ]
        return self._found

    def forget(self) -> None:
        """Let go of the models."""
        self._of, self._found = {}, []

    def seen(self) -> Modes | None:
        """In which mode they are now, in a backward pass; None when there are none."""
        trained = [(name, module) for name, module in self.layers() if self._is_trained(name)]
        if not trained:
            return None
        still = [(name, module) for name, module in trained if not module.training]
        norms = [module for _, module in still if isinstance(module, _BatchNorm)]
        moving = [m for _, m in trained if m.training and isinstance(m, _BatchNorm)]
        return Modes(
            norms_training=len(moving),
            flat_norms_training=sum(1 for norm in moving if isinstance(norm, nn.BatchNorm1d)),
            training=len(trained) - len(still),
            evaluating=len(still),
            dropout_evaluating=len(still) - len(norms),
            affine_evaluating=sum(1 for norm in norms if _is_trainable(norm)),
            names=[name for name, _ in still[:_NAMES]],
            frozen_moving=list(self._frozen_moving())[:_NAMES],
        )

    def _is_trained(self, name: str) -> bool:
        """Whether the part of the model that a layer belongs to is trained, and has run."""
        if name not in self._registry.order:
            return False
        parent = name.rpartition(".")[0]
        owners = [module for module, other in self._registry.layers.items() if other == parent]
        return any(_is_trainable(owner) for owner in owners)

    def _frozen_moving(self) -> Iterator[str]:
        for name, module in self.layers():
            frozen = isinstance(module, _BatchNorm) and module.affine and not _is_trainable(module)
            if frozen and module.training and name in self._registry.order:
                yield name


def _is_trainable(module: nn.Module) -> bool:
    return any(parameter.requires_grad for parameter in module.parameters())


class Evaluations:
    """Counts forward passes of the watched models without gradients, at any step."""

    def __init__(self, registry: Registry, moded: Moded) -> None:
        self._registry = registry
        self._moded = moded
        self._phases = self._forwards = 0
        self._training = self._training_phases = 0
        self._names: list[str] = []
        self._samples = 0
        self._step = self._training_step = -1
        self._told = (0, 0)
        self._inputs: tuple[BatchSeen, Tensor] | None = None
        """The last batch that was measured, and its moments; until it is told."""

    def see(self, module: nn.Module, args: tuple[Any, ...], step: int) -> bool:
        """A module was called while no gradients are recorded, before the end of `step`.

        Whether it is the first such call of a watched model since the step before.
        """
        if not self._registry.is_root(module):
            return False
        began = step != self._step
        self._step = step
        self._forwards += 1
        self._phases += began
        if args and isinstance(args[0], Tensor) and args[0].dim():
            self._samples = max(self._samples, len(args[0]))
            if began and (self._phases <= _MEASURED or self._phases.bit_count() == 1):
                self._measure(args[0])
        self._see_modes(step)
        return began

    def _measure(self, batch: Tensor) -> None:
        if batches.is_measurable(batch):
            seen = BatchSeen(shape=tuple(batch.shape)[:16])
            self._inputs = seen, batches.moments(batch.detach())

    def _see_modes(self, step: int) -> None:
        moving = [name for name, layer in self._moded.layers() if layer.training]
        if moving:
            self._training += 1
            self._training_phases += step != self._training_step
            self._training_step = step
            self._names = moving[:_NAMES]

    @property
    def due(self) -> bool:
        """Whether there is so much more that it is worth telling at once."""
        return self._training >= 5 > self._told[1]

    def tell(self, reading: Reading) -> bool:
        """Have `reading` tell all so far; False when nothing has come since the last time."""
        if self._told == (self._forwards, self._training):
            return False
        self._told = self._forwards, self._training
        told, inputs = self._counted(), self._inputs
        self._inputs = None
        place = None if inputs is None else reading.ask(inputs[1])

        def part(values: Values) -> dict[str, object]:
            if inputs is None or place is None:
                return {"evaluation": told}
            seen = batches.with_moments(inputs[0], values[place])
            return {"evaluation": msgspec.structs.replace(told, inputs=seen)}

        reading.then(part)
        return True

    def _counted(self) -> Evaluation:
        return Evaluation(
            phases=self._phases,
            forwards=self._forwards,
            samples=self._samples,
            training=self._training,
            training_phases=self._training_phases,
            names=list(self._names),
        )
