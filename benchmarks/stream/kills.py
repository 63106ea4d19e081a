"""`kill -9` of servers under four streaming clients, and of trainers; then everything that was sent is looked for."""

import multiprocessing
import os
import random
import subprocess
import sys
import tempfile
import time
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from multiprocessing.synchronize import Event as Flag
from pathlib import Path

import numpy as np
import psutil

from benchmarks.stream import proof, trainer
from benchmarks.stream.server import Server, wait_for
from benchmarks.stream.streams import Stream
from trainvitals.app.store import Store
from trainvitals.hooks import spool
from trainvitals.hooks.client import Client, Outcome, encode
from trainvitals.hooks.sender import sync
from trainvitals.hooks.wire import codec
from trainvitals.hooks.wire.bins import BINS
from trainvitals.hooks.wire.records import Event, Histograms, Step
from trainvitals.hooks.wire.scalars import expand

STREAMS = (("run-0", 0), ("run-0", 1), ("run-1", 0), ("run-2", 0))
"""Run and rank of each client: two ranks of one run, two runs of their own."""
LAYERS, COLUMNS = 24, 8
ROLES = {"worker": 5, "evaluator": 2, "master": 2, "all": 1}
"""What is killed, and how often in comparison."""
TRAINER_PAUSE_S = 0.01
TRAINERS = 2
"""Trainings at a time."""


class Varied(Stream):
    """Also histograms, events, NaN, and steps that go back."""

    def __init__(self, run: str, seed: int) -> None:
        super().__init__(run, layers=LAYERS, columns=COLUMNS, seed=seed)
        counts = np.random.default_rng(seed).integers(0, 900, (LAYERS, BINS))
        self._counts = codec.pack_counts(counts)

    def payload(self, seq: int) -> bytes:
        """Record `seq`, always the same bytes."""
        plain = codec.decode_record(super().payload(seq))
        if seq % 97 == 96:
            event = Event(seq=seq, time=1.7e9, step=seq, kind="monitor", message=f"event {seq}")
            return codec.encode_record(event)
        if not isinstance(plain, Step):
            return codec.encode_record(plain)
        again = seq - 40 if seq % 500 == 499 else plain.step
        loss = float("nan") if seq % 211 == 210 else 1.0 / seq
        histograms = []
        if seq % 50 == 49:
            histograms = [Histograms(group=0, kind="activation", counts=self._counts)]
        step = Step(
            seq=seq,
            time=plain.time,
            step=again,
            scalars={"train/loss": loss},
            samples=plain.samples,
            histograms=histograms,
        )
        return codec.encode_record(step)


@dataclass
class Tally:
    """What was done, what came of it, what is wrong."""

    kills: Counter[str] = field(default_factory=Counter)
    acknowledged: int = 0
    stored: int = 0
    lost_s: float = 0.0
    """Of a killed training: the longest time at its end of which its disk had nothing, seconds."""
    wrong: list[str] = field(default_factory=list)


def client(port: int, number: int, stop: Flag, counter, seed: int) -> None:  # type: ignore[no-untyped-def]
    """Stream until `stop`, whatever becomes of the server; `counter` holds what it acknowledged."""
    run, rank = STREAMS[number]
    chance = random.Random(seed)
    stream = Varied(run, number)
    connection = Client(f"http://127.0.0.1:{port}", "", timeout=10)
    following = 0
    while not stop.is_set():
        last = following + chance.randint(1, 30)
        payloads = [stream.payload(seq) for seq in range(following, last)]
        answer = connection.post(run, encode(run, "a1", rank, following, payloads))
        match answer.outcome:
            case Outcome.STORED:
                following = counter.value = answer.next
            case Outcome.REWIND:
                if answer.next < counter.value:
                    raise RuntimeError(f"{counter.value} acknowledged, {answer.next} wanted again")
                following = answer.next
            case Outcome.UNREACHABLE | Outcome.LATER:
                pass
            case _:
                raise RuntimeError(f"{answer.outcome}: {answer.message}")
        stop.wait(chance.uniform(0.0, 0.1))
    connection.close()


