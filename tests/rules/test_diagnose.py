"""Diagnosing what was recorded: spool folders, databases, runs in them."""

import pytest

from trainvitals.app.diagnose import NoSuchRun, diagnose
from trainvitals.app.store import Store
from trainvitals.hooks.spool import Meta, SpoolWriter
from trainvitals.hooks.wire.codec import encode_record
from trainvitals.hooks.wire.limits import VERSION
from trainvitals.hooks.wire.records import Batch


@pytest.fixture
def sick(script):
    run = script()
    for step in range(40):
        run.step(step, {"tv/grad_carried": float(step > 0)})
    return run


def write(root, run, name):
    meta = Meta(run=name, attempt=run.stream.attempt, rank=run.stream.rank)
    writer = SpoolWriter(root, meta)
    writer.append([encode_record(record) for record in run.records])
    writer.close()
    return writer.folder


def rules(found):
    return [finding.rule for finding in found]


def test_a_spool_is_found_from_any_of_its_levels(tmp_path, sick):
    stream = write(tmp_path / ".trainvitals", sick, "r1")
    for folder in (stream, stream.parent, stream.parent.parent):
        assert rules(diagnose(folder)) == ["grad-not-zeroed"]


def test_ranks_and_attempts_are_judged_together(tmp_path, script, sick):
    write(tmp_path / ".trainvitals", sick, "r1")
    other = script(rank=1).event(3, direction="forward", layer="fc1", nan=1)
    write(tmp_path / ".trainvitals", other, "r1")
    found = rules(diagnose(tmp_path / ".trainvitals"))
    assert set(found) == {"grad-not-zeroed", "nonfinite-activation"}


def test_several_runs_must_be_told_apart(tmp_path, sick):
    for name in ("r1", "r2"):
        write(tmp_path / ".trainvitals", sick, name)
    with pytest.raises(NoSuchRun, match=r"2 runs.*r1, r2"):
        diagnose(tmp_path / ".trainvitals")


def test_an_empty_folder_and_a_foreign_file_are_refused(tmp_path):
    with pytest.raises(NoSuchRun, match="holds no recorded run"):
        diagnose(tmp_path)
    file = tmp_path / "notes.txt"
    file.write_text("hello")
    with pytest.raises(NoSuchRun, match="neither a spool folder nor a trainvitals database"):
        diagnose(file)
    with pytest.raises(NoSuchRun, match="name its database"):
        diagnose("run-7")


def fill(path, sick, *names):
    with Store.open(path) as store:
        for name in names:
            batch = Batch(
                version=VERSION, run=name, attempt="a1", rank=0, first=0, records=sick.records
            )
            store.append(batch, received=1.0)


def test_a_database_and_a_run_in_it(tmp_path, sick):
    path = tmp_path / "tv.db"
    fill(path, sick, "r1")
    assert rules(diagnose(path)) == ["grad-not-zeroed"]
    fill(path, sick, "r2")
    assert diagnose("r2", path) == diagnose("r1", path) == sick.engine().findings()
    with pytest.raises(NoSuchRun, match="2 runs"):
        diagnose(path)
    with pytest.raises(NoSuchRun, match="no run r3"):
        diagnose("r3", path)
