"""What a policy changes, and what is said of a wrong one."""

import datetime
import math
import re
from pathlib import Path
from typing import ClassVar

import msgspec
import pytest

from trainvitals.app.rules import RULES
from trainvitals.app.rules.base import Rule
from trainvitals.app.rules.engine import Engine
from trainvitals.app.rules.finding import Finding, RuleState
from trainvitals.app.rules.policy import DEFAULTS
from trainvitals.app.rules.policytext import MAX_BYTES, PolicyError, parse
from trainvitals.app.rules.thresholds import Positive, Threshold, thresholds, tuned
from trainvitals.hooks.wire.records import End, Event


def policy(text):
    return parse(text, RULES)


def problems(text):
    with pytest.raises(PolicyError) as raised:
        policy(text)
    return [(problem.line, problem.key, problem.message) for problem in raised.value.problems]


def judged(run, text=""):
    engine = Engine(policy=policy(text))
    for record in run.records:
        engine.feed(run.stream, record)
    return engine


def found(run, text=""):
    return {finding.rule: finding for finding in judged(run, text).findings()}


@pytest.fixture
def fast(script):
    """Updates of 0.15 in every layer but fc1, whose are 0.8, and gradients that are never cleared."""
    run = script().linear_stack(4)
    for step in range(60):
        layers = {f"fc{i}.weight": {"update_ratio": 0.15} for i in range(2, 5)}
        layers["fc1.weight"] = {"update_ratio": 0.8}
        run.step(step, {"loss": 1.0, "tv/grad_carried": float(step > 0)}, layers)
    return run


# What it says


def test_an_empty_policy_is_the_default_and_leaves_no_trace(fast):
    assert policy("") == DEFAULTS and policy("").digest == ""
    assert all(finding.policy == "" for finding in fast.engine().findings())


@pytest.mark.parametrize(
    "text",
    [
        "[rules.update-ratio-high]\nratio = 0.1",
        "[rules.update-ratio-high]\nenabled = true",
        '[rules.update-ratio-high]\nreason = "for people"',
    ],
)
def test_what_changes_nothing_has_no_digest(text):
    assert policy(text).digest == ""


def test_the_digest_is_that_of_what_it_says():
    one = policy("[rules.update-ratio-high]\nratio = 0.2\n[rules.loss-divergence]\nnoise = 3")
    other = policy("rules.loss-divergence.noise = 3.0\nrules.update-ratio-high.ratio = 2e-1")
    assert one.digest == other.digest != policy("[rules.loss-divergence]\nnoise = 3").digest


def test_all_that_is_wrong_is_told_with_its_line():
    text = """
[rules.update-ratio-hihg]
[rules.update-ratio-high]
ratoi = 0.2
ratio = -1
severity = "warn"
enabled = "no"
ignore_layers = "x"

[[acknowledge]]
rule = "loss-divergence"
until = "2026-01-01"
[[acknowledge]]
until = 2026-01-01
layers = ["a",
  "b"]
layer = 1
"""
    told = {key: (line, message) for line, key, message in problems(text)}
    assert {key: line for key, (line, _) in told.items()} == {
        "rules.update-ratio-hihg": 2,
        "rules.update-ratio-high.ratoi": 4,
        "rules.update-ratio-high.ratio": 5,
        "rules.update-ratio-high.severity": 6,
        "rules.update-ratio-high.enabled": 7,
        "rules.update-ratio-high.ignore_layers": 8,
        "acknowledge[0].until": 12,
        "acknowledge[1].rule": 13,
        "acknowledge[1].layer": 17,
    }
    assert "Did you mean 'update-ratio-high'?" in told["rules.update-ratio-hihg"][1]
    assert "Did you mean 'ratio'?" in told["rules.update-ratio-high.ratoi"][1]
    assert "Did you mean 'layers'?" in told["acknowledge[1].layer"][1]
    assert "default is 0.1" in told["rules.update-ratio-high.ratio"][1]


@pytest.mark.parametrize(
    ("text", "line"),
    [
        ("a = [", 1),
        ("\n\nratio = = 1", 3),
        ("[rules]\nx = 1\nx = 2", 3),
        ("x = " + "[" * 2000 + "]" * 2000, 0),
        ("#" * (MAX_BYTES + 1), 0),
    ],
)
def test_what_is_no_toml_is_told(text, line):
    assert problems(text)[0][0] == line


