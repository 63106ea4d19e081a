"""A store in an empty folder, and streams of records to put into it."""

import numpy as np
import pytest

from trainvitals.app.store import Store
from trainvitals.hooks.wire.codec import pack_floats
from trainvitals.hooks.wire.records import Batch, Layout, Row, Sample, Start, Step

COLUMNS = ["std", "rms"]


class Sender:
    """Makes the records of one process and stores them."""

    def __init__(self, store, attempt="a1", rank=0, run="run-1"):
        self.store, self.attempt, self.rank, self.run = store, attempt, rank, run
        self.records = []
        self.sent = 0

    def make(self, record, /, **fields):
        self.records.append(record(seq=len(self.records), time=1e9, **fields))
        return self

    def start(self, **fields):
        return self.make(Start, **{"project": "digits", "name": "mlp"} | fields)

    def layout(self, names=("fc1", "fc2"), group=0, kind="activation", columns=COLUMNS):
        rows = [Row(name=name, layer=name) for name in names]
        return self.make(Layout, step=0, group=group, kind=kind, rows=rows, columns=list(columns))

    def sample(self, step, values, group=0, **fields):
        """values: of shape (rows, columns)."""
        sample = Sample(group=group, values=pack_floats(np.asarray(values)))
        return self.make(Step, step=step, samples=[sample], **fields)

    def scalars(self, step, **scalars):
        return self.make(Step, step=step, scalars=scalars)

    def batch(self, first, last):
        return Batch(
            version=1,
            run=self.run,
            attempt=self.attempt,
            rank=self.rank,
            first=first,
            records=self.records[first:last],
        )

    def send(self, first=None, last=None, at=1e9):
        """Store the records from `first` (by default the first not sent) to before `last` (the end)."""
        first = self.sent if first is None else first
        last = len(self.records) if last is None else last
        receipt = self.store.append(self.batch(first, last), at)
        self.sent = receipt.next
        return receipt


@pytest.fixture
def store(tmp_path):
    with Store.open(tmp_path / "deep" / "trainvitals.db") as opened:
        yield opened


@pytest.fixture
def sender(store):
    """Make a sender; by default of rank 0 of attempt a1 of run-1."""
    return lambda **options: Sender(store, **options)


@pytest.fixture(scope="session")
def sender_to():
    """Make a sender to a given store."""
    return Sender
