"""Blocks of two loops in turn, and what they say about the difference."""

import statistics
import time
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass

Loop = Callable[[], object]
"""One step of a training."""
CALIBRATION = 5
"""Steps that `steps_for` takes."""


@dataclass(frozen=True)
class Pairs:
    """Seconds a step, of neighbouring blocks of equal length: without and with what is measured."""

    plain: Sequence[float]
    watched: Sequence[float]
    steps: int
    """Steps in each block."""

    def __len__(self) -> int:
        return len(self.plain)

    @property
    def total_steps(self) -> int:
        """Watched steps in all."""
        return self.steps * len(self.watched)

    @property
    def added(self) -> list[float]:
        """Added share of each pair: 0.01 is 1 % longer."""
        return [w / p - 1 for p, w in zip(self.plain, self.watched, strict=True)]

    @property
    def differences(self) -> list[float]:
        """Added seconds a step of each pair."""
        return [w - p for p, w in zip(self.plain, self.watched, strict=True)]

    @property
    def total_added(self) -> float:
        """Added share over all blocks together: nothing rare is lost, and no disturbance either."""
        return sum(self.watched) / sum(self.plain) - 1

    @property
    def share(self) -> float:
        """What is added as a share of the watched time, over all blocks together."""
        return 1 - sum(self.plain) / sum(self.watched)

    def chosen(self, places: Sequence[int]) -> "Pairs":
        """Those at these places."""
        return Pairs([self.plain[n] for n in places], [self.watched[n] for n in places], self.steps)

    def merged(self, count: int) -> "Pairs":
        """At most `count` larger pairs, each the mean of consecutive ones.

        What happens at few steps (a sample in fifty) is then in every pair and not in a few of them, where a
        median would not see it. Blocks that do not fill the last pair are left out.
        """
        size = max(1, len(self) // count)
        begins = range(0, len(self) - size + 1, size)
        return Pairs(
            [statistics.fmean(self.plain[n : n + size]) for n in begins],
            [statistics.fmean(self.watched[n : n + size]) for n in begins],
            self.steps * size,
        )

    def cut(self, count: int) -> list["Pairs"]:
        """So many equal parts, one after the other; pairs that are left over are in none."""
        size = len(self) // count
        return [self.chosen(range(n * size, (n + 1) * size)) for n in range(count)]


def joined(parts: Sequence[Pairs]) -> Pairs:
    """All pairs of these, one part after the other; their blocks are about equally long."""
    return Pairs(
        [plain for part in parts for plain in part.plain],
        [watched for part in parts for watched in part.watched],
        parts[0].steps,
    )


def quartiles(values: Sequence[float]) -> tuple[float, float, float]:
    """First quartile, median, third quartile, between neighbours where they fall between two values."""
    if len(values) < 2:
        return values[0], values[0], values[0]
    low, middle, high = statistics.quantiles(values, n=4, method="inclusive")
    return low, middle, high


def time_block(step: Loop, steps: int) -> tuple[float, float]:
    """Wall seconds and this process's CPU seconds a step, averaged over a block."""
    wall, cpu = time.perf_counter(), time.process_time()
    repeat(step, steps)
    return (time.perf_counter() - wall) / steps, (time.process_time() - cpu) / steps


def repeat(step: Loop, steps: int) -> None:
    """Take so many steps."""
    for _ in range(steps):
        step()


def steps_for(step: Loop, seconds: float) -> int:
    """How many steps fill a block of about that length, one at least."""
    fastest = min(time_block(step, 1)[0] for _ in range(CALIBRATION))
    return max(1, round(seconds / fastest))


def interleave(
    plain: Loop,
    watched: Loop,
    steps: int,
    pairs: int,
    paused: Callable[[], AbstractContextManager[object]],
    tell: Callable[[int, int], None],
    settle: int = 0,
) -> tuple[Pairs, Pairs]:
    """Run `pairs` pairs of blocks; wall and CPU times.

    Every second pair is run the other way round, so that a machine that gets slower or faster favours neither.
    The first step of a block finds the caches filled by the other loop, and perhaps functions of torch exchanged just
    before: that is so in blocks of either kind, and favours neither.
    `paused()` is entered around each plain block; `tell(done, of)` is called after each pair. `settle`: so many steps
    before each block do not count: what a tool leaves to its own threads and processes then disturbs none but its own.
    """
    without: list[tuple[float, float]] = []
    with_it: list[tuple[float, float]] = []

    def plain_block() -> None:
        with paused():
            repeat(plain, settle)
            without.append(time_block(plain, steps))

    def watched_block() -> None:
        repeat(watched, settle)
        with_it.append(time_block(watched, steps))

    for pair in range(pairs):
        blocks = (plain_block, watched_block)
        for block in blocks if pair % 2 == 0 else reversed(blocks):
            block()
        tell(pair + 1, pairs)
    wall, cpu = (
        Pairs([block[k] for block in without], [block[k] for block in with_it], steps)
        for k in (0, 1)
    )
    return wall, cpu
