"""Deliver what waits in the outbox: in order, with patience, each message taken by one sender."""

import logging
import time
from collections.abc import Sequence

from trainvitals.app.alerts.base import Channel, ChannelError
from trainvitals.app.alerts.contact import findings_of
from trainvitals.app.alerts.message import Alert, compose
from trainvitals.app.alerts.plan import is_acknowledged, open_id
from trainvitals.app.settings import Settings
from trainvitals.app.store import Store
from trainvitals.app.store.types import AlertRow, Delivery, Taken

logger = logging.getLogger(__name__)

FIRST_RETRY_S = 5.0
LONGEST_RETRY_S = 300.0
"""Waits double up to this: so long after its end is the longest outage over for people."""
LONGEST_HOLD_S = 60.0
"""How long other messages wait after one that the channel did not take, seconds."""
GIVE_UP_S = 24 * 3600.0
LEASE_S = 60.0
"""How long a message that a killed server was sending waits for the next try; longer than any try lasts."""
MOST_AT_ONCE = 20
"""Messages sent in one go."""


class Dispatcher:
    """Sends due alerts to every channel."""

    def __init__(
        self, store: Store, channels: Sequence[Channel], link_base: str | None = None
    ) -> None:
        """`link_base`: what links start with; by default the address that the environment sets."""
        base = Settings.from_env().link_base if link_base is None else link_base
        self.couriers = [Courier(store, channel, base) for channel in channels]

    def tick(self, now: float) -> int:
        """Send what is due at `now` (Unix seconds); return how many messages were delivered."""
        return sum(courier.tick(now) for courier in self.couriers)


class Courier:
    """Sends due alerts to one channel. Any number may run for it, in any number of processes.

    An alert is noted as being sent before it is sent, and as delivered after. When the process is killed in between,
    it is sent again under the same id after `LEASE_S`, and says that it may have come before.
    """

    def __init__(self, store: Store, channel: Channel, link_base: str) -> None:
        self._store = store
        self._channel = channel
        self._link_base = link_base

    @property
    def name(self) -> str:
        """Key of the channel."""
        return self._channel.key

    def tick(self, now: float) -> int:
        """Send what is due at `now` (Unix seconds); return how many messages were delivered."""
        sent, begin = 0, time.monotonic()
        for _ in range(MOST_AT_ONCE):
            moment = now + time.monotonic() - begin
            taken = self._store.take_alert(
                self._channel.key, moment, lease_s=LEASE_S, pace_s=self._channel.pace_s
            )
            if taken is None:
                break
            alert = self._prepare(taken, moment)
            if alert is None:
                continue
            try:
                self._send(alert)
            except ChannelError as error:
                self._failed(taken, error, now + time.monotonic() - begin)
            else:
                moment = now + time.monotonic() - begin
                hold = moment + self._channel.pace_s if self._channel.pace_s else 0.0
                self._store.mark_delivered(taken.row.id, self._channel.key, moment, hold)
                logger.info("Alert %s went to %s.", taken.row.id, self._channel.key)
                sent += 1
        return sent

    def _send(self, alert: Alert) -> None:
        try:
            self._channel.send(alert)
        except ChannelError:
            raise
        except (
            Exception
        ) as error:  # a channel may be anyone's: its faults are failed deliveries too
            logger.exception("The channel %s failed.", self._channel.key)
            raise ChannelError(f"The channel failed with {type(error).__name__}.") from error

    def _prepare(self, taken: Taken, now: float) -> Alert | None:
        """The message to send; None when there is none any more, which is noted then."""
        row, opened = taken.row, taken.row.created
        if row.kind != "open":
            opening = self._opening(row)
            if opening is None or opening.state != "delivered":
                self._drop(row, opening, now)
                return None
            if row.kind == "escalated" and opening.updated >= row.created:
                # the opening was sent after that and told it already
                self._store.cancel(row.id, self._channel.key)
                return None
            opened = opening.created
        alert = self._compose(taken, opened)
        if alert is None or self._is_past(taken, alert):
            self._store.cancel(row.id, None if alert is None else self._channel.key)
            return None
        return alert

    def _is_past(self, taken: Taken, alert: Alert) -> bool:
        """Whether it needs no telling now: a reminder of what is over or seen, an opening muted until it was over."""
        if taken.row.kind == "reminder":
            said = self._store.handling(alert.run).get(alert.group)
            findings = self._store.findings(alert.run)
            finding = next((item for item in findings if item.key == alert.group), None)
            return finding is None or alert.over or is_acknowledged(finding, said)
        return taken.row.kind == "open" and alert.over and taken.due > taken.row.not_before

    def _drop(self, row: AlertRow, opening: Delivery | None, now: float) -> None:
        """Deal with a later message whose opening this channel did not get.

        While the opening is still being tried, the store holds back what follows it.
        """
        if opening is None or opening.state == "cancelled":  # nobody was told here
            self._store.cancel(row.id, self._channel.key)
        else:
            reason = "Its opening was never delivered."
            self._store.mark_failed(row.id, self._channel.key, now, reason, None)

    def _failed(self, taken: Taken, error: ChannelError, now: float) -> None:
        """Note the failure, and leave the channel alone for a while."""
        row, key = taken.row, self._channel.key
        if error.permanent or now - taken.due > GIVE_UP_S:
            self._store.mark_failed(row.id, key, now, str(error), None)
            logger.error("Alert %s can't go to %s: %s Gave up.", row.id, key, error)
            return
        wait = retry_wait(taken.attempts, error.retry_after)
        hold = wait if error.retry_after is not None else min(wait, LONGEST_HOLD_S)
        self._store.mark_failed(row.id, key, now, str(error), now + wait, now + hold)
        logger.warning(
            "Alert %s did not go to %s: %s Next try in %.0f s.", row.id, key, error, wait
        )

    def _compose(self, taken: Taken, opened: float) -> Alert | None:
        run = self._store.run(taken.row.run)
        if run is None:
            return None
        return compose(
            taken.row,
            findings_of(self._store, run.id),
            run,
            self._link_base,
            opened=opened,
            repeated=taken.uncertain,
        )

    def _opening(self, row: AlertRow) -> Delivery | None:
        """What became of the message that opened `row`'s group, on this channel."""
        found = self._store.deliveries(alert=open_id(row.id), limit=100)
        return next((item for item in found if item.channel == self._channel.key), None)


def retry_wait(attempts: int, asked_s: float | None = None) -> float:
    """Seconds until the next try: 5, 10, 20, … up to 300, and never less than the receiver asked for."""
    wait = min(FIRST_RETRY_S * 2.0 ** min(attempts - 1, 20), LONGEST_RETRY_S)
    return max(wait, asked_s or 0.0)
