"""Records of made-up trainings, encoded: statistics of many layers that wander as those of a training do."""

import numpy as np

from trainvitals.hooks.wire import codec
from trainvitals.hooks.wire.records import Layout, Row, Sample, Start, Step

POOL = 1000
"""Samples that differ. More than a block of the store has, so that none of its tiles repeats itself."""


class Stream:
    """One process of a run: record 0 starts it, 1 lays out a group, each further one is a step with a sample."""

    def __init__(
        self, run: str, *, layers: int = 200, columns: int = 20, pool: int = POOL, seed: int = 0
    ) -> None:
        self.run = run
        self.layers = layers
        random = np.random.default_rng(seed)
        rows = [Row(name=name, layer=name) for name in (f"blocks.{n}.mlp" for n in range(layers))]
        self._start = Start(seq=0, time=1.7e9, project="stream", name=run)
        self._layout = Layout(
            seq=1,
            time=1.7e9,
            step=0,
            group=0,
            kind="activation",
            rows=rows,
            columns=[f"statistic{number}" for number in range(columns)],
        )
        walk = random.normal(size=(layers, columns))
        self._samples = []
        for _ in range(pool):
            walk += random.normal(scale=0.01, size=walk.shape)
            values = np.exp(walk + random.normal(scale=0.05, size=walk.shape))
            self._samples.append(codec.pack_floats(values))

    def payload(self, seq: int) -> bytes:
        """Record `seq`, always the same bytes."""
        if seq == 0:
            return codec.encode_record(self._start)
        if seq == 1:
            return codec.encode_record(self._layout)
        step = seq - 2
        return codec.encode_record(
            Step(
                seq=seq,
                time=1.7e9 + 0.1 * seq,
                step=step,
                scalars={"train/loss": 2.0 + 1 / seq, "train/index": float(step)},
                samples=[Sample(group=0, values=self._samples[step % len(self._samples)])],
            )
        )
