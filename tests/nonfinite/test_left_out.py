"""Layers whose output or input is not kept: what is made again later must tell the same."""

import math
import zlib
from collections.abc import Callable
from typing import Any
from weakref import WeakSet

import pytest
import torch
from nonfinite.bench import CLASSES, FEATURES, WIDTH, Case, Found, Training, table
from nonfinite.models import named
from torch import Tensor, nn

import trainvitals.hooks as tv


def tanh_net() -> nn.Sequential:
    torch.manual_seed(3)
    return named(
        one=nn.Linear(FEATURES, WIDTH),
        first=nn.Tanh(),
        two=nn.Linear(WIDTH, WIDTH),
        second=nn.Sigmoid(),
        head=nn.Linear(WIDTH, CLASSES),
    )


def spoiled(*args: Any) -> Any:
    return args[-1] * math.nan


def hook_output(model: nn.Module) -> None:
    handle = model.two.register_forward_hook(lambda *args: (handle.remove(), spoiled(*args))[1])


def hook_input(model: nn.Module) -> None:
    handle = model.second.register_forward_pre_hook(
        lambda module, args: (handle.remove(), (spoiled(args[0]),))[1]
    )


def patch_forward(model: nn.Module) -> None:
    original = model.two.forward

    def once(inputs: Tensor) -> Tensor:
        del model.two.forward
        return original(inputs) * math.nan

    model.two.forward = once


def in_half_precision(model: nn.Module, batch: Any) -> Any:
    with torch.autocast("cpu", dtype=torch.float16):
        return model(batch)


def spoil_weight(model: nn.Module) -> None:
    model.two.weight.data[1, 2] = math.nan


def faulty(tamper: Callable[[nn.Module], None], found: Found, **more: Any) -> Case:
    return Case(
        lambda: Training(tanh_net(), before=lambda training: tamper(training.model), **more), found
    )


def adam(parameters: Any) -> torch.optim.Optimizer:
    return torch.optim.Adam(parameters)


TWO = Found("forward", "two")
CASES = {
    "a hook that spoils an output": faulty(hook_output, TWO),
    "a hook that spoils what goes into an activation": faulty(
        hook_input, Found("forward", "second")
    ),
    "a layer whose forward was replaced": faulty(patch_forward, TWO),
    "a weight written to behind autograd's back": faulty(
        spoil_weight, Found("parameter", "two", "two.weight")
    ),
    "a weight written to, with Adam": faulty(
        spoil_weight, Found("parameter", "two", "two.weight"), make_optimizer=adam
    ),
    "a weight written to, half of the layers frozen": faulty(
        lambda model: (model.one.requires_grad_(False), spoil_weight(model))[1],
        Found("parameter", "two", "two.weight"),
    ),
}


@table(CASES)
def test_a_fault_beside_an_activation(check: Any, case: Case, step: int) -> None:
    check(case, step)


class Overflow(nn.Module):
    """A linear layer and an activation that shows its infinity, as `relu` does."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(4)
        self.linear, self.act = nn.Linear(FEATURES, WIDTH), nn.ReLU()
        self.head = nn.Linear(WIDTH, CLASSES)

    def forward(self, inputs: Tensor) -> Tensor:
        return self.head(self.act(self.linear(inputs)))


def overflow() -> Training:
    def before(training: Training) -> None:
        with torch.no_grad():
            training.model.linear.weight.fill_(3e38)

    return Training(Overflow(), before=before, batch=lambda on: torch.rand(16, FEATURES) + 1)


def overflow_in_half_precision() -> Training:
    def before(training: Training) -> None:
        with torch.no_grad():
            training.model.linear.weight.fill_(60_000)

    torch.manual_seed(4)
    model = named(linear=nn.Linear(FEATURES, WIDTH), act=nn.ReLU(), head=nn.Linear(WIDTH, CLASSES))
    batch = lambda on: torch.rand(16, FEATURES) + 1  # noqa: E731
    return Training(model, before=before, batch=batch, call=in_half_precision)


@table(
    {
        "a product out of range": Case(overflow, Found("forward", "linear")),
        "a product out of autocast's range": Case(
            overflow_in_half_precision, Found("forward", "linear")
        ),
    }
)
def test_an_output_that_was_not_kept_is_made_again(check: Any, case: Case, step: int) -> None:
    check(case, step)


def test_values_between_a_layer_and_its_activation_are_not_kept_alive(tmp_path: Any) -> None:
    between: WeakSet[Tensor] = WeakSet()

    class Watched(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.net = tanh_net()

        def forward(self, inputs: Tensor) -> Tensor:
            for name, layer in self.net.named_children():
                inputs = layer(inputs)
                if name in ("one", "two"):
                    between.add(inputs)
            return inputs

    model = Watched()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.01)
    tv.watch(model, optimizer, interval=1000, strict=True)
    alive = []
    for _ in range(42):  # the last step, 41, is one that nobody looks at
        optimizer.zero_grad()
        loss = model(torch.randn(4, FEATURES)).square().mean()
        alive.append(len(between))
        loss.backward()
        optimizer.step()
    assert alive[-1] == 0
    assert alive[0] == 2, "a sampled step keeps them: the test sees what is kept"


class Wrapper(nn.Module):
    """Stands round a model as DistributedDataParallel does: a module that is not one of the model's."""

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.module = model

    def forward(self, inputs: Tensor) -> Tensor:
        return self.module(inputs)


