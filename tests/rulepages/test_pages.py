"""docs/rules is what the rules say, and every tip of the guides has an answer."""

import re

import pytest
from rulepages.pages import DOCS, NOTE, pages, tips
from rulepages.training import digits, mlp
from torch.nn import functional as F  # noqa: N812
from torch.optim import SGD
from torch.utils.data import DataLoader, TensorDataset

import trainvitals.hooks as tv
from trainvitals.app.rules import RULES
from trainvitals.app.rules.about import about
from trainvitals.app.rules.thresholds import thresholds

LINK = re.compile(r"\]\((?!https?://)([^)#]+)")


def test_the_pages_are_current():
    written = {path.name: path.read_text("utf-8") for path in DOCS.glob("*.md")}
    made = {name: text for name, text in written.items() if NOTE in text}
    assert made == pages(), "Run `make rule-docs` and commit docs/rules."


@pytest.mark.parametrize("rule", RULES, ids=lambda rule: rule.id)
def test_a_rule_says_all_that_its_page_needs(rule):
    try:
        text = about(rule)
    except LookupError as error:
        pytest.fail(str(error))
    written = (text.formula, text.applies, text.evidence, text.remedy, *text.guards, *text.sources)
    assert all(len(part.strip()) > 3 for part in written) and text.guards and text.sources
    unexplained = [item.name for item in thresholds(rule) if len(item.reason) < 20]
    assert not unexplained, "Say why below the threshold's class variable."


def test_links_of_the_pages_lead_to_files():
    written = DOCS.glob("*.md")
    missing = [
        (page.name, link)
        for page in written
        for link in LINK.findall(page.read_text("utf-8"))
        if not (page.parent / link).exists()
    ]
    assert not missing


def test_all_tips_are_there_once():
    assert [tip.id for tip in tips().tips] == list(range(1, 145))
    assert {tip.guide for tip in tips().tips} == set(tips().guides) == set("ABCDE")


def test_every_tip_has_an_answer_or_a_reason_why_not():
    wrong = [
        tip.id
        for tip in tips().tips
        if bool(tip.rules or tip.checks) == bool(tip.reason) or 0 < len(tip.reason) < 40
    ]
    assert not wrong, "Name a rule or a check, or else write a reason."


def test_every_rule_that_a_tip_names_is_there():
    named = {rule for tip in tips().tips for rule in tip.rules}
    assert named <= {rule.id for rule in RULES}


def test_every_check_that_a_tip_names_is_made_before_a_training():
    model, data = mlp(), TensorDataset(*digits())
    optimizer = SGD(model.parameters(), lr=0.1)
    report = tv.preflight(model, DataLoader(data, 64, shuffle=True), F.cross_entropy, optimizer)
    named = {check for tip in tips().tips for check in tip.checks}
    assert named <= {result.check for result in report.results}
