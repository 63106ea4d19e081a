"""What figures are made from: the shapes that the store reads, without the store."""

from typing import Any, Protocol

import msgspec
import numpy as np
import numpy.typing as npt

Floats = npt.NDArray[np.floating[Any]]
Ints = npt.NDArray[np.integer[Any]]
Flags = npt.NDArray[np.bool_]
Figure = dict[str, Any]


class SeriesLike(Protocol):
    """A scalar in n buckets of steps; every array has shape `(n,)`, `steps` is each bucket's first."""

    @property
    def steps(self) -> Ints: ...
    @property
    def min(self) -> Floats: ...
    @property
    def max(self) -> Floats: ...
    @property
    def mean(self) -> Floats: ...
    @property
    def last(self) -> Floats: ...
    @property
    def nonfinite(self) -> Ints: ...


class MatrixLike(Protocol):
    """One statistic of all rows in b buckets of steps; arrays `(rows, b)`, `steps` `(b,)`."""

    @property
    def steps(self) -> Ints: ...
    @property
    def min(self) -> Floats: ...
    @property
    def max(self) -> Floats: ...
    @property
    def mean(self) -> Floats: ...
    @property
    def nonfinite(self) -> Ints: ...


class Mark(msgspec.Struct, frozen=True):
    """A vertical line in every chart: something that happened at a step."""

    step: int
    label: str
    color: str = "--muted"
    row: int = 0
    """Of its label, above the chart, from below."""
    anchor: str = "center"
    """Which end of the label is at the line: left, center or right."""
