"""Limits on everything that travels. The client keeps them, the server enforces them."""

import re

VERSION = 2
"""Version of the record format. A server refuses a batch whose version it doesn't know.

2 added `Scalars` records and counts of histograms as varints; both sides of version 2 still read those of 1.
"""

OLDEST_VERSION = 1
"""The oldest version that is still taken: a client may be behind its server, not ahead of it."""

MAX_BATCH_BYTES = 8 << 20
"""Compressed size of one batch on the wire, bytes."""

MAX_BATCH_RAW_BYTES = 32 << 20
"""Decompressed size of one batch, bytes. Decompression stops here, so a small bomb stays small."""

BEHIND_HEADER = "X-Trainvitals-Behind"
"""Header of a batch after which more is waiting: its sender catches up, and lets others go first."""

MAX_RECORDS = 4096
"""Records in one batch."""

MAX_RECORD_BYTES = 16 << 20
"""Encoded size of one record, bytes."""

MAX_ROWS = 20_000
"""Layers or parameters in one group."""

MAX_COLUMNS = 64
"""Statistics in one group."""

MAX_SCALARS = 1_000
"""Scalars in one step record, or in one row of a scalars record."""

MAX_SCALAR_ROWS = 256
"""Rows in one scalars record: so their kinds always fit a byte."""

MAX_NAME = 512
"""Characters in a run, layer, parameter or metric name. Longer names are cut by the client."""

MAX_TEXT = 16_384
"""Characters in one free text: a message, a configuration value."""

MAX_JSON_BYTES = 256 << 10
"""Encoded size of a configuration or of an event's data, bytes."""

MAX_STEP = 2**53
"""Steps are whole numbers that JSON and JavaScript hold exactly."""

ID = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}")
"""Run and attempt ids: safe as a folder name, in an address and in a shell."""


def is_id(text: str) -> bool:
    """Whether `text` may be a run or attempt id."""
    return ID.fullmatch(text) is not None and ".." not in text
