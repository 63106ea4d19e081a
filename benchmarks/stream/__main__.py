"""`python -m benchmarks.stream`: load, kills, viewers and catching up, each printed beside what it has to reach."""

import argparse
import functools
import math
import sys
import time

from benchmarks.stream import catchup, ingest, kills, live, viewers
from benchmarks.stream.live import percentile, within

PARTS = ("ingest", "kills", "viewers", "catchup")


def main(arguments: list[str] | None = None) -> None:
    """The command line. Raises SystemExit 1 when a record was lost, doubled or changed."""
    parser = argparse.ArgumentParser(prog="benchmarks.stream", description=__doc__)
    parser.add_argument("--quick", action="store_true", help="five minutes instead of twenty-five")
    parser.add_argument("--only", choices=PARTS, nargs="+", help="some of the parts")
    parser.add_argument("--minutes", type=float, help="of full load (10; 1 with --quick)")
    parser.add_argument("--kills", type=int, help="of server processes (200; 20)")
    parser.add_argument("--trainer-kills", type=int, help="of trainings (50; 5)")
    parser.add_argument("--watch", type=float, help="seconds with a hundred viewers (60; 20)")
    parser.add_argument("--hours", type=float, help="that a client was offline (8; 1)")
    parser.add_argument("--seed", type=int, default=0, help="of the moments of the kills")
    options = parser.parse_args(arguments)

    def size(name: str, whole: float, quick: float) -> float:
        given: float | None = getattr(options, name)
        return given if given is not None else quick if options.quick else whole

    sound = True
    parts = options.only or PARTS
    if "ingest" in parts:
        minutes = size("minutes", 10, 1)
        say(f"ingest: {minutes:g} minutes of full load")
        print_load(ingest.measure(60 * minutes))
    if "kills" in parts:
        count = int(size("kills", 200, 20))
        say(f"kills: {count} of server processes, about 2 s each")
        sound &= print_kills("servers", kills.kill_servers(count, options.seed))
        count = int(size("trainer_kills", 50, 5))
        say(f"kills: {count} of trainings, about 5 s each")
        sound &= print_kills("trainings", kills.kill_trainers(count, options.seed))
    if "viewers" in parts:
        seconds = size("watch", 60, 20)
        say(f"viewers: {seconds:g} s, after a minute or two in which all gets going")
        print_watched(viewers.measure(seconds))
    if "catchup" in parts:
        hours = size("hours", 8, 1)
        say(f"catching up: what was recorded in {hours:g} hours, beside live runs")
        sound &= print_caught_up(catchup.measure(hours))
    say("done")
    if not sound:
        raise SystemExit(1)


_BEGUN = time.monotonic()

tell = functools.partial(print, flush=True)
"""Figures of a part are there as soon as it ends, also in a file."""


def say(text: str) -> None:
    """What goes on, with the minutes since the start."""
    print(f"[{(time.monotonic() - _BEGUN) / 60:4.1f} min] {text}", file=sys.stderr, flush=True)


def print_load(load: ingest.Load) -> None:
    """Rate, processor time and memory."""
    tell(f"\ningest: {ingest.CLIENTS} clients, 2 workers, {load.seconds:.0f} s of full load")
    tell(f"  layer-steps per processor second of master and workers: {load.rate:,.0f} (500,000)")
    tell(
        f"  the same with the evaluator, which judges meanwhile:    {load.rate_with_evaluator:,.0f}"
    )
    tell(f"  layer-steps per second: {load.layer_steps / load.seconds:,.0f}")
    third = max(len(load.memory) // 3, 1)
    first = max(size for _, size in load.memory[:third])
    last = max(size for _, size in load.memory[-third:])
    tell(
        f"  workers' memory: at most {first / 2**20:.0f} MB in the first third, {last / 2**20:.0f} MB in the last"
    )
    slowest = max(item.slowest_s for item in load.sent)
    refusals = sum(item.refusals for item in load.sent)
    tell(f"  slowest batch {slowest:.1f} s; {refusals} times asked to come again")


def print_kills(what: str, tally: kills.Tally) -> bool:
    """What was killed and what came of it; whether nothing is wrong."""
    killed = ", ".join(f"{count} {role}" for role, count in tally.kills.most_common())
    tell(f"\n{tally.kills.total()} kills of {what}: {killed}")
    tell(f"  {tally.acknowledged:,} records acknowledged, {tally.stored:,} stored")
    if what == "trainings":
        tell(
            f"  of what a training printed, at most the last {tally.lost_s:.2f} s were not on its disk"
        )
    for line in tally.wrong:
        tell(f"  WRONG: {line}")
    if not tally.wrong:
        tell("  nothing lost, doubled or changed; integrity_check ok; every summary as recomputed")
    return not tally.wrong


def print_watched(watched: viewers.Watched) -> None:
    """How long answers and new points took, and whether the load generator itself was slow."""
    times, start, end = watched.times, watched.start, watched.end
    tell(f"\n{live.RUNS} live runs, {viewers.VIEWERS} viewers, {watched.seconds:.0f} s")
    rows = {
        "a data request (p99 300 ms)": within(times.requests, start, end),
        "a new point, made to seen (2 s)": within(times.seen, start, end),
        "a batch, sent to acknowledged": within(times.batches, start, end),
        "lateness of the load generator": within(times.late, start, end),
        "before: all open their pages at once": within(times.requests, 0, start),
    }
    for name, values in rows.items():
        print_times(name, values)
    busy = ", ".join(
        f"{role} {100 * spent / watched.seconds:.0f} %" for role, spent in watched.cpu.items()
    )
    tell(
        f"  processor: {busy}, load generator {100 * watched.generator_cpu / watched.seconds:.0f} %"
    )
    print_errors(times)


def print_caught_up(done: catchup.CaughtUp) -> bool:
    """How long it took, and what live runs noticed of it; whether nothing is wrong."""
    took = done.busy[1] - done.busy[0]
    tell(
        f"\n{done.hours:g} hours offline: {done.spooled / 1e6:,.0f} MB, {done.records:,} records, caught up in "
        f"{took:.0f} s ({done.records / took:,.0f} records/s) beside {live.RUNS} live runs"
    )
    batches = done.times.batches
    print_times("a live batch meanwhile (p99 300 ms)", within(batches, *done.busy))
    print_times("a live batch without it", within(batches, *done.quiet))
    print_errors(done.times)
    for line in done.wrong:
        tell(f"  WRONG: {line}")
    return not done.wrong


def print_times(name: str, values: list[float]) -> None:
    """A line of times."""
    parts = [percentile(values, share) for share in (0.5, 0.99, 1.0)]
    told = " ".join("-" if math.isnan(part) else f"{1e3 * part:7.0f}" for part in parts)
    tell(f"  {name:36} p50, p99, max: {told} ms ({len(values):,})")


def print_errors(times: live.Times) -> None:
    """What went wrong, each kind once."""
    for line in sorted(set(times.errors))[:5]:
        tell(f"  ERROR: {line}")


if __name__ == "__main__":
    main()
