"""Nets of all common kinds."""

import torch
from torch import Tensor, nn
from torch.nn import functional

from tests.zoo.harness import Condition
from tests.zoo.session import STEPS, Session


def small_net() -> nn.Sequential:
    """The net of all conditions that are not about the net."""
    return nn.Sequential(nn.Linear(8, 6), nn.ReLU(), nn.Linear(6, 4))


def mlp(zoo: Session) -> None:
    model = small_net()
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-2)
    zoo.watch(model, optimizer)
    zoo.classify(model, optimizer)


def cnn_with_batch_norm(zoo: Session) -> None:
    model = nn.Sequential(
        nn.Conv2d(1, 4, 3, padding=1),
        nn.BatchNorm2d(4),
        nn.ReLU(),
        nn.MaxPool2d(2),
        nn.Dropout(0.2),
        nn.Flatten(),
        nn.Linear(64, 4),
    )
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1, momentum=0.9)
    zoo.watch(model, optimizer)
    zoo.classify(model, optimizer, shape=(6, 1, 8, 8))


class Residual(nn.Module):
    """conv - norm - in-place ReLU - conv - norm - add - in-place ReLU."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(width, width, 3, padding=1, bias=False)
        self.norm1 = nn.BatchNorm2d(width)
        self.conv2 = nn.Conv2d(width, width, 3, padding=1, bias=False)
        self.norm2 = nn.BatchNorm2d(width)
        self.relu = nn.ReLU(inplace=True)

    def forward(self, inputs: Tensor) -> Tensor:
        hidden = self.relu(self.norm1(self.conv1(inputs)))
        hidden = self.norm2(self.conv2(hidden))
        hidden += inputs
        return self.relu(hidden)


def resnet_with_inplace_relu(zoo: Session) -> None:
    model = nn.Sequential(
        nn.Conv2d(1, 4, 3, padding=1),
        nn.ReLU(inplace=True),
        Residual(4),
        Residual(4),
        nn.AdaptiveAvgPool2d(1),
        nn.Flatten(),
        nn.Linear(4, 4),
    )
    optimizer = torch.optim.SGD(model.parameters(), lr=0.05, momentum=0.9)
    zoo.watch(model, optimizer)
    zoo.classify(model, optimizer, shape=(6, 1, 8, 8))


class Recurrent(nn.Module):
    """A recurrent layer and a head that reads its last output."""

    def __init__(self, kind: type[nn.RNNBase]) -> None:
        super().__init__()
        self.cells = kind(5, 7, num_layers=2, batch_first=True)
        self.head = nn.Linear(7, 4)

    def forward(self, inputs: Tensor) -> Tensor:
        outputs, _ = self.cells(inputs)
        return self.head(outputs[:, -1])


def lstm(zoo: Session) -> None:
    model = Recurrent(nn.LSTM)
    optimizer = torch.optim.Adam(model.parameters(), lr=1e-2)
    zoo.watch(model, optimizer)
    zoo.classify(model, optimizer, shape=(6, 9, 5))


def gru(zoo: Session) -> None:
    model = Recurrent(nn.GRU)
    optimizer = torch.optim.RMSprop(model.parameters(), lr=1e-3)
    zoo.watch(model, optimizer)
    zoo.classify(model, optimizer, shape=(6, 9, 5))


class TiedTransformer(nn.Module):
    """A language model whose head is its embedding."""

    def __init__(self) -> None:
        super().__init__()
        self.embed = nn.Embedding(11, 16)
        self.block = nn.TransformerEncoderLayer(16, 2, 32, dropout=0.1, batch_first=True)
        self.norm = nn.LayerNorm(16)
        self.head = nn.Linear(16, 11, bias=False)
        self.head.weight = self.embed.weight

    def forward(self, tokens: Tensor) -> Tensor:
        length = tokens.shape[1]
        mask = nn.Transformer.generate_square_subsequent_mask(length)
        return self.head(self.norm(self.block(self.embed(tokens), src_mask=mask, is_causal=True)))


def transformer_with_tied_embeddings(zoo: Session) -> None:
    model = TiedTransformer()
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-3)
    zoo.watch(model, optimizer)
    for _ in range(STEPS):
        tokens = torch.randint(0, 11, (4, 9))
        optimizer.zero_grad()
        logits = model(tokens[:, :-1])
        loss = functional.cross_entropy(logits.flatten(0, 1), tokens[:, 1:].flatten())
        loss.backward()
        zoo.step(optimizer)
        zoo.loss(loss)


class Experts(nn.Module):
    """A mixture of experts of which the last one is never chosen and one is chosen now and then."""

    def __init__(self) -> None:
        super().__init__()
        self.router = nn.Linear(8, 4)
        self.experts = nn.ModuleList(small_net() for _ in range(4))
        self.calls = 0

    def forward(self, inputs: Tensor) -> Tensor:
        scores = self.router(inputs)
        self.calls += 1
        usable = 3 if self.calls % 2 == 0 else 2
        gates = scores[:, :usable].softmax(-1)
        return sum(gates[:, [i]] * self.experts[i](inputs) for i in range(usable))


def mixture_with_idle_experts(zoo: Session) -> None:
    model = Experts()
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-2)
    zoo.watch(model, optimizer)
    zoo.classify(model, optimizer)


def gan_with_two_optimizers(zoo: Session) -> None:
    generator = nn.Sequential(nn.Linear(3, 8), nn.ReLU(), nn.Linear(8, 2))
    critic = nn.Sequential(nn.Linear(2, 8), nn.LeakyReLU(0.2), nn.Linear(8, 1))
    steps_g = torch.optim.Adam(generator.parameters(), lr=1e-2)
    steps_c = torch.optim.Adam(critic.parameters(), lr=1e-2)
    zoo.watch([generator, critic], [steps_c, steps_g])
    for _ in range(STEPS):
        real, noise = torch.randn(16, 2) * 0.5 + 1, torch.randn(16, 3)
        steps_c.zero_grad()
        loss_c = (
            functional.softplus(-critic(real)).mean()
            + functional.softplus(critic(generator(noise).detach())).mean()
        )
        loss_c.backward()
        zoo.step(steps_c)
        steps_g.zero_grad()
        loss_g = functional.softplus(-critic(generator(noise))).mean()
        loss_g.backward()
        zoo.step(steps_g)
        zoo.loss(loss_c)
        zoo.loss(loss_g)


class Twice(nn.Module):
    """One layer, two calls, under two names."""

    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.Linear(8, 8)
        self.again = self.layer
        self.relu = nn.ReLU()
        self.head = nn.Linear(8, 4)

    def forward(self, inputs: Tensor) -> Tensor:
        return self.head(self.relu(self.again(self.relu(self.layer(inputs)) * 100)))


def module_used_twice(zoo: Session) -> None:
    model = Twice()
    optimizer = torch.optim.SGD(model.parameters(), lr=1e-3)
    zoo.watch(model, optimizer)
    zoo.classify(model, optimizer)


def deep_and_wide_names(zoo: Session) -> None:
    model = small_net()
    for depth in range(60):
        outer = nn.Sequential()
        outer.add_module(f"level_{depth}_{'x' * 20}", model)
        model = outer
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    zoo.watch(model, optimizer)
    zoo.classify(model, optimizer)


class Sine(nn.Module):
    """A layer of one's own, without parameters."""

    def forward(self, inputs: Tensor) -> Tensor:
        return inputs.sin()


