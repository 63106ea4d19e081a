"""A collector as a careful researcher writes it by hand: hooks on every layer, torch ops, `.item()`, JSON lines."""

import json
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils.hooks import RemovableHandle

BINS = 64


class PlainCollector:
    """Records the same statistics as trainvitals, every `interval` steps, and the loss at every step."""

    def __init__(
        self, model: nn.Module, optimizer: torch.optim.Optimizer, file: Path, interval: int
    ) -> None:
        self._interval = interval
        self._file = file.open("w")
        self._parameters = dict(model.named_parameters())
        self._before: dict[str, Tensor] = {}
        self._active: dict[str, Tensor] = {}
        self._step = 0
        self._row: dict[str, Any] = {}
        self._handles: list[RemovableHandle] = [
            optimizer.register_step_pre_hook(self._before_update),
            optimizer.register_step_post_hook(self._after_update),
        ]
        for name, module in model.named_modules():
            if not list(module.children()):
                self._handles.append(module.register_forward_hook(self._hook(name)))

    @property
    def _due(self) -> bool:
        return self._step % self._interval == 0

    def _hook(self, name: str) -> Any:
        def after_forward(module: nn.Module, args: Any, output: Any) -> None:
            if not self._due or not isinstance(output, Tensor) or f"activation/{name}" in self._row:
                return
            output = output.detach()
            row = moments(output)
            row["zero_fraction"] = (output == 0).float().mean().item()
            if isinstance(module, nn.ReLU):
                unit = 1 if output.dim() == 4 else output.dim() - 1
                others = [dim for dim in range(output.dim()) if dim != unit]
                active = (output > 0).sum(dim=others) > 0
                active = self._active[name] = self._active.get(name, active) | active
                row["dead_fraction"] = 1 - active.float().mean().item()
            self._row[f"activation/{name}"] = row

        return after_forward

    def _before_update(self, optimizer: Any, args: Any, kwargs: Any) -> None:
        if not self._due:
            return
        squares = 0.0
        for name, parameter in self._parameters.items():
            self._before[name] = parameter.detach().clone()
            if parameter.grad is not None:
                row = self._row[f"gradient/{name}"] = moments(parameter.grad)
                squares += row["rms"] ** 2 * parameter.numel()
        self._row["grad_norm"] = squares**0.5

    def _after_update(self, optimizer: Any, args: Any, kwargs: Any) -> None:
        if not self._due:
            return
        for name, parameter in self._parameters.items():
            weight, before = parameter.detach(), self._before.pop(name)
            row = self._row[f"weight/{name}"] = moments(before)
            moved = weight - before
            row["update_ratio"] = (moved.norm() / (before.norm() + 1e-12)).item()
            row["unchanged"] = float(torch.equal(weight, before))

    def log(self, loss: Tensor) -> None:
        """Call after each step: writes its line."""
        self._row |= {"step": self._step, "loss": loss.item()}
        self._file.write(json.dumps(self._row) + "\n")
        self._row = {}
        self._step += 1

    def close(self) -> None:
        """Take the hooks off and close the file."""
        for handle in self._handles:
            handle.remove()
        self._file.close()


def moments(tensor: Tensor) -> dict[str, Any]:
    """Seven statistics and a histogram of 64 bins between the extremes."""
    values = tensor.detach().float()
    row: dict[str, Any] = {
        "mean": values.mean().item(),
        "std": values.std(correction=0).item(),
        "rms": values.square().mean().sqrt().item(),
        "absmax": values.abs().max().item(),
        "nonfinite": (~torch.isfinite(values)).sum().item(),
    }
    row["min"], row["max"] = values.min().item(), values.max().item()
    if not row["nonfinite"]:
        row["histogram"] = torch.histc(values, BINS, row["min"], row["max"]).tolist()
    return row
