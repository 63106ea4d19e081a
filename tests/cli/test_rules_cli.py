"""`trainvitals rules` and what `diagnose` makes of a policy."""

import json
import re
import time
from pathlib import Path

import pytest

from trainvitals.app.rules import RULES
from trainvitals.app.rules.thresholds import thresholds
from trainvitals.app.store import Store
from trainvitals.hooks.wire.records import Batch, Start, Step

OFF = "[rules.grad-not-zeroed]\nenabled = false\n"


@pytest.fixture
def stored(tmp_path):
    """A run in the database whose gradients are carried over."""
    scalars = {"loss": 1.0, "tv/grad_carried": 1.0}
    records = [
        Start(seq=0, time=1e9, project="digits", name="a name"),
        *(Step(seq=n, time=1e9, step=n - 1, scalars=scalars) for n in range(1, 40)),
    ]
    batch = Batch(version=1, run="run-1", attempt="a1", rank=0, first=0, records=records)
    with Store.open(tmp_path / "trainvitals.db") as store:
        store.append(batch, time.time())
    return "run-1"


def test_all_rules_are_listed_as_the_policy_has_them(cli):
    Path("trainvitals.toml").write_text(OFF + "[rules.update-ratio-high]\nratio = 0.25\n")
    listed = json.loads(cli("rules", "ls", "--json").output)
    assert [item["id"] for item in listed] == [rule.id for rule in RULES]
    off = {item["id"] for item in listed if not item["enabled"]}
    assert off == {"grad-not-zeroed"}
    (line,) = [
        x for x in cli("rules", "ls").output.splitlines() if x.startswith("update-ratio-high")
    ]
    assert "ratio = 0.25" in line


@pytest.mark.parametrize("rule", RULES, ids=lambda rule: rule.id)
def test_each_rule_is_shown_with_its_thresholds(cli, rule):
    result = cli("rules", "show", rule.id)
    assert result.exit_code == 0
    assert all(item.name in result.output for item in thresholds(rule))
    shown = json.loads(cli("rules", "show", rule.id, "--json").output)
    assert {item["name"] for item in shown["rule"]["thresholds"]} == {
        item.name for item in thresholds(rule)
    }


def test_an_unknown_rule_is_told_with_the_nearest_one(cli):
    result = cli("rules", "show", "update-ratio-hig")
    assert result.exit_code == 1
    assert "'update-ratio-high'" in result.stderr


def test_a_right_policy_passes_the_check(cli):
    Path("trainvitals.toml").write_text(OFF)
    result = cli("rules", "check")
    assert result.exit_code == 0 and "grad-not-zeroed (off)" in result.output
    assert json.loads(cli("rules", "check", "--json").output)["problems"] == []


@pytest.mark.parametrize("as_json", [False, True])
def test_a_wrong_policy_fails_the_check_with_line_and_key(cli, as_json):
    Path("mine.toml").write_text("[rules.grad-not-zeroed]\n\nenabeld = false\n")
    result = cli("rules", "check", "mine.toml", *(["--json"] if as_json else []))
    assert result.exit_code == 1
    if as_json:
        (problem,) = json.loads(result.output)["problems"]
        assert (problem["line"], problem["key"]) == (3, "rules.grad-not-zeroed.enabeld")
    else:
        assert "mine.toml: line 3: rules.grad-not-zeroed.enabeld" in result.stderr
        assert "'enabled'" in result.stderr


def test_a_missing_policy_is_no_fault_unless_it_was_named(cli):
    assert cli("rules", "check").exit_code == 0
    assert cli("rules", "check", "none.toml").exit_code == 1
    assert cli("rules", "ls", "--policy", "none.toml").exit_code == 1


@pytest.mark.parametrize("command", [["rules", "ls"], ["rules", "backtest"], ["diagnose"]])
def test_a_wrong_policy_stops_a_command_with_a_reason(cli, stored, command):
    Path("trainvitals.toml").write_text("[rules.none]\n")
    target = [stored] if command[-1] != "ls" else []
    result = cli(*command, *target)
    assert result.exit_code == 1
    assert "line 1: rules.none" in result.stderr and "Traceback" not in result.output


def test_diagnose_judges_by_the_policy(cli, stored):
    rules = [item["rule"] for item in json.loads(cli("diagnose", stored, "--json").output)]
    assert rules == ["grad-not-zeroed"]
    Path("off.toml").write_text(OFF)
    result = cli("diagnose", stored, "--policy", "off.toml", "--json")
    assert json.loads(result.output) == []
    said = cli("diagnose", stored, "--policy", "off.toml").output
    assert re.fullmatch(r"[1-9]\d* checks? found nothing wrong\.\n", said)


def test_a_backtest_shows_what_another_policy_would_have_made_of_a_run(cli, stored):
    Path("off.toml").write_text(OFF)
    Path("info.toml").write_text('[rules.grad-not-zeroed]\nseverity = "info"\n')

    def kinds(*words):
        output = json.loads(cli("rules", "backtest", stored, "--json", *words).output)
        return [(item["kind"], item["key"]) for item in output["changes"]]

    assert kinds() == [("same", "grad-not-zeroed")]
    assert kinds("--policy", "off.toml") == [("gone", "grad-not-zeroed")]
    assert kinds("--policy", "info.toml") == [("changed", "grad-not-zeroed")]
    text = cli("rules", "backtest", stored, "--policy", "info.toml").output
    assert "critical since 0, firing" in text and "info since 0, firing" in text
    Path("trainvitals.toml").write_text(OFF)
    assert kinds("--policy", "info.toml") == [("new", "grad-not-zeroed")]


def test_the_cost_of_rules_is_measured_by_a_replay(cli, stored):
    told = json.loads(cli("rules", "show", "--cost", "--json").output)
    assert told["run"] == stored
    assert {cost["rule"] for cost in told["costs"]} == {rule.id for rule in RULES}
    assert sum(cost["share"] for cost in told["costs"]) == pytest.approx(1.0)
    assert all(cost["seconds"] > 0 for cost in told["costs"])
    one = json.loads(cli("rules", "show", "loss-divergence", "--cost", "--json").output)
    assert [cost["rule"] for cost in one["costs"]] == ["loss-divergence"]
    assert "µs A SAMPLE" in cli("rules", "show", "--cost", "--run", stored).output


def test_without_a_run_the_cost_says_what_to_do(cli):
    result = cli("rules", "show", "--cost")
    assert result.exit_code == 1 and "trainvitals serve" in result.stderr
    assert "no file or folder" in cli("rules", "show", "--cost", "--run", "none").stderr
    assert cli("rules", "show").exit_code == 2
