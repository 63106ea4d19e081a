"""`python -m benchmarks.stream`: load, kills and viewers, each printed beside what it has to reach."""

import argparse
import math

from benchmarks.stream import ingest, kills, viewers
from benchmarks.stream.viewers import percentile

PARTS = ("ingest", "kills", "viewers")


def main(arguments: list[str] | None = None) -> None:
    """The command line. Raises SystemExit 1 when a record was lost, doubled or changed."""
    parser = argparse.ArgumentParser(prog="benchmarks.stream", description=__doc__)
    parser.add_argument(
        "--quick", action="store_true", help="a few minutes instead of half an hour"
    )
    parser.add_argument("--only", choices=PARTS, help="one part")
    parser.add_argument("--minutes", type=float, help="of full load (10; 1 with --quick)")
    parser.add_argument("--seed", type=int, default=0, help="of the moments of the kills")
    options = parser.parse_args(arguments)
    quick = options.quick
    sound = True
    if options.only in (None, "ingest"):
        print_load(ingest.measure(60 * (options.minutes or (1 if quick else 10))))
    if options.only in (None, "kills"):
        sound &= print_kills("servers", kills.kill_servers(20 if quick else 200, options.seed))
        sound &= print_kills("trainings", kills.kill_trainers(5 if quick else 50, options.seed))
    if options.only in (None, "viewers"):
        print_watched(viewers.measure(20 if quick else 60))
    if not sound:
        raise SystemExit(1)


def print_load(load: ingest.Load) -> None:
    """Rate, processor time and memory."""
    print(f"\ningest: {ingest.CLIENTS} clients, 2 workers, {load.seconds:.0f} s of full load")
    print(f"  layer-steps per processor second of master and workers: {load.rate:,.0f} (500,000)")
    print(
        f"  the same with the evaluator, which judges meanwhile:    {load.rate_with_evaluator:,.0f}"
    )
    print(f"  layer-steps per second: {load.layer_steps / load.seconds:,.0f}")
    third = max(len(load.memory) // 3, 1)
    first = max(size for _, size in load.memory[:third])
    last = max(size for _, size in load.memory[-third:])
    print(
        f"  workers' memory: at most {first / 2**20:.0f} MB in the first third, {last / 2**20:.0f} MB in the last"
    )
    slowest = max(item.slowest_s for item in load.sent)
    refusals = sum(item.refusals for item in load.sent)
    print(f"  slowest batch {slowest:.1f} s; {refusals} times asked to come again")


def print_kills(what: str, tally: kills.Tally) -> bool:
    """What was killed and what came of it; whether nothing is wrong."""
    killed = ", ".join(f"{count} {role}" for role, count in tally.kills.most_common())
    print(f"\n{tally.kills.total()} kills of {what}: {killed}")
    print(f"  {tally.acknowledged:,} records acknowledged, {tally.stored:,} stored")
    if what == "trainings":
        print(
            f"  of what a training printed, at most the last {tally.lost_s:.2f} s were not on its disk"
        )
    for line in tally.wrong:
        print(f"  WRONG: {line}")
    if not tally.wrong:
        print("  nothing lost, doubled or changed; integrity_check ok; every summary as recomputed")
    return not tally.wrong


def print_watched(watched: viewers.Watched) -> None:
    """How long answers and new points took, and whether the load generator itself was slow."""
    times = watched.times
    print(f"\n{viewers.RUNS} live runs, {viewers.VIEWERS} viewers, {watched.seconds:.0f} s")
    asked = [value for values in times.requests.values() for value in values]
    rows = {
        "a data request (p99 300 ms)": asked,
        "a new point, made to seen (2 s)": times.seen,
        "a batch, sent to acknowledged": times.batches,
        "lateness of the load generator": times.late,
    }
    for name, values in rows.items():
        parts = [percentile(values, share) for share in (0.5, 0.99, 1.0)]
        told = " ".join("-" if math.isnan(part) else f"{1e3 * part:7.0f}" for part in parts)
        print(f"  {name:34} p50, p99, max: {told} ms ({len(values):,})")
    busy = ", ".join(
        f"{role} {100 * spent / watched.seconds:.0f} %" for role, spent in watched.cpu.items()
    )
    print(
        f"  processor: {busy}, load generator {100 * watched.generator_cpu / watched.seconds:.0f} %"
    )
    for line in sorted(set(times.errors))[:5]:
        print(f"  ERROR: {line}")


if __name__ == "__main__":
    main()
