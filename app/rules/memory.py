"""gpu-memory-growth: tensors that are kept from step to step."""

from itertools import pairwise
from typing import ClassVar, Final

import msgspec

from trainvitals.app.rules.base import Rule
from trainvitals.app.rules.context import Context, StepView
from trainvitals.app.rules.finding import Finding, RuleState
from trainvitals.app.rules.statistics import MAX_CURVE, Persistence, number
from trainvitals.app.rules.thresholds import Count, Positive, Share

PREFIX: Final = "tv/system/gpu_memory/"
WINDOWS: Final = 10
"""Parts of a stretch whose lowest values are compared."""
EACH: Final = 3
"""Readings in a part, at least: one of them at random falls into the middle of a step, where memory is full."""


class Readings(msgspec.Struct):
    """What tensors hold on one device, GiB. Thinned by keeping the lower of two neighbours."""

    steps: list[int] = msgspec.field(default_factory=list)
    values: list[float] = msgspec.field(default_factory=list)
    stride: int = 1
    seen: int = 0
    held: Persistence = msgspec.field(default_factory=Persistence)
    rate: float = 0.0
    """Growth every 500 steps, relative to what was held before; the largest."""

    def add(self, step: int, value: float) -> None:
        """Take a later reading."""
        if self.seen % self.stride == 0:
            if len(self.steps) == MAX_CURVE:
                self.steps = self.steps[::2]
                pairs = zip(self.values[::2], self.values[1::2], strict=True)
                self.values = [min(pair) for pair in pairs]
                self.stride *= 2
            self.steps.append(step)
            self.values.append(value)
        else:
            self.values[-1] = min(self.values[-1], value)
        self.seen += 1

    def stretches(self) -> list[tuple[list[int], list[float]]]:
        """First steps and lowest values of the parts of all readings, of their last half and quarter."""
        found = []
        count = len(self.values)
        for size in (count, count // 2, count // 4):
            if size >= WINDOWS * EACH:
                edges = [count - size + size * part // WINDOWS for part in range(WINDOWS + 1)]
                lows = [min(self.values[i:j]) for i, j in pairwise(edges)]
                found.append(([self.steps[edge] for edge in edges[:-1]], lows))
        return found


class GpuMemoryGrowth(Rule):
    """The memory that tensors hold on a device grows from step to step."""

    id: ClassVar[str] = "gpu-memory-growth"
    growth: ClassVar[Share] = 0.05
    """Of what was held at first, every 500 steps: 20,000 steps would make it three times as much."""
    monotone: ClassVar[Share] = 0.8
    """Share of the windows that hold more than the one before. Ten readings in random order reach it once in 3,600
    times."""
    least: ClassVar[Positive] = 0.05
    """GiB by which it has grown in all: smaller things come and go with caches and statistics."""
    after: ClassVar[Count] = 20
    """First steps that do not count: gradients, the optimizer's state and workspaces are made in them."""

    devices: dict[str, Readings] = msgspec.field(default_factory=dict)

    def on_step(self, context: Context, view: StepView) -> None:
        if view.step < context.first_step + self.after:
            return
        for name, value in view.scalars.items():
            if name.startswith(PREFIX) and (name in self.devices or len(self.devices) < 64):
                device = self.devices.setdefault(name, Readings())
                device.add(view.step, value)
                self._judge(view.step, device)

    def _judge(self, step: int, device: Readings) -> None:
        stretches = device.stretches()
        if not stretches:
            return
        grown = [(self._growth(*stretch), stretch[0][0]) for stretch in stretches]
        rate, begin = max(grown)
        fired = device.held.fired
        device.held.update(step, rate >= self.growth, calm=rate < self.growth / 2, k=3, n=3)
        if device.held.fired and not fired:
            device.held.onset = begin
        if device.held.fired and rate >= self.growth:
            device.rate = max(device.rate, rate)

    def _growth(self, steps: list[int], lows: list[float]) -> float:
        """Every 500 steps, as a share of what was held at first; 0 where it does not grow from part to part."""
        gained = lows[-1] - lows[0]
        rises = [later > 1.001 * earlier for earlier, later in pairwise(lows)]
        steady = sum(rises) >= self.monotone * len(rises) and all(rises[-2:])
        if not steady or gained < self.least or lows[0] <= 0 or steps[-1] == steps[0]:
            return 0.0
        return gained / lows[0] * 500 / (steps[-1] - steps[0])

    def findings(self, context: Context) -> list[Finding]:
        over = {name: one for name, one in self.devices.items() if one.held.fired}
        if not over:
            return []
        name, worst = max(over.items(), key=lambda item: item[1].rate)
        device = f"GPU {name.removeprefix(PREFIX)}"
        return [
            self._report(
                severity="warning",
                during=worst.held.span,
                where=device,
                title=f"Tensors on {device} hold {100 * worst.rate:.0f} % more every 500 steps, since step "
                f"{worst.held.onset}",
                seen=f"From {worst.values[0]:.3g} to {worst.values[-1]:.3g} GiB",
                expected="The same memory after every step",
                remedy="Keep numbers, not tensors: losses.append(loss.item()), or loss.detach(). A loss that is kept "
                "keeps the graph of its step. Look for lists, running sums and retain_graph=True; a hidden state that "
                "is carried over needs detach().",
                diff="- total += loss\n+ total += loss.item()",
                curve={
                    "steps": worst.steps,
                    "values": [number(value) for value in worst.values],
                    "band": [None, None],
                    "label": "GPU memory in tensors (GiB)",
                },
            )
        ]

    def _without_finding(self, context: Context) -> RuleState:
        if not self.devices:
            return self._state("not applicable", "The training uses no GPU.")
        if all(not one.held.count for one in self.devices.values()):
            return self._state("not enough data", f"Judged from {WINDOWS * EACH} readings on.")
        return self._state("ok", "What tensors hold does not grow.")
