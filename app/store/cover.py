"""Which blocks hold the records of some steps, found without looking at more blocks than the answer needs."""

import sqlite3
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Final

import numpy as np
import numpy.typing as npt

from trainvitals.app.store import groups, pyramid, tiles
from trainvitals.app.store.groups import Group

NEVER: Final = 2**62
"""After every step; its negative is before every step."""

Mask = npt.NDArray[np.bool_]
Steps = npt.NDArray[np.int64]


@dataclass(slots=True)
class Reach:
    """The records of a group that were asked for, in their order."""

    group: Group
    whole: list[tuple[int, int]]
    """Blocks of records, from one to before another."""
    partial: dict[int, tuple[Steps, Mask]]
    """Blocks of which some records were asked for: their steps, and which."""
    tail_first: int
    """Number of the first record of the tail that is looked at."""
    tail: Steps
    """Steps of the records of the tail from there on."""
    tail_kept: Mask

    @property
    def records(self) -> int:
        """How many records they are."""
        blocks = sum(last - first for first, last in self.whole) * self.group.block
        return (
            blocks + sum(int(kept.sum()) for _, kept in self.partial.values()) + self.tail_records
        )

    @property
    def tail_records(self) -> int:
        """How many of them are in the tail."""
        return int(self.tail_kept.sum())

    def ends(self) -> list[tuple[int, int]]:
        """The runs of consecutive records that they lie in: number of the first, number after the last."""
        block = self.group.block
        found = [(first * block, last * block) for first, last in self.whole]
        parts = [(number * block, kept) for number, (_, kept) in self.partial.items()]
        parts.append((self.tail_first, self.tail_kept))
        for start, kept in parts:
            inside = np.flatnonzero(kept)
            if len(inside):
                found.append((start + int(inside[0]), start + int(inside[-1]) + 1))
        return found

    def after(self, connection: sqlite3.Connection, record: int) -> None:
        """Leave out what is before record number `record` of the group."""
        block, whole = self.group.block, []
        for first, last in self.whole:
            if first * block < record < last * block and record % block:
                steps = block_steps(connection, self.group, 0, record // block)
                self.partial[record // block] = (steps, np.ones(block, np.bool_))
            first = max(first, -(-record // block))
            if first < last:
                whole.append((first, last))
        self.whole = whole
        for number, (steps, kept) in list(self.partial.items()):
            kept = kept & (np.arange(block) + number * block >= record)
            self.partial[number] = (steps, kept)
            if not kept.any():
                del self.partial[number]
        before = max(record - self.tail_first, 0)
        self.tail_first += before
        self.tail, self.tail_kept = self.tail[before:], self.tail_kept[before:]


def reach(connection: sqlite3.Connection, group: Group, low: int, high: int) -> Reach:
    """The records of `group` whose steps go from `low` to before `high`."""
    tail = groups.tail_steps(connection, group)
    kept = (tail >= low) & (tail < high)
    if low <= -NEVER and high >= NEVER:
        blocks = group.blocks(0)
        return Reach(group, [(0, blocks)] if blocks else [], {}, group.compacted, tail, kept)
    whole: list[tuple[int, int]] = []
    partial: dict[int, tuple[Steps, Mask]] = {}
    for level, number, inside in _found(connection, group, _roots(group), low, high):
        if not inside:
            steps = block_steps(connection, group, 0, number)
            partial[number] = (steps, (steps >= low) & (steps < high))
            continue
        first = number * pyramid.spread(level)
        last = first + pyramid.spread(level)
        if whole and whole[-1][1] == first:
            first = whole.pop()[0]
        whole.append((first, last))
    return Reach(group, whole, partial, group.compacted, tail, kept)


def _roots(group: Group) -> Iterator[tuple[int, int, int]]:
    """Level, first and last number of the blocks that are in no block of a higher level, in order."""
    top = 0
    while group.blocks(top + 1):
        top += 1
    for level in range(top, -1, -1):
        above = group.blocks(level + 1)
        first = above * (pyramid.FAN if level else pyramid.FIRST_SPAN)
        if first < group.blocks(level):
            yield level, first, group.blocks(level) - 1


def _found(
    connection: sqlite3.Connection,
    group: Group,
    ranges: Iterable[tuple[int, int, int]],
    low: int,
    high: int,
) -> Iterator[tuple[int, int, bool]]:
    """Level and number of the blocks with such steps, in order; whether all of its steps are, else it is of level 0."""
    for level, first, last in ranges:
        for number, bottom, top in connection.execute(
            "SELECT block, low, high FROM blocks WHERE grp = ? AND level = ? "
            "AND block BETWEEN ? AND ? ORDER BY block",
            (group.key, level, first, last),
        ).fetchall():
            if top < low or bottom >= high:
                continue
            inside = low <= bottom and top < high
            if inside or level == 0:
                yield level, number, inside
            else:
                fan = pyramid.FAN if level > 1 else pyramid.FIRST_SPAN
                below = (level - 1, number * fan, number * fan + fan - 1)
                yield from _found(connection, group, [below], low, high)


def block_steps(connection: sqlite3.Connection, group: Group, level: int, number: int) -> Steps:
    """Steps of a block: of its records, of the first record of each of its nodes."""
    (body,) = connection.execute(
        "SELECT steps FROM blocks WHERE grp = ? AND level = ? AND block = ?",
        (group.key, level, number),
    ).fetchone()
    return tiles.unpack_steps(body)


@dataclass(frozen=True, slots=True)
class Span:
    """Consecutive blocks, `first` to `last`, read at one level."""

    level: int
    first: int
    last: int
    fresh: bool = False
    """Whether its nodes of level 1 are in no block yet; its numbers are those of blocks of records then."""
    kept: Mask | None = None
    """Which records of its one block were asked for; None for all."""

    def start(self, group: Group) -> int:
        """Number of its first record in the group."""
        return self.first * (1 if self.fresh else pyramid.spread(self.level)) * group.block


def spans(found: Reach, level: int) -> list[Span]:
    """Cover whole blocks by those of `level` and the rest by finer ones, in the order of the records."""
    covers = [
        span for first, last in found.whole for span in _cover(found.group, first, last, level)
    ]
    covers += [Span(0, number, number, kept=kept) for number, (_, kept) in found.partial.items()]
    return sorted(covers, key=lambda span: span.start(found.group))


def _cover(group: Group, first: int, last: int, level: int) -> Iterator[Span]:
    """Blocks of records from `first` to before `last`."""
    if first >= last:
        return
    if level == 0:
        yield Span(0, first, last - 1)
        return
    spread = pyramid.spread(level)
    low, high = -(-first // spread), min(last // spread, group.blocks(level))
    if low < high:
        yield from _cover(group, first, low * spread, level - 1)
        yield Span(level, low, high - 1)
        yield from _rest(group, high * spread, last, level)
    else:
        yield from _rest(group, first, last, level)


def _rest(group: Group, first: int, last: int, level: int) -> Iterator[Span]:
    """As `_cover` with the level below; nodes of level 1 are there for the newest blocks of records, too."""
    if level > 1:
        yield from _cover(group, first, last, level - 1)
        return
    waiting = max(first, group.blocks(1) * pyramid.FIRST_SPAN)
    yield from _cover(group, first, min(last, waiting), 0)
    if waiting < last:
        yield Span(1, waiting, last - 1, fresh=True)
