"""Deliver what waits in the outbox: at least once, in order, with patience."""

import logging
from collections.abc import Sequence

from trainvitals.app.alerts.base import Channel, ChannelError
from trainvitals.app.alerts.message import Alert, compose
from trainvitals.app.alerts.plan import open_id
from trainvitals.app.settings import Settings
from trainvitals.app.store import Store
from trainvitals.app.store.types import AlertRow, Delivery

logger = logging.getLogger(__name__)

FIRST_RETRY_S = 5.0
LONGEST_RETRY_S = 3600.0
LONGEST_HOLD_S = 60.0
"""How long other messages wait after one that the channel did not take, seconds."""
GIVE_UP_S = 24 * 3600.0


class Dispatcher:
    """Sends due alerts to every channel, one channel's trouble apart from another's.

    A message counts as delivered once it is marked so; a crash between the two sends it again under the same id.
    """

    def __init__(
        self, store: Store, channels: Sequence[Channel], link_base: str | None = None
    ) -> None:
        """`link_base`: what links start with; by default the address that the environment sets."""
        self._store = store
        self._channels = channels
        self._link_base = Settings.from_env().link_base if link_base is None else link_base
        self._held_until: dict[str, float] = {}

    def tick(self, now: float) -> int:
        """Send what is due at `now` (Unix seconds); return how many messages were delivered."""
        return sum(self._deliver(channel, now) for channel in self._channels)

    def _deliver(self, channel: Channel, now: float) -> int:
        if now < self._held_until.get(channel.key, 0.0):
            return 0
        sent = 0
        for row in self._store.pending(channel.key, now, channel.burst):
            opened = row.created
            if row.kind != "open":
                opening = self._opening(row, channel)
                if opening is None or opening.state != "delivered":
                    self._drop(row, channel, opening, now)
                    continue
                if row.kind == "escalated" and opening.updated >= row.created:
                    # the opening was sent after that and told it already
                    self._store.cancel(row.id, channel.key)
                    continue
                opened = opening.created
            alert = self._compose(row, opened)
            if alert is None:
                self._store.cancel(row.id)
                continue
            try:
                channel.send(alert)
            except ChannelError as error:
                if self._failed(row, channel, error, now):
                    break
            else:
                self._store.mark_delivered(row.id, channel.key, now)
                logger.info("Alert %s went to %s.", row.id, channel.key)
                sent += 1
        if sent >= channel.burst:
            self._held_until[channel.key] = now + channel.pause_s
        return sent

    def _drop(self, row: AlertRow, channel: Channel, opening: Delivery | None, now: float) -> None:
        """Deal with a later message whose opening this channel did not get.

        While the opening is still being tried, the store holds back what follows it.
        """
        if opening is None or opening.state == "cancelled":  # nobody was told here
            self._store.cancel(row.id, channel.key)
        else:
            reason = "Its opening was never delivered."
            self._store.mark_failed(row.id, channel.key, now, reason, None)

    def _failed(self, row: AlertRow, channel: Channel, error: ChannelError, now: float) -> bool:
        """Note the failure; return whether the channel is to be left alone for a while."""
        age = now - row.not_before
        if error.permanent or age > GIVE_UP_S:
            self._store.mark_failed(row.id, channel.key, now, str(error), None)
            logger.error("Alert %s can't go to %s: %s Gave up.", row.id, channel.key, error)
            return False
        wait = retry_wait(age, error.retry_after)
        self._store.mark_failed(row.id, channel.key, now, str(error), now + wait)
        logger.warning(
            "Alert %s did not go to %s: %s Next try in %.0f s.", row.id, channel.key, error, wait
        )
        hold = wait if error.retry_after is not None else min(wait, LONGEST_HOLD_S)
        self._held_until[channel.key] = now + hold
        return True

    def _compose(self, row: AlertRow, opened: float) -> Alert | None:
        run = self._store.run(row.run)
        if run is None:
            return None
        findings = self._store.findings(row.run)
        return compose(row, findings, run, self._link_base, opened=opened)

    def _opening(self, row: AlertRow, channel: Channel) -> Delivery | None:
        """What became of the message that opened `row`'s group, on this channel."""
        wanted = open_id(row.id)
        for delivery in self._store.deliveries(row.run, limit=10_000):
            if delivery.id == wanted and delivery.channel == channel.key:
                return delivery
        return None


def retry_wait(age_s: float, asked_s: float | None = None) -> float:
    """Seconds until the next try of a message that has been due for `age_s`.

    As long as it has waited already, so the waits double (5 s, 10 s, 20 s, …, 1 h) without a counter; never less
    than the receiver asked for.
    """
    wait = min(max(age_s, FIRST_RETRY_S), LONGEST_RETRY_S)
    return max(wait, asked_s or 0.0)
