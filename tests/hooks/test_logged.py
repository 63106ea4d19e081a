"""What people log besides numbers, and steps that go on from a checkpoint."""

import numpy as np
import torch

import trainvitals.hooks as tv
from trainvitals.hooks.wire import codec
from trainvitals.hooks.wire.bins import bin_of
from trainvitals.hooks.wire.records import Step


def shapes(read):
    """Step to name to counts, shape `(bins,)`, of the logged histograms; names without any are left out."""
    found = {}
    for record in read.records:
        for histogram in record.histograms if isinstance(record, Step) else ():
            assert histogram.kind == "logged"
            names = [row.name for row in names_at(read, record)]
            counts = codec.unpack_counts(histogram.counts, len(names))
            found[record.step] = {n: c for n, c in zip(names, counts, strict=True) if c.any()}
    return found


def names_at(read, record):
    return [layout for layout in read.layouts("logged") if layout.seq < record.seq][-1].rows


def test_histograms_of_one_step_travel_together_and_names_once(recorded):
    run = tv.init()
    values = np.random.default_rng(0).normal(0, 3, (10, 20)).astype(np.float32)
    for step in range(3):
        run.log_histogram("a", values * (step + 1), step)
        run.log_histogram("b", torch.tensor([0.0, -1.0, float("inf")]), step)
    run.log_histogram("late", [1, 2, 3], 2)
    read = recorded()
    found = shapes(read)
    assert len([r for r in read.records if isinstance(r, Step) and r.histograms]) == 3
    assert [len(layout.rows) for layout in read.layouts("logged")] == [2, 3]
    for step in range(3):
        expected = np.bincount(bin_of((values * (step + 1)).reshape(-1)), minlength=96)
        assert found[step]["a"].tolist() == expected.tolist()
        assert found[step]["b"].sum() == 2  # infinity is in no bin
    assert found[2]["late"].tolist() == np.bincount(bin_of([1, 2, 3]), minlength=96).tolist()
    assert "late" not in found[1]


def test_what_is_no_histogram_is_reported_not_raised(recorded):
    run = tv.init()
    run.log_histogram("text", "hello", 0)
    run.log_histogram("waves", torch.ones(3, dtype=torch.complex64), 0)
    read = recorded()
    assert len(read.events("monitor")) == 2
    assert shapes(read) == {}


def test_a_run_that_resumes_counts_on_from_there(recorded, train):
    model = torch.nn.Linear(8, 4)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    run = tv.watch(model, optimizer, interval=2)
    assert run.step is None
    run.resume_at(100)
    assert run.step is None
    train(model, optimizer, 5)
    assert (run.step, run.completed) == (104, 105)
    run.resume_at(7)
    assert run.completed == 105
    read = recorded()
    assert sorted(read.samples("parameter")) == [100, 102, 104]
    assert read.end.step == 104


def test_configuration_can_be_added_without_its_secrets(recorded):
    run = tv.init(config={"lr": 0.1})
    run.configure({"depth": 3, "api_key": "abc"})
    (event,) = recorded().events("config")
    assert event.data == {"depth": 3, "api_key": "(hidden)"}
