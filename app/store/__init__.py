"""The store: runs, their records and what was found in them, in one SQLite file.

All SQL of the server is in this package. Everything is reached by `Store`; what it takes and gives is in `types`.

A page that follows a live run asks `series_news`, `matrix_news` and `row_news`, first with "" and then each time with
the cursor of the answer before, to the same question. It gets the buckets that changed: mostly the last one and new
ones. Where an answer is not `whole`, a series keeps what lies before its first new step and takes the rest anew; a
matrix likewise, column by column. Scalars that appeared meanwhile need a question of their own.
"""

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import Self

import numpy as np
import numpy.typing as npt

from trainvitals.app.retention import Policy
from trainvitals.app.rules.finding import Finding
from trainvitals.app.store import (
    append,
    cards,
    catalog,
    census,
    erase,
    export,
    findings,
    handling,
    histograms,
    outbox,
    read,
    replay,
    retention,
    signs,
    silences,
    upkeep,
)
from trainvitals.app.store.connection import Database
from trainvitals.app.store.migrations import MIGRATIONS
from trainvitals.app.store.types import (
    AlertRow,
    Card,
    Census,
    Conflict,
    Delivery,
    DeliveryState,
    Evaluation,
    Handling,
    HistogramSeries,
    InvalidRecord,
    Matrix,
    News,
    NotFound,
    Receipt,
    Run,
    RunDeleted,
    SequenceGap,
    Series,
    Shelf,
    Sign,
    Silence,
    StoreError,
    Stream,
    StreamState,
    Taken,
)
from trainvitals.hooks.wire.records import Batch, Event, GroupKind, HistogramKind, Layout, Record

__all__ = [
    "Conflict",
    "InvalidRecord",
    "NotFound",
    "RunDeleted",
    "SequenceGap",
    "Store",
    "StoreError",
]


