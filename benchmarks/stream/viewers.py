"""Twenty live runs with a hundred people watching them: how long answers take, how soon new points are seen."""

import multiprocessing
import random
import tempfile
import threading
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import quote

import msgspec
import psutil
import urllib3

from benchmarks.stream.live import HISTORY, RATE, RUNS, Times, feed, wait_until_judged
from benchmarks.stream.server import Server, processor_seconds

VIEWERS = 100
LISTS = 10
"""Viewers of the list of runs; the others watch the page of a run."""
POLL_S = 1.0
"""Between an answer and the list's next question, as in `live.js`; the page of a run is told when."""
PROCESSES = 2
"""That the viewers are spread over."""
OPENING_S = 6.0
"""In which the viewers open their pages, before anything is measured."""
_AS_A_BROWSER = {"Accept-Encoding": "gzip"}


@dataclass(frozen=True)
class Watched:
    """What came of it."""

    start: float
    end: float
    """Of the measured time, by the monotonic clock of the machine."""
    times: Times
    cpu: dict[str, float]
    """Processor seconds of the server, by role."""
    generator_cpu: float
    """Processor seconds of all that makes the load."""

    @property
    def seconds(self) -> float:
        """How long was measured."""
        return self.end - self.start


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
            answer = pool.request("GET", ask.address(), headers=_AS_A_BROWSER, timeout=20)
        except urllib3.exceptions.HTTPError as error:
            times.errors.append(f"{ask.kind}: {error}")
            continue
        times.requests.append((asked, time.monotonic() - asked))
        if answer.status != 200:
            times.errors.append(f"{ask.kind}: {answer.status}")
        else:
            ask.take(answer.data, begin, times)
        due = time.monotonic() + ask.pause
        stop.wait(ask.pause)
        times.late.append((due, time.monotonic() - due))
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
            at = time.monotonic()
            times.seen.extend((at, now - (begin + step / RATE)) for step in new)
        self._step = news.last_step


def measure(seconds: float) -> Watched:
    """So many seconds with all viewers, once their pages are open. Raises RuntimeError when nothing gets going."""
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
            wait_until_judged(server.url, 2 * RUNS * RATE)
            for process in viewers:
                process.start()
            time.sleep(OPENING_S)
            family = server.family()
            load = [psutil.Process(process.pid) for process in (feeder, *viewers)]
            before = {role: processor_seconds(members) for role, members in family.items()}
            made = processor_seconds(load)
            start = time.monotonic()
            time.sleep(seconds)
            end = time.monotonic()
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
    return Watched(start, end, times, cpu, made)
