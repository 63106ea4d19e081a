"""How a run is doing, as people read it."""

from typing import Literal

from trainvitals.app.store.types import Run

Status = Literal["running", "lost contact", "finished", "failed", "interrupted"]

LOST_S = 15.0
"""Silence after which a run counts as lost, seconds. Heartbeats come more often than that."""


def status(run: Run, now: float) -> Status:
    """The state of `run` at `now` (Unix seconds, by the server's clock)."""
    match run.status_reported:
        case "finished" | "failed" | "interrupted" as reported:
            return reported
    return heard(run.last_seen, now)


def heard(last_seen: float, now: float) -> Literal["running", "lost contact"]:
    """What to think of someone who has not ended and was heard of at `last_seen` (Unix seconds).

    A time far ahead of `now` says that the clock was put back since; nothing follows from it.
    """
    return "running" if abs(now - last_seen) <= LOST_S else "lost contact"
