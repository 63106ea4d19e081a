"""What is bad before the model runs: its batch, its weights, its buffers."""

import math
from collections.abc import Callable
from typing import Any

import torch
from nonfinite.bench import (
    BATCH,
    CLASSES,
    FEATURES,
    WIDTH,
    WORDS,
    Case,
    Found,
    Training,
    features,
    table,
)
from nonfinite.models import BASES, mlp, named, wide, words
from torch import Tensor, nn
from torch.nn.utils.parametrizations import weight_norm


def bad(place: Any = ..., value: float = math.nan) -> Callable[[bool], Tensor]:
    """The usual batch with one value put into one place at the faulty step."""

    def batch(on: bool) -> Tensor:
        inputs = features(on)
        if on:
            inputs[place] = value
        return inputs

    return batch


def holds(count: int) -> Callable[[list[dict[str, Any]]], bool]:
    """The one bad tensor among the inputs has so many bad values."""
    return lambda into: [one["nonfinite"] for one in into if one["nonfinite"]] == [count]


class Both(nn.Module):
    """Words and numbers from a dict; the numbers come in late."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(1)
        self.embed, self.mix = nn.Embedding(WORDS, WIDTH), nn.Linear(WIDTH, WIDTH)
        self.numbers, self.head = nn.Linear(FEATURES, WIDTH), nn.Linear(WIDTH, CLASSES)

    def forward(self, batch: dict[str, Any]) -> Any:
        hidden = self.mix(self.embed(batch["text"]["ids"]).mean(1))
        return self.head(hidden + self.numbers(batch["numbers"][0]))


def nested(on: bool) -> dict[str, Any]:
    return {"text": {"ids": words(on)}, "numbers": (bad(3)(on),), "name": "a"}


class Gain(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(1)
        self.lower, self.head = nn.Linear(FEATURES, WIDTH), nn.Linear(WIDTH, CLASSES)

    def forward(self, inputs: Tensor, gain: Tensor) -> Any:
        return self.head(self.lower(inputs) * gain)


def late(on: bool) -> dict[str, Tensor]:
    return {"inputs": features(on), "gain": torch.tensor(math.nan if on else 1.0)}


def apart(model: Any, batch: Tensor) -> Any:
    return model["head"](model["body"](batch))


def parts() -> nn.Module:
    torch.manual_seed(1)
    return nn.ModuleDict({"body": nn.Linear(FEATURES, WIDTH), "head": nn.Linear(WIDTH, CLASSES)})


class Rows(nn.Module):
    """A module of the user's own that hands its input on in another shape."""

    def forward(self, inputs: Tensor) -> Tensor:
        return inputs.view(len(inputs), -1)


def behind(*first: nn.Module) -> nn.Module:
    torch.manual_seed(1)
    return nn.Sequential(*first, nn.Linear(FEATURES, CLASSES))


INPUTS = {
    "a batch that is reshaped first": Case(
        lambda: Training(behind(nn.Unflatten(1, (FEATURES, 1)), nn.Flatten()), bad(5)),
        Found("input", None, inputs=holds(FEATURES)),
    ),
    "a batch that passes dropout in evaluation first": Case(
        lambda: Training(behind(nn.Dropout(0.5).eval(), nn.Identity()), bad(5)),
        Found("input", None, inputs=holds(FEATURES)),
    ),
    "a batch that a module of the user's own reshapes first": Case(
        lambda: Training(behind(Rows()), lambda on: features(on) * (math.nan if on else 1.0)),
        Found("input", None, inputs=holds(BATCH * FEATURES)),
    ),
    "all of the batch": Case(
        lambda: Training(mlp(nn.Identity()), bad()),
        Found("input", None, nan=BATCH * FEATURES, inputs=holds(BATCH * FEATURES)),
    ),
    "one sample": Case(
        lambda: Training(mlp(nn.Identity()), bad(5)),
        Found("input", None, nan=FEATURES, inputs=holds(FEATURES)),
    ),
    "one value": Case(
        lambda: Training(mlp(nn.Identity()), bad((5, 2))),
        Found("input", None, nan=1, inputs=holds(1)),
    ),
    "an infinity": Case(
        lambda: Training(mlp(nn.Identity()), bad((5, 2), math.inf)),
        Found("input", None, nan=0, inputs=holds(1)),
    ),
    "a negative infinity": Case(
        lambda: Training(mlp(nn.Identity()), bad((5, 2), -math.inf)),
        Found("input", None, nan=0, inputs=holds(1)),
    ),
    "an image": Case(
        lambda: Training(
            BASES["cnn"].build(nn.Identity()),
            lambda on: BASES["cnn"].batch(on) * (math.nan if on else 1.0),
        ),
        Found("input", None, inputs=holds(BATCH * 64)),
    ),
    "numbers beside words in a dict": Case(
        lambda: Training(Both(), nested), Found("input", None, inputs=holds(FEATURES))
    ),
    "a keyword that is used late": Case(
        lambda: Training(Gain(), late, call=lambda model, batch: model(**batch)),
        Found("input", None, inputs=holds(1)),
    ),
    "the batch of a part called on its own": Case(
        lambda: Training(parts(), bad(5), call=apart),
        Found("input", None, inputs=holds(FEATURES)),
    ),
    "the second of four micro-batches": Case(
        lambda: Training(mlp(nn.Identity()), bad(5), micro_batches=4),
        Found("input", None, inputs=holds(FEATURES)),
    ),
}


