"""How right the verdicts are: counts for a fault, a rule, a kind and the whole."""

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from fnmatch import fnmatchcase
from statistics import median

from benchmarks.diagnosis.case import Case
from benchmarks.diagnosis.classic import THRESHOLDS
from benchmarks.diagnosis.corpus import CASES
from benchmarks.diagnosis.judge import Found, Verdict

NEAR = 50
"""Steps that a finding's onset may be away from the stated one."""


@dataclass
class Share:
    """Right ones of all."""

    right: int = 0
    of: int = 0

    def add(self, right: bool) -> None:
        """Count one."""
        self.right += right
        self.of += 1

    def __str__(self) -> str:
        return f"{100 * self.right / self.of:.0f} % ({self.right}/{self.of})" if self.of else "-"


@dataclass
class Score:
    """Counts over some verdicts."""

    recall: Share = field(default_factory=Share)
    """Faulty trainings in which a rule that names the fault warned."""
    top: Share = field(default_factory=Share)
    """Those whose first root finding is one of these rules."""
    place: Share = field(default_factory=Share)
    """Of those with a place and recalled: the first layer named is right."""
    onset: Share = field(default_factory=Share)
    """Of those with a stated step and recalled: the onset is within `NEAR` steps."""
    precision: Share = field(default_factory=Share)
    """Root findings, in sick and healthy trainings, that name what is there."""
    origin: Share = field(default_factory=Share)
    """NaN: the right module, direction and step."""
    delays: list[int] = field(default_factory=list)
    """Steps from the first observable sign to the finding."""
    clean: int = 0
    """Healthy trainings, fixed twins among them."""
    alarms: int = 0
    """Warnings and criticals in these, at whatever step they were shown."""
    criticals: int = 0

    @property
    def delay(self) -> str:
        """Median and worst."""
        return f"{median(self.delays):.0f} (max {max(self.delays)})" if self.delays else "-"

    @property
    def per_clean_run(self) -> str:
        """Warnings and criticals a healthy run."""
        if not self.clean:
            return "-"
        return f"{self.alarms / self.clean:.3f} ({self.alarms}/{self.clean}, {self.criticals} critical)"


def names_fault(found: Found, case: Case) -> bool:
    """Whether a finding names the fault of its case."""
    return found.rule in case.roots


def matching(verdict: Verdict, case: Case) -> Found | None:
    """The first finding that names the fault: roots first, as users read them."""
    right = [found for found in verdict.serious if names_fault(found, case)]
    return min(right, key=lambda found: not found.root, default=None)


def first_root(verdict: Verdict) -> Found | None:
    """What a user reads first."""
    return next((found for found in verdict.serious if found.root), None)


def score(verdicts: Iterable[Verdict]) -> Score:
    """Count over `verdicts`; those of failed trainings are left out."""
    total = Score()
    for verdict in verdicts:
        if not verdict.error:
            _count(total, verdict, CASES[verdict.case])
    return total


def _count(total: Score, verdict: Verdict, case: Case) -> None:
    for found in verdict.serious:
        if found.root:
            total.precision.add(found.rule in (*case.roots, *case.also))
    if not case.roots:
        total.clean += 1
        total.alarms += len(verdict.serious)
        total.criticals += sum(found.severity == "critical" for found in verdict.serious)
        return
    found, top = matching(verdict, case), first_root(verdict)
    total.recall.add(found is not None)
    total.top.add(top is not None and names_fault(top, case))
    if case.direction:
        total.origin.add(_origin_right(verdict, case))
    if found is None:
        return
    if case.places:
        total.place.add(place_right(found, case))
    sign = found.first_step if case.onset is None else case.onset
    total.delays.append(max(0, found.seen_at - sign))
    if case.onset is not None:
        total.onset.add(abs(found.first_step - case.onset) <= NEAR)


def place_right(found: Found, case: Case) -> bool:
    """Whether the first layer that is named lies in the stated place."""
    return bool(found.layers) and any(fnmatchcase(found.layers[0], glob) for glob in case.places)


def _origin_right(verdict: Verdict, case: Case) -> bool:
    top = first_root(verdict)
    return (
        top is not None
        and names_fault(top, case)
        and top.first_step == top.seen_at == case.onset
        and re.fullmatch(case.direction, top.direction) is not None
        and (not case.places or place_right(top, case))
    )


@dataclass
class Classics:
    """The same counts for the common thresholds, each judged for the faults it is meant for."""

    recall: Share = field(default_factory=Share)
    precision: Share = field(default_factory=Share)
    clean: int = 0
    alarms: int = 0
    delays: list[int] = field(default_factory=list)


def classics(verdicts: Sequence[Verdict], names: Iterable[str] = THRESHOLDS) -> Classics:
    """Count the alarms of the thresholds `names` over `verdicts`."""
    total, names = Classics(), list(names)
    for verdict in verdicts:
        case = CASES[verdict.case]
        alarms = {name: step for name, step in verdict.classic.items() if name in names}
        for name in alarms:
            total.precision.add(bool(set(THRESHOLDS[name]) & {*case.roots, *case.also}))
        if not case.roots:
            total.clean += 1
            total.alarms += len(alarms)
            continue
        meant = [name for name in names if set(THRESHOLDS[name]) & set(case.roots)]
        if meant:
            steps = [alarms[name] for name in meant if name in alarms]
            total.recall.add(bool(steps))
            if steps:
                total.delays.append(max(0, min(steps) - (case.onset or 0)))
    return total
