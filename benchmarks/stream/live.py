"""Live runs: what their trainings would send, sent as their senders send it.

Step n of every run is made at `begin + n / RATE`, so that whoever reads a step can tell how old it is.
"""

import random
import threading
import time
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import urllib3

from trainvitals.hooks.client import Client, Outcome, encode
from trainvitals.hooks.sender import INTERVAL
from trainvitals.hooks.wire import codec
from trainvitals.hooks.wire.columns import ACTIVATION, PARAMETER
from trainvitals.hooks.wire.records import Layout, Row, Sample, Start, Step

RUNS = 20
RATE = 10
"""Steps a second of each run."""
SAMPLED = 10
"""Every so many steps has a sample of every layer."""
LAYERS = 40
HISTORY = 3000
"""Steps of each run before anything is measured."""


class LiveRun:
    """The records of one live run: scalars at every step, samples at some."""

    def __init__(self, number: int) -> None:
        self.run = f"live-{number:02d}"
        self.sent = 0
        self._random = np.random.default_rng(number)
        self._base = np.exp(self._random.normal(-2, 0.5, (LAYERS, 1)))
        names = [f"blocks.{n}.mlp" for n in range(LAYERS)]
        keys = [[column.key for column in group] for group in (ACTIVATION, PARAMETER)]
        rows = [
            [Row(name=name, layer=name, type="Linear", shape=(64, 256)) for name in names],
            [Row(name=f"{n}.weight", layer=n, type="Linear", shape=(256, 256)) for n in names],
        ]
        self._columns = keys
        self._head = [
            Start(seq=0, time=time.time(), project="live", name=self.run),
            *(
                Layout(
                    seq=1 + group, time=time.time(), step=0, group=group, kind=kind,
                    rows=rows[group], columns=keys[group],
                )
                for group, kind in enumerate(("activation", "parameter"))
            ),
        ]  # fmt: skip

    def payloads(self, before: int, begin: float) -> list[bytes]:
        """The records that were not asked for yet, up to step `before`."""
        found = [codec.encode_record(record) for record in self._head]
        self._head = []
        first = max(self.sent - 3, 0)
        for step in range(first, before):
            found.append(codec.encode_record(self._step(step, begin + step / RATE)))
        return found

    def _step(self, step: int, made: float) -> Step:
        scalars = {
            "train/loss": float(3.0 / (1 + step / 500) + self._random.normal(0, 0.05)),
            "train/accuracy": 1 - 1 / (1 + step / 800),
            "tv/grad_norm": float(np.exp(self._random.normal(0, 0.2))),
            "tv/lr/0": 1e-3,
            "tv/step_time": 0.1,
        }
        samples = []
        if step % SAMPLED == 0:
            samples = [
                Sample(group=group, values=codec.pack_floats(self._values(keys)))
                for group, keys in enumerate(self._columns)
            ]
        return Step(seq=step + 3, time=made, step=step, scalars=scalars, samples=samples)

    def _values(self, keys: list[str]) -> Any:
        values = self._base * np.exp(self._random.normal(0, 0.1, (LAYERS, len(keys))))
        for column, key in enumerate(keys):
            if "nonfinite" in key or "unchanged" in key:
                values[:, column] = 0.0
            elif key == "update_ratio":
                values[:, column] *= 1e-2
        return values


Timed = tuple[float, float]
"""When it began, by the monotonic clock of the machine, and how long it took, seconds."""


@dataclass
class Times:
    """Seconds that things took."""

    requests: list[Timed] = field(default_factory=list)
    """Of each answer to a viewer."""
    seen: list[Timed] = field(default_factory=list)
    """From when a step was made until a viewer had an answer with it, for each step and viewer."""
    late: list[Timed] = field(default_factory=list)
    """How much later than it wanted to a viewer asked: what the load generator itself adds."""
    batches: list[Timed] = field(default_factory=list)
    """Of each batch until it was acknowledged."""
    errors: list[str] = field(default_factory=list)

    def add(self, other: "Times") -> None:
        """Take in what another one has."""
        for name in ("requests", "seen", "late", "batches", "errors"):
            getattr(self, name).extend(getattr(other, name))


def within(timed: list[Timed], start: float, end: float) -> list[float]:
    """How long what began in that time took."""
    return [took for when, took in timed if start <= when < end]


def feed(url: str, begin: float, stop: Any, warm: Any, results: Any) -> None:
    """All live runs, each with a connection of its own, as their senders would send them."""
    runs = [LiveRun(number) for number in range(RUNS)]
    times = Times()
    ready = threading.Barrier(RUNS, action=warm.set)
    threads = [
        threading.Thread(target=_send, args=(url, run, begin, stop, ready, times)) for run in runs
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    results.put(times)


def _send(url: str, run: LiveRun, begin: float, stop: Any, ready: Any, times: Times) -> None:
    client = Client(url, "", timeout=30)
    chance = random.Random(run.run)
    waiting = False
    while not stop.is_set():
        before = min(int((time.time() - begin) * RATE) + 1, run.sent - 3 + 400)
        first = run.sent
        payloads = run.payloads(before, begin)
        body = encode(run.run, "a1", 0, first, payloads)
        asked = time.monotonic()
        answer = client.post(run.run, body)
        while answer.outcome is Outcome.LATER:
            stop.wait(answer.wait or 0.5)
            answer = client.post(run.run, body)
        times.batches.append((asked, time.monotonic() - asked))
        if answer.outcome is not Outcome.STORED:
            times.errors.append(f"batch: {answer.outcome} {answer.message}")
            return
        run.sent = answer.next
        behind = run.sent - 3 < int((time.time() - begin) * RATE) - 2 * RATE
        if not behind and not waiting:
            ready.wait()
            waiting = True
            stop.wait(chance.uniform(0, INTERVAL))
        if not behind:
            stop.wait(INTERVAL)
    client.close()


def wait_until_judged(url: str, most: int, timeout_s: float = 240.0) -> None:
    """Wait until the rules are at most so many records behind. Raises RuntimeError when they don't get there."""
    deadline = time.monotonic() + timeout_s
    while time.monotonic() < deadline:
        text = urllib3.request("GET", f"{url}/metrics").data.decode()
        line = next(
            line for line in text.splitlines() if line.startswith("trainvitals_records_unjudged ")
        )
        if float(line.split()[1]) <= most:
            return
        time.sleep(1)
    raise RuntimeError("the rules did not catch up with the runs")


def percentile(values: list[float], share: float) -> float:
    """The value that so large a share of `values` is no larger than; NaN for none."""
    return float(np.quantile(values, share)) if values else float("nan")
