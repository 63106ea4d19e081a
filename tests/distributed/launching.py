"""Launches two ranks on this machine, as people do, and reads back what each of them recorded."""

import os
import socket
import subprocess
import sys
from pathlib import Path

from trainvitals.hooks.spool import Meta, find_streams, read_meta, read_stream
from trainvitals.hooks.wire.records import Record

FOLDER = Path(__file__).parent
TIMEOUT = 120

Streams = dict[int, tuple[Meta, list[Record]]]
"""Rank to its stream."""


def free_port() -> str:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return str(probe.getsockname()[1])


def launch(
    folder: Path, *words: str, program: str = "ranks.py"
) -> subprocess.CompletedProcess[str]:
    """Run `PROGRAM WORDS`, with `torchrun` before it or without; its ranks meet at a free port."""
    environment = {
        key: value
        for key, value in os.environ.items()
        if not key.startswith(("TRAINVITALS_", "TORCHELASTIC_"))
        and key not in ("RANK", "WORLD_SIZE")
    }
    environment |= {
        "TRAINVITALS_MODE": "offline",
        "TRAINVITALS_DIR": str(folder),
        "MASTER_ADDR": "127.0.0.1",
        "MASTER_PORT": free_port(),
        "OMP_NUM_THREADS": "1",
        "FOLDER": str(folder),
    }
    port = environment["MASTER_PORT"]
    torchrun = ["-m", "torch.distributed.run", "--nproc-per-node=2", "--master-port", port]
    before = torchrun if "torchrun" in words else []
    command = [sys.executable, *before, str(FOLDER / program), *words]
    return subprocess.run(
        command, env=environment, capture_output=True, text=True, timeout=TIMEOUT, check=False
    )


def streams_in(folder: Path) -> Streams:
    """Streams by rank; there must be one of each."""
    found: Streams = {}
    for stream in find_streams(folder / ".trainvitals"):
        meta = read_meta(stream)
        assert meta.rank not in found
        found[meta.rank] = meta, list(read_stream(stream))
    return found
