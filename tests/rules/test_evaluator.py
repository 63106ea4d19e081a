"""The evaluator: every record judged once, whatever happens in between."""

import os
import signal
import subprocess
import sys
import threading
import time

import pytest

from trainvitals.app.evaluator import LEASE_S, Evaluator
from trainvitals.app.rules.engine import Engine, states_of
from trainvitals.app.settings import Settings
from trainvitals.app.store import Store
from trainvitals.hooks.wire.limits import VERSION
from trainvitals.hooks.wire.records import Batch


def send(path, run, first=0, last=None, name="run-1"):
    batch = Batch(
        version=VERSION,
        run=name,
        attempt=run.stream.attempt,
        rank=run.stream.rank,
        first=first,
        records=run.records[first:last],
    )
    with Store.open(path) as store:
        store.append(batch, received=1.0)


def stored(path, name="run-1"):
    with Store.open(path) as store:
        return store.findings(name)


@pytest.fixture
def path(tmp_path):
    return tmp_path / "trainvitals.db"


@pytest.fixture
def sick(script):
    """Gradients are carried over from step 1 on."""
    run = script()
    for step in range(40):
        run.step(step, {"loss": 1.0, "tv/grad_norm": 1.0, "tv/grad_carried": float(step > 0)})
    return run


def drain(evaluator, now):
    total = 0
    while judged := evaluator.evaluate(now):
        total += judged
    return total


def test_findings_are_those_of_the_engine(path, sick):
    send(path, sick)
    evaluator = Evaluator(path, Settings(database=path))
    assert drain(evaluator, 10.0) == len(sick.records)
    evaluator.close()
    assert stored(path) == sick.engine().findings()
    assert [finding.rule for finding in stored(path)] == ["grad-not-zeroed"]


def test_a_crashed_evaluator_is_continued_by_another(path, sick):
    send(path, sick, 0, 20)
    first = Evaluator(path, Settings(database=path))
    drain(first, 10.0)
    send(path, sick, 20)
    second = Evaluator(path, Settings(database=path))
    later = 10.0 + LEASE_S + 1
    assert drain(second, later) == len(sick.records) - 20
    first.close()
    second.close()
    assert stored(path) == sick.engine().findings()


def test_one_that_is_to_stop_ends_after_a_record_and_the_next_goes_on_there_at_once(
    path, sick, monkeypatch
):
    send(path, sick, name="run-1")
    send(path, sick, name="run-2")
    stop, feed = threading.Event(), Engine.feed

    def feed_ten(self, stream, record):
        if record.seq == 9:
            stop.set()
        feed(self, stream, record)

    monkeypatch.setattr(Engine, "feed", feed_ten)
    first = Evaluator(path, Settings(database=path), stop)
    first.evaluate(10.0)
    first.close()
    with Store.open(path) as store:
        cursors = [store.evaluation(name).cursor for name in ("run-1", "run-2")]
    assert cursors == [{f"{sick.stream.attempt}/{sick.stream.rank}": 10}, {}]
    second = Evaluator(path, Settings(database=path))
    assert drain(second, 10.0) == 2 * len(sick.records) - 10
    second.close()
    assert stored(path, "run-1") == stored(path, "run-2") == sick.engine().findings()


def test_alerts_wait_in_the_outbox_with_their_findings(path, sick):
    send(path, sick)
    evaluator = Evaluator(path, Settings(database=path))
    drain(evaluator, 10.0)
    evaluator.close()
    with Store.open(path) as store:
        row = store.take_alert("slack", 1000.0).row
    assert (row.run, row.group, row.kind) == ("run-1", "grad-not-zeroed", "open")


def test_a_state_of_another_version_is_judged_anew(path, sick, monkeypatch):
    send(path, sick, 0, 20)
    evaluator = Evaluator(path, Settings(database=path))
    drain(evaluator, 10.0)
    evaluator.close()
    monkeypatch.setattr("trainvitals.app.rules.engine.VERSION", 99)
    send(path, sick, 20)
    evaluator = Evaluator(path, Settings(database=path))
    assert drain(evaluator, 100.0) == len(sick.records)
    evaluator.close()
    assert stored(path) == sick.engine().findings()


