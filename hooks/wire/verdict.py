"""What a server tells a training of its run: plain data within limits, which the training checks before it uses it."""

from typing import Annotated, Final, Literal

import msgspec

from trainvitals.hooks.wire.limits import MAX_NAME, MAX_STEP

MAX_BYTES: Final = 1 << 20
"""Of one answer. A longer one is not read to its end."""
MAX_FINDINGS: Final = 50
MAX_LAYERS: Final = 50
MAX_SENTENCE: Final = 2_000
"""Characters of a title or a remedy."""

NONFINITE_RULES: Final = {
    "input": "nonfinite-activation",
    "parameter": "nonfinite-activation",
    "forward": "nonfinite-activation",
    "loss": "nonfinite-loss",
    "backward": "nonfinite-gradient",
    "update": "nonfinite-gradient",
}
"""For each direction of `records.NonFinite` the rule that it belongs to."""

Name = Annotated[str, msgspec.Meta(max_length=MAX_NAME)]
Sentence = Annotated[str, msgspec.Meta(max_length=MAX_SENTENCE)]


class Finding(msgspec.Struct, frozen=True, kw_only=True):
    """Something that is wrong with a run, as its training is told of it."""

    key: Name
    """Stable within the run."""
    rule: Name
    severity: Literal["info", "warning", "critical"]
    step: Annotated[int, msgspec.Meta(ge=0, le=MAX_STEP)]
    """Since when."""
    layers: Annotated[list[Name], msgspec.Meta(max_length=MAX_LAYERS)] = []
    title: Sentence = ""
    """One sentence."""
    remedy: Sentence = ""
    """What to do, the likeliest first; "" where only the server knows."""


class Verdict(msgspec.Struct, frozen=True, kw_only=True):
    """All root findings that hold now, the most severe first."""

    findings: Annotated[list[Finding], msgspec.Meta(max_length=MAX_FINDINGS)] = []