@pytest.mark.parametrize("step", [2, 41])
@pytest.mark.parametrize("passes", [1, 3])
def test_the_batch_of_a_broken_step_is_known_whatever_is_called_beside_the_model(
    found: Callable[[], Any], step: int, passes: int
) -> None:
    model = tanh_net()
    wrapped, judge = Wrapper(model), nn.CrossEntropyLoss()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.01)
    tv.watch(model, optimizer, strict=True)
    labels = torch.arange(4) % CLASSES
    batches = [torch.randn(4, FEATURES) for _ in range(step + 2)]
    for index, batch in enumerate(batches):
        optimizer.zero_grad()
        losses = [judge(wrapped(batch), labels) for _ in range(passes)]
        torch.stack(losses).mean().backward()
        if index == step:
            model.two.weight.grad[0, 0] = math.nan
        optimizer.step()
    ((at, data),) = found()
    assert (at, data["direction"]) == (step, "backward")
    (told,) = data["fingerprint"]
    assert told["crc32"] == f"{zlib.crc32(batches[step].numpy().tobytes()):08x}"


FAMILIES = {
    "SGD": lambda p: torch.optim.SGD(p, lr=0.01),
    "momentum": lambda p: torch.optim.SGD(p, lr=0.01, momentum=0.9),
    "Adam": adam,
    "AdamW": lambda p: torch.optim.AdamW(p),
    "AMSGrad": lambda p: torch.optim.Adam(p, amsgrad=True),
    "NAdam": lambda p: torch.optim.NAdam(p),
    "RAdam": lambda p: torch.optim.RAdam(p),
    "RMSprop": lambda p: torch.optim.RMSprop(p),
}


def infinite_gradient(training: Training, on: bool) -> None:
    if on:
        training.model.head.weight.grad[1, 3] = math.inf


def nan_gradient(training: Training, on: bool) -> None:
    if on:
        training.model.two.weight.grad[2, :2] = math.nan


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("step", [0, 9, 41])
@pytest.mark.parametrize(
    "spoil, layer, nan", [(infinite_gradient, "head", 0), (nan_gradient, "two", 2)]
)
def test_a_gradient_is_blamed_whatever_the_optimizer_keeps_of_it(
    check: Any, family: str, step: int, spoil: Any, layer: str, nan: int
) -> None:
    found = Found("backward", layer, f"{layer}.weight", nan=nan, spread=())
    check(
        Case(
            lambda: Training(tanh_net(), after_backward=spoil, make_optimizer=FAMILIES[family]),
            found,
        ),
        step,
    )


def noted_calls(act: Callable[[nn.Sequential], object]) -> list[str]:
    """Class names of what is noted in a quiet step of `tanh_net` in which `act` calls it."""
    model = tanh_net()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.01)
    run = tv.watch(model, optimizer, interval=1000, strict=True)
    for _ in range(40):
        optimizer.zero_grad()
        model(torch.randn(4, FEATURES)).square().mean().backward()
        optimizer.step()
    act(model)
    return [type(call[0]).__name__ for call in run._watch.quiet.calls]


LAYERS = ["Linear", "Tanh", "Linear", "Sigmoid", "Linear"]
BATCH = torch.ones(4, FEATURES)


def hooked(model: nn.Sequential) -> None:
    seen: list[Tensor] = []
    model.two.register_forward_hook(lambda module, args, output: seen.append(output))
    model(BATCH)
    assert len(seen) == 1


def called_by_layer(model: nn.Sequential) -> None:
    value = BATCH
    for layer in model:
        value = layer(value)


