"""Real trainings on small data: the right root cause for the sick ones, nothing for healthy ones."""

import math
from collections.abc import Callable
from dataclasses import dataclass

import pytest
import torch
from sklearn.datasets import load_diabetes, load_digits
from torch import nn
from torch.nn import functional as F  # noqa: N812

import trainvitals.hooks as tv
from trainvitals.app.rules.engine import Engine
from trainvitals.hooks.spool import find_streams, read_meta, read_stream

pytestmark = pytest.mark.slow
BATCH = 64


@dataclass
class Training:
    model: nn.Module
    optimizers: list[torch.optim.Optimizer]
    loss: Callable[[nn.Module, torch.Tensor, torch.Tensor, int], torch.Tensor] = (
        lambda model, x, y, step: F.cross_entropy(model(x), y)
    )
    scheduler: object = None
    zero: bool = True
    every_step: Callable[[int], None] = lambda step: None
    data: str = "digits"
    image: bool = False
    log: bool = True
    labels: bool = True
    criterion: nn.Module | None = None
    batch: int = BATCH
    interval: int | None = None
    """Fixed where a thing happens late: how often the budget samples such a tiny net is chance."""


def data_of(name):
    if name == "diabetes":
        bunch = load_diabetes()
        x = torch.tensor(bunch.data, dtype=torch.float32) / 0.0476
        y = torch.tensor(bunch.target, dtype=torch.float32)[:, None]
        return x, (y - y.mean()) / y.std()
    bunch = load_digits()
    x = torch.tensor(bunch.data, dtype=torch.float32)
    return (x - x.mean()) / x.std(), torch.tensor(bunch.target)


def train(training, steps, folder, seed=0):
    """Train, watched as a user would, and judge what was recorded: all findings."""
    torch.manual_seed(seed)
    x, y = data_of(training.data)
    if training.image:
        x = x.reshape(-1, 1, 8, 8)
    generator = torch.Generator().manual_seed(seed)
    optimizers = training.optimizers
    order, place = torch.randperm(len(x), generator=generator), 0
    with tv.init(project="rules", mode="offline", dir=folder):
        tv.watch(
            training.model,
            optimizers,
            criterion=training.criterion,
            interval=training.interval,
            strict=True,
        )
        for step in range(steps):
            if place + training.batch > len(x):
                order, place = torch.randperm(len(x), generator=generator), 0
            chosen = order[place : place + training.batch]
            place += training.batch
            training.every_step(step)
            loss = training.loss(training.model, x[chosen], y[chosen], step)
            for optimizer in optimizers if training.zero else []:
                optimizer.zero_grad()
            loss.backward()
            for optimizer in optimizers:
                optimizer.step()
            if training.scheduler is not None:
                training.scheduler.step()
            if training.labels:
                tv.batch(x[chosen], y[chosen])
            if training.log:
                tv.log({"train/loss": loss})
    engine = Engine()
    for stream in find_streams(folder / ".trainvitals"):
        meta = read_meta(stream)
        for record in read_stream(stream):
            engine.feed(meta, record)
    return engine.findings()


def stack(*layers):
    model = nn.Sequential()
    for name, layer in layers:
        model.add_module(name, layer)
    return model


def mlp(depth=2, width=64, inputs=64, outputs=10, act=nn.ReLU, dropout=0.0, bias=None):
    layers = []
    for index in range(1, depth + 1):
        layers += [(f"fc{index}", nn.Linear(inputs, width)), (f"act{index}", act())]
        if dropout:
            layers.append((f"drop{index}", nn.Dropout(dropout)))
        inputs = width
    return stack(*layers, ("head", nn.Linear(inputs, outputs)))


def cnn():
    return stack(
        ("conv1", nn.Conv2d(1, 16, 3, padding=1)),
        ("bn1", nn.BatchNorm2d(16)),
        ("relu1", nn.ReLU()),
        ("conv2", nn.Conv2d(16, 32, 3, padding=1)),
        ("bn2", nn.BatchNorm2d(32)),
        ("relu2", nn.ReLU()),
        ("pool", nn.MaxPool2d(2)),
        ("flatten", nn.Flatten()),
        ("head", nn.Linear(512, 10)),
    )


