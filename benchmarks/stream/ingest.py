"""How much four clients get into a server with two workers, and what it costs the server.

A layer-step is a layer at one recorded step: here 20 statistics. The rate is per second of processor time of the
server's processes, so that it does not depend on what the clients take of the same machine.
"""

import multiprocessing
import multiprocessing.synchronize
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path

import psutil

from benchmarks.stream.server import Server, processor_seconds
from benchmarks.stream.streams import Stream
from trainvitals.app.store import Store
from trainvitals.hooks.client import Client, Outcome, encode
from trainvitals.hooks.sender import BATCH_BYTES

CLIENTS = 4
LAYERS, COLUMNS = 200, 20
WARM_S = 5.0
"""Until every process has done everything once."""
SAMPLE_S = 1.0


@dataclass(frozen=True)
class Sent:
    """What a client saw."""

    run: str
    records: int
    """Acknowledged."""
    refusals: int
    """Answers "later": 429 and 503."""
    slowest_s: float


@dataclass(frozen=True)
class Load:
    """What the server did in the measured time, which starts when everything is warm."""

    seconds: float
    layer_steps: int
    cpu: dict[str, float]
    """Processor seconds by role."""
    memory: list[tuple[float, int]]
    """Seconds since the start, and bytes of memory of all workers; of what processes share, each has its part."""
    sent: list[Sent]

    @property
    def rate(self) -> float:
        """Layer-steps per processor second of the master and the workers."""
        return self.layer_steps / (self.cpu["master"] + self.cpu["worker"])

    @property
    def rate_with_evaluator(self) -> float:
        """The same with the processor seconds of the evaluator counted too."""
        return self.layer_steps / sum(self.cpu.values())


def client(
    url: str,
    run: str,
    seed: int,
    stop: multiprocessing.synchronize.Event,
    counter: "multiprocessing.sharedctypes.Synchronized[int]",
    results: "multiprocessing.Queue[Sent]",
) -> None:
    """Send one run's records as fast as they are taken, in batches as a client that is behind makes them."""
    stream = Stream(run, layers=LAYERS, columns=COLUMNS, seed=seed)
    connection = Client(url, "", timeout=60)
    following, refusals, slowest = 0, 0, 0.0
    while not stop.is_set():
        payloads, size, seq = [], 0, following
        while size < BATCH_BYTES:
            payloads.append(stream.payload(seq))
            size += len(payloads[-1])
            seq += 1
        begin = time.monotonic()
        answer = connection.post(run, encode(run, "a1", 0, following, payloads))
        slowest = max(slowest, time.monotonic() - begin)
        if answer.outcome is Outcome.STORED:
            following = counter.value = answer.next
        elif answer.outcome is Outcome.LATER:
            refusals += 1
            stop.wait(answer.wait or 0.5)
        else:
            raise RuntimeError(f"{answer.outcome}: {answer.message}")
    connection.close()
    results.put(Sent(run, following, refusals, slowest))


def measure(seconds: float) -> Load:
    """Full load for so many seconds. Raises RuntimeError when what was acknowledged is not in the database."""
    context = multiprocessing.get_context("spawn")
    stop, results = context.Event(), context.Queue()
    with tempfile.TemporaryDirectory(prefix="trainvitals-") as folder:
        server = Server(Path(folder)).start()
        counters = [context.Value("q", 0) for _ in range(CLIENTS)]
        clients = [
            context.Process(
                target=client, args=(server.url, f"run-{n}", n, stop, counters[n], results)
            )
            for n in range(CLIENTS)
        ]
        try:
            for process in clients:
                process.start()
            load = _watch(server, clients, counters, seconds)
            stop.set()
            sent = sorted((results.get(timeout=120) for _ in clients), key=lambda item: item.run)
            for process in clients:
                process.join()
            server.stop()
        finally:
            for process in clients:
                process.kill()
            if server.process is not None:
                server.kill()
        with Store.open(server.database) as store:
            for item in sent:
                stored = store.next_seq(item.run, "a1", 0)
                if stored != item.records:
                    raise RuntimeError(
                        f"{item.run}: {item.records} acknowledged, {stored} in the database"
                    )
        return Load(*load, sent=sent)


def _watch(server: Server, clients, counters, seconds):  # type: ignore[no-untyped-def]
    begin = time.monotonic()
    while time.monotonic() - begin < WARM_S or not all(counter.value for counter in counters):
        for process in clients:
            if process.exitcode is not None:
                raise RuntimeError("a client has ended")
        time.sleep(0.1)
    family = server.family()
    before = {role: processor_seconds(members) for role, members in family.items()}
    records = sum(counter.value for counter in counters)
    begin = time.monotonic()
    memory: list[tuple[float, int]] = []
    while (now := time.monotonic() - begin) < seconds:
        memory.append((now, resident(family["worker"])))
        time.sleep(min(SAMPLE_S, seconds - now))
    taken = sum(counter.value for counter in counters) - records
    cpu = {role: processor_seconds(members) - before[role] for role, members in family.items()}
    return time.monotonic() - begin, taken * LAYERS, cpu, memory


def resident(members: list[psutil.Process]) -> int:
    """Bytes of memory that these processes hold; of what processes share, each has its part."""
    return sum(member.memory_full_info().pss for member in members)
