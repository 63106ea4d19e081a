"""`python -m benchmarks.overhead`: measure, print the tables, keep the figures."""

import argparse
import os
import sys
from dataclasses import replace
from pathlib import Path

import torch

from benchmarks.overhead import report
from benchmarks.overhead.measure import FULL, QUICK, measure
from benchmarks.overhead.models import MODELS


def _times(given: str) -> int:
    if not given.isdecimal() or int(given) < 1:
        raise argparse.ArgumentTypeError(f"expected a whole number from 1 on, got {given!r}")
    return int(given)


def main(arguments: list[str] | None = None) -> None:
    """The command line."""
    parser = argparse.ArgumentParser(prog="benchmarks.overhead", description=__doc__)
    parser.add_argument("--quick", action="store_true", help="a few minutes; figures scatter more")
    parser.add_argument(
        "--repeat",
        type=_times,
        default=1,
        metavar="N",
        help="measure N times, each in a fresh process: errors shrink by the root of N",
    )
    parser.add_argument("--only", default="", help="models, comma-separated: " + ", ".join(MODELS))
    parser.add_argument("--threads", type=int, help="threads of torch; its own choice if not given")
    parser.add_argument("--json", type=Path, metavar="FILE", help="also write every block's times")
    options = parser.parse_args(arguments)
    models = options.only.split(",") if options.only else list(MODELS)
    unknown = [name for name in models if name not in MODELS]
    if unknown:
        parser.error(f"no model {unknown[0]!r}; there are {', '.join(MODELS)}")
    if options.threads:
        torch.set_num_threads(options.threads)
        os.environ["OMP_NUM_THREADS"] = str(options.threads)  # of the processes that measure
    length = replace(QUICK if options.quick else FULL, repeats=options.repeat)
    measured = measure(models, length)
    print(report.text(measured))
    if options.json:
        options.json.write_text(report.as_json(measured))
        print(f"\nEvery block's times: {options.json}", file=sys.stderr)


if __name__ == "__main__":
    main()
