"""Findings to outbox rows."""

import pytest

from trainvitals.app.alerts.plan import plan


def kinds(rows):
    return [(row.group, row.kind) for row in rows]


def test_a_new_root_opens_one_group(finding):
    (row,) = plan("run-1", [], [finding("nan:fc1", severity="critical")], 1000.0)
    assert (row.run, row.group, row.kind) == ("run-1", "nan:fc1", "open")
    assert row.created == 1000.0
    assert row.not_before == 1002.0


def test_a_warning_waits_longer_for_its_consequences(finding):
    (row,) = plan("run-1", [], [finding()], 1000.0)
    assert row.not_before == 1015.0


def test_consequences_and_remarks_open_nothing(finding):
    after = [
        finding("a", severity="critical"),
        finding("b", severity="critical", root=False, cause="a"),
        finding("c", severity="info"),
    ]
    assert kinds(plan("run-1", [], after, 0.0)) == [("a", "open")]


def test_what_stays_as_it_is_says_nothing(finding):
    assert plan("run-1", [finding()], [finding(last_step=500)], 0.0) == []


def test_planning_the_same_change_again_makes_the_same_ids(finding):
    first = plan("run-1", [], [finding()], 1000.0)
    second = plan("run-1", [], [finding(last_step=999)], 2000.0)
    assert [row.id for row in first] == [row.id for row in second]


def test_a_worse_severity_is_told_once_under_an_id_of_its_own(finding):
    (opened,) = plan("run-1", [], [finding()], 0.0)
    (worse,) = plan("run-1", [finding()], [finding(severity="critical")], 1.0)
    assert worse.kind == "escalated"
    assert worse.id != opened.id
    assert plan("run-1", [finding(severity="critical")], [finding()], 2.0) == []


def test_a_remark_that_becomes_a_warning_opens(finding):
    assert kinds(plan("run-1", [finding(severity="info")], [finding()], 0.0)) == [
        ("dead_units:fc1", "open")
    ]


def test_a_resolved_root_is_told_after_its_opening(finding):
    (opened,) = plan("run-1", [], [finding()], 1000.0)
    (closed,) = plan("run-1", [finding()], [finding(state="resolved")], 1000.0)
    assert closed.kind == "resolved"
    assert closed.not_before >= opened.not_before


def test_a_root_that_comes_back_opens_again(finding):
    gone = finding(state="resolved")
    again = finding(first_step=900)
    (first,) = plan("run-1", [], [finding()], 0.0)
    (second,) = plan("run-1", [gone], [again], 9.0)
    assert second.kind == "open"
    assert second.id != first.id
    (closed,) = plan("run-1", [again], [finding(first_step=900, state="resolved")], 10.0)
    (closed_before,) = plan("run-1", [finding()], [gone], 5.0)
    assert closed.id != closed_before.id


def test_a_root_that_another_one_explains_is_closed(finding):
    demoted = finding(root=False, cause="nan:fc1")
    after = [finding("nan:fc1", severity="critical"), demoted]
    assert kinds(plan("run-1", [finding()], after, 0.0)) == [
        ("nan:fc1", "open"),
        ("dead_units:fc1", "resolved"),
    ]


def test_a_consequence_that_outlives_its_root_opens(finding):
    before = [finding("a"), finding("b", root=False, cause="a")]
    after = [finding("a", state="resolved"), finding("b")]
    assert kinds(plan("run-1", before, after, 0.0)) == [("a", "resolved"), ("b", "open")]


@pytest.mark.parametrize(
    ("severity", "told"), [("critical", ["open", "resolved"]), ("warning", [])]
)
def test_a_critical_root_that_came_and_went_between_two_looks_is_told(finding, severity, told):
    missed = finding(severity=severity, state="resolved")
    assert [row.kind for row in plan("run-1", [], [missed], 0.0)] == told
    assert plan("run-1", [missed], [missed], 1.0) == []


def test_an_acknowledged_finding_says_nothing_until_it_is_not_any_more(finding):
    known = finding(severity="critical", acknowledged="until 2999-01-01")
    gone = finding(severity="critical", acknowledged="until 2999-01-01", state="resolved")
    assert plan("run-1", [], [known], 0.0) == []
    assert plan("run-1", [], [gone], 0.0) == []
    assert plan("run-1", [finding()], [known], 0.0) == []
    assert [row.kind for row in plan("run-1", [known], [finding(severity="critical")], 0.0)] == [
        "open"
    ]
