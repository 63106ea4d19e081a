"""What a server tells a training of its run: plain data within limits, which the training checks before it believes it."""

from typing import Annotated, Final, Literal

import msgspec

from trainvitals.hooks.wire.limits import MAX_NAME, MAX_STEP

MAX_BYTES: Final = 1 << 20
"""Of one answer. A longer one is not read to its end."""
MAX_FINDINGS: Final = 50
MAX_LAYERS: Final = 50
MAX_SENTENCE: Final = 2_000
"""Characters of a title or a remedy."""

Name = Annotated[str, msgspec.Meta(max_length=MAX_NAME)]
Sentence = Annotated[str, msgspec.Meta(max_length=MAX_SENTENCE)]


class Told(msgspec.Struct, frozen=True, kw_only=True):
    """A finding that holds."""

    key: Name
    """Stable within the run."""
    rule: Name
    severity: Literal["info", "warning", "critical"]
    step: Annotated[int, msgspec.Meta(ge=0, le=MAX_STEP)]
    """Since when."""
    layers: Annotated[list[Name], msgspec.Meta(max_length=MAX_LAYERS)] = []
    title: Sentence = ""
    remedy: Sentence = ""


class Verdict(msgspec.Struct, frozen=True, kw_only=True):
    """All that hold now, the most severe first."""

    findings: Annotated[list[Told], msgspec.Meta(max_length=MAX_FINDINGS)] = []
