"""A backward pass that breaks between two uses of one parameter, or inside of blocks that a checkpoint computes again:
the layer that backward met first is told, whatever was used in other places, too."""

from collections.abc import Callable
from typing import Any

import pytest
import torch
from nonfinite.bench import CLASSES, FEATURES, STEPS, WIDTH, WORDS, Case, Fault, Found, Training
from nonfinite.bench import spoil_gradient as spoil
from nonfinite.models import Net, named, words
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

BLOCKS = 4


def tied() -> nn.Module:
    """The weight of the embedding is that of the head."""
    torch.manual_seed(4)
    model = named(
        embed=nn.Embedding(WORDS, WIDTH),
        first=nn.Linear(WIDTH, WIDTH),
        second=nn.Linear(WIDTH, WIDTH),
        middle=Fault(spoil),
        third=nn.Linear(WIDTH, WIDTH),
        head=nn.Linear(WIDTH, WORDS, bias=False),
    )
    head: Any = model.head
    embed: Any = model.embed
    head.weight = embed.weight
    return model


def adapter() -> nn.Module:
    """One layer is used early and late."""

    def code(net: Any, x: Tensor) -> Tensor:
        x = net.below(net.adapter(net.inputs(x)))
        x = net.above(net.middle(x))
        out: Tensor = net.head(net.adapter(x))
        return out

    return Net(
        code,
        inputs=nn.Linear(FEATURES, WIDTH),
        adapter=nn.Linear(WIDTH, WIDTH),
        below=nn.Linear(WIDTH, WIDTH),
        middle=Fault(spoil),
        above=nn.Linear(WIDTH, WIDTH),
        head=nn.Linear(WIDTH, CLASSES),
    )


def only_the_last_use() -> nn.Module:
    """The fault is after every use but the last: the shared layer itself is the first that backward meets."""

    def code(net: Any, x: Tensor) -> Tensor:
        out: Tensor = net.head(net.middle(net.shared(net.shared(net.inputs(x)))))
        return out

    return Net(
        code,
        inputs=nn.Linear(FEATURES, WIDTH),
        shared=nn.Linear(WIDTH, WIDTH),
        middle=Fault(spoil),
        head=nn.Linear(WIDTH, CLASSES),
    )


def block(act: Callable[[Tensor], Any] | None) -> nn.Sequential:
    middle = nn.Identity() if act is None else Fault(act)
    return named(a=nn.Linear(WIDTH, WIDTH), middle=middle, b=nn.Linear(WIDTH, WIDTH))


def checkpointed(faulty: int, pairs: bool = False) -> nn.Module:
    """Blocks in re-entrant checkpoints, of which one has the fault; in `pairs`: each two in one more."""

    def again(part: Callable[[Tensor], Any], x: Tensor) -> Any:
        return checkpoint(part, x, use_reentrant=True)

    def code(net: Any, x: Tensor) -> Tensor:
        x = net.inputs(x)
        blocks = [net.get_submodule(f"block{i}") for i in range(BLOCKS)]
        for low, high in zip(blocks[::2], blocks[1::2], strict=True):
            if pairs:
                x = again(lambda x, low=low, high=high: again(high, again(low, x)), x)  # type: ignore[misc]
            else:
                x = again(high, again(low, x))
        out: Tensor = net.head(x)
        return out

    return Net(
        code,
        inputs=nn.Linear(FEATURES, WIDTH),
        **{f"block{i}": block(spoil if i == faulty else None) for i in range(BLOCKS)},
        head=nn.Linear(WIDTH, CLASSES),
    )


def next_word(output: Any, on: bool) -> Tensor:
    return nn.functional.cross_entropy(output, torch.arange(len(output)) % WORDS)


def at(layer: str) -> Found:
    return Found("backward", layer)


CASES = {
    "below a head tied to the embedding": Case(
        lambda: Training(tied(), lambda on: words(on)[:, 0], loss=next_word), at("second")
    ),
    "between two uses of an adapter": Case(lambda: Training(adapter()), at("below")),
    "above all uses of a layer": Case(lambda: Training(only_the_last_use()), at("shared")),
    **{
        f"in re-entrant block {i}": Case(
            lambda i=i: Training(checkpointed(i)),  # type: ignore[misc]
            at(f"block{i}.a"),
        )
        for i in range(BLOCKS)
    },
    **{
        f"in re-entrant block {i} of pairs": Case(
            lambda i=i: Training(checkpointed(i, pairs=True)),  # type: ignore[misc]
            at(f"block{i}.a"),
        )
        for i in range(BLOCKS)
    },
}


@pytest.mark.filterwarnings("ignore:None of the inputs")  # torch's own, of a checkpoint in another
@pytest.mark.parametrize("step", STEPS)
@pytest.mark.parametrize("case", CASES.values(), ids=CASES)
def test_the_layer_that_backward_met_first_is_told(check: Any, case: Case, step: int) -> None:
    check(case, step)
