"""The policy file of a running evaluator: followed, and never a reason to stop."""

import os

import pytest

from trainvitals.app import evaluator as evaluating
from trainvitals.app.evaluator import Evaluator
from trainvitals.app.policyfile import PolicyFile, in_force, read
from trainvitals.app.rules.engine import Engine
from trainvitals.app.rules.policy import DEFAULTS
from trainvitals.app.settings import Settings
from trainvitals.app.store import Store
from trainvitals.hooks.wire.limits import VERSION
from trainvitals.hooks.wire.records import Batch

OFF = "[rules.grad-not-zeroed]\nenabled = false\n"
INFO = '[rules.grad-not-zeroed]\nseverity = "info"\n'
BATCH = 50
WRONG = "[rules.grad-not-zeroed]\nenabeld = false\n"


@pytest.fixture
def file(tmp_path):
    return tmp_path / "trainvitals.toml"


@pytest.fixture
def followed(tmp_path, file):
    return lambda: PolicyFile(file, tmp_path / "trainvitals.db")


def write(file, text):
    file.write_text(text)
    later = file.stat().st_mtime_ns + 10**9  # a change within one tick of the clock is one, too
    os.utime(file, ns=(later, later))


def test_changes_are_seen_at_once_and_a_missing_file_is_the_default(file, followed):
    policy = followed()
    assert policy.current() == DEFAULTS
    write(file, OFF)
    assert policy.current().of("grad-not-zeroed").enabled is False
    write(file, INFO)
    assert policy.current().of("grad-not-zeroed").severity["critical"] == "info"
    file.unlink()
    assert policy.current() == DEFAULTS


@pytest.mark.parametrize("wrong", [WRONG, "= no toml", "[rules]\nx = 1"])
def test_a_wrong_file_leaves_the_last_good_one_in_force_also_after_a_restart(
    file, followed, wrong, caplog, tmp_path
):
    write(file, OFF)
    good = followed().current()
    write(file, wrong)
    restarted = followed()
    assert restarted.current() == good
    assert "last good one stays" in caplog.text
    assert in_force(read(file), tmp_path / "trainvitals.db") == good
    write(file, INFO)
    assert restarted.current() != good


def test_a_file_that_was_never_right_changes_nothing(file, followed):
    file.write_bytes(b"\xff\xfe\x00")
    assert followed().current() == DEFAULTS
    assert "UTF-8" in str(read(file).problems[0])


def test_a_folder_in_its_place_is_told(file):
    file.mkdir()
    assert read(file).problems and read(file).policy == DEFAULTS


# In the evaluator


@pytest.fixture
def sick(script):
    """Gradients are carried over from step 1 on."""
    run = script()
    for step in range(BATCH + 30):
        run.step(step, {"loss": 1.0, "tv/grad_norm": 1.0, "tv/grad_carried": float(step > 0)})
    return run


@pytest.fixture
def evaluator(tmp_path, file, monkeypatch):
    monkeypatch.setattr(evaluating, "BATCH", BATCH)
    path = tmp_path / "trainvitals.db"
    made = Evaluator(path, Settings(database=path, rules=file))
    yield made
    made.close()


def send(tmp_path, run, first, last=None):
    records = run.records[first:last]
    batch = Batch(version=VERSION, run="run-1", attempt="a1", rank=0, first=first, records=records)
    with Store.open(tmp_path / "trainvitals.db") as store:
        store.append(batch, received=1.0)


def stored(tmp_path):
    with Store.open(tmp_path / "trainvitals.db") as store:
        found = store.findings("run-1")
        alerts = []
        while taken := store.take_alert("slack", 1000.0):
            alerts.append(taken.row.kind)
            store.mark_delivered(taken.row.id, "slack", 1000.0)
    return [(finding.rule, finding.severity) for finding in found], alerts


def drain(evaluator):
    while evaluator.evaluate(10.0):
        pass


def test_a_run_that_goes_on_is_judged_anew_under_a_new_policy(tmp_path, file, evaluator, sick):
    send(tmp_path, sick, 0, -1)
    drain(evaluator)
    assert stored(tmp_path) == ([("grad-not-zeroed", "critical")], ["open"])
    write(file, INFO)
    drain(evaluator)
    assert stored(tmp_path)[0] == [("grad-not-zeroed", "critical")]  # nothing new came yet
    send(tmp_path, sick, len(sick.records) - 1)
    evaluator.evaluate(10.0)
    assert stored(tmp_path)[0] == [("grad-not-zeroed", "critical")]  # stays until it has caught up
    drain(evaluator)
    assert stored(tmp_path)[0] == [("grad-not-zeroed", "info")]


def test_the_findings_are_those_of_a_run_judged_under_it_from_the_start(
    tmp_path, file, evaluator, sick
):
    send(tmp_path, sick, 0, -1)
    drain(evaluator)
    write(file, "[rules.nonfinite-loss]\nrecovered = 7\n" + INFO)
    send(tmp_path, sick, len(sick.records) - 1)
    drain(evaluator)
    with Store.open(tmp_path / "trainvitals.db") as store:
        found = store.findings("run-1")
    engine = Engine(policy=read(file).policy)
    for record in sick.records:
        engine.feed(sick.stream, record)
    assert found == engine.findings() != []


def test_a_crash_while_it_is_judged_anew_repeats_nothing(tmp_path, file, evaluator, sick):
    send(tmp_path, sick, 0, -1)
    drain(evaluator)
    write(file, OFF)
    send(tmp_path, sick, len(sick.records) - 1)
    evaluator.evaluate(10.0)  # half of it, then it is gone
    path = tmp_path / "trainvitals.db"
    other = Evaluator(path, Settings(database=path, rules=file))
    while other.evaluate(10_000.0):
        pass
    other.close()
    assert stored(tmp_path)[0] == []


def test_an_acknowledged_finding_sends_nothing_and_does_not_count(tmp_path, file, evaluator, sick):
    write(file, '[[acknowledge]]\nrule = "grad-not-zeroed"\nuntil = 2999-01-01\n')
    send(tmp_path, sick, 0)
    drain(evaluator)
    assert stored(tmp_path) == ([("grad-not-zeroed", "critical")], [])
    with Store.open(tmp_path / "trainvitals.db") as store:
        assert store.finding_counts() == {}
