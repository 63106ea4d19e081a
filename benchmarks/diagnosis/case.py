"""What a case states: the training, and what is wrong with it, written down before anything is judged."""

import hashlib
from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

from benchmarks.diagnosis.training import Training

Kind = Literal["deterministic", "dynamic", "nan", "healthy", "twin"]
HELD_OUT_SEED = 1000
"""Added to the seeds of the part that nothing was tuned on."""


@dataclass(frozen=True)
class Case:
    """One training. For a healthy one or a fault's fixed twin `roots` is empty."""

    name: str
    """"fault@base" for a fault, "twin@base", or "healthy-...": files and tables go by it."""
    kind: Kind
    build: Callable[[], Training]
    roots: tuple[str, ...] = ()
    """Rules that name this fault: any of them as the first root is right."""
    also: tuple[str, ...] = ()
    """Rules that are right too, in a second root finding: what the fault truly brings about."""
    places: tuple[str, ...] = ()
    """Globs of layer names: the first layer that is named must match one. Empty: no place to tell."""
    onset: int | None = None
    """First step at which the fault can be seen; None where only the run itself tells."""
    direction: str = ""
    """For NaN: where it came from."""
    interval: int | None = None
    """As given to `tv.watch`; None is what users run."""
    ranks: int = 1
    """Processes that train together."""

    @property
    def fault(self) -> str:
        """The name without its base; "" for a healthy training."""
        return self.name.split("@")[0] if self.roots else ""

    @property
    def held_out(self) -> bool:
        """Whether the case belongs to the part that nothing is tuned on: two fifths, by its name alone."""
        return int(hashlib.sha256(self.name.encode()).hexdigest()[:8], 16) % 5 < 2

    def seed(self, number: int) -> int:
        """The seed of its `number`-th training."""
        return number + (HELD_OUT_SEED if self.held_out else 0)
