"""How often a process looks for garbage in cycles.

Taking a batch in, or judging one, makes tens of thousands of small objects that live for a moment and hold no cycles.
With Python's own threshold the search for cycles among them takes a tenth of the processor time.
"""

import gc
from typing import Final

THRESHOLD: Final = 50_000
"""New objects between two searches (Python's own is 700 or 2,000): a few megabytes, should they all be garbage."""


def collect_seldom() -> None:
    """Search seldom, and never among what is there now: libraries and the app."""
    gc.collect()
    gc.freeze()
    gc.set_threshold(THRESHOLD)
