"""What a rule's page says beside its numbers: one file for each rule in `texts`, named after it."""

from functools import lru_cache
from importlib.resources import files
from typing import Literal

import msgspec

from trainvitals.app.rules.base import Rule
from trainvitals.app.rules.thresholds import thresholds


class About(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Texts in Markdown; `{name}` stands for the default of a threshold."""

    finds: str
    """Half a sentence: what is wrong when it fires."""
    severity: str
    """Which severities it gives."""
    formula: str
    """When it fires, and since when."""
    applies: str
    """To which layers, run modes, optimizers and types; when it is not applicable."""
    guards: list[str]
    """What keeps it quiet on a healthy run."""
    evidence: str
    """What a finding shows."""
    remedy: str
    """What to do, the likeliest first."""
    false_alarms: list[str]
    """What would make a finding wrong."""
    sources: list[str]
    scope: Literal["layers", "run"]
    """Whether it judges layers, which a policy can leave out, or the run as a whole."""


@lru_cache(maxsize=1024)
def about(rule: type[Rule]) -> About:
    """The texts of a rule. Raises LookupError when there are none, ValueError when they can't be used."""
    path = files("trainvitals.app.rules").joinpath("texts", f"{rule.id}.toml")
    if not path.is_file():
        raise LookupError(
            f"The rule {rule.id} has no text. Write app/rules/texts/{rule.id}.toml, like the others there."
        )
    try:
        raw = msgspec.toml.decode(path.read_text(encoding="utf-8"), type=About)
        values = {threshold.name: f"{threshold.default:g}" for threshold in thresholds(rule)}
        filled = {
            name: [item.format(**values) for item in value]
            if isinstance(value, list)
            else value.format(**values)
            for name, value in msgspec.structs.asdict(raw).items()
        }
    except (msgspec.DecodeError, KeyError, IndexError) as error:
        raise ValueError(f"app/rules/texts/{rule.id}.toml: {error}") from error
    return msgspec.convert(filled, About)
