"""Leases, findings, the outbox."""

import pytest

from trainvitals.app.rules.finding import Finding
from trainvitals.app.store import Conflict, NotFound
from trainvitals.app.store.types import AlertRow, Evaluation

NOW = 1e9


def finding(key="loss", **fields):
    usual = {
        "key": key,
        "rule": key,
        "severity": "warning",
        "state": "firing",
        "first_step": 3,
        "last_step": 9,
        "layers": ["fc1"],
        "root": True,
        "cause": "",
        "evidence": {"seen": 1.5},
        "title": "t",
        "remedy": "r",
    }
    return Finding(**usual | fields)


def alert(key="loss", kind="open", at=NOW):
    return AlertRow(
        id=f"run-1/{key}/{kind}", run="run-1", group=key, kind=kind, created=at, not_before=at
    )


@pytest.fixture
def commit(store, sender):
    """Commit an evaluation of a run with one more record."""
    stream = sender().start()
    stream.send()

    def commit(findings=(), alerts=()):
        stream.scalars(stream.sent, loss=1.0).send()
        assert store.claim("me", 60, NOW) == ["run-1"]
        cursor = {"a1/0": stream.sent}
        store.commit_evaluation("run-1", "me", cursor, b"state", findings, alerts, NOW)

    return commit


def test_a_run_is_leased_to_one_owner_until_the_lease_ends(store, sender):
    sender().start().send()
    assert store.claim("a", 60, NOW) == ["run-1"]
    assert store.claim("b", 60, NOW + 59) == []
    assert store.claim("a", 60, NOW + 59) == ["run-1"]
    assert store.claim("b", 60, NOW + 120) == ["run-1"]
    with pytest.raises(Conflict):
        store.commit_evaluation("run-1", "a", {}, b"", [finding()], [alert()], NOW + 120)
    assert store.findings("run-1") == []
    assert store.take_alert("x", NOW + 200) is None
    store.commit_evaluation("run-1", "b", {"a1/0": 1}, b"", [], [], NOW + 120)


def test_a_run_waits_while_any_stream_has_unread_records(store, sender, commit):
    assert store.evaluation("run-1") == Evaluation({}, None)
    commit()
    assert store.claim("me", 60, NOW) == []
    assert store.evaluation("run-1") == Evaluation({"a1/0": 2}, b"state")
    sender(rank=3).start().send()
    assert store.claim("other", 60, NOW) == ["run-1"]


def test_findings_are_replaced_and_counted(store, commit):
    version = store.run("run-1").version
    firing = [finding("a", severity="critical"), finding("b"), finding("c", root=False, cause="a")]
    commit([*firing, finding("d", state="resolved")])
    assert [item.key for item in store.findings("run-1")] == ["a", "b", "c", "d"]
    assert store.findings("run-1")[0] == firing[0]
    assert store.finding_counts() == {"run-1": {"critical": 1, "warning": 1}}
    assert store.run("run-1").version > version
    commit([finding("d", state="resolved")])
    assert len(store.findings("run-1")) == 1
    assert store.finding_counts() == {}


def test_an_evaluation_of_a_deleted_run_is_refused(store, commit):
    store.delete_run("run-1", NOW)
    with pytest.raises(NotFound):
        store.commit_evaluation("run-1", "me", {}, b"", [], [], NOW)


def test_an_alert_is_added_once_and_sent_once_on_each_channel(store, commit):
    commit(alerts=[alert()])
    commit(alerts=[alert()])
    assert store.take_alert("slack", NOW - 1) is None
    assert store.take_alert("slack", NOW).row == alert()
    store.mark_delivered(alert().id, "slack", NOW)
    assert store.take_alert("slack", NOW + 1000) is None
    assert store.take_alert("mail", NOW).row == alert()


def test_an_alert_that_was_taken_is_nobody_elses_until_its_lease_ends(store, commit):
    commit(alerts=[alert()])
    first = store.take_alert("slack", NOW, lease_s=60)
    assert (first.attempts, first.uncertain) == (1, False)
    assert store.take_alert("slack", NOW + 59) is None
    again = store.take_alert("slack", NOW + 60)
    assert (again.row, again.attempts, again.uncertain) == (alert(), 2, True)


def test_a_channel_takes_its_time_between_two_alerts(store, commit):
    commit(alerts=[alert("a"), alert("b")])
    assert store.take_alert("slack", NOW, pace_s=1.0).row == alert("a")
    assert store.take_alert("slack", NOW + 0.9) is None
    assert store.take_alert("mail", NOW).row == alert("a")
    assert store.take_alert("slack", NOW + 1).row == alert("b")


def test_an_alert_from_before_a_channel_was_set_up_is_not_sent_there(store, commit):
    commit(alerts=[alert("a"), alert("a", "resolved")])
    assert store.take_alert("slack", NOW + 25 * 3600) is None
    assert store.take_alert("slack", NOW + 23 * 3600).row == alert("a")


def test_a_failed_alert_comes_back_and_holds_up_its_group_alone(store, commit):
    rows = [alert("a"), alert("b"), alert("a", "resolved")]
    commit(alerts=rows)
    assert store.take_alert("slack", NOW).row == rows[0]
    store.mark_failed(rows[0].id, "slack", NOW, "no answer", NOW + 10)
    assert store.take_alert("slack", NOW).row == rows[1]
    assert store.take_alert("slack", NOW) is None
    assert store.take_alert("slack", NOW + 10).row == rows[0]
    store.mark_failed(rows[0].id, "slack", NOW + 10, "gone", None)
    assert store.take_alert("slack", NOW + 10).row == rows[2]
    (delivery,) = store.deliveries(alert=rows[0].id)
    assert (delivery.state, delivery.attempts, delivery.error) == ("failed", 2, "gone")
    assert delivery.created == NOW
    assert store.deliveries("other") == []


def test_an_alert_is_cancelled_on_one_channel_or_on_all(store, commit):
    commit(alerts=[alert("a"), alert("b")])
    for row in (alert("a"), alert("b")):
        assert store.take_alert("slack", NOW).row == row
        store.cancel(row.id, "slack" if row == alert("a") else None)
    assert store.take_alert("slack", NOW + 1000) is None
    assert store.take_alert("mail", NOW).row == alert("a")
    assert store.take_alert("mail", NOW) is None
