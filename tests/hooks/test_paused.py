"""`run.paused()`: what happens inside is no part of the training."""

import math
import os
import weakref
from collections.abc import Callable, Iterator
from typing import Any

import pytest
import torch
from torch import nn
from torch.nn.utils import clip_grad
from torch.optim import Optimizer
from torch.optim import optimizer as torch_optimizer
from torch.utils.data import DataLoader, TensorDataset
from torch.utils.data.dataloader import _BaseDataLoaderIter
from torch.utils.hooks import RemovableHandle

import trainvitals.hooks as tv
from trainvitals.hooks import accounts, calibration, loader, rehearsal
from trainvitals.hooks.observe import loaders
from trainvitals.hooks.registry import Registry
from trainvitals.hooks.run import Run

PLACES: tuple[tuple[Any, str], ...] = (
    (nn.Module, "__call__"),
    (torch.autograd, "backward"),
    (torch.autograd, "grad"),
    (clip_grad, "_group_tensors_by_device_and_dtype"),
    (clip_grad, "_clip_grads_with_norm_"),
    (nn.utils, "clip_grads_with_norm_"),
    (Optimizer, "add_param_group"),
    (Optimizer, "zero_grad"),
    (torch.amp.GradScaler, "update"),
    (torch.amp.GradScaler, "scale"),
    (torch.optim.lr_scheduler.StepLR, "step"),
    (torch.optim.lr_scheduler.LRScheduler, "step"),
    (_BaseDataLoaderIter, "__next__"),
)
INPUTS, LABELS = torch.linspace(-1, 1, 128).view(16, 8), torch.arange(16) % 4


def functions() -> list[Any]:
    return [getattr(owner, name) for owner, name in PLACES]


def global_hooks() -> list[Any]:
    return [
        *torch_optimizer._global_optimizer_pre_hooks.values(),
        *torch_optimizer._global_optimizer_post_hooks.values(),
    ]


ORIGINALS = functions()


def net() -> nn.Sequential:
    torch.manual_seed(3)
    return nn.Sequential(nn.Linear(8, 6), nn.ReLU(), nn.Linear(6, 4))


def loss_of(model: nn.Module) -> torch.Tensor:
    return nn.functional.cross_entropy(model(INPUTS), LABELS)


def step(model: nn.Module, optimizer: Optimizer) -> None:
    optimizer.zero_grad()
    loss_of(model).backward()
    optimizer.step()


def something_else(model: nn.Module) -> None:
    """Another training with all that is noticed of one, and looks at the watched model with and without gradients."""
    other = net()
    optimizer = torch.optim.Adam(other.parameters())
    scheduler = torch.optim.lr_scheduler.StepLR(optimizer, 1)
    scaler = torch.amp.GradScaler("cpu")
    for inputs, labels in DataLoader(TensorDataset(INPUTS, LABELS), 4):
        optimizer.zero_grad()
        loss = nn.functional.cross_entropy(other(inputs), labels)
        scaler.scale(loss).backward()
        scaler.unscale_(optimizer)
        nn.utils.clip_grad_norm_(other.parameters(), 0.1)
        scaler.step(optimizer)
        scaler.update()
        scheduler.step()
        tv.batch(labels=labels)
    with torch.no_grad():
        model(INPUTS)
    torch.autograd.grad(loss_of(model) * math.nan, list(model.parameters()))


class Clock:
    """Passes by itself in nothing: what takes time says so."""

    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    """The only one of the watch, by which each layer that is looked at takes a tenth of a millisecond."""
    clock = Clock()
    for module in (accounts, calibration, loader, loaders, rehearsal):
        monkeypatch.setattr(module, "perf_counter", clock)
    monkeypatch.setattr(accounts, "thread_time", clock)
    monkeypatch.setattr(Run, "_background_seconds", lambda run: clock.now / 1000)
    saw_call = Registry.saw_call

    def slowly(registry: Registry, name: str) -> None:
        clock.now += 1e-4
        saw_call(registry, name)

    monkeypatch.setattr(Registry, "saw_call", slowly)
    return clock


class Places:
    """Where in a step a pause may be: in each third one, so that steps with and without do not even out."""

    def __init__(self, run: Run, model: nn.Module, clock: Clock, at: str) -> None:
        self._run, self._model, self._clock, self._at = run, model, clock, at
        self.pauses = 0

    def __call__(self, here: str) -> None:
        if here != self._at or self._run.completed % 3:
            return
        gradients = [p.grad for p in self._model.parameters()]
        with self._run.paused():
            something_else(self._model)
            self._clock.now += 3600
        for parameter, gradient in zip(self._model.parameters(), gradients, strict=True):
            assert parameter.grad is gradient
        self.pauses += 1


