"""Real trainings with one fault each: the right rule is the root; and the same ones without it: no warning at all."""

import pytest
import torch
from torch import nn
from torch.nn import functional as F  # noqa: N812
from torch.utils.data import ConcatDataset, DataLoader, Subset, TensorDataset

from tests.observe.faults import CLASSES, INPUTS, Loop, data, judge, mlp

SGD, ADAM = torch.optim.SGD, torch.optim.Adam


def regression(shift=0.0, scale=1.0):
    x = torch.randn(512, INPUTS, generator=torch.Generator().manual_seed(1))
    return TensorDataset(x, scale * (x[:, 0] + 0.1 * x[:, 1]) + shift)


def binary():
    x = torch.randn(512, INPUTS, generator=torch.Generator().manual_seed(1))
    return TensorDataset(x, (x[:, 0] > 0).float())


def ordered():
    x, y = data().tensors
    order = y.argsort(stable=True)
    return TensorDataset(x[order], y[order])


def flat(loss):
    return lambda out, y: loss(out.squeeze(-1), y)


def one_activation():
    act = nn.ReLU()
    return nn.Sequential(nn.Linear(INPUTS, 32), act, nn.Linear(32, 32), act, nn.Linear(32, CLASSES))


def steps(*calls):
    """A step made of these calls."""

    def one(loop, x, y):
        for call in calls:
            call(loop, x, y)

    return one


def forward(loop, x, y):
    loop.value = loop.loss(loop.model(x), y)


def zero(loop, x, y):
    loop.opt.zero_grad()


def backward(loop, x, y):
    loop.value.backward()


def step(loop, x, y):
    loop.opt.step()


def clip(loop, x, y):
    nn.utils.clip_grad_norm_(loop.model.parameters(), 1.0)


def schedule(loop, x, y):
    loop.scheduler = getattr(loop, "scheduler", None) or torch.optim.lr_scheduler.StepLR(
        loop.opt, 1000
    )
    loop.scheduler.step()


def scaled(before_clipping):
    def one(loop, x, y):
        loop.scaler = getattr(loop, "scaler", None) or torch.amp.GradScaler("cpu")
        loss = loop.loss(loop.model(x), y)
        loop.opt.zero_grad()
        loop.scaler.scale(loss).backward()
        if before_clipping:
            loop.scaler.unscale_(loop.opt)
        nn.utils.clip_grad_norm_(loop.model.parameters(), 1.0)
        loop.scaler.step(loop.opt)
        loop.scaler.update()

    return one


def evaluate(mode, back=True):
    def after(loop):
        loop.model.train(not mode)
        with torch.no_grad():
            for x, _ in DataLoader(loop.dataset, 128):
                loop.model(x)
        loop.model.train(back)

    return after


def validate_on(make):
    def after(loop):
        with torch.no_grad():
            loop.model.eval()
            for x, _ in DataLoader(make(loop), 64):
                loop.model(x)
            loop.model.train()

    return after


def same_batch(loop, x, y):
    loop.kept = getattr(loop, "kept", None) or (x, y)
    loop.one(*loop.kept)


def first_rows(loop, x, y):
    """A part of a larger tensor; the loader alone, of 8 batches, would not tell."""
    loop.one(*(tensor[:32] for tensor in loop.dataset.tensors))


def shared_activation():
    relu = nn.ReLU()
    return nn.Sequential(
        nn.Linear(INPUTS, 32), relu, nn.Linear(32, 32), relu, nn.Linear(32, CLASSES)
    )


def rebuilt(loop):
    loop.model = mlp()


def constant_weights(loop):
    nn.init.constant_(loop.model[0].weight, 0.1)
    nn.init.zeros_(loop.model[0].bias)


def frozen_head(loop):
    loop.model[-1].requires_grad_(False)


def trained_then_frozen(loop):
    with torch.no_grad():
        loop.model[0].weight.mul_(1.3).add_(0.05 * torch.randn_like(loop.model[0].weight))
    loop.model[0].requires_grad_(False)


