"""How a check says what it found."""

from collections.abc import Sequence
from typing import Any, Literal, TypeAlias

from trainvitals.hooks.wire.observed import Checked

Outcome: TypeAlias = Literal["pass", "info", "warning", "critical", "skipped"]


def passed(check: str, seen: str) -> Checked:
    """Nothing is wrong."""
    return Checked(check=check, outcome="pass", seen=seen)


def skipped(check: str, why: str) -> Checked:
    """The check does not apply."""
    return Checked(check=check, outcome="skipped", seen=why)


def failed(
    check: str,
    outcome: Outcome,
    seen: str,
    expected: str,
    remedy: str,
    layers: Sequence[str] = (),
) -> Checked:
    """Something is wrong, or worth a note."""
    more: dict[str, Any] = {"layers": list(layers)[:50]}
    return Checked(
        check=check, outcome=outcome, seen=seen, expected=expected, remedy=remedy, **more
    )


def named(names: Sequence[str]) -> str:
    """Some names in a sentence."""
    shown = [name or "the model" for name in names[:3]]
    return ", ".join(shown) + (f" and {len(names) - 3} more" if len(names) > 3 else "")
