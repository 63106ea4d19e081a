"""What the process and its machine are doing, every few seconds, from a thread of its own.

Read from /proc where there is one; elsewhere (macOS) only what `resource` and the process's clock tell.
"""

import importlib
import os
import resource
import sys
import threading
import time
from pathlib import Path
from typing import Any, Protocol

FIRST = 1.0
"""Seconds until the first reading: a run that is over by then has nothing to tell."""
INTERVAL = 5.0
"""Seconds between readings."""
PREFIX = "tv/system/"
_GIB = float(1 << 30)
_STAT, _MEMINFO, _STATM = Path("/proc/stat"), Path("/proc/meminfo"), Path("/proc/self/statm")


class Watched(Protocol):
    """What the monitor has to know of its run."""

    @property
    def step(self) -> int | None:
        """The last step that was completed or logged for; None before the first."""

    @property
    def waited(self) -> float | None:
        """Seconds that the training has waited for its data so far; None when nobody counts them."""

    def report(self, step: int, scalars: dict[str, float]) -> None:
        """Record scalars."""


class SystemMonitor:
    """Reports to its run until it is stopped. Nothing before the first step: there is no place for it yet."""

    def __init__(self, run: Watched, first: float = FIRST, interval: float = INTERVAL) -> None:
        self._run = run
        self._stop = threading.Event()
        self._reader = Reader()
        self._waits = first, interval
        self.processor_seconds = 0.0
        """What the thread has taken so far."""
        self._thread = threading.Thread(target=self._work, name="trainvitals-system", daemon=True)
        self._thread.start()

    def stop(self) -> None:
        """Report no more."""
        self._stop.set()
        if self._thread is not threading.current_thread():
            self._thread.join(2.0)

    def _work(self) -> None:
        wait, interval = self._waits
        while not self._stop.wait(wait):
            wait = interval
            step = self._run.step
            if step is None:
                continue
            try:
                self._run.report(step, self._reader.read(self._run.waited))
            except Exception:  # a machine that tells nothing is no reason to disturb anybody
                return
            self.processor_seconds = time.thread_time()


class Reader:
    """Readings since the one before; the first since the reader was made."""

    def __init__(self) -> None:
        self._time = time.monotonic()
        self._cpu = time.process_time()
        self._machine = machine_cpu()
        self._waited = 0.0
        self._nvml: Any = None

    def read(self, waited: float | None) -> dict[str, float]:
        """Scalars by their whole name. `waited`: seconds that were waited for data so far."""
        now, cpu, machine = time.monotonic(), time.process_time(), machine_cpu()
        span = max(now - self._time, 1e-9)
        found: dict[str, float] = {"cpu": (cpu - self._cpu) / span}
        if waited is not None:
            found["data_wait"] = min(max(waited - self._waited, 0.0) / span, 1.0)
            self._waited = waited
        if machine is not None and self._machine is not None:
            busy, total = machine[0] - self._machine[0], machine[1] - self._machine[1]
            if total > 0:
                found["cpu_machine"] = busy / total
        found["memory"] = process_memory() / _GIB
        used = machine_memory()
        if used is not None:
            found["memory_machine"] = used
        found.update(self._gpus())
        self._time, self._cpu, self._machine = now, cpu, machine
        return {PREFIX + key: value for key, value in found.items()}

    def _gpus(self) -> dict[str, float]:
        """Of the devices that this process uses; starts no CUDA and waits for none."""
        torch = sys.modules.get("torch")
        if torch is None or not torch.cuda.is_available() or not torch.cuda.is_initialized():
            return {}
        found: dict[str, float] = {}
        for index in range(torch.cuda.device_count()):
            reserved = torch.cuda.memory_reserved(index)
            if reserved:
                found[f"gpu_memory/{index}"] = torch.cuda.memory_allocated(index) / _GIB
                found[f"gpu_reserved/{index}"] = reserved / _GIB
                busy = self._busy(torch, index)
                if busy is not None:
                    found[f"gpu_busy/{index}"] = busy
        return found

    def _busy(self, torch: Any, index: int) -> float | None:
        """The device's utilisation, 0 to 1; None without NVIDIA's management library for Python."""
        if self._nvml is None:
            try:
                self._nvml = importlib.import_module("pynvml")
            except ImportError:
                self._nvml = False
        return float(torch.cuda.utilization(index)) / 100 if self._nvml else None


def machine_cpu() -> tuple[float, float] | None:
    """Ticks that the machine's processors were busy, and all ticks, since it started; None off Linux."""
    try:
        fields = _STAT.read_text().split("\n", 1)[0].split()
        # user nice system idle iowait irq softirq steal; guest time is in user time already
        ticks = [float(field) for field in fields[1:9]]
    except (OSError, ValueError):
        return None
    return sum(ticks) - sum(ticks[3:5]), sum(ticks)


def process_memory() -> float:
    """Resident bytes of this process; its peak where the system does not tell."""
    try:
        return float(int(_STATM.read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE"))
    except (OSError, ValueError, IndexError):
        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        return float(peak if sys.platform == "darwin" else peak * 1024)


def machine_memory() -> float | None:
    """Share of the machine's memory that is in use, 0 to 1; None off Linux."""
    try:
        lines = dict(line.split(":", 1) for line in _MEMINFO.read_text().splitlines())
        total, free = (float(lines[key].split()[0]) for key in ("MemTotal", "MemAvailable"))
    except (OSError, ValueError, KeyError, IndexError):
        return None
    return 1 - free / total
