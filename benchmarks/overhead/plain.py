"""A collector as a careful researcher writes it by hand: hooks on every layer, torch ops, `.item()`, JSON lines."""

import json
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils.hooks import RemovableHandle

BINS = 64
EPS = 1e-12


class PlainCollector:
    """Records the same statistics as trainvitals, every `interval` steps, and the loss at every step.

    The same columns of every layer and parameter, and the same scalars: one whose number a statistic needs on the
    way, as `histc` the extremes, writes it, too. All are of all elements; of samples in a batch and of what Adam keeps,
    trainvitals takes a part.
    """

    def __init__(
        self, model: nn.Module, optimizer: torch.optim.Optimizer, file: Path, interval: int
    ) -> None:
        self._interval = interval
        self._file = file.open("w")
        self._optimizer = optimizer
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
            row["mean"] = output.mean().item()
            row["zero_fraction"] = (output == 0).float().mean().item()
            if len(output) > 1:
                apart = output.var(0, correction=0).mean() / output.square().mean()
                row["batch_variation"] = apart.item()
            unit = 1 if output.dim() == 4 else output.dim() - 1
            others = [dim for dim in range(output.dim()) if dim != unit]
            if isinstance(module, nn.ReLU):
                active = (output > 0).sum(dim=others) > 0
                active = self._active[name] = self._active.get(name, active) | active
                row["dead_fraction"] = 1 - active.float().mean().item()
            if isinstance(module, nn.Tanh):
                low, high = (output < -0.97).float(), (output > 0.97).float()
                most = torch.maximum(low.mean(dim=others), high.mean(dim=others))
                row["saturated_fraction"] = (most > 0.95).float().mean().item()
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
        self._row["grad_along"] = self._along()

    def _along(self) -> float | None:
        """Cosine between the gradients and the mean of those before them."""
        product = squares = means = torch.zeros(())
        for parameter in self._parameters.values():
            state = self._optimizer.state.get(parameter, {})
            mean = state.get("exp_avg", state.get("momentum_buffer"))
            if mean is not None and parameter.grad is not None and parameter.dim() > 1:
                product = product + (parameter.grad * mean).sum()
                squares = squares + parameter.grad.square().sum()
                means = means + mean.square().sum()
        return (product / (squares * means).sqrt()).item() if means else None

    def _after_update(self, optimizer: Any, args: Any, kwargs: Any) -> None:
        if not self._due:
            return
        for name, parameter in self._parameters.items():
            weight, before = parameter.detach(), self._before.pop(name)
            row = self._row[f"weight/{name}"] = moments(before)
            moved = weight - before
            row["update_ratio"] = (moved.norm() / (before.norm() + EPS)).item()
            row["unchanged_fraction"] = (weight == before).float().mean().item()
            if parameter.dim() > 1:
                row |= self._adam(parameter)
        self._row["lr"] = [group["lr"] for group in optimizer.param_groups]

    def _adam(self, parameter: Tensor) -> dict[str, float]:
        """RMS of Adam's update in units of the learning rate, and the share of elements that eps rules."""
        state = self._optimizer.state.get(parameter, {})
        if "exp_avg_sq" not in state:
            return {}
        (group,) = (
            g for g in self._optimizer.param_groups if any(p is parameter for p in g["params"])
        )
        (beta1, beta2), eps, step = group["betas"], group["eps"], state["step"].item()
        root = (state["exp_avg_sq"] / (1 - beta2**step)).sqrt()
        update = state["exp_avg"] / (1 - beta1**step) / (root + eps)
        return {
            "adam_update_factor": update.square().mean().sqrt().item(),
            "adam_eps_fraction": (root < 10 * eps).float().mean().item(),
        }

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
    """Statistics that all tensors have, and a histogram of 64 bins between the extremes."""
    values = tensor.detach().float()
    low, high = values.min().item(), values.max().item()
    row: dict[str, Any] = {
        "std": values.std(correction=0).item(),
        "rms": values.square().mean().sqrt().item(),
        "min": low,
        "max": high,
        "absmax": max(abs(low), abs(high)),
        "nonfinite": (~torch.isfinite(values)).sum().item(),
    }
    if not row["nonfinite"]:
        row["histogram"] = torch.histc(values, BINS, low, high).tolist()
    return row
