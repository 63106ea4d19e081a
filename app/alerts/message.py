"""What an alert says, before any channel gives it a form."""

import hashlib
import re
from collections.abc import Sequence
from urllib.parse import quote

import msgspec

from trainvitals.app.rules.finding import Finding, Severity
from trainvitals.app.store.types import AlertRow, Run

MAX_CONSEQUENCES = 8
"""Lines of consequences in one message; the rest is counted."""


class Alert(msgspec.Struct, frozen=True, kw_only=True):
    """One message about one root finding, for every channel."""

    id: str
    """The same for every try, so that a receiver can tell a repetition."""
    run: str
    run_name: str
    project: str
    group: str
    """Key of the root finding."""
    rule: str
    kind: str
    """open, escalated, reminder or resolved: why it is sent."""
    severity: Severity
    over: bool
    """Whether the finding has resolved, which it may have before its opening was delivered."""
    title: str
    layers: str
    """The layers concerned in few words, "" for none."""
    first_step: int
    last_step: int
    seen: str
    expected: str
    remedy: str
    diff: str
    consequences: list[str]
    more_consequences: int
    link: str
    handle_link: str = ""
    """The page where a person acknowledges or mutes it."""
    time: float
    """When the change was noticed, Unix seconds."""
    opened: float
    """When the opening was noticed, Unix seconds; of an opening the same as `time`."""
    repeated: bool = False
    """Whether the server was stopped while it sent this, so that it may have come before."""

    @property
    def resolved(self) -> bool:
        """Whether this message takes an earlier one back."""
        return self.kind == "resolved"


def finding_id(run: str, key: str) -> str:
    """A short name for a finding, safe in an address; a finding's key may hold a layer's name and with it anything."""
    return f"{run}.{hashlib.sha256(key.encode()).hexdigest()[:12]}"


def compose(
    row: AlertRow,
    findings: Sequence[Finding],
    run: Run,
    link_base: str,
    *,
    opened: float,
    repeated: bool = False,
) -> Alert | None:
    """The message for `row` as things stand now; None when there is nothing left to say.

    That is so when the finding is gone, or when another root explains it and its opening was not sent.
    """
    root = next((finding for finding in findings if finding.key == row.group), None)
    if root is None or (not root.root and row.kind != "resolved"):
        return None
    lines = [f"{item.title} (from step {item.first_step:,})" for item in root.followers(findings)]
    return Alert(
        id=row.id,
        run=run.id,
        run_name=run.name,
        project=run.project,
        group=row.group,
        rule=root.rule,
        kind=row.kind,
        severity=root.severity,
        over=root.state == "resolved",
        title=root.title if root.root else _explained(root, findings),
        layers=layer_names(root.layers, root.concerned),
        first_step=root.first_step,
        last_step=root.last_step,
        seen=text_of(root.evidence.get("seen")),
        expected=text_of(root.evidence.get("expected")),
        remedy=root.remedy,
        diff=root.diff,
        consequences=lines[:MAX_CONSEQUENCES],
        more_consequences=max(len(lines) - MAX_CONSEQUENCES, 0),
        link=f"{link_base}/runs/{quote(run.id)}#finding-{quote(root.key, safe='')}",
        handle_link=f"{link_base}/alerts?finding={finding_id(run.id, root.key)}",
        time=row.created,
        opened=opened,
        repeated=repeated,
    )


def layer_names(names: Sequence[str], concerned: int) -> str:
    """`names` in few words: "fc1 … fc48, 48 layers"; "50 of 200 layers" where more are `concerned`.

    Names that differ in their numbers only are told by the first and the last of them.
    """
    patterns: dict[str, list[str]] = {}
    for name in names:
        patterns.setdefault(re.sub(r"\d+", "#", name), []).append(name)
    parts = []
    for alike in patterns.values():
        alike.sort(key=_by_number)
        parts.append(f"{alike[0]} … {alike[-1]}" if len(alike) > 2 else ", ".join(alike))
    if len(parts) > 4:
        parts = [*parts[:4], "…"]
    if len(names) > 2:
        of = f" of {concerned}" if concerned > len(names) else ""
        parts.append(f"{len(names)}{of} layers")
    return ", ".join(part or "(root)" for part in parts)


def text_of(value: object) -> str:
    """A piece of evidence as text: numbers with three significant digits."""
    match value:
        case None:
            return ""
        case float():
            return f"{value:.3g}"
        case bool() | str():
            return str(value)
        case int():
            return f"{value:,}"
        case dict():
            return ", ".join(f"{key} {text_of(item)}" for key, item in value.items())
        case list() | tuple():
            return ", ".join(text_of(item) for item in value[:8])
        case _:
            return str(value)


def _explained(finding: Finding, findings: Sequence[Finding]) -> str:
    cause = next((item.title for item in findings if item.key == finding.cause), "")
    return f"{finding.title} Another finding explains it: {cause}" if cause else finding.title


def _by_number(name: str) -> list[tuple[int, str]]:
    return [
        (int(part), "") if part.isdecimal() else (-1, part) for part in re.split(r"(\d+)", name)
    ]
