"""What was measured in a run: curves, matrices, histograms, and the records as they came."""

from collections.abc import Mapping, Sequence

import numpy as np
import numpy.typing as npt

from trainvitals.app.store import export, histograms, read, replay
from trainvitals.app.store.parts.base import Part
from trainvitals.app.store.types import HistogramSeries, Matrix, News, Series, Stream
from trainvitals.hooks.wire.records import GroupKind, HistogramKind, Layout, Record


class Values(Part):
    """What was measured in a run: curves, matrices, histograms, and the records as they came."""

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
        return self.matrices(run, kind, [statistic], start=start, stop=stop, buckets=buckets)[
            statistic
        ]

    def matrices(
        self,
        run: str,
        kind: GroupKind,
        statistics: Sequence[str],
        *,
        start: int | None = None,
        stop: int | None = None,
        buckets: int = 400,
    ) -> dict[str, Matrix]:
        """Some statistics at once, each as `matrix` gives it, for little more than the time of one."""
        with self._database.read() as connection:
            return read.matrices(connection, run, kind, statistics, start, stop, buckets, "").data

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

    def matrices_news(
        self,
        run: str,
        kind: GroupKind,
        statistics: Sequence[str],
        since: str,
        *,
        start: int | None = None,
        stop: int | None = None,
        buckets: int = 400,
    ) -> News[dict[str, Matrix]]:
        """What changed in `matrices` since a cursor: their last columns; see `News`."""
        with self._database.read() as connection:
            return read.matrices(connection, run, kind, statistics, start, stop, buckets, since)

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

    def export(self, run: str, what: export.What) -> export.Table:
        """All there is of a run, as rows in full resolution, read part by part."""
        return export.table(self._database, run, what)