@pytest.mark.parametrize(
    ("act", "noted"),
    [
        (lambda model: model(BATCH), ["Sequential"]),
        (lambda model: in_half_precision(model, BATCH), [*LAYERS, "Sequential"]),
        (hooked, [*LAYERS, "Sequential"]),
        (called_by_layer, LAYERS),
    ],
    ids=["as usual", "in another precision", "with a new hook", "layer by layer"],
)
def test_a_row_of_layers_is_noted_as_one_call(act: Any, noted: list[str]) -> None:
    assert noted_calls(act) == noted


def test_whoever_replaced_the_call_of_modules_since_then_sees_all_layers(monkeypatch: Any) -> None:
    seen: list[str] = []

    def act(model: nn.Sequential) -> None:
        ours = nn.Module.__call__

        def theirs(self: nn.Module, *args: Any, **kwargs: Any) -> Any:
            seen.append(type(self).__name__)
            return ours(self, *args, **kwargs)

        with monkeypatch.context() as patch:  # undone while ours is still there
            patch.setattr(nn.Module, "__call__", theirs)
            model(BATCH)

    assert noted_calls(act) == [*LAYERS, "Sequential"]
    assert seen == ["Sequential", *LAYERS]


def watch_module_backward(model: nn.Sequential, seen: list[str]) -> None:
    model.two.register_full_backward_hook(lambda module, *grads: seen.append("hook"))


def watch_all_backward(model: nn.Sequential, seen: list[str]) -> None:
    nn.modules.module.register_module_full_backward_hook(
        lambda module, *grads: seen.append("hook") if module is model.two else None
    )


def replace_forward(model: nn.Sequential, seen: list[str]) -> None:
    original = model.two.forward
    model.two.forward = lambda value: (seen.append("forward"), original(value))[1]


def compile_layer(model: nn.Sequential, seen: list[str]) -> None:
    model.two.compile(backend="eager")
    compiled = model.two._compiled_call_impl
    model.two._compiled_call_impl = lambda *args: (seen.append("compiled"), compiled(*args))[1]


@pytest.mark.parametrize(
    ("change", "told"),
    [
        (watch_module_backward, "hook"),
        (watch_all_backward, "hook"),
        (replace_forward, "forward"),
        (compile_layer, "compiled"),
    ],
    ids=["backward hook", "global backward hook", "replaced forward", "compiled layer"],
)
def test_a_layer_of_a_row_that_is_changed_in_mid_training_does_what_it_would_without_us(
    change: Any, told: str
) -> None:
    seen: list[str] = []

    def act(model: nn.Sequential) -> None:
        change(model, seen)
        model(BATCH.clone().requires_grad_()).sum().backward()

    hooks = nn.modules.module._global_backward_hooks
    before = dict(hooks)
    try:
        noted_calls(act)
    finally:
        for handle in set(hooks) - set(before):
            del hooks[handle]
    assert seen == [told]


def test_a_layer_that_comes_into_a_row_with_a_hook_of_its_own_keeps_it() -> None:
    seen: list[Tensor] = []
    outputs: list[Tensor] = []
    hooked = nn.Linear(WIDTH, WIDTH)
    hooked.register_forward_hook(lambda module, args, output: seen.append(output))
    normed = torch.nn.utils.spectral_norm(nn.Linear(WIDTH, CLASSES))

    def act(model: nn.Sequential) -> None:
        model.two, model.head = hooked, normed
        outputs.append(model(BATCH))

    assert noted_calls(act) == ["Linear", "Linear", "Sequential"]
    outputs[0].sum().backward()
    assert len(seen) == 1
    assert normed.weight_orig.grad is not None


CLASS_CODE = [
    (nn.Linear, "__call__"),
    (nn.Tanh, "__call__"),
    (nn.Sequential, "__call__"),
    (nn.Sequential, "forward"),
    (nn.Module, "_call_impl"),
]


@pytest.mark.parametrize("place", CLASS_CODE, ids=lambda p: f"{p[0].__name__}.{p[1]}")
def test_code_that_someone_has_put_into_a_class_runs_at_every_call(
    monkeypatch: Any, place: tuple[Any, str]
) -> None:
    owner, name = place
    theirs: list[nn.Module] = []

    def code(self: nn.Module, *args: Any) -> Any:
        theirs.append(self)
        return original(self, *args)

    def original(self: nn.Module, *args: Any) -> Any:
        return nn.Module.__call__(self, *args) if name == "__call__" else torchs(self, *args)

    torchs = getattr(owner, name)
    monkeypatch.setattr(owner, name, code, raising=False)

    def act(model: nn.Sequential) -> None:
        theirs.clear()
        model(BATCH)
        modules = [module for module in model.modules() if isinstance(module, owner)]
        assert sorted(map(id, theirs)) == sorted(map(id, modules))

    noted_calls(act)
