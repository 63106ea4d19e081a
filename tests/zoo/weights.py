"""Parameters that come, go, stand still or hide."""

import torch
from torch import Tensor, nn
from torch.nn.utils import parametrizations

from tests.zoo.architectures import small_net
from tests.zoo.harness import Condition
from tests.zoo.session import STEPS, Session


def weight_norm(zoo: Session) -> None:
    model = small_net()
    parametrizations.weight_norm(model[0])
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    zoo.watch(model, optimizer)
    zoo.classify(model, optimizer)


def spectral_norm(zoo: Session) -> None:
    model = small_net()
    parametrizations.spectral_norm(model[2])
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    zoo.watch(model, optimizer)
    zoo.classify(model, optimizer)


def lazy_modules(zoo: Session) -> None:
    model = nn.Sequential(nn.LazyLinear(6), nn.LazyBatchNorm1d(), nn.ReLU(), nn.LazyLinear(4))
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    zoo.watch(model, optimizer)
    zoo.classify(model, optimizer)


def modules_added_later(zoo: Session) -> None:
    model = small_net()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    zoo.watch(model, optimizer)

    def grow(step: int) -> None:
        if step == 1:
            added = nn.Sequential(nn.ReLU(), nn.Linear(4, 4))
            model.append(added)
            optimizer.add_param_group({"params": added.parameters()})

    zoo.classify(model, optimizer, after=grow)


def layer_replaced_later(zoo: Session) -> None:
    model = small_net()
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-2)
    zoo.watch(model, optimizer)

    def exchange(step: int) -> None:
        if step == 2:
            model[2] = nn.Linear(model[2].in_features, 4)
            optimizer.param_groups[0]["params"] = list(model.parameters())
            optimizer.state.clear()

    zoo.classify(model, optimizer, after=exchange)


def parameters_unfrozen_later(zoo: Session) -> None:
    model = small_net()
    model[0].requires_grad_(False)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    zoo.watch(model, optimizer)

    def thaw(step: int) -> None:
        if step == 1:
            model[0].requires_grad_(True)

    zoo.classify(model, optimizer, after=thaw)


def frozen_parts(zoo: Session) -> None:
    model = nn.Sequential(small_net(), nn.ReLU(), nn.Linear(4, 4))
    model[0].requires_grad_(False)
    optimizer = torch.optim.SGD(model[2].parameters(), lr=0.1)
    zoo.watch(model, optimizer)
    zoo.classify(model, optimizer)


def sparse_gradients(zoo: Session) -> None:
    embedding, head = nn.Embedding(20, 6, sparse=True), nn.Linear(6, 4)
    model = nn.Sequential(embedding, nn.Flatten(1), nn.Linear(18, 6), nn.ReLU(), head)
    sparse = torch.optim.SparseAdam(embedding.parameters(), lr=1e-2)
    dense = torch.optim.Adam([*model[2].parameters(), *head.parameters()], lr=1e-2)
    zoo.watch(model, [dense, sparse])
    for _ in range(STEPS):
        tokens, labels = torch.randint(0, 20, (5, 3)), torch.randint(0, 4, (5,))
        model.zero_grad()
        loss = nn.functional.cross_entropy(model(tokens), labels)
        loss.backward()
        zoo.step(dense)
        zoo.step(sparse)
        zoo.loss(loss)


class Adapted(nn.Module):
    """A frozen linear layer with a trainable product of two thin matrices beside it."""

    def __init__(self, base: nn.Linear, rank: int = 2) -> None:
        super().__init__()
        self.base = base.requires_grad_(False)
        self.down = nn.Linear(base.in_features, rank, bias=False)
        self.up = nn.Linear(rank, base.out_features, bias=False)
        nn.init.zeros_(self.up.weight)

    def forward(self, inputs: Tensor) -> Tensor:
        return self.base(inputs) + self.up(self.down(inputs))


def low_rank_adapters(zoo: Session) -> None:
    model = small_net()
    model[0], model[2] = Adapted(model[0]), Adapted(model[2])
    trainable = [p for p in model.parameters() if p.requires_grad]
    optimizer = torch.optim.AdamW(trainable, lr=1e-2)
    zoo.watch(model, optimizer)
    zoo.classify(model, optimizer)


def functional_call(zoo: Session) -> None:
    model = small_net()
    own = dict(model.named_parameters())
    optimizer = torch.optim.SGD(own.values(), lr=0.1)
    zoo.watch(model, optimizer)
    zoo.classify(
        model, optimizer, call=lambda inputs: torch.func.functional_call(model, own, (inputs,))
    )


def function_transforms(zoo: Session) -> None:
    """Gradients of each sample, which are averaged."""
    model = small_net()
    own = dict(model.named_parameters())
    optimizer = torch.optim.SGD(own.values(), lr=0.1)
    zoo.watch(model, optimizer)

    def loss_of(weights: dict[str, Tensor], sample: Tensor, label: Tensor) -> Tensor:
        logits = torch.func.functional_call(model, weights, (sample[None],))
        return nn.functional.cross_entropy(logits, label[None])

    of_each = torch.func.vmap(torch.func.grad_and_value(loss_of), in_dims=(None, 0, 0))
    for _ in range(STEPS):
        inputs, labels = torch.randn(12, 8), torch.randint(0, 4, (12,))
        optimizer.zero_grad()
        if zoo.simple:
            loss = nn.functional.cross_entropy(model(inputs), labels)
            loss.backward()
        else:
            gradients, losses = of_each(own, inputs, labels)
            for name, parameter in own.items():
                parameter.grad = gradients[name].mean(0).detach()
            loss = losses.mean()
        zoo.step(optimizer)
        zoo.loss(loss)


_TRANSFORMED = "inside a transform a value stands for those of many samples, and looking would become a part of it"
_NO_LOSS = "no backward pass begins with the loss of a transform: a gradient is named"
CONDITIONS = [
    Condition("parametrisation: weight norm", weight_norm),
    Condition("parametrisation: spectral norm", spectral_norm),
    Condition("lazy modules", lazy_modules),
    Condition("modules added in mid-training", modules_added_later),
    Condition("a layer replaced in mid-training", layer_replaced_later),
    Condition("parameters unfrozen in mid-training", parameters_unfrozen_later),
    Condition("frozen parts", frozen_parts),
    Condition("sparse gradients, SparseAdam", sparse_gradients),
    Condition("low-rank adapters", low_rank_adapters),
    Condition("torch.func.functional_call", functional_call),
    Condition(
        "torch.func transforms (vmap, grad)",
        function_transforms,
        {
            **dict.fromkeys(("activations", "dead units", "histograms"), _TRANSFORMED),
            "non-finite watch": _NO_LOSS,
        },
    ),
]
