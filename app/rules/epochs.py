"""Passes over the data, compared by the losses at the same places in them."""

import math
from collections.abc import Sequence
from typing import ClassVar, Final

import msgspec
import numpy as np
import numpy.typing as npt

from trainvitals.app.rules.base import Rule
from trainvitals.app.rules.context import Context, StepView
from trainvitals.app.rules.finding import Finding, RuleState
from trainvitals.app.rules.statistics import Curve, Persistence
from trainvitals.app.rules.thresholds import Count, Positive, Share

Floats = npt.NDArray[np.float64]

_PLACES: Final = 1024
"""First places of a pass whose losses are kept: more would make no correlation surer."""
_KNOWN: Final = 0.9
"""Share of them whose loss must be known."""
_TAIL: Final = 64
"""Losses kept until it is told that a pass began with them."""
_PAIRS: Final = 3
"""Pairs of passes that are taken together; two are enough."""
_BESIDE: Final = 0.75
"""Share of the correlation that may be left when one pass is shifted against the other."""


class Pair(msgspec.Struct, frozen=True):
    """Two passes, one after the other; or several such pairs."""

    begin: int
    """Step at which the later one began; of several, that of the first pair."""
    places: int
    """Places that were compared."""
    rho: float
    """The correlation; of several, their mean."""
    shifted: float
    """The highest one with a shift; of several, their mean."""


class EpochPositionCorrelated(Rule):
    """The loss depends on the place in the epoch: each pass over the data has the same ups and downs.

    Formula: Spearman's rank correlation of the losses of one pass and the next, place by place, as they differ from the
    median of their neighbours: its mean over the last 2 or 3 pairs of passes is above `rho` and above `deviations`/√n,
    of n places in all of them, 100 and more in each; and with one pass shifted by up to a quarter it is below three
    quarters of that. Default: the ups and downs of passes in an order of their own have a correlation of 0 ± 1/√n; the
    catalogue's 0.5 in each pair missed a plain net whose batches were noisy (0.36 to 0.54). Applies to: loops over a
    DataLoader of 100 batches and more whose loss is logged at every step. Guards: what changes slowly, as rates and the
    loss itself, is in the neighbours, too; what comes again at a fixed distance (cycles of the rate, tasks in turn) is
    there when shifted, too; several models have no loss of their own. Not found: parts of the data in a fixed order,
    shuffled within. Guide tips: 37. Sources: the catalogue's correlation by place; DL4J's ragged curve.
    """

    id: ClassVar[str] = "epoch-position-correlated"
    rho: ClassVar[Share] = 0.3
    """Mean correlation of passes. A fixed order of noisy small batches has 0.36 to 0.69, any other order about 0."""
    deviations: ClassVar[Positive] = 6.0
    """Standard deviations over chance, whose correlation is 0 ± 1/√n: 6 are met once in a thousand million times."""
    least: ClassVar[Count] = 100
    """Places of a pass. Fewer say little, and shuffling matters less the shorter a pass is."""
    remedy: ClassVar[str] = (
        "DataLoader(shuffle=True); sampler.set_epoch(epoch) with a DistributedSampler; no generator that is seeded "
        "anew in every epoch; a larger shuffle buffer for a stream. False alarm: data in order on purpose, as a time "
        "series or a curriculum."
    )

    loss: str = ""
    """Name of the loss that the passes hold."""
    begin: int = -1
    """Step at which the pass under way began."""
    now: list[float] = msgspec.field(default_factory=list)
    """Losses of the pass under way by place; NaN where there was none."""
    before: list[float] = msgspec.field(default_factory=list)
    tail: list[tuple[int, float]] = msgspec.field(default_factory=list)
    held: Persistence = msgspec.field(default_factory=Persistence)
    passes: int = 0
    pairs: list[Pair] = msgspec.field(default_factory=list)
    """The last three."""
    found: Pair = Pair(-1, 0, 0.0, 0.0)
    """All of those that last showed it, taken together."""
    curve: Curve = msgspec.field(default_factory=Curve)

    def on_step(self, context: Context, view: StepView) -> None:
        if context.loss.name != self.loss:
            self.loss, self.now, self.before, self.tail = context.loss.name, [], [], []
        if view.loss is not None:
            self.tail = [*self.tail, (view.step, view.loss)][-_TAIL:]
            self._put(view.step, view.loss)
        loader = view.observed.loader if view.observed is not None else None
        if loader is not None and loader.began > self.begin:
            self._end_pass()
            self.begin, self.passes = loader.began, self.passes + 1
            for step, loss in self.tail:
                self._put(step, loss)

    def _put(self, step: int, loss: float) -> None:
        place = step - self.begin
        if self.begin < 0 or not 0 <= place < _PLACES:
            return
        self.now.extend([math.nan] * (place + 1 - len(self.now)))
        self.now[place] = loss

    def on_end(self, context: Context) -> None:
        self._end_pass()

    def _end_pass(self) -> None:
        """Compare the pass under way with the one before it, as far as both go."""
        count = min(len(self.before), len(self.now))
        if count >= self.least:
            self._compare(np.array(self.before[:count]), np.array(self.now[:count]))
        self.before, self.now = self.now, []

    def _compare(self, before: Floats, now: Floats) -> None:
        known = np.isfinite(before) & np.isfinite(now)
        if known.mean() < _KNOWN or known.sum() < self.least:
            return
        one, two = (_ranks(_ups_and_downs(losses[known])) for losses in (before, now))
        rho = float((one * two).mean())
        self.pairs = [*self.pairs, Pair(self.begin, len(one), rho, _shifted(one, two))][-_PAIRS:]
        self.curve.add(self.begin, rho)
        if len(self.pairs) > 1:
            self._judge(_together(self.pairs))

    def _judge(self, pair: Pair) -> None:
        chance = 1 / math.sqrt(pair.places)
        over = (
            pair.rho > max(self.rho, self.deviations * chance) and pair.shifted < _BESIDE * pair.rho
        )
        if over:
            self.found = pair
        fired = self.held.fired
        self.held.update(self.begin, over, calm=pair.rho < self.rho / 2, k=1, n=1)
        if over and not fired:
            self.held.onset = pair.begin

    def findings(self, context: Context) -> list[Finding]:
        if not self.held.fired or context.several_models:
            return []
        found = self.found
        return [
            self._report(
                severity="warning",
                during=self.held.span,
                where="the training's data",
                title=f"The loss has the same ups and downs in every pass over the data (correlation {found.rho:.2f}), "
                f"since step {self.held.onset}",
                seen=f"Correlation {found.rho:.2f} of the losses of one pass and the next, over {found.places} places",
                expected=f"0 ± {1 / math.sqrt(found.places):.2f}",
                remedy=self.remedy,
                diff="- DataLoader(data, batch_size=64)\n+ DataLoader(data, batch_size=64, shuffle=True)",
                curve=self.curve.evidence("correlation with the pass before", None, self.rho),
            )
        ]

    def _without_finding(self, context: Context) -> RuleState:
        if context.several_models:
            return self._state(
                "not applicable", "Several models are trained, none of which has the loss."
            )
        if self.held.count:
            return self._state("ok", f"Correlation {_together(self.pairs).rho:.2f} of passes.")
        if self.begin < 0:
            return self._state(
                "not applicable",
                f"No pass over a DataLoader of {self.least} batches and more was seen.",
            )
        return self._state(
            "not enough data",
            f"{self.passes} passes so far, with a loss at every step needed in each.",
        )


