"""What is replaced in torch while a training is watched, and that nothing else is."""

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import nn
from torch.nn.modules import module as torch_module
from torch.nn.utils import clip_grad
from torch.optim import optimizer as torch_optimizer

import trainvitals.hooks as tv

PLACES = (
    (nn.Module, "__call__"),
    (torch.autograd, "backward"),
    (torch.autograd, "grad"),
    (clip_grad, "_group_tensors_by_device_and_dtype"),
    (clip_grad, "_clip_grads_with_norm_"),
)
GLOBAL_HOOKS = [
    name for name in vars(torch_module) if name.startswith("_global_") and "hooks" in name
]
OWN_HOOKS = ("_forward_hooks", "_forward_pre_hooks", "_backward_hooks", "_backward_pre_hooks")


def originals() -> list[Any]:
    return [getattr(owner, name) for owner, name in PLACES]


def net() -> nn.Sequential:
    torch.manual_seed(3)
    return nn.Sequential(nn.Linear(8, 6), nn.ReLU(), nn.Linear(6, 4))


class Spy(nn.Module):
    """Counts, from within a forward pass, the hooks that are on anything."""

    def __init__(self) -> None:
        super().__init__()
        self.model: list[nn.Module] = []
        self.hooks: list[int] = []

    def forward(self, inputs: torch.Tensor) -> torch.Tensor:
        modules = [module for root in self.model for module in root.modules()]
        self.hooks.append(
            sum(len(getattr(torch_module, name)) for name in GLOBAL_HOOKS)
            + sum(len(getattr(module, name)) for module in modules for name in OWN_HOOKS)
            + sum(len(p._backward_hooks or ()) for module in modules for p in module.parameters())
        )
        return inputs


@pytest.mark.parametrize("interval", [None, 1, 7])
def test_no_hook_is_on_any_module_at_any_step(train: Any, interval: int | None) -> None:
    spy = Spy()
    model = nn.Sequential(net(), spy)
    spy.model.append(model[0])
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    tv.watch(model, optimizer, interval=interval, strict=True)
    train(model, optimizer, 30)
    assert spy.hooks == [0] * 30


def test_everything_is_put_back(train: Any) -> None:
    before = originals()
    hooks = len(torch_optimizer._global_optimizer_post_hooks)
    model = net()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    tv.watch(model, optimizer, strict=True)
    assert all(now is not was for now, was in zip(originals(), before, strict=True))
    train(model, optimizer, 3)
    tv.detach()
    assert originals() == before
    assert len(torch_optimizer._global_optimizer_post_hooks) == hooks


def test_someone_elses_replacement_on_top_of_ours_survives(train: Any) -> None:
    before = nn.Module.__call__
    model = net()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    tv.watch(model, optimizer, strict=True)
    ours = nn.Module.__call__
    calls = []

    def theirs(self: nn.Module, *args: Any, **kwargs: Any) -> Any:
        calls.append(self)
        return ours(self, *args, **kwargs)

    nn.Module.__call__ = theirs  # type: ignore[method-assign]
    try:
        tv.finish()
        assert nn.Module.__call__ is theirs
        train(model, optimizer, 2)
        assert len(calls) == 2 * 4
    finally:
        nn.Module.__call__ = before  # type: ignore[method-assign]


def test_a_replacement_that_was_there_before_goes_on_working(train: Any) -> None:
    before = nn.Module.__call__
    calls = []

    def theirs(self: nn.Module, *args: Any, **kwargs: Any) -> Any:
        calls.append(self)
        return before(self, *args, **kwargs)

    nn.Module.__call__ = theirs  # type: ignore[method-assign]
    try:
        model = net()
        optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
        tv.watch(model, optimizer, strict=True)
        calls.clear()
        train(model, optimizer, 2)
        assert len(calls) == 2 * 4
        tv.finish()
        assert nn.Module.__call__ is theirs
    finally:
        nn.Module.__call__ = before  # type: ignore[method-assign]


