"""Training loops of all shapes."""

from collections.abc import Callable

import torch
from torch import Tensor, nn
from torch.nn import functional

from tests.zoo.architectures import small_net
from tests.zoo.harness import Condition
from tests.zoo.session import STEPS, Session


def batch(size: int = 12) -> tuple[Tensor, Tensor]:
    """Inputs and labels for `small_net`."""
    return torch.randn(size, 8), torch.randint(0, 4, (size,))


def gradient_accumulation(zoo: Session) -> None:
    model = small_net()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1, momentum=0.9)
    zoo.watch(model, optimizer)
    for _ in range(STEPS):
        for _ in range(4):
            inputs, labels = batch()
            loss = functional.cross_entropy(model(inputs), labels) / 4
            loss.backward()
            zoo.loss(loss)
        zoo.step(optimizer)
        optimizer.zero_grad()


def _clipped(zoo: Session, clip: Callable[[nn.Module], object]) -> None:
    model = small_net()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.5)
    zoo.watch(model, optimizer)
    for _ in range(STEPS):
        inputs, labels = batch()
        optimizer.zero_grad()
        loss = functional.cross_entropy(model(inputs), labels)
        loss.backward()
        zoo.gradients(optimizer)
        clip(model)
        zoo.step(optimizer)
        zoo.loss(loss)


def clipped_norm(zoo: Session) -> None:
    _clipped(zoo, lambda model: nn.utils.clip_grad_norm_(model.parameters(), 0.05))


def clipped_values(zoo: Session) -> None:
    _clipped(zoo, lambda model: nn.utils.clip_grad_value_(model.parameters(), 0.01))


def clipped_after_import(zoo: Session) -> None:
    from torch.nn.utils import clip_grad_norm_  # bound before anything is watched, as scripts do

    _clipped(zoo, lambda model: clip_grad_norm_(model.parameters(), 0.05))


def lbfgs_closures(zoo: Session) -> None:
    model = small_net()
    optimizer = torch.optim.LBFGS(model.parameters(), lr=0.3, max_iter=3)
    zoo.watch(model, optimizer)
    for _ in range(STEPS):
        inputs, labels = batch()

        def closure(inputs: Tensor = inputs, labels: Tensor = labels) -> Tensor:
            optimizer.zero_grad()
            loss = functional.cross_entropy(model(inputs), labels)
            loss.backward()
            zoo.loss(loss)
            return loss

        zoo.step(optimizer, closure=closure)


def evaluation_between_steps(zoo: Session) -> None:
    model = nn.Sequential(nn.Linear(8, 6), nn.BatchNorm1d(6), nn.ReLU(), nn.Linear(6, 4))
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    zoo.watch(model, optimizer)

    def evaluate(_: int) -> None:
        model.eval()
        with torch.no_grad():
            zoo.loss(model(torch.full((3, 8), 1e3)).sum())
        model.train()

    zoo.classify(model, optimizer, after=evaluate)


def inference_between_steps(zoo: Session) -> None:
    model = small_net()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    zoo.watch(model, optimizer)

    def infer(_: int) -> None:
        with torch.inference_mode():
            zoo.loss(model(torch.full((3, 8), 1e3)).sum())

    zoo.classify(model, optimizer, after=infer)


def gradient_penalty(zoo: Session) -> None:
    model = nn.Sequential(nn.Linear(8, 6), nn.Tanh(), nn.Linear(6, 4))
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    zoo.watch(model, optimizer)
    for _ in range(STEPS):
        inputs, labels = batch()
        inputs.requires_grad_(True)
        optimizer.zero_grad()
        loss = functional.cross_entropy(model(inputs), labels)
        (slope,) = torch.autograd.grad(loss, inputs, create_graph=True)
        loss = loss + 10 * slope.square().sum()
        loss.backward()
        zoo.step(optimizer)
        zoo.loss(loss)


def two_backwards_of_one_graph(zoo: Session) -> None:
    model = small_net()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    zoo.watch(model, optimizer)
    for _ in range(STEPS):
        inputs, labels = batch()
        optimizer.zero_grad()
        logits = model(inputs)
        first, second = functional.cross_entropy(logits, labels), logits.square().mean()
        first.backward(retain_graph=True)
        second.backward()
        zoo.step(optimizer)
        zoo.loss(first + second)


class Flaky(nn.Module):
    """Fails when it is told to, forward or backward."""

    def __init__(self) -> None:
        super().__init__()
        self.failure: type[BaseException] | None = None
        self.in_backward = False

    def forward(self, inputs: Tensor) -> Tensor:
        outputs = inputs * 2
        if self.failure is not None and self.in_backward:
            outputs.register_hook(self.fail)
        elif self.failure is not None:
            self.fail()
        return outputs

    def fail(self, _: Tensor | None = None) -> None:
        failure, self.failure = self.failure, None
        assert failure is not None
        raise failure("told to fail")


def _failing(zoo: Session, failure: type[BaseException], in_backward: bool, goes_on: bool) -> None:
    model = nn.Sequential(nn.Linear(8, 6), Flaky(), nn.ReLU(), nn.Linear(6, 4))
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    zoo.watch(model, optimizer)
    for step in range(STEPS):
        inputs, labels = batch()
        if step == 4:
            model[1].failure, model[1].in_backward = failure, in_backward
        for attempt in range(2):
            optimizer.zero_grad()
            try:
                loss = functional.cross_entropy(model(inputs), labels)
                loss.backward()
            except failure:
                assert attempt == 0
                if not goes_on:
                    return
            else:
                break
        zoo.step(optimizer)
        zoo.loss(loss)


def exception_in_forward(zoo: Session) -> None:
    _failing(zoo, ValueError, in_backward=False, goes_on=True)


def exception_in_backward(zoo: Session) -> None:
    _failing(zoo, ValueError, in_backward=True, goes_on=True)


def keyboard_interrupt(zoo: Session) -> None:
    _failing(zoo, KeyboardInterrupt, in_backward=False, goes_on=False)


CONDITIONS = [
    Condition("gradient accumulation", gradient_accumulation),
    Condition("clip_grad_norm_", clipped_norm),
    Condition("clip_grad_norm_, imported by name", clipped_after_import),
    Condition("clip_grad_value_", clipped_values),
    Condition("LBFGS closures", lbfgs_closures),
    Condition("evaluation between steps", evaluation_between_steps),
    Condition("inference mode between steps", inference_between_steps),
    Condition("double backward (create_graph)", gradient_penalty),
    Condition("two backwards (retain_graph)", two_backwards_of_one_graph),
    Condition("exception in forward, caught", exception_in_forward),
    Condition("exception in backward, caught", exception_in_backward),
    Condition("KeyboardInterrupt", keyboard_interrupt),
]
