"""Makes docs/rules: a page for each rule, an index, and the table of tips. `make rule-docs` runs it.

What it says comes from the rules (thresholds and their reasons), from app/rules/texts, from the examples beside this
file, and from tips.toml. Nothing in docs/rules is written by hand but accuracy.md, which the diagnosis benchmark makes.
"""

import tomllib
from pathlib import Path
from typing import Literal

import msgspec

from trainvitals.app.rules import RULES
from trainvitals.app.rules.about import about
from trainvitals.app.rules.arbitration import EXPLAINS
from trainvitals.app.rules.base import Rule
from trainvitals.app.rules.thresholds import thresholds

HERE = Path(__file__).parent
DOCS = HERE.parent.parent / "docs" / "rules"
NOTE = (
    "<!-- Made by `make rule-docs`; change app/rules/texts, the rule, its example or tips.toml. -->"
)


class Tip(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A tip of a guide, and what answers it."""

    id: int
    guide: str
    tip: str
    rules: list[str] = []
    checks: list[str] = []
    """Of `tv.preflight`."""
    how: Literal["check", "remedy"] = msgspec.field(default="check", name="as")
    reason: str = ""
    note: str = ""


class Tips(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """All of them."""

    guides: dict[str, str]
    tips: list[Tip]


def tips() -> Tips:
    """tips.toml."""
    return msgspec.convert(tomllib.loads((HERE / "tips.toml").read_text("utf-8")), Tips)


def pages() -> dict[str, str]:
    """Every page of docs/rules by its file name."""
    made = {f"{rule.id}.md": _page(rule) for rule in RULES}
    return made | {"README.md": _index(), "tips.md": _tips_page()}


def _page(rule: type[Rule]) -> str:
    text = about(rule)
    parts = [
        f"# {rule.id}\n\n{NOTE}",
        f"{_sentence(text.finds)} Severity: {text.severity}.",
        f"## When it fires\n\n{text.formula.strip()}",
        _thresholds(rule),
        f"## What it applies to\n\n{text.applies.strip()}",
        f"## What keeps it quiet\n\n{_list(text.guards)}",
        f"## What a finding shows\n\n{text.evidence.strip()}",
        f"## What to do\n\n{text.remedy.strip()}",
        f"## What would make it wrong\n\n{_list(text.false_alarms)}",
        _relations(rule),
        f"## Sources\n\n{_list(text.sources)}",
        _answered(rule),
        _example(rule),
    ]
    return "\n\n".join(part for part in parts if part) + "\n"


def _thresholds(rule: type[Rule]) -> str:
    rows = [f"| `{item.name}` | {item.default:g} | {item.reason} |" for item in thresholds(rule)]
    if not rows:
        return "It has no threshold: the condition holds or it does not."
    head = "A [policy](../policy.md) can change these.\n\n| threshold | default | why |\n|---|---|---|\n"
    return head + "\n".join(rows)


def _relations(rule: type[Rule]) -> str:
    explained = sorted(set(EXPLAINS.get(rule.id, ())) - {rule.id})
    causes = sorted(
        name for name, rules in EXPLAINS.items() if rule.id in rules and name != rule.id
    )
    lines = []
    if causes:
        lines.append(f"It may be a consequence of {_links(causes)}.")
    if explained:
        lines.append(f"It may bring about {_links(explained)}.")
    return "## Causes and consequences\n\n" + " ".join(lines) if lines else ""


def _answered(rule: type[Rule]) -> str:
    lines = [
        f"{tip.guide} {tip.id}: {tip.tip}{' (advised as a remedy)' if tip.how == 'remedy' else ''}"
        for tip in tips().tips
        if rule.id in tip.rules or (rule.id == "preflight" and tip.checks)
    ]
    return (
        f"## Tips that it answers\n\nOf the [guides](tips.md):\n\n{_list(lines)}" if lines else ""
    )


def _example(rule: type[Rule]) -> str:
    path = HERE / "examples" / f"{rule.id.replace('-', '_')}.py"
    if not path.is_file():
        return ""  # another test says so
    return (
        "## A sick and a healthy training\n\nThe tests run both. `fit` is a plain loop over small pictures of digits, "
        f"`mlp` a few linear layers.\n\n```python\n{path.read_text('utf-8').strip()}\n```"
    )


def _index() -> str:
    rows = [
        f"| [`{rule.id}`]({rule.id}.md) | {about(rule).finds} | {about(rule).severity} |"
        for rule in RULES
    ]
    return (
        f"# All rules\n\n{NOTE}\n\n{len(RULES)} rules, in the order in which the dashboard lists them. How they "
        "judge: [rules](../rules.md). How to change them: [policy](../policy.md). What they answer: "
        "[tips of five guides](tips.md).\n\n| rule | finds | severity |\n|---|---|---|\n"
        + "\n".join(rows)
        + "\n"
    )


def _tips_page() -> str:
    all_tips = tips()
    rows = [
        f"| {tip.guide} {tip.id} | {_cell(tip.tip)} | {_cell(_answer(tip))} |"
        for tip in all_tips.tips
    ]
    answered = sum(bool(tip.rules or tip.checks) for tip in all_tips.tips)
    guides = _list([f"{name}: {title}" for name, title in all_tips.guides.items()])
    return (
        f"# Tips of five guides\n\n{NOTE}\n\nWhat practitioners' guides advise, and what trainvitals makes of each of "
        f"the {len(all_tips.tips)} tips: {answered} are answered by a rule, a check before the training or a remedy, "
        f"{len(all_tips.tips) - answered} by a reason why no rule can or should.\n\n{guides}\n\n"
        "| tip | says | answer |\n|---|---|---|\n" + "\n".join(rows) + "\n"
    )


def _answer(tip: Tip) -> str:
    parts = []
    if tip.rules:
        parts.append(_links(tip.rules) + (" (remedy)" if tip.how == "remedy" else ""))
    if tip.checks:
        checks = ", ".join(f"`{check}`" for check in tip.checks)
        parts.append(f"[Before the training](../preflight.md): {checks}")
    parts += [text for text in (tip.reason, tip.note) if text]
    return ". ".join(part.rstrip(".") for part in parts) + "."


def _links(names: list[str]) -> str:
    pages_of = {rule.id for rule in RULES}
    return ", ".join(f"[`{n}`]({n}.md)" if n in pages_of else f"`{n}`" for n in names)


def _cell(text: str) -> str:
    return text.replace("|", "\\|")


def _list(items: list[str]) -> str:
    return "\n".join(f"- {' '.join(item.split())}" for item in items)


def _sentence(text: str) -> str:
    return text[0].upper() + text[1:] + "."


def main() -> None:
    """Write all pages, and remove those of rules that are gone."""
    made = pages()
    DOCS.mkdir(exist_ok=True)
    for path in DOCS.glob("*.md"):
        if path.name not in made and NOTE in path.read_text("utf-8"):
            path.unlink()
    for name, text in made.items():
        (DOCS / name).write_text(text, encoding="utf-8")


if __name__ == "__main__":
    main()
