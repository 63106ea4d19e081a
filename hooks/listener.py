"""Asks the server now and then what it has found in a run. Loads no torch."""

import threading
import time
from collections.abc import Callable, Iterable
from typing import Final

import msgspec

from trainvitals.hooks.client import Client
from trainvitals.hooks.wire.verdict import MAX_BYTES, Finding, Verdict

INTERVAL: Final = 2.0
MAX_BACKOFF: Final = 30.0

_decoder = msgspec.json.Decoder(Verdict)


class Listener:
    """A daemon thread that hands on what the server says.

    What comes is data of fixed types and bounded sizes; anything else is dropped. Nothing of it is ever executed.
    """

    def __init__(
        self,
        url: str,
        token: str,
        run: str,
        tell: Callable[[Iterable[Finding]], None],
        complain: Callable[[str], None],
    ) -> None:
        """`tell` gets the findings, `complain` a sentence when an answer was not what it should be."""
        self._client = Client(url, token)
        self._path = f"/api/v1/runs/{run}/verdict"
        self._tell = tell
        self._complain = complain
        self._stop = threading.Event()
        self.processor_seconds = 0.0
        """What the thread has taken so far."""
        self._thread = threading.Thread(target=self._work, name="trainvitals-listener", daemon=True)
        self._thread.start()

    def close(self) -> None:
        """Ask no more. An answer that is under way is not waited for."""
        self._stop.set()

    def _work(self) -> None:
        pause = INTERVAL
        while not self._stop.wait(pause):
            heard = self._ask()
            pause = INTERVAL if heard else min(2 * pause, MAX_BACKOFF)
            self.processor_seconds = time.thread_time()
        self._client.close()

    def _ask(self) -> bool:
        """Whether the server said something that could be read."""
        content = self._client.get(self._path, MAX_BYTES)
        if content is None:
            return False
        try:
            verdict = _decoder.decode(content)
        except msgspec.MsgspecError as error:
            self._complain(f"The server's findings can't be read: {error}")
            return False
        self._tell(verdict.findings)
        return True
