"""Healthy trainings with all kinds of schedules and optimizers."""

import torch

from benchmarks.diagnosis import data, nets
from benchmarks.diagnosis.bases import adamw, cross_entropy, sgd
from benchmarks.diagnosis.healthy import healthy
from benchmarks.diagnosis.training import Training

Schedules = torch.optim.lr_scheduler


def _training(model, optimizers, **more) -> Training:
    return Training(model, optimizers, data.digits(), cross_entropy, **more)


def _scheduled(make, steps=500, optimizer=sgd, lr=0.05) -> Training:
    model = nets.mlp(64, 10)
    optimizers = optimizer(model, lr)
    return _training(model, optimizers, scheduler=make(optimizers[0]), steps=steps)


@healthy
def cosine_schedule():
    return _scheduled(lambda o: Schedules.CosineAnnealingLR(o, 500))


@healthy
def one_cycle():
    return _scheduled(lambda o: Schedules.OneCycleLR(o, 0.1, total_steps=500))


@healthy
def warm_restarts():
    return _scheduled(lambda o: Schedules.CosineAnnealingWarmRestarts(o, 100))


@healthy
def warm_up_stable_decay():
    def shape(step):
        return min(1.0, (step + 1) / 50) * (1.0 if step < 400 else (500 - step) / 100)

    return _scheduled(lambda o: Schedules.LambdaLR(o, shape), optimizer=adamw, lr=3e-3)


@healthy
def step_decay():
    return _scheduled(lambda o: Schedules.MultiStepLR(o, [200, 350]), lr=0.1)


@healthy
def cyclic_rate():
    return _scheduled(lambda o: Schedules.CyclicLR(o, 0.005, 0.1, step_size_up=60))


def _optimizer(kind, lr, **more) -> Training:
    model = nets.mlp(64, 10, width=48)
    return _training(model, [kind(model.parameters(), lr=lr, **more)])


@healthy
def rmsprop():
    return _optimizer(torch.optim.RMSprop, 1e-3)


@healthy
def adagrad():
    return _optimizer(torch.optim.Adagrad, 0.03)


@healthy
def adadelta():
    return _optimizer(torch.optim.Adadelta, 1.0)


@healthy
def nadam():
    return _optimizer(torch.optim.NAdam, 2e-3)


@healthy
def adamax():
    return _optimizer(torch.optim.Adamax, 2e-3)


@healthy
def amsgrad():
    return _optimizer(torch.optim.Adam, 1e-3, amsgrad=True)


@healthy
def adam_with_a_large_eps():
    return _optimizer(torch.optim.Adam, 5e-3, eps=1e-3)


@healthy
def weight_decay_to_equilibrium():
    return _optimizer(torch.optim.AdamW, 3e-3, weight_decay=0.5)
