"""What a process and its children take: memory, processor time, disk."""

import resource
import time
from pathlib import Path

import psutil

MIB = 1 << 20


def _children() -> list[psutil.Process]:
    return psutil.Process().children(recursive=True)


def own_cpu() -> float:
    """Processor seconds of this process, all its threads."""
    return time.process_time()


def children_cpu() -> float:
    """Processor seconds of all children, those that run and those that ended."""
    ended = resource.getrusage(resource.RUSAGE_CHILDREN)
    total = ended.ru_utime + ended.ru_stime
    for child in _children():
        try:
            times = child.cpu_times()
        except psutil.NoSuchProcess:
            continue
        total += times.user + times.system
    return total


def resident() -> int:
    """Bytes in memory now, of this process alone."""
    return int(psutil.Process().memory_info().rss)


def peak_resident() -> int:
    """The most bytes that this process has had in memory."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024


def children_resident() -> int:
    """Bytes in memory now, of all children."""
    total = 0
    for child in _children():
        try:
            total += child.memory_info().rss
        except psutil.NoSuchProcess:
            continue
    return total


def on_disk(folder: Path) -> int:
    """Bytes of all files below `folder`."""
    return sum(path.lstat().st_size for path in folder.rglob("*") if path.is_file())
