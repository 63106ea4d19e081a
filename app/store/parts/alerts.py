"""Silences, the outbox of alerts and the log of their deliveries."""

from collections.abc import Sequence

from trainvitals.app.store import outbox, silences
from trainvitals.app.store.parts.base import Part
from trainvitals.app.store.types import AlertRow, Delivery, DeliveryState, Silence, Taken


class Alerts(Part):
    """Silences, the outbox of alerts and the log of their deliveries."""

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
