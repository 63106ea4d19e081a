"""One spool judged by the rules, record by record, as the server would see it come in."""

import heapq
from collections.abc import Iterator
from pathlib import Path

import msgspec

from benchmarks.diagnosis.case import Case
from benchmarks.diagnosis.classic import Classic
from trainvitals.app.rules.engine import Engine
from trainvitals.app.rules.finding import SEVERITIES, Finding
from trainvitals.hooks import spool
from trainvitals.hooks.wire.records import Record, Scalars
from trainvitals.hooks.wire.scalars import expand


class Found(msgspec.Struct, frozen=True):
    """A finding as it stood in the end, and when it was first shown."""

    rule: str
    severity: str
    """The most severe that it ever was."""
    root: bool
    first_step: int
    seen_at: int
    """Step that the run had reached when it first was as severe as a warning, else first shown."""
    layers: list[str]
    title: str
    direction: str
    """Of a non-finite value's origin."""


class Verdict(msgspec.Struct, frozen=True):
    """What was found in one training."""

    case: str
    seed: int
    steps: int
    """The last step."""
    samples: int
    """Records with statistics of layers."""
    found: list[Found]
    """In the order of the pages: the first root is what a user reads first."""
    classic: dict[str, int]
    error: str = ""
    """The training itself failed."""

    @property
    def serious(self) -> list[Found]:
        """What was ever a warning or worse."""
        return [found for found in self.found if found.severity != "info"]


def judge(case: Case, seed: int, folder: Path) -> Verdict:
    """Feed the spool under `folder` and note what is shown after every step."""
    engine, classic = Engine(), Classic()
    shown: dict[str, tuple[int, int]] = {}  # key: (severity, step)
    latest: dict[str, Finding] = {}
    step = samples = 0
    for meta, packed in _as_it_came(folder):
        for record in expand(packed) if isinstance(packed, Scalars) else [packed]:
            engine.feed(meta, record)
            classic.feed(record)
            step = max(step, getattr(record, "step", 0))
            samples += bool(getattr(record, "samples", ()))
            for finding in engine.findings():
                rank = SEVERITIES.index(finding.severity)
                before, since = shown.get(finding.key, (-1, step))
                shown[finding.key] = max(rank, before), step if rank > 0 >= before else since
                latest[finding.key] = finding
    final = engine.findings()
    gone = [latest[key] for key in latest if key not in {finding.key for finding in final}]
    return Verdict(
        case.name,
        seed,
        step,
        samples,
        [_found(finding, *shown[finding.key]) for finding in [*final, *gone]],
        classic.alarms,
    )


def _as_it_came(folder: Path) -> Iterator[tuple[spool.Meta, Record]]:
    """The records of all ranks in the order of their times, each rank's in its own."""
    streams = []
    for stream in spool.find_streams(folder / ".trainvitals"):
        meta, latest = spool.read_meta(stream), 0.0
        timed = []
        for record in spool.read_stream(stream):
            latest = max(latest, record.time)
            timed.append((latest, meta, record))
        streams.append(timed)
    for _, meta, record in heapq.merge(*streams, key=lambda timed: timed[0]):
        yield meta, record


def _found(finding: Finding, severity: int, step: int) -> Found:
    origin = finding.evidence.get("origin")
    direction = str(origin["direction"]) if isinstance(origin, dict) else ""
    return Found(
        finding.rule,
        SEVERITIES[severity],
        finding.root,
        finding.first_step,
        step,
        finding.layers,
        finding.title,
        direction,
    )
