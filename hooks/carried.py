"""Whether gradients of the step before are still there when new ones arrive."""

import torch
from torch import Tensor

from trainvitals.hooks.registry import local

PROBES = 3


class CarriedGradients:
    """Looks at a few small parameters round each backward of one step.

    Accumulation starts from nothing at its first backward, so only a missing `zero_grad` makes every single
    backward meet a gradient that is there already.
    """

    def __init__(self, parameters: list[Tensor]) -> None:
        """Looks at up to three of `parameters`, the smallest that can have gradients."""
        trainable = [p for p in parameters if p.requires_grad and p.is_leaf and p.numel()]
        self._probes = sorted(trainable, key=Tensor.numel)[:PROBES]
        self._before: list[tuple[Tensor, Tensor | None, int, Tensor]] = []
        self._seen: list[Tensor] = []

    def before(self) -> None:
        """A backward pass is about to begin."""
        self._before = [_state(probe) for probe in self._probes]

    def after(self) -> None:
        """It is over: what it met counts for the parameters that it gave a gradient."""
        for probe, gradient, version, met in self._before:
            now = probe.grad
            if now is not None and (now is not gradient or now._version != version):
                self._seen.append(met)
        self._before = []

    def result(self) -> Tensor | None:
        """1.0 or 0.0 as `tv/grad_carried` has it, None when no backward was seen."""
        if not self._seen:
            return None
        device = self._seen[-1].device
        return torch.stack([met.to(device, non_blocking=True) for met in self._seen]).amin()


def _state(probe: Tensor) -> tuple[Tensor, Tensor | None, int, Tensor]:
    gradient = probe.grad
    if gradient is None or gradient.is_sparse:
        return probe, gradient, -1, torch.zeros(())
    return probe, gradient, gradient._version, local(gradient).detach().any().float()