def _together(pairs: Sequence[Pair]) -> Pair:
    return Pair(
        pairs[0].begin,
        sum(pair.places for pair in pairs),
        sum(pair.rho for pair in pairs) / len(pairs),
        sum(pair.shifted for pair in pairs) / len(pairs),
    )


def _ups_and_downs(losses: Floats) -> Floats:
    """What each loss differs by from the median of its neighbours, up to a twentieth of all on each side."""
    half = max(5, len(losses) // 20)
    around = np.lib.stride_tricks.sliding_window_view(
        np.pad(losses, half, mode="reflect"), 2 * half + 1
    )
    return losses - np.median(around, axis=1)


def _ranks(values: Floats) -> Floats:
    """Ranks with mean 0 and deviation 1, equal values on the same one; zeros where all are equal."""
    _, place, counts = np.unique(values, return_inverse=True, return_counts=True)
    ranks: Floats = (np.cumsum(counts) - counts / 2)[place]
    spread = float(ranks.std())
    return (ranks - ranks.mean()) / spread if spread > 0 else np.zeros(len(ranks))


def _shifted(one: Floats, two: Floats) -> float:
    """The highest correlation with `two` shifted by 1 to a quarter of all places, either way."""
    count = len(one)
    return max(
        max(float((one[by:] * two[:-by]).mean()), float((one[:-by] * two[by:]).mean()))
        for by in range(1, count // 4 + 1)
    )
