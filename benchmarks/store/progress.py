"""One line on stderr that says how far a long work is."""

import sys
import time


class Progress:
    """Rewrites its line twice a second at most; says nothing where nobody watches."""

    def __init__(self) -> None:
        self._shown = 0.0
        self._watched = sys.stderr.isatty()

    def show(self, what: str, share: float) -> None:
        """`share`: 0 to 1."""
        now = time.monotonic()
        if share < 1.0 and now - self._shown < (0.5 if self._watched else 15.0):
            return
        self._shown = now
        end = "\r" if self._watched and share < 1.0 else "\n"
        print(f"  {what}: {share:.0%}   ", end=end, file=sys.stderr, flush=True)
