"""What goes into the store and comes out of it: plain values, no SQL."""

from dataclasses import dataclass
from typing import Any, Generic, Literal, TypeVar, get_args

import msgspec
import numpy as np
import numpy.typing as npt

from trainvitals.hooks.wire.records import Row

T = TypeVar("T")
Floats = npt.NDArray[np.floating[Any]]
Ints = npt.NDArray[np.int64]
Shelf = Literal["active", "archived", "deleted"]
"""Where a run is kept: in sight, put away, or waiting to be purged."""
SHELVES: tuple[Shelf, ...] = get_args(Shelf)
AlertKind = Literal["open", "escalated", "reminder", "resolved"]
DeliveryState = Literal["pending", "sending", "delivered", "failed", "cancelled"]


class StoreError(Exception):
    """The database cannot be read or written, or does not accept what it was given."""


class SequenceGap(StoreError):  # noqa: N818 - reads as what it says
    """Records are missing before a batch."""

    def __init__(self, expected: int) -> None:
        super().__init__(f"Records are missing before this batch; expected number {expected}.")
        self.expected = expected
        """`seq` of the record that has to come next."""


class InvalidRecord(StoreError):  # noqa: N818
    """A record that does not fit its stream so far. Nothing of its batch was stored."""


class RunDeleted(StoreError):  # noqa: N818
    """The run of a batch was deleted; nothing more is stored of it."""


class Conflict(StoreError):  # noqa: N818
    """Somebody else did it meanwhile: the lease on the run is lost."""


class NotFound(StoreError):  # noqa: N818
    """There is no such run."""


class Receipt(msgspec.Struct, frozen=True):
    """What became of a batch."""

    next: int
    """`seq` of the record that is expected next: all before it are stored for good."""
    stored: int
    """How many records of the batch were new."""


class Run(msgspec.Struct, frozen=True, kw_only=True):
    """One training."""

    id: str
    project: str
    name: str
    config: dict[str, Any]
    tags: list[str]
    environment: dict[str, str]
    world_size: int
    attempts: list[str]
    """Ids of its process lives, in order."""
    created: float
    """Unix seconds."""
    last_seen: float
    """When the server last heard of it, Unix seconds by the server's clock."""
    last_step: int
    """The newest step of its newest attempt, -1 before the first."""
    status_reported: str
    """How the newest attempt said it ended: finished, failed or interrupted; "" while it has not."""
    end_message: str
    version: int
    """Grows with each stored batch and each evaluation."""
    archived: float | None = None
    """When it was put away, Unix seconds; None while it is not."""
    deleted: float | None = None
    """When it was deleted, Unix seconds; None while it is not."""


class Sign(msgspec.Struct, frozen=True):
    """A sign of life of a part of the server."""

    time: float
    """Unix seconds."""
    body: dict[str, Any]
    """What it had to say."""


class Census(msgspec.Struct, frozen=True, kw_only=True):
    """Numbers of what is stored, without what is deleted."""

    runs: dict[str, float]
    """By status."""
    records: float
    unjudged: float
    """Records that the rules have not read yet."""
    alerts: float
    """Alerts that no channel has taken yet."""
    deliveries: dict[str, float]
    """By state."""


class Stream(msgspec.Struct, frozen=True):
    """One process of a run."""

    attempt: str
    rank: int

    @property
    def key(self) -> str:
        """As it names the stream in a cursor."""
        return f"{self.attempt}/{self.rank}"


class StreamState(msgspec.Struct, frozen=True, kw_only=True):
    """How far the server has one process of a run."""

    attempt: str
    rank: int
    next: int
    """`seq` of the record that is expected next."""
    last_step: int
    """-1 before the first."""
    last_seen: float
    """When the server last heard of it, Unix seconds by the server's clock; 0 if that was before it took note."""
    status_reported: str
    """How it said it ended: finished, failed or interrupted; "" while it has not."""


class Evaluation(msgspec.Struct, frozen=True):
    """How far the rules have read a run."""

    cursor: dict[str, int]
    """`seq` of the next record to read by `Stream.key`."""
    state: bytes | None
    """As it was committed last; None before the first evaluation."""


