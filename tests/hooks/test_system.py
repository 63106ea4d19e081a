"""Readings of the process and its machine, against those of psutil and against made-up clocks."""

import sys
import threading
import time
from pathlib import Path
from types import SimpleNamespace

import psutil
import pytest
import torch
from torch.utils.data import DataLoader, TensorDataset

import trainvitals.hooks as tv
from trainvitals.hooks import system
from trainvitals.hooks.system import Reader, SystemMonitor
from trainvitals.hooks.wire.columns import SCALARS

linux = pytest.mark.skipif(not Path("/proc/stat").exists(), reason="reads /proc")


@pytest.fixture
def clocks(monkeypatch):
    """Clocks that stand still until they are set."""
    now = SimpleNamespace(wall=100.0, cpu=7.0)
    fake = SimpleNamespace(monotonic=lambda: now.wall, process_time=lambda: now.cpu)
    monkeypatch.setattr(system, "time", fake)
    return now


def test_processor_time_is_in_cores_since_the_last_reading(clocks):
    reader = Reader()
    clocks.wall, clocks.cpu = 104.0, 10.0
    assert reader.read(None)["tv/system/cpu"] == pytest.approx(0.75)
    clocks.wall, clocks.cpu = 106.0, 13.0
    assert reader.read(None)["tv/system/cpu"] == pytest.approx(1.5)


def test_waiting_for_data_is_a_share_of_the_time_since_the_last_reading(clocks):
    reader = Reader()
    clocks.wall = 104.0
    assert reader.read(3.0)["tv/system/data_wait"] == pytest.approx(0.75)
    clocks.wall = 108.0
    assert reader.read(4.0)["tv/system/data_wait"] == pytest.approx(0.25)
    clocks.wall = 110.0
    assert reader.read(4.0)["tv/system/data_wait"] == 0.0
    assert "tv/system/data_wait" not in reader.read(None)


@linux
def test_memory_is_what_psutil_says():
    read = Reader().read(None)
    resident = psutil.Process().memory_info().rss / 2**30
    assert read["tv/system/memory"] == pytest.approx(resident, rel=0.05)
    assert read["tv/system/memory_machine"] == pytest.approx(
        psutil.virtual_memory().percent / 100, abs=0.05
    )


@linux
def test_the_machines_processors_are_read_as_psutil_reads_them():
    busy, total = system.machine_cpu()
    times = psutil.cpu_times()
    assert total == pytest.approx(
        100 * (sum(times) - times.guest - times.guest_nice), rel=0.001
    )  # ticks of 1/100 s
    assert total - busy == pytest.approx(100 * (times.idle + times.iowait), rel=0.001)


def test_without_proc_there_is_still_the_process(monkeypatch):
    for name in ("_STAT", "_MEMINFO", "_STATM"):
        monkeypatch.setattr(system, name, Path("/nowhere"))
    read = Reader().read(None)
    assert set(read) == {"tv/system/cpu", "tv/system/memory"}
    assert read["tv/system/memory"] > 0.01


def test_of_devices_those_in_use_are_read(monkeypatch):
    cuda = SimpleNamespace(
        is_available=lambda: True,
        is_initialized=lambda: True,
        device_count=lambda: 2,
        memory_reserved=lambda index: (0, 3 << 30)[index],
        memory_allocated=lambda index: (0, 1 << 30)[index],
        utilization=lambda index: 40,
    )
    monkeypatch.setitem(sys.modules, "torch", SimpleNamespace(cuda=cuda))
    monkeypatch.setitem(sys.modules, "pynvml", SimpleNamespace())
    found = Reader().read(None)
    devices = {key: value for key, value in found.items() if "gpu" in key}
    assert devices == {
        "tv/system/gpu_memory/1": 1.0,
        "tv/system/gpu_reserved/1": 3.0,
        "tv/system/gpu_busy/1": 0.4,
    }
    monkeypatch.setitem(sys.modules, "pynvml", None)
    assert not [key for key in Reader().read(None) if "busy" in key]


def test_every_reading_is_declared():
    declared = {column.key for column in SCALARS}
    assert set(Reader().read(0.0)) <= declared


def test_the_monitor_waits_for_the_first_step_and_survives_no_error():
    told = threading.Event()
    run = SimpleNamespace(step=None, waited=None, reports=[])

    def report(step, scalars):
        run.reports.append(step)
        told.set()
        raise RuntimeError("the run is gone")

    run.report = report
    monitor = SystemMonitor(run, first=0.01, interval=0.01)
    assert not told.wait(0.1)
    run.step = 4
    assert told.wait(10)
    monitor._thread.join(10)
    assert run.reports == [4]
    monitor.stop()


def test_a_run_reports_at_steps_that_are_complete(monkeypatch, recorded):
    monkeypatch.setattr(SystemMonitor.__init__, "__defaults__", (0.02, 0.02))
    model = torch.nn.Linear(2, 1)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.01)
    data = DataLoader(TensorDataset(torch.ones(40, 2)), batch_size=2)
    run = tv.init()
    tv.watch(model, optimizer)
    reported = []
    monkeypatch.setattr(
        run, "report", lambda step, s, to=run.report: (reported.append(step), to(step, s))
    )
    steps = 0
    while len(reported) < 3 or steps < 20:
        for (batch,) in data:
            optimizer.zero_grad()
            model(batch).mean().backward()
            optimizer.step()
            steps += 1
            time.sleep(0.001)
    threads = [thread.name for thread in threading.enumerate()]
    assert "trainvitals-system" in threads
    read = recorded()
    assert "trainvitals-system" not in [thread.name for thread in threading.enumerate()]
    memory = read.scalar("tv/system/memory")
    assert memory
    assert max(memory) < steps
    shares = read.scalar("tv/system/data_wait").values()
    assert all(0 < share < 1 for share in shares)