def half_precision(scaler):
    def one(loop, x, y):
        loop.scaler = getattr(loop, "scaler", None) or torch.amp.GradScaler("cpu", enabled=scaler)
        with torch.autocast("cpu", torch.float16):
            out = loop.model(x)
        loss = loop.loss(out.float(), y)
        loop.opt.zero_grad()
        loop.scaler.scale(loss).backward()
        loop.scaler.step(loop.opt)
        loop.scaler.update()

    return one


def frozen_norm(loop):
    loop.model[1].requires_grad_(False)
    if loop.healthy:
        loop.model[1].eval()


def with_norm(frozen_mode):
    loop = Loop(
        model=nn.Sequential(
            nn.Linear(INPUTS, 32), nn.BatchNorm1d(32), nn.ReLU(), nn.Linear(32, CLASSES)
        ),
        before=frozen_norm,
    )
    loop.healthy = frozen_mode
    return loop


SICK = {
    "softmax-before-cross-entropy": [
        lambda: Loop(model=mlp(CLASSES, nn.Softmax(-1))),
        lambda: Loop(loss=lambda out, y: nn.CrossEntropyLoss()(torch.softmax(out, 1), y)),
        lambda: Loop(
            loss=lambda out, y: F.cross_entropy(out.softmax(1), F.one_hot(y, CLASSES).float())
        ),
        lambda: Loop(loss=lambda out, y: F.cross_entropy(out.softmax(1), y, label_smoothing=0.1)),
    ],
    "nll-without-log": [
        lambda: Loop(loss=lambda out, y: F.nll_loss(out.softmax(1), y)),
        lambda: Loop(loss=lambda out, y: nn.NLLLoss()(out, y)),
    ],
    "sigmoid-before-bce-logits": [
        lambda: Loop(
            model=mlp(1, nn.Sigmoid()),
            loss=flat(F.binary_cross_entropy_with_logits),
            dataset=binary(),
        ),
        lambda: Loop(
            model=mlp(1),
            loss=lambda out, y: nn.BCEWithLogitsLoss()(out.sigmoid().view(-1), y),
            dataset=binary(),
        ),
    ],
    "softmax-single-unit": [
        lambda: Loop(
            model=mlp(1, nn.Softmax(1)), loss=flat(F.binary_cross_entropy), dataset=binary()
        )
    ],
    "softmax-wrong-dim": [
        lambda: Loop(loss=lambda out, y: F.nll_loss(out.softmax(0).log(), y)),
        lambda: Loop(loss=lambda out, y: F.mse_loss(out.softmax(0), F.one_hot(y, CLASSES).float())),
    ],
    "relu-on-output": [
        lambda: Loop(model=mlp(CLASSES, nn.ReLU())),
        lambda: Loop(model=mlp(1, nn.ReLU()), loss=flat(F.mse_loss), dataset=regression()),
    ],
    "output-range-mismatch": [
        lambda: Loop(
            model=mlp(1, nn.Sigmoid()), loss=flat(F.mse_loss), dataset=regression(scale=3)
        ),
        lambda: Loop(
            model=mlp(1, nn.Tanh()), loss=flat(F.smooth_l1_loss), dataset=regression(scale=5)
        ),
    ],
    "loss-broadcast": [
        lambda: Loop(model=mlp(1), loss=F.mse_loss, dataset=regression()),
        lambda: Loop(model=mlp(1), loss=F.l1_loss, dataset=regression()),
        lambda: Loop(
            model=mlp(1), loss=lambda out, y: ((out - y) ** 2).mean(), dataset=regression()
        ),
    ],
    "loss-negative": [lambda: Loop(loss=lambda out, y: -F.cross_entropy(out, y), rate=1e-3)],
    "label-out-of-range": [
        lambda: Loop(loss=lambda out, y: F.cross_entropy(out, y + 1)),
        lambda: Loop(
            model=mlp(1),
            loss=lambda out, y: F.binary_cross_entropy_with_logits(out.squeeze(-1), 2 * y - 1),
            dataset=binary(),
        ),
    ],
    "label-scale": [
        lambda: Loop(model=mlp(1), loss=flat(F.mse_loss), dataset=regression(scale=1000), rate=1e-6)
    ],
    "call-order": [
        lambda: Loop(step=steps(forward, zero, step)),
        lambda: Loop(step=steps(forward, backward, zero, step)),
        lambda: Loop(step=steps(zero, forward, backward, schedule, step)),
        lambda: Loop(step=steps(forward, zero, backward, step, clip)),
    ],
    "loss-detached": [
        lambda: Loop(loss=lambda out, y: F.cross_entropy(out.detach().requires_grad_(), y))
    ],
    "clip-before-unscale": [lambda: Loop(step=scaled(False))],
    "amp-without-scaler": [lambda: Loop(step=half_precision(False))],
    "train-mode-missing": [
        lambda: Loop(model=mlp(dropout=0.3), before=lambda loop: loop.model.eval()),
        lambda: Loop(model=mlp(dropout=0.3), after_epoch=evaluate(True, back=False), steps=64),
    ],
    "eval-mode-leak": [lambda: Loop(model=mlp(dropout=0.3), after_epoch=evaluate(False), steps=64)],
    "frozen-bn-updating": [lambda: with_norm(False)],
    "optimizer-stale-params": [
        lambda: Loop(before=rebuilt),
    ],
    "weight-init-symmetric": [lambda: Loop(before=constant_weights)],
    "unintended-freeze": [lambda: Loop(before=frozen_head)],
    "no-nonlinearity": [
        lambda: Loop(
            model=nn.Sequential(nn.Linear(INPUTS, 32), nn.Linear(32, 32), nn.Linear(32, CLASSES))
        )
    ],
    "repeated-batch": [lambda: Loop(step=same_batch), lambda: Loop(batch=64, step=first_rows)],
    "unshuffled-data": [lambda: Loop(dataset=ordered(), shuffle=False, steps=64)],
    "same-order-every-epoch": [lambda: Loop(shuffle=False, steps=80)],
    "input-scale": [
        lambda: Loop(
            dataset=TensorDataset(100 * data().tensors[0] + 50, data().tensors[1]), rate=1e-5
        )
    ],
    "input-constant": [
        lambda: Loop(dataset=TensorDataset(torch.zeros(512, INPUTS), data().tensors[1]))
    ],
    "train-val-overlap": [
        lambda: Loop(
            dataset=Subset(data(), range(384)),
            after_epoch=validate_on(lambda loop: Subset(loop.dataset.dataset, range(300, 512))),
            steps=40,
        ),
        lambda: Loop(
            after_epoch=validate_on(
                lambda loop: TensorDataset(*[t[:100].clone() for t in loop.dataset.tensors])
            )
        ),
    ],
}
HEALTHY = {
    "cross-entropy": lambda: Loop(),
    "one activation in two places": lambda: Loop(model=shared_activation()),
    "label smoothing": lambda: Loop(
        loss=lambda out, y: F.cross_entropy(out, y, label_smoothing=0.1)
    ),
    "log-softmax and nll": lambda: Loop(model=mlp(CLASSES, nn.LogSoftmax(1)), loss=F.nll_loss),
    "log of softmax and nll": lambda: Loop(loss=lambda out, y: F.nll_loss(out.softmax(1).log(), y)),
    "distillation": lambda: Loop(
        loss=lambda out, y: F.kl_div(
            F.log_softmax(out / 2, 1), F.one_hot(y, CLASSES).float(), reduction="batchmean"
        )
    ),
    "binary with logits": lambda: Loop(
        model=mlp(1), loss=flat(F.binary_cross_entropy_with_logits), dataset=binary()
    ),
    "binary with sigmoid": lambda: Loop(
        model=mlp(1, nn.Sigmoid()), loss=flat(F.binary_cross_entropy), dataset=binary()
    ),
    "squared error": lambda: Loop(model=mlp(1), loss=flat(F.mse_loss), dataset=regression()),
    "one target for all": lambda: Loop(
        model=mlp(1), loss=lambda out, y: F.l1_loss(out, torch.zeros(1)), dataset=regression()
    ),
    "prediction expanded by hand": lambda: Loop(
        model=mlp(1),
        loss=lambda out, y: F.mse_loss(out.expand(-1, 3), y[:, None].expand(-1, 3)),
        dataset=regression(),
    ),
    "sigmoid to targets within": lambda: Loop(
        model=mlp(1, nn.Sigmoid()), loss=flat(F.mse_loss), dataset=binary()
    ),
    "accumulation": lambda: Loop(step=lambda loop, x, y: accumulate(loop, x, y)),
    "clipping and a scheduler": lambda: Loop(
        step=steps(zero, forward, backward, clip, step, schedule)
    ),
    "scaler, unscale, clip": lambda: Loop(step=scaled(True)),
    "float16 with a scaler": lambda: Loop(step=half_precision(True)),
    "dropout, evaluated rightly": lambda: Loop(
        model=mlp(dropout=0.3), after_epoch=evaluate(True), steps=64
    ),
    "frozen norm in evaluation mode": lambda: with_norm(True),
    "frozen layer that was trained": lambda: Loop(before=trained_then_frozen),
    "zero head": lambda: Loop(before=lambda loop: nn.init.zeros_(loop.model[-1].weight)),
    "LBFGS": lambda: Loop(optimizer=lambda p: torch.optim.LBFGS(p, 0.01), step=closure, steps=10),
    "Adam": lambda: Loop(optimizer=lambda p: ADAM(p, 1e-3)),
    "whole data at once": lambda: Loop(batch=512),
    "overfit test": lambda: Loop(step=same_batch, tags=("overfit-test",)),
    "disjoint split": lambda: Loop(
        dataset=Subset(data(), range(384)),
        after_epoch=validate_on(lambda loop: Subset(loop.dataset.dataset, range(384, 512))),
    ),
    "autograd.grad by hand": lambda: Loop(step=by_hand),
    "concatenated data": lambda: Loop(dataset=ConcatDataset([data(), data(64, 5)])),
}


