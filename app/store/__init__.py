"""The store: runs, their records and what was found in them, in one SQLite file.

All SQL of the server is in this package. Everything is reached by `Store`; what it takes and gives is in `types`.

A page that follows a live run asks `series_news`, `matrices_news` and `row_news`, first with "" and then each time with
the cursor of the answer before, to the same question. It gets the buckets that changed: mostly the last one and new
ones. Where an answer is not `whole`, a series keeps what lies before its first new step and takes the rest anew; a
matrix likewise, column by column. Scalars that appeared meanwhile need a question of their own.
"""

from pathlib import Path
from types import TracebackType
from typing import Self

from trainvitals.app.store.connection import Database
from trainvitals.app.store.parts.alerts import Alerts
from trainvitals.app.store.parts.judgement import Judgement
from trainvitals.app.store.parts.keeping import Keeping
from trainvitals.app.store.parts.runs import Runs
from trainvitals.app.store.parts.values import Values
from trainvitals.app.store.types import (
    Conflict,
    InvalidRecord,
    NotFound,
    RunDeleted,
    SequenceGap,
    StoreError,
)

__all__ = [
    "Conflict",
    "InvalidRecord",
    "NotFound",
    "RunDeleted",
    "SequenceGap",
    "Store",
    "StoreError",
]


class Store(Runs, Values, Judgement, Alerts, Keeping):
    """A database of runs. Any thread and any number of processes may use one file at the same time.

    Each method is one transaction. Steps go from `start` to before `stop`, None for no limit. Of a run that is not
    there, reads find nothing. Only rank 0 feeds the charts; where a later attempt records steps anew, it stands in
    for the earlier one from its first step on. Every method raises StoreError when the database fails.
    """

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
