"""A long training takes no more memory than a short one."""

import gc
import socket
import time
import tracemalloc
from collections.abc import Iterator
from typing import Any

import pytest
import torch

import trainvitals.hooks as tv
from trainvitals.hooks import sender

pytestmark = pytest.mark.slow


@pytest.fixture
def nowhere() -> Iterator[str]:
    """The address of a server that is not there."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        yield f"http://127.0.0.1:{probe.getsockname()[1]}"


def held(run: Any) -> int:
    """Bytes that Python holds, with nothing waiting to be written and after the sender has tried in vain.

    The least of some looks: while the sender packs a batch, zlib holds 300 KB, and a look may come just then.
    """
    run._recorder.flush()
    deadline = time.monotonic() + 20
    while (
        run._sender is not None and run._sender._failures < 2
    ):  # it loads what it needs at the first try
        assert time.monotonic() < deadline
        time.sleep(0.01)
    looks = []
    for _ in range(20):
        gc.collect()
        looks.append(tracemalloc.get_traced_memory()[0])
        time.sleep(0.01)
    return min(looks)


@pytest.mark.parametrize("mode", ["offline", "online"])
def test_nothing_grows_over_10_000_steps(
    mode: str, nowhere: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sender, "INTERVAL", 0.02)
    monkeypatch.setattr(sender, "MAX_BACKOFF", 0.05)
    monkeypatch.setattr(sender, "BATCH_BYTES", 4096)
    torch.manual_seed(0)
    model = torch.nn.Linear(2, 1)
    optimizer = torch.optim.SGD(model.parameters(), lr=1e-3)
    inputs = torch.randn(4, 2)
    run = tv.init(mode=mode, url=nowhere)
    tv.watch(model, optimizer, interval=100)
    tracemalloc.start()
    try:
        early = 0
        for step in range(10_000):
            optimizer.zero_grad()
            loss = model(inputs).square().mean()
            loss.backward()
            optimizer.step()
            tv.log({"train/loss": loss, "train/index": step})
            if step == 2_000:
                early = held(run)
        late = held(run)
    finally:
        tracemalloc.stop()
    assert (
        late - early < 100_000
    )  # a tenth of what the 8,000 rows between would take, kept anywhere
