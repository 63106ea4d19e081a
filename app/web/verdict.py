"""A run's health in one sentence: what is wrong first of all, and what to do. Pure."""

import re
from collections.abc import Sequence
from typing import Literal

import msgspec

from trainvitals.app.figures.text import number
from trainvitals.app.rules.finding import SEVERITIES, Finding, RuleState

Level = Literal["ok", "warn", "crit", "wait"]

ENOUGH_STEPS = 20
"""Steps before which silence says nothing."""


class Verdict(msgspec.Struct, frozen=True):
    """`state` is a word ("Healthy."), `sentence` why, `action` what to do ("" for nothing)."""

    level: Level
    state: str
    sentence: str
    action: str = ""


def verdict(
    findings: Sequence[Finding],
    states: Sequence[RuleState],
    status: str,
    last_step: int,
    message: str = "",
) -> Verdict:
    """Judge a run by its findings (ranked by the rules) and the rules' states.

    status: of the run. message: what it ended with, if anything.
    """
    roots = [item for item in findings if item.root and not item.acknowledged]
    firing = [item for item in roots if item.state == "firing" and item.severity != "info"]
    if firing:
        return _sick(firing)
    if status == "failed":
        said = f" {message.splitlines()[0][:300]}" if message.strip() else ""
        return Verdict(
            "warn",
            "Failed.",
            f"The training ended with an error at step {number(last_step)}.{said}",
            "read the error where the training ran; the rules found no cause in the numbers.",
        )
    checked = sum(state.judged for state in states)
    if last_step < ENOUGH_STEPS or not checked:
        return _gathering(status, last_step, bool(states))
    over = [item for item in roots if item.state == "resolved" and item.severity != "info"]
    if over:
        text = f"{_sentence(over[0].title)} It has passed since step {number(over[0].last_step)}."
        return Verdict("ok", "Healthy again.", text)
    # Others do not apply, or wait for what never happens in this training: told below, rule by rule.
    waiting = sum(state.state == "not enough data" for state in states)
    early = status == "running" and waiting > checked
    checks = f"{checked} check{'s' if checked > 1 else ''}"
    text = f"{checks} found nothing wrong in {number(last_step + 1)} steps"
    text += f"; {waiting} wait for more data." if early else "."
    notes = sum(
        item.state == "firing" for item in roots
    )  # of severity info: the others were told above
    if notes:
        text += f" {notes} note{'s' if notes > 1 else ''} below."
    return Verdict("ok", "Healthy so far." if early else "Healthy.", text)


def first_sentence(text: str) -> str:
    """Up to the first full stop that ends a sentence (not the one in "0.03" or "stage3.1")."""
    return re.split(r"(?<=[.!?])\s+(?=[A-ZÄÖÜ])", text.strip(), maxsplit=1)[0]


def _sick(firing: Sequence[Finding]) -> Verdict:
    worst = max(firing, key=lambda item: SEVERITIES.index(item.severity))
    critical = worst.severity == "critical"
    text = _sentence(worst.title)
    if len(firing) > 1:
        others = len(firing) - 1
        text += f" {others} more finding{'s' if others > 1 else ''} below."
    action = first_sentence(worst.remedy)
    return Verdict(
        "crit" if critical else "warn", "Unhealthy." if critical else "Warning.", text, action
    )


def _gathering(status: str, last_step: int, read: bool) -> Verdict:
    """A run of which the rules say nothing; `read`: whether they have read any of it."""
    steps = number(last_step + 1)
    if status in ("finished", "failed", "interrupted"):
        if last_step < ENOUGH_STEPS:
            text = f"The run ended after {steps} steps, too few to judge its health."
            return Verdict("wait", "Too short.", text)
        if read:
            text = f"In {steps} steps nothing was recorded that the rules judge."
            return Verdict(
                "wait", "Not judged.", text, "watch the model: tv.watch(model, optimizer)."
            )
    if last_step >= ENOUGH_STEPS and not read:
        text = f"The rules have not read the {steps} steps so far."
        return Verdict("wait", "Not judged yet.", text)
    text = "The rules need some more samples before they can tell."
    return Verdict("wait", "Gathering.", text)


def _sentence(title: str) -> str:
    title = title.strip()
    return title if title.endswith((".", "!", "?")) else f"{title}."
