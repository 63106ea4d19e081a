"""The records that a training process sends, and the batch that carries them.

A stream is one (run, attempt, rank). Its records are numbered without gaps from 0, in the order in which they were
made: the server stores each number once, in order, however often it is sent.
"""

from typing import Any, Literal, TypeAlias

import msgspec

from trainvitals.hooks.wire.observed import Observed

Value: TypeAlias = str | int | float | bool | list[Any] | dict[str, Any] | None
GroupKind = Literal["activation", "parameter", "logged"]
"""A "logged" group names the histograms that the user's own code logs: one row a name, and no samples."""
HistogramKind = Literal["activation", "weight", "gradient", "logged"]
EndStatus = Literal["finished", "failed", "interrupted"]


class Start(msgspec.Struct, tag="start", frozen=True, kw_only=True, omit_defaults=True):
    """The first record of every stream: what is being trained, where."""

    seq: int
    time: float
    """Unix time, seconds, by the training machine's clock."""
    project: str
    name: str
    config: dict[str, Value] = {}
    tags: list[str] = []
    world_size: int = 1
    environment: dict[str, str] = {}
    """Host, pid, command, Python and torch version, device: shown as it is."""


class Row(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """One layer or one parameter, as a row of a group."""

    name: str
    """Dotted name: of the module in `named_modules()`, or of the parameter in `named_parameters()`.

    With several watched models each name starts with `model<index>.` from the second model on. "" is the root.
    """
    layer: str = ""
    """Dotted name of the owning layer; for an activation row the same as `name`."""
    type: str = ""
    """Class of the module ("Linear"); for a parameter the class of its layer."""
    shape: tuple[int, ...] = ()
    """Of the parameter; of the first output seen for a layer, batch included."""
    trainable: bool = True
    in_optimizer: bool = True
    """Whether any optimizer seen so far holds the parameter; True for layers."""


class Layout(msgspec.Struct, tag="layout", frozen=True, kw_only=True, omit_defaults=True):
    """Names the rows and columns of a group. A later layout of the same stream and group number replaces it.

    Rows are in forward order, as far as it was seen. A group's columns never change; a stream that needs others
    uses a new number.
    """

    seq: int
    time: float
    step: int
    group: int
    kind: GroupKind
    rows: list[Row]
    columns: list[str]


class Sample(msgspec.Struct, frozen=True, kw_only=True):
    """Statistics of every row of a group at one step."""

    group: int
    values: bytes
    """float32, little-endian, shape `(rows, columns)` of the group's layout, row by row."""


class Histograms(msgspec.Struct, frozen=True, kw_only=True):
    """Histograms of every row of a group at one step."""

    group: int
    kind: HistogramKind
    counts: bytes
    """Counts, up to 2^32 - 1, in the fixed bins of `bins`, packed by `codec.pack_counts`; a row of zeros is "none"."""


class Step(msgspec.Struct, tag="step", frozen=True, kw_only=True, omit_defaults=True):
    """What one optimizer step has to say. Several records may speak of one step."""

    seq: int
    time: float
    step: int
    scalars: dict[str, float] = {}
    """Whatever was logged, and the hooks' own scalars (`tv/...`). NaN and infinity are kept."""
    samples: list[Sample] = []
    histograms: list[Histograms] = []
    observed: Observed | None = None
    """What was seen of the loop itself. Came after version 2 began; who does not know it reads the rest."""


class Scalars(msgspec.Struct, tag="scalars", frozen=True, kw_only=True, omit_defaults=True):
    """Scalars of many steps: the same as one `Step` for each row, in their order; see `scalars`.

    A step may have several rows, and steps may go back, as in `Step` records.
    """

    seq: int
    time: float
    """When the record was written."""
    names: list[list[str]]
    """Names of the scalars in a row, for each kind of row."""
    steps: bytes
    """int64, little-endian: the step of each row."""
    values: bytes
    """float64, little-endian: the values of all rows, one row after the other. NaN and infinity are kept."""
    kinds: bytes = b""
    """uint8: the kind of each row, as a place in `names`; empty when all are of the first kind."""


class Event(msgspec.Struct, tag="event", frozen=True, kw_only=True, omit_defaults=True):
    """Something that happened at a step.

    Kinds in use: "nonfinite" (the first non-finite value; see `NonFinite`), "monitor" (the hooks met a
    problem of their own; `message` says which), "lr" (a group's learning rate jumped), "config" (`data` belongs to
    the run's configuration, from now on).
    """

    seq: int
    time: float
    step: int
    kind: str
    layer: str = ""
    message: str = ""
    data: dict[str, Value] = {}


class NonFinite(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """`Event.data` of kind "nonfinite": where the first NaN or infinity of a step came from.

    Sent at the first non-finite step and again when a step is non-finite after a finite one.
    """

    direction: Literal["input", "parameter", "forward", "loss", "backward", "update"]
    layer: str = ""
    """The first offending layer: in forward order for "forward", in backward order for "backward"."""
    parameter: str = ""
    """The first offending parameter, for "parameter", "backward" and "update"."""
    type: str = ""
    """Class of the layer."""
    nan: int = 0
    inf: int = 0
    """How many values of the offending tensor are NaN, how many infinite."""
    inputs: list[dict[str, Value]] = []
    """For "forward": shape, min, max, mean and non-finite count of each tensor that went into the layer."""
    spread: list[str] = []
    """Further layers with non-finite values in the same step, at most 50, in the order they were met."""
    spread_count: int = 0
    gradients: int = 0
    """How many parameters have a non-finite gradient at this step."""
    fingerprint: list[dict[str, Value]] = []
    """Of the step's batch, the inputs of the last call of the model: shape, dtype, and for tensors in host memory
    "crc32" of the first 1 MiB of their values as 8 hexadecimal digits. For finding the batch again."""
    rank: int = 0
    """The rank that saw it; each rank sees its own forward pass, and gradients as they are averaged."""


class End(msgspec.Struct, tag="end", frozen=True, kw_only=True, omit_defaults=True):
    """The last record of a stream that ended in good order."""

    seq: int
    time: float
    step: int
    status: EndStatus
    message: str = ""


Record: TypeAlias = Start | Layout | Step | Scalars | Event | End


class Batch(msgspec.Struct, frozen=True, kw_only=True):
    """Consecutive records of one stream. A batch without records is a heartbeat."""

    version: int
    run: str
    attempt: str
    """Id of one process life; a later attempt's id sorts after an earlier one's."""
    rank: int
    first: int
    """`seq` of the first record, or the next one to come in a heartbeat."""
    records: list[Record]