class Transformer(nn.Module):
    """The eight rows of a digit as eight tokens."""

    def __init__(self):
        super().__init__()
        self.embed = nn.Linear(8, 32)
        self.position = nn.Parameter(0.02 * torch.randn(8, 32))
        layer = nn.TransformerEncoderLayer(32, 4, 64, dropout=0.1, batch_first=True)
        self.encoder = nn.TransformerEncoder(layer, 2, enable_nested_tensor=False)
        self.head = nn.Linear(32, 10)

    def forward(self, x):
        return self.head(self.encoder(self.embed(x.reshape(-1, 8, 8)) + self.position).mean(1))


def adam(model, lr=1e-3):
    return [torch.optim.Adam(model.parameters(), lr=lr)]


def sgd(model, lr=0.05, momentum=0.9):
    return [torch.optim.SGD(model.parameters(), lr=lr, momentum=momentum)]


# ---------------------------------------------------------------- healthy


def healthy_adam():
    model = mlp()
    return Training(model, adam(model))


def healthy_sgd():
    model = mlp(3, 128)
    return Training(model, sgd(model))


def healthy_cnn():
    model = cnn()
    return Training(model, sgd(model), image=True)


def healthy_cnn_adam():
    model = cnn()
    return Training(model, adam(model), image=True)


def healthy_transformer():
    model = Transformer()
    optimizer = torch.optim.AdamW(model.parameters(), lr=3e-3, weight_decay=0.05)
    schedule = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda step: min(1, (step + 1) / 100))
    return Training(model, [optimizer], scheduler=schedule)


def healthy_finetune():
    model = mlp(3)
    for name, parameter in model.named_parameters():
        parameter.requires_grad_(name.startswith("head"))
    return Training(model, [torch.optim.Adam(model.head.parameters(), lr=1e-4)])


def healthy_dropout():
    model = mlp(2, 128, dropout=0.5)
    return Training(model, adam(model))


def healthy_regression():
    model = mlp(2, inputs=10, outputs=1)
    loss = lambda model, x, y, step: F.mse_loss(model(x), y)  # noqa: E731
    return Training(model, adam(model), data="diabetes", loss=loss, batch=32)


def healthy_small_batches():
    model = mlp()
    return Training(model, sgd(model, 0.01, 0.0), batch=4)


def healthy_high_rate_adam():
    model = mlp()
    return Training(model, adam(model, 1e-2))


def healthy_tanh():
    model = mlp(4, act=nn.Tanh)
    return Training(model, sgd(model, 0.02))


def healthy_zero_head():
    model = mlp(2)
    nn.init.zeros_(model.head.weight)
    return Training(model, adam(model, 3e-3))


def healthy_residual():
    class Block(nn.Module):
        def __init__(self):
            super().__init__()
            self.norm, self.up, self.act, self.down = (
                nn.LayerNorm(64),
                nn.Linear(64, 128),
                nn.GELU(),
                nn.Linear(128, 64),
            )
            nn.init.zeros_(self.down.weight)

        def forward(self, x):
            return x + self.down(self.act(self.up(self.norm(x))))

    model = nn.Sequential(*(Block() for _ in range(6)), nn.LayerNorm(64), nn.Linear(64, 10))
    return Training(model, [torch.optim.AdamW(model.parameters(), lr=1e-3)])


def healthy_criterion_only():
    model = mlp(2)
    criterion = nn.CrossEntropyLoss()
    return Training(
        model,
        adam(model),
        loss=lambda model, x, y, step: criterion(model(x), y),
        criterion=criterion,
        log=False,
        labels=False,
    )


def healthy_two_optimizers():
    model = mlp(2)
    return Training(
        model,
        [
            torch.optim.Adam([*model.fc1.parameters(), *model.fc2.parameters()], lr=1e-3),
            torch.optim.SGD(model.head.parameters(), lr=0.05),
        ],
    )


class Recurrent(nn.Module):
    """The eight rows of a digit as a sequence."""

    def __init__(self):
        super().__init__()
        self.lstm = nn.LSTM(8, 64, 2, batch_first=True)
        self.head = nn.Linear(64, 10)

    def forward(self, x):
        return self.head(self.lstm(x.reshape(-1, 8, 8))[0][:, -1])


def healthy_lstm():
    model = Recurrent()
    return Training(model, adam(model, 3e-3))


