"""Whether what is stored of a run agrees with itself: every summary recomputed from the records and compared.

The log is the account of what came in. From it follow the numbering, the steps and the scalars of every group; from a
group's records follow all levels of its pyramid. Arithmetic here is its own, apart from that of `pyramid`.
"""

import sqlite3
from collections.abc import Iterator
from dataclasses import dataclass, field

import msgspec
import numpy as np
import numpy.typing as npt
import zstandard

from trainvitals.app.store import bars, catalog, groups, pyramid, tiles
from trainvitals.app.store.append import REFERENCE, log_decoder
from trainvitals.app.store.compression import decompress
from trainvitals.app.store.groups import Group
from trainvitals.app.store.pyramid import Nodes
from trainvitals.hooks.wire.codec import WireError
from trainvitals.hooks.wire.records import Event, Record, Step
from trainvitals.hooks.wire.scalars import expand

_Array = npt.NDArray[np.float64]
_MEAN_TOLERANCE = 1e-5
"""How far a stored mean may be from the recomputed one, as a share of the largest value: it is kept as float32."""
_UNREADABLE = (zstandard.ZstdError, msgspec.DecodeError, WireError, ValueError, LookupError)
"""What damaged bytes raise on their way to numbers."""


def audit(connection: sqlite3.Connection, run_id: str) -> list[str]:
    """What is wrong with a run, one sentence each; empty where all is well.

    connection: within a read transaction. Reads all there is of the run: some seconds for 10 million layer-steps.
    Raises sqlite3.Error where SQLite itself cannot read.
    """
    run = catalog.find_key(connection, run_id)
    if run is None:
        return [f"There is no run {run_id[:80]!r}."]
    names = {key: name for name, key in catalog.names(connection, run).items()}
    wrong = []
    for key, attempt, rank, after in connection.execute(
        "SELECT key, attempt, rank, next FROM streams WHERE run = ? ORDER BY attempt, rank", (run,)
    ).fetchall():
        found = _Stream(connection, key, rank == 0, names).check(after)
        wrong += [f"Attempt {attempt}, rank {rank}: {line}" for line in found]
    return wrong


