"""What each rule costs the evaluator, measured by replaying records."""

from collections.abc import Iterable
from time import perf_counter
from typing import Any

import msgspec

from trainvitals.app.rules.base import Rule
from trainvitals.app.rules.engine import Engine, StreamLike
from trainvitals.app.rules.policy import Policy
from trainvitals.hooks.wire.records import Record, Step


class Cost(msgspec.Struct, frozen=True, kw_only=True):
    """What a rule took over a replay."""

    rule: str
    seconds: float
    share: float
    """Of the time of all rules."""
    per_sample: float
    """Seconds per step that holds statistics, the steps between two of them included."""


class Meter(Engine):
    """An engine that takes the time of its rules."""

    def __init__(self, policy: Policy) -> None:
        super().__init__(policy=policy)
        self.seconds = {rule.id: 0.0 for rule in self._rules}
        self.samples = 0

    def feed(self, stream: StreamLike, record: Record) -> None:
        """Take the next record of `stream`."""
        self.samples += isinstance(record, Step) and bool(record.samples) and stream.rank == 0
        super().feed(stream, record)

    def _tell(self, rule: Rule, step: int, method: Any, *told: object) -> None:
        begin = perf_counter()
        super()._tell(rule, step, method, *told)
        self.seconds[rule.id] += perf_counter() - begin


def measure(records: Iterable[tuple[StreamLike, Record]], policy: Policy) -> tuple[int, list[Cost]]:
    """How many samples `records` hold, and what each rule took over them, the dearest first."""
    meter = Meter(policy)
    for stream, record in records:
        meter.feed(stream, record)
    whole = sum(meter.seconds.values())
    costs = [
        Cost(
            rule=rule,
            seconds=seconds,
            share=seconds / whole if whole else 0.0,
            per_sample=seconds / max(meter.samples, 1),
        )
        for rule, seconds in meter.seconds.items()
    ]
    return meter.samples, sorted(costs, key=lambda cost: -cost.seconds)