def healthy_single_samples():
    model = mlp()
    return Training(model, sgd(model, 0.01, 0.0), batch=1)


def healthy_plateau_first():
    model = mlp(6, 128)  # leaves its plateau near step 90: the gradient norm grows a hundredfold
    return Training(model, sgd(model, 0.05))


def healthy_warm_restarts():
    model = mlp()
    optimizers = sgd(model, 0.1)
    schedule = torch.optim.lr_scheduler.CosineAnnealingWarmRestarts(optimizers[0], 100)
    return Training(model, optimizers, scheduler=schedule)


HEALTHY = {name: value for name, value in globals().items() if name.startswith("healthy_")}


@pytest.mark.parametrize("steps", [250, 1200])
@pytest.mark.parametrize("name", HEALTHY)
def test_a_healthy_training_raises_nothing_above_a_note(name, steps, tmp_path):
    torch.manual_seed(0)
    found = train(HEALTHY[name](), steps, tmp_path)
    assert [finding.title for finding in found if finding.severity != "info"] == []


# ---------------------------------------------------------------- sick


@dataclass
class Case:
    build: Callable[[], Training]
    root: str
    onset: int
    layers: tuple[str, ...] = ()
    steps: int = 300


def sick_rate(optimizer, lr, model=mlp):
    def build():
        net = model()
        return Training(net, optimizer(net, lr), image=model is cnn)

    return build


def sick_rate_jump():
    model = mlp(3)
    training = Training(model, sgd(model, 0.05))  # the burst of samples after a jump is needed

    def jump(step):
        if step == 150:
            training.optimizers[0].param_groups[0]["lr"] = 5.0

    training.every_step = jump
    return training


def sick_sigmoid(optimizer=sgd, lr=0.1, depth=10):
    def build():
        model = mlp(depth, act=nn.Sigmoid)
        return Training(model, optimizer(model, lr))

    return build


def sick_bias():
    model = mlp(3, 128)
    nn.init.constant_(model.fc2.bias, -30.0)
    return Training(model, sgd(model, 0.05))


def sick_bias_later():
    model = mlp(3, 128)
    training = Training(model, adam(model), interval=7)

    def kill(step):
        if step == 120:
            with torch.no_grad():
                model.fc2.bias.fill_(-100.0)

    training.every_step = kill
    return training


def sick_carry():
    model = mlp()
    return Training(model, sgd(model, 0.05, 0.0), zero=False)


def sick_carry_adam():
    model = mlp()
    return Training(model, adam(model), zero=False)


def sick_missing():
    model = mlp(3)
    kept = [p for name, p in model.named_parameters() if not name.startswith("fc2")]
    return Training(model, [torch.optim.Adam(kept, lr=1e-3)])


class Broken(nn.Module):
    """A linear layer that divides by zero at one step."""

    def __init__(self, at):
        super().__init__()
        self.linear, self.at, self.calls = nn.Linear(64, 64), at, 0

    def forward(self, x):
        self.calls += 1
        out = self.linear(x)
        return out / 0.0 * 0.0 if self.calls == self.at + 1 else out


def sick_layer():
    model = stack(
        ("fc1", nn.Linear(64, 64)),
        ("act1", nn.ReLU()),
        ("norm", Broken(130)),
        ("act2", nn.ReLU()),
        ("head", nn.Linear(64, 10)),
    )
    return Training(model, adam(model))


def sick_loss():
    model = mlp()

    def loss(model, x, y, step):
        value = F.cross_entropy(model(x), y)
        return value * torch.tensor(math.nan) if step == 90 else value

    return Training(model, adam(model), loss=loss)


def sick_input():
    model = mlp()

    def loss(model, x, y, step):
        if step == 70:
            x = x.clone()
            x[3, 5] = math.nan
        return F.cross_entropy(model(x), y)

    return Training(model, adam(model), loss=loss)


def sick_backward():
    model = mlp()

    def loss(model, x, y, step):
        hidden = model.act1(model.fc1(x))
        if step >= 60:  # the derivative of sqrt at 0 is infinite, its value is not
            hidden = hidden + torch.sqrt(hidden * 0.0)
        return F.cross_entropy(model.head(model.act2(model.fc2(hidden))), y)

    return Training(model, adam(model), loss=loss)