def test_no_activation_outlives_the_step_or_an_evaluation(train: Any) -> None:
    """The calls that are kept for the guard are let go of when backward begins, and never kept under no_grad."""
    import gc
    import weakref

    kept: list[Any] = []

    class Mark(nn.Module):
        def forward(self, inputs: torch.Tensor) -> torch.Tensor:
            output = inputs * 1
            kept.append(weakref.ref(output))
            return output

    model = nn.Sequential(net(), Mark(), nn.Linear(4, 4))
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    tv.watch(model, optimizer, strict=True)
    train(model, optimizer, 25)
    with torch.no_grad():
        model(torch.randn(4, 8))
    gc.collect()
    assert [ref() for ref in kept if ref() is not None] == []


def test_forward_passes_without_backward_are_not_all_kept() -> None:
    import gc
    import weakref

    model = net()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    tv.watch(model, optimizer, interval=10**6, strict=True)
    model(torch.randn(4, 8)).sum().backward()
    optimizer.step()
    outputs = [weakref.ref(model(torch.randn(4, 8))) for _ in range(2000)]
    gc.collect()
    assert sum(ref() is not None for ref in outputs) <= 1024 / 4


@pytest.mark.parametrize("clip", ["norm", "value", "imported"])
def test_gradients_are_read_before_they_are_clipped(recorded: Callable[[], Any], clip: str) -> None:
    from torch.nn.utils import clip_grad_norm_

    model = net()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    tv.watch(model, optimizer, interval=1, strict=True)
    expected, norms = [], []
    for _ in range(3):
        optimizer.zero_grad()
        (model(torch.randn(16, 8)) * 100).square().sum().backward()
        gradients = [p.grad.double() for p in model.parameters() if p.grad is not None]
        expected.append(gradients[0].square().mean().sqrt().item())
        norms.append(torch.stack([g.norm() for g in gradients]).norm().item())
        if clip == "norm":
            torch.nn.utils.clip_grad_norm_(model.parameters(), 0.5)
        elif clip == "value":
            torch.nn.utils.clip_grad_value_(model.parameters(), 0.01)
        else:
            clip_grad_norm_(model.parameters(), 0.5)
        optimizer.step()
    run = recorded()
    samples = run.samples("parameter")
    assert [samples[i]["0.weight"]["grad_rms"] for i in range(3)] == pytest.approx(expected)
    assert list(run.scalar("tv/grad_norm").values()) == pytest.approx(norms)


def test_gradients_are_read_after_they_are_unscaled(recorded: Callable[[], Any]) -> None:
    model = net()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    scaler = torch.amp.GradScaler("cpu", init_scale=1024.0)
    tv.watch(model, optimizer, interval=1, strict=True)
    expected = []
    for step in range(3):
        inputs = torch.randn(16, 8)
        reference = torch.autograd.grad(model(inputs).square().sum(), model[0].weight)[0]
        expected.append(reference.double().square().mean().sqrt().item())
        optimizer.zero_grad()
        scaler.scale(model(inputs).square().sum()).backward()
        if step == 1:
            scaler.unscale_(optimizer)
            torch.nn.utils.clip_grad_norm_(model.parameters(), 0.1)
        scaler.step(optimizer)
        scaler.update()
    samples = recorded().samples("parameter")
    found = [samples[i]["0.weight"]["grad_rms"] for i in range(3)]
    assert found == pytest.approx(expected, rel=1e-4)


def test_a_paused_run_goes_on_counting(recorded: Callable[[], Any], train: Any) -> None:
    model = net()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    run = tv.watch(model, optimizer, interval=1, strict=True)
    train(model, optimizer, 3)
    run.detach()
    train(model, optimizer, 5)
    run.watch(model, optimizer, interval=1, strict=True)
    train(model, optimizer, 2)
    found = recorded()
    assert sorted(found.samples("activation")) == [0, 1, 2, 3, 4]
    assert [row.name for row in found.layouts("activation")[-1].rows] == ["0", "1", "2"]


def test_the_steps_before_a_pause_count_for_the_share_that_is_told(
    recorded: Callable[[], Any], train: Any
) -> None:
    model = net()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    run = tv.watch(model, optimizer, strict=True)
    train(model, optimizer, 2000)
    run.detach()
    run.watch(model, optimizer, strict=True)
    train(model, optimizer, 1)
    told = recorded().scalar("tv/overhead")
    # At the last look before the pause little of the time after the first samples was counted.
    assert told[2000] < told[min(told)] / 2
