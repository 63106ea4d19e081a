"""What arrives of runs, and what there is: processes, layouts, events, the list of them."""

import math
from collections.abc import Sequence

from trainvitals.app.store import append, cards, catalog, read
from trainvitals.app.store.parts.base import Part
from trainvitals.app.store.types import Card, Receipt, Run, Shelf, StreamState
from trainvitals.hooks.wire.records import Batch, Event, Layout


class Runs(Part):
    """What arrives of runs, and what there is: processes, layouts, events, the list of them."""

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

    def missing_cards(
        self, limit: int, shelf: Shelf = "active", before: float = math.inf
    ) -> list[Run]:
        """Runs of a shelf whose card is of an earlier version or not there, the newest first.

        Of those that were heard of since `before` (Unix seconds), only those whose card was made before it: a live
        run changes all the time. Of deleted ones those without any: what was recorded of them is out of reach, and an
        earlier card knows it.
        """
        with self._database.read() as connection:
            return cards.missing(connection, limit, shelf, before)

    def put_cards(self, made: Sequence[Card], now: float) -> None:
        """Keep cards, in place of earlier ones."""
        with self._database.write() as connection:
            for card in made:
                cards.put(connection, card, now)

    def cards(
        self, since: float, limit: int, shelf: Shelf = "active"
    ) -> tuple[list[Card], dict[str, float], int]:
        """The cards made since `since` of at most `limit` runs of a shelf, the newest first; when which run was heard
        of since then; and how many runs it has."""
        with self._database.read() as connection:
            return (
                cards.cards(connection, since, limit, shelf),
                cards.heard(connection, since, shelf),
                cards.count(connection, shelf),
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
