"""Whether a decoded batch makes sense: names, sizes, order. The form was checked by the decoder."""

from collections.abc import Collection

import msgspec

from trainvitals.hooks.wire import limits, scalars
from trainvitals.hooks.wire.codec import TooLarge, WireError
from trainvitals.hooks.wire.records import (
    Batch,
    End,
    Event,
    Histograms,
    Layout,
    Record,
    Sample,
    Scalars,
    Start,
    Step,
)

_BEFORE_TIME, _AFTER_TIME = 0.0, 4_102_444_800.0  # 1970 to 2100: later than that is a broken clock


def validate_batch(batch: Batch) -> None:
    """Raise WireError with the reason unless every record of `batch` may be stored.

    What depends on the stream so far (the sequence, the layout that a sample fits) is the store's to check.
    """
    for name, value in (("run", batch.run), ("attempt", batch.attempt)):
        if not limits.is_id(value):
            raise WireError(
                f"{value[:80]!r} is no {name} id. Expected 1 to 64 letters, digits, '.', '_' or '-', "
                "starting with a letter or digit."
            )
    if not 0 <= batch.rank < 1_000_000:
        raise WireError(f"Rank {batch.rank} is out of range; expected 0 to 999,999.")
    if not 0 <= batch.first <= limits.MAX_STEP:
        raise WireError(f"Sequence number {batch.first} is out of range; expected 0 or more.")
    if len(batch.records) > limits.MAX_RECORDS:
        raise TooLarge(
            f"{len(batch.records)} records in one batch; at most {limits.MAX_RECORDS} are taken."
        )
    for offset, record in enumerate(batch.records):
        expected = batch.first + offset
        if record.seq != expected:
            raise WireError(
                f"Record {offset} has sequence number {record.seq}; expected {expected}."
            )
        if isinstance(record, Start) != (expected == 0):
            raise WireError("A stream begins with one start record, number 0, and has no other.")
        try:
            _validate_record(record)
        except WireError as error:
            raise type(error)(f"Record {record.seq}: {error}") from error


def _validate_record(record: Record) -> None:
    if not _BEFORE_TIME <= record.time <= _AFTER_TIME:
        raise WireError(f"Time {record.time!r} is not a Unix time in seconds.")
    if not isinstance(record, Start | Scalars):
        _check_step(record.step)
    match record:
        case Start():
            _check_name(record.project, "project")
            _check_name(record.name, "run name")
            for tag in record.tags:
                _check_name(tag, "tag")
            _check_size([record.config, record.tags, record.environment], "configuration")
        case Layout():
            _validate_layout(record)
        case Step():
            _validate_step(record)
        case Scalars():
            _validate_scalars(record)
        case Event():
            _check_name(record.kind, "event kind")
            _check_name(record.layer, "layer", empty=True)
            _check_text(record.message)
            _check_size(record.data, "event")
        case End():
            _check_text(record.message)


def _validate_layout(layout: Layout) -> None:
    if not 0 <= layout.group < 256:
        raise WireError(f"Group {layout.group} is out of range; expected 0 to 255.")
    if not 0 < len(layout.rows) <= limits.MAX_ROWS:
        raise TooLarge(f"A group has 1 to {limits.MAX_ROWS:,} rows; got {len(layout.rows):,}.")
    if not 0 < len(layout.columns) <= limits.MAX_COLUMNS:
        raise TooLarge(f"A group has 1 to {limits.MAX_COLUMNS} columns; got {len(layout.columns)}.")
    for row in layout.rows:
        for name in (row.name, row.layer, row.type):
            _check_name(name, "layer", empty=True)
        if len(row.shape) > 16 or any(not 0 <= size <= limits.MAX_STEP for size in row.shape):
            raise WireError(f"{row.shape} is no shape.")
    for column in layout.columns:
        _check_name(column, "statistic")
    if len(set(layout.columns)) != len(layout.columns):
        raise WireError("A group names each statistic once.")
    if len({row.name for row in layout.rows}) != len(layout.rows):
        raise WireError("A group names each row once.")


def _validate_step(step: Step) -> None:
    _check_metrics(step.scalars)
    if step.observed is not None:
        _check_size(msgspec.to_builtins(step.observed), "observation")
    if len(step.samples) > 256 or len(step.histograms) > 256:
        raise TooLarge("More than 256 samples at one step.")
    taken: list[Sample | Histograms] = [*step.samples, *step.histograms]
    for item in taken:
        if not 0 <= item.group < 256:
            raise WireError(f"Group {item.group} is out of range; expected 0 to 255.")


def _validate_scalars(record: Scalars) -> None:
    rows = len(record.steps) // 8
    if max(rows, len(record.names)) > limits.MAX_SCALAR_ROWS:
        raise TooLarge(
            f"{rows:,} rows of scalars of {len(record.names):,} kinds in one record; at most "
            f"{limits.MAX_SCALAR_ROWS} are taken."
        )
    for names in record.names:
        _check_metrics(names)
        if len(set(names)) != len(names):
            raise WireError("A row of scalars names each metric once.")
    for step, _ in scalars.unpack(record):
        _check_step(step)


def _check_step(step: int) -> None:
    if not 0 <= step <= limits.MAX_STEP:
        raise WireError(f"Step {step} is out of range; expected 0 to 2^53.")


def _check_metrics(names: Collection[str]) -> None:
    if len(names) > limits.MAX_SCALARS:
        raise TooLarge(
            f"{len(names):,} scalars at one step; at most {limits.MAX_SCALARS:,} are taken."
        )
    for name in names:
        _check_name(name, "metric")


def _check_name(name: str, what: str, *, empty: bool = False) -> None:
    if not name and not empty:
        raise WireError(f"An empty {what}.")
    if len(name) > limits.MAX_NAME:
        raise TooLarge(
            f"A {what} of {len(name):,} characters; at most {limits.MAX_NAME} are taken."
        )
    try:
        name.encode()
    except UnicodeEncodeError as error:  # lone surrogates: SQLite and JSON can't hold them
        raise WireError(f"A {what} is not valid Unicode: {error}.") from error


def _check_text(text: str) -> None:
    if len(text) > limits.MAX_TEXT:
        raise TooLarge(
            f"A text of {len(text):,} characters; at most {limits.MAX_TEXT:,} are taken."
        )


def _check_size(value: object, what: str) -> None:
    _check_depth(value, what, 0)
    size = len(msgspec.msgpack.encode(value))
    if size > limits.MAX_JSON_BYTES:
        raise TooLarge(f"A {what} of {size:,} bytes; at most {limits.MAX_JSON_BYTES:,} are taken.")


def _check_depth(value: object, what: str, depth: int) -> None:
    if depth > 32:
        raise WireError(f"A {what} nested more than 32 deep.")
    match value:
        case dict():
            for key, item in value.items():
                _check_depth(key, what, depth + 1)
                _check_depth(item, what, depth + 1)
        case list():
            for item in value:
                _check_depth(item, what, depth + 1)
        case int() if abs(value) > limits.MAX_STEP and not isinstance(value, bool):
            raise WireError(f"A {what} holds {value}, which is more than 2^53: send it as text.")