def sick_labels():
    model = mlp()

    def loss(model, x, y, step):
        return F.cross_entropy(model(x), y[torch.randperm(len(y))])

    return Training(model, adam(model), loss=loss)


def sick_detached():
    model = mlp(4)

    def loss(model, x, y, step):
        hidden = model.act2(model.fc2(model.act1(model.fc1(x)))).detach()
        return F.cross_entropy(model.head(model.act4(model.fc4(model.act3(model.fc3(hidden))))), y)

    return Training(model, adam(model), loss=loss)


def sick_batches():
    model = mlp(3)

    def loss(model, x, y, step):
        return F.cross_entropy(model(x * 1e3 if 150 <= step < 153 else x), y)

    return Training(model, sgd(model), loss=loss, interval=7)


def sick_transformer():
    model = Transformer()
    # Its weights are thrown about in the first ten steps only: how many of them are sampled must not be chance.
    return Training(model, [torch.optim.AdamW(model.parameters(), lr=0.1)], interval=1)


def sick_carry_cnn():
    model = cnn()
    return Training(model, sgd(model), image=True, zero=False)


RATE = "update-ratio-high"
SICK = {
    "sgd x10": Case(sick_rate(sgd, 2.0), RATE, 0),
    "sgd x100": Case(sick_rate(sgd, 10.0), RATE, 0),
    "sgd x1000": Case(sick_rate(sgd, 100.0), RATE, 0),
    "sgd x100000": Case(sick_rate(sgd, 1e4), RATE, 0),
    "adam x100": Case(sick_rate(adam, 0.1), RATE, 0),
    "adam x1000": Case(sick_rate(adam, 1.0), RATE, 0),
    "adam x100000": Case(sick_rate(adam, 100.0), RATE, 0),
    "cnn sgd x100": Case(sick_rate(sgd, 5.0, cnn), RATE, 0),
    "cnn adam x1000": Case(sick_rate(adam, 1.0, cnn), RATE, 0),
    "rate jump": Case(sick_rate_jump, RATE, 150),
    "sigmoid sgd": Case(sick_sigmoid(), "gradient-vanishing-depth", 0, ("fc1", "fc2")),
    "sigmoid adam": Case(sick_sigmoid(adam, 1e-3), "gradient-vanishing-depth", 0, ("fc1", "fc2")),
    "sigmoid short": Case(sick_sigmoid(depth=8), "gradient-vanishing-depth", 0, ("fc1",), 200),
    "dead bias": Case(sick_bias, "dead-relu-units", 0, ("act2",)),
    "dead bias later": Case(sick_bias_later, "dead-relu-units", 120, ("act2",)),
    "no zero_grad": Case(sick_carry, "grad-not-zeroed", 1),
    "no zero_grad adam": Case(sick_carry_adam, "grad-not-zeroed", 1),
    "left out": Case(sick_missing, "trainable-not-in-optimizer", 0, ("fc2",)),
    "nan layer": Case(sick_layer, "nonfinite-activation", 130, ("norm",)),
    "nan loss": Case(sick_loss, "nonfinite-loss", 90),
    "nan input": Case(sick_input, "nonfinite-activation", 70),
    "nan backward": Case(sick_backward, "nonfinite-gradient", 60),
    "random labels": Case(sick_labels, "loss-stuck-at-prior", 0, steps=600),
    "random labels short": Case(sick_labels, "loss-stuck-at-prior", 0, steps=200),
    "broken batches": Case(sick_batches, "gradient-exploding", 150),
    "transformer adam x100": Case(sick_transformer, RATE, 0),
    "no zero_grad cnn": Case(sick_carry_cnn, "grad-not-zeroed", 1),
    "detached": Case(sick_detached, "unchanged-parameter", 0, ("fc1", "fc2")),
}


@pytest.mark.parametrize("name", SICK)
def test_a_sick_training_gets_the_right_root_layer_and_step(name, tmp_path):
    torch.manual_seed(0)
    case = SICK[name]
    found = train(case.build(), case.steps, tmp_path)
    roots = [finding for finding in found if finding.root and finding.severity != "info"]
    assert [root.rule for root in roots] == [case.root], [finding.title for finding in found]
    assert abs(roots[0].first_step - case.onset) <= 50
    if case.layers:
        assert set(case.layers) <= set(roots[0].layers)