class Store:
    """A database of runs. Any thread and any number of processes may use one file at the same time.

    Each method is one transaction. Steps go from `start` to before `stop`, None for no limit. Of a run that is not
    there, reads find nothing. Only rank 0 feeds the charts; where a later attempt records steps anew, it stands in
    for the earlier one from its first step on. Every method raises StoreError when the database fails.
    """

    def __init__(self, database: Database) -> None:
        self._database = database

    @classmethod
    def open(cls, path: Path | str) -> Self:
        """The store in the file `path`, created with its folder where it is missing.

        Raises StoreError, also for a database of a later release.
        """
        return cls(Database(path))

    def close(self) -> None:
        """Close the file."""
        self._database.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

    def append(self, batch: Batch, received: float) -> Receipt:
        """Store what is new in `batch`, which came at `received` (Unix seconds). An empty batch is a heartbeat.

        Once it returns the records are stored for good. Raises SequenceGap when records before the batch are missing,
        InvalidRecord when one does not fit, RunDeleted; then nothing of the batch is stored.
        """
        return append.append(self._database, batch, received)

    def next_seq(self, run: str, attempt: str, rank: int) -> int:
        """`seq` of the record of a stream that is expected next; 0 for an unknown stream."""
        with self._database.read() as connection:
            return catalog.next_seq(connection, run, attempt, rank)

    def runs(self, *, limit: int = 1000, shelf: Shelf = "active") -> list[Run]:
        """The newest runs of a shelf, newest first."""
        with self._database.read() as connection:
            return catalog.runs(connection, limit, shelf)

    def run(self, run: str) -> Run | None:
        """One run, unless it is deleted."""
        with self._database.read() as connection:
            return catalog.run(connection, run)

    def missing_cards(self, limit: int = 10_000) -> list[str]:
        """Runs whose card is of an earlier version or not there, the newest first."""
        with self._database.read() as connection:
            return cards.missing(connection, limit)

    def put_cards(self, made: Sequence[Card], now: float) -> None:
        """Keep cards, in place of earlier ones."""
        with self._database.write() as connection:
            for card in made:
                cards.put(connection, card, now)

    def cards(self, since: float, limit: int) -> tuple[list[Card], dict[str, float], int]:
        """The cards made since `since` of at most `limit` runs, the newest first; when which run was heard of since
        then; and how many runs there are."""
        with self._database.read() as connection:
            return (
                cards.cards(connection, since, limit),
                cards.heard(connection, since),
                cards.count(connection),
            )

    def delete_run(self, run: str, now: float) -> bool:
        """Hide a run, to be purged some time after `now` (Unix seconds); whether there was one to hide."""
        with self._database.write() as connection:
            return catalog.mark(connection, run, "deleted", now)

    def restore_run(self, run: str) -> bool:
        """Bring a deleted run back, whole; whether there was one that is not purged yet."""
        with self._database.write() as connection:
            return catalog.mark(connection, run, "deleted", None)

    def archive_run(self, run: str, now: float) -> bool:
        """Put a run away, at `now` (Unix seconds), where retention leaves it alone; whether there was one in sight."""
        with self._database.write() as connection:
            return catalog.mark(connection, run, "archived", now)

    def unarchive_run(self, run: str) -> bool:
        """Bring an archived run back into sight; whether there was one."""
        with self._database.write() as connection:
            return catalog.mark(connection, run, "archived", None)

    def streams(self, run: str) -> list[StreamState]:
        """How far each process of a run is, and when it was last heard of; by attempt and rank."""
        with self._database.read() as connection:
            return catalog.streams(connection, run)

    def layouts(self, run: str) -> list[Layout]:
        """The newest layout of each group of the newest attempt that has any, by group number."""
        with self._database.read() as connection:
            return catalog.layouts(connection, run)

    def scalar_names(self, run: str) -> list[str]:
        """Names of the scalars, in the order of their first appearance."""
        with self._database.read() as connection:
            return read.scalar_names(connection, run)

    def events(self, run: str, limit: int = 1000) -> list[Event]:
        """The newest events of all ranks in the order of their steps, without those of steps recorded anew."""
        with self._database.read() as connection:
            return catalog.events(connection, run, limit)

    def resumes(self, run: str) -> list[int]:
        """The steps at which training went on in a new process."""
        with self._database.read() as connection:
            return catalog.resumes(connection, run)

    def series(
        self,
        run: str,
        names: list[str],
        *,
        start: int | None = None,
        stop: int | None = None,
        points: int = 1000,
    ) -> dict[str, Series]:
        """Scalars in at most `points` buckets each. Names that were never logged are left out."""
        with self._database.read() as connection:
            return read.series(connection, run, names, start, stop, points, "").data

    def matrix(
        self,
        run: str,
        kind: GroupKind,
        statistic: str,
        *,
        start: int | None = None,
        stop: int | None = None,
        buckets: int = 400,
    ) -> Matrix:
        """A statistic of all layers or parameters in at most `buckets` buckets.

        Rows are those of the newest layout, then those that only earlier layouts had.
        """
        with self._database.read() as connection:
            return read.matrix(connection, run, kind, statistic, start, stop, buckets, "").data

    def row(
        self,
        run: str,
        kind: GroupKind,
        name: str,
        *,
        start: int | None = None,
        stop: int | None = None,
        points: int = 600,
    ) -> dict[str, Series]:
        """All statistics of one layer or parameter in at most `points` buckets each."""
        with self._database.read() as connection:
            return read.row(connection, run, kind, name, start, stop, points, "").data

    def series_news(
        self,
        run: str,
        names: list[str],
        since: str,
        *,
        start: int | None = None,
        stop: int | None = None,
        points: int = 1000,
    ) -> News[dict[str, Series]]:
        """What changed in `series` since a cursor; see `News`."""
        with self._database.read() as connection:
            return read.series(connection, run, names, start, stop, points, since)

    def matrix_news(
        self,
        run: str,
        kind: GroupKind,
        statistic: str,
        since: str,
        *,
        start: int | None = None,
        stop: int | None = None,
        buckets: int = 400,
    ) -> News[Matrix]:
        """What changed in `matrix` since a cursor: its last columns; see `News`."""
        with self._database.read() as connection:
            return read.matrix(connection, run, kind, statistic, start, stop, buckets, since)

    def row_news(
        self,
        run: str,
        kind: GroupKind,
        name: str,
        since: str,
        *,
        start: int | None = None,
        stop: int | None = None,
        points: int = 600,
    ) -> News[dict[str, Series]]:
        """What changed in `row` since a cursor; see `News`."""
        with self._database.read() as connection:
            return read.row(connection, run, kind, name, start, stop, points, since)

    def histograms(
        self,
        run: str,
        kind: HistogramKind,
        name: str,
        *,
        start: int | None = None,
        stop: int | None = None,
        times: int = 300,
    ) -> HistogramSeries:
        """Histograms of one layer or parameter at no more than `times` steps, evenly chosen, always the newest."""
        with self._database.read() as connection:
            return histograms.histograms(connection, run, kind, name, start, stop, times)

    def latest(
        self, run: str, kind: GroupKind
    ) -> tuple[Layout, int, npt.NDArray[np.float32]] | None:
        """The newest sample: its layout, its step, its values of shape (rows, columns). None before the first.

        What was not recorded has the bits of `columns.MISSING_BITS`, which is a NaN.
        """
        with self._database.read() as connection:
            return read.latest(connection, run, kind)

    def replay(
        self, run: str, cursor: Mapping[str, int], limit: int = 2000
    ) -> list[tuple[Stream, Record]]:
        """The next records as they came in, histograms left out: by attempt, rank and `seq`.

        cursor: `seq` of the first record to read by `Stream.key`; a stream that is not in it is read from its start.
        limit: records, of which a record of many steps' scalars counts for as many; it is never cut in two.
        """
        with self._database.read() as connection:
            return replay.replay(connection, run, cursor, limit)

    def claim(self, owner: str, ttl_s: float, now: float) -> list[str]:
        """Lease to `owner` the runs with records that were not evaluated yet, and name them.

        A lease lasts until `commit_evaluation`, or `ttl_s` seconds from `now` (Unix seconds).
        """
        return findings.claim(self._database, owner, ttl_s, now)

    def evaluation(self, run: str) -> Evaluation:
        """The last evaluation of a run."""
        with self._database.read() as connection:
            return findings.evaluation(connection, run)

    def commit_evaluation(
        self,
        run: str,
        owner: str,
        cursor: Mapping[str, int],
        state: bytes | None,
        findings_now: Sequence[Finding],
        alerts: Sequence[AlertRow],
        now: float,
    ) -> None:
        """Keep an evaluation, its findings in place of the earlier ones and its alerts, and hand back the lease.

        An alert whose id is known already is not added. Raises Conflict when the lease was lost, NotFound when the run
        was deleted; then nothing is kept.
        """
        with self._database.write() as connection:
            findings.commit(connection, run, owner, cursor, state, findings_now, alerts)

    def findings(self, run: str) -> list[Finding]:
        """What was found in a run, in the order in which it was committed."""
        with self._database.read() as connection:
            return findings.findings(connection, run)

    def finding_counts(self) -> dict[str, dict[str, int]]:
        """How many root findings are firing, by run and severity; runs without any are left out."""
        with self._database.read() as connection:
            return findings.counts(connection)

    def handling(self, run: str) -> dict[str, Handling]:
        """What people said of the findings of a run, by the findings' keys."""
        with self._database.read() as connection:
            return handling.handling(connection, run)

    def acknowledge(self, run: str, key: str, first_step: int, when: float | None) -> None:
        """Note that someone has seen the finding `key` with that onset; None: nobody has. Raises NotFound."""
        with self._database.write() as connection:
            handling.acknowledge(connection, run, key, first_step, when)

    def mute(self, run: str, key: str, until: float | None) -> None:
        """Send nothing about the finding `key` before `until` (Unix seconds, None: at once). Raises NotFound."""
        with self._database.write() as connection:
            handling.mute(connection, run, key, until)

    def silences(self, run: str | None = None) -> list[Silence]:
        """The newest silence of each rank of a run (None: of every run), the earliest first."""
        with self._database.read() as connection:
            return silences.silences(connection, run)

    def note_silence(self, silence: Silence, alerts: Sequence[AlertRow]) -> None:
        """Keep a silence that has begun or is over, and the alerts that it causes. Raises NotFound."""
        with self._database.write() as connection:
            silences.note(connection, silence, alerts)

    def add_alerts(self, alerts: Sequence[AlertRow]) -> None:
        """Put alerts in the outbox, but for those whose id is known. Raises NotFound."""
        with self._database.write() as connection:
            outbox.add(connection, alerts)

    def standing_alerts(self, before: float, heard_since: float) -> list[AlertRow]:
        """Openings of before `before` that nothing has closed, of runs that were heard of since `heard_since`."""
        with self._database.read() as connection:
            return outbox.standing(connection, before, heard_since)

    def take_alert(
        self, channel: str, now: float, lease_s: float = 60.0, pace_s: float = 0.0
    ) -> Taken | None:
        """Take the next alert to send on a channel at `now`, so that nobody else takes it; None when none is due.

        Whoever takes it says within `lease_s` what became of it, else it can be taken again. One waits for the earlier
        ones of its group, and for the end of a mute. The channel is held for `pace_s` after it.
        """
        return outbox.take(self._database, channel, now, lease_s, pace_s)

    def mark_delivered(self, alert: str, channel: str, now: float, hold_until: float = 0.0) -> None:
        """Note that a taken alert was sent. Nothing more is sent on the channel before `hold_until`."""
        with self._database.write() as connection:
            outbox.mark(connection, alert, channel, now, "delivered", hold_until=hold_until)

    def mark_failed(
        self,
        alert: str,
        channel: str,
        now: float,
        error: str,
        retry_at: float | None,
        hold_until: float = 0.0,
    ) -> None:
        """Note that a taken alert could not be sent; to be tried again at `retry_at` (Unix seconds), None for never.

        Nothing more is sent on the channel before `hold_until`.
        """
        state: DeliveryState = "failed" if retry_at is None else "pending"
        with self._database.write() as connection:
            outbox.mark(
                connection,
                alert,
                channel,
                now,
                state,
                error=error,
                retry_at=retry_at,
                hold_until=hold_until,
            )

    def cancel(self, alert: str, channel: str | None = None) -> None:
        """Do not send a taken alert on `channel`, or on any channel where none is given."""
        with self._database.write() as connection:
            outbox.cancel(connection, alert, channel)

    def deliveries(
        self, run: str | None = None, limit: int = 200, alert: str | None = None
    ) -> list[Delivery]:
        """The delivery log, the newest first; of one run or one alert where it is given."""
        with self._database.read() as connection:
            return outbox.deliveries(connection, run, limit, alert)

    def removals(self, policy: Policy, now: float) -> list[retention.Removal]:
        """What `policy` removes at `now` (Unix seconds), in the order in which to do it."""
        with self._database.read() as connection:
            return retention.plan(connection, policy, now)

    def remove(self, removal: retention.Removal, now: float) -> Iterator[None]:
        """Do one of `removals`, one short transaction a step; pause between steps, so that others may write."""
        return retention.carry_out(self._database, removal, now)

    def shrink(self) -> Iterator[None]:
        """Give free room in the file back to the file system, in steps as `remove`."""
        return erase.shrink(self._database)

    def sign(self, name: str, now: float, **body: object) -> None:
        """Note that a part of the server was at work at `now` (Unix seconds), and what it has to say."""
        with self._database.write() as connection:
            signs.give(connection, name, now, body)

    def export(self, run: str, what: export.What) -> export.Table:
        """All there is of a run, as rows in full resolution, read part by part."""
        return export.table(self._database, run, what)

    def census(self, now: float) -> Census:
        """How much there is of everything at `now` (Unix seconds)."""
        with self._database.read() as connection:
            return census.census(connection, now)

    @property
    def path(self) -> Path:
        """The file."""
        return self._database.path

    @property
    def schema(self) -> int:
        """Version of the schema that this release has."""
        return len(MIGRATIONS)

    def probe(self) -> None:
        """Raise StoreError unless the file can be written."""
        upkeep.probe(self._database.path)

    def signs(self) -> dict[str, Sign]:
        """The last sign of each part of the server that ever gave one."""
        with self._database.read() as connection:
            return signs.read(connection)

    def info(self) -> upkeep.Info:
        """What the file holds."""
        with self._database.read() as connection:
            return upkeep.info(self._database, connection)

    def vacuum(self) -> None:
        """Write the file anew without free room. Whoever wants to write has to wait for the end of it."""
        upkeep.vacuum(self._database)
