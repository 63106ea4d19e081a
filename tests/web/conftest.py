"""An app on an empty database, and batches to send to it."""

import numpy as np
import pytest

from trainvitals.app.settings import Settings
from trainvitals.app.web import create_app, frames, sharing
from trainvitals.hooks.wire.codec import encode_batch, pack_floats
from trainvitals.hooks.wire.columns import ACTIVATION
from trainvitals.hooks.wire.records import Batch, End, Event, Layout, Row, Sample, Start, Step

BATCH = "application/vnd.trainvitals.batch"
COLUMNS = [column.key for column in ACTIVATION]


class Clock:
    """A monotonic clock that stands still until it is set."""

    def __init__(self) -> None:
        self.now = 100.0

    def monotonic(self) -> float:
        return self.now


@pytest.fixture
def clock(monkeypatch):
    clock = Clock()
    monkeypatch.setattr(sharing, "time", clock)
    monkeypatch.setattr(frames, "time", clock)
    return clock


@pytest.fixture
def make_app(tmp_path):
    """Make an app with the given settings; every one shares one database."""
    made = []

    def make(**settings):
        app = create_app(Settings(database=tmp_path / "trainvitals.db", **settings))
        made.append(app)
        return app

    yield make
    for app in made:
        app.extensions["trainvitals_store"].close()


@pytest.fixture(scope="module")
def open_app():
    """Open an app on a database for all tests of a file, none of which changes what is in it."""
    opened = []

    def make(path, **settings):
        opened.append(create_app(Settings(database=path, **settings)))
        return opened[-1]

    yield make
    for app in opened:
        app.extensions["trainvitals_store"].close()


@pytest.fixture(scope="module")
def anyone(open_app, tmp_path_factory):
    """A client of an app without runs, which none of its tests sends."""
    return open_app(tmp_path_factory.mktemp("empty") / "trainvitals.db").test_client()


@pytest.fixture
def client(make_app):
    return make_app().test_client()


@pytest.fixture(scope="session")
def batch():
    """Make a batch: a start, a layout of two layers, then steps; parts of it from `first` on."""

    def make(run="run-1", attempt="a1", rank=0, first=0, count=12, *, end=None, records=None):
        if records is None:
            stream = [
                Start(seq=0, time=1e9, project="digits", name="a name", config={"lr": 1e-3}),
                Layout(
                    seq=1,
                    time=1e9,
                    step=0,
                    group=0,
                    kind="activation",
                    rows=[
                        Row(name="fc1", layer="fc1", type="Linear"),
                        Row(name="fc2", layer="fc2"),
                    ],
                    columns=COLUMNS,
                ),
            ]
            for seq in range(2, first + count):
                values = np.full((2, len(COLUMNS)), float(seq), np.float32)
                stream.append(
                    Step(
                        seq=seq,
                        time=1e9 + seq,
                        step=seq - 2,
                        scalars={"loss": 1.0 / seq},
                        samples=[Sample(group=0, values=pack_floats(values))],
                    )
                )
            records = stream[first : first + count]
            if end is not None:
                records[-1] = End(
                    seq=first + count - 1, time=1e9 + 999, step=first + count - 3, status=end
                )
        return Batch(version=1, run=run, attempt=attempt, rank=rank, first=first, records=records)

    return make


@pytest.fixture
def send(client, batch):
    """Send a batch (see `batch`), return the response."""

    def post(**options):
        made = batch(**options)
        return client.post(
            f"/api/v1/runs/{made.run}/batches", data=encode_batch(made), content_type=BATCH
        )

    return post


@pytest.fixture
def nan_event():
    def make(seq, step, layer="fc1"):
        return Event(
            seq=seq,
            time=1e9,
            step=step,
            kind="nonfinite",
            layer=layer,
            data={"value": float("nan")},
        )

    return make
