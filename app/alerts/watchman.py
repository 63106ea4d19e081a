"""What nobody reports: that a run went silent, and that a trouble still lasts. Looks at the clock."""

import logging

from trainvitals.app.alerts import contact
from trainvitals.app.alerts.plan import reminder
from trainvitals.app.store import NotFound, Store
from trainvitals.app.store.status import LOST_S, status
from trainvitals.app.store.types import Run, Silence

logger = logging.getLogger(__name__)

EVERY_S = 5.0
"""Seconds between two looks."""
LOOK_BACK_S = 24 * 3600.0
"""Runs that were silent for longer when the server started were told of, or are nobody's concern any more."""
NAP_S = 30.0
"""A longer time between two looks means that the server, too, was asleep: it could not have heard anything."""


class Watchman:
    """Opens and closes silences, and adds the reminders that are due. Safe to kill at any moment."""

    def __init__(self, store: Store, started: float) -> None:
        """started: since when the server listens, Unix seconds."""
        self._store = store
        self._started = started
        self._looked = started

    def tick(self, now: float) -> None:
        """Look around at `now` (Unix seconds), unless the last look was just before."""
        gap = now - self._looked
        if 0 <= gap < EVERY_S:
            return
        if gap > NAP_S or gap < 0:
            self._started = now
        self._looked = now
        self._listen(now)
        self._remind(now)

    def _listen(self, now: float) -> None:
        told: dict[str, dict[int, Silence]] = {}
        for silence in self._store.silences():
            if silence.heard is None:
                told.setdefault(silence.run, {})[silence.rank] = silence
        for run in self._store.runs():
            if run.id in told or self._may_be_silent(run, now):
                try:
                    self._listen_to(run, told.get(run.id, {}), now)
                except NotFound:
                    logger.info("Run %s was deleted meanwhile.", run.id)

    def _may_be_silent(self, run: Run, now: float) -> bool:
        return not run.status_reported and now - run.last_seen < LOOK_BACK_S

    def _listen_to(self, run: Run, told: dict[int, Silence], now: float) -> None:
        streams = [item for item in self._store.streams(run.id) if item.attempt == run.attempts[-1]]
        silent = contact.silent_now(run, streams, now, self._started)
        last_seen = {item.rank: item.last_seen for item in streams}
        going = [item.last_seen for item in streams if not item.status_reported]
        last_seen[contact.ALL_RANKS] = max(going, default=run.last_seen)
        for rank, silence in told.items():
            # Not "is no longer silent by the clock": after a restart nobody is, for a while.
            if last_seen.get(rank) != silence.since or run.status_reported:
                over = Silence(
                    run=run.id, rank=rank, since=silence.since, step=silence.step, heard=now
                )
                self._store.note_silence(over, [contact.row(over, "resolved", now)])
        if contact.ALL_RANKS in told:
            return  # what is known of the run is known of its ranks
        for rank, found in silent.items():
            if rank not in told:
                new = Silence(run=run.id, rank=rank, since=found.last_seen, step=found.last_step)
                self._store.note_silence(new, [contact.row(new, "open", now)])

    def _remind(self, now: float) -> None:
        rows = []
        for opening in self._store.standing_alerts(now, heard_since=now - LOST_S):
            run = self._store.run(opening.run)
            if run is None or status(run, now) != "running":
                continue
            findings = {item.key: item for item in self._store.findings(opening.run)}
            said = self._store.handling(opening.run).get(opening.group)
            finding = findings.get(opening.group)
            if finding is not None and (row := reminder(opening, finding, said, now)) is not None:
                rows.append(row)
        if rows:
            self._store.add_alerts(rows)
