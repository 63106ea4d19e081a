"""Lost contact: which runs and ranks are silent, and what there is to say of it. Pure but for reading the store."""

from collections.abc import Sequence
from datetime import UTC, datetime

from trainvitals.app.rules.finding import Finding
from trainvitals.app.store import Store
from trainvitals.app.store.types import AlertRow, Run, Silence, StreamState

SILENT_S = 120.0
"""Silence that is told, seconds: heartbeats come every five, so it is no hiccup of the network."""
ALL_RANKS = -1
RULE = "lost-contact"


def key_of(rank: int) -> str:
    """Key of the finding about a silent rank, or about a silent run."""
    return RULE if rank == ALL_RANKS else f"{RULE}:rank {rank}"


def silent_now(
    run: Run, streams: Sequence[StreamState], now: float, started: float
) -> dict[int, StreamState]:
    """The ranks of which nothing was heard for `SILENT_S` before `now`; `ALL_RANKS` alone where all are silent.

    streams: those of the newest attempt. started: since when the server listens: a run is silent only for as long as
    there was someone to hear it.
    """
    if run.status_reported:
        return {}
    going = [stream for stream in streams if not stream.status_reported]
    silent = {
        stream.rank: stream
        for stream in going
        if stream.last_seen  # 0: of an earlier release, unknown
        and now - max(stream.last_seen, started) > SILENT_S
    }
    if silent and len(silent) == len(going):
        return {ALL_RANKS: max(going, key=lambda stream: stream.last_seen)}
    return silent


def row(silence: Silence, kind: str, now: float) -> AlertRow:
    """The message that a silence has begun ("open") or is over ("resolved")."""
    key = key_of(silence.rank)
    return AlertRow(
        id=f"{silence.run}/{key}/{silence.since:.3f}/{kind}",
        run=silence.run,
        group=key,
        kind="open" if kind == "open" else "resolved",
        created=now,
        not_before=now,
    )


def findings_of(store: Store, run: str) -> list[Finding]:
    """Everything that is to be told of a run: lost contact first, then what the rules found."""
    silences = [as_finding(silence) for silence in store.silences(run)]
    silences.sort(key=lambda finding: finding.state == "resolved")
    return [*silences, *store.findings(run)]


def as_finding(silence: Silence) -> Finding:
    """A silence in the form of what the rules find."""
    whole = silence.rank == ALL_RANKS
    who = "the run" if whole else f"rank {silence.rank}"
    over = silence.heard is not None
    return Finding(
        key=key_of(silence.rank),
        rule=RULE,
        severity="critical",
        state="resolved" if over else "firing",
        first_step=max(silence.step, 0),
        last_step=max(silence.step, 0),
        layers=[],
        root=True,
        cause="",
        evidence={
            "seen": f"nothing between {_clock(silence.since)} and {_clock(silence.heard)}"
            if silence.heard is not None
            else f"nothing since {_clock(silence.since)}",
            "expected": "a record or a heartbeat every 5 s",
            "since": _clock(silence.since),
        },
        title=f"Nothing {'was' if over else 'is'} heard of {who}"
        + ("" if over else f" since {_clock(silence.since)}"),
        remedy=_REMEDY if whole else _RANK_REMEDY,
    )


_REMEDY = (
    "Look whether the process still runs, and whether its machine is up and reaches this server. "
    "What it could not send waits in its spool: `trainvitals sync` delivers it."
)
_RANK_REMEDY = (
    "Look at the process of this rank and its machine. If it ended, the other ranks wait for it in "
    "the next collective operation: end and resume the run."
)


def _clock(seconds: float) -> str:
    return datetime.fromtimestamp(seconds, UTC).strftime("%Y-%m-%d %H:%M:%S UTC")
