"""Which records and nodes answer a question about some steps, and in which buckets they end up.

A bucket is a run of consecutive records of a group, 1, 2, 4, 8, ... of them, counted from the group's first: so its
bounds stay where they are while the run grows, until it is twice as long. It goes by its lowest step. Where several
records speak of one step, a wide bucket may begin among them: the earlier ones are in the bucket before.
"""

import sqlite3
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np
import numpy.typing as npt

from trainvitals.app.store import catalog, groups, pyramid, tiles
from trainvitals.app.store.cover import NEVER, Mask, Reach, Span, Steps, block_steps, reach, spans
from trainvitals.app.store.groups import Group

_LOOK_BACK: Final = 64
"""Buckets of one step that are looked through for the first that changed."""


@dataclass(frozen=True, slots=True)
class Piece:
    """Nodes that are read together."""

    span: Span | None
    """None for the tail."""
    starts: npt.NDArray[np.intp]
    """First node of each run of nodes that share a bucket."""


@dataclass(frozen=True, slots=True)
class Segment:
    """What of one group answers the question, in the order of its records."""

    reach: Reach
    pieces: list[Piece]
    steps: Steps
    """The lowest step of the bucket of each run of nodes, of all pieces."""
    firsts: npt.NDArray[np.intp]
    """The first run of each bucket: one may go over several pieces."""


@dataclass(frozen=True, slots=True)
class Plan:
    """The answer's parts and buckets."""

    segments: list[Segment]
    edges: Steps
    """First step of each bucket; shape (buckets,)."""
    cursor: str
    """How far the answer goes: asked again with it, only the buckets that changed since are given."""
    whole: bool
    """Whether it is the whole answer. If not, it takes the place of the buckets from its first one on."""


