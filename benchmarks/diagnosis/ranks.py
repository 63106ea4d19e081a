"""Trainings on two ranks: replicas that drift apart, ranks that train on the same batches, and healthy ones."""

from collections.abc import Callable
from dataclasses import replace

import torch
import torch.distributed as dist
from torch import nn
from torch.distributed.algorithms.ddp_comm_hooks.default_hooks import fp16_compress_hook
from torch.nn.parallel import DistributedDataParallel

from benchmarks.diagnosis.bases import BASES
from benchmarks.diagnosis.case import Case
from benchmarks.diagnosis.faults import Faults
from benchmarks.diagnosis.training import Training

RANKS = 2
STEPS = 300
_faults = Faults("deterministic")
_healthy: dict[str, Callable[[], Training]] = {}


def _on_ranks(base: str, *prepare: Callable[[Training, int], None]) -> Training:
    training = BASES[base]()
    training.steps = STEPS
    training.on_ranks += prepare
    return training


def apart(*bases: str, **more: object):
    """Register what the decorated function does to each rank as a fault of the weights."""

    def register(prepare: Callable[[Training, int], None]):
        _faults.into(
            *bases,
            roots=("rank-params-diverged",),
            steps=STEPS,
            name=prepare.__name__.replace("_", "-"),
            **more,
        )(lambda t: t.on_ranks.append(prepare))
        return prepare

    return register


def alike(*bases: str):
    """The same as a fault of the data."""

    def register(prepare: Callable[[Training, int], None]):
        _faults.into(
            *bases,
            roots=("rank-duplicate-data",),
            steps=STEPS,
            name=prepare.__name__.replace("_", "-"),
        )(lambda t: t.on_ranks.append(prepare))
        return prepare

    return register


def together(base: str):
    """Register what the decorated function does to each rank as healthy."""

    def register(prepare: Callable[[Training, int], None]):
        name = f"healthy-ranks-{prepare.__name__.replace('_', '-')}"
        _healthy[name] = lambda: _on_ranks(base, prepare)
        return prepare

    return register


# Weights that drift apart


@apart("mlp-sgd", "transformer", "tabular")
def inner_module_is_called(t, rank):
    usual = t.loss
    t.loss = lambda model, x, y: usual(getattr(model, "module", model), x, y)


@apart("mlp-adam", "cnn-sgd", "regression")
def gradients_never_averaged(t, rank):
    def update(t, x, y, step):
        with t.model.no_sync():
            return t.step(x, y)

    t.update = update


@apart("mlp-sgd", "recurrent", "residual", onset=None)
def one_rank_skips_large_losses(t, rank):
    worst = []

    def update(t, x, y, step):
        loss = t.loss(t.model, x, y)
        t.optimizers[0].zero_grad()
        loss.backward()
        worst.append(float(loss.detach()))
        if step < 20 or worst[-1] < sorted(worst[-20:])[18]:
            t.optimizers[0].step()
        return loss

    t.update = update


@apart("mlp-sgd", "mlp-adam", "regression", places=("head*",))
def unfrozen_behind_the_wrapper(t, rank):
    inner = t.model.module
    inner.head.requires_grad_(False)
    t.model = DistributedDataParallel(inner)
    inner.head.requires_grad_(True)


@apart("transformer", "tabular", "recurrent")
def weights_loaded_on_one_rank(t, rank):
    """Another start, of the same scale."""
    if rank == 0:
        torch.manual_seed(99)
        for parameter in t.model.module.parameters():
            parameter.data = parameter.data[torch.randperm(len(parameter))]


# Ranks on the same batches


@alike("mlp-sgd", "cnn-adam", "characters")
def every_rank_reads_all_data(t, rank):
    t.order = lambda n, generator: torch.randperm(n, generator=generator)


@alike("tabular", "transformer", "regression")
def sampler_of_the_first_rank_on_all(t, rank):
    t.order = lambda n, generator: torch.randperm(n, generator=generator)[::RANKS]


# Healthy ones


@together("mlp-sgd")
def accumulating(t, rank):
    def update(t, x, y, step):
        t.optimizers[0].zero_grad()
        with t.model.no_sync():
            (t.loss(t.model, x[:16], y[:16]) / 2).backward()
        loss = t.loss(t.model, x[16:], y[16:]) / 2
        loss.backward()
        t.optimizers[0].step()
        return 2 * loss

    t.update = update


@together("cnn-adam")
def with_batch_statistics_of_their_own(t, rank):
    t.model = DistributedDataParallel(t.model.module, broadcast_buffers=False)


@together("mlp-adam")
def sharing_the_optimizer(t, rank):
    from torch.distributed.optim import (
        ZeroRedundancyOptimizer,
    )  # warns of its own use of TorchScript

    t.optimizers = [ZeroRedundancyOptimizer(t.model.parameters(), torch.optim.Adam, lr=1e-3)]


@together("residual")
def compressing_gradients(t, rank):
    t.model.register_comm_hook(None, fp16_compress_hook)


@together("recurrent")
def watched_inside(t, rank):
    t.watched = [t.model.module]


@together("mlp-adam")
def each_on_its_own(t, rank):
    """Two trainings that share a launch: nothing is averaged, and nothing is meant to be."""
    torch.manual_seed(rank)
    t.model = t.model.module
    for module in t.model.modules():
        if isinstance(module, nn.Linear):
            module.reset_parameters()


@together("regression")
def averaged_by_hand(t, rank):
    t.model = t.model.module

    def update(t, x, y, step):
        loss = t.loss(t.model, x, y)
        t.optimizers[0].zero_grad()
        loss.backward()
        for parameter in t.model.parameters():
            dist.all_reduce(parameter.grad)
            parameter.grad /= RANKS
        t.optimizers[0].step()
        return loss

    t.update = update


def _cases() -> tuple[Case, ...]:
    """Under names of their own: "fault@ranks-base"; each base has its twin on two ranks."""
    faults = [replace(case, name=case.name.replace("@", "@ranks-")) for case in _faults.cases]
    bases = dict.fromkeys(case.name.split("@ranks-")[1] for case in faults)
    twins = [
        Case(f"twin@ranks-{base}", "twin", lambda base=base: _on_ranks(base)) for base in bases
    ]
    healthy = [Case(name, "healthy", build) for name, build in _healthy.items()]
    return tuple(replace(case, ranks=RANKS) for case in (*faults, *twins, *healthy))


CASES = _cases()
