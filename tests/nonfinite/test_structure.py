"""How models are put together must not lead the search astray."""

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, NamedTuple

import torch
from nonfinite.bench import (
    BATCH,
    FEATURES,
    WIDTH,
    Case,
    Fault,
    Found,
    Training,
    spoil,
    table,
)
from nonfinite.models import Net, head, layer, lower, mlp, named
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint


def around(middle: nn.Module) -> nn.Sequential:
    """`middle` between a lower layer and a head."""
    torch.manual_seed(8)
    return named(lower=lower(), middle=middle, head=head())


def training(code: Callable[[Any, Tensor], Any], **layers: nn.Module) -> Training:
    return Training(Net(code, **layers))


# Code of containers


def block(code: Callable[[Any, Tensor], Any]) -> Training:
    return Training(around(Net(code, a=layer(), b=layer())))


def hooked() -> Training:
    model = mlp(nn.Identity())
    fault = model.act = Fault(lambda x: x)  # type: ignore[assignment]
    model.lower.register_forward_hook(lambda m, i, out: out * math.nan if fault.on else None)
    return Training(model)


CODE = {
    "between two layers of a block": Case(
        lambda: block(lambda net, x: net.b(net.broken(net.a(x)))),
        Found("forward", "middle", spread=("middle.b", "head", "")),
    ),
    "before the first layer of a block": Case(
        lambda: block(lambda net, x: net.b(net.a(net.broken(x)))), Found("forward", "middle")
    ),
    "after the last layer of a block": Case(
        lambda: block(lambda net, x: net.broken(net.b(net.a(x)))),
        Found("forward", "middle", spread=("head", "")),
    ),
    "of the model itself": Case(
        lambda: training(
            lambda net, x: net.head(net.broken(net.lower(x))), lower=lower(), head=head()
        ),
        Found("forward", "", spread=("head",)),
    ),
    "in place on the output of a layer": Case(
        lambda: block(lambda net, x: net.b(net.a(x).mul_(net.broken(torch.ones(()))))),
        Found("forward", "middle"),
    ),
    "in a forward hook of the user's": Case(hooked, Found("forward", "lower")),
}


@table(CODE)
def test_code_that_belongs_to_no_layer(check: Any, case: Case, step: int) -> None:
    check(case, step)


# Layers used again, or on their own


class Log(nn.Module):
    """Fails for what is negative only: whether it does depends on the call."""

    def forward(self, inputs: Tensor) -> Tensor:
        return torch.log(inputs)


def twice(net: Any, x: Tensor) -> Any:
    """The shared layer is right in its first call and wrong in its second."""
    hidden = net.log(net.lower(x).abs() + 1)
    return net.head(net.log(net.shift(hidden.abs() + 1)))


def many_times(net: Any, x: Tensor) -> Any:
    """A cell of two layers in a long loop, bad at its first turn only."""
    hidden = net.first(net.lower(x))
    for _ in range(200):
        hidden = net.act(net.cell(hidden))
    return net.head(hidden)


def generator_and_critic(training: Training, loss: Tensor) -> None:
    """A backward pass of its own for another loss of the same step, before the faulty one."""
    training.model.get_submodule("lower")(torch.randn(BATCH, FEATURES)).mean().backward()
    loss.backward()


def sides(net: Any, x: Tensor) -> Any:
    hidden = net.lower(x)
    return net.head(net.left(hidden) + net.right(hidden))


def encoder_and_decoder() -> nn.Module:
    torch.manual_seed(8)
    return nn.ModuleDict(
        {
            "encoder": named(lower=lower(), middle=Fault(spoil)),
            "decoder": named(inner=layer(), head=head()),
        }
    )


def apart(model: Any, batch: Tensor) -> Any:
    return model["decoder"](model["encoder"](batch))


def two_passes(model: nn.Module, batch: Tensor) -> Any:
    """A clean pass before the faulty one."""
    fault: Any = model.get_submodule("middle")
    was, fault.on = fault.on, False
    first = model(batch)
    fault.on = was
    return first + model(batch)


def teacher(net: Any, x: Tensor) -> Any:
    with torch.no_grad():
        target = net.teacher(x)
    return net.student(x) + target


def ema() -> Training:
    parts = named(a=lower(), middle=Fault(spoil), b=head())
    return training(teacher, student=named(a=lower(), b=head()), teacher=parts)


def two_models() -> Training:
    model = nn.ModuleList([mlp(nn.Identity()), around(Fault(spoil))])
    return Training(
        model,
        call=lambda model, batch: model[0](batch) + model[1](batch),  # type: ignore[index]
        watched=list(model),
    )


def pair_of_faults() -> nn.Module:
    torch.manual_seed(8)
    return named(
        lower=lower(), first=Fault(lambda x: x / 0), inner=layer(), second=Fault(spoil), head=head()
    )


def deep() -> nn.Module:
    nested: nn.Module = nn.Sequential(layer(), nn.Sequential(nn.Tanh(), Fault(spoil)))
    for _ in range(6):
        nested = nn.Sequential(nn.Sequential(nested), nn.Tanh())
    return around(nested)