def test_an_ended_run_whose_state_is_of_another_version_is_judged_anew_once_and_alerts_nobody(
    path, sick, monkeypatch
):
    send(path, sick)
    evaluator = Evaluator(path, Settings(database=path))
    drain(evaluator, 10.0)
    evaluator.close()
    with Store.open(path) as store:
        told = store.take_alert("slack", 1000.0)
        store.mark_delivered(told.row.id, "slack", 1000.0)
        findings = store.findings("run-1")
    monkeypatch.setattr("trainvitals.app.rules.engine.VERSION", 99)
    monkeypatch.setattr(
        "trainvitals.app.evaluator.BATCH", 15
    )  # its findings stay until all is read
    for expected in (len(sick.records), 0):
        evaluator = Evaluator(path, Settings(database=path))
        judged = 0
        for _ in range(10):
            judged += evaluator.evaluate(100.0)
            assert stored(path) == findings
        evaluator.close()
        assert judged == expected
    with Store.open(path) as store:
        assert states_of(store.evaluation("run-1").state) == sick.engine().states()
        assert store.take_alert("slack", 2000.0) is None


def test_an_ended_run_is_not_told_of_by_what_later_rules_find(path, sick, monkeypatch):
    monkeypatch.setattr("trainvitals.app.evaluator.Engine.findings", lambda self: [])
    send(path, sick)
    evaluator = Evaluator(path, Settings(database=path))
    drain(evaluator, 10.0)
    evaluator.close()
    monkeypatch.undo()
    monkeypatch.setattr("trainvitals.app.rules.engine.VERSION", 99)
    evaluator = Evaluator(path, Settings(database=path))
    assert drain(evaluator, 100.0) == 0
    assert drain(evaluator, 100.0) == len(sick.records)
    evaluator.close()
    assert [finding.rule for finding in stored(path)] == ["grad-not-zeroed"]
    with Store.open(path) as store:
        assert store.take_alert("slack", 2000.0) is None


def test_one_runs_trouble_is_not_the_others(path, sick, monkeypatch):
    feed = Engine.feed

    def break_down(self, stream, record):
        if stream.attempt == "bad":
            raise RuntimeError("a rule with a bug")
        feed(self, stream, record)

    monkeypatch.setattr(Engine, "feed", break_down)
    other = type(sick)(attempt="bad").step(0, {"loss": 1.0})
    send(path, other, name="run-0")
    send(path, sick)
    evaluator = Evaluator(path, Settings(database=path))
    drain(evaluator, 10.0)
    evaluator.close()
    assert [finding.rule for finding in stored(path)] == ["grad-not-zeroed"]


@pytest.mark.slow
@pytest.mark.parametrize("parent", [os.getpid(), 0], ids=["with its parent", "alone"])
def test_the_process_judges_until_it_is_told_to_stop(path, sick, parent):
    send(path, sick)
    command = [sys.executable, "-m", "trainvitals.app.evaluator", "--database", str(path)]
    process = subprocess.Popen([*command, "--parent", str(os.getpid() if parent else 0)])
    try:
        for _ in range(300):
            if stored(path):
                break
            time.sleep(0.1)
        assert [finding.rule for finding in stored(path)] == ["grad-not-zeroed"]
        process.send_signal(signal.SIGTERM)
        assert process.wait(30) == 0
    finally:
        process.kill()


@pytest.mark.slow
def test_the_process_ends_with_its_parent(path):
    Store.open(path).close()
    other = os.getppid()  # some process that is not the parent: as if it had gone
    command = [sys.executable, "-m", "trainvitals.app.evaluator", "--database", str(path)]
    process = subprocess.Popen([*command, "--parent", str(other)])
    try:
        assert process.wait(30) == 0
    finally:
        process.kill()