@table(INPUTS)
def test_input(check: Any, case: Case, step: int) -> None:
    check(case, step)


# Parameters and buffers, overwritten between two steps


def put(name: str, value: float = math.nan, place: Any = ...) -> Callable[[Training], None]:
    def before(training: Training) -> None:
        state = dict(training.model.named_parameters()) | dict(training.model.named_buffers())
        with torch.no_grad():
            state[name][place] = value

    return before


def load(training: Training) -> None:
    """A checkpoint with a broken weight."""
    state = {key: value.clone() for key, value in training.model.state_dict().items()}
    state["lower.weight"][2] = math.nan
    training.model.load_state_dict(state)


class Scaled(nn.Module):
    """A model with a parameter of its own."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(1)
        self.body = mlp(nn.Identity())
        self.scale = nn.Parameter(torch.ones(()))

    def forward(self, inputs: Tensor) -> Any:
        return self.body(inputs) * self.scale


class Attending(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(1)
        self.embed = nn.Embedding(WORDS, WIDTH)
        self.attention = nn.MultiheadAttention(WIDTH, 2, batch_first=True)
        self.head = nn.Linear(WIDTH, CLASSES)

    def forward(self, ids: Tensor) -> Any:
        hidden = self.embed(ids)
        return self.head(self.attention(hidden, hidden, hidden, need_weights=False)[0][:, 0])


class Tied(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(1)
        self.embed, self.head = nn.Embedding(WORDS, WIDTH), nn.Linear(WIDTH, WORDS)
        self.head.weight = self.embed.weight

    def forward(self, ids: Tensor) -> Any:
        return self.head(self.embed(ids).mean(1))


def normed() -> nn.Module:
    torch.manual_seed(1)
    return named(
        lower=nn.Linear(FEATURES, WIDTH),
        norm=nn.BatchNorm1d(WIDTH).eval(),
        part=weight_norm(nn.Linear(WIDTH, WIDTH)),
        scale=nn.LayerNorm(WIDTH),
        head=nn.Linear(WIDTH, CLASSES),
    )


def frozen() -> nn.Module:
    model = mlp(nn.Identity())
    model.lower.requires_grad_(False)
    return model


def every_word(on: bool) -> Tensor:
    return torch.arange(BATCH * 5).view(BATCH, 5) % WORDS


def parameter(
    model: Callable[[], nn.Module],
    name: str,
    value: float = math.nan,
    place: Any = ...,
    batch: Callable[[bool], Any] = features,
) -> Case:
    layer = name.rpartition(".")[0]
    return Case(
        lambda: Training(model(), batch, before=put(name, value, place)),
        Found("parameter", layer, name),
    )


def plain() -> nn.Module:
    return mlp(nn.Identity())


def base(name: str) -> Callable[[], nn.Module]:
    return lambda: BASES[name].build(nn.Identity())


PARAMETERS = {
    "a whole weight": parameter(plain, "lower.weight"),
    "one value of a weight": parameter(plain, "lower.weight", place=(2, 3)),
    "the last value of a big weight": parameter(wide, "big.weight", place=(-1, -1)),
    "an infinity in a big weight": parameter(wide, "big.weight", math.inf, (300, 77)),
    "a negative infinity in a weight": parameter(plain, "lower.weight", -math.inf, (2, 3)),
    "a bias": parameter(plain, "hidden.bias"),
    "the first layer": parameter(plain, "inputs.weight", place=(0, 0)),
    "the last layer": parameter(plain, "head.bias", place=1),
    "a row of an embedding": parameter(base("bag"), "words.weight", place=7, batch=every_word),
    "a weight shared by two layers": Case(
        lambda: Training(Tied(), every_word, before=put("embed.weight", place=3)),
        Found("parameter", "embed", "embed.weight"),
    ),
    "a weight inside an lstm": parameter(base("lstm"), "lstm.weight_hh_l0", batch=words),
    "a kernel": parameter(base("cnn"), "block.0.weight", place=1, batch=BASES["cnn"].batch),
    "a frozen weight": parameter(frozen, "lower.weight"),
    "the gain of a norm": parameter(normed, "scale.weight", place=0),
    "the model's own parameter": parameter(Scaled, "scale"),
    "a weight that attention reads by itself": parameter(
        Attending, "attention.out_proj.weight", batch=words
    ),
    "a parametrised weight": parameter(normed, "part.parametrizations.weight.original0"),
    "a loaded checkpoint": Case(
        lambda: Training(plain(), before=load), Found("parameter", "lower", "lower.weight")
    ),
    "a running mean": parameter(normed, "norm.running_mean", place=2),
    "a running variance": parameter(normed, "norm.running_var"),
    "a negative running variance": Case(  # finite itself: the layer makes it
        lambda: Training(normed(), before=put("norm.running_var", -1.0)), Found("forward", "norm")
    ),
    "a table of positions": parameter(base("bag"), "positions", place=(0, 0), batch=words),
}


@table(PARAMETERS)
def test_parameter(check: Any, case: Case, step: int) -> None:
    check(case, step)
