"""Twenty live runs with a hundred people watching them: how long answers take, how soon new points are seen.

Step n of every run is made at `begin + n / RATE`, so that a viewer can tell from a number of a step how old it is.
"""

import multiprocessing
import random
import tempfile
import threading
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from urllib.parse import quote

import msgspec
import numpy as np
import psutil
import urllib3

from benchmarks.stream.server import Server, processor_seconds
from trainvitals.hooks.client import Client, Outcome, encode
from trainvitals.hooks.sender import INTERVAL
from trainvitals.hooks.wire import codec
from trainvitals.hooks.wire.columns import ACTIVATION, PARAMETER
from trainvitals.hooks.wire.records import Layout, Row, Sample, Start, Step

RUNS, VIEWERS = 20, 100
LISTS = 10
"""Viewers of the list of runs; the others watch the page of a run."""
RATE = 10
"""Steps a second of each run."""
SAMPLED = 10
"""Every so many steps has a sample of every layer."""
LAYERS = 40
HISTORY = 3000
"""Steps of each run before the viewers come."""
POLL_S = 1.0
"""Between an answer and a page's next question, as in `live.js`."""
PROCESSES = 2
"""That the viewers are spread over."""


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


@dataclass
class Times:
    """Seconds that things took."""

    requests: dict[str, list[float]] = field(default_factory=dict)
    """Of each answer, by kind of question."""
    seen: list[float] = field(default_factory=list)
    """From when a step was made until a viewer had an answer with it, for each step and viewer."""
    late: list[float] = field(default_factory=list)
    """How much later than it wanted to a viewer asked: what the load generator itself adds."""
    batches: list[float] = field(default_factory=list)
    """Of each batch until it was acknowledged."""
    errors: list[str] = field(default_factory=list)

    def add(self, other: "Times") -> None:
        """Take in what another one has."""
        for kind, values in other.requests.items():
            self.requests.setdefault(kind, []).extend(values)
        for name in ("seen", "late", "batches", "errors"):
            getattr(self, name).extend(getattr(other, name))


@dataclass(frozen=True)
class Watched:
    """What came of it."""

    seconds: float
    times: Times
    cpu: dict[str, float]
    """Processor seconds of the server, by role."""
    generator_cpu: float
    """Processor seconds of all that makes the load."""


class _Token(msgspec.Struct):
    token: str = ""


class _News(msgspec.Struct):
    """What a viewer's script reads of an answer."""

    version: int
    last_step: int
    again_ms: int
    texts: dict[str, str] = {}
    charts: dict[str, _Token] = {}
    map: _Token | None = None


class _Cards(msgspec.Struct):
    """What the list's script reads of an answer."""

    now: int
    runs: list[msgspec.Raw]


_decode = msgspec.json.Decoder(_News).decode
_decode_cards = msgspec.json.Decoder(_Cards).decode


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
        times.batches.append(time.monotonic() - asked)
        if answer.outcome is not Outcome.STORED:
            times.errors.append(f"batch: {answer.outcome} {answer.message}")
            return
        run.sent = answer.next
        behind = run.sent - 3 < int((time.time() - begin) * RATE) - 2 * RATE
        if not behind and not waiting:
            ready.wait()
            times.batches.clear()
            waiting = True
            stop.wait(chance.uniform(0, INTERVAL))
        if not behind:
            stop.wait(INTERVAL)
    client.close()


