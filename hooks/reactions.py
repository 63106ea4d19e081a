"""What a training wants to happen when something is found in it: `on_finding`."""

from collections import deque
from collections.abc import Callable, Iterable
from contextlib import AbstractContextManager
from threading import get_ident
from typing import Any, Literal

from torch.optim.optimizer import (
    register_optimizer_step_post_hook,
    register_optimizer_step_pre_hook,
)
from torch.utils.hooks import RemovableHandle

from trainvitals.hooks.attached import hooks_off, remove
from trainvitals.hooks.sender import say
from trainvitals.hooks.wire.records import NonFinite
from trainvitals.hooks.wire.verdict import (
    MAX_SENTENCE,
    NONFINITE_RULES,
    Finding,
)

OnFinding = Literal["raise", "stop"] | Callable[[Finding], object]

_SEVERITIES = ("info", "warning", "critical")


class FindingError(RuntimeError):
    """Raised by `on_finding="raise"` for a critical finding."""

    def __init__(self, finding: Finding) -> None:
        remedy = f" {finding.remedy}" if finding.remedy else ""
        super().__init__(f"{finding.rule}: {finding.title}.{remedy}")
        self.finding = finding


def checked(on_finding: object) -> OnFinding | None:
    """`on_finding` as it may be. Raises TypeError or ValueError."""
    if on_finding is None or on_finding in ("raise", "stop") or callable(on_finding):
        return on_finding
    kind = ValueError if isinstance(on_finding, str) else TypeError
    raise kind(
        'on_finding must be "raise", "stop", or a function that takes a finding; '
        f"got {on_finding!r:.80}."
    )


class Reactions:
    """Findings wait here until the thread that trains comes to a place where an exception does no harm.

    These are the begin and the end of an optimizer's step, `tv.log` and `tv.should_stop`: calls of the user's
    own code, none of them inside a forward or backward pass. At the begin of a step a bad gradient has not
    reached the weights yet.
    """

    def __init__(self, asked: OnFinding) -> None:
        self.asked: OnFinding = asked
        self._waiting: deque[Finding] = deque()
        self._told: dict[str, int] = {}
        """Severity under which each finding was taken."""
        self._thread = get_ident()
        self._handles: list[RemovableHandle] = []
        self._stopping = False

    @property
    def attached(self) -> bool:
        """Whether it takes steps."""
        return bool(self._handles)

    def before_watching(self) -> None:
        """Take the begin of steps, before the watch does: what is raised there must not leave a step half watched."""
        if not self._handles:
            self._handles = [register_optimizer_step_pre_hook(self._at_step)]

    def after_watching(self) -> None:
        """Take the end of steps, after the watch has looked at them."""
        if len(self._handles) == 1:
            self._handles.append(register_optimizer_step_post_hook(self._at_step))

    def aside(self) -> AbstractContextManager[None]:
        """With both off for a while."""
        return hooks_off(self._handles)

    def detach(self) -> None:
        """Take both off again."""
        remove(self._handles)
        self._handles = []

    def offer(self, findings: Iterable[Finding]) -> None:
        """Take findings, from any thread: each once, and again when it has become more severe."""
        for finding in findings:
            rank = _SEVERITIES.index(finding.severity)
            if rank > self._told.get(finding.key, -1):
                self._told[finding.key] = rank
                self._waiting.append(finding)

    def offer_nonfinite(self, step: int, found: NonFinite) -> None:
        """Take what the training itself has seen."""
        rule = NONFINITE_RULES[found.direction]
        place = found.parameter or found.layer
        where = f" ({found.direction} of {place})" if place else f" ({found.direction})"
        title = f"NaN or infinity first appeared at step {step}{where}"[:MAX_SENTENCE]
        layers = [found.layer] if found.layer else []
        self.offer(
            [
                Finding(
                    key=rule, rule=rule, severity="critical", step=step, layers=layers, title=title
                )
            ]
        )

    def react(self) -> None:
        """Do what was asked for; raises FindingError, or whatever the user's own function raises."""
        if not self._waiting or get_ident() != self._thread:
            return
        while self._waiting:
            finding = self._waiting.popleft()
            if callable(self.asked):
                self.asked(finding)
            elif finding.severity == "critical":
                if self.asked == "raise":
                    raise FindingError(finding)
                if not self._stopping:
                    say(f"the training is asked to stop: {finding.title}")
                self._stopping = True

    def should_stop(self) -> bool:
        """Whether a finding asks for the end of the training."""
        self.react()
        return self._stopping

    def _at_step(self, optimizer: Any, args: Any, kwargs: Any) -> None:
        self._thread = get_ident()
        self.react()