REUSE = {
    "the second call of a shared layer": Case(
        lambda: training(twice, lower=lower(), log=Log(), shift=Fault(lambda x: -x), head=head()),
        Found("forward", "log", inputs=lambda into: into[0]["max"] < 0, spread=("head", "")),
    ),
    "before a long loop": Case(
        lambda: training(
            many_times,
            lower=lower(),
            first=Fault(spoil),
            cell=layer(),
            act=nn.Tanh(),
            head=head(),
        ),
        Found("forward", "first", spread=("cell", "act", "head", "")),
    ),
    "a pass with another backward between": Case(
        lambda: Training(around(Fault(spoil)), backward=generator_and_critic),
        Found("forward", "middle"),
    ),
    "a parallel branch": Case(
        lambda: training(
            sides,
            lower=lower(),
            left=named(a=layer(), b=nn.Tanh()),
            right=named(a=layer(), middle=Fault(spoil)),
            head=head(),
        ),
        Found("forward", "right.middle", spread=("right", "head", "")),
    ),
    "a part called on its own": Case(
        lambda: Training(encoder_and_decoder(), call=apart), Found("forward", "encoder.middle")
    ),
    "the second of two passes": Case(
        lambda: Training(mlp(Fault(spoil)), call=two_passes), Found("forward", "middle")
    ),
    # Calls under no_grad are not noted, or evaluations would be: the container is named.
    "a teacher without gradients": Case(ema, Found("forward", "")),
    "the second of two models": Case(two_models, Found("forward", "model1.middle")),
    "the first of two faults": Case(lambda: Training(pair_of_faults()), Found("forward", "first")),
    "a layer in many containers": Case(
        lambda: Training(deep()), Found("forward", "middle" + ".0.0" * 6 + ".1.1")
    ),
}


@table(REUSE)
def test_layers_used_in_other_ways(check: Any, case: Case, step: int) -> None:
    check(case, step)


# What outputs are made of


@dataclass
class Output:
    logits: Tensor
    hidden: Tensor | None = None


class Named(NamedTuple):
    index: Tensor
    logits: Tensor


def only(place: Any) -> Callable[[Tensor], Tensor]:
    """Spoils one place of a tensor."""

    def act(x: Tensor) -> Tensor:
        bad = torch.zeros_like(x)
        bad[place] = math.nan
        return x + bad

    return act


def wrapped(wrap: Callable[[Tensor], Any], unwrap: Callable[[Any], Tensor]) -> Training:
    """A layer whose own code makes a bad tensor inside a container of tensors."""
    part = Fault(lambda x: wrap(spoil(x)))
    plain = part.forward
    part.forward = lambda x: plain(x) if part.on else wrap(x)  # type: ignore[method-assign]
    return training(
        lambda net, x: net.head(unwrap(net.part(net.lower(x)))),
        lower=lower(),
        part=part,
        head=head(),
    )


def in_place(x: Tensor) -> Tensor:
    return x.div_(torch.zeros(()))


def segment(reentrant: bool) -> Training:
    def code(net: Any, x: Tensor) -> Any:
        return net.head(checkpoint(net.segment, net.lower(x), use_reentrant=reentrant))

    part = named(a=layer(), middle=Fault(spoil), b=layer())
    return training(code, lower=lower(), segment=part, head=head())


def auxiliary() -> Training:
    """Logits that are fine, and a penalty of another layer that is not."""

    def code(net: Any, x: Tensor) -> Any:
        hidden = net.lower(x)
        return net.head(hidden), net.penalty(hidden)

    return Training(
        Net(code, lower=lower(), head=head(), penalty=Fault(spoil)),
        loss=lambda output, on: output[0].square().mean() + output[1].square().mean(),
    )


EVERY = BATCH * WIDTH
OUTPUTS = {
    "a tuple": Case(
        lambda: wrapped(lambda x: (None, torch.arange(3), x), lambda out: out[2]),
        Found("forward", "part", nan=EVERY, spread=("head", "")),
    ),
    "a dict of lists": Case(
        lambda: wrapped(lambda x: {"a": [x.detach() * 0, x]}, lambda out: out["a"][1]),
        Found("forward", "part", spread=("head", "")),
    ),
    "a dataclass": Case(
        lambda: wrapped(lambda x: Output(x), lambda out: out.logits),
        Found("forward", "part", nan=EVERY, spread=("head", "")),
    ),
    "a named tuple": Case(
        lambda: wrapped(lambda x: Named(torch.arange(3), x), lambda out: out.logits),
        Found("forward", "part", nan=EVERY, spread=("head", "")),
    ),
    "a penalty beside the logits": Case(auxiliary, Found("forward", "penalty", nan=EVERY)),
    "one sample of the batch": Case(
        lambda: Training(mlp(Fault(only(11)))),
        Found("forward", "middle", nan=WIDTH, spread=("hidden", "head", "")),
    ),
    "one value": Case(
        lambda: Training(mlp(Fault(only((3, 2))))),
        Found("forward", "middle", nan=1, spread=("hidden", "head", "")),
    ),
    "a view that is not contiguous": Case(
        lambda: Training(mlp(Fault(lambda x: spoil(x).t().contiguous().t()))),
        Found("forward", "middle", nan=EVERY),
    ),
    "an output changed in place": Case(
        lambda: Training(around(named(a=layer(), bad=Fault(spoil), b=nn.ReLU(inplace=True)))),
        Found("forward", "middle.bad", nan=EVERY),
    ),
    "a layer that works in place": Case(
        lambda: Training(around(named(a=layer(), bad=Fault(in_place), b=layer()))),
        Found("forward", "middle.bad"),
    ),
    "inside a checkpoint": Case(
        lambda: segment(False),
        Found("forward", "segment.middle", spread=("segment.b", "segment", "head", "")),
    ),
    "inside a reentrant checkpoint": Case(
        lambda: segment(True),
        Found("forward", "segment.middle", spread=("segment.b", "segment", "head", "")),
    ),
}


@table(OUTPUTS)
def test_whatever_an_output_is(check: Any, case: Case, step: int) -> None:
    check(case, step)
