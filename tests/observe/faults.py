"""Small trainings on made-up data, one for each fault of a loop, and a healthy one beside it."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F  # noqa: N812
from torch.utils.data import DataLoader, Subset, TensorDataset

import trainvitals.hooks as tv
from trainvitals.app.rules.engine import Engine
from trainvitals.app.rules.finding import Finding
from trainvitals.hooks.spool import find_streams, read_meta, read_stream
from trainvitals.hooks.wire.observed import Observed

CLASSES, INPUTS = 4, 12


def data(samples: int = 512, seed: int = 0) -> TensorDataset:
    """Blobs round four centres: inputs `(n, 12)`, labels 0 to 3 in random order."""
    random = torch.Generator().manual_seed(seed)
    centres = torch.randn(CLASSES, INPUTS, generator=torch.Generator().manual_seed(99))
    labels = torch.randint(CLASSES, (samples,), generator=random)
    return TensorDataset(centres[labels] + torch.randn(samples, INPUTS, generator=random), labels)


def mlp(outputs: int = CLASSES, *tail: nn.Module, dropout: float = 0.0) -> nn.Sequential:
    """A small classifier, with `tail` after its last layer."""
    return nn.Sequential(
        nn.Linear(INPUTS, 32), nn.ReLU(), nn.Dropout(dropout), nn.Linear(32, outputs), *tail
    )


@dataclass
class Loop:
    """A training loop with everything in it that a fault may change."""

    model: nn.Module | None = None
    loss: Callable[[Tensor, Tensor], Tensor] = F.cross_entropy
    steps: int = 40
    batch: int = 32
    rate: float = 1e-2
    dataset: Any = None
    shuffle: bool = True
    optimizer: Callable[[Any], torch.optim.Optimizer] | None = None
    step: Callable[["Loop", Tensor, Tensor], None] | None = None
    before: Callable[["Loop"], None] = lambda loop: None
    after_epoch: Callable[["Loop"], None] = lambda loop: None
    loader: Any = None
    tags: tuple[str, ...] = ()
    done: int = 0

    def prepare(self) -> None:
        """Make what was not given."""
        self.model = self.model or mlp()
        make = self.optimizer or (lambda parameters: torch.optim.SGD(parameters, self.rate))
        self.opt = make(list(self.model.parameters()))
        self.dataset = self.dataset or data()
        self.loader = self.loader or DataLoader(
            self.dataset, batch_size=self.batch, shuffle=self.shuffle, drop_last=True
        )

    def one(self, x: Tensor, y: Tensor) -> None:
        """An ordinary step."""
        loss = self.loss(self.model(x), y)
        self.opt.zero_grad()
        loss.backward()
        self.opt.step()

    def run(self) -> None:
        """Train for `steps` steps."""
        while self.done < self.steps:
            for x, y in self.loader:
                if self.done == self.steps:
                    break
                (self.step or Loop.one)(self, x, y)
                self.done += 1
            self.after_epoch(self)


def judge(loop: Loop, folder: Path, interval: int | None = None) -> dict[str, Finding]:
    """Train, watched as a user would, and judge what was recorded: findings by rule."""
    return {finding.rule: finding for finding in engine(loop, folder, interval).findings()}


def engine(loop: Loop, folder: Path, interval: int | None = None) -> Engine:
    torch.manual_seed(0)
    loop.prepare()
    loop.before(loop)
    try:
        with tv.init(project="observe", mode="offline", dir=folder, tags=list(loop.tags)):
            tv.watch(loop.model, loop.opt, strict=True, interval=interval)
            loop.run()
    except (IndexError, RuntimeError):  # what some faults end in
        pass
    engine = Engine()
    for meta, record in records(folder):
        engine.feed(meta, record)
    return engine


def records(folder: Path):
    """Stream and record of everything that was recorded in `folder`."""
    for stream in find_streams(folder / ".trainvitals"):
        meta = read_meta(stream)
        for record in read_stream(stream):
            yield meta, record


def observations(folder: Path) -> list[tuple[int, Observed]]:
    """Step and observation of every record that holds one."""
    return [
        (record.step, record.observed)
        for _, record in records(folder)
        if getattr(record, "observed", None) is not None
    ]


__all__ = [
    "CLASSES",
    "INPUTS",
    "DataLoader",
    "Loop",
    "Subset",
    "data",
    "engine",
    "judge",
    "mlp",
    "observations",
]
