"""Which finding explains which."""

import itertools

from trainvitals.app.rules import RULES
from trainvitals.app.rules.arbitration import EXPLAINS, UPSTREAM, arbitrate
from trainvitals.app.rules.finding import Finding


def finding(rule, first, last=None, severity="critical", state="firing", layers=(), **evidence):
    return Finding(
        key=rule,
        rule=rule,
        severity=severity,
        state=state,
        first_step=first,
        last_step=first if last is None else last,
        layers=list(layers),
        root=True,
        cause="",
        evidence=evidence,
        title="t",
        remedy="r",
    )


def causes(*findings):
    """Rule to the rule of its root, whatever the order of the findings."""
    answers = [
        {found.rule: found.cause for found in arbitrate(list(order))}
        for order in itertools.permutations(findings)
    ]
    assert all(answer == answers[0] for answer in answers)
    return answers[0]


def test_the_table_speaks_of_known_rules_only():
    known = {rule.id for rule in RULES}
    assert set(UPSTREAM) == known
    assert set(EXPLAINS) <= known and {r for rules in EXPLAINS.values() for r in rules} <= known


def test_a_chain_leads_to_its_root():
    assert causes(
        finding("update-ratio-high", 10, rate_rose=True),
        finding("dead-relu-units", 12),
        finding("loss-stuck-at-prior", 15),
    ) == {
        "update-ratio-high": "",
        "dead-relu-units": "update-ratio-high",
        "loss-stuck-at-prior": "update-ratio-high",
    }


def test_a_nan_that_came_first_explains_what_follows():
    origin = {"rule": "nonfinite-loss"}
    found = causes(
        finding("nonfinite-loss", 50, origin=origin),
        finding("nonfinite-gradient", 50, origin=origin),
        finding("loss-divergence", 55),
    )
    assert found == {
        "nonfinite-loss": "",
        "nonfinite-gradient": "nonfinite-loss",
        "loss-divergence": "nonfinite-loss",
    }


def test_what_began_after_the_nan_did_not_cause_it():
    assert causes(finding("nonfinite-loss", 50), finding("dead-relu-units", 52)) == {
        "nonfinite-loss": "",
        "dead-relu-units": "nonfinite-loss",
    }


def test_a_note_explains_no_warning():
    assert causes(
        finding("dead-relu-units", 0, severity="info"), finding("loss-stuck-at-prior", 0)
    ) == {"dead-relu-units": "", "loss-stuck-at-prior": ""}


def test_units_that_die_explain_dead_ones_unless_those_were_dead_before():
    growth = finding("dead-units-growing", 120, clear=60)
    for known, root in ((60, growth.rule), (120, growth.rule), (180, growth.rule), (59, "")):
        found = causes(growth, finding("dead-relu-units", known, clear=0))
        assert found["dead-relu-units"] == root
        assert found["dead-units-growing"] == ("" if root else "dead-relu-units")


def test_only_the_same_layers_stand_still_for_want_of_an_optimizer():
    missing = finding("trainable-not-in-optimizer", 0, layers=["fc1"])
    assert causes(missing, finding("unchanged-parameter", 0, layers=["fc1"]))["unchanged-parameter"]
    assert not causes(missing, finding("unchanged-parameter", 0, layers=["fc2"]))[
        "unchanged-parameter"
    ]


def test_the_rate_decides_between_updates_and_gradients():
    gradient = finding("gradient-exploding", 150)
    assert causes(gradient, finding("update-ratio-high", 152, rate_rose=True)) == {
        "gradient-exploding": "update-ratio-high",
        "update-ratio-high": "",
    }
    assert causes(gradient, finding("update-ratio-high", 152, rate_rose=False)) == {
        "gradient-exploding": "",
        "update-ratio-high": "gradient-exploding",
    }


def test_a_cause_long_over_explains_nothing_new():
    over = finding("gradient-exploding", 80, last=92, state="resolved")
    assert causes(over, finding("nonfinite-loss", 392))["nonfinite-loss"] == ""
    assert causes(over, finding("nonfinite-loss", 100))["nonfinite-loss"] == "gradient-exploding"


def test_a_cause_too_late_is_none():
    late = finding("gradient-vanishing-depth", 400)
    assert causes(late, finding("loss-stuck-at-prior", 0))["loss-stuck-at-prior"] == ""


def test_a_root_that_is_over_stays_open_while_a_consequence_holds():
    over = finding("update-ratio-high", 10, 12, state="resolved", rate_rose=True)
    still = finding("dead-relu-units", 12, 400)
    gone = finding("dead-relu-units", 12, 40, state="resolved")
    assert arbitrate([over, still])[0].state == "firing"
    assert [found.state for found in arbitrate([over, gone])] == ["resolved", "resolved"]


def test_what_is_read_off_the_loop_explains_nothing_that_was_there_before_it():
    late = finding("train-mode-missing", 50)
    assert causes(late, finding("loss-divergence", 10))["loss-divergence"] == ""
    assert causes(late, finding("loss-divergence", 48))["loss-divergence"] == "train-mode-missing"
    slow = finding("dead-relu-units", 50)  # dead units are seen after many samples
    assert causes(slow, finding("loss-divergence", 10))["loss-divergence"] == "dead-relu-units"
