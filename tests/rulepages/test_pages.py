"""docs/rules is what the rules say, and every tip of the guides has an answer."""

import re

import pytest
from rulepages.pages import DOCS, NOTE, known, pages, tips

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


def test_every_tip_is_answered():
    silent = [tip.id for tip in tips().tips if not tip.rules and len(tip.reason) < 40]
    assert not silent, "Name a rule, or write a reason."


def test_every_rule_that_a_tip_names_is_built_or_planned():
    named = {rule for tip in tips().tips for rule in tip.rules}
    assert not named - known() - set(tips().planned)
    assert not set(tips().planned) - named, "Planned, and no tip names it."
