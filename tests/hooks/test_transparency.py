"""The training is the same with and without: losses, weights, and everything left behind."""

import copy
import pickle
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import nn
from torch.nn.modules import module as module_hooks
from torch.optim import optimizer as optimizer_hooks
from torch.utils.data import DataLoader, TensorDataset
from torch.utils.data.dataloader import _BaseDataLoaderIter

import trainvitals.hooks as tv


def mlp() -> nn.Module:
    return nn.Sequential(nn.Linear(64, 48), nn.ReLU(), nn.Dropout(0.1), nn.Linear(48, 10))


def cnn() -> nn.Module:
    return nn.Sequential(
        nn.Unflatten(1, (1, 8, 8)),
        nn.Conv2d(1, 8, 3, padding=1),
        nn.BatchNorm2d(8),
        nn.ReLU(inplace=True),
        nn.Conv2d(8, 8, 3, padding=1),
        nn.ReLU(),
        nn.Flatten(),
        nn.Linear(512, 10),
    )


class Transformer(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.embed = nn.Linear(8, 16)
        self.block = nn.TransformerEncoderLayer(16, 2, 32, dropout=0.1, batch_first=True)
        self.head = nn.Linear(16, 10)

    def forward(self, inputs: torch.Tensor) -> torch.Tensor:
        return self.head(self.block(self.embed(inputs.reshape(-1, 8, 8))).mean(1))


def hook_counts() -> tuple[int, ...]:
    return (
        len(module_hooks._global_forward_hooks),
        len(module_hooks._global_forward_pre_hooks),
        len(module_hooks._global_backward_hooks),
        len(optimizer_hooks._global_optimizer_pre_hooks),
        len(optimizer_hooks._global_optimizer_post_hooks),
    )


def run_training(make: Callable[[], nn.Module], watched: bool, steps: int) -> tuple[Any, ...]:
    torch.manual_seed(11)
    model = make()
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-3)
    loader = DataLoader(
        TensorDataset(torch.randn(640, 64), torch.randint(0, 10, (640,))), 32, shuffle=True
    )
    criterion = nn.CrossEntropyLoss()
    if watched:
        tv.watch(model, optimizer, criterion=criterion, interval=3, strict=True)
    losses = []
    while len(losses) < steps:
        for inputs, labels in loader:
            optimizer.zero_grad()
            loss = criterion(model(inputs), labels)
            loss.backward()
            optimizer.step()
            losses.append(loss.item())
            if watched:
                tv.log({"loss": loss})
    if watched:
        tv.finish()
    return losses, model.state_dict(), optimizer.state_dict(), torch.random.get_rng_state()


@pytest.mark.slow
@pytest.mark.parametrize("make", [mlp, cnn, Transformer])
def test_training_is_bit_identical(make: Callable[[], nn.Module]) -> None:
    plain = run_training(make, watched=False, steps=200)
    watched = run_training(make, watched=True, steps=200)
    assert plain[0] == watched[0]
    assert plain[1].keys() == watched[1].keys()
    assert all(torch.equal(plain[1][key], watched[1][key]) for key in plain[1])
    assert str(plain[2]["param_groups"]) == str(watched[2]["param_groups"])
    assert torch.equal(plain[3], watched[3])


def test_detach_leaves_nothing_behind(train: Any) -> None:
    before = hook_counts()
    original = _BaseDataLoaderIter.__next__
    model = mlp()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    tv.watch(model, optimizer, strict=True)
    assert hook_counts() != before
    train(model, optimizer, 3, shape=(4, 64))
    run = tv.current_run()
    assert run is not None
    run.detach()
    assert hook_counts() == before
    assert _BaseDataLoaderIter.__next__ is original
    for module in model.modules():
        assert not module._forward_hooks and not module._forward_pre_hooks
    for parameter in model.parameters():
        assert parameter._backward_hooks is None
    assert not optimizer._optimizer_step_pre_hooks and not optimizer._optimizer_step_post_hooks