def layers_without_parameters(zoo: Session) -> None:
    model = nn.Sequential(
        nn.Linear(8, 6), nn.Identity(), Sine(), nn.Flatten(), nn.Softplus(), nn.Linear(6, 4)
    )
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    zoo.watch(model, optimizer)
    zoo.classify(model, optimizer)


def batch_of_one(zoo: Session) -> None:
    model = small_net()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    zoo.watch(model, optimizer)
    zoo.classify(model, optimizer, shape=(1, 8))


def empty_batch(zoo: Session) -> None:
    model = small_net()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    zoo.watch(model, optimizer)
    for size in (4, 0, 4, 4, 0, 4):
        optimizer.zero_grad()
        loss = model(torch.randn(size, 8)).square().sum()
        loss.backward()
        zoo.step(optimizer)
        zoo.loss(loss)


CONDITIONS = [
    Condition("MLP", mlp),
    Condition("CNN with batch norm and dropout", cnn_with_batch_norm),
    Condition("ResNet with in-place ReLU", resnet_with_inplace_relu),
    Condition("LSTM", lstm),
    Condition("GRU", gru),
    Condition("transformer with tied embeddings", transformer_with_tied_embeddings),
    Condition("mixture of experts, some idle", mixture_with_idle_experts),
    Condition("GAN, two optimizers", gan_with_two_optimizers),
    Condition("module used twice in one forward", module_used_twice),
    Condition("deep nesting, long names", deep_and_wide_names),
    Condition("layers without parameters", layers_without_parameters),
    Condition("batch of one", batch_of_one),
    Condition("empty batch", empty_batch),
]
