"""A comparison in several processes, as one outcome.

Where a step is short, what one process has by chance and keeps to its end (where its code and its memory lie, how
Python's dictionaries come out) makes a watched step longer or shorter by as much as there is to measure. Each process
draws anew, and what they differ by is in the error.
"""

import dataclasses
import statistics
from collections.abc import Callable, Sequence

from benchmarks.overhead.compare import Job, Outcome
from benchmarks.overhead.loops import joined


def measured(job: Job, compare: Callable[[Job], Outcome]) -> Outcome:
    """What `job.processes` calls of `compare` find, each of which has a process of its own."""
    first = compare(job)
    alike = dataclasses.replace(job, shape=first.shape)
    return together([first, *(compare(alike) for _ in range(job.processes - 1))])


def together(outcomes: Sequence[Outcome]) -> Outcome:
    """One of all pairs, one process after the other; everything else is the mean, and samples are all of them."""
    first, rest = outcomes[0], outcomes[1:]
    if not rest:
        return first
    reported = [found.reported for found in outcomes if found.reported is not None]
    samples = [found.samples for found in outcomes if found.samples is not None]

    def mean(name: str) -> float:
        return statistics.fmean(getattr(found, name) for found in outcomes)

    return dataclasses.replace(
        first,
        control=joined([found.control for found in outcomes]),
        wall=joined([found.wall for found in outcomes]),
        cpu=joined([found.cpu for found in outcomes]),
        **{name: mean(name) for name in ("cpu_steps", "cpu_ends", "start", "close")},
        **{name: round(mean(name)) for name in ("disk", "memory", "children")},
        samples=sum(samples) if samples else None,
        reported=statistics.fmean(reported) if reported else None,
    )
