"""Judge a recorded run by all rules: from a spool folder, a database, or a run in a database."""

from collections.abc import Iterator
from pathlib import Path
from typing import Final

from trainvitals.app.rules.engine import Engine, StreamLike
from trainvitals.app.rules.finding import Finding
from trainvitals.app.rules.policy import DEFAULTS, Policy
from trainvitals.app.store import Store
from trainvitals.hooks import spool
from trainvitals.hooks.wire.records import Record

BATCH: Final = 2000
SQLITE: Final = b"SQLite format 3\x00"


class NoSuchRun(LookupError):  # noqa: N818 - reads as what it says
    """What was named holds no run, or more than one. The message says what there is."""


def diagnose(
    target: str | Path, database: Path | None = None, policy: Policy = DEFAULTS
) -> list[Finding]:
    """The findings for `target`, as the server would show them under `policy`. Raises what `recorded` does."""
    return judge(target, database, policy).findings()


def judge(target: str | Path, database: Path | None = None, policy: Policy = DEFAULTS) -> Engine:
    """The rules, having read all of `target`. Raises what `recorded` does."""
    engine = Engine(policy=policy)
    for stream, record in recorded(target, database):
        engine.feed(stream, record)
    return engine


def recorded(
    target: str | Path, database: Path | None = None
) -> Iterator[tuple[StreamLike, Record]]:
    """The records of one run, in an order in which the rules may read them.

    target: a run's spool folder, one stream's folder, a `.trainvitals` folder with one run, a
    database with one run, or the id of a run in `database`. Raises NoSuchRun, WireError (a damaged
    spool), StoreError.
    """
    path = Path(target)
    if path.is_dir():
        return _of_spool(path)
    if path.is_file():
        with path.open("rb") as file:
            head = file.read(len(SQLITE))
        if head != SQLITE:
            raise NoSuchRun(f"{path} is neither a spool folder nor a trainvitals database.")
        return _of_database(path, None)
    if database is None:
        raise NoSuchRun(
            f"There is no file or folder {path}. To judge a run by its id, name its database too."
        )
    if not database.is_file():
        raise NoSuchRun(f"There is no file or folder {path}, and no database {database}.")
    return _of_database(database, str(target))


def _of_spool(folder: Path) -> Iterator[tuple[StreamLike, Record]]:
    streams = [(spool.read_meta(stream), stream) for stream in spool.find_streams(folder)]
    runs = sorted({meta.run for meta, _ in streams})
    if not runs:
        raise NoSuchRun(f"{folder} holds no recorded run (no meta.json at or below it).")
    if len(runs) > 1:
        raise NoSuchRun(
            f"{folder} holds {len(runs)} runs; name one of them: {_names(runs)} (as {folder}/<run>)."
        )
    for meta, stream in sorted(streams, key=lambda entry: (entry[0].attempt, entry[0].rank)):
        for record in spool.read_stream(stream):
            yield meta, record


def _of_database(path: Path, run: str | None) -> Iterator[tuple[StreamLike, Record]]:
    with Store.open(path) as store:
        runs = [entry.id for entry in store.runs()]
        if run is None:
            if len(runs) != 1:
                held = f"{len(runs)} runs; name one of them: {_names(runs)}" if runs else "no run"
                raise NoSuchRun(f"{path} holds {held}.")
            run = runs[0]
        elif store.run(run) is None:
            raise NoSuchRun(f"{path} holds no run {run}. It holds: {_names(runs) or 'none'}.")
        cursor: dict[str, int] = {}
        while records := store.replay(run, cursor, BATCH):
            for stream, record in records:
                yield stream, record
                cursor[stream.key] = record.seq + 1


def _names(runs: list[str]) -> str:
    return ", ".join(runs[:10]) + (f" and {len(runs) - 10} more" if len(runs) > 10 else "")