def plan(
    connection: sqlite3.Connection,
    run: int,
    kind: str,
    start: int | None,
    stop: int | None,
    points: int,
    since: str = "",
) -> Plan:
    """How to read the groups of `kind` of a run from step `start` to before `stop` in at most `points` buckets.

    since: the cursor of an earlier answer to the same question, "" for none.
    """
    found = _reaches(connection, run, kind, start, stop)
    width = _width([part for part, _ in found], points)
    counts = {key: part.group.count for part, key in found}
    then = _Cursor.parse(since)
    if then is not None and (then.width != width or then.counts.keys() != counts.keys()):
        then = None
    if then is not None:
        for part, key in found:
            part.after(connection, _changed(connection, part, then.counts[key], width))
    edges, segments = _segments(connection, [part for part, _ in found], width)
    if then is not None and len(edges) and edges[0] < then.edge:  # steps went back
        return plan(connection, run, kind, start, stop, points)
    edge = int(edges[-1]) if len(edges) else -NEVER
    if len(edges) > points and then is None:  # more groups than points
        edges, edge = edges[:: -(-len(edges) // points)], NEVER
    return Plan(segments, edges, _Cursor(width, edge, counts).text(), then is None)


_Key = tuple[int, int, int]
"""Of a group, and from which step to before which it was asked for."""


@dataclass(frozen=True, slots=True)
class _Cursor:
    """How far an answer went."""

    width: int
    """Records in a bucket."""
    edge: int
    """First step of the last bucket."""
    counts: dict[_Key, int]
    """Records of each group."""

    def text(self) -> str:
        numbers = [self.width, self.edge]
        for key, count in self.counts.items():
            numbers += [*key, count]
        return "_".join(map(str, numbers))

    @classmethod
    def parse(cls, text: str) -> "_Cursor | None":
        """None for what is no cursor, or one of another release: the answer to it is a whole one."""
        try:
            width, edge, *rest = map(int, text.split("_"))
        except ValueError:
            return None
        parts = zip(*[iter(rest)] * 4, strict=False)
        return cls(width, edge, {(key, low, high): count for key, low, high, count in parts})


def _reaches(
    connection: sqlite3.Connection, run: int, kind: str, start: int | None, stop: int | None
) -> list[tuple[Reach, _Key]]:
    """What of each group was asked for."""
    ends = catalog.view_ends(connection, run)
    rows = connection.execute(
        f"SELECT s.attempt, {groups.FIELDS} FROM groups g JOIN streams s ON s.key = g.stream "
        "WHERE s.run = ? AND s.rank = 0 AND g.kind = ? AND g.count > 0 ORDER BY s.attempt, g.key",
        (run, kind),
    ).fetchall()
    low = -NEVER if start is None else start
    found = []
    for attempt, *fields in rows:
        end = ends[attempt]
        high = min(NEVER if stop is None else stop, NEVER if end is None else end)
        part = reach(connection, Group(*fields), low, high)
        if part.records:
            found.append((part, (part.group.key, low, high)))
    return found


def _width(found: Sequence[Reach], points: int) -> int:
    """Records in a bucket, so that there are at most `points` buckets."""
    most = max((part.group.count for part in found), default=0)
    ends = [end for part in found for end in part.ends()]
    width, records = 1, sum(stop - first for first, stop in ends)
    while width * points < records and width < most:
        width *= 2  # so wide at least; a run of records may need a bucket more at each of its ends
    while (
        width < most
        and sum((stop - 1) // width - first // width + 1 for first, stop in ends) > points
    ):
        width *= 2
    return width


def _changed(connection: sqlite3.Connection, part: Reach, count: int, width: int) -> int:
    """The first record of the buckets that changed since the group had `count` records.

    That is the first of the bucket that was the last one; of an earlier one where both begin at the same step.
    """
    record = max(min(count, part.group.count) - 1, 0) // width * width
    for _ in range(_LOOK_BACK):
        before = max(record - 1, 0) // width * width
        if record == 0 or _step(connection, part, record) != _step(connection, part, before):
            return record
        record = before
    return 0


def _step(connection: sqlite3.Connection, part: Reach, record: int) -> int:
    group = part.group
    if record >= group.compacted:
        return int(part.tail[record - part.tail_first])
    return int(block_steps(connection, group, 0, record // group.block)[record % group.block])


def _segments(
    connection: sqlite3.Connection, found: Sequence[Reach], width: int
) -> tuple[Steps, list[Segment]]:
    """The first step of each bucket, and what to read."""
    segments = []
    for part in found:
        runs = [
            _span_runs(connection, part, span, width)
            for span in spans(part, pyramid.level_for(width))
        ]
        if part.tail_kept.any():
            runs.append(_runs(None, part.tail_first, 1, part.tail, part.tail_kept, width))
        if runs:
            segments.append(_segment(part, runs))
    if not segments:
        return np.empty(0, np.int64), []
    if len(segments) == 1 and _rising(segments[0].steps):  # as it mostly is
        return segments[0].steps, segments
    steps = np.sort(np.concatenate([segment.steps for segment in segments]))
    return steps[pyramid.run_starts(steps)], segments


@dataclass(frozen=True, slots=True)
class _Runs:
    """What is read together, as runs of nodes that share a bucket."""

    piece: Piece
    buckets: Steps
    """Number of the bucket of each run."""
    lows: Steps
    """Lowest step of each run."""


def _span_runs(connection: sqlite3.Connection, part: Reach, span: Span, width: int) -> _Runs:
    group = part.group
    level = 0 if span.fresh else span.level
    if span.kept is None:
        rows = connection.execute(
            "SELECT steps FROM blocks WHERE grp = ? AND level = ? AND block BETWEEN ? AND ? "
            "ORDER BY block",
            (group.key, level, span.first, span.last),
        )
        steps = tiles.unpack_all_steps(tuple(rows.fetchall()))
    else:
        steps = part.partial[span.first][0]
    if span.fresh:
        steps = steps.reshape(-1, pyramid.FIRST_WIDTH).min(axis=1)
    return _runs(span, span.start(group), pyramid.width(span.level), steps, span.kept, width)


def _runs(
    span: Span | None, first: int, wide: int, steps: Steps, kept: Mask | None, width: int
) -> _Runs:
    """Nodes of `wide` records each with their lowest steps, from record `first` on, of which some may be `kept`."""
    if kept is None or kept.all():
        each = width // wide
        early = -(first // wide) % each  # nodes of a bucket that began before
        starts = np.arange(early - each if early else 0, len(steps), each)
        starts[:1] = 0
        buckets = np.arange(first // width, first // width + len(starts))
    else:
        own = (first + wide * np.flatnonzero(kept)) // width
        steps, starts = steps[kept], pyramid.run_starts(own)
        buckets = own[starts]
    return _Runs(Piece(span, starts), buckets, _lowest(steps, starts))


def _rising(steps: Steps) -> bool:
    return bool((steps[1:] > steps[:-1]).all())


def _lowest(steps: Steps, starts: npt.NDArray[np.intp]) -> Steps:
    """The lowest step of each run; as they mostly rise its first, which is found many times as fast."""
    if len(starts) == len(steps):
        return steps
    if (steps[1:] >= steps[:-1]).all():
        return steps[starts]
    return np.minimum.reduceat(steps, starts)


def _segment(part: Reach, runs: Sequence[_Runs]) -> Segment:
    number = np.concatenate([one.buckets for one in runs])
    low = np.concatenate([one.lows for one in runs])
    firsts = pyramid.run_starts(number)
    if len(firsts) < len(number):
        lengths = np.diff(np.concatenate((firsts, [len(number)])))
        low = np.repeat(np.minimum.reduceat(low, firsts), lengths)
    return Segment(part, [one.piece for one in runs], low, firsts)