@pytest.mark.parametrize(
    "value", ["0.2.1", "nan", "inf", "-inf", "0", "true", '"0.2"', "[0.2]", "{}", "2026-01-01"]
)
def test_a_threshold_is_a_number_that_makes_sense(value):
    assert problems(f"[rules.update-ratio-high]\nratio = {value}")[0][0] == 2


@pytest.mark.parametrize(("value", "fine"), [("50", True), ("50.5", False), ("0", False)])
def test_a_count_is_whole(value, fine):
    text = f"[rules.loss-divergence]\nlasting = {value}"
    assert fine == (not _fails(text))


def _fails(text):
    try:
        policy(text)
    except PolicyError:
        return True
    return False


@pytest.mark.parametrize("value", ["1.0", "30", "-0.1"])
def test_a_share_lies_between_0_and_1(value):
    assert _fails(f"[rules.dead-relu-units]\nwarn = {value}")


def test_a_rule_about_the_whole_run_has_no_layers_to_ignore():
    assert "no layer" in problems('[rules.loss-divergence]\nignore_layers = ["fc1"]')[0][2]


def test_the_documented_example_is_right():
    text = (Path(__file__).parents[2] / "docs" / "policy.md").read_text("utf-8")
    (example,) = re.findall(r"```toml\n(.*?)```", text, re.DOTALL)
    said = policy(example)
    assert set(said.rules) == {"update-ratio-high", "loss-stuck-at-prior"}
    assert len(said.acknowledge) == 1


# What it does


def test_a_threshold_decides(fast):
    assert found(fast)["update-ratio-high"].severity == "warning"
    assert (
        found(fast, "[rules.update-ratio-high]\nextreme_ratio = 0.1")["update-ratio-high"].severity
        == "critical"
    )
    assert "update-ratio-high" not in found(fast, "[rules.update-ratio-high]\nratio = 0.9")


def test_findings_say_what_was_changed(fast):
    text = "[rules.update-ratio-high]\nratio = 0.12"
    finding = found(fast, text)["update-ratio-high"]
    assert finding.policy == policy(text).digest != ""
    assert finding.evidence["policy"] == {"thresholds": {"ratio": 0.12}}
    assert "policy" not in found(fast, text)["grad-not-zeroed"].evidence


def test_a_rule_can_be_switched_off(fast):
    engine = judged(fast, '[rules.grad-not-zeroed]\nenabled = false\nreason = "on purpose"')
    assert "grad-not-zeroed" not in {finding.rule for finding in engine.findings()}
    (state,) = [state for state in engine.states() if state.rule == "grad-not-zeroed"]
    assert state.state == "not applicable" and "on purpose" in state.reason
    assert len(engine.states()) == len(RULES)


@pytest.mark.parametrize(
    ("severity", "expected"),
    [('"info"', "info"), ('{critical = "warning"}', "warning"), ('{warning = "info"}', "critical")],
)
def test_a_severity_is_replaced(fast, severity, expected):
    text = f"[rules.grad-not-zeroed]\nseverity = {severity}"
    assert found(fast, text)["grad-not-zeroed"].severity == expected


def test_a_rule_does_not_see_layers_that_it_ignores(fast):
    only_fc1 = '[rules.update-ratio-high]\nignore_layers = ["fc[234]"]'
    assert found(fast, only_fc1)["update-ratio-high"].layers == ["fc1"]
    without = found(fast, '[rules.update-ratio-high]\nignore_layers = ["fc1"]')
    assert without["update-ratio-high"].layers == ["fc2", "fc3", "fc4"]
    assert "update-ratio-high" not in found(
        fast, '[rules.update-ratio-high]\nignore_layers = ["fc*"]'
    )


def test_an_event_of_an_ignored_layer_is_not_told(script):
    run = script().step(0, {"loss": 1.0})
    data = {"direction": "forward", "layer": "fc2", "nan": 1}
    run.add(Event, step=0, kind="nonfinite", layer="fc2", data=data)
    assert "nonfinite-activation" in found(run)
    assert "nonfinite-activation" not in found(
        run, '[rules.nonfinite-activation]\nignore_layers = ["fc2"]'
    )


@pytest.mark.parametrize(
    ("extra", "known"),
    [
        ("", True),
        ('layers = ["fc*"]', True),
        ('layers = ["fc1"]', False),
        ('projects = ["p"]', True),
        ('projects = ["other*"]', False),
    ],
)
def test_an_acknowledged_finding_says_until_when(fast, extra, known):
    text = (
        f'[[acknowledge]]\nrule = "update-ratio-high"\nuntil = 2026-12-31\nreason = "ok"\n{extra}'
    )
    finding = found(fast, text)["update-ratio-high"]
    assert finding.acknowledged == ("until 2026-12-31: ok" if known else "")
    assert finding.severity == "warning" and finding.state == "firing"


