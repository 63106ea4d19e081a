"""`python -m benchmarks.diagnosis.cost`: what the rules cost, in processor seconds for a second of 20 trainings.

20 runs of 200 layers, each with 2 samples and 20 losses a second, fed to engines as the evaluator feeds them: in
batches of half a second, with findings asked for and the state saved after each batch, where each rule stands included.
"""

import argparse
import time
from typing import NamedTuple

import numpy as np

from trainvitals.app.garbage import collect_seldom
from trainvitals.app.rules import RULES
from trainvitals.app.rules.engine import Engine
from trainvitals.hooks.wire.codec import pack_floats
from trainvitals.hooks.wire.columns import ACTIVATION, PARAMETER
from trainvitals.hooks.wire.records import Layout, Record, Row, Sample, Start, Step

LIMIT = 0.25
"""Of one core."""
RUNS, LAYERS, SAMPLES, LOSSES = 20, 200, 2, 20


class Stream(NamedTuple):
    """Where the records seem to come from."""

    attempt: str = "a"
    rank: int = 0


def layouts() -> list[Record]:
    """100 linear layers, each followed by a ReLU: 200 rows of outputs and 200 of weights and biases."""
    layers = [f"block{index}" for index in range(LAYERS // 2)]
    outputs = [
        Row(name=f"{layer}.{kind}", layer=f"{layer}.{kind}", type=kind, shape=(32, 64))
        for layer in layers
        for kind in ("Linear", "ReLU")
    ]
    weights = [
        Row(name=f"{layer}.Linear.{part}", layer=f"{layer}.Linear", type="Linear", shape=shape)
        for layer in layers
        for part, shape in (("weight", (64, 64)), ("bias", (64,)))
    ]
    start = Start(seq=0, time=0.0, project="cost", name="cost")
    named = [
        Layout(
            seq=1,
            time=0.0,
            step=0,
            group=0,
            kind="activation",
            rows=outputs,
            columns=[c.key for c in ACTIVATION],
        ),
        Layout(
            seq=2,
            time=0.0,
            step=0,
            group=1,
            kind="parameter",
            rows=weights,
            columns=[c.key for c in PARAMETER],
        ),
    ]
    return [start, *named]


def records(seconds: int, seed: int) -> list[Record]:
    """`seconds` of one training: losses at every step, samples at every tenth."""
    generator = np.random.default_rng(seed)
    found, every = layouts(), LOSSES // SAMPLES
    for step in range(seconds * LOSSES):
        samples = []
        if step % every == 0:
            for group, columns in ((0, ACTIVATION), (1, PARAMETER)):
                values = generator.lognormal(-4, 0.3, (LAYERS, len(columns))).astype(np.float32)
                samples.append(Sample(group=group, values=pack_floats(values)))
        scalars = {
            "train/loss": float(2.3 * (1 + step / 50) ** -0.5 + generator.normal(0, 0.05)),
            "tv/grad_norm": float(generator.lognormal(0, 0.2)),
            "tv/lr/0": 1e-3,
        }
        found.append(Step(seq=len(found), time=0.0, step=step, scalars=scalars, samples=samples))
    return found


def measure(seconds: int, rules=RULES) -> float:
    """Processor seconds for each second of all runs."""
    one = records(seconds, 0)
    engines = [Engine(rules) for _ in range(RUNS)]
    batch = LOSSES // 2
    collect_seldom()
    start = time.process_time()
    for engine in engines:
        for first in range(0, len(one), batch):
            for record in one[first : first + batch]:
                engine.feed(Stream(), record)
            engine.findings()
            engine.save()  # with where each rule stands
    return (time.process_time() - start) / seconds


def main() -> None:
    """The command line."""
    parser = argparse.ArgumentParser(prog="benchmarks.diagnosis.cost", description=__doc__)
    parser.add_argument("--seconds", type=int, default=10, help="of training that is judged (10)")
    seconds = parser.parse_args().seconds
    none, whole = measure(seconds, ()), measure(seconds)
    print(f"{RUNS} runs, {LAYERS} layers, {SAMPLES} samples and {LOSSES} losses a second:")
    print(
        f"{100 * whole:.1f} % of one core (limit {100 * LIMIT:.0f} %); without any rule {100 * none:.1f} %"
    )
    for rule in RULES:
        print(f"{100 * (measure(seconds, (rule,)) - none):6.2f} %  {rule.id}")


if __name__ == "__main__":
    main()