def trained(clock: Clock, recorded: Callable[[], Any], at: str, **options: Any) -> tuple[Any, ...]:
    """Weights and records of 300 steps of a millisecond, with pauses at this place."""
    clock.now = 0.0
    model = net()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    run = tv.init()
    tv.watch(model, optimizer, strict=True, **options)
    place = Places(run, model, clock, at)
    batches = DataLoader(TensorDataset(INPUTS, LABELS), 16)
    for _ in range(300):
        for inputs, labels in batches:
            place("before the forward pass")
            loss = nn.functional.cross_entropy(model(inputs), labels)
            place("before the backward pass")
            optimizer.zero_grad()
            loss.backward()
            place("before the step")
            optimizer.step()
            clock.now += 1e-3
    assert place.pauses == (100 if at else 0)
    assert run.completed == 300
    found = recorded()
    assert not found.events("nonfinite") and not found.events("monitor")
    scalars = {
        key: found.scalar_records(key)
        for key in ("tv/step_time", "tv/overhead", "tv/grad_norm", "tv/lr/0", "tv/grad_carried")
    }
    observed = [
        (record.step, record.observed)
        for record in found.records
        if getattr(record, "observed", None) is not None
    ]
    return list(model.parameters()), scalars, found.samples("activation"), observed


@pytest.mark.parametrize("options", [{}, {"interval": 12}])
@pytest.mark.parametrize(
    "at", ["before the forward pass", "before the backward pass", "before the step"]
)
def test_a_training_with_pauses_is_recorded_as_one_without(
    at: str, options: dict[str, Any], clock: Clock, recorded: Callable[[], Any]
) -> None:
    weights, scalars, samples, observed = trained(clock, recorded, "", **options)
    assert len(scalars["tv/step_time"]) > 10 and 10 < len(samples) < 100 and observed
    own, told, seen, noticed = trained(clock, recorded, at, **options)
    assert all(torch.equal(one, other) for one, other in zip(weights, own, strict=True))
    assert told.keys() == scalars.keys()
    for key, values in scalars.items():
        assert [step for step, _ in told[key]] == [step for step, _ in values]
        # The clock stands at hours by then, and tells a millisecond to 1e-9 of it.
        assert [v for _, v in told[key]] == pytest.approx([v for _, v in values], rel=1e-6)
    assert seen == samples
    assert noticed == observed


@pytest.fixture
def watched() -> Iterator[tuple[nn.Sequential, Optimizer, Run]]:
    model = net()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    yield model, optimizer, tv.watch(model, optimizer, interval=1000, strict=True)
    tv.finish()
    assert functions() == ORIGINALS


@pytest.mark.parametrize("steps", [0, 30])
def test_torchs_functions_are_its_own_inside_and_ours_again_afterwards(
    watched: Any, steps: int
) -> None:
    model, optimizer, run = watched
    for _ in range(steps):
        step(model, optimizer)
    loss = loss_of(model)
    ours, hooks, registered = functions(), global_hooks(), RemovableHandle.next_id
    replaced = [one is not other for one, other in zip(ours, ORIGINALS, strict=True)]
    assert sum(replaced) == (13 if steps == 0 else 9)  # the first step's loop is looked at, too
    with run.paused():
        assert functions() == ORIGINALS
        assert not set(hooks) & set(global_hooks())
    assert functions() == ours
    assert global_hooks() == hooks
    assert RemovableHandle.next_id == registered  # else calls would be noted in full for a while
    loss.backward()
    optimizer.step()
    assert run.completed == steps + 1


def test_an_exception_inside_ends_the_pause(watched: Any) -> None:
    model, optimizer, run = watched
    ours, hooks = functions(), global_hooks()
    with pytest.raises(KeyError), run.paused():
        raise KeyError
    assert functions() == ours and global_hooks() == hooks
    step(model, optimizer)
    assert run.completed == 1


def test_a_pause_in_a_pause_does_nothing(watched: Any) -> None:
    model, optimizer, run = watched
    ours = functions()
    with run.paused():
        with run.paused():
            step(model, optimizer)
        assert functions() == ORIGINALS
        step(model, optimizer)
    assert functions() == ours and run.completed == 0


def noting(inner: Callable[..., Any], name: str, calls: list[str]) -> Callable[..., Any]:
    def around(*args: Any, **kwargs: Any) -> Any:
        calls.append(name)
        return inner(*args, **kwargs)

    return around


def wrapped(monkeypatch: pytest.MonkeyPatch, calls: list[str]) -> None:
    """Somebody else wraps what is there now."""
    for owner, name in PLACES:
        if getattr(owner, name) in ORIGINALS:
            continue

        monkeypatch.setattr(owner, name, noting(getattr(owner, name), name, calls))