@pytest.mark.parametrize(("after_days", "known"), [(0.5, True), (1.5, False)])
def test_an_acknowledgement_ends_by_the_time_of_the_records(fast, after_days, known):
    day = datetime.datetime(2026, 3, 1, tzinfo=datetime.UTC)
    moment = (day + datetime.timedelta(days=after_days)).timestamp()
    fast.records = [msgspec.structs.replace(record, time=moment) for record in fast.records]
    text = '[[acknowledge]]\nrule = "grad-not-zeroed"\nuntil = 2026-03-01'
    assert bool(found(fast, text)["grad-not-zeroed"].acknowledged) == known


def test_the_saved_state_remembers_its_policy(fast):
    text = "[rules.update-ratio-high]\nratio = 0.12\n[rules.grad-not-zeroed]\nenabled = false"
    engine = Engine(policy=policy(text))
    for index, record in enumerate(fast.records):
        engine.feed(fast.stream, record)
        if index % 20 == 0:
            engine = Engine.load(engine.save())
    assert engine.policy == policy(text)
    assert engine.findings() == judged(fast, text).findings()
    assert engine.states() == judged(fast, text).states()


# Thresholds, and rules that fail


class Fragile(Rule):
    """Fails at step 5."""

    id: ClassVar[str] = "fragile"
    limit: ClassVar[Positive] = 2.0
    """Because the tests say so, at some length."""
    seen: int = 0

    def on_step(self, context, view):
        self.seen += 1
        if view.step >= 5:
            raise ZeroDivisionError("a fault in the rule")

    def findings(self, context) -> list[Finding]:
        if self.limit < 1:
            raise KeyError("another fault")
        return []

    def state(self, context) -> RuleState:
        return self._state("ok", f"{self.seen} steps under {self.limit:g}.")


def test_thresholds_are_told_with_their_reasons():
    told = thresholds(Fragile)
    assert told == (Threshold("limit", 2.0, "Because the tests say so, at some length."),)
    other = tuned(Fragile, {"limit": 3.0})
    assert other is tuned(Fragile, {"limit": 3.0}) and thresholds(other) == told
    assert other().limit == 3.0 and Fragile().limit == 2.0


@pytest.mark.parametrize("saved", [False, True])
def test_a_rule_that_fails_stops_no_other(fast, saved):
    rules = [Fragile, *RULES]
    engine = Engine(rules)
    for record in fast.records:
        engine.feed(fast.stream, record)
        engine = Engine.load(engine.save(), rules) if saved and record.seq % 7 == 0 else engine
    assert engine.findings() == fast.engine().findings()
    first = engine.states()[0]
    assert first.state == "error"
    assert "ZeroDivisionError at step 5: a fault in the rule" in first.reason


class FragileAtTheEnd(Fragile):
    id: ClassVar[str] = "fragile-at-the-end"

    def on_step(self, context, view):
        self.seen += 1

    def on_end(self, context):
        raise ZeroDivisionError("a fault at the end")


def test_a_rule_that_fails_at_the_end_stops_no_other(fast):
    last = fast.records[-1].step
    end = End(seq=len(fast.records), time=1.0, step=last, status="finished")
    engines = [Engine([FragileAtTheEnd, *RULES]), Engine()]
    for engine in engines:
        for record in [*fast.records, end]:
            engine.feed(fast.stream, record)
    assert engines[0].findings() == engines[1].findings() != []
    assert f"ZeroDivisionError at step {last}: a fault at the end" in engines[0].states()[0].reason


class Careless(Rule):
    """Writes into what it is given."""

    id: ClassVar[str] = "careless"

    def on_step(self, context, view):
        for table in (*view.activations, *view.parameters):
            for name in table.group.columns:
                table.column(name)[:] = math.nan

    def findings(self, context) -> list[Finding]:
        return []

    def state(self, context) -> RuleState:
        return self._state("ok", "It has seen nothing.")


def test_what_a_rule_does_to_its_numbers_no_other_rule_sees(fast):
    engine = Engine([Careless, *RULES])
    for record in fast.records:
        engine.feed(fast.stream, record)
    assert engine.findings() == fast.engine().findings() != []


def test_a_rule_that_fails_when_asked_says_so(fast):
    engine = Engine([tuned(Fragile, {"limit": 0.5}), *RULES])
    engine.feed(fast.stream, fast.records[0])
    assert engine.findings() == [] and engine.states()[0].state == "error"
