"""Every rule has a sick training in which it fires, and a healthy one in which nothing does."""

import importlib
from pathlib import Path

import pytest
from rulepages.training import judged

from trainvitals.app.rules import RULES

pytestmark = pytest.mark.slow

EXAMPLES = Path(__file__).parent / "examples"
MISSING = (
    "The rule {rule} has no example. Write tests/rulepages/examples/{name}.py with two functions, sick() and "
    "healthy(), each a training like those of the files beside it; then `make rule-docs`."
)


def example(rule):
    name = rule.id.replace("-", "_")
    if not (EXAMPLES / f"{name}.py").is_file():
        pytest.fail(MISSING.format(rule=rule.id, name=name))
    return importlib.import_module(f"rulepages.examples.{name}")


@pytest.mark.parametrize("rule", RULES, ids=lambda rule: rule.id)
def test_the_rule_fires_on_its_sick_example(rule, tmp_path):
    found = judged(example(rule).sick, tmp_path)
    assert rule.id in {finding.rule for finding in found}


@pytest.mark.parametrize("rule", RULES, ids=lambda rule: rule.id)
def test_nothing_fires_on_its_healthy_example(rule, tmp_path):
    found = judged(example(rule).healthy, tmp_path)
    assert [f.title for f in found if f.severity != "info" or f.rule == rule.id] == []


def test_every_example_is_of_a_rule():
    known = {rule.id.replace("-", "_") for rule in RULES}
    assert {path.stem for path in EXAMPLES.glob("*.py")} <= known