def test_model_and_optimizer_can_be_copied_and_pickled_while_watched(train: Any) -> None:
    torch.manual_seed(0)
    model = mlp()
    keys = list(model.state_dict())
    optimizer = torch.optim.Adam(model.parameters())
    tv.watch(model, optimizer, strict=True)
    train(model, optimizer, 2, shape=(4, 64))
    assert list(model.state_dict()) == keys
    for copied in (copy.deepcopy(model), pickle.loads(pickle.dumps(model))):
        assert all(
            torch.equal(a, b) for a, b in zip(model.parameters(), copied.parameters(), strict=True)
        )
    copied_optimizer = pickle.loads(pickle.dumps(optimizer))
    assert str(copied_optimizer.state_dict()) == str(optimizer.state_dict())


def test_no_graph_is_kept_alive(train: Any) -> None:
    import gc
    import weakref

    model = mlp()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    tv.watch(model, optimizer, strict=True)
    outputs = []

    class Probe(nn.Module):
        def forward(self, inputs: torch.Tensor) -> torch.Tensor:
            result = inputs * 1.0
            outputs.append(weakref.ref(result))
            return result

    model.append(Probe())
    tv.watch(model, optimizer, strict=True)
    train(model, optimizer, 3, shape=(4, 64), classes=10)
    gc.collect()
    assert len(outputs) == 3
    assert all(reference() is None for reference in outputs)


def test_an_own_error_never_reaches_the_training(
    train: Any, recorded: Any, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    from trainvitals.hooks import taps

    def broken(_: torch.Tensor) -> None:
        raise RuntimeError("no moments today")

    monkeypatch.setattr(taps, "is_small", broken)
    model = mlp()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    tv.watch(model, optimizer, interval=1)
    losses = train(model, optimizer, 3, shape=(4, 64))
    run = recorded()
    assert len(losses) == 3
    assert len(run.scalar("tv/grad_norm")) == 3
    messages = [event.message for event in run.events("monitor")]
    assert any("no moments today" in message for message in messages)
    assert capsys.readouterr().err.count("taking statistics of '0'") == 1


def test_strict_raises_own_errors(train: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    from trainvitals.hooks import taps

    def broken(_: torch.Tensor) -> None:
        raise RuntimeError("no moments today")

    monkeypatch.setattr(taps, "is_small", broken)
    model = mlp()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    tv.watch(model, optimizer, strict=True)
    with pytest.raises(RuntimeError, match="no moments today"):
        train(model, optimizer, 1, shape=(4, 64))


def test_watching_computes_no_parametrised_weight() -> None:
    model = nn.Sequential(nn.utils.parametrizations.spectral_norm(nn.Linear(8, 8)), nn.Linear(8, 2))
    before = {key: value.clone() for key, value in model.state_dict().items()}
    tv.watch(model, torch.optim.SGD(model.parameters(), lr=0.1), strict=True)
    after = model.state_dict()
    assert all(torch.equal(value, after[key]) for key, value in before.items())


@pytest.mark.parametrize("width", [16, 800])
def test_all_memory_can_be_resized_as_without(width: int) -> None:
    torch.manual_seed(3)
    model = nn.Sequential(nn.Linear(64, width), nn.Tanh(), nn.Linear(width, 10))
    optimizer = torch.optim.Adam(model.parameters(), lr=1e-3)
    kept: dict[str, torch.Tensor] = {}
    model[0].register_forward_hook(lambda layer, given, out: kept.update(output=out.detach()))
    run = tv.watch(model, optimizer, interval=1, strict=True)
    inputs, labels = torch.empty(0), torch.empty(0, dtype=torch.long)
    for size in (4, 8, 16):
        inputs.resize_(size, 64).copy_(torch.randn(size, 64))
        labels.resize_(size).copy_(torch.randint(0, 10, (size,)))
        loss = nn.functional.cross_entropy(model(inputs), labels)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        kept["loss"], kept["logged"] = loss.detach(), torch.randn(1)
        kept["shown"] = torch.randn(1000)
        tv.log({"logged": kept["logged"]})
        run.log_histogram("shown", kept["shown"])
    for name, parameter in model.named_parameters():
        assert parameter.grad is not None
        states = optimizer.state[parameter].values()
        kept |= {f"{name} {i}": state for i, state in enumerate(states)}
        kept |= {name: parameter.data, f"{name}.grad": parameter.grad}
    for tensor in kept.values():
        tensor.untyped_storage().resize_(tensor.untyped_storage().nbytes() * 2)
