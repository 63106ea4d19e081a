"""How a fault is written down: what it does to a training, where it goes in, what must be found."""

from collections.abc import Callable, Sequence

from benchmarks.diagnosis.bases import BASES
from benchmarks.diagnosis.case import Case, Kind
from benchmarks.diagnosis.training import Training

Injection = Callable[[Training], None]


class Faults:
    """The faults of one kind, registered by their injections."""

    def __init__(self, kind: Kind) -> None:
        self.kind = kind
        self.cases: list[Case] = []

    def into(
        self,
        *bases: str,
        roots: Sequence[str],
        also: Sequence[str] = (),
        places: Sequence[str] = (),
        onset: int | None = 0,
        direction: str = "",
        steps: int = 0,
        interval: int | None = None,
        name: str = "",
    ) -> Callable[[Injection], Injection]:
        """Register the decorated injection for each of `bases`."""

        def register(inject: Injection) -> Injection:
            fault = name or inject.__name__.replace("_", "-")
            for base in bases:
                self.cases.append(
                    Case(
                        f"{fault}@{base}",
                        self.kind,
                        _injected(base, inject, steps),
                        tuple(roots),
                        tuple(also),
                        tuple(places),
                        onset,
                        direction,
                        interval,
                    )
                )
            return inject

        return register


def _injected(base: str, inject: Injection, steps: int) -> Callable[[], Training]:
    def build() -> Training:
        training = BASES[base]()
        training.steps = steps or training.steps
        inject(training)
        return training

    return build