def watch(url: str, begin: float, numbers: list[int], stop: Any, results: Any) -> None:
    """Some viewers, each a thread that asks as an open page does."""
    every = [Times() for _ in numbers]
    threads = [
        threading.Thread(target=_view, args=(url, begin, number, stop, times))
        for number, times in zip(numbers, every, strict=True)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    total = Times()
    for times in every:
        total.add(times)
    results.put(total)


def _view(url: str, begin: float, number: int, stop: Any, times: Times) -> None:
    pool = urllib3.HTTPConnectionPool(
        "127.0.0.1", int(url.rsplit(":", 1)[1]), maxsize=1, retries=False
    )
    stop.wait(random.Random(number).uniform(0, POLL_S))
    ask = _Page(f"live-{number % RUNS:02d}") if number >= LISTS else _List()
    while not stop.is_set():
        asked = time.monotonic()
        try:
            answer = pool.request("GET", ask.address(), timeout=20)
        except urllib3.exceptions.HTTPError as error:
            times.errors.append(f"{ask.kind}: {error}")
            continue
        times.requests.setdefault(ask.kind, []).append(time.monotonic() - asked)
        if answer.status != 200:
            times.errors.append(f"{ask.kind}: {answer.status}")
        else:
            ask.take(answer.data, begin, times)
        due = time.monotonic() + ask.pause
        stop.wait(ask.pause)
        times.late.append(time.monotonic() - due)
    pool.close()


class _List:
    """The page with all runs: asks for the cards that changed."""

    kind = "list"
    pause = POLL_S

    def __init__(self) -> None:
        self._now = 0

    def address(self) -> str:
        return f"/api/v1/overview?since={self._now}&shelf=active"

    def take(self, body: bytes, begin: float, times: Times) -> None:
        """Remember since when to ask."""
        self._now = _decode_cards(body).now


class _Page:
    """The page of a run: asks for what is new of its texts, charts and map, by the tokens of what it has."""

    kind = "run"
    pause = POLL_S
    """Until it asks again, seconds."""

    def __init__(self, run: str) -> None:
        self._run = run
        self._version = self._step = -1
        self._known: dict[str, str] = {}
        self._map = ""

    def address(self) -> str:
        version = f"version={self._version}&" if self._version >= 0 else ""
        known = "".join(f"&known={quote(f'{key}~{item}')}" for key, item in self._known.items())
        return f"/api/v1/runs/{self._run}/live?{version}charts=run&map={self._map}{known}"

    def take(self, body: bytes, begin: float, times: Times) -> None:
        """Remember what the page has now; note since when it has what it had not before."""
        now = time.time()
        news = _decode(body)
        self._version = news.version
        self.pause = news.again_ms / 1e3
        self._known |= {key: chart.token for key, chart in news.charts.items()} | news.texts
        self._map = news.map.token if news.map else self._map
        if self._step >= 0:
            new = range(self._step + 1, news.last_step + 1)
            times.seen.extend(now - (begin + step / RATE) for step in new)
        self._step = news.last_step


def measure(seconds: float) -> Watched:
    """So many seconds with all viewers, after a while without them. Raises RuntimeError when nothing gets going."""
    context = multiprocessing.get_context("spawn")
    stop, warm = context.Event(), context.Event()
    fed, watched = context.Queue(), context.Queue()
    begin = time.time() - HISTORY / RATE
    with tempfile.TemporaryDirectory(prefix="trainvitals-") as folder:
        server = Server(Path(folder)).start()
        feeder = context.Process(target=feed, args=(server.url, begin, stop, warm, fed))
        numbers = [list(range(n, VIEWERS, PROCESSES)) for n in range(PROCESSES)]
        viewers = [
            context.Process(target=watch, args=(server.url, begin, part, stop, watched))
            for part in numbers
        ]
        try:
            feeder.start()
            if not warm.wait(120):
                raise RuntimeError("the runs did not get going")
            time.sleep(5)
            for process in viewers:
                process.start()
            time.sleep(4)
            family = server.family()
            load = [psutil.Process(process.pid) for process in (feeder, *viewers)]
            before = {role: processor_seconds(members) for role, members in family.items()}
            made = processor_seconds(load)
            start = time.monotonic()
            time.sleep(seconds)
            elapsed = time.monotonic() - start
            cpu = {role: processor_seconds(them) - before[role] for role, them in family.items()}
            made = processor_seconds(load) - made
            stop.set()
            times = fed.get(timeout=60)
            for _ in viewers:
                times.add(watched.get(timeout=60))
            for process in (feeder, *viewers):
                process.join()
            server.stop()
        finally:
            for process in (feeder, *viewers):
                if process.pid:
                    process.kill()
            if server.process is not None:
                server.kill()
    return Watched(elapsed, times, cpu, made)


def percentile(values: list[float], share: float) -> float:
    """The value that so large a share of `values` is no larger than; NaN for none."""
    return float(np.quantile(values, share)) if values else float("nan")
