"""Real data that comes with scikit-learn and Python, as tensors, standardised and split once for all."""

from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from pydoc_data import topics

import numpy as np
import torch
from sklearn import datasets
from torch import Tensor

VOCABULARY = 64
"""Characters that are told apart; rarer ones are all the same."""
CONTEXT = 24
"""Characters of a training text."""


@dataclass(frozen=True)
class Data:
    """Inputs `(n, ...)` and targets `(n,)` or `(n, 1)` of the two splits."""

    x: Tensor
    y: Tensor
    x_val: Tensor
    y_val: Tensor
    classes: int
    """0 for real-valued targets."""


def _split(x: np.ndarray, y: Tensor, classes: int) -> Data:
    order = np.random.default_rng(0).permutation(len(x))
    cut = int(0.8 * len(x))
    train, val = order[:cut], order[cut:]
    inputs = torch.tensor(x, dtype=torch.float32)
    return Data(inputs[train], y[train], inputs[val], y[val], classes)


def _standard(x: np.ndarray) -> np.ndarray:
    return (x - x.mean(0)) / (x.std(0) + 1e-8)


@cache
def digits() -> Data:
    """1797 images of 8 by 8 as vectors `(64,)`, ten classes."""
    found = datasets.load_digits()
    return _split((found.data - found.data.mean()) / found.data.std(), _classes(found.target), 10)


@cache
def wine() -> Data:
    """178 samples of 13 numbers, three classes."""
    found = datasets.load_wine()
    return _split(_standard(found.data), _classes(found.target), 3)


@cache
def cancer() -> Data:
    """569 samples of 30 numbers, two classes as targets 0.0 and 1.0 of shape `(n, 1)`."""
    found = datasets.load_breast_cancer()
    y = torch.tensor(found.target, dtype=torch.float32)[:, None]
    return _split(_standard(found.data), y, 2)


@cache
def diabetes() -> Data:
    """442 samples of 10 numbers, a standardised real target of shape `(n, 1)`."""
    found = datasets.load_diabetes()
    y = torch.tensor(found.target, dtype=torch.float32)[:, None]
    return _split(_standard(found.data), (y - y.mean()) / y.std(), 0)


@cache
def text() -> Data:
    """Pieces of Python's own reference: characters `(CONTEXT,)`, and the ones that follow each."""
    whole = "\n".join(topics.topics[name] for name in sorted(topics.topics))[:200_000]
    common = sorted(set(whole), key=lambda c: (-whole.count(c), c))[: VOCABULARY - 1]
    number = {character: index + 1 for index, character in enumerate(common)}
    codes = np.array([number.get(character, 0) for character in whole])
    pieces = np.lib.stride_tricks.sliding_window_view(codes, CONTEXT + 1)[::CONTEXT]
    cut = int(0.9 * len(pieces))
    order = np.random.default_rng(0).permutation(cut)
    train, val = (torch.tensor(p, dtype=torch.long) for p in (pieces[:cut][order], pieces[cut:]))
    return Data(train[:, :-1], train[:, 1:], val[:, :-1], val[:, 1:], VOCABULARY)


def _classes(target: np.ndarray) -> Tensor:
    return torch.tensor(target, dtype=torch.long)


DATA: dict[str, Callable[[], Data]] = {
    "digits": digits,
    "wine": wine,
    "cancer": cancer,
    "diabetes": diabetes,
    "text": text,
}