def kill_servers(kills: int, seed: int = 0) -> Tally:
    """So many kills of server processes at random moments, while four clients stream."""
    chance = random.Random(seed)
    tally = Tally()
    context = multiprocessing.get_context("spawn")
    stop = context.Event()
    counters = [context.Value("q", 0) for _ in STREAMS]
    with tempfile.TemporaryDirectory(prefix="trainvitals-") as folder:
        server = Server(Path(folder))
        server.log = Path(folder) / "server.log"
        server.start()
        clients = [
            context.Process(target=client, args=(server.port, n, stop, counters[n], seed + n))
            for n in range(len(STREAMS))
        ]
        try:
            for process in clients:
                process.start()
            wait_for(lambda: all(counter.value for counter in counters))
            while tally.kills.total() < kills:
                time.sleep(chance.uniform(0.02, 0.8))
                role = chance.choices(list(ROLES), list(ROLES.values()))[0]
                if _kill(server, role, chance):
                    tally.kills[role] += 1
            before = [counter.value for counter in counters]
            wait_for(lambda: all(c.value > b for c, b in zip(counters, before, strict=True)))
            stop.set()
            for process in clients:
                process.join(60)
                if process.exitcode != 0:
                    tally.wrong.append("a client was told something that can't be")
            wait_for(
                lambda: all(server.get(f"/api/v1/runs/{r}")["judged"] for r, _ in STREAMS), 240
            )
            server.stop()
        finally:
            for process in clients:
                process.kill()
            if server.process is not None:
                server.kill()
        _check_clients(server.database, [counter.value for counter in counters], tally)
    return tally


def _kill(server: Server, role: str, chance: random.Random) -> bool:
    """Whether there was something of that role to kill."""
    if role == "all":
        server.kill()
        restart(server)
        return True
    members = server.family()[role]
    if not members:
        return False
    try:
        chance.choice(members).kill()
    except psutil.NoSuchProcess:
        return False
    if role == "master":
        server.close()
        restart(server)
    return True


def restart(server: Server) -> None:
    """Start it again: what is left of the one that was killed may hold the port for a moment."""
    wait_for(lambda: not _port_is_taken(server.port), 60)
    server.start()


def _port_is_taken(port: int) -> bool:
    listening = [c for c in psutil.net_connections("tcp") if c.status == psutil.CONN_LISTEN]
    return any(connection.laddr.port == port for connection in listening)


def _check_clients(database: Path, acknowledged: list[int], tally: Tally) -> None:
    with Store.open(database) as store:
        for number, (run, rank) in enumerate(STREAMS):
            records = proof.stored(store, run).get(f"a1/{rank}", [])
            tally.acknowledged += acknowledged[number]
            tally.stored += len(records)
            tally.wrong += proof.compare(
                records, Varied(run, number).payload, acknowledged[number], f"{run}/{rank}"
            )
    tally.wrong += proof.sound(database)
    tally.wrong += proof.judged(database, sorted({run for run, _ in STREAMS}))


def kill_trainers(kills: int, seed: int = 0) -> Tally:
    """So many kills of trainings at random moments; what they left on disk is delivered and compared."""
    chance = random.Random(seed)
    tally = Tally()
    with tempfile.TemporaryDirectory(prefix="trainvitals-") as folder:
        server = Server(Path(folder)).start()
        work = Path(folder) / "work"
        work.mkdir()
        try:
            with ThreadPoolExecutor(
                TRAINERS
            ) as pool:  # most of the time a trainer loads its libraries
                lives = [chance.uniform(0.0, 1.5) for _ in range(kills)]
                printed = list(
                    pool.map(lambda life: _killed_trainer(server.url, work, life), lives)
                )
            tally.kills["trainer"] = kills
            streams = [work / ".trainvitals" / run for run, _ in printed]
            before = [spool.read_acked(path) for run in streams for path in run.iterdir()]
            result = sync(work / ".trainvitals", server.url)
            tally.wrong += [f"not delivered: {path}: {why}" for path, why in result.failed.items()]
            server.stop()
        finally:
            if server.process is not None:
                server.kill()
        tally.acknowledged = sum(before)
        with Store.open(server.database) as store:
            for run, last in printed:
                _check_trainer(store, work / ".trainvitals" / run, last, tally)
        tally.wrong += proof.sound(server.database)
    return tally


def _killed_trainer(url: str, folder: Path, life: float) -> tuple[str, int]:
    """Run id of a training that was killed after `life` seconds, and the last step that it printed."""
    command = [sys.executable, str(trainer.__file__), "1000000", str(TRAINER_PAUSE_S), "-1"]
    process = subprocess.Popen(
        command,
        cwd=folder,
        env=os.environ | {"TRAINVITALS_URL": url},
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
    )
    assert process.stdout is not None
    run = process.stdout.readline().strip()
    time.sleep(life)
    process.kill()
    steps = [int(line) for line in process.stdout.read().split()]
    process.wait()
    process.stdout.close()
    return run, max(steps, default=-1)


def _check_trainer(store: Store, folder: Path, last: int, tally: Tally) -> None:
    (stream,) = folder.iterdir()
    payloads = list(spool.read_payloads(stream))
    meta = spool.read_meta(stream)
    records = proof.stored(store, meta.run).get(f"{meta.attempt}/{meta.rank}", [])
    tally.stored += len(records)
    tally.wrong += proof.compare(records, payloads.__getitem__, len(payloads), meta.run)
    steps = [step.step for r in records for step in expand(r) if isinstance(step, Step)]
    tally.lost_s = max(tally.lost_s, (last - max(steps, default=-1)) * TRAINER_PAUSE_S)