def accumulate(loop, x, y):
    for part in range(0, len(x), 8):
        (loop.loss(loop.model(x[part : part + 8]), y[part : part + 8]) / 4).backward()
    loop.opt.step()
    loop.opt.zero_grad()


def closure(loop, x, y):
    def compute():
        loop.opt.zero_grad()
        loss = loop.loss(loop.model(x), y)
        loss.backward()
        return loss

    loop.opt.step(compute)


def by_hand(loop, x, y):
    parameters = list(loop.model.parameters())
    gradients = torch.autograd.grad(loop.loss(loop.model(x), y), parameters)
    for parameter, gradient in zip(parameters, gradients, strict=True):
        parameter.grad = gradient
    loop.opt.step()


CASES = [(rule, i) for rule, makers in SICK.items() for i in range(len(makers))]


@pytest.mark.filterwarnings("ignore")  # PyTorch warns of some of these faults itself
@pytest.mark.parametrize(("rule", "index"), CASES, ids=[f"{rule}-{i}" for rule, i in CASES])
def test_a_fault_is_the_root_within_fifty_steps(rule, index, tmp_path):
    found = judge(SICK[rule][index](), tmp_path)
    assert rule in found
    roots = [f.rule for f in found.values() if f.root and f.severity != "info"]
    assert roots == [rule]
    assert found[rule].first_step <= 50


def test_a_rate_out_of_range_stands_under_what_it_does(tmp_path):
    found = judge(Loop(optimizer=lambda p: ADAM(p, 1.0)), tmp_path, interval=2)
    assert found["lr-out-of-family-range"].severity == "warning"
    assert found["lr-out-of-family-range"].cause == "update-ratio-high"


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("name", HEALTHY)
def test_a_healthy_training_is_free_of_warnings(name, tmp_path):
    found = judge(HEALTHY[name](), tmp_path)
    assert {f.rule: f.title for f in found.values() if f.severity != "info"} == {}
