"""The same records give the same findings, however they come: over spools of real trainings."""

import random

import pytest
import torch

from benchmarks.diagnosis.corpus import CASES
from benchmarks.diagnosis.training import run
from trainvitals.app.evaluator import Evaluator
from trainvitals.app.rules.engine import Engine
from trainvitals.app.settings import Settings
from trainvitals.app.store import Store
from trainvitals.hooks import spool
from trainvitals.hooks.wire.limits import VERSION
from trainvitals.hooks.wire.records import Batch, Event

STORED = ("rate-jumps@mlp-sgd", "nan-in-the-data@regression", "layer-left-out@tabular")


@pytest.fixture(scope="module", params=STORED)
def stream(request, tmp_path_factory):
    """(meta, records) of a sick training of 220 steps."""
    folder = tmp_path_factory.mktemp("spool")
    torch.manual_seed(0)
    training = CASES[request.param].build()
    training.steps = 220
    run(training, folder, seed=0, interval=None)
    (found,) = spool.find_streams(folder / ".trainvitals")
    return spool.read_meta(found), list(spool.read_stream(found))


def fed(meta, records, engine=None):
    engine = engine or Engine()
    for record in records:
        engine.feed(meta, record)
    return engine


def test_the_stored_training_is_found_sick(stream):
    assert any(finding.severity == "critical" for finding in fed(*stream).findings())


@pytest.mark.slow
def test_a_crash_of_the_evaluator_at_any_record_changes_nothing(stream):
    meta, records = stream
    whole = fed(meta, records)
    cuts = (
        range(len(records))
        if len(records) < 60
        else random.Random(0).sample(range(len(records)), 60)
    )
    engine, read = Engine(), 0
    for cut in sorted(cuts):
        saved = fed(meta, records[read:cut], engine).save()
        read = cut
        fed(meta, records[cut : cut + 5], Engine.load(saved))  # judged, and lost with the crash
        again = fed(meta, records[cut:], Engine.load(saved))
        assert again.findings() == whole.findings()
        assert again.states() == whole.states()


def test_live_in_batches_and_replayed_are_the_same(stream, tmp_path):
    meta, records = stream
    whole = fed(meta, records).findings()
    generator, path = random.Random(1), tmp_path / "tv.db"
    with Store.open(path) as store:
        evaluator = Evaluator(path, Settings.from_env(database=path))
        first, now = 0, 1.0
        while first < len(records):
            size = generator.randint(1, 40)
            some = records[first : first + size]
            store.append(
                Batch(
                    version=VERSION,
                    run=meta.run,
                    attempt=meta.attempt,
                    rank=0,
                    first=first,
                    records=some,
                ),
                now,
            )
            first, now = first + len(some), now + 1.0
            evaluator.evaluate(now)
            if generator.random() < 0.3:  # another process takes over
                evaluator.close()
                now += 60.0
                evaluator = Evaluator(path, Settings.from_env(database=path))
        evaluator.evaluate(now + 60.0)
        evaluator.close()
        assert store.findings(meta.run) == whole


def test_events_of_other_ranks_may_come_at_any_time(stream):
    meta, records = stream
    others = [
        (
            rank,
            Event(
                seq=seq,
                time=1.0,
                step=step,
                kind="nonfinite",
                data={"direction": "backward", "nan": 1},
            ),
        )
        for rank, seq, step in ((1, 0, 180), (2, 0, 90), (3, 0, 180), (1, 1, 200))
    ]

    def mixed(seed):
        generator, engine, left = random.Random(seed), Engine(), list(others)
        for record in records:
            while left and generator.random() < 0.05:
                rank, event = left.pop(0)
                engine.feed(meta.__class__(**_fields(meta) | {"rank": rank}), event)
            engine.feed(meta, record)
        for rank, event in left:
            engine.feed(meta.__class__(**_fields(meta) | {"rank": rank}), event)
        return engine.findings()

    answers = [mixed(seed) for seed in range(4)]
    assert all(answer == answers[0] for answer in answers)


def _fields(meta):
    return {name: getattr(meta, name) for name in meta.__struct_fields__}
