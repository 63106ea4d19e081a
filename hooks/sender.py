"""Delivers spooled records: a thread that follows a running stream, and `sync` for what was left.

Loads no torch.
"""

import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path

import msgspec

from trainvitals.hooks import housekeeping, spool
from trainvitals.hooks.client import Answer, Client, Outcome, encode
from trainvitals.hooks.wire import limits
from trainvitals.hooks.wire.codec import WireError

BATCH_BYTES = 1 << 20
"""Encoded records in one batch, about."""
INTERVAL = 0.5
BEHIND_INTERVAL = 0.25
"""Between two batches while a live stream catches up, seconds: 4 MB/s, for about a hundredth of a core."""
HEARTBEAT = 5.0
MAX_BACKOFF = 5.0
PATIENCE = 3
"""Refusals in a row before the person is told: a server may be busy for a moment."""
LONG_WAIT = 5.0
"""Unless it asks for so many seconds: then it has more than a moment's trouble."""


def say(message: str) -> None:
    """One line for the person at the terminal; a closed terminal is no reason to fail."""
    try:
        print(f"trainvitals: {message}", file=sys.stderr, flush=True)
    except (OSError, ValueError, AttributeError):
        pass


class Delivery:
    """Sends one stream from where the server stands; knows nothing of threads and time."""

    def __init__(
        self, folder: Path, meta: spool.Meta, client: Client, *, anew: bool = False
    ) -> None:
        """anew: begin with record 0, as what was acknowledged was so by another server. Raises WireError."""
        self._folder = folder
        self._meta = meta
        self._client = client
        self._reader = spool.SpoolReader(folder)
        self._reader.seek(0 if anew else spool.read_acked(folder))
        self._records = limits.MAX_RECORDS
        self._size = BATCH_BYTES
        self._unsent: list[bytes] = []
        self.behind = False
        """Whether the last batch was about as large as it may be, so that more is waiting."""
        self.stuck = False
        """Whether the server found even a single record too large."""
        self.acked = self._reader.position
        """Number of the record that the server waits for, as far as known."""

    def send(self, heartbeat: bool = False) -> Answer | None:
        """Send the next batch; None when nothing is there to send. Raises WireError, OSError."""
        payloads = self._unsent or self._reader.read(self._records, self._size)
        if not payloads and not heartbeat:
            return None
        first = self._reader.position - len(payloads)
        meta = self._meta
        body = encode(meta.run, meta.attempt, meta.rank, first, payloads)
        full = len(payloads) == self._records or sum(map(len, payloads)) >= self._size // 2
        answer = self._client.post(meta.run, body, behind=full and self.behind)
        self.behind = full
        self._unsent = payloads
        match answer.outcome:
            case Outcome.STORED:
                self._unsent = []
                self._acknowledge(answer.next)
                if answer.next != self._reader.position:
                    self._reader.seek(answer.next)
            case Outcome.REWIND:
                self._unsent = []
                self._reader.seek(answer.next)
                self._acknowledge(answer.next)
            case Outcome.SMALLER if len(payloads) > 1:
                self._unsent = []
                self._records = max(len(payloads) // 2, 1)
                self._reader.seek(first)
            case Outcome.SMALLER:
                self.stuck = True
        return answer

    @property
    def damage(self) -> list[str]:
        """What of the spool could not be read so far, in words; the server gets events in its place."""
        return self._reader.damage

    @property
    def segment(self) -> int:
        """The spool's file that is being sent."""
        return self._reader.segment

    def _acknowledge(self, following: int) -> None:
        if following != self.acked:
            self.acked = following
            spool.write_acked(self._folder, following)

    def close(self) -> None:
        """Let go of the files and the connection."""
        self._reader.close()
        self._client.close()


class Sender:
    """The daemon thread that delivers a running stream."""

    def __init__(self, folder: Path, meta: spool.Meta, token: str, page: str, keep: int) -> None:
        """`page` is the run's page, printed once the server has answered; "" where another rank prints it.

        keep: bytes of delivered records, of all runs together, that may stay on disk.
        """
        self._folder = folder
        self._keep = keep
        self._tidied = -1
        self._url = meta.url
        self._page = page
        self._delivery = Delivery(folder, meta, Client(meta.url, token))
        self._wake = threading.Event()
        self._closing = threading.Event()
        self._failures = 0
        self._greeted = not page
        self._told: set[str] = set()
        self._away = False
        self._refused = False
        self.processor_seconds = 0.0
        """What the thread has taken so far."""
        self._thread = threading.Thread(target=self._work, name="trainvitals-sender", daemon=True)
        self._thread.start()

    def close(self, timeout: float) -> bool:
        """Deliver what is left, for at most `timeout` seconds. Whether everything is delivered."""
        self._closing.set()
        self._wake.set()
        self._thread.join(timeout)
        delivered = not self._thread.is_alive() and not self._refused and self._failures == 0
        if not delivered and not self._refused and not self._told and self._page:
            say(
                f"not everything is delivered; `trainvitals sync` delivers what is in {self._folder}."
            )
        return delivered

    def _work(self) -> None:
        try:
            self._deliver()
        except (WireError, OSError) as error:
            self._refused = True
            say(f"sending stopped: {error} The records stay in {self._folder}.")
        finally:
            self._delivery.close()

    def _deliver(self) -> None:
        last_contact = 0.0
        while not self._refused:
            closing = self._closing.is_set()
            due = time.monotonic() - last_contact >= HEARTBEAT
            answer = self._delivery.send(heartbeat=due and not closing)
            self._tell_damage()
            if answer is None:
                if closing:
                    return
                self._pause(INTERVAL)
                continue
            last_contact = time.monotonic()
            self._pause(self._digest(answer))
            if closing and self._failures > 1:
                return

    def _digest(self, answer: Answer) -> float:
        """Say what there is to say about an answer; returns the seconds to wait before the next batch."""
        match answer.outcome:
            case Outcome.STORED:
                self._failures = 0
                if not self._greeted:
                    self._greeted = True
                    say(f"watching at {self._page}")
                elif self._away:
                    say("the server takes records again.")
                self._away = False
                self._tidy()
                return BEHIND_INTERVAL if self._delivery.behind else INTERVAL
            case Outcome.REWIND:
                return 0.0 if self._failures == 0 else INTERVAL
            case Outcome.SMALLER if not self._delivery.stuck:
                return 0.0
            case Outcome.LATER | Outcome.UNREACHABLE:
                self._failures += 1
                self._complain(answer)
                return answer.wait or min(INTERVAL * 2 ** min(self._failures - 1, 16), MAX_BACKOFF)
            case _:
                self._refused = True
                say(f"the server took no records: {answer.message} They stay in {self._folder}.")
                return 0.0

    def _tell_damage(self) -> None:
        """Say which records are lost, once."""
        for told in self._delivery.damage:
            if told not in self._told:
                self._told.add(told)
                say(f"{told}. The rest of {self._folder} is sent.")

    def _complain(self, answer: Answer) -> None:
        """Say why the records stay here, once for each reason."""
        if answer.outcome is Outcome.UNREACHABLE:
            text = (
                f"no server at {self._url}; recording to {self._folder}. "
                "`trainvitals sync` delivers it later."
            )
        elif self._failures >= PATIENCE or answer.wait >= LONG_WAIT:
            text = (
                f"the server takes no records for now: {answer.message} They stay in {self._folder} and are sent "
                "as soon as it takes them again; if the training ends before, `trainvitals sync` delivers them."
            )
        else:
            return
        if self._page and text not in self._told:
            self._told.add(text)
            self._away = True
            say(text)

    def _tidy(self) -> None:
        """Make room where delivered records take too much of it: at the start, and with each file that is sent."""
        if self._delivery.segment != self._tidied:
            self._tidied = self._delivery.segment
            root = self._folder.parents[1]
            try:
                housekeeping.tidy(root, self._keep)
            except OSError as error:
                say(f"delivered records can't be removed from {root}: {error.strerror or error}.")

    def _pause(self, seconds: float) -> None:
        self.processor_seconds = time.thread_time()
        if seconds > 0:
            self._wake.wait(min(seconds, INTERVAL) if self._closing.is_set() else seconds)
        if not self._closing.is_set():
            self._wake.clear()


MAX_ATTEMPTS = 20
"""How often in a row `sync` may be asked to try again later."""


class SyncResult(msgspec.Struct, kw_only=True):
    """What `sync` did."""

    streams: int = 0
    """Streams that were looked at."""
    delivered: int = 0
    """Records that the server has now and was not known to have before."""
    failed: dict[str, str] = {}
    """Stream folder to the reason why it could not be delivered in full."""
    damaged: dict[str, list[str]] = {}
    """Stream folder to what of it could not be read; what is behind the damage is delivered."""
    removed: int = 0
    """Bytes of delivered records that made room."""
    kept: int = 0
    """Bytes of delivered records that are still on this disk."""
    waiting: int = 0
    """Bytes of records that are still to deliver."""

    @property
    def ok(self) -> bool:
        """Whether everything is delivered."""
        return not self.failed


def sync(
    folder: Path,
    url: str,
    token: str = "",
    progress: Callable[[str, int], None] | None = None,
    keep: int | None = None,
) -> SyncResult:
    """Deliver all unacknowledged records of every stream at or below `folder` to the server at `url`.

    Sending a record twice is harmless: the server stores each number once. `progress` is called with the
    stream's folder and the number of records delivered of it. keep: bytes of delivered records that may stay,
    None for all. Raises ValueError when `folder` holds no stream or `url` is no address.
    """
    folders = spool.find_streams(Path(folder))
    if not folders:
        raise ValueError(f"{folder} holds no recorded run; expected a .trainvitals folder.")
    result = SyncResult()
    for stream in folders:
        result.streams += 1
        try:
            result.delivered += _sync_stream(stream, url, token, progress, result)
        except (_NotDeliveredError, OSError, ValueError) as error:
            result.failed[str(stream)] = str(error)
    if keep is not None:
        result.removed = housekeeping.tidy(folder, keep)
    left = housekeeping.holdings(folder)
    result.kept = sum(holding.delivered for holding in left)
    result.waiting = sum(holding.waiting for holding in left)
    return result


class _NotDeliveredError(Exception):
    """A stream of which the server has not everything."""


def _sync_stream(
    folder: Path,
    url: str,
    token: str,
    progress: Callable[[str, int], None] | None,
    result: SyncResult,
) -> int:
    meta = spool.read_meta(folder)
    elsewhere = meta.url.rstrip("/") != url.rstrip("/")
    delivery = Delivery(folder, meta, Client(url, token), anew=elsewhere)
    before = delivery.acked
    attempts = 0
    try:
        begin = time.monotonic()
        while (answer := delivery.send()) is not None:
            match answer.outcome:
                case Outcome.STORED | Outcome.REWIND:
                    if (
                        delivery.behind
                    ):  # at most half of the server's time, for the sake of live runs
                        time.sleep(min(time.monotonic() - begin, 1.0))
                    attempts = 0 if answer.outcome is Outcome.STORED else attempts + 1
                    before = min(before, delivery.acked)
                    if progress is not None:
                        progress(str(folder), delivery.acked - before)
                case Outcome.SMALLER if not delivery.stuck:
                    continue
                case Outcome.LATER:
                    attempts += 1
                    time.sleep(answer.wait or min(0.2 * 2**attempts, MAX_BACKOFF))
                case _:
                    raise _NotDeliveredError(answer.message)
            if attempts > MAX_ATTEMPTS:
                raise _NotDeliveredError(answer.message)
            begin = time.monotonic()
    finally:
        delivery.close()
        if delivery.damage:
            result.damaged[str(folder)] = delivery.damage
    return delivery.acked - before
