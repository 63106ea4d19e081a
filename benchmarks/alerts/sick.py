"""Runs that each have one root cause: a loss that becomes NaN."""

import math
from urllib.error import HTTPError, URLError
from urllib.request import Request, urlopen

from trainvitals.hooks.wire.codec import encode_batch
from trainvitals.hooks.wire.records import Batch, Record, Start, Step

FINE_STEPS = 40
SICK_STEPS = 5


def batch(run: str, now: float) -> Batch:
    """All records of the run `run`."""
    records: list[Record] = [Start(seq=0, time=now, project="bench", name=run)]
    for step in range(FINE_STEPS + SICK_STEPS):
        loss = 2.0 / (step + 1) if step < FINE_STEPS else math.nan
        records.append(Step(seq=step + 1, time=now, step=step, scalars={"loss": loss}))
    return Batch(version=1, run=run, attempt="a1", rank=0, first=0, records=records)


def send(port: int, run: str, now: float) -> bool:
    """Send the run to a server; whether it said that it has it."""
    request = Request(
        f"http://127.0.0.1:{port}/api/v1/runs/{run}/batches",
        data=encode_batch(batch(run, now)),
        headers={"Content-Type": "application/vnd.trainvitals.batch"},
    )
    try:
        with urlopen(request, timeout=5) as answer:
            return int(answer.status) == 200
    except HTTPError as error:
        if error.code < 500:
            raise
        return False
    except (URLError, OSError):
        return False