class Card(msgspec.Struct, frozen=True, kw_only=True):
    """What the list of runs shows of one run."""

    run: str
    version: int
    """Of the run, when the card was made."""
    body: bytes
    """JSON."""


class AlertRow(msgspec.Struct, frozen=True, kw_only=True):
    """A message to send, as it waits in the outbox."""

    id: str
    """Unique; a second row of the same id is not added."""
    run: str
    group: str
    """Key of the root finding it is about."""
    kind: AlertKind
    created: float
    """Unix seconds."""
    not_before: float
    """Unix seconds; sent from then on."""


class Taken(msgspec.Struct, frozen=True, kw_only=True):
    """An alert that a sender has taken from the outbox, to send it on one channel."""

    row: AlertRow
    due: float
    """Since when it may be sent, Unix seconds: later than `row.not_before` where it was muted until then."""
    attempts: int
    """Tries, this one included."""
    uncertain: bool
    """Whether an earlier sender was stopped in the middle of it, so that it may have been sent already."""


class Handling(msgspec.Struct, frozen=True, kw_only=True):
    """What people said of a finding."""

    acknowledged: float | None = None
    """When, Unix seconds."""
    first_step: int | None = None
    """Onset of what was acknowledged: when the finding comes back later, it is not acknowledged again."""
    muted_until: float | None = None
    """Unix seconds; may be over."""


class Silence(msgspec.Struct, frozen=True, kw_only=True):
    """A time in which nothing was heard of a run, or of one of its ranks."""

    run: str
    rank: int
    """-1 for the whole run."""
    since: float
    """When it was heard of last, Unix seconds by the server's clock."""
    step: int
    """The last step before, -1 for none."""
    heard: float | None = None
    """When it was heard of again, or was known to have ended; None while it is silent."""


class Delivery(msgspec.Struct, frozen=True, kw_only=True):
    """A line of the delivery log: one alert on one channel."""

    id: str
    run: str
    group: str
    kind: AlertKind
    created: float
    """When the alert came into being, Unix seconds."""
    channel: str
    state: DeliveryState
    """pending: failed so far, to be tried again; sending: being tried; failed: given up."""
    attempts: int
    error: str
    """What went wrong at the last try, "" for nothing."""
    updated: float
    """When it was last tried, Unix seconds."""
    retry_at: float | None
    """When it is tried again, Unix seconds; None for never."""


@dataclass(frozen=True, slots=True)
class Series:
    """One number over the steps, in n buckets in rising order. Buckets without a record are left out.

    min, max and mean are over a bucket's finite values, NaN where there is none; last is the last value, which
    may be NaN or infinite.
    """

    steps: Ints
    """First step of each bucket; shape (n,)."""
    min: Floats
    max: Floats
    mean: Floats
    last: Floats
    nonfinite: Ints
    """How many values were NaN or infinite."""


@dataclass(frozen=True, slots=True)
class Matrix:
    """One statistic of all layers or parameters over the steps, in b buckets."""

    rows: list[Row]
    steps: Ints
    """First step of each bucket; shape (b,)."""
    min: Floats
    """float32, shape (rows, b), over finite values; NaN where there is none. The same for max and mean."""
    max: Floats
    mean: Floats
    nonfinite: Ints
    """How many values were NaN or infinite; shape (rows, b)."""
    recorded: npt.NDArray[np.bool_]
    """Where there was any value, NaN included; shape (rows, b)."""


@dataclass(frozen=True, slots=True)
class News(Generic[T]):
    """What changed in an answer since a cursor."""

    data: T
    """Buckets from the first one that changed on."""
    cursor: str
    """To ask with next time."""
    whole: bool
    """Whether `data` is the whole answer: at the first time, and whenever buckets became wider or steps were recorded
    anew. If not, it takes the place of what is known from its first step on, and the rest stays."""


@dataclass(frozen=True, slots=True)
class HistogramSeries:
    """Histograms of one layer or parameter over the steps."""

    steps: Ints
    """Shape (n,), rising."""
    counts: Ints
    """Shape (n, bins.BINS)."""