@dataclass(slots=True)
class _Stream:
    """One stream, checked from its log on."""

    connection: sqlite3.Connection
    key: int
    charted: bool
    names: dict[int, str]
    wrong: list[str] = field(default_factory=list)
    sampled: dict[int, list[tuple[int, int]]] = field(default_factory=dict)
    """By group: the number and the step of each sample that the log refers to."""
    rows: list[tuple[int, dict[str, float]]] = field(default_factory=list)
    """Rows of scalars that were not compared yet."""

    def check(self, after: int) -> list[str]:
        """`after`: number of the record that the stream waits for."""
        held = [
            Group(*row)
            for row in self.connection.execute(
                f"SELECT {groups.FIELDS} FROM groups g WHERE g.stream = ? ORDER BY g.key",
                (self.key,),
            ).fetchall()
        ]
        scalars = next((group for group in held if group.scalar), None)
        try:
            self._log(after, scalars)
        except _UNREADABLE as error:
            self.wrong.append(f"the log cannot be read: {error}.")
        for group in held:
            try:
                self._group(group)
            except _UNREADABLE as error:
                self.wrong.append(f"group {group.number} cannot be read: {error}.")
        return self.wrong

    def _log(self, after: int, scalars: Group | None) -> None:
        expected, steps, events = 0, list[int](), set[int]()
        compared = 0
        for record in self._records():
            if record.seq != expected:
                self.wrong.append(f"record {record.seq} in the log where {expected} belongs.")
                expected = record.seq
            expected += 1
            for single in expand(record):
                if isinstance(single, Step):
                    steps.append(single.step)
                    self._note(single)
            if isinstance(record, Event):
                events.add(record.seq)
            while scalars is not None and len(self.rows) >= scalars.block:
                self._compare_scalars(scalars, compared)
                compared += scalars.block
        if scalars is not None:
            self._compare_scalars(scalars, compared)
        elif self.charted and self.rows:
            self.wrong.append(f"{len(self.rows)} rows of scalars are in the log alone.")
        if expected != after:
            self.wrong.append(f"the log ends before record {expected}, the stream before {after}.")
        self._marks(steps, events)

    def _records(self) -> Iterator[Record]:
        for last, count, body in self.connection.execute(
            "SELECT last, count, body FROM log WHERE stream = ? ORDER BY last", (self.key,)
        ):
            records = log_decoder.decode(decompress(body))
            if len(records) != count or records[-1].seq != last:
                self.wrong.append(f"the log's row up to {last} does not hold its {count} records.")
            yield from records

    def _note(self, record: Step) -> None:
        if not self.charted:
            return
        if record.scalars:
            self.rows.append((record.step, record.scalars))
        for sample in record.samples:
            key, number = REFERENCE.unpack(sample.values)
            self.sampled.setdefault(key, []).append((number, record.step))

    def _marks(self, steps: list[int], events: set[int]) -> None:
        marks = self.connection.execute(
            "SELECT first_step, last_step FROM streams WHERE key = ?", (self.key,)
        ).fetchone()
        told = (min(steps), max(steps)) if steps else (None, None)
        if marks != told:
            self.wrong.append(f"its steps reach over {told}, its marks say {marks}.")
        rows = self.connection.execute("SELECT seq FROM events WHERE stream = ?", (self.key,))
        if {row[0] for row in rows} != events:
            self.wrong.append("its events are not those of the log.")

    def _compare_scalars(self, group: Group, first: int) -> None:
        """Compare the next block of `rows`, or what is left of them, with records `first` and on of the group."""
        rows, self.rows = self.rows[: group.block], self.rows[group.block :]
        if not rows:
            return
        wanted: dict[str, _Array] = {}
        for index, (_, scalars) in enumerate(rows):
            for name, value in scalars.items():
                if name not in wanted:
                    wanted[name] = np.full(len(rows), tiles.MISSING["<f8"])
                wanted[name][index] = value
        tail = None if first < group.compacted else groups.read_tail(self.connection, group)
        for column, name in self.names.items():
            if tail is None:
                held = _values(self.connection, group, column, 0, first // group.block)
            else:
                held = tail.scalars_of(column)
            if held is None:
                same = name not in wanted
            elif name not in wanted:
                same = bool((held.view("<u8") == tiles.MISSING_BITS_64).all())
            else:
                same = np.array_equal(held[0], wanted[name], equal_nan=True)
            if not same:
                self.wrong.append(f"scalar {name!r} differs from the log in rows {first} and on.")

    def _group(self, group: Group) -> None:
        label = f"group {group.number} (key {group.key})"
        steps, blocks = self._steps(group, label)
        told = self.sampled.get(group.key, [])
        if not group.scalar and self.charted:
            if [number for number, _ in told] != list(range(group.count)):
                self.wrong.append(f"{label}: the log does not refer to its {group.count} records.")
            elif [step for _, step in told] != steps.tolist():
                self.wrong.append(f"{label}: its steps are not those of the log.")
        for column in (self.names if group.scalar else range(group.columns)) if blocks else ():
            sums = _Sums.of_blocks(self.connection, group, column, blocks)
            self._pyramid(group, label, column, sums)
        for kind, step, body in self.connection.execute(
            "SELECT kind, step, body FROM histograms WHERE grp = ?", (group.key,)
        ):
            try:
                bars.unpack(body, group.rows)
            except _UNREADABLE as error:
                self.wrong.append(f"{label}: {kind} histograms of step {step}: {error}")

    def _steps(self, group: Group, label: str) -> tuple[npt.NDArray[np.int64], int]:
        """The steps of all records of a group, and how many whole blocks there are."""
        tail = groups.read_tail(self.connection, group)
        parts: list[npt.NDArray[np.int64]] = []
        for level, number, low, high, body in self.connection.execute(
            "SELECT level, block, low, high, steps FROM blocks WHERE grp = ? ORDER BY level, block",
            (group.key,),
        ).fetchall():
            steps = tiles.unpack_steps(body)
            if level == 0:
                if number != len(parts) or len(steps) != group.block:
                    self.wrong.append(f"{label}: block {number} where {len(parts)} belongs.")
                parts.append(steps)
                covered = steps
            else:
                many = pyramid.spread(level)
                covered = np.concatenate(parts[number * many : (number + 1) * many])
                if steps.tolist() != covered.reshape(-1, pyramid.width(level)).min(axis=1).tolist():
                    self.wrong.append(f"{label}: steps of level {level}, block {number}.")
            if (low, high) != (covered.min(), covered.max()):
                self.wrong.append(f"{label}: reach of level {level}, block {number}.")
        if (len(parts) * group.block, len(tail.steps)) != (
            group.compacted,
            group.count - group.compacted,
        ):
            self.wrong.append(
                f"{label}: {len(parts)} blocks and a tail of {len(tail.steps)} records; expected "
                f"{group.compacted} records in blocks of {group.block}, {group.count} in all."
            )
        return np.concatenate([*parts, tail.steps]), len(parts)

    def _pyramid(self, group: Group, label: str, column: int, sums: "_Sums") -> None:
        """Compare all levels of one column with the records; sums: of level 1."""
        count = group.block // pyramid.FIRST_WIDTH
        held = self.connection.execute(
            "SELECT block, body FROM fresh WHERE grp = ? AND col = ? ORDER BY block",
            (group.key, column),
        ).fetchall()
        waiting = range(pyramid.FIRST_SPAN * group.blocks(1), group.blocks(0))
        for number in {block for block, _ in held}.union(waiting):
            own = sums.part(slice(0, group.rows), number * count, count)
            bodies = [body for block, body in held if block == number]
            nodes = None
            if bodies:
                nodes = tiles.unpack_plain(bodies, group.dtype, group.rows, count, 1)[0]
            if number not in waiting or not own.agrees(nodes):
                self.wrong.append(f"{label}: fresh nodes of column {column}, block {number}.")
        level, count = 1, group.nodes(1)
        while group.blocks(level):
            for number in range(group.blocks(level)):
                for low in range(0, group.rows, tiles.TILE_ROWS):
                    tile, rows = low // tiles.TILE_ROWS, slice(low, low + tiles.TILE_ROWS)
                    own = sums.part(rows, number * count, count)
                    body = _body(self.connection, group, level, column, tile, number)
                    if not own.agrees(_nodes(group, body, level, len(own.count))):
                        self.wrong.append(
                            f"{label}: level {level}, column {column}, tile {tile}, block {number} "
                            "is not what its records give."
                        )
            sums, level = sums.coarser(), level + 1


@dataclass(frozen=True, slots=True)
class _Sums:
    """Summaries of consecutive records, recomputed; arrays have shape (rows, n)."""

    low: _Array
    high: _Array
    total: _Array
    last: _Array
    count: npt.NDArray[np.int64]
    nonfinite: npt.NDArray[np.int64]

    @classmethod
    def of_blocks(
        cls, connection: sqlite3.Connection, group: Group, column: int, blocks: int
    ) -> "_Sums":
        """Of `pyramid.FIRST_WIDTH` records each, over all rows."""
        parts = []
        for number in range(blocks):
            values = np.full((group.rows, group.block), tiles.MISSING[group.dtype])
            for low in range(0, group.rows, tiles.TILE_ROWS):
                held = _values(connection, group, column, low // tiles.TILE_ROWS, number)
                if held is not None:
                    values[low : low + tiles.TILE_ROWS] = held
            parts.append(_summed(values, group.dtype, pyramid.FIRST_WIDTH))
        return cls(*(np.concatenate(fields, axis=1) for fields in zip(*parts, strict=True)))

    def part(self, rows: slice, first: int, count: int) -> "_Sums":
        """Some rows of `count` sums, from number `first` on."""
        where = (rows, slice(first, first + count))
        return _Sums(
            self.low[where],
            self.high[where],
            self.total[where],
            self.last[where],
            self.count[where],
            self.nonfinite[where],
        )

    def coarser(self) -> "_Sums":
        """Of `pyramid.FAN` each, as far as they go."""
        rows, whole = len(self.count), self.count.shape[1] // pyramid.FAN * pyramid.FAN
        shape = (rows, whole // pyramid.FAN, pyramid.FAN)
        recorded = (self.count + self.nonfinite)[:, :whole].reshape(shape) > 0
        return _Sums(
            np.fmin.reduce(self.low[:, :whole].reshape(shape), axis=2),
            np.fmax.reduce(self.high[:, :whole].reshape(shape), axis=2),
            self.total[:, :whole].reshape(shape).sum(axis=2),
            _last(self.last[:, :whole].reshape(shape), recorded),
            self.count[:, :whole].reshape(shape).sum(axis=2),
            self.nonfinite[:, :whole].reshape(shape).sum(axis=2),
        )

    def agrees(self, nodes: Nodes | None) -> bool:
        """Whether these are the sums that `nodes` hold; None where nothing is stored, as of nothing."""
        if nodes is None:
            return not (self.count.any() or self.nonfinite.any())
        mean = np.where(self.count > 0, self.total / np.maximum(self.count, 1), np.nan)
        size = np.fmax(np.abs(self.low), np.abs(self.high))
        with np.errstate(invalid="ignore", over="ignore"):
            near = (np.abs(nodes.mean - mean) <= _MEAN_TOLERANCE * size) | ~np.isfinite(mean)
        return (
            np.array_equal(nodes.finite, self.count)
            and np.array_equal(nodes.nonfinite, self.nonfinite)
            and np.array_equal(nodes.min, self.low, equal_nan=True)
            and np.array_equal(nodes.max, self.high, equal_nan=True)
            and np.array_equal(nodes.last, self.last, equal_nan=True)
            and bool(near.all())
        )


def _summed(
    values: npt.NDArray[np.floating], dtype: str, width: int
) -> tuple[npt.NDArray[np.generic], ...]:
    """The fields of `_Sums` of every `width` values of shape (rows, n)."""
    bits = f"<u{values.dtype.itemsize}"
    recorded = values.view(bits) != tiles.MISSING[dtype].view(bits)
    with np.errstate(invalid="ignore"):  # a signalling NaN
        wide = values.astype(np.float64)
    shape = (len(values), -1, width)
    wide, recorded = wide.reshape(shape), recorded.reshape(shape)
    finite = np.isfinite(wide)
    with np.errstate(over="ignore", invalid="ignore"):
        total = np.where(finite, wide, 0.0).sum(axis=2)
    shown = np.where(finite, wide, np.nan)
    return (
        np.fmin.reduce(shown, axis=2),
        np.fmax.reduce(shown, axis=2),
        total,
        _last(wide, recorded),
        finite.sum(axis=2),
        (recorded & ~finite).sum(axis=2),
    )


def _last(values: _Array, recorded: npt.NDArray[np.bool_]) -> _Array:
    """The last recorded value along the last axis, NaN where there is none."""
    place = recorded.shape[-1] - 1 - recorded[..., ::-1].argmax(axis=-1)
    chosen = np.take_along_axis(values, place[..., None], axis=-1)[..., 0]
    return np.where(recorded.any(axis=-1), chosen, np.nan)


def _values(
    connection: sqlite3.Connection, group: Group, column: int, tile: int, block: int
) -> npt.NDArray[np.floating] | None:
    """Records of one tile and block, shape (rows of the tile, records); None where nothing is stored."""
    body = _body(connection, group, 0, column, tile, block)
    if body is None:
        return None
    height = min(tiles.TILE_ROWS, group.rows - tile * tiles.TILE_ROWS)
    return tiles.unpack_values(body, group.dtype, height, group.block)


def _body(
    connection: sqlite3.Connection, group: Group, level: int, column: int, tile: int, block: int
) -> bytes | None:
    row = connection.execute(
        "SELECT body FROM tiles WHERE grp = ? AND level = ? AND col = ? AND tile = ? AND block = ?",
        (group.key, level, column, tile, block),
    ).fetchone()
    return None if row is None else row[0]


def _nodes(group: Group, body: bytes | None, level: int, rows: int) -> Nodes | None:
    """The nodes of one tile, shape (rows, n)."""
    if body is None:
        return None
    return tiles.unpack_nodes([body], group.dtype, rows, group.nodes(level), level)[0]
