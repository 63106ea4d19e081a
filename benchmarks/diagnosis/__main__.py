"""`python -m benchmarks.diagnosis`: train the corpus, judge it, print how right the diagnosis is."""

import argparse
from pathlib import Path

import msgspec

from benchmarks.diagnosis import report
from benchmarks.diagnosis.corpus import CASES
from benchmarks.diagnosis.runner import all_verdicts

ACCURACY = Path(__file__).parents[2] / "docs" / "rules" / "accuracy.md"


def main(arguments: list[str] | None = None) -> None:
    """The command line."""
    parser = argparse.ArgumentParser(prog="benchmarks.diagnosis", description=__doc__)
    parser.add_argument("--only", default="", help="cases whose name holds this text")
    parser.add_argument("--part", choices=("all", "tuned", "held-out"), default="all")
    parser.add_argument("--seeds", type=int, default=1, help="trainings of each case (1)")
    parser.add_argument("--processes", type=int, default=2, help="trainings at a time (2)")
    parser.add_argument("--keep", type=Path, metavar="DIR", help="leave the spools there")
    parser.add_argument(
        "--from", type=Path, metavar="DIR", dest="source", help="judge spools that were kept"
    )
    parser.add_argument("--json", type=Path, metavar="FILE", help="also write every verdict")
    parser.add_argument("--write", action="store_true", help=f"also write {ACCURACY.name} in docs")
    options = parser.parse_args(arguments)
    if options.seeds < 1 or options.processes < 1:
        parser.error("--seeds and --processes are numbers from 1 on")
    if options.source and not options.source.is_dir():
        parser.error(f"there is no folder {options.source}; make one with --keep")
    cases = [
        case
        for case in CASES.values()
        if options.only in case.name
        and (options.part == "all" or case.held_out == (options.part == "held-out"))
    ]
    if not cases:
        parser.error(f"no case has {options.only!r} in its name")
    verdicts = all_verdicts(cases, options.seeds, options.keep, options.source, options.processes)
    text = report.text(verdicts)
    print(text)
    if options.json:
        options.json.write_bytes(msgspec.json.encode(verdicts))
    if options.write:
        ACCURACY.parent.mkdir(exist_ok=True)
        ACCURACY.write_text(text)


if __name__ == "__main__":
    main()
