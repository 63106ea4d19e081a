"""Trains and judges many cases in a few processes, with a line of progress."""

import multiprocessing
import shutil
import sys
import tempfile
import time
from collections.abc import Iterable
from pathlib import Path

import torch

from benchmarks.diagnosis.case import Case
from benchmarks.diagnosis.corpus import CASES
from benchmarks.diagnosis.judge import Verdict, judge
from benchmarks.diagnosis.together import launch
from benchmarks.diagnosis.training import run

Job = tuple[str, int, str, bool]
"""Name of the case, seed, folder of its spool, whether to train."""


def folder_of(root: Path, case: Case, seed: int) -> Path:
    """Where the spool of a training lies."""
    return root / f"{case.name}-{seed}"


def all_verdicts(
    cases: Iterable[Case], seeds: int, keep: Path | None, source: Path | None, processes: int
) -> list[Verdict]:
    """Verdicts for every case and seed, in that order.

    keep: where spools are to stay. source: where spools of an earlier call stayed; nothing is trained then.
    """
    with tempfile.TemporaryDirectory() as temporary:
        root = source or keep or Path(temporary)
        jobs = [
            (
                case.name,
                case.seed(number),
                str(folder_of(root, case, case.seed(number))),
                not source,
            )
            for case in cases
            for number in range(seeds)
        ]
        context = multiprocessing.get_context("spawn")
        verdicts, start = {}, time.monotonic()
        with context.Pool(processes, initializer=torch.set_num_threads, initargs=(1,)) as pool:
            for done, verdict in enumerate(pool.imap_unordered(_work, jobs), 1):
                verdicts[verdict.case, verdict.seed] = verdict
                line = f"{done}/{len(jobs)} after {time.monotonic() - start:.0f} s: {verdict.case}"
                if sys.stderr.isatty():
                    print(f"\r\x1b[K{line}", end="", file=sys.stderr, flush=True)
                elif done % 50 == 0 or done == len(jobs):
                    print(line, file=sys.stderr, flush=True)
        if sys.stderr.isatty():
            print(file=sys.stderr)
        return [verdicts[name, seed] for name, seed, _, _ in jobs]


def _work(job: Job) -> Verdict:
    name, seed, folder, wanted = job
    case, path = CASES[name], Path(folder)
    try:
        if wanted:
            shutil.rmtree(path, ignore_errors=True)
            path.mkdir(parents=True)
            torch.manual_seed(seed)
            if case.ranks > 1:
                launch(case, seed, path)
            else:
                run(case.build(), path, seed, case.interval)
        return judge(case, seed, path)
    except Exception as error:  # a case that fails is reported as such, beside all others
        return Verdict(name, seed, 0, 0, [], {}, f"{type(error).__name__}: {error}")