def test_where_somebody_has_wrapped_ours_it_takes_no_notice_inside(
    recorded: Callable[[], Any],
) -> None:
    model = net()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    run = tv.watch(model, optimizer, interval=1000, strict=True)
    calls: list[str] = []
    with pytest.MonkeyPatch.context() as patch:
        for _ in range(30):
            step(model, optimizer)
        wrapped(patch, calls)
        theirs = functions()
        with run.paused():
            assert functions() == theirs
            something_else(model)
            for _ in range(3):
                step(model, optimizer)
            (loss_of(model) * math.nan).backward()
            kept = weakref.ref(model(INPUTS))
        assert kept() is None
        optimizer.zero_grad()
        assert {"__call__", "backward", "grad", "update", "__next__"} <= set(calls)
        assert run.completed == 30 and run.waited == 0.0
        with torch.no_grad():
            model[2].weight.fill_(3e38)
        loss = loss_of(model)
        with run.paused():  # the calls that have led to the loss stay known
            step(other := net(), torch.optim.SGD(other.parameters(), lr=0.1))
        loss.backward()
        optimizer.step()
        assert run.completed == 31
    found = recorded()
    assert [(event.step, event.layer) for event in found.events("nonfinite")] == [(30, "2")]
    assert not found.scalar("tv/amp_scale")


def test_what_somebody_wraps_inside_is_wrapped_by_ours_afterwards(
    recorded: Callable[[], Any],
) -> None:
    model = net()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    run = tv.watch(model, optimizer, interval=1, strict=True)
    step(model, optimizer)
    called: list[type] = []
    with pytest.MonkeyPatch.context() as patch:
        with run.paused():
            inner = nn.Module.__call__

            def around(module: nn.Module, *args: Any, **kwargs: Any) -> Any:
                called.append(type(module))
                return inner(module, *args, **kwargs)

            patch.setattr(nn.Module, "__call__", around)
        step(model, optimizer)
        run.detach()
        assert nn.Module.__call__ is around
    assert called == [nn.Sequential, nn.Linear, nn.ReLU, nn.Linear]
    samples = recorded().samples("activation")
    assert sorted(samples) == [0, 1] and set(samples[1]) == set(samples[0])


def test_log_works_inside_as_between_steps(recorded: Callable[[], Any]) -> None:
    model = net()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    run = tv.watch(model, optimizer, strict=True)
    for _ in range(5):
        step(model, optimizer)
    with tv.paused():
        step(model, optimizer)
        run.log({"val/loss": 0.5})
    assert recorded().scalar_records("val/loss") == [(4, 0.5)]


def test_a_call_of_watch_inside_ends_the_pause(watched: Any) -> None:
    model, optimizer, run = watched
    with run.paused():
        step(model, optimizer)
        run.watch(model, optimizer, interval=1000)
        step(model, optimizer)
    step(model, optimizer)
    assert run.completed == 2


@pytest.mark.parametrize("end", ["detach", "finish"])
def test_the_end_of_the_watch_inside_is_its_end(end: str, watched: Any) -> None:
    _, _, run = watched
    with run.paused():
        getattr(run, end)()
        assert functions() == ORIGINALS and global_hooks() == []
    assert functions() == ORIGINALS and global_hooks() == []


def test_where_nothing_is_watched_it_does_nothing() -> None:
    with tv.paused():
        assert functions() == ORIGINALS
    for mode in ("offline", "disabled"):
        run = tv.init(mode=mode)
        with run.paused(), tv.paused():
            assert functions() == ORIGINALS
        run.finish()
        with run.paused():
            assert functions() == ORIGINALS


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")
def test_a_forked_child_puts_nothing_back(watched: Any) -> None:
    _, _, run = watched
    child = -1
    with run.paused():
        child = os.fork()
    if child == 0:
        with run.paused():
            pass
        os._exit(0 if functions() == ORIGINALS and not global_hooks() else 1)
    _, status = os.waitpid(child, 0)
    assert os.waitstatus_to_exitcode(status) == 0
    assert functions() != ORIGINALS and global_hooks()


def test_findings_wait_for_the_training_to_go_on() -> None:
    model, other = net(), net()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    run = tv.watch(model, optimizer, on_finding="raise")
    step(model, optimizer)
    optimizer.zero_grad()
    (loss_of(model) * math.nan).backward()
    with run.paused():
        step(other, torch.optim.SGD(other.parameters(), lr=0.1))
    with pytest.raises(tv.FindingError):
        optimizer.step()


def test_a_function_that_gets_findings_may_pause() -> None:
    model = net()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    seen = []

    def probe(finding: tv.Finding) -> None:
        with tv.paused():
            step(other := net(), torch.optim.SGD(other.parameters(), lr=0.1))
        seen.append(finding.rule)

    run = tv.watch(model, optimizer, on_finding=probe)
    for factor in (1.0, math.nan, 1.0):
        optimizer.zero_grad()
        (loss_of(model) * factor).backward()
        optimizer.step()
    assert seen and run.completed == 3
